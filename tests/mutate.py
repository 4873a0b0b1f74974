# SPDX-License-Identifier: GPL-2.0-only
"""Change one thing in an object file: a byte, a relocation, a symbol, a section header."""

from __future__ import annotations

import enum
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from kbuild_klp.arch.x86_64 import is_filler
from kbuild_klp.changes.classification import Change, classify
from kbuild_klp.changes.contested import Contested
from kbuild_klp.changes.pairing import correlate
from kbuild_klp.checksum import sum_file
from kbuild_klp.checksum.entries import checksum_objects
from kbuild_klp.checksum.entry import Entry
from kbuild_klp.elf import constants as elf
from kbuild_klp.elf.reader import ObjectFile
from kbuild_klp.elf.symbol_names import canonical_name
from kbuild_klp.errors import KlpError
from kbuild_klp.special.table import Places, SectionClass, special_table

# psABI table 4.9: how many bytes the linker overwrites, whatever stood there.
FIELD_SIZES = {1: 8, 2: 4, 4: 4, 9: 4, 10: 4, 11: 4, 12: 2, 13: 2, 14: 1, 15: 1, 24: 8, 41: 4, 42: 4}
_CALL_TYPES = {2, 4}
"""R_X86_64_PC32 and PLT32: the same in a kernel, which has no PLT."""


class Excuse(enum.Enum):
    """Why a change may go unnoticed: no build makes it without another one that is noticed."""

    PLACE = (
        "a variable of zeros moves by bytes that nobody has: where a variable lies is left out of its checksum, "
        "for its neighbours move it, and what it holds and how long it is stays the same"
    )
    NO_LENGTH = (
        "where a replacement of no bytes lies (struct alt_instr, replacementlen): the kernel reads nothing there, and "
        "NOPs take the place of the old instructions"
    )


class Mutation(NamedTuple):
    """One change: ``what`` says it to people, ``data`` is the object with it, ``place`` its section and offset.

    ``excuse`` is there for those that are made and counted, but need not be noticed.
    """

    what: str
    data: bytes
    place: tuple[int, int] | None = None
    excuse: Excuse | None = None


def entries(data: bytes) -> list[Entry]:
    return entries_of(ObjectFile(data, "unit.o"))


def entries_of(file: ObjectFile) -> list[Entry]:
    """Return the entries of one object, read again from what is written."""
    found = checksum_objects([file])
    return sorted(sum_file.load(sum_file.dump(found.architecture, 0, found.lines[0]), file.path).entries)


def changes(old: list[Entry], data: bytes) -> list[Change] | str:
    """Return what is said of a mutated object: changes, or why it is refused."""
    try:
        return classify(correlate(Contested(old, entries(data))))
    except KlpError as error:
        return str(error)


class Mutator:
    """All mutations of one object that must not stay unnoticed.

    ``wants`` is asked before the mutations of each byte, relocation, symbol and section are made.
    """

    def __init__(self, data: bytes, wants: Callable[[], bool] = lambda: True) -> None:
        self.data = data
        self.wants = wants
        self.object = ObjectFile(data, "unit.o")
        self.table_offset = struct.unpack_from("<Q", data, 40)[0]
        flags = self.object.sections["flags"]
        self.derived = [
            any(row.section_class is SectionClass.DERIVED for row in special_table("x86_64").rows(name))
            for name in self.object.section_names
        ]
        self.wanted = [bool(flags[index] & elf.SHF_ALLOC) and not self.derived[index] for index in range(len(flags))]
        self.relocations = list(self._relocations())

    def _relocations(self) -> Iterator[tuple[int, int, int, int, int, int]]:
        """Yield file offset, section, place, type, symbol, addend of what applies to sections that count."""
        for header in self.object.sections:
            if header["type"] == elf.SHT_RELA and self.wanted[header["info"]]:
                for at in range(int(header["offset"]), int(header["offset"] + header["size"]), 24):
                    place, kind, symbol, addend = struct.unpack_from("<QIIq", self.data, at)
                    yield at, int(header["info"]), place, kind, symbol, addend

    def _with(self, at: int, new: bytes) -> bytes:
        return self.data[:at] + new + self.data[at + len(new) :]

    # -- bytes ----------------------------------------------------------------------------------------------------

    def byte_mutations(self) -> Iterator[Mutation]:
        """Flip each byte of each section that counts, but for what nothing reads: see `_excused`."""
        fields = {
            (section, place + i)
            for _, section, place, kind, _, _ in self.relocations
            for i in range(FIELD_SIZES.get(kind, 0))
        }
        for index, header in enumerate(self.object.sections):
            if not self.wanted[index] or header["type"] == elf.SHT_NOBITS:
                continue
            start = int(header["offset"])
            for at in range(int(header["size"])):
                if (index, at) in fields or not self.wants():  # the linker writes over fields
                    continue
                old = self.data[start + at]
                for new in (old ^ 0xFF, old ^ 0x01):
                    data = self._with(start + at, bytes([new]))
                    if not self._is_padding(index, at, data):
                        name = self.object.section_names[index]
                        yield Mutation(f"{name}+{at:#x}: {old:#x} -> {new:#x}", data, (index, at))

    def _is_padding(self, section: int, at: int, data: bytes) -> bool:
        """Say whether a byte is in NOPs between functions, and what it becomes is NOPs still: they never run."""
        header = self.object.sections[section]
        if not header["flags"] & elf.SHF_EXECINSTR:
            return False
        inside = [
            s for i, s in enumerate(self.object.symbols) if self.object.shndx[i] == section and s["info"] & 0xF < 3
        ]
        ends = [int(s["value"] + s["size"]) for s in inside if s["size"]]
        if any(s["value"] <= at < s["value"] + s["size"] for s in inside) or not ends:
            return False
        low = max((end for end in ends if end <= at), default=0)
        high = min((int(s["value"]) for s in inside if s["value"] > at), default=int(header["size"]))
        start = int(header["offset"])
        return is_filler(self.data[start + low : start + high]) and is_filler(data[start + low : start + high])

    # -- relocations ----------------------------------------------------------------------------------------------

    def relocation_mutations(self) -> Iterator[Mutation]:
        """Change type, target, addend and place of each relocation."""
        for at, section, place, kind, symbol, addend in self.relocations:
            if kind == 0 or not self.wants():
                continue
            where = (section, place)
            what = f"relocation at {self.object.section_names[section]}+{place:#x}"
            excuse = Excuse.NO_LENGTH if self._has_no_length(section, place) else None
            for step in (1, -1, 4096):
                data = self._with(at + 16, struct.pack("<q", addend + step))
                yield Mutation(f"{what}: addend {step:+}", data, where, excuse)
            for other in (1, 2, 10, 11, 24, 77):
                if other != kind and {other, kind} != _CALL_TYPES:
                    data = self._with(at + 8, struct.pack("<I", other))
                    yield Mutation(f"{what}: type {kind} -> {other}", data, where, excuse)
            for other in {0, 1, symbol - 1, (symbol + 1) % len(self.object.symbols)} - {symbol, -1}:
                if not self._same_meaning(symbol, other, addend):
                    data = self._with(at + 12, struct.pack("<I", other))
                    yield Mutation(f"{what}: symbol {symbol} -> {other}", data, where, excuse)
            yield Mutation(f"{what}: place + 1", self._with(at, struct.pack("<Q", place + 1)), where)

    def _has_no_length(self, section: int, place: int) -> bool:
        """Say whether a relocation says where something lies that has no bytes (special.toml, content)."""
        rows = [row for row in special_table("x86_64").rows(self.object.section_names[section]) if row.content]
        offsets = np.array([at for _, of, at, _, _, _ in self.relocations if of == section], np.int64)
        header = self.object.sections[section]
        for row in rows:
            none = np.zeros(len(offsets), np.int64)
            places = Places(none, offsets, none == 0, none != 0)
            size = int(row.entry_sizes(np.array([header["size"]], np.int64), places)[0])
            if size and row.content and place % size == row.content.reference:
                length = place - row.content.reference + row.content.length % size
                return self.data[int(header["offset"]) + length] == 0
        return False

    def _same_meaning(self, a: int, b: int, addend: int) -> bool:
        """Say whether two symbols are the same address, or addresses of no meaning at all."""
        del addend
        symbols, shndx = self.object.symbols, self.object.shndx
        return bool(shndx[a] == shndx[b] and symbols["value"][a] == symbols["value"][b] and shndx[a] != 0)

    # -- symbols --------------------------------------------------------------------------------------------------

    def symbol_mutations(self) -> Iterator[Mutation]:
        """Change binding, type, visibility, value and size of each symbol that names something."""
        header = self.object.sections[self.object.sections["type"] == elf.SHT_SYMTAB][0]
        places = Counter(zip(self.object.shndx.tolist(), self.object.symbols["value"].tolist(), strict=True))
        for index, symbol in enumerate(self.object.symbols):
            section, kind = int(self.object.shndx[index]), int(symbol["info"]) & 0xF
            name = self.object.symbol_name(index)
            if section <= 0 or not self.wanted[section] or kind > elf.STT_FUNC or not name or name.startswith(".L"):
                continue
            if not self.wants():
                continue
            if canonical_name(name).numbered and places[section, int(symbol["value"])] > 1:
                continue  # equal tables of two functions in one place (-fipa-icf): who else has it means nothing
            at = int(header["offset"]) + 24 * index
            binding = int(symbol["info"]) >> 4
            for other in {0, 1, 2} - {binding}:
                yield Mutation(f"{name}: binding {other}", self._with(at + 4, bytes([other << 4 | kind])))
            for other in {0, 1, 2} - {kind}:
                yield Mutation(f"{name}: type {other}", self._with(at + 4, bytes([binding << 4 | other])))
            for other in {1, 2, 3} - {int(symbol["other"])}:
                yield Mutation(f"{name}: visibility {other}", self._with(at + 5, bytes([other])))
            size = int(symbol["size"])
            for other in {size + 1, size - 1, 0} - {size, -1}:
                yield Mutation(f"{name}: size {size} -> {other}", self._with(at + 16, struct.pack("<Q", other)))
            value = int(symbol["value"])
            excuse = Excuse.PLACE if self._moves_over_zeros(index) else None
            data = self._with(at + 8, struct.pack("<Q", value + 1))
            yield Mutation(f"{name}: value + 1", data, excuse=excuse)

    def _moves_over_zeros(self, index: int) -> bool:
        """Say whether a variable is all zeros, and so is the byte behind it, which is no other symbol's."""
        symbol, section = self.object.symbols[index], int(self.object.shndx[index])
        start, end = int(symbol["value"]), int(symbol["value"] + symbol["size"])
        header = self.object.sections[section]
        if not symbol["size"] or header["flags"] & elf.SHF_EXECINSTR or end >= header["size"]:
            return False
        others = (self.object.shndx == section) & (self.object.symbols["info"] & 0xF <= elf.STT_FUNC)
        values, sizes = self.object.symbols["value"][others], self.object.symbols["size"][others]
        # Nobody else begins in it or behind it, and no longer symbol covers it.
        if ((values <= end) & (values + np.maximum(sizes, 1) > start)).sum() != 1:
            return False
        if any(of == section and start - 8 < place <= end for _, of, place, _, _, _ in self.relocations):
            return False
        at = int(header["offset"])
        return bool(header["type"] == elf.SHT_NOBITS) or not any(self.data[at + start : at + end + 1])

    # -- section headers ------------------------------------------------------------------------------------------

    def section_mutations(self) -> Iterator[Mutation]:
        """Change type, flags, alignment and entry size of each section that counts."""
        for index, header in enumerate(self.object.sections):
            if not self.wanted[index] or not self.wants():
                continue
            at, name = self.table_offset + 64 * index, self.object.section_names[index]
            for flag in (elf.SHF_WRITE, elf.SHF_EXECINSTR, elf.SHF_MERGE, elf.SHF_STRINGS, elf.SHF_ALLOC):
                if flag == elf.SHF_ALLOC and not header["size"]:
                    continue  # nothing would be loaded either way
                flags = struct.pack("<Q", int(header["flags"]) ^ flag)
                yield Mutation(f"section {name}: flag {flag:#x}", self._with(at + 8, flags))
            kind = elf.SHT_NOTE if header["type"] != elf.SHT_NOTE else elf.SHT_PROGBITS
            yield Mutation(f"section {name}: type {kind}", self._with(at + 4, struct.pack("<I", kind)))
            align = struct.pack("<Q", 2 * max(1, int(header["align"])))
            yield Mutation(f"section {name}: alignment", self._with(at + 48, align))
            entry_size = struct.pack("<Q", int(header["entsize"]) + 1)
            yield Mutation(f"section {name}: entry size", self._with(at + 56, entry_size))
