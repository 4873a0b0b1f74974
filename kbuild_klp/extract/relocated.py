# SPDX-License-Identifier: GPL-2.0-only
"""The relocations of an object as they have to be written again, those included that the assembler resolved by itself.

The canonical form knows what a reference means and forgets how it was written. Here both are put side by side.
"""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kbuild_klp.arch.registry import PcField
from kbuild_klp.elf.objects import Relocations
from kbuild_klp.object.function import part_code
from kbuild_klp.object.references import symbol_addresses
from kbuild_klp.object.view import ObjectView

_GUARD = bytes(16)


class WrittenReference(NamedTuple):
    """A reference and how it is to be written.

    ``place`` is the linear address of the field and ``row`` the index in References; ``type`` the relocation type, 0
    when there is none for a field so short; ``symbol`` that of the relocation (0: the assembler left none); the addend
    of a relocation is its offset in what it refers to, less ``bias``. ``size`` are the bytes of the field.
    """

    place: int
    row: int
    type: int
    symbol: int
    bias: int
    is_branch: bool
    is_resolved: bool
    size: int


class _CodeField(NamedTuple):
    form: PcField
    base: int
    is_branch: bool


def relocations_of(view: ObjectView, section: int) -> tuple[Relocations, NDArray[np.int64]]:
    """Return the relocations of a section, and the linear address to which each leads (-1: not in the image)."""
    rows = view.object.relocations(np.array([section]))
    homes = symbol_addresses(view.canonical.image)[rows.symbol].astype(np.int64)
    return rows, np.where(homes >= 0, homes + rows.addend, -1)


class RelocatedObject:
    """The relocations of one object, by linear address."""

    def __init__(self, view: ObjectView) -> None:
        self.view = view
        self.known = view.architecture.relocation_types
        image = view.canonical.image
        rows = view.object.relocations(image.order)
        rows = rows.take((~np.isin(rows.type, list(view.architecture.none_types))).nonzero()[0])
        place = image.base[rows.section].astype(np.int64) + rows.offset
        order = np.argsort(place, kind="stable")
        self._rows, self._place = rows.take(order), place[order]
        self._fields: dict[int, dict[int, _CodeField]] = {}

    @cached_property
    def is_supported(self) -> bool:
        """Whether the references of this machine can be written again one by one."""
        types = self.known.values()
        return bool(self.view.architecture.filler) and not any(row.follows or row.subtracts for row in types)

    def of_part(self, part: int) -> list[WrittenReference]:
        """Return the references of a part that is code, in order of place."""
        parts = self.view.canonical.parts
        return self.between(int(parts.start[part]), int(parts.end[part]), self._code_fields(part))

    def between(self, low: int, high: int, fields: dict[int, _CodeField] | None = None) -> list[WrittenReference]:
        """Return the references of a range, in order of place; ``fields`` are those of code in it."""
        references = self.view.canonical.references
        first, end = np.searchsorted(references.place, [low, high]).tolist()
        return [self._written(row, int(references.place[row]), fields or {}) for row in range(first, end)]

    def _written(self, row: int, place: int, fields: dict[int, _CodeField]) -> WrittenReference:
        at = int(np.searchsorted(self._place, place))
        field = fields.get(place)
        is_branch = field is not None and field.is_branch
        if at < len(self._place) and self._place[at] == place:
            kind, symbol = int(self._rows.type[at]), int(self._rows.symbol[at])
            bias = int(self.view.canonical.references.addend[row]) - int(self._rows.addend[at])
            size = self.known[kind].field.size if kind in self.known else 0
            return WrittenReference(place, row, kind, symbol, bias, is_branch, False, size)
        assert field is not None, "only code is resolved by the assembler"
        kind = field.form.branch if is_branch else field.form.data
        return WrittenReference(place, row, kind, 0, field.base - place, is_branch, True, field.form.field.size)

    def _code_fields(self, part: int) -> dict[int, _CodeField]:
        """Return the PC-relative fields of a part, by linear address."""
        if part not in self._fields:
            view, arch = self.view, self.view.architecture
            start = int(view.canonical.parts.start[part])
            code = np.frombuffer(view.raw_bytes(part, 0, view.size(part)) + _GUARD, np.uint8)
            lengths = arch.instruction_lengths(code)
            found = arch.pc_relative_fields(code, lengths, np.array(part_code(view, part).starts, np.int64))
            columns = (found.offset, found.form, found.base, found.is_branch)
            self._fields[part] = {
                start + offset: _CodeField(arch.pc_fields[form], start + base, is_branch)
                for offset, form, base, is_branch in zip(*(column.tolist() for column in columns), strict=True)
            }
        return self._fields[part]
