# SPDX-License-Identifier: GPL-2.0-only
"""Every reference of an object: relocations, and branches that the assembler resolved by itself.

A reference is a field in the bytes (cleared in the image) and a target. Targets inside the object are linear
addresses, with the bias of PC-relative fields taken off (x86 counts from the end of the instruction, a relocation
from the field); others are a symbol and an addend.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kbuild_klp.arch.registry import PcRelativeFields
from kbuild_klp.elf import constants as elf
from kbuild_klp.object.chunks import Chunks, Gaps
from kbuild_klp.object.image import GUARD, Image

UNKNOWN_KIND = 0x8000
"""Added to a relocation type that the architecture's table does not know."""


@dataclass(frozen=True)
class References:
    """References sorted by place, one array per column.

    ``place`` linear address of the field; ``kind`` RelocationType.kind; ``symbol`` the relocation's symbol (0 for a
    branch without relocation); ``addend`` what is added to it, PC bias taken off; ``target`` linear address, or -1
    when the symbol is not in the image; ``section`` the section of the target, or -1.
    """

    place: NDArray[np.int64]
    kind: NDArray[np.int32]
    symbol: NDArray[np.int64]
    addend: NDArray[np.int64]
    target: NDArray[np.int64]
    section: NDArray[np.int64]


def _relocation_columns(
    image: Image, types: NDArray[np.int32]
) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.bool_]]:
    """Return kind, size and PC-relativity of relocation ``types``; unknown ones are raw, and warned about once."""
    known = image.architecture.relocation_types
    # One table indexed by type; hostile files may hold any 32-bit number.
    limit = max(known) + 1
    kind = np.arange(limit, dtype=np.int32) + UNKNOWN_KIND
    size = np.zeros(limit, np.int64)
    pc_relative = np.zeros(limit, bool)
    for number, row in known.items():
        kind[number], size[number], pc_relative[number] = row.kind, row.size, row.pc_relative
    inside = (types >= 0) & (types < limit)
    index = np.where(inside, types, 0)
    kinds = np.where(inside, kind[index], types + UNKNOWN_KIND).astype(np.int32)
    unknown = types[kinds >= UNKNOWN_KIND]
    for number in sorted(set(unknown.tolist())):
        image.warnings.append(
            f"{image.object.path}: relocation type {number} is unknown on {image.architecture.name}; compared raw"
        )
    return kinds, np.where(inside, size[index], 0), inside & pc_relative[index]


def _code_ranges(
    image: Image, chunks: Chunks, gaps: Gaps, filler: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return starts and ends of everything that is decoded: functions, and code that no symbol covers."""
    in_code = chunks.start < image.code_end
    anonymous = (gaps.start < image.code_end) & ~filler
    start = np.concatenate([chunks.start[in_code], gaps.start[anonymous]])
    end = np.concatenate([chunks.end[in_code], gaps.end[anonymous]])
    order = np.argsort(start, kind="stable")
    return start[order], end[order]


def _displacements(data: NDArray[np.uint8], offset: NDArray[np.int64], width: NDArray[np.int64]) -> NDArray[np.int64]:
    """Read signed little-endian displacements of one or four bytes."""
    # Byte by byte: a view of unaligned words makes numpy take its slow path.
    wide = data[offset].astype(np.uint32)
    for byte in range(1, 4):
        wide |= data[offset + byte].astype(np.uint32) << np.uint32(8 * byte)
    return np.where(width == 4, wide.view(np.int32), data[offset].view(np.int8)).astype(np.int64)


def _resolved_branches(
    image: Image, fields: PcRelativeFields, chunks: Chunks, gaps: Gaps, covered: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return place, width and target of PC-relative fields without relocation that leave their chunk."""
    free = (~covered).nonzero()[0]
    offset, width, end = fields.offset[free], fields.width[free], fields.end[free]
    target = end + _displacements(image.data, offset, width)
    for bounds in (chunks, gaps):
        if len(bounds.start):
            owner = np.maximum(np.searchsorted(bounds.start, offset, "right") - 1, 0)
            start, stop = bounds.start[owner], bounds.end[owner]
            is_inside = (start <= offset) & (offset < stop) & (start <= target) & (target < stop)
            rest = (~is_inside).nonzero()[0]
            offset, width, target = offset[rest], width[rest], target[rest]
    section = np.searchsorted(image.starts, offset, "right") - 1
    section_start = image.starts[section]
    leaves = (target >= section_start) & (target <= section_start + image.sizes[section])
    return offset[leaves], width[leaves], target[leaves]


def clear_fields(data: NDArray[np.uint8], place: NDArray[np.int64], width: NDArray[np.int64]) -> None:
    """Set the bytes of all fields to zero."""
    for bytes_wide in np.bincount(width).nonzero()[0].tolist() if len(width) else ():
        at = place[width == bytes_wide]
        for byte in range(bytes_wide):
            data[at + byte] = 0  # a field that runs over the last section ends in the guard


def find_references(image: Image, chunks: Chunks, gaps: Gaps, filler: NDArray[np.bool_]) -> References:
    """Find all references of the image, and clear their fields in ``image.data``."""
    relocations = image.relocations
    place = image.places
    if bool(np.any(relocations.type == image.architecture.none_type)):
        keep = (relocations.type != image.architecture.none_type).nonzero()[0]
        relocations = relocations.take(keep)
        place = place[keep]
    kind, width, pc_relative = _relocation_columns(image, relocations.type)
    symbol, addend = relocations.symbol, relocations.addend
    no_content = image.object.sections["type"][relocations.section] == elf.SHT_NOBITS
    if bool(np.any(no_content)):
        raise image.object.error("a relocation applies to a section without content", place="relocations")

    code = image.data[: image.code_end + GUARD]
    fields = image.architecture.pc_relative_fields(code, *_code_ranges(image, chunks, gaps, filler))
    in_code = int(np.searchsorted(place, image.code_end))
    # By address: how far the end of the instruction is from its field, and whether a relocation applies.
    distance = np.zeros(len(code), np.uint8)
    distance[fields.offset] = fields.end - fields.offset
    is_relocated = np.zeros(len(code), bool)
    is_relocated[place[:in_code]] = True
    addend = addend.copy()
    addend[:in_code] += np.where(pc_relative[:in_code], distance[place[:in_code]], 0)
    covered = is_relocated[fields.offset]

    shndx = image.object.shndx[symbol]
    internal = (shndx > 0) & (image.base[np.maximum(shndx, 0)] >= 0)
    symbol_value = image.object.symbols["value"][symbol].astype(np.int64)
    target = np.where(internal, image.base[np.maximum(shndx, 0)] + symbol_value + addend, -1)
    section = np.where(internal, shndx, -1)

    branch_place, branch_width, branch_target = _resolved_branches(image, fields, chunks, gaps, covered)
    place = np.concatenate([place, branch_place])
    clear_fields(image.data, place, np.concatenate([width, branch_width]))
    # A branch of one byte is another instruction than one of four; its opcode says so, the kind need not.
    kind = np.concatenate([kind, np.full(len(branch_place), image.architecture.branch_kind, np.int32)])
    zeros = np.zeros(len(branch_place), np.int64)
    target = np.concatenate([target, branch_target])
    branch_section = image.order[np.searchsorted(image.starts, branch_place, "right") - 1]
    symbol, addend = np.concatenate([symbol, zeros]), np.concatenate([addend, zeros])
    section = np.concatenate([section, branch_section])
    if len(branch_place):
        order = np.argsort(place, kind="stable")
        place, kind, symbol, addend = place[order], kind[order], symbol[order], addend[order]
        target, section = target[order], section[order]
    return References(place, kind, symbol, addend, target, section)
