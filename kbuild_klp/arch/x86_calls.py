# SPDX-License-Identifier: GPL-2.0-only
"""How x86-64 code passes arguments (System V psABI, section 3.2.3): what one instruction does with their registers."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any

from kbuild_klp.arch.registry import Effect, Flow

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


@cache
def _decoder() -> Any:
    import capstone  # as in x86_64

    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    decoder.detail = True
    return decoder


@lru_cache(maxsize=1 << 16)
def effect(instruction: bytes) -> Effect:
    """Return what one instruction does with arguments.

    What is no instruction takes all of them, so that nothing is concluded from what was in them. ud2 goes on behind
    it, as a WARN does.
    """
    decoded = next(_decoder().disasm(instruction, 0), None)
    if decoded is None or decoded.size != len(instruction):
        return Effect(Flow.NEXT, frozenset(range(ARGUMENTS)), frozenset(range(ARGUMENTS)))
    reads, writes = (
        frozenset(_ARGUMENT[name] for name in map(decoded.reg_name, found) if name in _ARGUMENT)
        for found in decoded.regs_access()
    )
    mnemonic, operands = decoded.mnemonic, decoded.operands
    if mnemonic.startswith("call"):
        return Effect(Flow.CALL, reads)
    if mnemonic.startswith("j") or mnemonic.startswith("loop"):
        return Effect(Flow.JUMP if mnemonic == "jmp" else Flow.BRANCH, reads, writes)
    if mnemonic.startswith("ret"):
        return Effect(Flow.END, _RETURNED)
    if mnemonic in ("xor", "sub") and all(map(_is_register, operands)) and operands[0].reg == operands[1].reg:
        reads = frozenset()  # the way to write 0
    elif mnemonic.startswith(_MAY_LEAVE) or any(_is_register(each) and each.size not in _WHOLE for each in operands):
        reads |= writes  # (a part of) what was there may stay
    return Effect(Flow.NEXT, reads, writes, _set_argument(decoded), _stores_argument(decoded))


def _is_register(operand: Any) -> bool:
    from capstone.x86 import X86_OP_REG

    return bool(operand.type == X86_OP_REG)


def _set_argument(decoded: Any) -> int | None:
    """Return the argument that mov gives a number or an address, or lea an address that counts from here."""
    from capstone.x86 import X86_OP_IMM, X86_OP_MEM, X86_REG_INVALID, X86_REG_RIP

    if decoded.mnemonic not in ("mov", "movabs", "lea") or not _is_register(decoded.operands[0]):
        return None
    to, what = decoded.operands
    if decoded.mnemonic == "lea":
        is_own = what.type == X86_OP_MEM and what.mem.base == X86_REG_RIP and what.mem.index == X86_REG_INVALID
    else:
        is_own = what.type == X86_OP_IMM
    return _ARGUMENT.get(decoded.reg_name(to.reg)) if is_own and to.size in _WHOLE else None


def _stores_argument(decoded: Any) -> bool:
    """Say whether a number is put on the stack: the seventh argument and those behind it lie there."""
    from capstone.x86 import X86_OP_IMM, X86_OP_MEM, X86_REG_RSP

    operands = decoded.operands
    if not operands or operands[-1].type != X86_OP_IMM:
        return False
    if decoded.mnemonic == "push":
        return True
    return bool(decoded.mnemonic == "mov" and operands[0].type == X86_OP_MEM and operands[0].mem.base == X86_REG_RSP)
