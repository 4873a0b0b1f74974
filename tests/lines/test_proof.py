# SPDX-License-Identifier: GPL-2.0-only
"""Line numbers that moved, and constants that go the same way, with both versions of the sources at hand."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from line_trees import CHANGED, PROVED, RECORDS, Answer, Pairs, SourceTree, answers, at_line, report_of, shifted

HEADER = """
#define WARN(x) report((x), __FILE__, __LINE__)
#define MANY(x) many(1, 2, 3, 4, 5, 6, __LINE__)
#define TEXT2(x) #x
#define TEXT(x) TEXT2(x)
#define HERE __FILE__ ":" TEXT(__LINE__)
#define MESSAGE(format, arguments...) message(format, ##arguments)
int report(int, const char *, int), many(int, int, int, int, int, int, int), say(const char *), use(const void *);
int pack(int), message(const char *, ...), other(int);
extern short half;
extern int whole;
static inline int inlined(int x) { return WARN(x) + 1; }
"""

FORMS = """#include "h.h"
int immediate(int x) { return WARN(x) + 3; }
int through_a_header(int x) { return inlined(x) + 3; }
int in_memory(void) { half = __LINE__; return 1; }
int on_the_stack(int x) { return MANY(x) + 5; }
int in_a_string(void) { return say(HERE) + 1; }
int folded(void) { return pack(__LINE__ << 16 | 3) + pack(__LINE__ + 1000); }
int table[] = { 1, __LINE__, 3 };
static const struct { const char *file; int line; short again; } record = { __FILE__, __LINE__, __LINE__ };
const void *user = &record;
int over_lines(int x) { return report(
	x,
	"x",
	__LINE__) + 1; }
int among_arguments(int x) { return WARN(
	x
	+ __LINE__
	); }
int among_variable_arguments(int x) { return MESSAGE("%d %d",
	x,
	__LINE__) + 1; }
int local(void) { static const struct { const char *file; int line; } here = { "a.c", __LINE__ }; return use(&here); }
int nothing(int x) { return x * 40; }
"""


def test_every_form_of_a_line_number_is_one_when_nothing_but_lines_differs(cc: Pairs) -> None:
    found = cc.diff(
        {"unit.c": at_line(40, FORMS), "h.h": HEADER}, {"unit.c": shifted(at_line(40, FORMS)), "h.h": shifted(HEADER)}
    )
    assert set(found.values()) == {PROVED}
    functions = {"immediate", "through_a_header", "in_memory", "on_the_stack", "in_a_string", "folded", "over_lines"}
    functions |= {"among_arguments", "among_variable_arguments"}
    assert found.keys() == functions | {"local", "table", "record"}


PLAIN = {"immediate", "in_memory", "on_the_stack", "over_lines", "among_arguments", "among_variable_arguments"}


def test_with_a_change_elsewhere_each_number_needs_a_line_of_its_own(cc: Pairs) -> None:
    end = "int edited(int x) { return other(x) + 1; }\n"
    new = shifted(at_line(40, FORMS)) + end.replace("+ 1", "- 1")
    found = cc.diff({"unit.c": at_line(40, FORMS) + end, "h.h": HEADER}, {"unit.c": new, "h.h": HEADER})
    assert {name for name, answer in found.items() if answer == PROVED} >= PLAIN | {"in_a_string", "table"}
    # What was computed from a line is not looked through then.
    assert {name for name, answer in found.items() if answer == CHANGED} == {"edited", "folded"}


def test_header_lines_with_a_change_elsewhere(cc: Pairs) -> None:
    source = '#include "h.h"\nint f(int x) { return inlined(x) + 3; }\nint edited(int x) { return other(x) + 1; }\n'
    found = cc.diff(
        {"unit.c": source, "h.h": HEADER}, {"unit.c": source.replace("(x) + 1", "(x) - 1"), "h.h": shifted(HEADER)}
    )
    assert found == {"f": PROVED, "edited": CHANGED}


# -- encodings --------------------------------------------------------------------------------------------------------

LONGER = """int many(int, int, int, int, int, int, int), other(int);
int f(int x)
{
	while (other(x) > 3) {
		if (other(x + 1))
			continue;
		many(1, 2, 3, 4, 5, x, __LINE__);
		FILL;
	}
	return 0;
}
"""
# Line 127 becomes line 128, of which the instruction has three bytes more.
LONGER_OLD, LONGER_NEW = at_line(121, LONGER), shifted(at_line(121, LONGER))
LONGER_FLAGS = ("-falign-loops=1", "-falign-jumps=1", "-DFILL")


def _sizes(old: SourceTree, new: SourceTree) -> tuple[int, int]:
    (group,) = report_of(old, new).objects
    (change,) = group.changes
    assert change.old is not None and change.new is not None
    return change.old.size, change.new.size


def test_line_that_needs_a_longer_instruction_is_a_line(gcc: Pairs) -> None:
    old, new = gcc.tree(LONGER_OLD, *LONGER_FLAGS), gcc.tree(LONGER_NEW, *LONGER_FLAGS)
    before, after = _sizes(old, new)
    assert after == before + 3
    ((change,),) = (group.changes for group in report_of(old, new).objects)
    assert [reason.partition(": ")[2] for reason in change.reasons] == ["127 -> 128"]
    assert answers(old, new) == {"f": PROVED}


def test_branches_that_become_longer_with_it_are_the_same(gcc: Pairs) -> None:
    growth = set()
    for fill in range(40, 72):
        flags = (*LONGER_FLAGS[:2], f'-DFILL=asm volatile(".skip {fill}, 0x90")')
        old, new = gcc.tree(LONGER_OLD, *flags), gcc.tree(LONGER_NEW, *flags)
        before, after = _sizes(old, new)
        growth.add(after - before)
        assert answers(old, new) == {"f": PROVED}
    assert growth > {3}


@pytest.mark.parametrize(
    ("before", "after"), [("> 3", "> 4"), ("x + 1", "x + 2"), ("5, x", "6, x"), ("return 0", "return 1")]
)
def test_longer_instruction_does_not_hide_another_change(gcc: Pairs, before: str, after: str) -> None:
    assert gcc.diff(LONGER_OLD, LONGER_NEW.replace(before, after), *LONGER_FLAGS) == {"f": CHANGED}


def test_longer_instruction_with_a_change_elsewhere_is_reported(gcc: Pairs) -> None:
    """A limit: see kbuild_klp/lineproof.py."""
    end = "int edited(int x) { return other(x) + 1; }\n"
    found = gcc.diff(LONGER_OLD + end, LONGER_NEW + end.replace("+ 1", "- 1"), *LONGER_FLAGS)
    assert found == {"f": CHANGED, "edited": CHANGED}


def test_objects_that_are_not_of_these_sources_do_not_profit(gcc: Pairs) -> None:
    """Numbers that are no lines stay changes even if the sources say that nothing but lines can differ."""
    source = at_line(40, "int other(int);\nint f(int x) { return other(NUMBER) + x; }\n")
    old, new = gcc.tree(source, "-DNUMBER=77"), gcc.tree(shifted(source), "-DNUMBER=7777")
    old.write(".unit.o.cmd", (old.root / ".unit.o.cmd").read_text().replace("-DNUMBER=77 ", ""))
    new.write(".unit.o.cmd", (new.root / ".unit.o.cmd").read_text().replace("-DNUMBER=7777 ", ""))
    assert answers(old, new) == {"f": CHANGED}


def _scrub(tree: SourceTree, flag: str) -> SourceTree:
    """Make believe that an object was compiled without a flag."""
    tree.write(".unit.o.cmd", (tree.root / ".unit.o.cmd").read_text().replace(f"{flag} ", ""))
    return tree


@pytest.mark.parametrize(("before", "after"), [("other", "third"), ("other", "+other"), ("other", "other(0),other")])
def test_longer_instruction_is_compared_with_all_around_it(gcc: Pairs, before: str, after: str) -> None:
    """The sources claim that nothing but lines differs; what the instructions refer to says otherwise."""
    source = LONGER.replace("other(int)", "other(int), third(int)").replace("other(x + 1)", "CALL(x + 1)")
    trees = [
        _scrub(gcc.tree(text, *LONGER_FLAGS, f"-DCALL={call}"), f"-DCALL={call}")
        for text, call in ((at_line(121, source), before), (shifted(at_line(121, source)), after))
    ]
    assert answers(*trees) == {"f": PROVED if after == "+other" else CHANGED}


# -- look-alikes ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LookAlike:
    """A change that moves a constant from 40 to 41, with a line macro on line 40, and one line inserted.

    ``head`` is at the top of unit.c, ``line`` is line 40, ``rest`` follows. ``old`` becomes ``new``.
    """

    name: str
    head: str
    line: str
    rest: str
    old: str
    new: str
    expected: dict[str, Answer]
    header: str = ""
    new_header: str = ""
    flags: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())

    def sources(self) -> tuple[dict[str, str], dict[str, str]]:
        before = '#include "h.h"\n#include "n.h"\n' + self.head
        text = before + at_line(40 - before.count("\n"), self.line) + self.rest
        header = HEADER + "int next(int);\n"
        old = {"unit.c": text, "h.h": header, "n.h": self.header}
        return old, {"unit.c": shifted(text.replace(self.old, self.new)), "h.h": header, "n.h": self.new_header}


WARNS = "int f(int x) { WARN(x);\n"
F_CHANGED = {"f": CHANGED}
# A constant 40 became a constant 41 somewhere in the file: then nothing from 40 to 41 is a line any more.
ALSO_G = {"f": CHANGED, "g": CHANGED}

LOOK_ALIKES = [
    LookAlike("errno", "", WARNS, "return 40; }\n", "return 40", "return 41", F_CHANGED),
    LookAlike("negative errno", "", WARNS, "return -41; }\n", "return -41", "return -40", F_CHANGED),
    LookAlike(
        "errno by a macro",
        "",
        WARNS,
        "return NUMBER; }\n",
        "",
        "",
        F_CHANGED,
        "#define NUMBER 40\n",
        "#define NUMBER 41\n",
    ),
    LookAlike(
        "the only number",
        "",
        "int g(int x) { return WARN(x); }\n",
        "int f(void) { return 40; }\n",
        "return 40",
        "return 41",
        ALSO_G,
    ),
    LookAlike(
        "beside a line that is not compiled",
        "",
        "int f(int x) { if (0) WARN(x);\n",
        "return other(40); }\n",
        "other(40)",
        "other(41)",
        F_CHANGED,
    ),
    LookAlike(
        "the same by a macro",
        "",
        "int f(int x) { if (0) WARN(x);\n",
        "return other(NUMBER); }\n",
        "",
        "",
        F_CHANGED,
        "#define NUMBER 40\n",
        "#define NUMBER 41\n",
    ),
    LookAlike(
        "loop count", "", WARNS, "for (int i = 0; i < 40; i++) next(i); return 1; }\n", "i < 40", "i < 41", F_CHANGED
    ),
    LookAlike(
        "number of elements of a table that grew by the line",
        "",
        "static inline int warns(int x) { return WARN(x); }\n",
        "int f(int x) { for (unsigned i = 0; i < sizeof(table); i++) next(table[i]); return warns(x); }\n",
        "",
        "",
        {"f": CHANGED},
        "static const char table[] = { " + "1,\n" * 40 + "};\n",
        "static const char table[] = { " + "1,\n" * 41 + "};\n",
    ),
    LookAlike(
        "enumerator behind one that was inserted",
        "",
        WARNS,
        "return LAST; }\n",
        "",
        "",
        F_CHANGED,
        "enum {\n" + "".join(f"E{i},\n" for i in range(40)) + "LAST };\n",
        "enum {\n" + "".join(f"E{i},\n" for i in range(40)) + "NEW,\nLAST };\n",
    ),
    LookAlike(
        "size of a structure",
        "",
        WARNS,
        "return sizeof(struct s); }\n",
        "",
        "",
        F_CHANGED,
        "struct s { char c[39]; char d; };\n",
        "struct s { char c[39]; char d, e; };\n",
    ),
    LookAlike(
        "constant on the command line",
        "",
        WARNS,
        "return NUMBER; }\n",
        "",
        "",
        F_CHANGED,
        flags=(("-DNUMBER=40",), ("-DNUMBER=41",)),
    ),
    LookAlike(
        "constant that came by way of a static function",
        "static int __attribute__((noinline)) number(int x) { return other(x); }\n",
        WARNS,
        "return number(40); }\n",
        "number(40)",
        "number(41)",
        {"f": CHANGED, "number": CHANGED},
    ),
    LookAlike(
        "field of a variable",
        "",
        "int g(int x) { return WARN(x); }\n",
        "int v[] = { 1, 40, 2 };\n",
        "1, 40",
        "1, 41",
        {"g": CHANGED, "v": CHANGED},
    ),
    LookAlike(
        "field of a variable beside a line", "", "int v[] = { __LINE__,\n", "40, 2 };\n", "40,", "41,", {"v": CHANGED}
    ),
    LookAlike(
        "digits in a string",
        "",
        "int f(int x) { WARN(x);\n",
        'return say("40 apples"); }\n',
        "40 apples",
        "41 apples",
        F_CHANGED,
    ),
]


@pytest.mark.parametrize("case", LOOK_ALIKES, ids=lambda case: case.name)
def test_constant_that_goes_the_way_of_the_lines_is_a_change(gcc: Pairs, case: LookAlike) -> None:
    old, new = case.sources()
    found = answers(gcc.tree(old, *case.flags[0]), gcc.tree(new, *case.flags[1]))
    assert {name: answer for name, answer in found.items() if name in case.expected} == case.expected


# -- what compilers do with lines -------------------------------------------------------------------------------------

COPIED = """#include "h.h"
#include "n.h"
static inline int warns(int x) { return WARN(x); }
int f(int x)
{
	return warns(x) + warns(x + 1)ALSO;
}
int edited(int x) { return other(x) + 1; }
"""


def test_copies_of_a_line_are_one_line(cc: Pairs) -> None:
    new = shifted(COPIED).replace("(x) + 1", "(x) - 1")
    old_tree, new_tree = (cc.tree({"unit.c": text, "h.h": HEADER, "n.h": ""}, "-DALSO=") for text in (COPIED, new))
    (change,) = [c for group in report_of(old_tree, new_tree).objects for c in group.changes if c.symbol == "f"]
    assert len(change.reasons) == 2
    assert answers(old_tree, new_tree) == {"f": PROVED, "edited": CHANGED}


def test_copies_do_not_excuse_a_constant(cc: Pairs) -> None:
    """It has the number of the line, is not written as one, and is passed to another function."""
    enum = "enum { E0,\nE1,\nE2,\n%sLAST };\n"
    found = cc.diff(
        {"unit.c": COPIED, "h.h": HEADER, "n.h": enum % ""},
        {"unit.c": shifted(COPIED), "h.h": HEADER, "n.h": enum % "NEW,\n"},
        "-DALSO=+pack(LAST)",
    )
    assert found == {"f": CHANGED}


def test_function_that_was_edited_is_never_excused(gcc: Pairs) -> None:
    source = at_line(40, '#include "h.h"\nint f(int x)\n{\n\tint y = x;\n\treturn WARN(y);\n}\n')
    assert gcc.diff({"unit.c": source, "h.h": HEADER}, {"unit.c": shifted(source), "h.h": HEADER}) == {"f": PROVED}
    renamed = shifted(source.replace("y", "z"))
    assert gcc.diff({"unit.c": source, "h.h": HEADER}, {"unit.c": renamed, "h.h": HEADER}) == {"f": CHANGED}


def test_function_that_was_edited_is_not_excused_by_lines_of_another(gcc: Pairs) -> None:
    source = COPIED.replace("ALSO", "").replace("{\n\treturn w", "{\n\tint y = x;\n\treturn w")
    files = {"h.h": HEADER, "n.h": ""}
    assert gcc.diff({"unit.c": source, **files}, {"unit.c": shifted(source), **files}) == {"f": PROVED}
    renamed = shifted(source.replace("int y", "int z"))
    assert gcc.diff({"unit.c": source, **files}, {"unit.c": renamed, **files}) == {"f": CHANGED}


def test_system_calls_are_found_by_their_arguments(gcc: Pairs) -> None:
    header = HEADER + "#define SYSCALL_DEFINE1(name, arg) long __do_sys_##name(arg)\n"
    source = at_line(
        40,
        '#include "h.h"\nSYSCALL_DEFINE1(read, int x)\n{\n\treturn WARN(x);\n}\nint edited(int x) { return x + 1; }\n',
    )
    new = shifted(source).replace("x + 1", "x - 1")
    found = gcc.diff({"unit.c": source, "h.h": header}, {"unit.c": new, "h.h": header})
    assert found == {"__do_sys_read": PROVED, "edited": CHANGED}


# -- records, and names -----------------------------------------------------------------------------------------------

BUG = """#define BUG_ENTRY asm volatile("1: ud2\\n.pushsection __bug_table,\\"aw\\"\\n.long 1b - ., %c0 - .\\n" \\
	".word %c1, 3\\n.popsection" :: "i"(__FILE__), "i"(__LINE__))
int f(int x)
{
	BUG_ENTRY;
	return x;
}
int edited(int x) { return x + 1; }
"""


def test_records_are_proved_too(gcc: Pairs) -> None:
    assert gcc.diff(BUG, shifted(BUG)) == {"f": PROVED}
    assert gcc.diff(BUG, shifted(BUG).replace("x + 1", "x - 1")) == {"f": PROVED, "edited": CHANGED}


def test_record_of_a_line_that_was_edited_is_known_by_itself(gcc: Pairs) -> None:
    assert gcc.diff(BUG, shifted(BUG).replace("\tBUG_ENTRY", "\t\tBUG_ENTRY")) == {"f": RECORDS}
    assert gcc.diff_without_sources(BUG, shifted(BUG)) == {"f": RECORDS}


def test_ubsan_data_are_proved_by_their_file(cc: Pairs) -> None:
    source = at_line(
        40, "extern int table[8];\nint f(int x) { return table[x]; }\nint edited(int x) { return x + 1; }\n"
    )
    new = shifted(source).replace("x + 1", "x - 1")
    assert cc.diff(source, new, "-fsanitize=bounds") == {"f": PROVED, "edited": CHANGED}


def test_column_that_moved_like_the_lines_is_not_proved(gcc: Pairs) -> None:
    """Two more blanks on the line, two more lines above; the expression stands in column 23, and there is a line 23."""
    source = at_line(40, "extern int table[8];\nint f(int x) { return table[x]; }\n")
    wider = shifted(source, 2).replace("{ return", "{   return")
    assert gcc.diff(source, wider, "-fsanitize=bounds") == {"f": RECORDS}


NOTES = """#define NOTE2(line, value) static const int note_##line __attribute__((used)) = value
#define NOTE1(line, value) NOTE2(line, value)
#define NOTE(value) NOTE1(__LINE__, value)
NOTE(1);
NOTE(2);
NOTE(3);
int f(int x) { return x; }
"""


def test_names_with_lines_in_them(gcc: Pairs) -> None:
    # note_4 and note_5 become note_5 and note_6, of which one was there before.
    assert gcc.diff(NOTES, shifted(NOTES)) == {"note_5": PROVED, "note_6": PROVED, "note_7": PROVED}
    assert gcc.diff(NOTES, shifted(NOTES, 9)) == {"note_13": PROVED, "note_14": PROVED, "note_15": PROVED}


def test_names_with_other_numbers_in_them(gcc: Pairs) -> None:
    source = "static const int note_{} __attribute__((used)) = 5;\nint f(int x) {{ return x; }}\n"
    old, new = source.format(40), shifted(source.format(41))
    found = gcc.diff(at_line(40, old), at_line(40, new))
    assert found == {"note_40": Answer("removed", ""), "note_41": Answer("added", "")}
    changed = shifted(NOTES).replace("NOTE(2)", "NOTE(4)")
    assert CHANGED in gcc.diff(NOTES, changed).values() or Answer("added", "") in gcc.diff(NOTES, changed).values()
