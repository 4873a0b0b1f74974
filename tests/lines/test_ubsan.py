# SPDX-License-Identifier: GPL-2.0-only
"""What UBSAN reports with: lines and columns in it are lines, and everything else is what it is."""

from __future__ import annotations

import pytest
from line_trees import CHANGED, RECORDS, Pairs, at_line, shifted

UBSAN = at_line(
    40,
    """extern int table[8];
int f(int x) { return table[x]; }
int g(int x) { return 1 << x; }
""",
)
UBSAN_FLAGS = ("-fsanitize=bounds", "-fsanitize=shift")


def test_ubsan_data_hold_lines(cc: Pairs) -> None:
    assert cc.diff_without_sources(UBSAN, shifted(UBSAN), *UBSAN_FLAGS) == {"f": RECORDS, "g": RECORDS}


def test_columns_in_ubsan_data_are_lines(cc: Pairs) -> None:
    wider = UBSAN.replace("{ return table", "{   return table")
    assert cc.diff_without_sources(UBSAN, wider, *UBSAN_FLAGS) == {"f": RECORDS}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("table[8]", "table[9]"),
        ("1 << x", "1U << x"),
    ],
)
def test_everything_else_in_ubsan_data_is_a_change(gcc: Pairs, before: str, after: str) -> None:
    found = gcc.diff_without_sources(UBSAN, shifted(UBSAN.replace(before, after)), *UBSAN_FLAGS)
    assert before in UBSAN and CHANGED in found.values()


def test_a_string_that_goes_to_other_memory_is_no_line(gcc: Pairs) -> None:
    """Init memory is given back after boot; that the UBSAN data beside it hold a line does not matter."""
    source = at_line(
        40,
        """extern int table[8];
void show(const char *);
int f(int x)
{
	const char *text;
	asm volatile(".pushsection .rodata.text,\\"a\\"\\n7: .string \\"text\\"\\n.popsection\\nmovq $7b, %0" : "=r"(text));
	show(text);
	return table[x];
}
""",
    )
    moved = shifted(source).replace(".rodata.text", ".init.rodata")
    assert gcc.diff_without_sources(source, shifted(source), *UBSAN_FLAGS) == {"f": RECORDS}
    assert gcc.diff_without_sources(source, moved, *UBSAN_FLAGS) == {"f": CHANGED}


UNNECESSARY = at_line(
    40,
    r"""#define S_(x) #x
#define S(x) S_(x)
int f(int x)
{
	asm volatile("movq $.Lrecord, %%rdi\n call __ubsan_handle_out_of_bounds" : : : "rdi", "memory");
	return x;
}
asm(".data\n .balign 8\n.Lrecord: .quad .Lfile\n .long " S(__LINE__) ", 7\n .quad .Ltype, .Ltype\n"
    ".Ltype: .short 0, 10\n .asciz \"int [4]\"\n .balign 8\n"
    ".quad .Lfile\n .long " S(__LINE__) ", 9\n .quad .Ltype, .Lother\n"
    ".Lother: .short 0, 11\n .asciz \"long\"\n .balign 8\n"
    ".quad .Lfile\n .long " S(__LINE__) ", 9\n .quad .Lother, .Ltype\n"
    ".section .rodata.str1.1,\"aMS\",@progbits,1\n.Lfile: .asciz " S(__FILE__) "\n.text");
""",
)


def test_records_of_unnecessary_checks_behind_a_type_hold_lines(gcc: Pairs) -> None:
    """Nobody refers to them, so they are taken for a part of the type."""
    assert gcc.diff_without_sources(UNNECESSARY, shifted(UNNECESSARY)) == {"f": RECORDS}
    for before, after in (("int [4]", "int [5]"), ("0, 11", "0, 12")):
        other = shifted(UNNECESSARY.replace(before, after))
        assert before in UNNECESSARY and gcc.diff_without_sources(UNNECESSARY, other) == {"f": CHANGED}
