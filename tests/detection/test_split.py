# SPDX-License-Identifier: GPL-2.0-only
"""Functions of which compilers make several pieces: a change of one is a change of the function."""

from __future__ import annotations

import pytest
from snippets import Compiler, changed, diff_objects

COLD = """
void cold(void) __attribute__((cold)); int other(int);
int hot(int x) { if (__builtin_expect(x == 77, 0)) { cold(); x = other(%s); cold(); } return other(x) + 1; }
int neighbour(int x) { if (x == 5) { cold(); x = other(2); cold(); } return other(x) + 3; }
"""


def test_change_in_the_cold_part_is_a_change_of_its_function(gcc: Compiler) -> None:
    flags = ["-freorder-blocks-and-partition"]
    assert "hot.cold" in gcc.object(COLD % "8", *flags).read_bytes().decode("latin-1")
    assert gcc.diff(COLD % "8", COLD % "9", *flags) == changed("hot")


def test_cold_part_that_grows_leaves_other_cold_parts_alone(gcc: Compiler) -> None:
    assert gcc.diff(COLD % "8", COLD % "other(other(other(8)))", "-freorder-blocks-and-partition") == changed("hot")


def test_cold_part_that_comes_into_being_is_no_function_of_its_own(gcc: Compiler) -> None:
    whole, split = gcc.object(COLD % "8", "-fno-reorder-blocks-and-partition"), gcc.object(COLD % "8")
    assert diff_objects(whole, split) == changed("hot", "neighbour")


BLOCKS = """
int printk(const char *, ...);
struct item { int a, b; struct item *next; };
int f(struct item *p, int x)
{
	int r = 0;
	if (!p) { printk("none %d", x); return -22; }
	while (p) {
		if (p->a > x) r += p->b;
		else if (p->a < -x) { printk("low %d", p->a); r -= SUBTRAHEND; }
		p = p->next;
	}
	return r;
}
static int helper(int x) { return x > 100 ? printk("big") : x * 7; }
int g(struct item *p)
{
	switch (p->a) { case 1: return p->b; case 2: return helper(p->b); case 3: return 5; }
	return 0;
}
"""


@pytest.mark.parametrize("flag", ["all", "list"])
def test_pieces_of_a_function_are_that_function(clang: Compiler, flag: str) -> None:
    """CONFIG_PROPELLER_CLANG: else nobody learns which function is another one, and pieces have other numbers."""
    profile = clang.directory / "profile"
    profile.write_text("v1\nf f\nc0 2\nc1 3\nf g\nc0\nc1 2\n")
    flags = [f"-fbasic-block-sections={flag if flag == 'all' else f'list={profile}'}"]
    three = clang.object(BLOCKS.replace("SUBTRAHEND", "3"), *flags)
    assert b"f.__part.1\0" in three.read_bytes()
    assert diff_objects(three, clang.object(BLOCKS.replace("SUBTRAHEND", "5"), *flags)) == changed("f")
    more = BLOCKS.replace("while (p) {", 'while (p) { if (p->a == 77) printk("x");').replace("SUBTRAHEND", "3")
    assert diff_objects(three, clang.object(more, *flags)) == changed("f")
    assert diff_objects(three, clang.object(BLOCKS.replace("SUBTRAHEND", "3") + "int h;", *flags)) == {
        ("h", "data", "added")
    }
