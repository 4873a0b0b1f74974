# SPDX-License-Identifier: GPL-2.0-only
"""Sections that are about another one each: LLVM makes one for each function that ftrace can take over."""

from __future__ import annotations

from snippets import Compiler, diff_objects

TRACED = "-fpatchable-function-entry=2"
SOURCE = "int f(int x) { return x + 1; }\nint g(int x) { return x - 1; }\n"


def test_how_many_functions_there_are_is_said_of_the_functions(clang: Compiler) -> None:
    added = clang.diff(SOURCE, SOURCE + "int h(int x) { return x; }\n", TRACED)
    assert added == {("h", "function", "added")}


def test_their_flags_count(gcc: Compiler) -> None:
    """Sections of one name, of which one is writable now."""
    text = ".text\nf: nop\ng: nop\n" + "".join(
        f'.section list, "{{}}o", @progbits, .text, unique, {number}\n' for number in (1, 2)
    )
    old, new, both = (gcc.assembly(text.format(*flags)) for flags in (("a", "a"), ("a", "aw"), ("aw", "a")))
    assert diff_objects(old, new) == {("list", "section", "changed")}
    assert diff_objects(new, both) == set()
