# SPDX-License-Identifier: GPL-2.0-only
"""x86-64: relocation types (psABI, table 4.9), padding, and where an instruction is relative to itself."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kbuild_klp.arch.registry import (
    Architecture,
    Asked,
    FarJump,
    Field,
    Instruction,
    Operand,
    Operation,
    PcField,
    RelocationType,
)
from kbuild_klp.arch.x86_calls import ARGUMENTS, effect, flows
from kbuild_klp.arch.x86_decode import WIDTHS, instruction_lengths, relative_fields
from kbuild_klp.elf import constants as elf

if TYPE_CHECKING:
    import capstone

# PC32 and PLT32 share a kind: whether a direct call goes through a PLT is the assembler's choice, and a kernel has
# no PLT. A branch that the assembler resolved by itself gets the same kind.
PC32 = 2

RELOCATION_TYPES = {
    1: RelocationType("R_X86_64_64", Field.whole(8), False, 1),
    2: RelocationType("R_X86_64_PC32", Field.whole(4), True, PC32),
    4: RelocationType("R_X86_64_PLT32", Field.whole(4), True, PC32),
    9: RelocationType("R_X86_64_GOTPCREL", Field.whole(4), True, 9),
    10: RelocationType("R_X86_64_32", Field.whole(4), False, 10),
    11: RelocationType("R_X86_64_32S", Field.whole(4), False, 11),
    12: RelocationType("R_X86_64_16", Field.whole(2), False, 12),
    13: RelocationType("R_X86_64_PC16", Field.whole(2), True, 13),
    14: RelocationType("R_X86_64_8", Field.whole(1), False, 14),
    15: RelocationType("R_X86_64_PC8", Field.whole(1), True, 15),
    24: RelocationType("R_X86_64_PC64", Field.whole(8), True, 24),
    41: RelocationType("R_X86_64_GOTPCRELX", Field.whole(4), True, 9),
    42: RelocationType("R_X86_64_REX_GOTPCRELX", Field.whole(4), True, 9),
}

# int3 (between functions, after ret for straight-line speculation) and the NOPs of gas and LLVM: any number of
# 0x66 and 0x2e prefixes, then 0x90 or the long NOP 0f 1f /0 in each addressing form. One run of it at a time: a
# pattern for all of them would try each way to cut a run in pieces, before it gives up at what is behind.
_NOP = rb"[\x66\x2e]*(?:\x90|\x0f\x1f(?:\x00|\x40.|\x44\x00.|\x80....|\x84\x00....))"
_FILLER = re.compile(rb"\xcc+|\x90+|" + _NOP, re.DOTALL)
_ALIGNMENT = re.compile(_NOP, re.DOTALL)
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


def is_alignment(instruction: bytes) -> bool:
    """Return True when an instruction is a NOP: inside of functions, gas fills with these and never with int3."""
    return _ALIGNMENT.fullmatch(instruction) is not None


def displacements(code: NDArray[np.uint8], offset: NDArray[Any], form: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Read signed displacements of one, two or four bytes."""
    # Byte by byte: a view of unaligned words makes numpy take its slow path.
    place = offset.astype(np.intp, copy=False)
    wide = code[place].astype(np.uint32)
    for byte in range(1, 4):
        wide |= code[byte:][place].astype(np.uint32) << np.uint32(8 * byte)
    short = np.where(form == 0, wide.astype(np.uint8).view(np.int8), wide.astype(np.uint16).view(np.int16))
    result: NDArray[np.int64] = np.where(form == len(WIDTHS) - 1, wide.view(np.int32), short).astype(np.int64)
    return result


@cache
def _decoder(detail: bool) -> capstone.Cs:
    import capstone  # 50 ms to import, and only changed functions need it

    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    decoder.syntax = capstone.CS_OPT_SYNTAX_ATT
    decoder.detail = detail
    return decoder


# What stands in a field while its instruction is disassembled, so that it can be found in the text: all its bytes,
# but for the lowest. The first that the code does not contain is taken.
_MARKS = (0x17, 0x19, 0x1B, 0x1D, 0x23, 0x25, 0x27)
_NUMBER = re.compile(r"0x[0-9a-f]+|[0-9]+")
_IMMEDIATE = re.compile(r"\$(-?)(0x[0-9a-f]+|\d+)")


def disassemble(code: bytes, offset: int, operands: Sequence[Operand]) -> Instruction:
    """Decode one instruction with capstone."""
    byte = next((byte for byte in _MARKS if bytes((byte, byte, byte)) not in code), _MARKS[0])
    marked, marks = bytearray(code), []
    for number, operand in enumerate(operands):
        size = max(operand.size, 1)
        # Two fields of one instruction must differ.
        mark = bytes((0x10 + number % 8, *[byte] * (size - 1)))
        marks.append(int.from_bytes(mark, "little"))
        marked[operand.place : operand.place + operand.size] = mark[: len(code) - operand.place]
    decoded = next(_decoder(False).disasm_lite(bytes(marked[: len(code)]), offset), None)
    if decoded is None or decoded[1] != len(code):
        return Instruction(" ".join([f".byte {code[0]:#04x}", *(f"<{operand.text}>" for operand in operands)]), False)
    _, _, mnemonic, text = decoded
    text = " ".join(f"{mnemonic} {text}".split())
    is_branch = mnemonic.startswith(("call", "j"))
    head, _, last = text.rpartition(" ")
    if is_branch and _NUMBER.fullmatch(last):
        return Instruction(f"{head} {operands[0].text if operands else f'+{int(last, 0):#x}'}", True)
    for mark_value, operand in zip(marks, operands, strict=True):
        found = re.search(rf"(?<!\w){mark_value:#x}(?!\w)", text)
        if found:
            text = text[: found.start()] + operand.text + text[found.end() :]
        else:
            text += f" {operand.text}" if operand.text.startswith("<") else f" <{operand.text}>"
    return Instruction(text, is_branch)


@lru_cache(maxsize=1 << 12)
def immediate(instruction: bytes) -> int:
    """Return the bits of the immediate operand of one instruction, its last bytes; that of a branch is no immediate."""
    decoded = next(_decoder(True).disasm(instruction, 0), None)
    if decoded is None or not decoded.imm_size or decoded.mnemonic.startswith(("call", "j")):
        return 0
    size: int = 8 * decoded.imm_size
    return ((1 << size) - 1) << (8 * len(instruction) - size)


def operation(instruction: bytes) -> Operation:
    """Return what one instruction does: its text without immediates, and for a branch without where it goes."""
    text, is_branch = disassemble(instruction, 0, ())
    if is_branch:
        text = text.rpartition("+")[0] or text
    values = tuple(-int(match[2], 0) if match[1] else int(match[2], 0) for match in _IMMEDIATE.finditer(text))
    return Operation(_IMMEDIATE.sub("$", text), values)


_FAR_WIDTH = 4
_FAR = (4, 2)  # R_X86_64_PLT32 as assemblers write it since binutils 2.31, R_X86_64_PC32


def _is_lea(before: bytes) -> bool:
    """Say whether these are opcode and ModRM byte of LEA: no RIP-relative operand has a SIB byte (SDM 2, 2.2.1.6)."""
    return before[:1] == b"\x8d"


_PREFIXES = frozenset({0x66, *range(0x40, 0x50)})  # of which REX is the last
# CMP with an immediate of 4 bytes: to RAX, and to what a ModRM byte says.
_CMP_RAX, _CMP = 0x3D, 0x81
# Jcc, and behind 0F also that, CMOVcc and SETcc: with condition 4 (equal) or 5 (not equal).
_IF_EQUAL = tuple(
    bytes([*first, kind | condition])
    for first, kind in (([], 0x70), ([15], 0x80), ([15], 0x40), ([15], 0x90))
    for condition in (4, 5)
)


def _compared(instruction: bytes, behind: bytes) -> Asked:
    """Say so of CMP (SDM, volume 2), and of what uses its flags: what is not known asks for the order."""
    code, used = (it.lstrip(bytes(_PREFIXES)) for it in (instruction, behind))
    is_cmp = code[:1] == bytes([_CMP_RAX]) or (code[:1] == bytes([_CMP]) and code[1:2] and code[1] >> 3 & 7 == 7)
    if not is_cmp:
        return Asked.NONE
    return Asked.EQUAL if used.startswith(_IF_EQUAL) else Asked.ORDER


ARCHITECTURE = Architecture(
    name="x86_64",
    machine=elf.EM_X86_64,
    relocation_types=RELOCATION_TYPES,
    byteorder="little",
    none_types=frozenset({0}),
    # A distance of one or two bytes reaches nothing that the linker puts elsewhere.
    pc_fields=tuple(PcField(Field.whole(width), PC32, *(_FAR if width == _FAR_WIDTH else ())) for width in WIDTHS),
    is_filler=is_filler,
    instruction_lengths=instruction_lengths,
    pc_relative_fields=relative_fields,
    displacements=displacements,
    disassemble=disassemble,
    immediate=immediate,
    operation=operation,
    arguments=ARGUMENTS,
    effect=effect,
    flows=flows,
    # Not __patchable_function_entries: on x86 that is padding, and the linker drops it (KEEP_PATCHABLE in
    # include/asm-generic/vmlinux.lds.h, CONFIG_HAVE_DYNAMIC_FTRACE_NO_PATCHABLE).
    trace_section="__mcount_loc",
    trace_call="__fentry__",
    trace_fields=(1, 5),  # first in the function, or behind endbr64
    call_opcodes=b"\xe8",
    is_alignment=is_alignment,
    makes_address=_is_lea,
    compares=_compared,
    filler=b"\x90",
    switched_off=frozenset({b"\x66\x90", b"\x0f\x1f\x44\0\0"}),  # asm/nops.h
    far_jump=FarJump(b"\xe9" + bytes(_FAR_WIDTH), 1, _FAR[0]),
    pointer=1,  # R_X86_64_64
    runtime_constants={"ptr": 8, "shift": 1, "mask": 4},  # asm/runtime-const.h, 6.11 to 7.3
    write_code="text_poke_copy",
    tail_call="jmp",
    seal_table=".ibt_endbr_seal",
)
