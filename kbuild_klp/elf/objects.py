# SPDX-License-Identifier: GPL-2.0-only
"""Many objects laid end to end: one table of sections, one of symbols, one of strings, for all of them.

An average object of a kernel has 30 sections, 100 symbols and 300 relocations, and a call of numpy costs as much for
that as for thousands. So the unit of work is a batch of objects, each step is done once for all of them, and an object
by itself is a batch of one. A section or symbol is known by its place in the table of the batch.

An object that is broken raises as soon as that is seen, and takes the batch with it; who reads many tries again
without it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kbuild_klp.elf import constants as elf
from kbuild_klp.elf.reader import (
    EXTENDED,
    RELA,
    RELA_SIZE,
    WORTH_READING_AHEAD,
    ObjectFile,
    cut_names,
    name_pieces,
    names_at,
    section_indices,
)
from kbuild_klp.elf.symbol_names import NUMBERED_PREFIXES
from kbuild_klp.errors import BadObjectError

_BLOCK = 1 << 20
_LOOK = 8
_FACTORS = np.array([3, 0xC2B2AE3D27D4EB4F], np.uint64)


class Relocations(NamedTuple):
    """The relocations that apply to the sections asked for, one array per column, those of a section in file order.

    ``section`` is the index of the section they apply to, ``offset`` the place in it in bytes.
    """

    section: NDArray[np.int32]
    offset: NDArray[np.integer[Any]]
    type: NDArray[np.int32]
    symbol: NDArray[np.int32]
    addend: NDArray[np.integer[Any]]

    def take(self, rows: NDArray[np.int64]) -> Relocations:
        """Return some of the rows, in the order given."""
        return Relocations(self.section[rows], self.offset[rows], self.type[rows], self.symbol[rows], self.addend[rows])


class Objects:
    """Objects of one machine and byte order.

    ``sections`` and ``symbols`` are the tables of all ``files``, one after the other; those of object i are from
    ``first_section[i]`` to ``first_section[i + 1]`` (``first_symbol``). ``section_object`` says of which object a
    section is. ``shndx`` is the section of each symbol: its place in ``sections``, 0 for undefined ones, and negative
    for reserved indices (elf.ABSOLUTE, elf.COMMON). Names of symbols are offsets in ``strings``.
    """

    def __init__(self, files: Sequence[ObjectFile]) -> None:
        self.files = list(files)
        self.byteorder = files[0].byteorder
        self.machine = files[0].machine
        self.first_section = _starts([len(file.sections) for file in files])
        self.first_symbol = _starts([len(file.symbols) for file in files])
        numbers = np.arange(len(files), dtype=np.int32)
        self.section_object = np.repeat(numbers, np.diff(self.first_section))
        if len(files) == 1:
            self.sections, self.symbols, self.shndx = files[0].sections, files[0].symbols, files[0].shndx
            self.strings, self.section_names = files[0].symbol_strings, files[0].section_names
            return
        # Joined as bytes: joining structured arrays makes numpy compare their fields one by one.
        self.sections = _joined(file.sections for file in files)
        self.symbols = _joined(file.symbols for file in files)
        tables = [file.section_strings for file in files]
        strings, places = self._joined_strings("section", tables, self.sections["name"], self.first_section)
        self.section_names = names_at(strings, places, partial(files[0].no_end, "section"))
        tables = [file.symbol_strings for file in files]
        self.strings, places = self._joined_strings("symbol", tables, self.symbols["name"], self.first_symbol)
        self.symbols["name"] = places
        shndx = section_indices(self.symbols["shndx"])
        if (shndx == EXTENDED).any():
            shndx = np.concatenate([file.shndx for file in files])
        number = np.repeat(numbers, np.diff(self.first_symbol))
        is_lost = shndx >= np.diff(self.first_section)[number]
        if is_lost.any():
            raise files[int(number[is_lost.nonzero()[0][0]])].no_section()
        self.shndx = np.where(shndx > 0, shndx + self.first_section[number], shndx)

    def _joined_strings(
        self, what: str, tables: list[bytes], names: NDArray[np.uint32], first: NDArray[np.int64]
    ) -> tuple[bytes, NDArray[np.int64]]:
        """Join string tables of all files, and return the places of names (offsets in their own tables) in the whole.

        ``first`` is where the names of each file begin. Raises BadObjectError for one that has no end in its own table.
        """
        tables = [table or b"\0" for table in tables]
        counts = np.diff(first)
        is_lost = names >= np.repeat([table.rfind(b"\0") + 1 for table in tables], counts)
        if is_lost.any():
            at = int(is_lost.nonzero()[0][0])
            number = int(np.searchsorted(first, at, "right")) - 1
            raise self.files[number].no_end(what, at - int(first[number]))
        return b"".join(tables), names.astype(np.int64) + np.repeat(_starts(list(map(len, tables)))[:-1], counts)

    @classmethod
    def of(cls, file: ObjectFile) -> Objects:
        """Return a batch of one."""
        return cls([file])

    def object_of_symbols(self, symbols: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the number of the object of each symbol."""
        return np.searchsorted(self.first_symbol, symbols, "right") - 1

    def error(
        self, number: int, message: str, place: str | None = None, hint: str = "rebuild the object"
    ) -> BadObjectError:
        """Make the error that names an object."""
        return self.files[number].error(message, place, hint)

    def section_error(self, section: int, message: str, place: str | None = None) -> BadObjectError:
        """Make the error about a section that names its object."""
        return self.error(int(self.section_object[section]), message, place)

    def symbol_error(self, symbol: int, message: str, place: str = "symbol table") -> BadObjectError:
        """Make the error about a symbol that names its object."""
        return self.error(int(self.object_of_symbols(np.array([symbol]))[0]), message, place)

    def release_pages(self) -> None:
        """Let the system have back the memory of what was read; it is read again should anybody look."""
        for file in self.files:
            file.release_pages()

    # -- names ----------------------------------------------------------------------------------------------------

    @cached_property
    def _name_pieces(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where the pieces of ``strings`` end, and in which of them each symbol's name lies."""
        offsets = self.symbols["name"].astype(np.int64)
        return name_pieces(self.strings, offsets, lambda at: self.symbol_error(at, f"name of symbol {at} has no end"))

    @cached_property
    def names(self) -> list[str]:
        """The names of all symbols."""
        return cut_names(self.strings, self.symbols["name"].astype(np.int64), *self._name_pieces)

    def symbol_name(self, symbol: int) -> str:
        """Return the name of one symbol."""
        return self.names[symbol]

    def names_of(self, symbols: Iterable[int]) -> list[str]:
        """Return the names of some symbols."""
        return list(map(self.names.__getitem__, symbols))

    @cached_property
    def first_letters(self) -> NDArray[np.uint8]:
        """The first two letters of each symbol's name (shape n, 2; zeros behind its end)."""
        strings = np.frombuffer(self.strings + b"\0\0", np.uint8)
        name = self.symbols["name"].astype(np.int64)
        is_outside = name >= max(len(strings) - 2, 1)
        if is_outside.any():
            symbol = int(is_outside.nonzero()[0][0])
            raise self.symbol_error(symbol, "a symbol's name lies outside the string table")
        first = strings[name]
        return np.stack([first, np.where(first != 0, strings[name + 1], 0)], axis=1)

    @cached_property
    def looks(self) -> NDArray[np.uint64]:
        """A number for each symbol: symbols of one name have the same, those of different names rarely do."""
        ends, piece = self._name_pieces
        return _looks(self.strings, self.symbols["name"].astype(np.int64), ends[piece])

    @cached_property
    def is_maybe_numbered(self) -> NDArray[np.bool_]:
        """Whether the name of each symbol may have a number to drop (symbol_names.py); few do."""
        letters = np.frombuffer(self.strings + bytes(_LOOK), np.uint8)
        start = self.symbols["name"].astype(np.int64)
        ends, piece = self._name_pieces
        dots = (letters == ord(".")).nonzero()[0]
        last_dot = np.full(len(ends) + 1, -1)  # of each piece: of several dots of one the last stays
        last_dot[np.searchsorted(ends, dots)] = dots
        result: NDArray[np.bool_] = last_dot[piece] >= start
        words = np.lib.stride_tricks.sliding_window_view(letters, _LOOK).view("<u8")[:, 0][start]
        for prefix in NUMBERED_PREFIXES:
            mask = np.uint64((1 << 8 * min(len(prefix), _LOOK)) - 1)
            result |= words & mask == np.uint64(int.from_bytes(prefix[:_LOOK].encode(), "little"))
        return result

    def named(self, names: Iterable[bytes]) -> list[tuple[int, bytes]]:
        """Return the symbols that have one of some names, and the name; without reading those of all others."""
        wanted = {*names}
        if not wanted:
            return []
        starts = _starts([len(name) + 1 for name in wanted])
        looks = np.sort(_looks(b"\0".join([*wanted, b""]), starts[:-1], starts[1:] - 1))
        at = np.minimum(np.searchsorted(looks, self.looks), len(looks) - 1)
        maybe = (looks[at] == self.looks).nonzero()[0].tolist()
        return [(symbol, name) for symbol in maybe if (name := self.encoded_name(symbol)) in wanted]

    def encoded_name(self, symbol: int) -> bytes:
        """Return the name of one symbol as it stands in the string table."""
        start = int(self.symbols["name"][symbol])
        return self.strings[start : self.strings.index(b"\0", start)]

    # -- contents -------------------------------------------------------------------------------------------------

    def content(self, section: int) -> NDArray[np.uint8]:
        """Return the bytes of one section without copying them (read-only); none for SHT_NOBITS."""
        number = int(self.section_object[section])
        return self.files[number].section_array(section - int(self.first_section[number]))

    def contents(self, sections: NDArray[np.int64]) -> list[memoryview]:
        """Return the bytes of some sections, without copying them: there may be a section for each function."""
        headers, numbers = self.sections[sections], self.section_object[sections]
        start, size = headers["offset"], np.where(headers["type"] == elf.SHT_NOBITS, 0, headers["size"])
        limit = np.array([file.size for file in self.files], np.uint64)[numbers]
        is_lost = (size > limit) | (start > limit - np.minimum(size, limit)) & (size > 0)
        if is_lost.any():
            lost = int(is_lost.nonzero()[0][0])
            message = f"ends at {int(start[lost]) + int(size[lost]):#x}, the file at {int(limit[lost]):#x}"
            raise self.section_error(int(sections[lost]), message, self._place(int(sections[lost])))
        start = np.where(size == 0, 0, start)
        for at in (size >= WORTH_READING_AHEAD).nonzero()[0].tolist():
            self.files[int(numbers[at])].read_ahead(int(start[at]), int(size[at]))
        views = [file.view for file in self.files]
        rows = zip(numbers.tolist(), start.tolist(), (start + size).tolist(), strict=True)
        return [views[number][low:high] for number, low, high in rows]

    def relocations(self, sections: NDArray[np.int64]) -> Relocations:
        """Return the relocations that apply to ``sections``, in the order of these."""
        chosen, target = self._relocation_tables(sections)
        # Before anything is allocated by what headers say: their tables lie inside their files.
        contents = self.contents(chosen)
        counts = np.array(list(map(len, contents)), np.int64) // RELA_SIZE
        section = np.repeat(target.astype(np.int32), counts)
        offset, kind, symbol, addend = self._relocation_columns(contents, len(section))
        number = self.section_object[target]
        for column, limit, what in (
            (symbol, np.diff(self.first_symbol)[number], "names a symbol that does not exist"),
            (offset, self.sections["size"][target].astype(np.int64), "lies outside its section"),
        ):
            # Limits that fit are compared as what the columns are; those beyond are no limits.
            most = np.minimum(limit, np.iinfo(column.dtype).max).astype(column.dtype)
            lost = (column >= np.repeat(most, counts)) | (column < 0)
            if lost.any():
                bad = int(section[lost.nonzero()[0][0]])
                raise self.section_error(bad, f"a relocation {what}", "relocations")
        symbol += np.repeat(self.first_symbol[number].astype(np.int32), counts)
        return Relocations(section, offset, kind, symbol, addend)

    def _relocation_tables(self, sections: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the SHT_RELA sections for ``sections``, in the order of these, and which each of them applies to.

        Raises BadObjectError where a table of another form applies to one: nothing that does is left out.
        """
        position = np.full(len(self.sections), -1, np.int64)
        position[sections] = np.arange(len(sections))
        types = self.sections["type"]
        # Only tables of relocations have SHF_INFO_LINK (gABI, sh_link and sh_info), those of unknown form, too.
        applies = self.sections["flags"] & np.uint64(elf.SHF_INFO_LINK) != 0
        chosen = ((types == elf.SHT_RELA) | (types == elf.SHT_REL) | (types == elf.SHT_CREL) | applies).nonzero()[0]
        number = self.section_object[chosen]
        info = self.sections["info"][chosen].astype(np.int64)
        lost = info >= np.diff(self.first_section)[number]
        if lost.any():
            at = int(lost.nonzero()[0][0])
            message = f"applies to section {info[at]}, which does not exist"
            raise self.section_error(int(chosen[at]), message, self._place(int(chosen[at])))
        target = info + self.first_section[number]
        wanted = (position[target] >= 0).nonzero()[0]
        wanted = wanted[np.argsort(position[target[wanted]], kind="stable")]
        chosen, target = chosen[wanted], target[wanted]
        headers = self.sections[chosen]
        is_other = headers["type"] != elf.SHT_RELA
        if is_other.any():
            bad = int(chosen[is_other][0])
            form = {elf.SHT_REL: "SHT_REL", elf.SHT_CREL: "SHT_CREL"}.get(int(types[bad]), f"type {types[bad]:#x}")
            raise self.section_error(bad, f"{form} relocations are not supported", self._place(bad))
        is_odd = (headers["entsize"] != RELA_SIZE) | (headers["size"] % RELA_SIZE != 0)
        if is_odd.any():
            bad = int(chosen[is_odd][0])
            raise self.section_error(bad, "entry size is not that of Elf64_Rela", self._place(bad))
        return chosen, target

    def _relocation_columns(self, tables: Iterable[memoryview], count: int) -> list[NDArray[Any]]:
        """Return offset, type, symbol and addend of all rows of some tables: as 32-bit numbers where they fit."""
        dtype = RELA[self.byteorder]
        columns: list[NDArray[Any]] = [np.empty(count, np.int32) for _ in range(4)]
        fields = ("offset", "type", "symbol", "addend")
        start = 0
        for block in _blocks(tables):
            rows = np.frombuffer(block, dtype)
            end = start + len(rows)
            for at, field in enumerate(fields):
                column = rows[field]
                columns[at][start:end] = column
                if column.dtype.itemsize > columns[at].itemsize and (columns[at][start:end] != column).any():
                    columns[at] = columns[at].astype(np.int64)
                    columns[at][start:end] = column
            start = end
        return columns

    def _place(self, section: int) -> str:
        return f"section {self.section_names[section]}"


def _starts(lengths: list[int]) -> NDArray[np.int64]:
    """Return where each of several tables starts when they stand behind each other, and where the last one ends."""
    starts = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=starts[1:])
    return starts


def _joined(tables: Iterable[NDArray[np.void]]) -> NDArray[np.void]:
    listed = list(tables)
    return np.concatenate([table.view(np.uint8) for table in listed]).view(listed[0].dtype)


def _blocks(contents: Iterable[memoryview]) -> Iterator[memoryview | bytes]:
    """Join contents of sections, as many together as fit into the cache."""
    block: list[memoryview] = []
    size = 0
    for content in contents:
        block.append(content)
        size += len(content)
        if size > _BLOCK:
            yield b"".join(block) if len(block) > 1 else content
            block, size = [], 0
    if block:
        yield b"".join(block)


def _looks(strings: bytes, start: NDArray[np.int64], end: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return a number for each name in a string table: of its length, its first and its last letters."""
    letters = np.frombuffer(strings + bytes(_LOOK), np.uint8)
    words = np.lib.stride_tricks.sliding_window_view(letters, _LOOK).view("<u8")[:, 0]
    first, last = words[start], words[np.maximum(end - _LOOK, start)]
    # What stands behind the end of a short name is no part of it.
    short = np.maximum(_LOOK - (end - start), 0).astype(np.uint64) * np.uint64(8)
    mask = np.where(short < 64, np.uint64(2**64 - 1) >> np.minimum(short, np.uint64(63)), np.uint64(0))
    looks: NDArray[np.uint64] = (first & mask) * _FACTORS[0] + (last & mask) * _FACTORS[1]
    looks += (end - start).astype(np.uint64)
    return looks
