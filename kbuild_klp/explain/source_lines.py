# SPDX-License-Identifier: GPL-2.0-only
"""From an address in an object to a source line, by the object's DWARF line table (DWARF 5, section 6.2)."""

from __future__ import annotations

import io
import posixpath
from bisect import bisect_right
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kbuild_klp.elf import constants as elf
from kbuild_klp.elf.reader import ObjectFile

_SECTION_SHIFT = 40
"""Sections of an object all start at 0; shifted by their number they do not overlap."""
_MOST_BYTES = 64 << 20  # pyelftools would need minutes for a whole vmlinux.o


class SourceLine(NamedTuple):
    """A place in a source: ``file`` as the compiler names it, without its build directory."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class SourceLines:
    """The line table of one object; nothing is read before the first question."""

    def __init__(self, obj: ObjectFile) -> None:
        self._object = obj

    def at(self, section: int, offset: int) -> SourceLine | None:
        """Return the source line of the code at ``offset`` bytes in section number ``section``, None if unknown."""
        starts, lines = self._table
        index = bisect_right(starts, (section << _SECTION_SHIFT) + offset) - 1
        return lines[index] if index >= 0 else None

    @cached_property
    def _table(self) -> tuple[list[int], list[SourceLine | None]]:
        """Start addresses, sorted, and the line from each on (None: no line)."""
        rows: list[tuple[int, bool, SourceLine | None]] = []
        if ".debug_line" in self._object.section_names and self._object.size <= _MOST_BYTES:
            try:
                rows = self._read()
            except Exception:
                # Line numbers are an extra, and pyelftools raises whatever it meets in debug information that
                # it does not understand.
                rows = []
        # Where one sequence ends and the next starts, the start counts.
        rows.sort(key=lambda row: row[:2])
        return [row[0] for row in rows], [row[2] for row in rows]

    def _read(self) -> list[tuple[int, bool, SourceLine | None]]:
        from elftools.elf.elffile import ELFFile  # 60 ms to import, and only `explain` needs it

        dwarf = ELFFile(io.BytesIO(self._shifted())).get_dwarf_info(relocate_dwarf_sections=True)
        rows: list[tuple[int, bool, SourceLine | None]] = []
        for unit in dwarf.iter_CUs():
            program = dwarf.line_program_for_CU(unit)
            if program is None:
                continue
            attributes = unit.get_top_DIE().attributes
            directory = attributes["DW_AT_comp_dir"].value.decode() if "DW_AT_comp_dir" in attributes else ""
            names = _file_names(program.header, directory)
            for entry in program.get_entries():
                state = entry.state
                if state is None:
                    continue
                known = not state.end_sequence and state.line and 0 <= state.file < len(names)
                line = SourceLine(names[state.file], state.line) if known else None
                rows.append((state.address, not state.end_sequence, line))
        return rows

    def _shifted(self) -> bytes:
        """Return the object with the symbols of each section moved to addresses of their own."""
        obj = self._object
        data = bytearray(Path(obj.path).read_bytes())
        table = int(obj.sections["offset"][np.flatnonzero(obj.sections["type"] == elf.SHT_SYMTAB)[0]])
        # Symbols of sections that are not allocated stand for offsets in debug information: those stay.
        section = np.maximum(obj.shndx, 0)
        allocated = (obj.sections["flags"][section] & elf.SHF_ALLOC) != 0
        symbols = obj.symbols.copy()
        symbols["value"] += np.where(allocated, section << _SECTION_SHIFT, 0).astype(np.uint64)
        data[table : table + symbols.nbytes] = symbols.tobytes()
        return bytes(data)


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
