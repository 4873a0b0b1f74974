# SPDX-License-Identifier: GPL-2.0-only
"""What objdump and readelf print of an object, as tables."""

from __future__ import annotations

import re
import subprocess
from bisect import bisect_left
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple


class Section(NamedTuple):
    """A section header; ``flags`` are readelf's letters."""

    name: str
    kind: str
    flags: str
    size: int
    entry_size: int
    alignment: int

    @property
    def is_code(self) -> bool:
        return "X" in self.flags and self.kind == "PROGBITS"

    @property
    def is_loaded(self) -> bool:
        return "A" in self.flags


class Symbol(NamedTuple):
    """A row of the symbol table; ``section`` is empty for undefined and absolute ones."""

    name: str
    section: str
    value: int
    size: int
    kind: str
    binding: str
    visibility: str


class Relocation(NamedTuple):
    """A relocation as objdump prints it: ``symbol`` may be the name of a section."""

    place: int
    kind: str
    symbol: str
    addend: int


class Instruction(NamedTuple):
    """A line of the disassembly."""

    place: int
    raw: bytes
    text: str
    relocations: tuple[Relocation, ...]

    @property
    def end(self) -> int:
        return self.place + len(self.raw)


def _run(*command: str | Path) -> list[str]:
    done = subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True, errors="replace")
    return done.stdout.split("\n")  # not splitlines: a string may hold odd separators


_RELEASE = re.compile(rb"(?<=/linux-)\d+\.\d+\.\d+(?=/)|(?<=vermagic=)[^ \0]+")
_SECTION = re.compile(
    r"^\s*\[\s*(\d+)\] (\S+)\s+([A-Z0-9_]+)\s+[0-9a-f]{16} [0-9a-f]+ ([0-9a-f]+) ([0-9a-f]+)\s+([a-zA-Z]*)"
    r"\s+\d+\s+\d+\s+(\d+)$"
)
_SYMBOL = re.compile(r"^\s*\d+: ([0-9a-f]{16})\s+(\d+|0x[0-9a-f]+) (\w+)\s+(\w+)\s+(\w+)\s+(?:\[.*\]\s+)?(\w+) (\S*)$")
_DUMP = re.compile(r"^ ([0-9a-f]+) ((?:[0-9a-f]{2,8} ){1,4})")
_LINE = re.compile(r"^\s*([0-9a-f]+):\t((?:[0-9a-f]{2} )+)\s*(?:\t(.*))?$")
_RELOCATION = re.compile(r"^\s*([0-9a-f]+):? (R_\w+)\s+(\S+?)(?:([+-])0x([0-9a-f]+))?$")


def _relocation(text: str) -> Relocation:
    match = _RELOCATION.match(" ".join(text.split()))
    assert match, text
    addend = int(match[5] or "0", 16) * (-1 if match[4] == "-" else 1)
    return Relocation(int(match[1], 16), match[2], match[3], addend)


# Not read: GCC 13 and later make one for each section of code, and what is in them follows from the code.
_FOLLOWS_FROM_CODE = ("__patchable_function_entries",)


class Listing:
    """Sections, symbols, contents, relocations and instructions of one object, all by section name."""

    def __init__(self, path: Path) -> None:
        self.sections: dict[str, Section] = {}
        self.symbols: list[Symbol] = []
        self.contents: dict[str, bytes] = {}
        self.relocations: dict[str, list[Relocation]] = defaultdict(list)
        self.code: dict[str, list[Instruction]] = defaultdict(list)
        numbers = self._read_sections(path)
        self._read_symbols(path, numbers)
        self._read_contents(path)
        self._read_relocations(path)
        self._read_code(path)

    def _read_sections(self, path: Path) -> dict[str, str]:
        numbers = {}
        for line in _run("readelf", "-SW", path):
            match = _SECTION.match(line)
            if match is None:
                continue
            section = Section(
                match[2], match[3], match[6], *(int(match[at], base) for at, base in ((4, 16), (5, 16), (7, 10)))
            )
            numbers[match[1]] = section.name
            if section.name in _FOLLOWS_FROM_CODE:
                continue
            assert section.name not in self.sections or not section.is_loaded, f"{path}: two sections {section.name}"
            self.sections[section.name] = section
        return numbers

    def _read_symbols(self, path: Path, numbers: dict[str, str]) -> None:
        for line in _run("readelf", "-sW", path):
            match = _SYMBOL.match(line)
            if match and match[3] not in ("SECTION", "FILE"):
                place = int(match[1], 16), int(match[2], 0)
                self.symbols.append(Symbol(match[7], numbers.get(match[6], ""), *place, *match.group(3, 4, 5)))

    def _read_contents(self, path: Path) -> None:
        parts: dict[str, list[bytes]] = defaultdict(list)
        section = ""
        for line in _run("objdump", "-s", path):
            if line.startswith("Contents of section "):
                section = line[len("Contents of section ") : -1]
            elif match := _DUMP.match(line):
                parts[section].append(bytes.fromhex(match[2].replace(" ", "")))
        # Which release it is of, and where that was built (`/build/linux-7.2.11/x.c`), says nothing; its length does.
        self.contents = {
            name: _RELEASE.sub(lambda match: b"." * len(match[0]), b"".join(chunks)) for name, chunks in parts.items()
        }
        for name, section_header in self.sections.items():
            if section_header.is_loaded and section_header.kind != "NOBITS":
                assert len(self.contents.get(name, b"")) == section_header.size, f"{path}: {name}"

    def _read_relocations(self, path: Path) -> None:
        section = ""
        for line in _run("objdump", "-rw", path):
            if line.startswith("RELOCATION RECORDS FOR ["):
                section = line[len("RELOCATION RECORDS FOR [") : -2]
            elif " R_" in line:
                self.relocations[section].append(_relocation(line))
        for found in self.relocations.values():
            found.sort(key=lambda relocation: relocation.place)

    def relocations_between(self, section: str, start: int, end: int) -> list[Relocation]:
        """Return the relocations of a section from one place to another."""
        found = self.relocations.get(section, [])
        first, last = (bisect_left(found, place, key=lambda relocation: relocation.place) for place in (start, end))
        return found[first:last]

    def _read_code(self, path: Path) -> None:
        section = ""
        relocations: dict[int, Relocation] = {}
        for line in _run("objdump", "-dwz", path):
            if line.startswith("Disassembly of section "):
                section = line[len("Disassembly of section ") : -1]
                relocations = {relocation.place: relocation for relocation in self.relocations[section]}
                continue
            match = _LINE.match(line)
            if match is None:
                continue
            place, raw = int(match[1], 16), bytes.fromhex(match[2])
            within = tuple(relocations[at] for at in range(place, place + len(raw)) if at in relocations)
            self.code[section].append(Instruction(place, raw, (match[3] or "").strip(), within))
