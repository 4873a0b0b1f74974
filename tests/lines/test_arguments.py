# SPDX-License-Identifier: GPL-2.0-only
"""What instructions do with a number that is passed beside a name, from assembly: the clauses *Argument*, *Company*."""

from __future__ import annotations

import pytest
from line_trees import CHANGED, INFERRED, Answer, Pairs, answers


def assembled(*instructions: str, behind: str = "ret") -> str:
    """Return a file with f in assembly; its file is named by 1f, a text that is none by 2f, NUMBER is what counts."""
    code = "\\n".join((*instructions, behind))
    return f"""
#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)
asm(".globl f\\n.type f,@function\\nf:\\n.set NUMBER, " TEXT(NUMBER) "\\n{code}\\n.size f, .-f\\n"
    ".section .rodata.str1.1,\\"aMS\\",@progbits,1\\n7: .asciz \\"kernel/unit.c\\"\\n8: .asciz \\"text\\"\\n.previous");
"""


FILE, TEXT, LINE = "movq $7f, %rdi", "movq $8f, %rdi", "movl $NUMBER, %esi"


@pytest.mark.parametrize(
    ("instructions", "expected"),
    [
        ((FILE, LINE, "call note"), INFERRED),
        ((LINE, FILE, "call note"), INFERRED),
        ((LINE, "leaq 7f(%rip), %rdi", "call note"), INFERRED),
        ((LINE, "cmpl $3, %eax", FILE, "call note"), INFERRED),
        # set before another call, which may change it, or takes it
        ((LINE, "call other", FILE, "call note"), CHANGED),
        ((FILE, "call other", LINE, "call note"), CHANGED),
        # read
        ((FILE, LINE, "addl %esi, %eax", "call note"), CHANGED),
        ((FILE, LINE, "movl %esi, (%rax)", "call note"), CHANGED),
        ((FILE, LINE, "cmovne %ecx, %esi", "call note"), CHANGED),
        ((FILE, LINE, "movb $1, %sil", "call note"), CHANGED),
        ((FILE, LINE, "incl %esi", "call note"), CHANGED),
        # a part of the register
        ((FILE, "movw $NUMBER, %si", "call note"), CHANGED),
        ((FILE, "movb $NUMBER, %sil", "call note"), CHANGED),
        # not for this call
        ((FILE, LINE, "movl %eax, %esi", "call note"), CHANGED),
        # what the other register holds
        ((TEXT, LINE, "call note"), CHANGED),
        ((FILE, LINE, TEXT, "call note"), CHANGED),
        (("movq 7f, %rdi", LINE, "call note"), CHANGED),
        # to a call, whichever way control goes
        ((FILE, LINE, "jmp note"), INFERRED),
        ((LINE, "testl %eax, %eax", "je 1f", FILE, "call note", "1: ", "ret"), INFERRED),
        ((LINE, "testl %eax, %eax", "je 1f", FILE, "call note", "ret", "1: ", "call other"), CHANGED),
        ((LINE, "testl %eax, %eax", "je 1f", FILE, "call note", "ret", "1: ", "addl %esi, %ecx"), CHANGED),
        ((LINE, "testl %eax, %eax", "je 1f", FILE, "jmp 2f", "1: ", TEXT, "2: ", "call note"), CHANGED),
        ((LINE, "testl %eax, %eax", "je 1f", FILE, "jmp 2f", "1: ", FILE, "2: ", "call note"), INFERRED),
        ((FILE, LINE, "jmp *%rax"), CHANGED),
        # a static branch, of which only its table knows where it goes
        (
            (
                *(LINE, "9: nopl 0(%rax,%rax)", FILE, "call note", "ret", "1: ", "addl %esi, %ecx"),
                '.pushsection __jump_table,\\"aw\\"',
                *(".long 9b - ., 1b - .", ".quad key - .", ".popsection"),
            ),
            CHANGED,
        ),
        (
            (
                *(LINE, "9: nopl 0(%rax,%rax)", FILE, "call note", "ret", "1: ", "addl %edx, %ecx"),
                '.pushsection __jump_table,\\"aw\\"',
                *(".long 9b - ., 1b - .", ".quad key - .", ".popsection"),
            ),
            INFERRED,
        ),
    ],
)
def test_what_instructions_do_with_it(gcc: Pairs, instructions: tuple[str, ...], expected: Answer) -> None:
    source = assembled(*instructions)
    old, new = (gcc.tree(source, f"-DNUMBER={number}").without_sources() for number in (100, 102))
    assert answers(old, new) == {"f": expected}


def test_lines_of_two_calls_that_the_compiler_made_one(gcc: Pairs) -> None:
    source = assembled(
        *("testl %eax, %eax", "je 1f", "movl $NUMBER + 9, %esi", "jmp 2f", "1: ", LINE, "2: ", FILE, "call note")
    )
    old, new = (gcc.tree(source, f"-DNUMBER={number}").without_sources() for number in (100, 102))
    assert answers(old, new) == {"f": INFERRED}
