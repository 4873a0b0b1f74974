# SPDX-License-Identifier: GPL-2.0-only
"""How x86-64 code passes arguments (System V psABI, section 3.2.3): what one instruction does with their registers."""

from __future__ import annotations

import re
from functools import cache, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kbuild_klp.arch.registry import Effect, Flow
from kbuild_klp.arch.x86_decode import behind_prefixes, pairs_of

_ARGUMENT = {
    name: number
    for number, names in enumerate(
        (
            "rdi edi di dil",
            "rsi esi si sil",
            "rdx edx dx dl dh",
            "rcx ecx cx cl ch",
            "r8 r8d r8w r8b",
            "r9 r9d r9w r9b",
        )
    )
    for name in names.split()
}
ARGUMENTS = 6
_RETURNED = frozenset({_ARGUMENT["rdx"]})  # the second half of what a function returns
_MAY_LEAVE = ("cmov", "bsf", "bsr", "cmpxchg")  # write their register, or not
_WHOLE = (4, 8)  # bytes: writing the lower half of a register clears the upper one


class _Capstone:
    """Capstone with its numbers for what is asked for; it takes 50 ms to import."""

    def __init__(self) -> None:
        import capstone
        from capstone import x86

        self.decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
        self.decoder.detail = True
        self.register, self.immediate, self.memory = x86.X86_OP_REG, x86.X86_OP_IMM, x86.X86_OP_MEM
        self.none, self.instruction, self.stack = x86.X86_REG_INVALID, x86.X86_REG_RIP, x86.X86_REG_RSP
        self.argument = {getattr(x86, f"X86_REG_{name.upper()}"): number for name, number in _ARGUMENT.items()}


_capstone = cache(_Capstone)


# Where a branch goes and which number is loaded make no difference, and are what makes instructions many: Jcc, JMP,
# and MOV of a number to a register of 32 bits.
_ALIKE = re.compile(rb"[\x70-\x7f\xb8-\xbf\xe9\xeb]|\x0f[\x80-\x8f]")


@lru_cache(maxsize=1 << 16)
def effect(instruction: bytes) -> Effect:
    """Return what one instruction does with arguments.

    What is no instruction takes all of them, so that nothing is concluded from what was in them.
    """
    opcode = _ALIKE.match(instruction)
    return _effect(opcode[0].ljust(len(instruction), b"\0") if opcode else instruction)


@lru_cache(maxsize=1 << 16)
def _effect(instruction: bytes) -> Effect:
    capstone = _capstone()
    decoded = next(capstone.decoder.disasm(instruction, 0), None)
    if decoded is None or decoded.size != len(instruction):
        return Effect(frozenset(range(ARGUMENTS)), frozenset(range(ARGUMENTS)))
    known = capstone.argument
    reads, writes = (
        frozenset(known[register] for register in found if register in known) for found in decoded.regs_access()
    )
    mnemonic = decoded.mnemonic.rpartition(" ")[2]  # without prefixes
    if mnemonic.startswith("call"):
        return Effect(reads)
    if mnemonic.startswith(("j", "loop")):
        return Effect(reads, writes)
    if mnemonic.startswith("ret"):
        return Effect(_RETURNED)
    operands = decoded.operands
    registers = [operand for operand in operands if operand.type == capstone.register]
    if mnemonic in ("xor", "sub") and len(registers) == 2 and registers[0].reg == registers[1].reg:
        reads = frozenset()  # the way to write 0
    elif mnemonic.startswith(_MAY_LEAVE) or any(register.size not in _WHOLE for register in registers):
        reads |= writes  # (a part of) what was there may stay
    if not writes and mnemonic not in ("push", "mov"):
        return Effect(reads, writes)
    return Effect(reads, writes, _set_argument(mnemonic, operands), _stores_argument(mnemonic, operands))


def _set_argument(mnemonic: str, operands: list[Any]) -> int | None:
    """Return the argument that mov gives a number or an address, or lea an address that counts from here."""
    capstone = _capstone()
    if mnemonic not in ("mov", "movabs", "lea") or operands[0].type != capstone.register:
        return None
    to, what = operands
    if mnemonic == "lea":
        is_own = what.mem.base == capstone.instruction and what.mem.index == capstone.none
    else:
        is_own = what.type == capstone.immediate
    return capstone.argument.get(to.reg) if is_own and to.size in _WHOLE else None


def _stores_argument(mnemonic: str, operands: list[Any]) -> bool:
    """Say whether a number is put on the stack: the seventh argument and those behind it lie there."""
    capstone = _capstone()
    if not operands or operands[-1].type != capstone.immediate:
        return False
    is_stack = operands[0].type == capstone.memory and operands[0].mem.base == capstone.stack
    return mnemonic == "push" or (mnemonic == "mov" and is_stack)


_PREFIX = 0xFF  # of an instruction, in the table of flows


@cache
def _flow_table() -> NDArray[np.uint8]:
    """Return the flow by opcode and the byte behind it, as a little-endian number (Intel SDM volume 2, appendix A)."""
    table = np.full((256, 256), Flow.NEXT, np.uint8)  # [byte behind, opcode]
    table[:, 0x70:0x80] = table[:, 0xE0:0xE4] = table[0x80:0x90, 0x0F] = Flow.BRANCH
    table[:, [0xE9, 0xEB]] = Flow.JUMP
    table[:, [0xC2, 0xC3, 0xCA, 0xCB]] = Flow.END
    table[:, 0xE8] = Flow.CALL
    register = np.arange(256) >> 3 & 7
    table[(register == 2) | (register == 3), 0xFF] = Flow.CALL
    table[(register == 4) | (register == 5), 0xFF] = Flow.JUMP
    table[:, [0x26, 0x2E, 0x36, 0x3E, *range(0x40, 0x50), *range(0x64, 0x68), 0xF0, 0xF2, 0xF3]] = _PREFIX
    return table.reshape(-1)


def flows(code: NDArray[np.uint8], starts: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return where control goes after each of the instructions at ``starts``.

    ud2 goes on behind it, as a WARN does.
    """
    return behind_prefixes(pairs_of(code), np.array(starts, np.intp), _flow_table(), _PREFIX)
