# SPDX-License-Identifier: GPL-2.0-only
"""Functions with checks of UBSAN: what these report with has no name, and is written to once they have."""

from __future__ import annotations

from pathlib import Path

import pytest
from snippets import Compiler

from kbuild_klp.extract.extraction import Extraction, extract

TRACED = ("-pg", "-mfentry")
UBSAN = ("-fsanitize=bounds", "-fsanitize=shift")
SOURCE = """
static int counts[5], limits[6] = { 1, 2 };
int first(int x) { return counts[x] + limits[x]; }
int second(int x, int y) { %s return counts[x] << y; }
int third(int x) { counts[1]++; return limits[x] - 3; }
"""

# A record with its type as GCC has it, without a name; {}: who gets it next.
ASSEMBLY = """
.text
.globl f
.type f, @function
f: call __fentry__
movq $1f, %rdi
call __ubsan_handle_out_of_bounds
movl ${value}, %eax
{user}
ret
.size f, . - f
.section __mcount_loc, "a"
.quad f
.data
1: {place}
.long 7, 28
.quad 2f
2: .byte 0, 0, 10, 0
.asciz "int [4]"
.section .rodata.str1.1, "aMS", @progbits, 1
3: .asciz "fs/x.c"
"""


# Behind the type, the record of a check that the compiler found to be unnecessary, and its second type.
UNNECESSARY = """
.data
.balign 8
.quad {place}
.long 9, 5
.quad 2b, 4f
4: .byte 0, 0, 11, 0
.asciz "long"
"""


def _extract(old: Path, new: Path, tmp_path: Path) -> Extraction:
    found = extract(str(old), str(new), str(tmp_path / "out.o"))
    assert (tmp_path / "out.o").exists() == found.is_written
    return found


def test_records_come_along(cc: Compiler, tmp_path: Path) -> None:
    old, new = (cc.object(SOURCE % text, *TRACED, *UBSAN) for text in ("", "x ^= 1;"))
    found = _extract(old, new, tmp_path)
    assert not found.refused
    assert {item.symbol for item in found.carried if item.kind == "function"} - {"second.cold"} == {"second"}
    # A record for each check; types are read-only for Clang.
    assert [item.section for item in found.carried if item.kind == "data"].count(".data") >= 2
    assert {outside.symbol for outside in found.outside if outside.is_local} == {"counts"}


@pytest.mark.parametrize(
    ("user", "place", "is_carried"),
    [
        ("", ".quad 3f", True),
        ("movq $1b, %rdi\ncall __ubsan_handle_shift_out_of_bounds", ".quad 3f", True),
        ("movq $1b, %rdi\ncall report", ".quad 3f", False),
        ("movq 1b, %rdi\ncall report", ".quad 3f", False),
        ("movq $2b, %rdi\ncall report", ".quad 3f", False),
        ("movq $1b+8, %rdi\ncall __ubsan_handle_shift_out_of_bounds", ".quad 3f", False),
        ("", ".quad 0", False),
    ],
)
def test_only_what_nobody_else_sees_is_a_record(
    gcc: Compiler, tmp_path: Path, user: str, place: str, is_carried: bool
) -> None:
    user = user.replace("1b", "1f").replace("2b", "2f")
    old, new = (gcc.assembly(ASSEMBLY.format(value=value, user=user, place=place)) for value in (1, 2))
    found = _extract(old, new, tmp_path)
    assert found.is_written == is_carried
    if not is_carried:
        assert {(it.symbol, it.bar.word) for it in found.refused} == {("f", "nameless-state")}


@pytest.mark.parametrize(("place", "is_carried"), [("3b", True), ("0", False)])
def test_a_record_that_nobody_uses_is_no_obstacle(gcc: Compiler, tmp_path: Path, place: str, is_carried: bool) -> None:
    text = ASSEMBLY + UNNECESSARY.replace("{place}", place)
    old, new = (gcc.assembly(text.format(value=value, user="", place=".quad 3f")) for value in (1, 2))
    found = _extract(old, new, tmp_path)
    assert found.is_written == is_carried
    if is_carried:
        assert sum(item.size for item in found.carried if item.kind == "data") > 60
