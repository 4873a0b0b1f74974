# SPDX-License-Identifier: GPL-2.0-only
"""Line numbers that moved, where there are no sources: what the objects themselves say, and what they do not."""

from __future__ import annotations

import pytest
from line_trees import CHANGED, INFERRED, RECORDS, Pairs, answers, at_line, report_of, shifted

# BUG_ENTRY is what WARN_ON leaves in the bug table; LINE passes a line number in code.
HEAD = """
#define BUG_ENTRY asm volatile("1: ud2\\n.pushsection __bug_table,\\"aw\\"\\n.long 1b - ., %c0 - .\\n.word %c1, 3\\n" \\
	".popsection" :: "i"(__FILE__), "i"(__LINE__))
int pass(int, int), other(int);
#define LINE(x) pass(x, __LINE__)
"""

# f has bug entries on lines 102 and 106, and g one on line 202.
SOURCE = (
    at_line(10, HEAD)
    + at_line(
        85,
        """int f(int x)
{ BUG_ENTRY;
	x = LINE(x);

	x += other(NUMBER);
	BUG_ENTRY; return x + 1; }
""",
    )
    + at_line(
        94,
        """int g(int x)
{ BUG_ENTRY;
	return x + 2; }
int h(int x)
{
	return LINE(x) + 3; }
""",
    )
)
FIRST = SOURCE.split("\n").index("{ BUG_ENTRY;") + 1
NUMBER = "-DNUMBER=17"


def test_lines_between_records_of_the_same_function(gcc: Pairs) -> None:
    found = gcc.diff_without_sources(SOURCE, shifted(SOURCE), NUMBER)
    # h has no record, and nothing is known about it.
    assert found == {"f": INFERRED, "g": RECORDS, "h": CHANGED}


def test_lines_between_records_of_other_functions_are_not_enough(gcc: Pairs) -> None:
    between = "int k(int x) { return LINE(x) + 5; }\n"
    end = at_line(20, "int last(int x) { BUG_ENTRY; return x; }\n")
    assert gcc.diff_without_sources(SOURCE + between + end, shifted(SOURCE + between + end), NUMBER)["k"] == CHANGED


def test_inferred_is_said_and_counted(gcc: Pairs) -> None:
    old, new = gcc.tree(SOURCE, NUMBER).without_sources(), gcc.tree(shifted(SOURCE), NUMBER).without_sources()
    report = report_of(old, new)
    assert (report.summary.line_only, report.summary.line_only_inferred, report.summary.line_only_proved) == (2, 1, 0)
    (reason,) = next(change for change in report.objects[0].changes if change.symbol == "f").reasons
    assert reason.endswith(f": {FIRST + 1} -> {FIRST + 2} (inferred)")


@pytest.mark.parametrize(
    ("before", "after"), [(22, 23), (5, 6), (FIRST - 40, FIRST - 39), (FIRST + 300, FIRST + 301), (-23, -22), (0, 1)]
)
def test_constant_that_goes_the_way_of_the_lines_is_a_change(gcc: Pairs, before: int, after: int) -> None:
    old = gcc.tree(SOURCE, f"-DNUMBER={before}").without_sources()
    new = gcc.tree(shifted(SOURCE), f"-DNUMBER={after}").without_sources()
    assert answers(old, new)["f"] == CHANGED


def test_constant_that_goes_another_way_is_a_change(gcc: Pairs) -> None:
    line = FIRST + 1
    old = gcc.tree(SOURCE, f"-DNUMBER={line}").without_sources()
    for number in (line - 1, line + 2):
        assert answers(old, gcc.tree(shifted(SOURCE), f"-DNUMBER={number}").without_sources())["f"] == CHANGED


def test_lines_around_the_place_of_the_edit_are_not_inferred(gcc: Pairs) -> None:
    """Records that moved by different amounts are no bracket, not even for a number that did move as the last did."""
    new = SOURCE.replace("{ BUG_ENTRY;\n\tx = LINE(x);", "{ BUG_ENTRY;\n\n\tx = LINE(x);")
    found = gcc.diff_without_sources(SOURCE, new, NUMBER)
    assert found == {"f": CHANGED, "g": RECORDS, "h": CHANGED}


def test_with_sources_that_do_not_prove_it_nothing_is_inferred(gcc: Pairs) -> None:
    """A constant in between: the records would do, but the sources say that it is none."""
    number = FIRST + 2
    old, new = gcc.tree(SOURCE, f"-DNUMBER={number}"), gcc.tree(shifted(SOURCE), f"-DNUMBER={number + 1}")
    assert answers(old, new)["f"] == CHANGED
    # Without them this is the limit of what can be known.
    assert answers(old.without_sources(), new.without_sources())["f"] == INFERRED


def test_sources_edited_after_the_build_are_none(gcc: Pairs) -> None:
    old, new = gcc.tree(SOURCE, NUMBER), gcc.tree(shifted(SOURCE), NUMBER)
    new.write("unit.c", shifted(SOURCE) + "int more;\n")
    assert answers(old, new)["f"] == INFERRED


# -- debug information ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["-gdwarf-4", "-gdwarf-5"])
def test_line_table_says_which_line_an_instruction_stands_on(cc: Pairs, version: str) -> None:
    found = cc.diff_without_sources(SOURCE, shifted(SOURCE), NUMBER, version)
    assert found == {"f": INFERRED, "g": RECORDS, "h": INFERRED}


def test_line_table_does_not_excuse_a_constant(cc: Pairs) -> None:
    for before, after in ((22, 23), (99, 100), (102, 103), (200, 201)):
        old = cc.tree(
            at_line(100, "int other(int);\nint f(int x) { return other(NUMBER) + x; }\n"), "-g", f"-DNUMBER={before}"
        )
        new = cc.tree(
            at_line(101, "int other(int);\nint f(int x) { return other(NUMBER) + x; }\n"), "-g", f"-DNUMBER={after}"
        )
        assert answers(old.without_sources(), new.without_sources()) == {"f": CHANGED}


def test_debug_information_on_one_side_is_not_enough(gcc: Pairs) -> None:
    old, new = gcc.tree(SOURCE, NUMBER, "-g").without_sources(), gcc.tree(shifted(SOURCE), NUMBER).without_sources()
    assert answers(old, new)["h"] == CHANGED


# -- UBSAN ------------------------------------------------------------------------------------------------------------

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
