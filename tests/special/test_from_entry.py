# SPDX-License-Identifier: GPL-2.0-only
"""Distances that count from the start of an entry, not from their own place: x86's bug table up to 5.18."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
from line_trees import CHANGED, INFERRED, Answer, Pairs, answers
from snippets import Compiler, changed, diff_objects

from kbuild_klp.object.view import ObjectView

ENTRY = '.pushsection __bug_table, "aw"\n7: .long {label} - {base}, {file} - {base}\n.word {line}, 1\n.popsection'
BASES = pytest.mark.parametrize("base", ["7b", "."])
STRINGS = '.section .rodata.str1.1, "aMS", @progbits, 1\n'


def functions(base: str, names: tuple[str, ...], line: int = 9) -> str:
    """Return functions f0, f1 and so on that name a source file each, and g with a string behind all of these."""
    text = ".text\n"
    for at in range(len(names)):
        entry = ENTRY.format(label=f".Lsite{at}", base=base, file=f".Lfile{at}", line=line)
        text += f".globl f{at}\n.type f{at}, @function\nf{at}: nop\n.Lsite{at}: ud2\n{entry}\n.size f{at}, . - f{at}\n"
    text += ".globl g\n.type g, @function\ng: movq $.Lbehind, %rdi\nret\n.size g, . - g\n" + STRINGS
    return text + "".join(f'.Lfile{at}: .string "{name}"\n' for at, name in enumerate(names))


def with_string(text: str, behind: str) -> str:
    return f'{text}.Lbehind: .string "{behind}"\n'


def named(path: Path) -> list[str | None]:
    """Return the file that each entry names."""
    view = ObjectView(str(path))
    owned = view.canonical.owned
    rows = zip(owned.references.tolist(), owned.field.tolist(), strict=True)
    return [view.string(row) for row, field in rows if field == 4]


# Not a name of four bytes before another one, with base 7b: nothing tells both readings apart.
SHORT_FIRST = ("a.c", "fs/a.c")
NAMES = [("fs/ext4/inode.c", "include/linux/fs.h"), ("fs/a.c", "a.c"), ("a.c",)]


@pytest.mark.parametrize(("base", "names"), [*product(("7b", "."), NAMES), (".", SHORT_FIRST)], ids=str)
def test_whole_name_is_read(gcc: Compiler, base: str, names: tuple[str, ...]) -> None:
    assert named(gcc.assembly(with_string(functions(base, names), "text"))) == [*names]


@BASES
def test_string_behind_a_short_name_is_not_the_entry_s(gcc: Compiler, base: str) -> None:
    texts = [with_string(functions(base, ("a.c",)), behind) for behind in ("one", "other")]
    assert gcc.diff_assembly(*texts) == changed("g")


@BASES
@pytest.mark.parametrize("name", ["b.c", "a.h", "dir/a.c"])
def test_other_name_is_found(gcc: Compiler, base: str, name: str) -> None:
    old, new = (gcc.assembly(with_string(functions(base, (own,)), "text")) for own in ("a.c", name))
    assert diff_objects(old, new) == changed("f0")


@BASES
def test_line_beside_it_is_a_line(gcc: Compiler, base: str) -> None:
    old, new = (gcc.assembly(with_string(functions(base, ("fs/a.c",), line), "text")) for line in (9, 11))
    assert diff_objects(old, new) == {("f0", "function", "line-only")}


FILE = "kernel/unit.c"
SOURCE = """
void note(const char *, int);
int f(int x) {{ note("{FILE}", {number}); return x + 2; }}
int h(int x) {{ asm volatile("1: ud2\\n.pushsection __bug_table,\\"aw\\"\\n7: .long 1b - {base}, %c0 - {base}\\n"
 ".word %c1, 3\\n.popsection" :: "i"("{FILE}"), "i"({line})); return x; }}
"""


@BASES
@pytest.mark.parametrize(("now", "expected"), [(122, INFERRED), (101, CHANGED)])
def test_record_of_the_same_file_is_a_witness(base: str, now: int, expected: Answer, tmp_path: Path) -> None:
    """What stands behind f moves the other way: its number is none of a line."""
    pairs = Pairs(tmp_path)
    texts = [SOURCE.format(FILE=FILE, base=base, number=a, line=b) for a, b in ((110, 120), (112, now))]
    old, new = (pairs.tree(text).without_sources() for text in texts)
    assert answers(old, new)["f"] == expected
