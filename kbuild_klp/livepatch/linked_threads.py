# SPDX-License-Identifier: GPL-2.0-only
"""The functions with which a linked unit starts threads, whichever of its objects does.

Most objects of a unit are not read, for they do not differ; what they were linked to says of each call what was loaded
right before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kbuild_klp.arch.registry import Architecture, architecture
from kbuild_klp.elf import constants as elf
from kbuild_klp.elf.objects import Objects, Relocations
from kbuild_klp.elf.reader import ObjectFile
from kbuild_klp.livepatch.threads import START_THREADS
from kbuild_klp.object.runs import sorted_unique

_NEAR = 96  # bytes of code that load arguments
_FIELD = 4  # of a call, and of what loads an address (-mcmodel=kernel)
_FAR = 1 << 26
_ADDRESSES = 1 << 64


def thread_functions(file: ObjectFile, *, is_image: bool) -> Iterator[tuple[int, int]]:
    """Yield the places of what is loaded right before a call that starts a thread: in an image (0, address).

    In a module, the section and the offset in it. Nothing on machines of which not enough is known.
    """
    arch = architecture(file.machine)
    if arch is None or not arch.call_opcodes or arch.makes_address is None:
        return
    table = Objects.of(file)
    code = (file.sections["flags"] & elf.SHF_EXECINSTR != 0) & (file.sections["type"] == elf.SHT_PROGBITS)
    symbols = [symbol for symbol, _ in table.named(name.encode() for name in START_THREADS)]
    sections = np.flatnonzero(code)
    if not symbols:
        return
    if is_image:
        for section in sections.tolist():
            yield from _in_image(file, section, symbols, arch)
    else:
        yield from _in_module(file, table.relocations(sections), symbols, arch)


def _in_image(file: ObjectFile, section: int, symbols: list[int], arch: Architecture) -> Iterator[tuple[int, int]]:
    """Read the code of an image, in which every address stands."""
    data, start = file.section_array(section), int(file.sections["addr"][section])
    if len(data) < _FIELD:
        return
    calls = np.sort(np.concatenate([np.flatnonzero(data[:-_FIELD] == opcode) + 1 for opcode in _opcodes(arch)]))
    goals = calls + _FIELD + _fields(data, calls, arch)
    # What goes nowhere near is a byte of another instruction: almost all that are none.
    is_call = np.abs(goals - len(data) // 2) < _FAR
    calls, goals = calls[is_call], goals[is_call]
    wanted = (file.symbols["value"][symbols].astype(np.uint64) - np.uint64(start)).astype(np.int64)
    for row in np.flatnonzero(np.isin(goals, wanted)).tolist():
        site, earlier = int(calls[row]), int(calls[row - 1]) + _FIELD if row else 0
        places = np.arange(max(site - _NEAR, earlier, 2), site - _FIELD)
        for place, value in zip(places.tolist(), _fields(data, places, arch).tolist(), strict=True):
            yield 0, value % _ADDRESSES
            if _is_address(data, place, arch):
                yield 0, (start + place + _FIELD + value) % _ADDRESSES


def _fields(data: NDArray[np.uint8], places: NDArray[Any], arch: Architecture) -> NDArray[np.int64]:
    """Return the fields at some places of the code, which are signed and not aligned."""
    kind = np.dtype("<i4" if arch.byteorder == "little" else ">i4")
    fields = np.ndarray((len(data) - _FIELD + 1,), kind, np.ascontiguousarray(data), 0, (1,))
    found: NDArray[np.int64] = fields[places].astype(np.int64)
    return found


def _in_module(
    file: ObjectFile, rows: Relocations, symbols: list[int], arch: Architecture
) -> Iterator[tuple[int, int]]:
    """Read the relocations of a module's code."""
    sites = np.flatnonzero(np.isin(rows.symbol, symbols))
    for section in sorted_unique(rows.section[sites]).tolist():
        [near] = np.nonzero(rows.section == section)
        near = near[np.argsort(rows.offset[near], kind="stable")]
        yield from _in_section(file, section, rows.take(near), symbols, arch)


def _in_section(
    file: ObjectFile, section: int, rows: Relocations, symbols: list[int], arch: Architecture
) -> Iterator[tuple[int, int]]:
    """Read the relocations of one section of a module's code, which are sorted by place."""
    data = file.section_array(section)
    starts = np.isin(rows.symbol, symbols)
    for site in np.flatnonzero(starts & np.isin(data[rows.offset - 1], [*_opcodes(arch)])).tolist():
        for row in range(site - 1, -1, -1):
            place, symbol = int(rows.offset[row]), int(rows.symbol[row])
            if data[place - 1] in arch.call_opcodes or place < rows.offset[site] - _NEAR:
                break
            kind = arch.relocation_types.get(int(rows.type[row]))
            is_relative = kind is not None and kind.pc_relative
            if not is_relative or _is_address(data, place, arch):
                target = int(file.symbols["value"][symbol]) + int(rows.addend[row])
                yield int(file.shndx[symbol]), target + (_FIELD if is_relative else 0)


def _opcodes(arch: Architecture) -> bytes:
    """Return what stands right before the field of a call, or of a jump to a function that returns to the caller."""
    return arch.call_opcodes + (arch.far_jump.code[: arch.far_jump.place] if arch.far_jump else b"")


def _is_address(data: NDArray[np.uint8], place: int, arch: Architecture) -> bool:
    """Say whether a field is one that an address is made of."""
    return arch.makes_address is not None and arch.makes_address(bytes(data[place - 2 : place]))
