# SPDX-License-Identifier: GPL-2.0-only
"""The debug information of one object, as pyelftools reads it.

pyelftools applies relocations one by one, which takes a second for an average object of a kernel. Here numpy applies
them to a copy of the debug sections, or, where these are large (vmlinux.o), to the pieces that are read
(relocated_stream.py). All sections of an object start at address 0. In the relocated debug information they have
different addresses: section << SECTION_SHIFT | offset.
"""

from __future__ import annotations

import io
import zlib
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from inspect import signature
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kbuild_klp.dwarf.die_scan import DieScan, Unit
from kbuild_klp.dwarf.relocated_stream import RelocatedStream, apply
from kbuild_klp.elf import constants as elf
from kbuild_klp.elf.reader import RELA, RELA_SIZE, ObjectFile

if TYPE_CHECKING:
    from elftools.dwarf.die import DIE
    from elftools.dwarf.dwarfinfo import DWARFInfo

SECTION_SHIFT = 40
MOST_COPIED = 8 << 20
"""Bytes of debug information up to which all of it is copied. Reading it in pieces is slower per byte."""
MOST_BYTES = 1 << 30
"""Bytes of debug information above which none is read. 300 MiB take a third of a second and 100 MB."""
MOST_COMPRESSED = 64 << 20
"""The same for compressed debug information, which has to be unpacked from its start: 1 s and 300 MB."""
_NAMES = "abbrev addr aranges info line line_str loclists ranges rnglists str str_offsets"
_WANTED = frozenset(f".debug_{name}" for name in _NAMES.split())
# What may contain functions, and what in a function may contain inlined code.
_SCOPES = frozenset({"DW_TAG_namespace", "DW_TAG_module"})
_NESTING = frozenset({"DW_TAG_lexical_block", "DW_TAG_inlined_subroutine", "DW_TAG_try_block", "DW_TAG_catch_block"})
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
        """What pyelftools makes of it; None when there is none, too much, or it is not understood."""
        if not self.size or self.is_too_large:
            return None
        try:
            return self._relocated()
        except Exception:
            # It is an extra, and pyelftools raises all sorts of errors for debug information that it does not
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

    def _relocated(self) -> DWARFInfo:
        """Return the debug information with relocations applied: to a copy, or, where it is large, to what is read."""
        from elftools.dwarf.dwarfinfo import DebugSectionDescriptor, DwarfConfig, DWARFInfo

        obj, is_copied = self._object, self.size <= MOST_COPIED or self._is_compressed
        tables = dict(self._relocation_tables())
        sections: dict[str, DebugSectionDescriptor] = {}
        for index in self._wanted.nonzero()[0].tolist():
            name, table = obj.section_names[index], tables.get(index)
            content = self._content(index) if is_copied else obj.section_array(index)
            if not is_copied:
                stream: Any = RelocatedStream(content, table, self._values, obj.machine)
            else:
                if table is not None:
                    apply(content, 0, table, self._values, obj.machine)
                stream = io.BytesIO(content.data)
            sections[f"{name[1:]}_sec"] = DebugSectionDescriptor(stream, name, 0, len(content), 0)
            if name == ".debug_info":
                self._info = content.data  # DieScan reads nothing that is relocated
        config = DwarfConfig(obj.byteorder == "little", machine_arch="", default_address_size=8)
        # Which sections it takes depends on its version.
        names = [name for name in signature(DWARFInfo).parameters if name.endswith("_sec")]
        return DWARFInfo(config, **{name: sections.get(name) for name in names})

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

    def _relocation_tables(self) -> Iterator[tuple[int, NDArray[np.void]]]:
        """Yield the sections that have relocations, with these."""
        obj = self._object
        for table in (obj.sections["type"] == elf.SHT_RELA).nonzero()[0].tolist():
            index = int(obj.sections["info"][table])
            if 0 <= index < len(self._wanted) and self._wanted[index]:
                # Not ObjectFile.relocations: the places are those in the section before it was compressed.
                data = obj.section_array(table)
                yield index, data[: len(data) // RELA_SIZE * RELA_SIZE].view(RELA[obj.byteorder])


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
