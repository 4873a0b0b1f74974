# SPDX-License-Identifier: GPL-2.0-only
"""Sections that are aligned as what has no name in them wants it."""

from __future__ import annotations

import pytest
from snippets import Changes, Compiler, changed
from watched_answers import NOTHING, added, answer

SOURCE = """
int use(const void *, int);
%s
const char f_name[] = "f";
int f(int a) { static const char tab[3] %s= { 1, 2, 3 }; return use(tab + a, 1) + use(f_name, 2); }
int g(int a) { %s; return use(__func__, 3); }
"""
TABLE = "switch (a) { case 0: return 3; case 1: return 170; case 2: return 7; case 3: return 9999; case 4: return 8; }"
MORE = f"int more(int a) {{ {TABLE} return -1; }}"
PLAIN = "int more(int a) { return a * 3; }"
ALIGNED = "__attribute__((aligned(64))) "
SECTION: Changes = {(".rodata", "section", "changed")}


@pytest.mark.parametrize(
    ("edits", "want"),
    [
        (("", "", ""), NOTHING),
        ((MORE, "", ""), added("function", "more")),
        (("", "", TABLE), changed("g")),
        (("", ALIGNED, ""), SECTION),
        ((PLAIN, ALIGNED, ""), added("function", "more") | SECTION),
        (("", ALIGNED, "use(0, a)"), changed("g") | SECTION),
    ],
)
def test_who_wants_the_alignment_of_a_section(gcc: Compiler, edits: tuple[str, str, str], want: Changes) -> None:
    old, new = gcc.object(SOURCE % ("", "", "")), gcc.object(SOURCE % edits)
    assert answer(old, new) == want


FIRST = """
.globl f
.type f, @function
f: movq $1f, %rax
	ret
.size f, . - f
.section .rodata, "a"
.align {}
1: .byte 1, 2, 3
.text
"""
SECOND = """
.globl user
.type user, @function
user: movq $2f, %rax
	ret
.size user, . - user
.section .rodata, "a"
.align {0}
2: .byte {0}
.text
"""


@pytest.mark.parametrize(
    ("old", "new", "want"),
    [
        (FIRST.format(1), FIRST.format(1) + SECOND.format(16), added("function", "user")),
        (FIRST.format(1) + SECOND.format(16), FIRST.format(1), {("user", "function", "removed")}),
        (SECOND.format(16) + FIRST.format(1), FIRST.format(1), {("user", "function", "removed")}),
        (FIRST.format(16), FIRST.format(1), SECTION),
        (FIRST.format(1), FIRST.format(16), SECTION),
        (FIRST.format(1) + SECOND.format(1), FIRST.format(1) + SECOND.format(16), changed("user")),
        # Nothing says that the first was not aligned for itself.
        (SECOND.format(16) + FIRST.format(16), SECOND.format(1) + FIRST.format(1), changed("user") | SECTION),
    ],
)
def test_alignment_that_comes_and_goes_with_its_user(gcc: Compiler, old: str, new: str, want: Changes) -> None:
    assert answer(gcc.assembly(old), gcc.assembly(new)) == want
