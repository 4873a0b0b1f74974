# SPDX-License-Identifier: GPL-2.0-only
"""Where the address of a function goes that is carried.

Pointers to the old one are equal, and ftrace leads on from there. But a function of which nobody took the address has
no ENDBR, and no hash of its type: under IBT and kCFI a pointer to it cannot be called.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from snippets import Compiler

from kbuild_klp.builds.single_object import ObjectBuild
from kbuild_klp.compare.passes import compare
from kbuild_klp.elf import constants as elf
from kbuild_klp.elf.reader import ObjectFile
from kbuild_klp.extract.extraction import extract
from kbuild_klp.object.view import ObjectView

SOURCE = """
#define noinline __attribute__((noinline))
int outside(int);
void tell(int (*)(int));
static noinline int callback(int x) { return outside(x) + %d; }
%s
int user(int x) { outside(7); return callback(x) + 1; }
int teller(int x) { %s return x; }
"""
TELL, TABLE = "tell(callback);", "static int (*const table[])(int) = { callback, outside };"
IBT, KCFI = (
    ("-fcf-protection=branch",),
    ("-fsanitize=kcfi", "-fcf-protection=branch", "-fpatchable-function-entry=16,16"),
)


def _goals(compiler: Compiler, directory: Path, old: str, new: str, *flags: str) -> set[bool]:
    """Return whether pointers to the function are to that of the livepatch, after an extraction."""
    before, after = (str(compiler.object(source, "-pg", "-mfentry", *flags)) for source in (old, new))
    output = str(directory / "out.o")
    found = extract(before, after, output)
    assert not found.refused
    view = ObjectView(ObjectFile.open(output))
    rows = view.object.relocations(view.canonical.image.order)
    is_pointer = [kind in (1, 11) for kind in rows.type.tolist()]  # R_X86_64_64, R_X86_64_32S
    symbols = [symbol for symbol, wanted in zip(rows.symbol.tolist(), is_pointer, strict=True) if wanted]
    return {bool(view.object.shndx[it] != elf.SHN_UNDEF) for it in symbols if view.object.symbol_name(it) == "callback"}


@pytest.mark.parametrize("table", ["", TABLE])
def test_one_to_which_nobody_pointed(cc: Compiler, tmp_path: Path, table: str) -> None:
    """It differs, for it begins with ENDBR now; who registers it registers the new one."""
    old, new = SOURCE % (3, "", ""), SOURCE % (3, table, "tell(table[x]);" if table else TELL)
    assert _goals(cc, tmp_path, old, new, *IBT) == {True}


def test_one_to_which_nobody_pointed_has_no_hash(clang: Compiler, tmp_path: Path) -> None:
    assert _goals(clang, tmp_path, SOURCE % (3, "", ""), SOURCE % (3, "", TELL), *KCFI) == {True}


def test_one_to_which_somebody_points(cc: Compiler, tmp_path: Path) -> None:
    other = "int (*const known)(int) = callback;"
    old, new = SOURCE % (3, other, ""), SOURCE % (4, other, TELL)
    assert _goals(cc, tmp_path, old, new, *IBT) == {False}
    assert _goals(cc, tmp_path, SOURCE % (3, "", TELL), SOURCE % (4, "", TELL + "outside(2);"), *IBT) == {False}


def test_a_global_one_may_be_known_to_others(cc: Compiler, tmp_path: Path) -> None:
    old, new = (SOURCE.replace("static", "") % (3, "", tell) for tell in ("", TELL))
    assert _goals(cc, tmp_path, old, new.replace("+ 3", "+ 5"), *IBT) == {False}


TYPES = """
int outside(int);
struct operations { int (*call)(%(type)s); };
%(binding)s int callback(%(type)s x) { return outside(x) + %(number)s; }
%(more)s
int user(struct operations *with) { return with->call(3); }
"""
REGISTER = "void register_it(struct operations *with) { with->call = callback; }"


def _verdict(compiler: Compiler, binding: str, more: tuple[str, str], types: tuple[str, str], *flags: str) -> list[str]:
    """Return what is in the way of a livepatch for `callback`, of two versions that differ in its type."""
    sources = (
        TYPES % {"binding": binding, "more": it, "type": kind, "number": number}
        for number, it, kind in zip((1, 2), more, types, strict=True)
    )
    old, new = (ObjectBuild(str(compiler.object(source, "-pg", "-mfentry", *flags))) for source in sources)
    [group] = compare(old, new).objects
    [change] = [change for change in group.changes if change.symbol == "callback"]
    return [it.text for it in change.livepatch.reasons if "whether its name is unique" not in it.text]


@pytest.mark.parametrize("binding", ["static", ""])
def test_pointers_to_what_has_another_type(clang: Compiler, binding: str) -> None:
    """Who calls one compares the hash of the new type with that before the old function."""
    told = ["kCFI: its type changed, and pointers to the old one are called as one of the new"]
    assert _verdict(clang, binding, (REGISTER, REGISTER), ("int", "long"), *KCFI) == told
    assert _verdict(clang, binding, (REGISTER, REGISTER), ("int", "int"), *KCFI) == []
    assert _verdict(clang, binding, (REGISTER, REGISTER), ("int", "long"), *IBT) == []


def test_pointers_of_others_to_what_has_another_type(clang: Compiler) -> None:
    [text] = _verdict(clang, "", ("", ""), ("int", "long"), *KCFI)
    assert text.startswith("not checked: whether other objects call it")


def test_no_pointers_to_what_has_another_type(clang: Compiler) -> None:
    called = "int caller(int x) { return callback(x); }"
    assert _verdict(clang, "static __attribute__((noinline))", (called, called), ("int", "long"), *KCFI) == []
    pointed = called + REGISTER
    assert _verdict(clang, "static __attribute__((noinline))", (called, pointed), ("int", "long"), *KCFI) == []
