# SPDX-License-Identifier: GPL-2.0-only
"""From an address in an object to a source line, by the object's DWARF line table (DWARF 5, section 6.2)."""

from __future__ import annotations

import posixpath
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple

from kbuild_klp.dwarf.debug_info import DebugInfo, address
from kbuild_klp.dwarf.die_scan import Unit


class SourceLine(NamedTuple):
    """A place in a source: ``file`` as the compiler names it, without its build directory."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class SourceLines:
    """The line tables of one object; nothing is read before the first question."""

    def __init__(self, info: DebugInfo) -> None:
        self._info = info
        self._tables: dict[int, tuple[list[int], list[SourceLine | None]]] = {}
        self._names: dict[int, list[str]] = {}

    def at(self, section: int, offset: int) -> SourceLine | None:
        """Return the source line of the code at ``offset`` bytes in section number ``section``, None if unknown."""
        place = address(section, offset)
        unit = self._info.unit_at(place)
        if unit is None:
            return None
        starts, lines = self._table(unit)
        index = bisect_right(starts, place) - 1
        return lines[index] if index >= 0 else None

    def between(self, section: int, start: int, end: int) -> set[SourceLine]:
        """Return the source lines of the code from ``start`` to ``end`` (bytes) in a section, as far as known."""
        low, high = address(section, start), address(section, end)
        unit = self._info.unit_at(low)
        if unit is None:
            return set()
        starts, lines = self._table(unit)
        found = lines[max(bisect_right(starts, low) - 1, 0) : bisect_left(starts, high)]
        return {line for line in found if line is not None}

    def file_name(self, unit: Unit, number: int) -> str | None:
        """Return the name of file ``number`` of a compilation unit, as the compiler gives it."""
        names = self._files(unit)
        return names[number] if 0 <= number < len(names) and names[number] else None

    def _files(self, unit: Unit) -> list[str]:
        """Return the names of a compilation unit's files by number; none where they are not understood."""
        if unit.cu_offset not in self._names:
            self._names[unit.cu_offset] = []
            with suppress(Exception):  # as in DebugInfo.dwarf
                self._names[unit.cu_offset] = _file_names(self._program(unit).header, _directory(unit))
        return self._names[unit.cu_offset]

    def _program(self, unit: Unit) -> Any:
        return unit.dwarfinfo.line_program_for_CU(unit)

    def _table(self, unit: Unit) -> tuple[list[int], list[SourceLine | None]]:
        """Return start addresses, sorted, and the line from each on (None: no line)."""
        table = self._tables.get(unit.cu_offset)
        if table is None:
            rows: list[tuple[int, bool, SourceLine | None]] = []
            with suppress(Exception):  # as in DebugInfo.dwarf
                rows = list(self._read(unit))
            # Where one sequence ends and the next starts, the start counts.
            rows.sort(key=lambda row: row[:2])
            table = self._tables[unit.cu_offset] = [row[0] for row in rows], [row[2] for row in rows]
        return table

    def _read(self, unit: Unit) -> Iterator[tuple[int, bool, SourceLine | None]]:
        """Yield start addresses, whether code begins there or ends, and the line."""
        names = self._files(unit)
        for entry in self._program(unit).get_entries():
            state = entry.state
            if state is not None:
                known = not state.end_sequence and state.line and 0 <= state.file < len(names)
                line = SourceLine(names[state.file], state.line) if known else None
                yield state.address, not state.end_sequence, line


def _directory(unit: Unit) -> str:
    """Return the directory in which a unit was compiled."""
    attributes = unit.get_top_DIE().attributes
    return attributes["DW_AT_comp_dir"].value.decode() if "DW_AT_comp_dir" in attributes else ""


def _file_names(header: Any, directory: str) -> list[str]:
    """Return the names of a line table's files, by the number that its rows use."""
    # Up to DWARF 4, directory 0 is that of the compilation and files are counted from 1.
    old = header.version < 5
    directories = [directory] if old else []
    directories += [path.decode("utf-8", "replace") for path in header.include_directory]
    names = [""] if old else []
    for entry in header.file_entry:
        place = directories[entry.dir_index] if entry.dir_index < len(directories) else ""
        name = posixpath.normpath(posixpath.join(directory, place, entry.name.decode("utf-8", "replace")))
        names.append(name.removeprefix(f"{directory}/") if directory else name)
    return names
