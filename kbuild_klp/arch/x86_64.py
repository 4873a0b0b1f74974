# SPDX-License-Identifier: GPL-2.0-only
"""x86-64: relocation types (psABI, table 4.9), padding, and where an instruction is relative to itself."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kbuild_klp.arch.registry import Architecture, Instruction, PcRelativeFields, RelocationType
from kbuild_klp.arch.x86_decode import instruction_lengths, instruction_starts, relative_fields, sweep
from kbuild_klp.elf import constants as elf

if TYPE_CHECKING:
    import capstone

# PC32 and PLT32 share a kind: whether a direct call goes through a PLT is the assembler's choice, and a kernel has
# no PLT. A branch that the assembler resolved by itself gets the same kind.
PC32 = 2

RELOCATION_TYPES = {
    1: RelocationType("R_X86_64_64", 8, False, 1),
    2: RelocationType("R_X86_64_PC32", 4, True, PC32),
    4: RelocationType("R_X86_64_PLT32", 4, True, PC32),
    9: RelocationType("R_X86_64_GOTPCREL", 4, True, 9),
    10: RelocationType("R_X86_64_32", 4, False, 10),
    11: RelocationType("R_X86_64_32S", 4, False, 11),
    12: RelocationType("R_X86_64_16", 2, False, 12),
    13: RelocationType("R_X86_64_PC16", 2, True, 13),
    14: RelocationType("R_X86_64_8", 1, False, 14),
    15: RelocationType("R_X86_64_PC8", 1, True, 15),
    24: RelocationType("R_X86_64_PC64", 8, True, 24),
    41: RelocationType("R_X86_64_GOTPCRELX", 4, True, 9),
    42: RelocationType("R_X86_64_REX_GOTPCRELX", 4, True, 9),
}

# int3 (between functions, after ret for straight-line speculation) and the NOPs of gas and LLVM: any number of
# 0x66 and 0x2e prefixes, then 0x90 or the long NOP 0f 1f /0 in each addressing form. One run of it at a time: a
# pattern for all of them would try each way to cut a run in pieces, before it gives up at what is behind.
_FILLER = re.compile(
    rb"\xcc+|\x90+|[\x66\x2e]*(?:\x90|\x0f\x1f(?:\x00|\x40.|\x44\x00.|\x80....|\x84\x00....))",
    re.DOTALL,
)
_BLOCK = 1 << 16
_filler_cache: dict[bytes, bool] = {}


def is_filler(data: bytes) -> bool:
    """Return True when ``data`` is a run of NOPs and int3."""
    known = _filler_cache.get(data)
    if known is None:
        at = 0
        while run := _FILLER.match(data, at):
            at = run.end()
        known = at == len(data)
        if len(data) <= 64:
            _filler_cache[data] = known
    return known


def pc_relative_fields(code: NDArray[np.uint8], starts: NDArray[np.int64], ends: NDArray[np.int64]) -> PcRelativeFields:
    """Find the PC-relative fields of the instructions in the ranges from ``starts`` to ``ends`` of ``code``.

    Each range is swept from its start. Bytes that are no instruction (data in assembly) end the sweep of their
    range: what follows is compared as plain bytes.
    """
    lengths = instruction_lengths(code)
    swept = sweep(lengths, starts, ends)
    # In blocks, so that the scratch arrays of one are there for the next.
    cuts = range(0, max(len(swept.starts), 1), _BLOCK)
    blocks = [relative_fields(code, lengths, swept.starts[at : at + _BLOCK]) for at in cuts]
    if len(blocks) == 1:
        return PcRelativeFields(blocks[0].field, blocks[0].width, blocks[0].end)
    return PcRelativeFields(
        np.concatenate([block.field for block in blocks]),
        np.concatenate([block.width for block in blocks]),
        np.concatenate([block.end for block in blocks]),
    )


def function_starts(code: bytes) -> list[int]:
    """Return the offsets of the instructions of one function."""
    starts, _ = instruction_starts(instruction_lengths(np.frombuffer(code, np.uint8)), 0, len(code))
    return starts


@cache
def _decoder(detail: bool) -> capstone.Cs:
    import capstone  # 50 ms to import, and only changed functions need it

    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    decoder.syntax = capstone.CS_OPT_SYNTAX_ATT
    decoder.detail = detail
    return decoder


def disassemble(code: bytes) -> list[Instruction]:
    """Decode the instructions of one function with capstone."""
    result: list[Instruction] = []
    at = 0
    while at < len(code):
        for address, size, mnemonic, operands in _decoder(False).disasm_lite(code[at:], at):
            text = f"{mnemonic} {operands}".rstrip()
            result.append(Instruction(address, size, text, mnemonic.startswith(("call", "j"))))
            at = address + size
        if at < len(code):
            result.append(Instruction(at, 1, f".byte {code[at]:#04x}", False))
            at += 1
    return result


def immediate(instruction: bytes) -> bytes:
    """Return the bytes of the immediate operand of one instruction; that of a branch is no immediate."""
    decoded = next(_decoder(True).disasm(instruction, 0), None)
    if decoded is None or not decoded.imm_size or decoded.mnemonic.startswith(("call", "j")):
        return b""
    return instruction[-decoded.imm_size :]


ARCHITECTURE = Architecture(
    name="x86_64",
    machine=elf.EM_X86_64,
    relocation_types=RELOCATION_TYPES,
    none_type=0,
    branch_kind=PC32,
    short_branches=(0xEB, *range(0x70, 0x80)),
    is_filler=is_filler,
    pc_relative_fields=pc_relative_fields,
    instruction_starts=function_starts,
    disassemble=disassemble,
    immediate=immediate,
    # Not __patchable_function_entries: on x86 that is padding, and the linker drops it (KEEP_PATCHABLE in
    # include/asm-generic/vmlinux.lds.h, CONFIG_HAVE_DYNAMIC_FTRACE_NO_PATCHABLE).
    trace_section="__mcount_loc",
    trace_call="__fentry__",
    trace_fields=(1, 5),  # first in the function, or behind endbr64
)
