# SPDX-License-Identifier: GPL-2.0-only
"""What single x86-64 instructions do with the registers of arguments: from assembly, with the answer beside it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from snippets import Compiler

from kbuild_klp.arch import x86_calls
from kbuild_klp.arch.registry import Effect, Flow
from kbuild_klp.arch.x86_calls import ARGUMENTS, effect, flows
from kbuild_klp.object.view import ObjectView

DI, SI, DX, CX, R8, R9 = range(ARGUMENTS)
EVERYTHING = range(ARGUMENTS)


def does(
    reads: tuple[int, ...] = (),
    writes: tuple[int, ...] = (),
    sets: int | None = None,
    stores: bool = False,
) -> Effect:
    return Effect(frozenset(reads), frozenset(writes), sets, stores)


EFFECTS = {
    "movl $0x668, %edi": does((), (DI,), DI),
    "movl $0x668, %esi": does((), (SI,), SI),
    "movl $0x668, %edx": does((), (DX,), DX),
    "movl $0x668, %ecx": does((), (CX,), CX),
    "movl $0x668, %r8d": does((), (R8,), R8),
    "movl $0x668, %r9d": does((), (R9,), R9),
    "movq $0x668, %rsi": does((), (SI,), SI),
    "movabsq $0x66866866866, %rsi": does((), (SI,), SI),
    "leaq 0x100(%rip), %rdi": does((), (DI,), DI),
    "movl $0x668, %eax": does(),
    # a part of the register only, or of what it had
    "movw $0x668, %si": does((SI,), (SI,)),
    "movb $0x68, %sil": does((SI,), (SI,)),
    "sete %dl": does((DX,), (DX,)),
    "cmovne %eax, %esi": does((SI,), (SI,)),
    "bsf %eax, %esi": does((SI,), (SI,)),
    "addl $2, %esi": does((SI,), (SI,)),
    # another value than its own
    "movl %eax, %esi": does((), (SI,)),
    "movl %edx, %esi": does((DX,), (SI,)),
    "movq (%rdi), %rsi": does((DI,), (SI,)),
    "movq 0x100(%rip), %rsi": does((), (SI,)),
    "leaq 8(%rdi), %rsi": does((DI,), (SI,)),
    "leaq 8(%rsp), %rsi": does((), (SI,)),
    "xorl %esi, %esi": does((), (SI,)),
    "xorl %edx, %esi": does((SI, DX), (SI,)),
    # read only
    "cmpl $2, %esi": does((SI,)),
    "testb %dl, %dl": does((DX,)),
    "movl %esi, (%rax)": does((SI,)),
    "movl $5, (%rdi)": does((DI,)),
    "rep stosb": does((CX, DI), (CX, DI)),
    # on the stack
    "pushq $5": does(stores=True),
    "pushq $0x668": does(stores=True),
    "movl $5, 8(%rsp)": does(stores=True),
    "movq $5, (%rsp)": does(stores=True),
    "movl $5, 8(%rax)": does(),
    "pushq %rbx": does(),
    # where control goes
    "call .": does(),
    "call *%rax": does(),
    "call *%rsi": does((SI,)),
    "jmp .": does(),
    "jne .": does(),
    "jrcxz .": does((CX,)),
    "loop .": does((CX,), (CX,)),
    "ret": does((DX,)),
    "rep ret": does((DX,)),
    "ud2": does(),
    "nop": does(),
}

FLOWS = {
    Flow.CALL: ("call .", "call *%rax", "call *(%rax)", "call *8(%rip)", "notrack call *%rax", "cs call f"),
    Flow.JUMP: ("jmp .", "jmp f", "jmp *%r8", "jmp *f(,%rax,8)", "notrack jmp *%rax", "ds jmp f", "jmp *%cs:(%rax)"),
    Flow.BRANCH: ("jne .", "jb f", "cs jne f", "jrcxz .", "loop ."),
    Flow.END: ("ret", "rep ret", "ret $8", "lretq"),
    Flow.NEXT: (
        "ud2",
        "int3",
        "nop",
        "pushq %rax",
        "incq (%rax)",
        "decl %eax",
        "pushq (%rax)",
        "sete %al",
        "rep stosb",
    ),
}


def _code(place: Path, text: str) -> bytes:
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    built = ObjectView(str(Compiler("gcc", place).assembly(f"{text}\n"))).object
    return bytes(built.content(built.section_names.index(".text")))


@pytest.mark.parametrize("text", EFFECTS)
def test_effect(tmp_path: Path, text: str) -> None:
    assert effect(_code(tmp_path, text)) == EFFECTS[text]


@pytest.mark.parametrize(("flow", "text"), [(flow, text) for flow, texts in FLOWS.items() for text in texts])
def test_flow(tmp_path: Path, flow: Flow, text: str) -> None:
    code = np.frombuffer(_code(tmp_path, text) * 2, np.uint8)
    assert flows(code, np.array([0, len(code) // 2])).tolist() == [flow, flow]


def test_the_flow_of_what_is_cut_off_is_not_read_behind_it() -> None:
    assert flows(np.frombuffer(b"\x66\x66", np.uint8), np.array([0])).tolist() != [Flow.JUMP]


@pytest.mark.parametrize("code", [b"\x06", b"", b"\xbe\x68", b"\x90\x90"])
def test_what_is_no_instruction_takes_and_gives_everything(code: bytes) -> None:
    assert effect(code) == does(tuple(EVERYTHING), tuple(EVERYTHING))


_OPCODES = [bytes([code]) for code in (*range(0x70, 0x80), *range(0xB8, 0xC0), 0xE9, 0xEB)]
_OPCODES += [bytes([0x0F, code]) for code in range(0x80, 0x90)]


@pytest.mark.parametrize("opcode", _OPCODES, ids=bytes.hex)
@pytest.mark.parametrize("field", ["05", "fb", "12345678", "0000ffff", "d0d0d0d0"])
def test_where_a_branch_goes_and_which_number_is_loaded_change_nothing(opcode: bytes, field: str) -> None:
    """They are left out of what is decoded: an effect of another instruction would name a wrong line."""
    instruction = opcode + bytes.fromhex(field)
    assert effect(instruction) == x86_calls._effect(instruction)
