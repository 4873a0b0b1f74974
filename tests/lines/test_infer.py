# SPDX-License-Identifier: GPL-2.0-only
"""Line numbers that moved, where there are no sources: what the objects themselves say, and what they do not.

Each clause of the rule in kbuild_klp.lines.infer in both directions. All lines move by 2, if nothing else is said, and
NUMBER of f goes from ``before`` to ``after``.
"""

from __future__ import annotations

import pytest
from line_trees import CHANGED, HEAD, INFERRED, Answer, Pairs, answer, answers, at_line, file_with, report_of, shifted

# -- role -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        "return NUMBER;",
        "return x + NUMBER;",
        "return other(NUMBER) + x;",
        'return open_it("/dev/null", NUMBER);',
        "note(FILE, __LINE__); return NUMBER;",
        "note(FILE, __LINE__); return other(NUMBER);",
        "BUG_ENTRY; x += other(NUMBER); BUG_ENTRY; return x;",
    ],
)
@pytest.mark.parametrize("flag", ["-g0", "-gdwarf-4", "-gdwarf-5"])
def test_number_that_is_the_line_it_stands_on_is_none(cc: Pairs, body: str, flag: str) -> None:
    assert answer(cc, body, 111, 113, flag) == CHANGED


@pytest.mark.parametrize("flag", ["-g0", "-g"])
@pytest.mark.parametrize(
    "body",
    [
        "note(FILE, __LINE__); return x + 2;",
        "note(FILE, __LINE__);",
        "first(__LINE__, FILE); return x + 2;",
        "hook(FILE, __LINE__); return x + 2;",
        "complain(FILE, __func__, __LINE__, x); return x + 2;",
        "asked(__func__, __LINE__); return x + 2;",
        'asked("f", __LINE__); return x + 2;',
    ],
)
def test_number_beside_the_name_of_a_file_or_function_is_one(cc: Pairs, body: str, flag: str) -> None:
    assert answer(cc, body, 1, 1, flag) == INFERRED


def test_inlined_function_is_named_too(gcc: Pairs) -> None:
    helper = """
#line {line}
static inline __attribute__((always_inline)) int helper(int x) {{ asked(__func__, __LINE__); return x; }}
#line {user}
int user(int x) {{ return helper(x) + 3; }}
"""
    old, new = (HEAD + helper.format(line=50 + moved, user=60 + moved) for moved in (0, 2))
    assert gcc.diff_without_sources(old, new) == {"user": INFERRED}


# -- argument ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        "deep(x, 1, x, x, FILE, x, NUMBER); return x;",  # on the stack
        "{ int y = NUMBER; note(FILE, y); other(y); return x; }",  # to another call, too
        "{ int y = NUMBER; note(FILE, y); return y; }",
        "note(FILE, NUMBER + x); return x;",
        "note(FILE, x ? NUMBER : x); return x;",
    ],
)
def test_number_that_goes_anywhere_else_is_no_line(gcc: Pairs, body: str) -> None:
    assert answer(gcc, body, 111, 113) == CHANGED


# -- nothing else -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("before", "after"), [(111, 113), (5, 6), (-22, -20)])
def test_constant_beside_lines_is_a_change(gcc: Pairs, before: int, after: int) -> None:
    assert answer(gcc, "note(FILE, __LINE__); return x + NUMBER;", before, after) == CHANGED


@pytest.mark.parametrize(("before", "after"), [(111, -1), (0, 2), (-1, 1), (111, 1 << 21)])
def test_what_cannot_be_a_line_is_none(gcc: Pairs, before: int, after: int) -> None:
    assert answer(gcc, "note(FILE, NUMBER); return x + 2;", before, after) == CHANGED


# -- one argument only ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "before", "after", "expected"),
    [
        ("__LINE__", 12, 12, INFERRED),
        ("__LINE__", 12, 14, CHANGED),
        ("__LINE__", 111, 113, CHANGED),
    ],
)
def test_the_other_number_of_a_call_is_none(gcc: Pairs, line: str, before: int, after: int, expected: Answer) -> None:
    """What is between 101 and 121 is known by the lines around it."""
    assert answer(gcc, f"complain(FILE, __func__, {line}, NUMBER); return x;", before, after) == expected


def test_where_two_numbers_can_be_the_line_both_stand(gcc: Pairs) -> None:
    body = "tagged(FILE, __LINE__, NUMBER); return x;"
    for number in (110, 111, 115):
        assert answer(gcc, body, number, number) == CHANGED
    for number in (99, 124, 3):
        assert answer(gcc, body, number, number) == INFERRED


def test_level_of_all_calls_is_no_line(gcc: Pairs) -> None:
    source = "".join(
        f"\n#line {line}\nint c{line}(int x) {{ tagged(FILE, __LINE__, NUMBER); return x + {line}; }}"
        for line in (10, 20, 30)
    )
    old, new = (gcc.tree(HEAD + source, f"-DNUMBER={level}").without_sources() for level in (2, 3))
    assert answers(old, new) == {"c10": CHANGED, "c20": CHANGED, "c30": CHANGED}
    assert gcc.diff_without_sources(HEAD + source, HEAD + source.replace("#line ", "#line 1"), "-DNUMBER=2") == {
        "c10": INFERRED,
        "c20": INFERRED,
        "c30": INFERRED,
    }


@pytest.mark.parametrize(("record", "expected"), [("BUG_ENTRY;", INFERRED), ("", CHANGED)])
def test_argument_that_is_the_line_of_a_record_in_all_calls(gcc: Pairs, record: str, expected: Answer) -> None:
    """The functions stand in reverse, as compilers may place them, so that order tells nothing good of the lines."""
    lines = (140, 130, 120, 110)
    texts = [
        "".join(
            f"#line {line + moved}\nint c{line}(int x) {{ {record} tagged(FILE, __LINE__, 1); return x + {line}; }}\n"
            for line in lines
        )
        for moved in (0, 3)
    ]
    found = gcc.diff_without_sources(*(HEAD + text for text in texts))
    assert found == {f"c{line}": expected for line in lines}


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ('say("at %s:%d\\n", FILE, NUMBER)', INFERRED),
        ('say("failed at %s (%d)\\n", FILE, NUMBER)', INFERRED),
        ('say("%s() line %u: bad\\n", __func__, NUMBER)', INFERRED),
        ('say("%d at %s:%d\\n", x, FILE, NUMBER)', INFERRED),
        ('say("%s:%d: %d\\n", FILE, NUMBER, 5)', INFERRED),
        ('say("%s:%d: %d\\n", FILE, __LINE__, NUMBER)', CHANGED),
        ('say("%d at %s:%d\\n", NUMBER, FILE, __LINE__)', CHANGED),
        ('say("%s: %d bytes\\n", FILE, NUMBER)', CHANGED),
        ('say("%s needs %d\\n", __func__, NUMBER)', CHANGED),
        ('say("%s(%d)\\n", __func__, NUMBER)', CHANGED),
        ('say("%s:%*d\\n", FILE, NUMBER, x)', CHANGED),
        ('say("%s:%x\\n", FILE, NUMBER)', CHANGED),
    ],
)
def test_format_says_what_is_shown(gcc: Pairs, call: str, expected: Answer) -> None:
    assert answer(gcc, f"{call}; return x;", 111, 113) == expected


BASENAME = """
#define BASE(path) ({ const char *own = path, *tail = strrchr(own, SLASH); tail ? tail + 1 : own; })
char *strrchr(const char *, int);
"""


@pytest.mark.parametrize(
    ("call", "slash", "expected"),
    [
        ('say("%s:%u %s[pid:%d] bad\\n", BASE(FILE), NUMBER, __func__, x)', "'/'", INFERRED),
        ('say("%s:%u %s[pid:%d] bad\\n", BASE(FILE), __LINE__, __func__, NUMBER)', "'/'", CHANGED),
        ('say("%s %u %s[pid:%d] bad\\n", BASE(FILE), NUMBER, __func__, x)', "'/'", CHANGED),
        ('say("%s:%u %s[pid:%d] bad\\n", BASE(FILE), NUMBER, __func__, x)', "'.'", CHANGED),
        ('say("%s:%u %s[pid:%d] bad\\n", BASE("some/thing"), NUMBER, __func__, x)', "'/'", CHANGED),
        ('{ text = BASE(FILE); other(x); say("%s:%u %s\\n", text, NUMBER, __func__); }', "'/'", CHANGED),
    ],
)
def test_name_of_a_file_without_its_directories(gcc: Pairs, call: str, slash: str, expected: Answer) -> None:
    """NVIDIA's modules say so where they are; the kernel says pr_fmt() of it, as a rule computed beforehand."""
    body = f"const char *text; {call}; return x;"
    flags = ("-fno-builtin", f"-DSLASH={slash}")
    sides = [
        gcc.tree(BASENAME + file_with(body, moved), *flags, f"-DNUMBER={number}").without_sources()
        for moved, number in ((0, 111), (2, 113))
    ]
    assert answers(sides[0], sides[1])["f"] == expected


# -- order of place ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (102, 104, INFERRED),
        (120, 122, INFERRED),
        (99, 101, CHANGED),
        (3, 5, CHANGED),
        (122, 124, CHANGED),
        (101, 103, CHANGED),
        (111, 102, CHANGED),
        (111, 124, CHANGED),
    ],
)
def test_number_lies_between_the_lines_of_its_neighbours(gcc: Pairs, before: int, after: int, expected: Answer) -> None:
    assert answer(gcc, "asked(FILE, NUMBER); return x;", before, after) == expected


def test_same_number_in_two_functions_is_no_line(gcc: Pairs) -> None:
    source = "".join(f"int c{at}(int x) {{ note(FILE, NUMBER); return x + {at}; }}\n" for at in range(2))
    old, new = (gcc.tree(HEAD + source, f"-DNUMBER={number}").without_sources() for number in (2, 3))
    assert answers(old, new) == {"c0": CHANGED, "c1": CHANGED}


def test_one_that_moves_against_all_others_stands_and_they_do_not(gcc: Pairs) -> None:
    source = "".join(
        f"#line {{{at}}}\nint c{at}(int x) {{{{ note(FILE, __LINE__); return x + {at}; }}}}\n" for at in range(3)
    )
    old, new = (HEAD + source.format(*lines) for lines in ((4, 8, 11), (6, 10, 8)))
    assert gcc.diff_without_sources(old, new) == {"c0": INFERRED, "c1": INFERRED, "c2": CHANGED}


def test_lines_of_a_header_come_wherever_its_functions_are_inlined(gcc: Pairs) -> None:
    def header(line: int) -> str:
        return f"""{HEAD}#undef FILE
#define FILE "include/linux/head.h"
#line {line}
static inline __attribute__((always_inline)) void one(void) {{ note(FILE, __LINE__); }}
static inline __attribute__((always_inline)) void two(void) {{ note(FILE, __LINE__); }}
int a(int x) {{ two(); one(); return x; }}
int b(int x) {{ one(); return x + 1; }}
"""

    assert gcc.diff_without_sources(header(30), header(33)) == {"a": INFERRED, "b": INFERRED}


# -- agreement --------------------------------------------------------------------------------------------------------

RECORD = """
#line {before}
int before(int x) {{ BUG_ENTRY; return x; }}
#line {own}
int f(int x) {{ note(FILE, __LINE__); return x; }}
#line {behind}
int behind(int x) {{ BUG_ENTRY; return x + 1; }}
"""


@pytest.mark.parametrize(
    ("before", "own", "behind", "expected"),
    [
        (2, 2, 2, INFERRED),
        (2, 3, 5, INFERRED),
        (2, 5, 5, INFERRED),
        (0, -2, -2, INFERRED),
        (2, 3, 2, CHANGED),
        (0, 1, 0, CHANGED),
        (2, 1, 5, CHANGED),
        (2, 6, 5, CHANGED),
        (0, -2, 5, CHANGED),
    ],
)
def test_number_moves_as_the_records_around_it(
    gcc: Pairs, before: int, own: int, behind: int, expected: Answer
) -> None:
    old = HEAD + RECORD.format(before=101, own=111, behind=121)
    new = HEAD + RECORD.format(before=101 + before, own=111 + own, behind=121 + behind)
    assert gcc.diff_without_sources(old, new)["f"] == expected


def test_records_of_another_file_say_nothing(gcc: Pairs) -> None:
    texts = [RECORD.format(before=101 + other, own=111 + own, behind=121 + other) for other, own in ((0, 0), (5, 2))]
    old, new = (HEAD + text.replace("note(FILE,", 'note("kernel/other.c",') for text in texts)
    assert gcc.diff_without_sources(old, new)["f"] == INFERRED


# -- debug information ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["-gdwarf-4", "-gdwarf-5"])
@pytest.mark.parametrize(("before", "after", "expected"), [(53, 55, INFERRED), (8, 10, CHANGED), (61, 63, CHANGED)])
def test_number_is_among_the_lines_of_its_function(
    cc: Pairs, version: str, before: int, after: int, expected: Answer
) -> None:
    source = "#line {line}\nint f(int x)\n{{\n\tasked(FILE, NUMBER);\n\treturn x + 2;\n}}\n"
    old = cc.tree(HEAD + source.format(line=50), version, f"-DNUMBER={before}").without_sources()
    new = cc.tree(HEAD + source.format(line=52), version, f"-DNUMBER={after}").without_sources()
    assert answers(old, new) == {"f": expected}


def test_debug_information_on_one_side_is_enough_for_no(gcc: Pairs) -> None:
    for flags in (("-g0", "-g"), ("-g", "-g0")):
        for before, expected in ((111, INFERRED), (104, CHANGED)):
            old = gcc.tree(file_with("asked(FILE, NUMBER);"), flags[0], f"-DNUMBER={before}").without_sources()
            new = gcc.tree(file_with("asked(FILE, NUMBER);", 2), flags[1], f"-DNUMBER={before + 2}").without_sources()
            assert answers(old, new)["f"] == expected


# -- what is said, and when -------------------------------------------------------------------------------------------

LINES = file_with("note(FILE, __LINE__); return x + NUMBER;")
MOVED = file_with("note(FILE, __LINE__); return x + NUMBER;", 2)


def test_inferred_is_said_and_counted(gcc: Pairs) -> None:
    old, new = (gcc.tree(text, "-DNUMBER=5").without_sources() for text in (LINES, MOVED))
    report = report_of(old, new)
    assert (report.summary.line_only, report.summary.line_only_inferred, report.summary.line_only_proved) == (5, 5, 0)
    (reason,) = next(change for change in report.objects[0].changes if change.symbol == "f").reasons
    assert reason.endswith(": 111 -> 113 (inferred)")


def test_with_sources_that_do_not_prove_it_nothing_is_inferred(gcc: Pairs) -> None:
    """A number in the line's place: the objects would do, but the sources say that it is none."""
    source = at_line(30, HEAD + "int f(int x) { note(FILE, NUMBER); return x; }\n")
    old, new = gcc.tree(source, "-DNUMBER=41"), gcc.tree(shifted(source), "-DNUMBER=42")
    assert answers(old, new)["f"] == CHANGED
    # Without them this is the limit of what can be known.
    assert answers(old.without_sources(), new.without_sources())["f"] == INFERRED


def test_sources_edited_after_the_build_are_none(gcc: Pairs) -> None:
    source = at_line(30, HEAD + "int f(int x) { note(FILE, __LINE__); return x; }\n")
    old, new = gcc.tree(source), gcc.tree(shifted(source))
    new.write("unit.c", shifted(source) + "int more;\n")
    assert answers(old, new)["f"] == INFERRED


def test_names_of_functions_in_plain_rodata(cc: Pairs) -> None:
    """scripts/module.lds.S of 7.x links .rodata.str* into .rodata, and no flag says any more that these are strings."""
    functions = "".join(
        f'int called_{number}(int x)\n{{\n\tif (x)\n\t\tnote("called_{number}", __LINE__);\n\treturn x;\n}}\n'
        for number in range(4)
    )
    old, new = (cc.tree(HEAD + lines + functions, "-fno-merge-constants").without_sources() for lines in ("", "\n\n"))
    assert set(answers(old, new).values()) == {INFERRED}
