# SPDX-License-Identifier: GPL-2.0-only
"""Which instructions of two versions of a function differ: those that do something else, not those that moved."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from snippets import Compiler

from kbuild_klp.builds.single_object import ObjectBuild
from kbuild_klp.changes.wording import ReasonKind
from kbuild_klp.compare.passes import compare
from kbuild_klp.explain.comparison import LENGTH, OPERAND, Comparison
from kbuild_klp.lines.versions import Version
from kbuild_klp.object.symbol_id import SymbolId
from kbuild_klp.object.view import ObjectView

_COLD = """
    .text
    .globl f
    .type f, %function
f:  {0}
    test %edi, %edi
    je f.cold + {4}
.Lback:
    {1}
    ret
    .size f, . - f
    .section .text.unlikely, "ax"
    .type f.cold, %function
f.cold:
    {2}
    cli
    {3}
    jmp .Lback
    .size f.cold, . - f.cold
"""
_SWITCH = """
    .text
    .globl f
    .type f, %function
f:  {0}
    jmp *.Ltable(,%rdi,8)
.La: nop
.Lb: hlt
    {1}
.Lc: cli
    ret
    .size f, . - f
    .section .rodata
    .p2align 3
.Ltable: .quad .La, .Lb, {2}
"""


def _parts(view: ObjectView, name: str) -> list[int]:
    return view.parts_of(SymbolId(name))


def _compare(old: Path, new: Path, name: str = "f") -> Comparison:
    views = ObjectView(str(old)), ObjectView(str(new))
    return Comparison(*(Version(view, _parts(view, name)) for view in views))


def _differing(comparison: Comparison) -> tuple[list[str], list[str]]:
    """Return the text of what is removed and added."""
    removed = [line.text for a0, a1, _, _ in comparison.hunks for line in comparison.old[a0:a1]]
    added = [line.text for _, _, b0, b1 in comparison.hunks for line in comparison.new[b0:b1]]
    return removed, added


def _function(body: str) -> str:
    return f".text\n.globl f\n.type f, %function\nf: {body}\nret\n.size f, . - f\n"


def test_branch_over_a_new_instruction_is_the_same(gcc: Compiler) -> None:
    text = _function("je 1f\njmp 2f\nhlt\n{}\n1: cli\n2: sti\njne 1b\nlea 1b(%rip), %rax")
    comparison = _compare(gcc.assembly(text.format("")), gcc.assembly(text.format("nop")))
    assert _differing(comparison) == ([], ["nop"])
    assert comparison.retargets == [] and comparison.moves


@pytest.mark.parametrize("more", ["", "nop"])
def test_branch_that_goes_elsewhere_is_found_beside_other_changes(gcc: Compiler, more: str) -> None:
    text = _function("je {}f\n{}\nhlt\n1: cli\n2: sti")
    comparison = _compare(gcc.assembly(text.format(1, "")), gcc.assembly(text.format(2, more)))
    assert _differing(comparison) == ([], [more] if more else [])
    (target,) = comparison.retargets
    assert target.entry == OPERAND
    assert (comparison.old[target.old].text, comparison.new[target.new].text) == ("cli", "sti")
    assert comparison.stretches[0][:2] == (0, 1)


def test_branch_to_what_was_inserted_is_no_other_branch(gcc: Compiler) -> None:
    text = _function("je 1f\nhlt\n{}\nsti")
    comparison = _compare(gcc.assembly(text.format("1: cli")), gcc.assembly(text.format("1: nop\ncli")))
    assert _differing(comparison) == ([], ["nop"]) and comparison.retargets == []


def test_branch_to_the_instruction_before_is_another_branch(gcc: Compiler) -> None:
    text = _function("je 1f\nhlt\n{}\nsti")
    comparison = _compare(gcc.assembly(text.format("cli\n1: hlt")), gcc.assembly(text.format("1: std\nhlt")))
    assert _differing(comparison) == (["cli"], ["std"])
    assert [(target.a, target.entry) for target in comparison.retargets] == [(0, OPERAND)]


@pytest.mark.parametrize("place", range(4))
def test_parts_that_grow_do_not_change_the_branches_between_them(gcc: Compiler, place: int) -> None:
    fill = [""] * 4
    fill[place] = "nop"
    offset = 1 if place == 2 else 0  # to the same instruction
    old, new = gcc.assembly(_COLD.format(*[""] * 4, 0)), gcc.assembly(_COLD.format(*fill, offset))
    comparison = _compare(old, new)
    assert _differing(comparison) == ([], ["nop"]) and comparison.retargets == []


def test_branch_to_another_place_in_the_cold_part(gcc: Compiler) -> None:
    fill = ["", "nop", "nop", "", 0]
    old, new = gcc.assembly(_COLD.format(*fill)), gcc.assembly(_COLD.format(*fill[:4], 1))
    comparison = _compare(old, new)
    assert comparison.hunks == []
    assert [(target.a, comparison.new[target.new].text) for target in comparison.retargets] == [(1, "cli")]


def test_jump_table_over_a_new_instruction_is_the_same(gcc: Compiler) -> None:
    old = gcc.assembly(_SWITCH.format("", "", ".Lc"))
    for fill in (("nop", ""), ("", "nop")):
        comparison = _compare(old, gcc.assembly(_SWITCH.format(*fill, ".Lc")))
        assert _differing(comparison) == ([], ["nop"]) and comparison.retargets == []


@pytest.mark.parametrize("fill", ["", "nop"])
def test_entry_of_a_jump_table_that_goes_elsewhere(gcc: Compiler, fill: str) -> None:
    old = gcc.assembly(_SWITCH.format("", "", ".Lc"))
    comparison = _compare(old, gcc.assembly(_SWITCH.format(fill, "", ".Lb")))
    (target,) = comparison.retargets
    assert target.entry == 2
    assert (comparison.old[target.old].text, comparison.new[target.new].text) == ("cli", "hlt")


def test_jump_table_with_an_entry_more(gcc: Compiler) -> None:
    old = gcc.assembly(_SWITCH.format("", "", ".Lc"))
    comparison = _compare(old, gcc.assembly(_SWITCH.format("", "", ".Lc, .La")))
    assert [target[2:] for target in comparison.retargets] == [(3, 4, LENGTH)]


def test_start_of_a_jump_table_is_compared(gcc: Compiler) -> None:
    text = _SWITCH.replace(".Ltable(", ".Ltable{3}(")
    old, new = (gcc.assembly(text.format("", "", ".Lc", more)) for more in ("", "-8"))
    assert _differing(_compare(old, new)) != ([], [])


def test_recursion_is_by_name(gcc: Compiler) -> None:
    """The linker may give a global name to something else: that is no place in the function."""
    text = _function("call {}") + ".globl g\n.set g, f\n"
    comparison = _compare(gcc.assembly(text.format("f")), gcc.assembly(text.format("g")))
    assert _differing(comparison) == (["callq f"], ["callq g"])


def test_branch_of_another_length_is_a_branch(gcc: Compiler) -> None:
    old = gcc.assembly(_function("je 1f\n.skip 100, 0x90\n1: nop"))
    new = gcc.assembly(_function("je 1f\n.skip 200, 0x90\n1: nop"))
    removed, added = _differing(_compare(old, new))
    assert (removed[0], added[0]) == ("je +0x66", "je +0xce")


def test_branch_into_an_instruction_is_compared(gcc: Compiler) -> None:
    """Bytes that are another instruction when entered in the middle."""
    text = _function("je 1f + {}\nhlt\n1: mov $0x90909090, %eax")
    comparison = _compare(gcc.assembly(text.format(1)), gcc.assembly(text.format(2)))
    assert _differing(comparison) == (["je +0x4"], ["je +0x5"])


def test_long_functions_of_equal_instructions_take_no_time(gcc: Compiler) -> None:
    text = _function(".rept 5000\nnop\nhlt\n.endr\n{}\n.rept 5000\nhlt\nnop\n.endr")
    old, new = (
        gcc.assembly(text.format("cli")),
        gcc.assembly("\n".join((text.format("sti"), "nop")).replace("hlt\nnop", "nop")),
    )
    start = time.process_time()
    comparison = _compare(old, new)
    assert comparison.differs
    assert time.process_time() - start < 5


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("call outside", "callq outside"),
        ("call outside + 8", "callq outside+0x8"),
        ("jmp *outside(,%rdi,8)", "jmpq *outside(, %rdi, 8)"),
        ("jmp *outside(%rip)", "jmpq *outside(%rip)"),
        ("mov outside(%rip), %eax", "movl outside(%rip), %eax"),
        ("mov outside - 4(%rdi), %eax", "movl outside-0x4(%rdi), %eax"),
        ("mov $outside, %rdi", "movq $outside, %rdi"),
        ("movabs $outside, %rdi", "movabsq $outside, %rdi"),
        ("mov %gs:outside, %eax", "movl %gs:outside, %eax"),
        ("movl $one, two(%rip)", "movl $one, two(%rip)"),
        ("movl $0x17171710, outside(%rip)", "movl $0x17171710, outside(%rip)"),
        ("cmpb $5, outside(%rip)", "cmpb $5, outside(%rip)"),
        ("mov $.Lstring, %rdi", 'movq $<"a, b\\\\c">, %rdi'),
        ("mov .Lconstant(%rip), %rdi", "movq <constant 0x1234>(%rip), %rdi"),
        ("je 1f\nhlt\n1:", "je +0x3"),
        ("1: jmp 1b", "jmp +0x0"),
        ("call *%rax", "callq *%rax"),
        ("ud2", "ud2"),
        (".reloc ., R_X86_64_NONE, outside\nnop", "nop"),
        (".byte 0x06", ".byte 0x06"),
    ],
)
def test_text_of_an_instruction(gcc: Compiler, body: str, text: str) -> None:
    rest = (
        '.section .rodata.str1.1, "aMS", %progbits, 1\n.Lstring: .string "a, b\\\\c"\n'
        '.section .rodata.cst8, "aM", %progbits, 8\n.Lconstant: .quad 0x1234\n'
    )
    view = ObjectView(str(gcc.assembly(_function(body) + rest)))
    comparison = Comparison(*[Version(view, _parts(view, "f"))] * 2)
    line = comparison.old[0]
    assert line.text.replace("(,%rdi,8)", "(, %rdi, 8)") == text
    assert line.bytes == view.raw_bytes(line.part, 0, len(line.bytes)) and len(line.bytes) == line.size
    assert not comparison.differs


def test_what_stays_inside_is_nothing_that_is_called(gcc: Compiler) -> None:
    old = gcc.assembly(_COLD.format("", "nop", "", "", 0))
    new = gcc.assembly(_COLD.format("", "nop", "", "je .Lback\ncall outside", 0))
    report = compare(ObjectBuild(str(old)), ObjectBuild(str(new)))
    (change,) = report.objects[0].changes
    called = [reason.new for reason in change.why if reason.kind is ReasonKind.CALL_TARGET]
    assert called == ["outside"]
