# SPDX-License-Identifier: GPL-2.0-only
"""One line of addresses for a whole object, so that everything after works on whole tables at once.

All allocated sections that count are laid behind each other: machine code first (it is decoded in one go), other
content next, sections without content (.bss) last. Between sections lies a guard, so that one past the end of a
section is never the start of another. An address in this line is called *linear*.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from kbuild_klp.arch.registry import Architecture
from kbuild_klp.elf import constants as elf
from kbuild_klp.elf.reader import ObjectFile, Relocations
from kbuild_klp.elf.symbol_names import canonical_name
from kbuild_klp.special.table import SectionClass, SpecialSection, SpecialTable

GUARD = 16
"""Bytes between two sections; also what the instruction decoder may look at behind the last one."""

_SIZE_LIMIT = 1 << 40  # a .bss larger than any address space is a broken header


@dataclass(frozen=True)
class OwnedTable:
    """A special section whose entries belong to functions, with the row that fits it."""

    section: int
    row: SpecialSection
    entry_size: int


@dataclass
class Image:
    """The linear address space of an object.

    ``base[section]`` is the linear address of a section's start, or -1 for one that is not in it; ``order`` lists
    the sections in it by address; ``data`` is the content (writable, sections without content left out);
    ``code_end`` the end of machine code in it; ``relocations`` are sorted by ``places``, the linear addresses at which
    they apply; ``owned`` and ``records`` the special tables found, by section.
    ``derived`` names the sections left out of every checksum, ``warnings`` what was not understood.
    """

    object: ObjectFile
    architecture: Architecture
    base: NDArray[np.int64]
    order: NDArray[np.int64]
    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]
    data: NDArray[np.uint8]
    code_end: int
    relocations: Relocations
    places: NDArray[np.int64]
    owned: dict[int, OwnedTable]
    records: dict[int, OwnedTable]
    derived: list[int]
    warnings: list[str]

    def release_relocations(self) -> None:
        """Forget the relocations, a quarter of what a large object takes: References says all that they said."""
        self.object.release_pages()
        self.relocations = self.relocations.take(np.empty(0, np.int64))
        self.places = np.empty(0, np.int64)

    @cached_property
    def empty_variables(self) -> dict[int, str]:
        """The static variables without bytes, by symbol, with their names without number.

        Where one lies is chance, and it is no other name of what starts there: struct lock_class_key without lockdep,
        include/linux/lockdep_types.h.
        """
        symbols = self.object.symbols
        is_empty = (symbols["info"] == elf.STB_LOCAL << 4 | elf.STT_OBJECT) & (symbols["size"] == 0)
        is_empty &= (symbols["other"] == 0) & (self.object.shndx > 0)
        found = is_empty.nonzero()[0].tolist()
        names = ((symbol, canonical_name(self.object.symbol_name(symbol))) for symbol in found)
        return {symbol: name.text for symbol, name in names if name.numbered}

    def section_at(self, address: int) -> int:
        """Return the section in which a linear address lies (one past its end included)."""
        return int(self.order[np.searchsorted(self.starts, address, "right") - 1])

    def end(self, section: int) -> int:
        """Return the linear address one past the end of a section."""
        return int(self.base[section] + self.object.sections["size"][section])


def _derived_sections(obj: ObjectFile, allocated: list[int], table: SpecialTable) -> list[int]:
    rows = [(index, table.rows(obj.section_names[index])) for index in allocated]
    return [index for index, found in rows if found and found[0].section_class is SectionClass.DERIVED]


def _classify(
    obj: ObjectFile, sections: list[int], relocations: Relocations, table: SpecialTable
) -> tuple[dict[int, OwnedTable], dict[int, OwnedTable], list[str]]:
    """Find the row that fits each special section: owned tables, record tables, and warnings where none does."""
    owned: dict[int, OwnedTable] = {}
    records: dict[int, OwnedTable] = {}
    warnings: list[str] = []
    for index in sections:
        rows = table.rows(obj.section_names[index])
        size = int(obj.sections["size"][index])
        if not rows or not size:
            continue
        offsets = relocations.offset[relocations.section == index]
        for row in rows:
            entry = row.entry_size(size, offsets)
            if entry:
                target = owned if row.section_class is SectionClass.OWNED else records
                target[index] = OwnedTable(index, row, entry)
                break
        else:
            warnings.append(
                f"{obj.path}: section {obj.section_names[index]}: no row of special.toml fits its {size} bytes "
                f"and {len(offsets)} relocations; compared as plain data"
            )
    return owned, records, warnings


# Elf64_Nhdr of a build id (name size 4, any size, type NT_GNU_BUILD_ID) and its name.
_BUILD_ID = re.compile(rb"\x04\0\0\0([\x08\x10\x14\x20])\0\0\0\x03\0\0\0GNU\0")


def _clear_build_ids(data: NDArray[np.uint8]) -> None:
    """Clear build ids in embedded ELF images (the vdso): digests of everything, debug information included."""
    for match in _BUILD_ID.finditer(data.data):
        size = match[1][0]
        data[match.end() : match.end() + size] = 0


def build_image(obj: ObjectFile, architecture: Architecture, table: SpecialTable) -> Image:
    """Lay out the allocated sections of ``obj``; raises BadObjectError for impossible sizes."""
    headers = obj.sections
    flags, types, size = headers["flags"], headers["type"], headers["size"].astype(np.int64)
    counts = (flags & elf.SHF_ALLOC) != 0
    derived = _derived_sections(obj, counts.nonzero()[0].tolist(), table)
    counts[derived] = False
    allocated = counts.nonzero()[0]
    rank = np.where(types[allocated] == elf.SHT_NOBITS, 2, np.where(flags[allocated] & elf.SHF_EXECINSTR != 0, 0, 1))
    order = allocated[np.argsort(rank, kind="stable")]
    rank = np.sort(rank, kind="stable")
    sizes = size[order]
    if len(sizes) and (int(sizes.min()) < 0 or int(sizes.max()) > _SIZE_LIMIT):
        raise obj.error("a section is larger than any address space", place="section header table")
    starts = np.zeros(len(order), np.int64)
    if len(order):
        np.cumsum(sizes[:-1] + GUARD, out=starts[1:])
    base = np.full(len(headers), -1, np.int64)
    base[order] = starts

    relocations = obj.relocations(order)
    owned, records, warnings = _classify(obj, allocated.tolist(), relocations, table)
    count_code = int(np.searchsorted(rank, 0, "right"))
    count_content = int(np.searchsorted(rank, 1, "right"))
    total = int(starts[count_content - 1] + sizes[count_content - 1]) if count_content else 0
    if int(sizes[:count_content].sum()) > obj.size:
        raise obj.error("sections overlap or end behind the end of the file", place="section header table")
    data = np.zeros(total + GUARD, np.uint8)
    for section, start, length in zip(
        order[:count_content].tolist(),
        starts[:count_content].tolist(),
        sizes[:count_content].tolist(),
        strict=True,
    ):
        if length:
            data[start : start + length] = obj.section_array(section)
    _clear_build_ids(data)
    code_end = int(starts[count_code - 1] + sizes[count_code - 1]) if count_code else 0
    place = base[relocations.section] + relocations.offset
    if bool(np.any(place[1:] < place[:-1])):  # compilers write them in order
        by_place = np.argsort(place, kind="stable")
        relocations, place = relocations.take(by_place), place[by_place]
    return Image(
        obj,
        architecture,
        base,
        order,
        starts,
        sizes,
        data,
        code_end,
        relocations,
        place,
        owned,
        records,
        derived,
        warnings,
    )
