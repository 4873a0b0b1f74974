# SPDX-License-Identifier: GPL-2.0-only
"""Static variables of functions: GCC calls them `NAME.NUMBER`, Clang `FUNCTION.NAME`. The answers are the same.

What is known by its content is the function's own: read-only tables, the kernel's records and rate limits. That of an
inlined function is of all into which it went, and its name is nobody's. All others are variables.
"""

from __future__ import annotations

import re

import pytest
from snippets import Changes, Compiler, changed, data_changed
from watched_answers import NOTHING, added, answer, edited

from kbuild_klp.builds.single_object import ObjectBuild
from kbuild_klp.compare.passes import compare

SOURCE = """
extern const int outside, other;
struct rs { int interval, burst; };
struct debug { const char *module, *function, *file, *format; unsigned long line; void *key[2]; };
int limited(struct rs *), emit(struct debug *), use(const void *);
#define RECORD __attribute__((section("__dyndbg"), used, aligned(8)))
#define debug(format) ({ \\
	static struct debug RECORD descriptor = { "m", 0, "a.c", format, __LINE__ }; emit(&descriptor); })
#define INLINED static inline __attribute__((always_inline)) int
INLINED inlined(int x) { debug("inlined"); return x + 1; }
INLINED looked_up(int x) { static const int own[] = { 11, 12, 13, 14, 15, 16 }; use(own); return own[x]; }
INLINED counted(int x) { static int uses = 70; return x + uses++; }
int f(int x) { static const short table[] = { 1, 2, 3, 4, 5 }; use(table); return inlined(x) + table[x]; }
int g(int x) { static struct rs _rs = { 5000, 10 }; return limited(&_rs) + inlined(x * 2) + looked_up(x); }
int h(int x) { debug("first"); debug("second"); return looked_up(x + 1) - counted(x); }
int i(int x) { static int count = 30; return count++ + x; }
int j(int x) { return x * 5 + counted(x); }
int k(int x) { static const int *const pointed[] = { &outside, 0 }; use(pointed); return x; }
"""

EDITS: list[tuple[tuple[str, str], Changes]] = [
    (("", ""), NOTHING),
    (("{ 1, 2, 3, 4, 5 }", "{ 1, 2, 3, 4, 6 }"), changed("f")),
    (("{ &outside,", "{ &other,"), changed("k")),
    (("{ 5000, 10 }", "{ 5000, 11 }"), changed("g")),
    (('"second"', '"third"'), changed("h")),
    (('debug("first"); ', ""), changed("h")),
    # Of an inlined function: all that it went into.
    (("13, 14", "13, 15"), changed("g", "h")),
    (('"inlined"', '"outlined"'), changed("f", "g")),
    # One more, or none.
    (("{ return x * 5", '{ debug("new"); return x * 5'), changed("j")),
    (("{ return x * 5", "{ static const int more[] = { 8, 9 }; use(more); return x * 5"), changed("j")),
    (("int f(", 'int e(int x) { debug("e"); return inlined(x); }\nint f('), added("function", "e")),
    # A variable that is written to has its name.
    (("count = 30", "count = 31"), data_changed("count")),
    (("uses = 70", "uses = 71"), data_changed("uses")),
]


def _without_functions(changes: Changes) -> Changes:
    """Return changes with Clang's names for static variables as they are in the source."""
    return {(re.sub(r"^\w+\.(?=\w)", "", symbol), kind, what) for symbol, kind, what in changes}


@pytest.mark.parametrize(("edit", "want"), EDITS)
def test_static_variables_of_functions(cc: Compiler, edit: tuple[str, str], want: Changes) -> None:
    assert _without_functions(answer(cc.object(SOURCE), cc.object(edited(SOURCE, edit)))) == want


@pytest.mark.parametrize("inlined", ["inlined", "looked_up"])
def test_name_of_an_inlined_function_says_nothing_about_its_tables(cc: Compiler, inlined: str) -> None:
    assert answer(cc.object(SOURCE), cc.object(edited(SOURCE, (f"{inlined}(", "renamed(")))) == NOTHING


def test_renamed_function_takes_its_tables_along(cc: Compiler) -> None:
    renamed = answer(cc.object(SOURCE), cc.object(edited(SOURCE, ("int f(", "int renamed("))))
    assert renamed == {("f", "function", "removed"), ("renamed", "function", "added")}


def test_variable_that_goes_to_another_function_is_found(cc: Compiler) -> None:
    """Both count in it now: a function that starts a count of its own is another one."""
    shared = "static int count = 30;\nint i(int x) { return count++ + x; }\nint j(int x) { count--;"
    new = SOURCE.replace("int i(int x) { static int count = 30; return count++ + x; }\nint j(int x) {", shared)
    assert new != SOURCE
    found = _without_functions(answer(cc.object(SOURCE), cc.object(new)))
    assert {change for change in found if change[1] == "function"} == changed("i", "j")
    moved = SOURCE.replace("static int count = 30; return count++ + x", "return x").replace(
        "return x * 5", "static int count = 30; return count++ + x * 5"
    )
    found = _without_functions(answer(cc.object(SOURCE), cc.object(moved)))
    assert {change for change in found if change[1] == "function"} == changed("i", "j")


def test_table_that_goes_to_another_function_is_of_both(cc: Compiler) -> None:
    table = "static const short table[] = { 1, 2, 3, 4, 5 }; use(table); "
    new = edited(
        SOURCE.replace("return x * 5", table + "return x * 5"), (f"int f(int x) {{ {table}", "int f(int x) { ")
    )
    new = new.replace("inlined(x) + table[x]", "inlined(x)")
    assert answer(cc.object(SOURCE), cc.object(new)) == changed("f", "j")


def test_dot_in_a_name_of_assembly_hides_nothing(gcc: Compiler) -> None:
    source = """
    .globl f
    .type f, @function
    f: mov a.table(%rip), %eax
    mov b.table(%rip), %edx
    ret
    .size f, . - f
    .section .rodata
    .type a.table, @object
    a.table: .long 1
    .size a.table, 4
    .type b.table, @object
    b.table: .long 2
    .size b.table, 4
    .type unused.table, @object
    unused.table: .long 3
    .size unused.table, 4
    """
    assert gcc.diff_assembly(source, source.replace(".long 1", ".long 5")) == changed("f")
    unused = added("data", "b.table")
    assert gcc.diff_assembly(source, source.replace("mov b.table", "mov a.table")) == changed("f") | unused
    assert gcc.diff_assembly(source, source.replace(".long 3", ".long 5")) == data_changed("unused.table")
    assert gcc.diff_assembly(source, source.replace("a.table", "c.table")) == NOTHING


def test_reason_names_the_table(clang: Compiler) -> None:
    new = SOURCE.replace("{ 1, 2, 3, 4, 5 }", "{ 1, 2, 3, 4, 6 }")
    report = compare(ObjectBuild(str(clang.object(SOURCE))), ObjectBuild(str(clang.object(new))), 1)
    [change] = [change for group in report.objects for change in group.changes]
    assert any("f.table: content" in str(reason) for reason in change.reasons)
