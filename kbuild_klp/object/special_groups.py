# SPDX-License-Identifier: GPL-2.0-only
"""Which sections of a batch are special: those that rows of special.toml fit, and tables that none is about."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kbuild_klp.arch.registry import Architecture
from kbuild_klp.elf import constants as elf
from kbuild_klp.elf.objects import Objects, Relocations
from kbuild_klp.object.cuts import Cuts, find_cuts
from kbuild_klp.object.runs import run_bounds, run_rows
from kbuild_klp.special.table import SOURCE_NAME, UNKNOWN_LAYOUT, Places, SectionClass, SpecialSection, SpecialTable


@dataclass(frozen=True)
class SpecialGroup:
    """Sections of one name for which the same row of the table fits; entries have ``entry_size`` bytes.

    ``cuts`` are the entries of one section of a layout that no row knows; ``entry_size`` is 0 then.
    """

    name: str
    row: SpecialSection
    entry_size: int
    sections: NDArray[np.int64]
    cuts: Cuts | None = None

    def entry_counts(self, objects: Objects) -> NDArray[np.int64]:
        """Return the number of entries in each section; the last one may lack its padding."""
        if self.cuts is not None:
            return np.array([len(self.cuts.start)])
        sizes = objects.sections["size"][self.sections].astype(np.int64)
        counts: NDArray[np.int64] = -(-sizes // self.entry_size)
        return counts


GUARD = 16
"""Bytes between two sections of the image; also what the instruction decoder may look at behind the last one."""

_LONGEST_NAME = 4096  # PATH_MAX
_PLAIN_FLAGS = elf.SHF_ALLOC | elf.SHF_EXECINSTR | elf.SHF_MERGE | elf.SHF_STRINGS


class SpecialGroups(NamedTuple):
    """The special tables of a batch, by name; ``warnings`` say which layouts are not known, and of which object."""

    owned: list[SpecialGroup]
    records: list[SpecialGroup]
    warnings: list[tuple[int, str]]


def special_sections(objects: Objects, sections: NDArray[np.int64], table: SpecialTable) -> dict[str, list[int]]:
    """Return those of ``sections`` for which the table has rows, by name."""
    found: dict[str, list[int]] = defaultdict(list)
    numbers = sections.tolist()
    for at in table.listed(map(objects.section_names.__getitem__, numbers)):
        found[objects.section_names[numbers[at]]].append(numbers[at])
    return found


def classify(
    objects: Objects,
    special: Mapping[str, list[int]],
    table: SpecialTable,
    relocations: Relocations,
    architecture: Architecture,
) -> SpecialGroups:
    """Find the row that fits each section of ``special``, and tables for which there is none."""
    found = SpecialGroups([], [], [])
    tables = _Relocated(objects, _without_subtracted(relocations, architecture))
    strange: dict[str, list[int]] = defaultdict(list)
    for section in tables.without_row(special):
        strange[objects.section_names[section]].append(section)
    # By name: their order in the object is that of first use, which any function may change.
    for name in sorted({*special, *strange}):
        sections = np.array(special.get(name, ()), np.int64)
        headers = objects.sections[sections]
        # Machine code is no table, whatever its section is called.
        sections = sections[(headers["size"] != 0) & (headers["flags"] & elf.SHF_EXECINSTR == 0)]
        left = _group(found, tables, name, table.rows(name), sections)
        if name in strange:
            left += _group(found, tables, name, table.stripped_rows(name), np.array(strange[name], np.int64))
        for section in left:
            _guess(found, tables, section, name)
    return found


def _group(
    found: SpecialGroups,
    tables: _Relocated,
    name: str,
    rows: Iterable[SpecialSection],
    sections: NDArray[np.int64],
) -> list[int]:
    """Group sections of a name by the row that fits, and return those that none does."""
    left = np.ones(len(sections), bool)
    places = tables.places(sections)
    sizes = tables.objects.sections["size"][sections].astype(np.int64)
    for row in rows:
        if not left.any():
            break
        entry = np.where(left, row.entry_sizes(sizes, places), 0)
        if row.source is not None:
            fits = entry.nonzero()[0]
            entry[fits[~tables.name_source(sections[fits], row)]] = 0
        for size in sorted({*entry.tolist()} - {0}):
            group = SpecialGroup(name, row, size, sections[entry == size])
            (found.owned if row.section_class is SectionClass.OWNED else found.records).append(group)
        left &= entry == 0
    return [int(section) for section in sections[left]]


def _guess(found: SpecialGroups, tables: _Relocated, section: int, name: str) -> None:
    """Cut a section that no row fits into entries of functions, and warn."""
    objects = tables.objects
    cuts = tables.cuts(section)
    if cuts is not None:
        found.owned.append(SpecialGroup(name, UNKNOWN_LAYOUT, 0, np.array([section]), cuts))
    owner, size = int(objects.section_object[section]), int(objects.sections["size"][section])
    how = "compared as plain data" if cuts is None else "compared with the functions to which they refer"
    text = (
        f"{objects.files[owner].path}: section {name}: no row of special.toml fits its {size} bytes and "
        f"{int(tables.count[section])} relocations; {how}"
    )
    found.warnings.append((owner, text))


def _without_subtracted(relocations: Relocations, architecture: Architecture) -> Relocations:
    """Return one relocation a field: what is taken off one stands at the same place."""
    subtracted = [number for number, row in architecture.relocation_types.items() if row.subtracts]
    if not subtracted:
        return relocations
    return relocations.take((~np.isin(relocations.type, subtracted)).nonzero()[0])


def _names_source(content: memoryview, place: int, row: SpecialSection) -> bool:
    """Say whether there is the name of a source file at a place in a section, to which ``source`` of a row refers.

    Where that counts from the entry, a name has to begin there, and none where it would count from its place.
    """
    if row.source not in row.from_entry:
        return _is_source(content, place)
    before = place - (row.source or 0)
    is_there, is_at_place = (_begins(content, at) and _is_source(content, at) for at in (before, place))
    return is_there and not is_at_place


def _is_source(content: memoryview, place: int) -> bool:
    """Say whether the string at a place in a section is the name of a source file."""
    text, _, _ = bytes(content[place : place + _LONGEST_NAME]).partition(b"\0")
    return SOURCE_NAME.fullmatch(text.decode("utf-8", "replace")) is not None


def _begins(content: memoryview, place: int) -> bool:
    """Say whether a string begins at a place in a section."""
    is_inside = 0 <= place < len(content) and content[place] != 0
    return bool(is_inside and (place == 0 or content[place - 1] == 0))


class _Relocated:
    """The relocations of a batch by section: those of one stand behind each other."""

    def __init__(self, objects: Objects, relocations: Relocations) -> None:
        self.objects = objects
        self._relocations = relocations
        first, end = run_bounds(relocations.section)
        self._first, self.count = np.zeros((2, len(objects.sections)), np.int64)
        self._first[relocations.section[first]], self.count[relocations.section[first]] = first, end - first
        info = objects.symbols["info"] & 0xF
        first_letter, second = objects.first_letters.T
        is_label = (first_letter == 0) | (first_letter == ord("$"))
        is_label |= (first_letter == ord(".")) & (second == ord("L"))
        self._is_proper = (info != elf.STT_SECTION) & (info != elf.STT_FILE) & ~is_label
        self._has_symbol = np.zeros(len(objects.sections), bool)
        self._has_symbol[objects.shndx[self._is_proper & (objects.shndx > 0)]] = True

    def places(self, sections: NDArray[np.int64]) -> Places:
        """Return where the relocations of some sections stand."""
        rows = run_rows(self._first[sections], self.count[sections])
        own = np.repeat(np.arange(len(sections)), self.count[sections])
        symbol = self._relocations.symbol[rows]
        return Places(own, self._relocations.offset[rows], self._is_proper[symbol], self._is_code(symbol))

    def _is_code(self, symbol: NDArray[Any]) -> NDArray[np.bool_]:
        """Say which of some symbols lie in a section of machine code."""
        section = np.maximum(self.objects.shndx[symbol], 0)
        result: NDArray[np.bool_] = self.objects.sections["flags"][section] & np.uint64(elf.SHF_EXECINSTR) != 0
        return result

    def name_source(self, sections: NDArray[np.int64], row: SpecialSection) -> NDArray[np.bool_]:
        """Say of which sections ``source`` of the first entry refers to the name of a source file."""
        relocations, symbols = self._relocations, self.objects.symbols
        own = np.repeat(np.arange(len(sections)), self.count[sections])
        rows = run_rows(self._first[sections], self.count[sections])
        is_source = relocations.offset[rows] == row.source
        # The first such relocation of each section: they stand by section.
        at = np.full(len(sections), -1)
        at[own[is_source][::-1]] = rows[is_source][::-1]
        symbol = relocations.symbol[at]
        place = symbols["value"][symbol].astype(np.int64) + relocations.addend[at]
        target = np.maximum(self.objects.shndx[symbol], 0)
        has_content = self.objects.sections["type"][target] != elf.SHT_NOBITS
        has_text: NDArray[np.bool_] = (at >= 0) & (target > 0) & (place >= 0) & has_content
        there = has_text.nonzero()[0]
        contents = self.objects.contents(target[there])
        named = [_names_source(text, at, row) for text, at in zip(contents, place[there].tolist(), strict=True)]
        has_text[there] = np.array(named, bool)
        return has_text

    @cached_property
    def _is_used(self) -> NDArray[np.bool_]:
        """Whether something refers to each section."""
        symbols = np.zeros(len(self.objects.symbols), bool)
        symbols[self._relocations.symbol] = True
        used = self.objects.shndx[symbols]
        result = np.zeros(len(self.objects.sections), bool)
        result[used[used > 0]] = True
        return result

    def without_row(self, special: Mapping[str, list[int]]) -> list[int]:
        """Return the tables of functions of which no row of special.toml is."""
        flags = self.objects.sections["flags"] & np.uint64(_PLAIN_FLAGS)
        maybe: NDArray[np.bool_] = (flags == elf.SHF_ALLOC) & (self.count > 0) & ~self._has_symbol
        for sections in special.values():
            maybe[sections] = False
        return [section for section in maybe.nonzero()[0].tolist() if self.cuts(section) is not None]

    def cuts(self, section: int) -> Cuts | None:
        """Cut a section into entries, None where nothing says how.

        The linker makes an array of such sections, and the kernel knows where that begins: no symbol is in them, and
        nothing refers to them.
        """
        if self._has_symbol[section] or self._is_used[section]:
            return None
        rows = slice(int(self._first[section]), int(self._first[section] + self.count[section]))
        offset = self._relocations.offset[rows].astype(np.int64)
        symbol = self._relocations.symbol[rows]
        is_code = self._is_code(symbol) & self._has_symbol[np.maximum(self.objects.shndx[symbol], 0)]
        order = np.argsort(offset, kind="stable")
        size, align = (int(self.objects.sections[column][section]) for column in ("size", "align"))
        found = find_cuts(size, max(align, 1), offset[order], is_code[order])
        # Between two sections lie as many zeros as may be missing.
        return found._replace(end=size) if found is not None and found.end - size > GUARD else found
