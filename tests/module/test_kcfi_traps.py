# SPDX-License-Identifier: GPL-2.0-only
"""kCFI's traps: a place each where an indirect call was to another type, which the kernel looks up (is_cfi_trap())."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from snippets import KERNEL_FLAGS, Compiler

from kbuild_klp.elf.reader import ObjectFile
from kbuild_klp.errors import BadObjectError
from kbuild_klp.extract.extraction import extract
from kbuild_klp.module.finished import check_linked
from kbuild_klp.object.special_entries import special_entries
from kbuild_klp.object.view import ObjectView

_FLAGS = ("-pg", "-mfentry", "-fsanitize=kcfi", "-fcf-protection=none")
_C = """
int outside(int);
int user(int (*call)(int), int (*again)(int), int x) { %s return again(x) + %d; }
int other(int (*call)(int), int x) { return outside(call(x)) - 1; }
int direct(int x) { return outside(x) + %d; }
"""


def _traps(path: Path) -> dict[str, int]:
    """How many traps each function has, and that each is at one of its instructions."""
    view = ObjectView(ObjectFile.open(str(path)))
    found = {}
    for name in ("user", "other", "direct"):
        for part in view.functions_called(name):
            entries = special_entries(view, view.family(part)).get(".kcfi_traps", [])
            found[name] = len({entry.place for entry in entries})
            assert all(view.raw_bytes(part, entry.place, 2) == b"\x0f\x0b" for entry in entries)  # ud2
    return found


@pytest.fixture
def kcfi(clang: Compiler) -> Compiler:
    flags = [flag for flag in KERNEL_FLAGS if flag != "-fcf-protection=none"]
    return Compiler(clang.command, clang.directory, (*flags, *_FLAGS))


def test_each_function_brings_its_own(kcfi: Compiler, tmp_path: Path) -> None:
    old = kcfi.object(_C % ("", 1, 1))
    new = kcfi.object(_C % ("x += call(x);", 2, 2))
    assert _traps(new) == {"user": 2, "other": 1, "direct": 0}
    made = extract(str(old), str(new), str(tmp_path / "out.o"))
    assert {it.symbol for it in made.carried if it.kind == "function"} >= {"user", "direct"} and not made.refused
    assert _traps(tmp_path / "out.o") == {"user": 2, "direct": 0}


# A call through a pointer, and its trap; the table is how a module refers to what it brings.
_CODE = """
    .section .text.{name}, "ax"
    .type {name}, @function
{name}: je 1f
2:  ud2
1:  call *%rax
    ret
3:  ud2
    .size {name}, . - {name}
    .section .kcfi_traps, "a"
    .long {trap} - .
    .section .init.{name}, "a"
    .globl table_{name}
table_{name}: .quad {name}
"""
# scripts/module.lds.S
_SCRIPT = "SECTIONS { .text 0 : { *(.text.*) } %s 0 : { KEEP(*(.kcfi_traps)) } }"


def _made(directory: Path, name: str, trap: str) -> Path:
    path = directory / f"{name}{trap}.o"
    text = _CODE.format(name=name, trap=trap)
    subprocess.run(["gcc", "-c", "-x", "assembler", "-", "-o", str(path)], input=text, text=True, check=True)
    return path


def _check(directory: Path, called: str, made: list[Path], linked: list[Path]) -> int:
    (directory / "module.lds").write_text(_SCRIPT % called)
    module = directory / "module.ko"
    subprocess.run(["ld", "-r", "-T", str(directory / "module.lds"), "-o", module, *linked], check=True)
    return check_linked(ObjectFile.open(str(module)), [path.read_bytes() for path in made])


@pytest.mark.parametrize("called", ["__kcfi_traps", ".kcfi_traps"])
def test_it_is_found_by_what_modules_call_it(tmp_path: Path, called: str) -> None:
    glue, one, two = (_made(tmp_path, name, "2b") for name in ("glue", "one", "two"))
    assert _check(tmp_path, called, [one, two], [glue, one, two]) == 4


@pytest.mark.parametrize("called", ["__kcfi_traps", ".kcfi_traps", "__other_traps"])
def test_a_trap_that_is_lost_or_elsewhere(tmp_path: Path, called: str) -> None:
    glue, one, moved = _made(tmp_path, "glue", "2b"), _made(tmp_path, "one", "2b"), _made(tmp_path, "one", "3b")
    with pytest.raises(BadObjectError):
        _check(tmp_path, called, [one], [glue, one if called == "__other_traps" else moved])
