# SPDX-License-Identifier: GPL-2.0-only
"""Loops are aligned where their function is not: NOPs before them follow from where the function lies."""

from __future__ import annotations

from pathlib import Path

import pytest
from snippets import Changes, Compiler, changed, changes_of

from kbuild_klp.builds.single_object import ObjectBuild
from kbuild_klp.compare.passes import compare

NOTHING: Changes = set()
GROWN = changed("before")
USER = changed("user")


@pytest.fixture
def gcc(tmp_path: Path) -> Compiler:
    return Compiler("gcc", tmp_path)


# GCC 14 aligns small loops, whatever -falign-loops says.
SOURCE = """
	.text
	.p2align 4
	.globl before
	.type before, @function
before: .skip {grown}, 0x40
	ret
	.size before, . - before
	.p2align 4
	.globl user
	.type user, @function
user:	movl (%rdi), %eax
	testl %eax, %eax
{code}
	ret
	.size user, . - user
	.p2align 4
	.globl after
	.type after, @function
after:	xorl %eax, %eax
	ret
	.size after, . - after
{data}
"""
LOOP = """
	.p2align {align}
1:	addl (%rdi), %eax
	addq $4, %rdi
	cmpq %rdi, %rsi
	jne 1b
"""


def _object(gcc: Compiler, grown: int, code: str, data: str = "") -> Path:
    return gcc.assembly(SOURCE.format(grown=grown, code=code, data=data))


def _answer(old: Path, new: Path) -> tuple[Changes, int]:
    report = compare(ObjectBuild(str(old)), ObjectBuild(str(new)))
    assert not report.warnings
    return changes_of(report), report.summary.reencoded


ACROSS = "\tje 2f\n" + LOOP.format(align=6) + "2:\tincl %eax\n"
TABLE = (
    "\tjmp *.Ltable(, %rax, 8)\n.Lout: incl %eax\n" + LOOP.format(align=5),
    ".section .rodata\n.balign 8\n.Ltable: .quad .Lout, 1b, .Lout\n",
)
FIXUP = (
    "3:\tmovl (%rsi), %eax\n4:\n" + LOOP.format(align=6),
    '.section __ex_table, "a"\n.long 3b - ., 4b - ., 3\n',
)
KEY = (
    "3:\t.byte 0x0f, 0x1f, 0x44, 0, 0\n" + LOOP.format(align=6),
    '.section __jump_table, "aw"\n.balign 8\n.long 3b - ., 1b - .\n.quad key - .\n',
)
TWO = LOOP.format(align=6) + "\t.skip 20, 0x40\n" + LOOP.format(align=5) + "\t.skip 37, 0x40\n" + LOOP.format(align=6)


@pytest.mark.parametrize("grown", [1, 17, 33, 49, 65])
@pytest.mark.parametrize(
    ("code", "data"),
    [
        (LOOP.format(align=5), ""),
        (LOOP.format(align=6), ""),
        ("\tincl %eax\n" + LOOP.format(align=6), ""),
        (ACROSS, ""),
        ("\tjmp 1f\n\tdecl %eax\n" + LOOP.format(align=6), ""),
        TABLE,
        FIXUP,
        KEY,
        (TWO, ""),
    ],
    ids=["32", "64", "elsewhere", "branch across", "branch to it", "table", "fixup", "static branch", "three loops"],
)
def test_loops_are_aligned_otherwise(gcc: Compiler, grown: int, code: str, data: str) -> None:
    old = _object(gcc, 15, code, data)
    changes, reencoded = _answer(old, _object(gcc, grown, code, data))
    assert changes == GROWN
    assert reencoded <= 1
    assert _answer(_object(gcc, grown, code, data), old) == (changes, reencoded)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        # As many NOPs, or fewer, that align nothing.
        (LOOP.format(align=6), LOOP.format(align=4)),
        ("\tnop\n\tincl %eax\n" + LOOP.format(align=6), "\tincl %eax\n" + LOOP.format(align=6)),
        (LOOP.format(align=6), "\t.skip 16, 0x90\n\tincl %eax\n" + LOOP.format(align=6)),
        ("\t.p2align 6\n\t.skip 64, 0x90\n" + LOOP.format(align=6), LOOP.format(align=6)),
        # Something else besides.
        (LOOP.format(align=6), LOOP.format(align=6).replace("addl (%rdi)", "subl (%rdi)")),
        (LOOP.format(align=6), LOOP.format(align=6).replace("$4, %rdi", "$8, %rdi")),
        (LOOP.format(align=6), LOOP.format(align=6).replace("jne", "jb")),
        (LOOP.format(align=6), LOOP.format(align=6).replace("%rdi, %rsi", "%rdi, %rdx")),
        (LOOP.format(align=6), "\tint3\n" + LOOP.format(align=6)),
        (LOOP.format(align=6), "\tpause\n" + LOOP.format(align=6)),
        (LOOP.format(align=6), "\tincl %eax\n" + LOOP.format(align=6)),
        # It goes elsewhere.
        ("\tjmp 1f\n" + LOOP.format(align=6), "\tjmp 2f\n" + LOOP.format(align=6) + "2:"),
        (ACROSS, ACROSS.replace("2:\tincl %eax", "\tincl %eax\n2:")),
        ("\tjne 1f\n" + LOOP.format(align=6), "\tjne 3f\n3:\tincl %eax\n" + LOOP.format(align=6)),
    ],
)
@pytest.mark.parametrize("grown", [17, 33])
def test_alignment_hides_nothing(gcc: Compiler, grown: int, old: str, new: str) -> None:
    assert _answer(_object(gcc, 15, old), _object(gcc, grown, new))[0] == GROWN | USER
    assert _answer(_object(gcc, grown, new), _object(gcc, 15, old))[0] == GROWN | USER


@pytest.mark.parametrize(
    ("which", "old", "new"),
    [
        (TABLE, ".quad .Lout, 1b, .Lout", ".quad .Lout, 1b, 1b"),
        (FIXUP, "4b - ., 3", "4b - ., 4"),
        (FIXUP, "4b - .", "3b - ."),
        (KEY, "3b - ., 1b - .", "3b - ., 3b - ."),
        (KEY, "key", "other"),
        (KEY, "3b - ., 1b", "4f - ., 1b"),
    ],
)
@pytest.mark.parametrize("grown", [17, 33])
def test_tables_still_go_where_they_went(gcc: Compiler, grown: int, which: tuple[str, str], old: str, new: str) -> None:
    code, data = which
    assert old in data
    moved = code.replace("\t.p2align 6", "\t.p2align 6\n4:") if "4f" in new else code
    first = _object(gcc, 15, moved, data)
    assert _answer(first, _object(gcc, grown, moved, data.replace(old, new.replace("4f", "4b"))))[0] == GROWN | USER


# What UBSAN reports with, and what WARN() leaves, each with the name of the source.
TOLD = (
    "\tmovl $.Lrecord, %edi\n\tcall __ubsan_handle_{handler}\n5:\tud2\n" + LOOP.format(align=5),
    '.section .data.told, "aw"\n.balign 8\n.Lrecord: .quad .Lfile\n.long {line}, 5\n.quad .Ltype, .Ltype\n'
    '.Ltype: .short 0, 10\n.asciz "{type}"\n'
    '.section __bug_table, "aw"\n.long 5b - ., .Lfile - .\n.word {line}, 3\n'
    '.section .rodata.str1.1, "aMS", @progbits, 1\n.Lfile: .asciz "{directory}/{file}"\n',
)


def _told(gcc: Compiler, grown: int, **other: object) -> Path:
    values = {
        "handler": "out_of_bounds",
        "line": 7,
        "type": "int [4]",
        "directory": "/build/linux-1",
        "file": "fs/x.c",
        **other,
    }
    return _object(gcc, grown, *(text.format(**values) for text in TOLD))


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ({}, NOTHING),
        ({"line": 9}, {("user", "function", "line-only")}),
        ({"type": "int [5]"}, USER),
        ({"handler": "shift_out_of_bounds"}, USER),
    ],
)
def test_loops_in_a_build_of_another_directory(gcc: Compiler, other: dict[str, object], expected: Changes) -> None:
    """Debian builds each release in a directory of its own, with UBSAN_BOUNDS and gcc 14."""
    for directory in ("/build/linux-1", "/build/linux-2"):
        for sizes in ((16, 32), (32, 16), (32, 48)):
            old, new = _told(gcc, sizes[0]), _told(gcc, sizes[1], directory=directory, **other)
            assert _answer(old, new)[0] == GROWN | expected
    elsewhere = _told(gcc, 32, directory="/build/linux-2", file="mm/x.c", **other)
    assert _answer(_told(gcc, 16), elsewhere)[0] == GROWN | USER
