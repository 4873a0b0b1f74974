# SPDX-License-Identifier: GPL-2.0-only
"""In which section code and data lie: no change where the linker puts both to the same place."""

from __future__ import annotations

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
