# SPDX-License-Identifier: GPL-2.0-only
"""What the rest of the program asks of a machine, and which machines there are.

To add an architecture: write arch/NAME.py with one Architecture, add it to ``_MODULES`` here, add the rows of
its special sections to special.toml, and add its compiler to tests/conftest.py. Nothing else changes.
tests/arch/made_up.py is an example of a machine that is unlike x86 in everything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cache
from importlib import import_module
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kbuild_klp.elf import constants as elf


class Field(NamedTuple):
    """What is filled in later: the bits of ``mask`` in a word of ``size`` bytes, in the byte order of the machine.

    The other bits of the word are opcode, and are compared.
    """

    size: int
    mask: int

    @classmethod
    def whole(cls, size: int) -> Field:
        """Return a field of whole bytes."""
        return cls(size, (1 << 8 * size) - 1)

    def cleared(self, data: bytes, place: int, byteorder: Literal["little", "big"]) -> bytes:
        """Return ``data`` with the field at ``place`` in it cleared."""
        end = place + self.size
        rest = int.from_bytes(data[place:end], byteorder) & ~self.mask
        return data[:place] + rest.to_bytes(len(data[place:end]), byteorder) + data[end:]


class RelocationType(NamedTuple):
    """One relocation type of a psABI.

    ``kind`` is what goes into a checksum: types between which the assembler chooses freely (a call through the PLT or
    not) share one. ``follows``: the target is an instruction, and what is meant is what that refers to
    (R_RISCV_PCREL_LO12 to its R_RISCV_PCREL_HI20). ``subtracts``: the target is taken off what another relocation of
    the same place puts there (R_RISCV_SUB32 after R_RISCV_ADD32); where it is that place, the other one counts from it.
    """

    name: str
    field: Field
    pc_relative: bool
    kind: int
    follows: bool = False
    subtracts: bool = False


class PcField(NamedTuple):
    """A field of instructions that counts from the instruction itself.

    ``kind`` is RelocationType.kind of a branch in which the assembler filled it in without a relocation. ``branch``
    and ``data`` are the relocation types that fill it in when its target lies elsewhere, for a branch and for all else;
    0 where none can, for the field is too short.
    """

    field: Field
    kind: int
    branch: int = 0
    data: int = 0


class FarJump(NamedTuple):
    """A jump to any function: its bytes, and where in them the field lies that a relocation of ``type`` fills.

    The field is the last of it, and the processor counts from its end.
    """

    code: bytes
    place: int
    type: int


class PcRelativeFields(NamedTuple):
    """PC-relative fields of instructions: one row each, sorted by ``offset``.

    ``offset`` is where the word of the field lies in the code, ``form`` its index in Architecture.pc_fields, ``base``
    where in the code the processor counts from (x86: the end of the instruction; elsewhere: its start), ``is_branch``
    whether control goes there.
    """

    offset: NDArray[Any]
    form: NDArray[np.uint8]
    base: NDArray[Any]
    is_branch: NDArray[np.bool_]

    def take(self, rows: NDArray[np.int64]) -> PcRelativeFields:
        """Return some of the rows."""
        return PcRelativeFields(self.offset[rows], self.form[rows], self.base[rows], self.is_branch[rows])


class Instruction(NamedTuple):
    """One decoded instruction: ``text`` in the assembler's syntax.

    ``is_branch`` says that control goes to what it refers to.
    """

    text: str
    is_branch: bool


class Operand(NamedTuple):
    """What a field of an instruction refers to: where the field is and its size, in bytes, and ``text`` for people."""

    place: int
    size: int
    text: str


class Operation(NamedTuple):
    """What an instruction does, whatever the sizes of its immediates and of the distance to where it goes.

    ``text`` is equal for the same operation with the same registers and displacements; ``immediates`` are their values.
    """

    text: str
    immediates: tuple[int, ...]


class Flow(IntEnum):
    """Where control goes after an instruction."""

    NEXT = 0  # to the next one
    CALL = 1  # to a function, and then to the next one
    BRANCH = 2  # elsewhere or to the next one
    JUMP = 3  # elsewhere
    END = 4  # out of the function


class Asked(IntEnum):
    """What an instruction asks about an address that stands in it."""

    NONE = 0
    EQUAL = 1  # whether it is equal
    ORDER = 2  # which is the greater one


class Effect(NamedTuple):
    """What one instruction does with arguments; these are counted from 0, in the order of the psABI's registers.

    ``reads`` and ``writes`` are the arguments of which it takes and gives (parts of) the registers; what a call takes
    for its callee is not among them. ``sets`` is the one to which it gives a number or an address of its own, whatever
    was there before; None when it does anything else. ``stores`` says that it puts a number where arguments lie for
    which there is no register.
    """

    reads: frozenset[int] = frozenset()
    writes: frozenset[int] = frozenset()
    sets: int | None = None
    stores: bool = False


def _is_never(_: bytes) -> bool:
    return False


@dataclass(frozen=True)
class Architecture:
    """All machine knowledge that the canonical form needs."""

    name: str
    machine: int
    byteorder: Literal["little", "big"]
    relocation_types: Mapping[int, RelocationType]
    none_types: frozenset[int]
    """The relocation types that do nothing (objtool turns relocations into one) or only advise the linker."""
    pc_fields: tuple[PcField, ...]
    is_filler: Callable[[bytes], bool]
    """True when the bytes are only what assemblers and compilers put between functions."""
    instruction_lengths: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
    """Return for every byte of the code how long the instruction would be that begins there (0: none does)."""
    pc_relative_fields: Callable[[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.int64]], PcRelativeFields]
    """Find the PC-relative fields of the instructions that begin at some places of the code (all lengths are given).

    Places may be odd, and of length 0: no instruction begins there, and none of its fields is wanted.
    """
    displacements: Callable[[NDArray[np.uint8], NDArray[Any], NDArray[np.uint8]], NDArray[np.int64]]
    """Read what fields at some places of the code hold, in bytes from their base; of which form each is, is given."""
    disassemble: Callable[[bytes, int, Sequence[Operand]], Instruction]
    """Decode one instruction at an offset in its function, for people; its operands stand in place of its fields.

    Where a branch goes that has no operand is shown as an offset in the function, with a plus sign.
    """
    immediate: Callable[[bytes], int]
    """Return the bits of one instruction, as a number in the machine's byte order, that are an immediate operand."""
    operation: Callable[[bytes], Operation]
    """Return what one instruction does, for machines on which the same may have several lengths."""
    arguments: int
    """The number of registers in which the psABI passes integers and pointers."""
    effect: Callable[[bytes], Effect]
    """Return what one instruction does with arguments."""
    flows: Callable[[NDArray[np.uint8], NDArray[np.int64]], NDArray[np.uint8]]
    """Return where control goes after each of the instructions at some places of the code: values of Flow."""
    trace_section: str
    """The section that lists the places at which ftrace can take over a function; empty where there is none."""
    trace_call: str
    """The function that is called at these places, for objects in which objtool has yet to list them (or empty)."""
    trace_fields: tuple[int, ...]
    """Where in a function the field of that call may lie."""
    call_opcodes: bytes = b""
    """The bytes one of which stands right before the field of a call (none: calls are not told from jumps)."""
    is_alignment: Callable[[bytes], bool] = _is_never
    """True when an instruction is one that assemblers put before a place in a function that is to be aligned."""
    makes_address: Callable[[bytes], bool] | None = None
    """Say of the two bytes before a PC-relative field that is no branch's: the instruction makes an address of it.

    False: it reads or writes there. None: that cannot be told.
    """
    compares: Callable[[bytes, bytes], Asked] | None = None
    """Say of an instruction with an address in it, and the one behind it, what is compared with that address, if it is.

    None: that cannot be told.
    """
    filler: bytes = b""
    """One instruction that does nothing, the shortest; empty where functions cannot be extracted yet."""
    switched_off: frozenset[bytes] = frozenset()
    """What objtool writes over a call or a jump (arch_nop_insn, tools/objtool); ftrace and jump labels expect it."""
    far_jump: FarJump | None = None
    """What a branch can go to that is too short to leave its section, None where branches are not that short."""
    pointer: int = 0
    """The relocation type of an address of 8 bytes, 0 where it is not needed yet."""
    runtime_constants: Mapping[str, int] = field(default_factory=dict)
    """How many bytes of code the kernel fills with a variable while it boots, by the kind in `runtime_KIND_VARIABLE`.

    Not for machines on which it fills in some bits of instructions.
    """
    write_code: str = ""
    """A function of vmlinux that writes into read-only code: where, what, and how many bytes (void *, NULL: failed)."""
    tail_call: str = ""
    """The instruction that jumps to a function, which returns to the caller, as the assembler has it."""
    seal_table: str = ""
    """The section of vmlinux that lists functions to which no pointer can be called, each by its distance (4 bytes)."""

    def __reduce__(self) -> tuple[Callable[[int], Architecture | None], tuple[int]]:
        """Send the machine's number: another process has the rest."""
        return architecture, (self.machine,)

    def bits_at(self, place: int, size: int) -> int:
        """Return the bits of the byte at ``place`` in an instruction of ``size`` bytes, read as a number."""
        return 0xFF << 8 * (place if self.byteorder == "little" else size - 1 - place)


_MODULES = {elf.EM_X86_64: "kbuild_klp.arch.x86_64"}


@cache
def architecture(machine: int) -> Architecture | None:
    """Return the architecture with ELF machine number ``machine``, or None when it is not supported."""
    module = _MODULES.get(machine)
    if module is None:
        return None
    found: Architecture = import_module(module).ARCHITECTURE
    return found
