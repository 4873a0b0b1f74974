# SPDX-License-Identifier: GPL-2.0-only
"""The symbol table of vmlinux or of a module, as the kernel searches it for the function to patch.

A function is found by its name and, where that is not unique, by its position among all symbols of the name, counted
from 1: by address in vmlinux (scripts/kallsyms.c sorts by it, and so do kallsyms_on_each_symbol() and
kallsyms_on_each_match_symbol() go through them), and in the order of the symbol table in a module
(module_kallsyms_on_each_symbol()). Variables count too, for CONFIG_LIVEPATCH needs CONFIG_KALLSYMS_ALL.
"""

from __future__ import annotations

import mmap
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kbuild_klp.elf import constants as elf
from kbuild_klp.elf.objects import Objects
from kbuild_klp.elf.reader import ObjectFile, encoded
from kbuild_klp.errors import BadObjectError, KlpError
from kbuild_klp.kernel.tree import VMLINUX
from kbuild_klp.livepatch.linked_threads import thread_functions
from kbuild_klp.livepatch.rules import Position
from kbuild_klp.livepatch.sides import FunctionSymbol

# What ftrace starts with: MCOUNT_REC in include/asm-generic/vmlinux.lds.h. scripts/sorttable.c takes places out of it.
_LIST = ("__start_mcount_loc", "__stop_mcount_loc")
_CRC = 4  # bytes


def crc_symbol(name: str) -> str:
    """Return the symbol that has the CRC of an export."""
    return f"__crc_{name}"


class _Candidate(NamedTuple):
    """One symbol of the image, behind the STT_FILE symbol ``file``; ``file_rank`` counts those of that name from 0."""

    address: int
    size: int
    binding: int
    file: str
    file_rank: int


class LinkedSymbols:
    """The symbols of some ``names`` in a unit, linked at ``time`` (ns).

    Raises BadObjectError or OSError when it cannot be read.
    """

    def __init__(self, path: Path, unit: str, names: set[str]) -> None:
        self.unit = unit
        self._is_vmlinux = unit == VMLINUX
        self.time = path.stat().st_mtime_ns
        self._object = open_linked(path)
        self._table = Objects.of(self._object)
        symbols, shndx = self._object.symbols, self._object.shndx
        kind, binding = symbols["info"] & 0xF, symbols["info"] >> 4
        # scripts/mksysmap: undefined ones, local absolute ones and those for debuggers are not in kallsyms.
        listed = (shndx != elf.SHN_UNDEF) & (kind != elf.STT_FILE) & (kind != elf.STT_SECTION)
        listed &= ~((shndx == elf.ABSOLUTE) & (binding == elf.STB_LOCAL))
        found = self._table.named(encoded(name) for name in (*names, *_LIST))
        found = [(symbol, name) for symbol, name in found if listed[symbol]]
        if self._is_vmlinux:
            found.sort(key=lambda it: int(symbols["value"][it[0]]))
        self._by_name: dict[bytes, list[int]] = defaultdict(list)
        for symbol, name in found:
            self._by_name[name].append(symbol)
        self._files = np.flatnonzero(kind == elf.STT_FILE)
        self._file_names = ["", *map(self._file_name, self._files.tolist())]
        self._file_ranks = [0]
        self.file_counts: dict[str, int] = defaultdict(int)
        """How many STT_FILE symbols of each name there are."""
        self._tables: dict[str, frozenset[tuple[int, int]]] = {}
        for file in self._file_names[1:]:
            self._file_ranks.append(self.file_counts[file])
            self.file_counts[file] += 1

    def _file_name(self, symbol: int) -> str:
        return self._table.encoded_name(symbol).decode("utf-8", "surrogateescape")

    def _found(self, name: str) -> list[int]:
        return self._by_name.get(encoded(name), [])

    def _candidate(self, symbol: int) -> _Candidate:
        file = int(np.searchsorted(self._files, symbol))
        row = self._object.symbols[symbol]
        return _Candidate(
            int(row["value"]), int(row["size"]), int(row["info"]) >> 4, self._file_names[file], self._file_ranks[file]
        )

    def position(self, old: FunctionSymbol, file: str, rank: int | None) -> Position:
        """Find a function: ``file`` is the name of its STT_FILE symbol, ``rank`` which of those of that name.

        The linker keeps local symbols in the order in which it was given the objects, each behind its STT_FILE
        symbol. Without ``rank`` two functions of one name and size, from sources of one name, cannot be told apart.
        """
        found = [self._candidate(symbol) for symbol in self._found(old.name)]
        is_other = False
        if old.is_local:
            same = (elf.STB_LOCAL, old.size, file)
            mine = [at for at, other in enumerate(found) if (other.binding, other.size, other.file) == same]
            if rank is not None:
                mine = [at for at in mine if found[at].file_rank == rank]
        else:
            outer = [at for at, other in enumerate(found) if other.binding != elf.STB_LOCAL]
            mine = outer or list(range(len(found)))  # a hidden one has become local
            # Of several definitions the linker takes a strong one, or else the first, with its binding and size.
            own = (elf.STB_WEAK, old.size)
            is_other = old.is_weak and any((found[at].binding, found[at].size) != own for at in outer)
        if len(mine) != 1:
            return Position(self.unit, 0, len(found))
        is_listed = self._is_listed(found[mine[0]])
        # The object of a static one says itself whether it starts a thread with it.
        is_thread = not old.is_local and self._place(self._found(old.name)[mine[0]]) in self._thread_functions
        return Position(self.unit, mine[0] + 1, len(found), is_other, is_listed, is_thread)

    def count(self, name: str) -> int:
        """Return how many symbols of a name the kernel knows."""
        return len(self._found(name))

    def is_in_table(self, name: str, position: int, table: str) -> bool:
        """Say whether a section of the unit lists a symbol, by its distance from there: the only one for position 0."""
        return self._place(self._found(name)[max(position - 1, 0)]) in self._listed_in(table)

    def _place(self, symbol: int) -> tuple[int, int]:
        """Return where a symbol is: section of a module, 0 in vmlinux, and address there."""
        section = 0 if self._is_vmlinux else int(self._object.shndx[symbol])
        return section, int(self._object.symbols[symbol]["value"])

    @cached_property
    def _thread_functions(self) -> frozenset[tuple[int, int]]:
        with suppress(KlpError):  # code that cannot be read says nothing
            return frozenset(thread_functions(self._object, is_image=self._is_vmlinux))
        return frozenset()

    def _listed_in(self, table: str) -> frozenset[tuple[int, int]]:
        """Return the places that a section lists."""
        if table not in self._tables:
            self._tables[table] = frozenset(
                self._distances_in(table) if self._is_vmlinux else self._relocated_in(table)
            )
        return self._tables[table]

    def _distances_in(self, table: str) -> Iterator[tuple[int, int]]:
        """Yield the places that a section of vmlinux lists."""
        yield from ((0, address) for address in distances_of(self._object, table).tolist())

    def _relocated_in(self, table: str) -> Iterator[tuple[int, int]]:
        """Yield the places that a section of a module lists, which its loader fills in."""
        numbers = [at for at, name in enumerate(self._object.section_names) if name == table]
        rows = self._table.relocations(np.array(numbers, np.int64))
        places = self._object.symbols["value"][rows.symbol].astype(np.int64) + rows.addend
        yield from zip(self._object.shndx[rows.symbol].tolist(), places.tolist(), strict=True)

    @cached_property
    def undefined(self) -> list[str]:
        """The names of what another unit has to export; weak ones are not among them, for they may stay away."""
        info, shndx = self._object.symbols["info"], self._object.shndx
        rows = np.flatnonzero((shndx == elf.SHN_UNDEF) & (info >> 4 != elf.STB_WEAK)).tolist()
        return [name for row in rows if (name := self._object.symbol_name(row))]

    def has_global(self, name: str) -> bool:
        """Say whether other objects can refer to a symbol of a name."""
        return any(self._candidate(symbol).binding != elf.STB_LOCAL for symbol in self._found(name))

    def crc(self, name: str) -> int | None:
        """Return the CRC with which vmlinux exports a symbol; None if it has none.

        crc_symbol() has to be among the names. Until 5.18 its value is the CRC (genksyms wrote a linker script), since
        then what it stands for (SYMBOL_CRC in include/linux/export-internal.h).
        """
        for symbol in self._found(crc_symbol(name))[:1]:
            address = int(self._object.symbols[symbol]["value"])
            if self._object.shndx[symbol] == elf.ABSOLUTE:
                return address
            data = self._at(address, address + _CRC)
            return int.from_bytes(data.tobytes(), self._object.byteorder) if data is not None else None
        return None

    def _at(self, start: int, stop: int) -> NDArray[np.uint8] | None:
        """Return what is at an address in an image; None if nothing is, or what is there is cut off."""
        sections = self._object.sections
        holds = (sections["addr"] <= start) & (stop <= sections["addr"] + sections["size"])
        found = np.flatnonzero(holds & (sections["type"] == elf.SHT_PROGBITS)).tolist()
        if not found:
            return None
        offset = start - int(sections["addr"][found[0]])
        return self._object.section_array(found[0])[offset : offset + stop - start]

    def _is_listed(self, symbol: _Candidate) -> bool | None:
        """Say whether ftrace has a place in a function; None if that cannot be told."""
        if self._places is None:
            return None
        ends = np.array([symbol.address, symbol.address + max(symbol.size, 1)], np.uint64)
        low, high = np.searchsorted(self._places, ends).tolist()
        return bool(high > low)

    @cached_property
    def _places(self) -> NDArray[np.uint64] | None:
        """The addresses that ftrace knows, sorted; None in a module, and where the boot code fills them in."""
        ends = [self._candidate(symbol).address for name in _LIST for symbol in self._found(name)[:1]]
        if len(ends) < len(_LIST) or not self._is_vmlinux:
            return None
        data = self._at(ends[0], ends[1] - (ends[1] - ends[0]) % 8)
        if data is None:
            return None
        words = data.view("<u8" if self._object.byteorder == "little" else ">u8").astype(np.uint64)
        places: NDArray[np.uint64] = np.sort(words)
        return places if places.any() else None


def distances_of(file: ObjectFile, table: str) -> NDArray[np.uint64]:
    """Return the addresses that a section of an image lists, each as its distance from there in 4 bytes."""
    if table not in file.section_names:
        return np.zeros(0, np.uint64)
    number = file.section_names.index(table)
    entries = file.section_array(number)
    rows = entries[: len(entries) // 4 * 4].view("<i4" if file.byteorder == "little" else ">i4").astype(np.uint64)
    found: NDArray[np.uint64] = (
        rows + file.sections["addr"][number] + np.uint64(4) * np.arange(len(rows), dtype=np.uint64)
    )
    return found


def open_linked(path: Path) -> ObjectFile:
    """Open what may be an executable: its section and symbol tables are those of an object."""
    try:
        with path.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    except (OSError, ValueError) as error:
        raise BadObjectError(str(error), file=path) from None
    if len(data) >= 18:  # e_type, in our copy of the page
        data[16:18] = elf.ET_REL.to_bytes(2, "big" if data[5] == elf.ELFDATA2MSB else "little")
    return ObjectFile(data, str(path))
