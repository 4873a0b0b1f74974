# SPDX-License-Identifier: GPL-2.0-only
"""One line of addresses for all objects of a batch, so that everything after works on whole tables at once.

All allocated sections that count are laid behind each other: machine code first (it is decoded in one go), other
content next, sections without content (.bss) last. Between sections lies a guard, so that one past the end of a
section is never the start of another. An address in this line is called *linear*.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kbuild_klp.arch.registry import Architecture
from kbuild_klp.elf import constants as elf
from kbuild_klp.elf.objects import Objects, Relocations
from kbuild_klp.elf.symbol_names import canonical_name
from kbuild_klp.object.runs import Numbers, run_starts
from kbuild_klp.object.special_groups import GUARD, SpecialGroup, classify, special_sections
from kbuild_klp.special.table import SectionClass, SpecialTable

_SIZE_LIMIT = 1 << 40  # a .bss larger than any address space is a broken header
NARROW = 1 << 30
"""Linear addresses below it are kept in 32 bits, in which there is room for the sum of two."""


@dataclass(frozen=True)
class Image:
    """The linear address space of a batch.

    ``base[section]`` is the linear address of a section's start, or -1 for one that is not in it; ``order`` lists
    the sections in it by address; ``data`` is the content (writable, sections without content left out), which
    ``buffer`` holds; ``code_end`` is the end of machine code in it; ``places`` are the linear addresses at which
    relocations apply, sorted; ``owned`` and ``records`` are the special tables found, by name.
    ``derived`` names the sections left out of every checksum, ``warnings`` what was not understood of which object.
    """

    objects: Objects
    architecture: Architecture
    base: Numbers
    order: NDArray[np.int64]
    starts: Numbers
    sizes: Numbers
    buffer: bytearray
    data: NDArray[np.uint8]
    code_end: int
    places: Numbers
    owned: list[SpecialGroup]
    records: list[SpecialGroup]
    derived: list[int]
    warnings: list[tuple[int, str]]

    def __getstate__(self) -> dict[str, Any]:
        """Return what is sent to another process: ``data`` and ``buffer`` are the same bytes."""
        return {name: value for name, value in self.__dict__.items() if name != "buffer"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, buffer=bytearray(state["data"]))

    @cached_property
    def is_owned(self) -> NDArray[np.bool_]:
        """Whether each section is a table of which the entries belong to others."""
        return self._marked(self.owned)

    @cached_property
    def is_record(self) -> NDArray[np.bool_]:
        """Whether each section holds records of one layout."""
        return self._marked(self.records)

    def _marked(self, groups: list[SpecialGroup]) -> NDArray[np.bool_]:
        result = np.zeros(len(self.base), bool)
        for group in groups:
            result[group.sections] = True
        return result

    @cached_property
    def empty_variables(self) -> dict[int, str]:
        """The static variables without bytes, by symbol, with their names without number.

        Where one lies is chance, and it is no other name of what starts there: struct lock_class_key without lockdep,
        include/linux/lockdep_types.h.
        """
        symbols = self.objects.symbols
        is_empty = (symbols["info"] == elf.STB_LOCAL << 4 | elf.STT_OBJECT) & (symbols["size"] == 0)
        is_empty &= (symbols["other"] == 0) & (self.objects.shndx > 0)
        found = is_empty.nonzero()[0].tolist()
        names = ((symbol, canonical_name(self.objects.symbol_name(symbol))) for symbol in found)
        return {symbol: name.text for symbol, name in names if name.numbered}

    @cached_property
    def end(self) -> Numbers:
        """The linear address one past the end of each section, as ``base``."""
        end = self.base.copy()
        end[self.order] += self.sizes
        return end


# Elf64_Nhdr of a build id (name size 4, any size, type NT_GNU_BUILD_ID) and its name.
_BUILD_IDS = {
    "little": re.compile(rb"\x04\0\0\0([\x08\x10\x14\x20])\0\0\0\x03\0\0\0GNU\0"),
    "big": re.compile(rb"\0\0\0\x04\0\0\0([\x08\x10\x14\x20])\0\0\0\x03GNU\0"),
}


def _clear_build_ids(buffer: bytearray, byteorder: str) -> None:
    """Clear build ids in embedded ELF images (the vdso): digests of everything, debug information included."""
    for match in list(_BUILD_IDS[byteorder].finditer(buffer)):
        size = match[1][0]
        buffer[match.end() : match.end() + size] = bytes(size)


CODE, DATA, NO_CONTENT = range(3)
"""The order in which kinds of sections lie behind each other in the line of addresses."""


def section_ranks(headers: NDArray[np.void]) -> NDArray[np.integer[Any]]:
    """Say of which kind each section is: CODE, DATA or NO_CONTENT."""
    is_code = headers["flags"] & elf.SHF_EXECINSTR != 0
    return np.where(headers["type"] == elf.SHT_NOBITS, NO_CONTENT, np.where(is_code, CODE, DATA))


def build_image(objects: Objects, architecture: Architecture, table: SpecialTable) -> tuple[Image, Relocations]:
    """Lay out the allocated sections of a batch; raises BadObjectError for impossible sizes.

    The relocations, in the order of their places, are not part of it: nobody needs them once there are References.
    """
    headers = objects.sections
    size = headers["size"].astype(np.int64)
    counts = (headers["flags"] & elf.SHF_ALLOC) != 0
    special = special_sections(objects, counts.nonzero()[0], table)
    is_derived = {name for name in special if table.rows(name)[0].section_class is SectionClass.DERIVED}
    derived = sorted(section for name in is_derived for section in special.pop(name))
    counts[derived] = False
    allocated = counts.nonzero()[0]
    rank = section_ranks(headers[allocated])
    order = allocated[np.argsort(rank, kind="stable")]
    count_code, count_content = np.searchsorted(np.sort(rank), [CODE, DATA], "right").tolist()
    sizes = size[order]
    is_impossible = (sizes < 0) | (sizes > _SIZE_LIMIT)
    if is_impossible.any():
        bad = int(order[is_impossible][0])
        raise objects.section_error(bad, "a section is larger than any address space", "section header table")
    relocations = objects.relocations(order)
    starts = run_starts(sizes + GUARD)
    numbers = np.dtype(np.int32 if starts[-1] < NARROW else np.int64)
    starts, sizes = starts[:-1].astype(numbers), sizes.astype(numbers)
    base = np.full(len(headers), -1, numbers)
    base[order] = starts
    owned, records, warnings = classify(objects, special, table, relocations, architecture)

    content = order[:count_content]
    _check_size(objects, content)
    guard = bytes(GUARD)
    pieces = [piece for section in objects.contents(content) for piece in (section, guard)]
    buffer = bytearray().join(pieces or [bytes(GUARD)])
    objects.release_pages()
    _clear_build_ids(buffer, objects.byteorder)
    code_end = int(starts[count_code - 1] + sizes[count_code - 1]) if count_code else 0
    place = base[relocations.section]
    place += relocations.offset.astype(numbers)
    if (place[1:] < place[:-1]).any():  # compilers write them in order
        by_place = np.argsort(place, kind="stable")
        relocations, place = relocations.take(by_place), place[by_place]
    data = np.frombuffer(buffer, np.uint8)
    layout = base, order, starts, sizes, buffer, data, code_end
    return Image(objects, architecture, *layout, place, owned, records, derived, warnings), relocations


def _check_size(objects: Objects, sections: NDArray[np.int64]) -> None:
    """Refuse an object whose sections hold more than the file does."""
    sizes = objects.sections["size"][sections].astype(np.float64)
    totals = np.bincount(objects.section_object[sections], sizes, len(objects.files))
    for number in (totals > [file.size for file in objects.files]).nonzero()[0].tolist():
        message = "sections overlap or end behind the end of the file"
        raise objects.error(number, message, "section header table")
