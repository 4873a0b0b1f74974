# SPDX-License-Identifier: GPL-2.0-only
"""In which section code and data lie: no change where the linker puts both to the same place."""

from __future__ import annotations

import pytest
from snippets import THREE, Compiler, changed, diff_objects


def test_function_and_data_sections_change_nothing(cc: Compiler) -> None:
    """The linker puts .text.foo where it puts .text."""
    source = THREE % "" + "static int count; int *where(void) { static long own = 3; own++; return &count; }\n"
    split = cc.object(source, "-ffunction-sections", "-fdata-sections")
    assert diff_objects(cc.object(source), split) == set()


def test_function_in_the_section_of_another_one_moved(gcc: Compiler) -> None:
    source = "{}\n.globl f\n.type f, @function\nf: nop\nret\n.size f, . - f\n"
    old, new = source.format(".text"), source.format('.section .text.g, "ax"')
    assert gcc.diff_assembly(old, new) == {("f", "function", "moved")}


def test_cold_part_in_memory_that_is_given_back_is_a_change(gcc: Compiler) -> None:
    """It has no entry of its own that could have moved."""
    source = """
    .text
    .globl f
    .type f, @function
    f: jmp f.cold
    .size f, . - f
    .section {}, "ax"
    .type f.cold, @function
    f.cold: ud2
    .size f.cold, . - f.cold
    """
    old, new = source.format(".text.unlikely"), source.format(".init.text")
    assert gcc.diff_assembly(old, new) == changed("f")
    assert gcc.diff_assembly(old, source.format(".text.unlikely.f")) == set()


@pytest.mark.parametrize("flags", [("-fpatchable-function-entry=16,16",), ("-fpatchable-function-entry=5",)])
def test_one_section_a_function_is_no_change_of_the_others(cc: Compiler, flags: tuple[str, ...]) -> None:
    if cc.command != "gcc":
        flags = (*flags, "-fsanitize=kcfi")
    source = "int f(int a) { return a + 1; } int (*g(int a))(int) { return a ? f : 0; }\n"
    new = f"int fresh(int a) {{ return a - 3; }}\n{source}"
    assert cc.diff(source, source, *flags) == set()
    assert cc.diff(source, new, *flags) == {("fresh", "function", "added")}
    assert cc.diff(new, source, *flags) == {("fresh", "function", "removed")}
    assert cc.diff(source, source.replace("+ 1", "+ 2"), *flags) == {("f", "function", "changed")}


RECORDS = """
    .section {section}
    .balign 64
    .globl first
    .type first, @object
    first: .long 1, 2, 3
    .size first, . - first
    {more}
    .balign {align}
    .Lrecord: .quad 5, 6, 7
    .globl last
    .type last, @object
    last: .long 9
    .size last, . - last
    .quad 88 # of nobody
    .text
    .globl f
    .type f, @function
    f: mov $.Lrecord, %rdi
    {code}
    ret
    .size f, . - f
"""
ADDED = "fresh: .long 4; .type fresh, @object; .size fresh, 4"


@pytest.mark.parametrize("section", [".data", ".rodata"])
@pytest.mark.parametrize(
    ("align", "more", "code", "want"),
    [
        (32, ADDED, "", {("fresh", "data", "added")}),
        (64, ADDED, "", {("fresh", "data", "added")}),
        # Bytes that are no zeros, are more than align it, align nothing, or are of interest to somebody.
        (32, f"{ADDED}; .byte 0, 1", "", {("fresh", "data", "added"), ("SECTION", "section", "changed")}),
        (32, f"{ADDED}; .zero 60", "", {("fresh", "data", "added"), ("SECTION", "section", "changed")}),
        (1, f"{ADDED}; .zero 9", "", {("fresh", "data", "added"), ("SECTION", "section", "changed")}),
        (
            32,
            f"{ADDED}; .zero 4; .Lin:",
            "mov $.Lin, %rsi",
            {("fresh", "data", "added"), ("f", "function", "changed"), ("SECTION", "section", "changed")},
        ),
        (32, f"{ADDED}; .balign 8; .quad f", "", {("fresh", "data", "added"), ("SECTION", "section", "changed")}),
    ],
)
def test_zeros_before_what_has_no_name(
    gcc: Compiler, section: str, align: int, more: str, code: str, want: set[tuple[str, str, str]]
) -> None:
    old = RECORDS.format(section=section, align=align, more="", code="")
    new = RECORDS.format(section=section, align=align, more=more, code=code)
    found = {(symbol.replace(section, "SECTION"), kind, change) for symbol, kind, change in gcc.diff_assembly(old, new)}
    assert found == want
