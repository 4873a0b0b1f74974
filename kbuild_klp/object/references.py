# SPDX-License-Identifier: GPL-2.0-only
"""Every reference of an object: relocations, and branches that the assembler resolved by itself.

A reference is a field in the bytes (cleared in the image) and a target. Targets inside the object are linear
addresses, with the bias of PC-relative fields taken off (x86 counts from the end of the instruction, a relocation
from the field); others are a symbol and an addend.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kbuild_klp.arch.registry import Field, PcRelativeFields
from kbuild_klp.elf import constants as elf
from kbuild_klp.elf.objects import Relocations
from kbuild_klp.object.chunks import Chunks, Gaps
from kbuild_klp.object.code import decode
from kbuild_klp.object.image import NARROW, Image
from kbuild_klp.object.kinds import COUNTED_FROM_PLACE, UNKNOWN_KIND
from kbuild_klp.object.runs import Numbers
from kbuild_klp.object.special_groups import GUARD

_AT_FIELD = 64  # the processor counts from the field itself

_MOST_STEPS = 4
"""Places that are followed one after the other (RelocationType.follows); more are a circle."""


@dataclass(frozen=True)
class References:
    """References sorted by place, one array per column; several may be of one place.

    ``place`` linear address of the field; ``kind`` RelocationType.kind; ``symbol`` the relocation's symbol (0 for a
    branch without relocation); ``addend`` what is added to it, PC bias taken off; ``target`` linear address, or -1
    when the symbol is not in the image; ``section`` the section of the target, or -1. Where addresses have 32 bits,
    an addend beyond NARROW leads to a ``target`` that is only as far outside of all as it can be: `far_by` says how
    much is missing.
    """

    place: Numbers
    kind: NDArray[np.int32]
    symbol: Numbers
    addend: Numbers
    target: Numbers
    section: Numbers


class _Types:
    """The relocation types of a machine as tables, indexed by ``index``: the type, and one row for those unknown."""

    def __init__(self, image: Image, relocations: Relocations) -> None:
        known = image.architecture.relocation_types
        # Hostile files may hold any 32-bit number.
        limit = max(known) + 1
        fields = dict.fromkeys(row.field for row in known.values())
        number = {field: at for at, field in enumerate(fields, 1)}
        self.fields: list[Field] = [Field(0, 0), *fields]
        kind, self._field = np.arange(limit + 1, dtype=np.int32) + UNKNOWN_KIND, np.zeros(limit + 1, np.uint8)
        self.pc_relative, self.follows, self.subtracts = np.zeros((3, limit + 1), bool)
        for at, row in known.items():
            kind[at], self._field[at] = row.kind, number[row.field]
            self.pc_relative[at], self.follows[at], self.subtracts[at] = row.pc_relative, row.follows, row.subtracts
        types = relocations.type
        self.index = np.minimum(types.view(np.uint32), np.uint32(limit))
        self.kind = kind[self.index]
        is_strange = self.index == limit
        if is_strange.any():
            self.kind[is_strange] = types[is_strange] + UNKNOWN_KIND
        self._warn(image, relocations, self.kind >= UNKNOWN_KIND)

    @staticmethod
    def _warn(image: Image, relocations: Relocations, is_unknown: NDArray[np.bool_]) -> None:
        """Say once for each object which types are compared raw."""
        if not is_unknown.any():
            return
        number = image.objects.section_object[relocations.section[is_unknown]].tolist()
        for at, kind in sorted({*zip(number, relocations.type[is_unknown].tolist(), strict=True)}):
            path, name = image.objects.files[at].path, image.architecture.name
            image.warnings.append((at, f"{path}: relocation type {kind} is unknown on {name}; compared raw"))

    def clear(self, image: Image, place: Numbers) -> None:
        """Clear the fields at the places of all relocations."""
        clear_fields(image, place, self._field[self.index], self.fields)


def _code_ranges(image: Image, chunks: Chunks, gaps: Gaps, filler: NDArray[np.bool_]) -> tuple[Numbers, Numbers]:
    """Return starts and ends of everything that is decoded: functions, and code that no symbol covers."""
    in_code = chunks.start < image.code_end
    anonymous = (gaps.start < image.code_end) & ~filler
    start = np.concatenate([chunks.start[in_code], gaps.start[anonymous]])
    end = np.concatenate([chunks.end[in_code], gaps.end[anonymous]])
    order = np.argsort(start, kind="stable")
    return start[order], end[order]


def symbol_addresses(image: Image) -> Numbers:
    """Return the linear address of each symbol, -1 for those that are not in the image.

    A value that is no place in its section is as good as its end.
    """
    shndx = image.objects.shndx
    inner = np.maximum(shndx, 0)
    value = image.objects.symbols["value"].astype(np.int64)
    size = image.objects.sections["size"][inner].astype(np.int64)
    offset = np.where(value < 0, size, np.minimum(value, size)).astype(image.base.dtype)
    base = image.base[inner]
    return np.where((shndx > 0) & (base >= 0), base + offset, np.array(-1, base.dtype))


def _as_addends(image: Image, addends: Numbers) -> Numbers:
    """Return addends in as many bits as addresses have, unless one of them needs more."""
    is_narrow = not len(addends) or (addends.min() > -NARROW and addends.max() < NARROW)
    return addends.astype(image.base.dtype if is_narrow else np.int64)


def far_by(image: Image, references: References) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the references whose target in the image is farther away than can be said, and by how much.

    It is what a kernel's early code makes of a physical address: a symbol less __START_KERNEL_map.
    """
    addend = references.addend
    if addend.dtype == image.base.dtype:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    far = ((np.clip(addend, -NARROW, NARROW) != addend) & (references.section >= 0)).nonzero()[0]
    return far, addend[far] - np.clip(addend[far], -NARROW, NARROW)


def _resolved_branches(
    image: Image, code: NDArray[np.uint8], fields: PcRelativeFields, chunks: Chunks, gaps: Gaps
) -> tuple[Numbers, NDArray[np.uint8], Numbers]:
    """Return place, form and target of PC-relative fields without relocation that leave their chunk."""
    offset, form = fields.offset.astype(image.base.dtype), fields.form
    target = fields.base + image.architecture.displacements(code, fields.offset, form)
    for bounds in (chunks, gaps):
        if len(bounds.start):
            owner = np.maximum(np.searchsorted(bounds.start, offset, "right") - 1, 0)
            start, stop = bounds.start[owner], bounds.end[owner]
            is_inside = (start <= offset) & (offset < stop) & (start <= target) & (target < stop)
            rest = (~is_inside).nonzero()[0]
            offset, form, target = offset[rest], form[rest], target[rest]
    section = np.searchsorted(image.starts, offset, "right") - 1
    section_start = image.starts[section]
    leaves = (target >= section_start) & (target <= section_start + image.sizes[section])
    return offset[leaves], form[leaves], target[leaves]


def clear_fields(image: Image, place: Numbers, form: NDArray[np.uint8], fields: Sequence[Field]) -> None:
    """Clear the bits of fields at some places; ``form`` says which of ``fields`` each is."""
    data = image.data
    for number in np.bincount(form).nonzero()[0].tolist() if len(form) else ():
        at = place[form == number].astype(np.intp)
        size, mask = fields[number]
        for byte, bits in enumerate(mask.to_bytes(size, image.architecture.byteorder)):
            if bits == 0xFF:
                data[at + byte] = 0  # a field that runs over the last section ends in the guard
            elif bits:
                data[at + byte] &= 0xFF ^ bits


def find_references(
    image: Image, relocations: Relocations, chunks: Chunks, gaps: Gaps, filler: NDArray[np.bool_]
) -> References:
    """Find all references of the image, and clear their fields in ``image.data``."""
    place, arch = image.places, image.architecture
    does_nothing = np.isin(relocations.type, list(arch.none_types))
    if does_nothing.any():
        keep = (~does_nothing).nonzero()[0]
        relocations, place = relocations.take(keep), place[keep]
    no_content = image.objects.sections["type"][relocations.section] == elf.SHT_NOBITS
    if no_content.any():
        bad = int(relocations.section[no_content.nonzero()[0][0]])
        raise image.objects.section_error(bad, "a relocation applies to a section without content", "relocations")
    types = _Types(image, relocations)
    symbol = relocations.symbol

    code = image.data[: image.code_end + GUARD]
    _, fields = decode(arch, code, *_code_ranges(image, chunks, gaps, filler))
    in_code = int(np.searchsorted(place, image.code_end))
    # By address of a field: how far behind it is what the processor counts from; 0 where there is none.
    distance = np.zeros(len(code), np.uint8)
    distance[fields.offset] = fields.base - fields.offset + _AT_FIELD
    bias = distance[place[:in_code]].astype(np.int16)
    has_bias = (bias > 0) & types.pc_relative[types.index[:in_code]]
    addend = _as_addends(image, relocations.addend)
    addend[:in_code] += (bias - _AT_FIELD) * has_bias
    distance[place[:in_code]] = 0
    free = distance[fields.offset].nonzero()[0]
    del distance
    fields = fields.take(free)

    address, at_symbol = symbol_addresses(image), symbol.astype(np.intp)
    section = np.where(address >= 0, image.objects.shndx, -1).astype(np.int32)[at_symbol]
    target = address[at_symbol]
    del at_symbol
    target += np.clip(addend, -NARROW, NARROW).astype(target.dtype) if addend.dtype != target.dtype else addend
    target[section < 0] = -1

    branch_place, form, branch_target = _resolved_branches(image, code, fields, chunks, gaps)
    types.clear(image, place)
    clear_fields(image, branch_place, form, [row.field for row in arch.pc_fields])
    found = References(place, types.kind, symbol, addend, target, section)
    if types.follows.any():
        found = _followed(found, types.follows[types.index])
    if types.subtracts.any():
        found = _counted_from_their_places(image, found, types.subtracts[types.index])
    return _with_branches(image, found, branch_place, form, branch_target) if len(branch_place) else found


def _with_branches(
    image: Image, found: References, branch_place: Numbers, form: NDArray[np.uint8], branch_target: Numbers
) -> References:
    """Add the branches without relocation."""
    # A branch of one byte is another instruction than one of four; its opcode says so, the kind need not.
    kinds = np.array([row.kind for row in image.architecture.pc_fields], np.int32)[form]
    section = image.order[np.searchsorted(image.starts, branch_place, "right") - 1].astype(np.int32)
    zeros = np.zeros(len(branch_place), np.int32)
    branches = (branch_place, kinds, zeros, zeros, branch_target.astype(found.target.dtype), section)
    place = np.concatenate([found.place, branch_place])
    order = np.argsort(place, kind="stable")
    columns = (found.kind, found.symbol, found.addend, found.target, found.section)
    rest = (np.concatenate(pair).take(order) for pair in zip(columns, branches[1:], strict=True))
    return References(place[order], *rest)


def _followed(references: References, follows: NDArray[np.bool_]) -> References:
    """Give those that mean what another place refers to the target of the reference there, if there is one."""
    symbol, addend, target, section = (
        column.copy() for column in (references.symbol, references.addend, references.target, references.section)
    )
    for _ in range(_MOST_STEPS):
        rows = follows.nonzero()[0]
        at = np.searchsorted(references.place, target[rows])
        there = np.minimum(at, max(len(target) - 1, 0))
        is_there = (references.place[there] == target[rows]) & (there != rows)
        rows, there = rows[is_there], there[is_there]
        if not len(rows):
            break
        goes_on = follows[there]
        symbol[rows], addend[rows] = symbol[there], addend[there]
        target[rows], section[rows] = target[there], section[there]
        follows = np.zeros_like(follows)
        follows[rows[goes_on]] = True
    return References(references.place, references.kind, symbol, addend, target, section)


def _counted_from_their_places(image: Image, found: References, subtracts: NDArray[np.bool_]) -> References:
    """Make one reference of each two (`.long a - .`) of which the second takes off the place of both.

    Not where that names a global symbol: it is for the linker to say where that lies.
    """
    is_local = image.objects.symbols["info"][found.symbol] >> 4 == elf.STB_LOCAL
    rows = (subtracts & (found.target == found.place) & is_local).nonzero()[0]
    rows = rows[rows > 0]
    rows = rows[(found.place[rows - 1] == found.place[rows]) & ~subtracts[rows - 1]]
    kind = found.kind.copy()
    kind[rows - 1] |= COUNTED_FROM_PLACE
    columns = (found.place, kind, found.symbol, found.addend, found.target, found.section)
    return References(*(np.delete(column, rows) for column in columns))
