# SPDX-License-Identifier: GPL-2.0-only
"""A machine that does not exist: of each real one it has what x86 has not.

Big-endian; an instruction is a word of 4 bytes, and its fields are bits of it:

    b, bl      26 bits beside 6 bits of opcode, counting words                          arm64
    bz         16 bits that lie 2 bytes behind the opcode, counting halfwords           s390
    lea, leap  20 bits in two pieces, between them the bit that tells one from the other  arm64 (ADRP)
    lah        the high half of a distance ...                                          riscv (R_RISCV_PCREL_HI20)
    lal        ... and the low half, of which a relocation says where its lah stands     riscv (R_RISCV_PCREL_LO12)
    ld, lw     14 bits between opcode and opcode, to the table entry of a symbol         ppc64 (R_PPC64_TOC16_DS)

In data, a difference of two symbols is two relocations at one place (riscv).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kbuild_klp.arch.registry import (
    Architecture,
    Effect,
    Field,
    Flow,
    Instruction,
    Operand,
    Operation,
    PcField,
    PcRelativeFields,
    RelocationType,
)

MACHINE = 0x4D55  # nobody's
SIZE = 4
NOP = 0x04000000
PIECES = 0x037FFFE0
_REGISTER = 0x1F
ARGUMENTS = 4


class Form(NamedTuple):
    """The layout of an instruction: its opcode, the mask of its number or distance, the lowest bit of each register."""

    opcode: int
    field: int = 0
    registers: tuple[int, ...] = ()

    @property
    def fixed(self) -> int:
        """The mask of the opcode."""
        return 0xFFFFFFFF ^ self.field ^ sum(_REGISTER << bit for bit in self.registers)


FORMS = {
    "nop": Form(NOP),
    "ret": Form(0x08000000),
    "li": Form(0x0C000000, 0xFFFF, (21,)),
    "add": Form(0x10000000, 0, (21, 16, 11)),
    "b": Form(0x14000000, 0x03FFFFFF),
    "bl": Form(0x18000000, 0x03FFFFFF),
    "bz": Form(0x1C000000, 0xFFFF, (21,)),
    "lea": Form(0x20000000, PIECES, (0,)),
    "leap": Form(0x20800000, PIECES, (0,)),
    "lah": Form(0x24000000, 0xFFFF, (21,)),
    "lal": Form(0x28000000, 0xFFFF, (21,)),
    "ld": Form(0x2C000000, 0xFFFC, (21,)),
    "lw": Form(0x2C000001, 0xFFFC, (21,)),
}
_BRANCHES = ("b", "bl", "bz")

NONE, ABS64, WORDS26, HALFWORDS16, PIECES20, HIGH16, LOW16, ENTRY14, SET32, SUB32 = range(10)

RELOCATION_TYPES = {
    number: RelocationType(f"R_MADE_UP_{name}", field, is_relative, number, number == LOW16, number == SUB32)
    for number, name, field, is_relative in (
        (ABS64, "ABS64", Field.whole(8), False),
        (WORDS26, "WORDS26", Field(4, FORMS["b"].field), True),
        (HALFWORDS16, "HALFWORDS16", Field.whole(2), True),
        (PIECES20, "PIECES20", Field(4, PIECES), True),
        (HIGH16, "HIGH16", Field(4, FORMS["lah"].field), True),
        (LOW16, "LOW16", Field(4, FORMS["lal"].field), True),
        (ENTRY14, "ENTRY14", Field(2, FORMS["ld"].field), False),
        # One writes and the other takes off what stands there: their order counts.
        (SET32, "SET32", Field.whole(4), False),
        (SUB32, "SUB32", Field.whole(4), False),
    )
}
# What the assembler fills in by itself where it can. It leaves both halves of a pair to the linker.
PC_FIELDS = tuple(PcField(RELOCATION_TYPES[kind].field, kind) for kind in (WORDS26, HALFWORDS16, PIECES20))
_WORDS, _HALFWORDS, _PIECES = range(3)
_HALFWORD_PLACE = 2

# By the 6 bits of opcode.
_IS_KNOWN = np.zeros(64, bool)
_PC_FORM = np.full(64, -1, np.int8)
for _name, _form in FORMS.items():
    _IS_KNOWN[_form.opcode >> 26] = True
    if _name in ("b", "bl", "bz", "lea"):
        _PC_FORM[_form.opcode >> 26] = {"bz": _HALFWORDS, "lea": _PIECES}.get(_name, _WORDS)


def is_filler(data: bytes) -> bool:
    """Return True when ``data`` is a run of NOPs."""
    count, rest = divmod(len(data), SIZE)
    return not rest and data == NOP.to_bytes(SIZE, "big") * count


def instruction_lengths(code: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return 4 wherever an opcode is known and the word is there as a whole."""
    length: NDArray[np.uint8] = np.where(_IS_KNOWN[code >> 2], SIZE, 0).astype(np.uint8)
    length[max(len(code) - SIZE + 1, 0) :] = 0
    return length


def relative_fields(code: NDArray[np.uint8], length: NDArray[np.uint8], starts: NDArray[np.int64]) -> PcRelativeFields:
    """Find the distances of b, bl, bz, lea and leap."""
    starts = starts[length[starts] != 0]
    form = _PC_FORM[code[starts] >> 2]
    starts, form = starts[form >= 0], form[form >= 0]
    offset = starts + np.where(form == _HALFWORDS, _HALFWORD_PLACE, 0)
    return PcRelativeFields(offset, form.astype(np.uint8), starts, form != _PIECES)


def displacements(code: NDArray[np.uint8], offset: NDArray[Any], form: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Read distances in words, halfwords and bytes."""
    word = np.zeros(len(offset), np.int64)
    for byte in range(SIZE):  # of the two bytes of a halfword the others are shifted out again
        word = word << 8 | code[offset + byte]
    choices = [_signed(word, 26) * 4, _signed(word >> 16, 16) * 2, _signed(word >> 5 << 2 | word >> 24 & 3, 20)]
    return np.choose(form, choices)


def _signed(value: Any, bits: int) -> Any:
    sign = 1 << bits - 1
    return ((value & 2 * sign - 1) ^ sign) - sign


def pieces(distance: int) -> int:
    """Return the bits of a distance as they lie in the word of lea."""
    return (distance & 3) << 24 | (distance >> 2 & 0x3FFFF) << 5


def _decode(code: bytes) -> tuple[str, Form, int] | None:
    """Return mnemonic, layout and word of one instruction, None for what is none."""
    word = int.from_bytes(code, "big")
    found = ((name, form, word) for name, form in FORMS.items() if word & form.fixed == form.opcode)
    return next(found, None) if len(code) == SIZE else None


def disassemble(code: bytes, offset: int, operands: Sequence[Operand]) -> Instruction:
    """Decode one instruction; what it refers to is its last operand."""
    decoded = _decode(code)
    texts = [operand.text for operand in operands]
    if decoded is None:
        return Instruction(" ".join([f".word {code.hex()}", *(f"<{text}>" for text in texts)]), False)
    name, form, word = decoded
    words = [f"r{word >> bit & _REGISTER}" for bit in form.registers]
    if form.field and not texts:
        texts = [_number(name, code, offset)]
    return Instruction(f"{name} {', '.join([*words, *texts])}".strip(), name in _BRANCHES)


def _number(name: str, code: bytes, offset: int) -> str:
    """Return what stands in the field of an instruction."""
    form = int(_PC_FORM[code[0] >> 2])
    if form >= 0:
        place = _HALFWORD_PLACE if form == _HALFWORDS else 0
        words = np.frombuffer(code + bytes(SIZE), np.uint8)
        distance = int(displacements(words, np.array([place]), np.array([form], np.uint8))[0])
        return f"+{offset + distance:#x}"
    return str(_signed(int.from_bytes(code, "big") & FORMS[name].field, 16))


def immediate(instruction: bytes) -> int:
    """Return the mask of the number of li."""
    decoded = _decode(instruction)
    return decoded[1].field if decoded and decoded[0] == "li" else 0


def operation(instruction: bytes) -> Operation:
    """Return what one instruction does, without the number of li and without where a branch goes."""
    text, is_branch = disassemble(instruction, 0, ())
    head, _, last = text.rpartition(" ")
    if is_branch:
        return Operation(head, ())
    return Operation(f"{head} $", (int(last),)) if immediate(instruction) else Operation(text, ())


def effect(instruction: bytes) -> Effect:
    """Return what one instruction does with arguments, which are passed in r1 to r4."""
    decoded = _decode(instruction)
    if decoded is None:
        return Effect(frozenset(range(ARGUMENTS)), frozenset(range(ARGUMENTS)))
    name, form, word = decoded
    registers = [(word >> bit & _REGISTER) - 1 for bit in form.registers]
    used = [frozenset({number} & set(range(ARGUMENTS))) for number in registers]
    if name == "bz":
        return Effect(used[0])
    if name == "add":
        return Effect(used[1] | used[2], used[0])
    sets = next(iter(used[0]), None) if name in ("li", "lea", "leap") else None
    # lal adds the low half to the high half that lah left.
    return Effect(used[0] if name == "lal" else frozenset(), frozenset().union(*used), sets)


def flows(code: NDArray[np.uint8], starts: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return where control goes after each instruction."""
    known = {"bl": Flow.CALL, "b": Flow.JUMP, "bz": Flow.BRANCH, "ret": Flow.END}
    decoded = [_decode(code[start : start + 4].tobytes()) for start in starts.tolist()]
    return np.array([known.get(each[0], Flow.NEXT) if each else Flow.NEXT for each in decoded], np.uint8)


ARCHITECTURE = Architecture(
    name="made_up",
    machine=MACHINE,
    byteorder="big",
    relocation_types=RELOCATION_TYPES,
    none_types=frozenset({NONE}),
    pc_fields=PC_FIELDS,
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
    # Nothing of it can be traced.
    trace_section="",
    trace_call="",
    trace_fields=(),
)
