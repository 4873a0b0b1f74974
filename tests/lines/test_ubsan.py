# SPDX-License-Identifier: GPL-2.0-only
"""The lines in what UBSAN reports with."""

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


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("table[8]", "table[9]"),
        ("x) { return table", "x) {  return table"),
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
