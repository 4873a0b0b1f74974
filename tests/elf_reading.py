# SPDX-License-Identifier: GPL-2.0-only
"""An object file as pyelftools reads it, for judges that ask nothing of the program under test."""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterator
from io import BytesIO
from typing import NamedTuple, cast

from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import Relocation, RelocationSection
from elftools.elf.sections import SymbolTableSection

from kbuild_klp.elf.symbol_names import canonical_name
from kbuild_klp.special.table import SectionClass, special_table

LOCAL, GLOBAL, WEAK = range(3)
NOTYPE, OBJECT, FUNC, SECTION, FILE = range(5)
UNDEF, ABS, COMMON = 0, 0xFFF1, 0xFFF2
RELOCATIONS, NOBITS, NOTE = 4, 8, 7
ALLOC, LINK_ORDER = 2, 0x80
PADDING = 64


class Symbol(NamedTuple):
    """A symbol as pyelftools reads it; ``at`` is its place in the file."""

    at: int
    name: str
    binding: int
    type: int
    visibility: int
    section: int
    value: int
    size: int
    string: int


def parent(name: str) -> str:
    """Return the function to which a split-off part or padding belongs."""
    return name.removeprefix("__pfx_").removeprefix("__cfi_").partition(".cold")[0]


class Reading:
    """An object as pyelftools reads it, and which symbol lies in which."""

    def __init__(self, data: bytes) -> None:
        self.elf = ELFFile(BytesIO(data))
        self.sections = list(self.elf.iter_sections())
        self.headers = [struct.unpack_from("<IIQQQQIIQQ", data, self.header_at(i)) for i in range(len(self.sections))]
        self.symbols = list(self._symbols(data))
        self.derived = [self._row_class(section.name) is SectionClass.DERIVED for section in self.sections]
        self.owned = [self._row_class(section.name) is SectionClass.OWNED for section in self.sections]
        self.wanted = [bool(h[2] & ALLOC) and not d for h, d in zip(self.headers, self.derived, strict=True)]
        self.inside: dict[int, list[Symbol]] = defaultdict(list)
        for symbol in self.symbols:
            if symbol.type <= FUNC and symbol.name and not symbol.name.startswith((".L", "$")):
                self.inside[symbol.section].append(symbol)
        self.users: dict[int, set[str]] = defaultdict(set)
        self.targets: dict[int, set[int]] = defaultdict(set)
        self.section_users: dict[int, set[str]] = defaultdict(set)
        self.discarded: set[int] = set()
        for index, header in enumerate(self.headers):
            table = cast("RelocationSection", self.sections[index])
            if header[1] == RELOCATIONS and not self.wanted[header[7]]:
                self.discarded |= {relocation["r_info_sym"] for relocation in table.iter_relocations()}
            elif header[1] == RELOCATIONS:
                for relocation in table.iter_relocations():
                    self._read_relocation(header[7], relocation["r_offset"], relocation["r_info_sym"], relocation)

        for index, targets in list(self.targets.items()):
            # Replacement code belongs to the functions of the alternatives that refer to it.
            for target in targets:
                if self.owned[index] and not self.inside[target]:
                    self.section_users[target] |= self.section_users[index]

    def _read_relocation(self, section: int, place: int, number: int, relocation: Relocation) -> None:
        """Note who refers to what: the symbol that covers the place, and for a table what its entry is about."""
        symbol, users = self.symbols[number], self.around(section, place)
        self.users[number] |= users
        self.targets[section].add(symbol.section)
        if symbol.section < len(self.sections):
            self.section_users[symbol.section] |= users
            target = symbol.value + (relocation["r_addend"] if symbol.type == SECTION else 0)
            self.section_users[section] |= self.around(symbol.section, target) | self._behind(symbol.section, target)

    @staticmethod
    def _row_class(name: str) -> SectionClass | None:
        rows = special_table("x86_64").rows(name)
        return rows[0].section_class if rows else None

    def header_at(self, index: int) -> int:
        """Return the place of a section header in the file."""
        return int(self.elf["e_shoff"] + index * self.elf["e_shentsize"])

    def _symbols(self, data: bytes) -> Iterator[Symbol]:
        table = cast("SymbolTableSection | None", self.elf.get_section_by_name(".symtab"))
        for index in range(table.num_symbols() if table else 0):
            assert table
            at = table["sh_offset"] + 24 * index
            string, info, other, section, value, size = struct.unpack_from("<IBBHQQ", data, at)
            name = table.get_symbol(index).name
            yield Symbol(at, name, info >> 4, info & 15, other & 3, section, value, size, string)

    def around(self, section: int, offset: int) -> set[str]:
        """Return the names of the outermost symbol that covers a place, empty for none."""
        found = [s for s in self.inside[section] if s.value <= offset < s.value + s.size]
        if not found:  # assembly: from a label without size to the next symbol
            before = [s for s in self.inside[section] if s.value <= offset and not s.size]
            found = [s for s in before if s.value == max(b.value for b in before)]
        if not found:
            return set()
        start = min(s.value for s in found)
        return {parent(s.name) for s in found if s.value == start}

    def _behind(self, section: int, offset: int) -> set[str]:
        """Return the names of the function behind padding that begins at a place (__patchable_function_entries)."""
        behind = [s for s in self.inside[section] if offset <= s.value <= offset + PADDING and s.type == FUNC]
        return {parent(s.name) for s in behind if s.value == min(b.value for b in behind)}

    def is_head(self, symbol: Symbol) -> bool:
        """Say whether no other symbol begins before or at the place of ``symbol`` and covers it."""
        return not any(
            other.value <= symbol.value < other.value + max(other.size, 1) and other.at != symbol.at
            for other in self.inside[symbol.section]
            if not self.has_no_bytes(other)
        )

    @staticmethod
    def has_no_bytes(symbol: Symbol) -> bool:
        """Say whether a symbol is a static variable without bytes."""
        return symbol.binding == LOCAL and symbol.type == OBJECT and not symbol.size and "." in symbol.name

    def is_equal_table(self, symbol: Symbol) -> bool:
        """Say whether another numbered static is in the same place and of the same size."""
        place = (LOCAL, OBJECT, symbol.section, symbol.value, symbol.size)
        equal = [s for s in self.inside[symbol.section] if (s.binding, s.type, s.section, s.value, s.size) == place]
        return symbol in equal and len(equal) > 1 and all(canonical_name(s.name).numbered for s in equal)
