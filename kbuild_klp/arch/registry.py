# SPDX-License-Identifier: GPL-2.0-only
"""What the rest of the program asks of a machine, and which machines there are.

To add an architecture: write arch/NAME.py with one Architecture, add it to ``_MODULES`` here, add the rows of
its special sections to special.toml, and add its compiler to tests/conftest.py. Nothing else changes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kbuild_klp.elf import constants as elf


class RelocationType(NamedTuple):
    """One relocation type of a psABI.

    ``size`` is the width of the field in bytes. ``kind`` is what goes into a checksum: types between which the
    assembler chooses freely (a call through the PLT or not) share one.
    """

    name: str
    size: int
    pc_relative: bool
    kind: int


class PcRelativeFields(NamedTuple):
    """PC-relative fields of instructions: one row each, sorted by ``offset``.

    ``offset`` is where the field lies in the code, ``width`` its bytes, ``end`` the end of its instruction, from
    which the processor counts.
    """

    offset: NDArray[np.int64]
    width: NDArray[np.int64]
    end: NDArray[np.int64]


class Instruction(NamedTuple):
    """One decoded instruction: ``offset`` and ``size`` in bytes, ``text`` in the assembler's syntax.

    ``is_branch`` says that control goes to what it refers to.
    """

    offset: int
    size: int
    text: str
    is_branch: bool


@dataclass(frozen=True)
class Architecture:
    """All machine knowledge that the canonical form needs."""

    name: str
    machine: int
    relocation_types: Mapping[int, RelocationType]
    none_type: int
    """The relocation type that does nothing (objtool turns relocations into it)."""
    branch_kind: int
    """RelocationType.kind of a branch that the assembler resolved without a relocation."""
    short_branches: tuple[int, ...]
    """The bytes before the field of a branch in its short form: its opcodes (empty: branches have one length)."""
    is_filler: Callable[[bytes], bool]
    """True when the bytes are only what assemblers and compilers put between functions."""
    pc_relative_fields: Callable[[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]], PcRelativeFields]
    """Find the PC-relative fields of all instructions in ranges (their starts, their ends) of the code."""
    instruction_starts: Callable[[bytes], list[int]]
    """Return the offsets of the instructions of a function, as far as its bytes are instructions."""
    disassemble: Callable[[bytes], list[Instruction]]
    """Decode all instructions of a function, for people. Bytes that are none come one by one."""
    immediate: Callable[[bytes], bytes]
    """Return the bytes of one instruction's immediate operand, which are its last (empty: it has none there)."""
    trace_section: str
    """The section that lists the places at which ftrace can take over a function."""
    trace_call: str
    """The function that is called at these places, for objects in which objtool has yet to list them."""
    trace_fields: tuple[int, ...]
    """Where in a function the field of that call may lie."""


_MODULES = {elf.EM_X86_64: "x86_64"}


@cache
def architecture(machine: int) -> Architecture | None:
    """Return the architecture with ELF machine number ``machine``, or None when it is not supported."""
    module = _MODULES.get(machine)
    if module is None:
        return None
    found: Architecture = import_module(f"kbuild_klp.arch.{module}").ARCHITECTURE
    return found
