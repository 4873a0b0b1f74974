# SPDX-License-Identifier: GPL-2.0-only
"""The debug information of one object, ready for pyelftools.

pyelftools applies relocations one by one, which takes a second for an average object of a kernel. Here numpy applies
them, to a copy of those sections that are asked for; where there is much (vmlinux.o), to those pieces that are read
(see windows.py). In that copy, the sections of the object, which all start at 0, lie behind each other: address =
section << SECTION_SHIFT | offset.
"""

from __future__ import annotations

import io
import struct
import sys
import zlib
from bisect import bisect_right
from collections.abc import Container, Iterator
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kbuild_klp.dwarf.die_scan import DieScan, Unit
from kbuild_klp.dwarf.relocated_stream import RelocatedStream, apply
from kbuild_klp.elf import constants as elf
from kbuild_klp.elf.reader import RELA, RELA_SIZE, SECTION_HEADER, ObjectFile

if TYPE_CHECKING:
    from elftools.dwarf.die import DIE
    from elftools.dwarf.dwarfinfo import DWARFInfo

SECTION_SHIFT = 40
MOST_COPIED = 8 << 20
"""Bytes of debug information that are copied as a whole. Of more, only what is read: that is slower per byte."""
MOST_BYTES = 1 << 30
"""Bytes of debug information of which anything is read: a third of a second and 100 MB for 300 MiB."""
MOST_COMPRESSED = 64 << 20
"""The same where it is compressed, and has to be unpacked from its start: 1 s and 300 MB."""
_NAMES = "abbrev addr aranges info line line_str loclists ranges rnglists str str_offsets"
_WANTED = frozenset(f".debug_{name}" for name in _NAMES.split())
# What may contain functions, and what in a function may contain inlined code.
_SCOPES = frozenset({"DW_TAG_namespace", "DW_TAG_module"})
_NESTING = frozenset({"DW_TAG_lexical_block", "DW_TAG_inlined_subroutine", "DW_TAG_try_block", "DW_TAG_catch_block"})
# Elf64_Ehdr, and the byte that says in which order it is (e_ident[EI_DATA]).
_EHDRS = {
    "little": (struct.Struct("<16sHHIQQQIHHHHHH"), elf.ELFDATA2LSB),
    "big": (struct.Struct(">16sHHIQQQIHHHHHH"), elf.ELFDATA2MSB),
}
_CHDR_SIZE = 24  # Elf64_Chdr, gABI chapter 4, "Section Compression"
_ELFCOMPRESS_ZLIB = 1
_LENGTH = 4
_SHORTEST, _LONGEST = 7, 0xFFFFFFF0


_Index = tuple[list[int], list[tuple[int, Any]]]
"""Start addresses, sorted, and for each of them the end and what lies there."""


class DebugInfo:
    """The debug information of an object; nothing is read before the first question."""

    def __init__(self, obj: ObjectFile) -> None:
        self._object = obj
        self._functions: dict[int, _Index] = {}
        self._scans: dict[int, DieScan] = {}
        self._info: bytes | memoryview = b""

    @cached_property
    def size(self) -> int:
        """Bytes of debug information, unpacked."""
        return sum(map(self._size_of, self._wanted.nonzero()[0].tolist()))

    @property
    def is_too_large(self) -> bool:
        """Whether there is so much of it that it is left alone."""
        return self.size > (MOST_COMPRESSED if self._is_compressed else MOST_BYTES)

    @cached_property
    def _is_compressed(self) -> bool:
        return bool((self._object.sections["flags"][self._wanted] & elf.SHF_COMPRESSED).any())

    def _size_of(self, index: int) -> int:
        """Return the size of a section, unpacked."""
        if int(self._object.sections["flags"][index]) & elf.SHF_COMPRESSED:
            return int.from_bytes(self._object.section_array(index)[8:16].tobytes(), self._object.byteorder)
        return int(self._object.sections["size"][index])

    @cached_property
    def dwarf(self) -> DWARFInfo | None:
        """What pyelftools makes of it; None when there is none, too much, or nothing that it understands."""
        if not self.size or self.is_too_large:
            return None
        try:
            from elftools.elf.elffile import ELFFile  # 60 ms to import, and only changed functions need it

            if self.size <= MOST_COPIED or self._is_compressed:
                return ELFFile(io.BytesIO(self._copy())).get_dwarf_info(relocate_dwarf_sections=False)
            return self._in_windows(ELFFile)
        except Exception:
            # It is an extra, and pyelftools raises whatever it meets in debug information that it does not
            # understand.
            return None

    def unit_at(self, place: int) -> Unit | None:
        """Return the compilation unit of the code at an address, None when it is unknown."""
        offset: int | None = _find(self._units, place)
        return None if offset is None else self._unit(offset)

    def _unit(self, offset: int) -> Unit | None:
        try:
            return self.dwarf.get_CU_at(offset) if self.dwarf is not None else None
        except Exception:  # as in dwarf
            return None

    def function_at(self, place: int) -> DIE | None:
        """Return the DIE of the function around an address, None when it is unknown."""
        unit = self.unit_at(place)
        if unit is None:
            return None
        found: DIE | None = _find(self._functions_of(unit), place)
        return found

    def functions(self) -> Iterator[DIE]:
        """Yield the DIE of every function."""
        for offset in dict.fromkeys(offset for _, offset in self._units[1]):
            unit = self._unit(offset)
            if unit is None:
                continue
            yield from {die.offset: die for _, die in self._functions_of(unit)[1]}.values()

    def _functions_of(self, unit: Unit) -> _Index:
        functions = self._functions.get(unit.cu_offset)
        if functions is None:
            functions = self._functions[unit.cu_offset] = _index(self._subprograms(unit))
        return functions

    def nested(self, function: DIE) -> Iterator[tuple[int, DIE]]:
        """Yield the inlined functions in a function and their depth; raises whatever pyelftools raises."""
        unit = function.cu
        first = function.offset + function.size
        if not function.has_children:
            return
        for offset, depth in self._scan(unit).with_code(first, "DW_TAG_inlined_subroutine", _NESTING):
            yield depth, unit.get_DIE_from_refaddr(offset)

    def _subprograms(self, unit: Unit) -> Iterator[tuple[int, int, DIE]]:
        """Yield the functions of a unit that have code, with where it lies."""
        top = unit.get_top_DIE()
        for offset, _ in self._scan(unit).with_code(top.offset + top.size, "DW_TAG_subprogram", _SCOPES):
            die = unit.get_DIE_from_refaddr(offset)
            for low, high in ranges_of(die):
                yield low, high, die

    def _scan(self, unit: Unit) -> DieScan:
        scan = self._scans.get(unit.cu_offset)
        if scan is None:
            scan = self._scans[unit.cu_offset] = DieScan(unit, self._info)
        return scan

    @cached_property
    def _units(self) -> _Index:
        return _index(self._unit_ranges())

    def _unit_ranges(self) -> Iterator[tuple[int, int, int]]:
        """Yield where the code of the units lies, and the offsets of these."""
        if self.dwarf is None:
            return
        rest = set(self._unit_offsets())
        known = frozenset(rest)
        table = self.dwarf.get_aranges()
        for entry in table.entries if table is not None else ():
            if entry.info_offset in known:
                rest.discard(entry.info_offset)
                yield entry.begin_addr, entry.begin_addr + entry.length, entry.info_offset
        for offset in sorted(rest):
            unit = self._unit(offset)
            for low, high in ranges_of(unit.get_top_DIE()) if unit is not None else ():
                yield low, high, offset

    def _unit_offsets(self) -> Iterator[int]:
        """Yield where the units start: each begins with its length (DWARF 5, section 7.5.1)."""
        at = 0
        while at + _LENGTH <= len(self._info):
            length = int.from_bytes(self._info[at : at + _LENGTH], self._object.byteorder)
            if not _SHORTEST <= length < _LONGEST:
                return  # broken, or 64-bit DWARF, which DieScan does not know either
            yield at
            at += _LENGTH + length

    @cached_property
    def _wanted(self) -> NDArray[np.bool_]:
        return np.array([name in _WANTED for name in self._object.section_names], bool)

    def _copy(self) -> bytes:
        """Return an ELF file with nothing but the debug information, relocated."""
        obj = self._object
        contents = {index: self._content(index) for index in self._wanted.nonzero()[0].tolist()}
        for table, index in self._relocation_tables(contents):
            apply(contents[index], 0, table, self._values, obj.machine)
        names = [obj.section_names[index] for index in contents]
        pieces = [content.tobytes() for content in contents.values()]
        self._info = pieces[names.index(".debug_info")] if ".debug_info" in names else b""
        return self._file(names, pieces)

    def _in_windows(self, elf_file: Any) -> DWARFInfo:
        """Return the debug information over streams that relocate what is read of them."""
        obj = self._object
        contents = {index: obj.section_array(index) for index in self._wanted.nonzero()[0].tolist()}
        tables = {index: table for table, index in self._relocation_tables(contents)}
        names = [obj.section_names[index] for index in contents]
        # pyelftools finds the sections in a file in which they are empty, and gets them afterwards.
        dwarf: DWARFInfo = elf_file(io.BytesIO(self._file(names, [b""] * len(names)))).get_dwarf_info(False)
        for (index, content), name in zip(contents.items(), names, strict=True):
            stream = RelocatedStream(content, tables.get(index), self._values, obj.machine)
            field = f"{name[1:]}_sec"
            setattr(dwarf, field, getattr(dwarf, field)._replace(stream=stream, size=len(content)))
            if name == ".debug_info":
                self._info = content.data  # DieScan reads nothing that is relocated
        return dwarf

    def _file(self, names: list[str], pieces: list[bytes]) -> bytes:
        """Return an ELF file with some sections."""
        strings = b"".join(b"\0%s" % name.encode() for name in ("", *names, ".shstrtab")) + b"\0"
        headers = np.zeros(len(names) + 2, SECTION_HEADER)
        ehdr, order = _EHDRS[self._object.byteorder]
        place = ehdr.size + headers.nbytes
        for header, name, piece in zip(headers[1:], [*names, ".shstrtab"], [*pieces, strings], strict=True):
            header["name"] = strings.index(b"\0%s\0" % name.encode()) + 1
            header["type"] = elf.SHT_STRTAB if name == ".shstrtab" else elf.SHT_PROGBITS
            header["offset"], header["size"], header["align"] = place, len(piece), 1
            place += len(piece)
        count, size = len(headers), ehdr.size
        ident = elf.ELF_MAGIC + bytes((elf.ELFCLASS64, order, 1))
        head = ehdr.pack(ident, elf.ET_REL, self._object.machine, 1, 0, 0, size, 0, size, 0, 0, 64, count, count - 1)
        if self._object.byteorder != sys.byteorder:
            headers = headers.byteswap()
        return b"".join((head, headers.tobytes(), *pieces, strings))

    def _content(self, index: int) -> NDArray[np.uint8]:
        """Return the bytes of a section, to be written to."""
        obj = self._object
        content = obj.section_array(index)
        if int(obj.sections["flags"][index]) & elf.SHF_COMPRESSED:
            data = content.tobytes()
            if int.from_bytes(data[:4], obj.byteorder) != _ELFCOMPRESS_ZLIB:
                raise ValueError("compressed in a way that is not supported")
            limit = self._size_of(index)
            return np.frombuffer(bytearray(zlib.decompressobj().decompress(data[_CHDR_SIZE:], limit)), np.uint8)
        return content.copy()

    @cached_property
    def _values(self) -> NDArray[np.int64]:
        """The value of each symbol. Those of sections that are not allocated stand for offsets in debug information."""
        obj = self._object
        section = np.maximum(obj.shndx, 0)
        allocated = (obj.sections["flags"][section] & elf.SHF_ALLOC) != 0
        values: NDArray[np.int64] = obj.symbols["value"].astype(np.int64)
        return values + np.where(allocated, section << SECTION_SHIFT, 0)

    def _relocation_tables(self, sections: Container[int]) -> Iterator[tuple[NDArray[np.void], int]]:
        """Yield the relocations of those sections, and the section of each table."""
        obj = self._object
        for table in (obj.sections["type"] == elf.SHT_RELA).nonzero()[0].tolist():
            index = int(obj.sections["info"][table])
            if index in sections:
                # Not ObjectFile.relocations: the places are those in the section before it was compressed.
                data = obj.section_array(table)
                yield data[: len(data) // RELA_SIZE * RELA_SIZE].view(RELA[obj.byteorder]), index


def address(section: int, offset: int) -> int:
    """Return the address that stands for ``offset`` in section number ``section``."""
    return (section << SECTION_SHIFT) + offset


def _index(ranges: Iterator[tuple[int, int, Any]]) -> _Index:
    """Sort ranges of addresses; what comes before damage in them counts."""
    found: list[tuple[int, int, Any]] = []
    with suppress(Exception):  # as in DebugInfo.dwarf
        found.extend(ranges)
    found.sort(key=lambda row: row[:2])
    return [low for low, _, _ in found], [(high, what) for _, high, what in found]


def _find(index: _Index, place: int) -> Any:
    starts, rows = index
    at = bisect_right(starts, place) - 1
    return rows[at][1] if at >= 0 and place < rows[at][0] else None


def ranges_of(die: Any) -> Iterator[tuple[int, int]]:
    """Yield start and end address of the code that a DIE describes (DWARF 5, section 2.17)."""
    attributes = die.attributes
    if "DW_AT_ranges" in attributes:
        lists = die.dwarfinfo.range_lists()
        if lists is None:
            return
        top = die.cu.get_top_DIE().attributes.get("DW_AT_low_pc")
        base = top.value if top is not None else 0
        for entry in lists.get_range_list_at_offset(attributes["DW_AT_ranges"].value, cu=die.cu):
            if hasattr(entry, "base_address"):
                base = entry.base_address
            else:
                start = 0 if getattr(entry, "is_absolute", False) else base
                yield start + entry.begin_offset, start + entry.end_offset
    elif "DW_AT_low_pc" in attributes and "DW_AT_high_pc" in attributes:
        low, high = attributes["DW_AT_low_pc"].value, attributes["DW_AT_high_pc"]
        # A constant is a size; an address (DWARF 3) is an address.
        yield low, high.value if high.form.startswith("DW_FORM_addr") else low + high.value
