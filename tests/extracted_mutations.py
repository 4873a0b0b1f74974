#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Extracts functions of a built kernel as if they had changed, and damages what was made, in thousands of places.

    tests/extracted_mutations.py TREE [--objects N] [--each N] [--seed N]

Of N objects (seeded choice) some functions each are extracted; the checks have to pass. Then --each changes of each
extracted object are made, one at a time: a byte, a relocation that is dropped, retargeted, shifted or moved, the end of
a table that is gone, a symbol, a section's header. The checks must fail each time. Exit status 1 with survivors.
TREE may be a directory of modules. The test suite does the same to a few objects that it compiles.
"""

from __future__ import annotations

import argparse
import random
import struct
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from kbuild_klp.elf import constants as elf
from kbuild_klp.elf.reader import ObjectFile
from kbuild_klp.errors import KlpError
from kbuild_klp.extract.beside import check
from kbuild_klp.extract.correlated import Correlated
from kbuild_klp.extract.laid_out import LaidOut
from kbuild_klp.extract.needed import Needed
from kbuild_klp.extract.relocated import RelocatedObject
from kbuild_klp.extract.side_tables import SideEntry, side_entries
from kbuild_klp.kernel.tree import BuildTree
from kbuild_klp.livepatch.rules import is_init
from kbuild_klp.object.parts import PartKind
from kbuild_klp.object.view import ObjectView

LARGEST = 3_000_000


class Made(NamedTuple):
    """An extracted object, and what the checks need of how it was made; ``data`` is empty if something is refused."""

    needed: Needed
    laid: LaidOut | None
    side: list[SideEntry]
    data: bytes

    def check(self, data: bytes | None = None) -> int:
        """Run the checks on the object, or on what it was changed to; raises BadObjectError."""
        assert self.laid is not None
        file = ObjectFile(self.data if data is None else data, "extracted.o")
        return check(self.needed, self.laid, self.side, file)


class Damage(NamedTuple):
    """One change: what kind it is of, what in words, and the object with it."""

    kind: str
    what: str
    data: bytes


def make(both: Correlated, relocated: RelocatedObject, mains: Iterable[int]) -> Made:
    """Extract the functions with some main parts."""
    needed = Needed(both, relocated, [(part, "changed") for part in mains])
    if needed.refused:
        return Made(needed, None, [], b"")
    side = list(side_entries(needed))
    laid = LaidOut(needed, side)
    return Made(needed, laid, side, laid.file())


def functions(view: ObjectView) -> list[int]:
    """Return the main parts of all functions that could be asked for."""
    canonical = view.canonical
    parts, parent = canonical.parts, canonical.families.parent
    return [
        part
        for part in (parts.kind == PartKind.NAMED).nonzero()[0].tolist()
        if view.is_code(part) and view.size(part) and part not in parent and not is_init(canonical.section_name(part))
    ]


class Damager:
    """All changes of one extracted object that a check has to notice."""

    def __init__(self, data: bytes, chance: random.Random) -> None:
        self.data = data
        self.chance = chance
        self.file = ObjectFile(data, "extracted.o")
        self.headers = int.from_bytes(data[40:48], self.file.byteorder)
        flags, types = self.file.sections["flags"], self.file.sections["type"]
        own = (types == elf.SHT_PROGBITS) & ((flags & elf.SHF_ALLOC) != 0)
        self.contents = own.nonzero()[0].tolist()
        self.tables = (types == elf.SHT_RELA).nonzero()[0].tolist()

    def _with(self, at: int, new: bytes) -> bytes:
        return self.data[:at] + new + self.data[at + len(new) :]

    def some(self, count: int) -> Iterator[Damage]:
        """Yield some changes of each kind."""
        kinds = (self._byte, self._relocation, self._relocation, self._entry, self._symbol, self._header)
        for _ in range(count):
            yield from self.chance.choice(kinds)()

    def _place_in(self, sections: Sequence[int]) -> tuple[int, int]:
        """Return a place in one of some sections: its number, and an offset there."""
        sizes = [int(self.file.sections["size"][section]) for section in sections]
        [section] = self.chance.choices(sections, sizes)
        return section, self.chance.randrange(int(self.file.sections["size"][section]))

    def _byte(self) -> Iterator[Damage]:
        section, offset = self._place_in(self.contents)
        at = int(self.file.sections["offset"][section]) + offset
        new = self.data[at] ^ self.chance.choice([0x01, 0x80, 0xFF])
        where = f"{self.file.section_names[section]}+{offset:#x}"
        yield Damage("byte", f"{where}: {self.data[at]:#x} -> {new:#x}", self._with(at, bytes([new])))

    def _relocation(self) -> Iterator[Damage]:
        section, offset = self._place_in(self.tables)
        at = int(self.file.sections["offset"][section]) + offset // 24 * 24
        place, kind, symbol, addend = struct.unpack_from("<QIIq", self.data, at)
        what = f"{self.file.section_names[section]} at {place:#x}"
        step = self.chance.choice([1, -1, 4, -8, 4096])
        if kind:  # what objtool switched off leads nowhere
            new = struct.pack("<q", addend + step)
            yield Damage("relocation", f"{what}: addend {step:+}", self._with(at + 16, new))
        yield Damage("relocation", f"{what}: place + 1", self._with(at, struct.pack("<Q", place + 1)))
        other = self.chance.choice([number for number in (0, 1, 2, 4, 10, 11, 24) if number != kind])
        yield Damage("relocation", f"{what}: type {other}", self._with(at + 8, struct.pack("<I", other)))
        others = [number for number in range(len(self.file.symbols)) if number != symbol]
        other = self.chance.choice(others)
        if kind and not self._is_equal(symbol, other):
            yield Damage("relocation", f"{what}: symbol {other}", self._with(at + 12, struct.pack("<I", other)))
        yield self._without(section, offset // 24 * 24, 24, "relocation", f"{what}: dropped")

    def _is_equal(self, one: int, other: int) -> bool:
        """Say whether two symbols are of one place."""
        rows, shndx = self.file.symbols, self.file.shndx
        places = [(int(shndx[number]), int(rows["value"][number])) for number in (one, other)]
        return places[0] == places[1] and shndx[one] > 0

    def _without(self, section: int, offset: int, size: int, kind: str, what: str) -> Damage:
        """Return the object without some bytes of a section, which ends so much earlier."""
        start, length = (int(self.file.sections[field][section]) for field in ("offset", "size"))
        rest = self.data[start + offset + size : start + length] + bytes(size)
        data = self._with(start + offset, rest)
        at = self.headers + 64 * section + 32
        return Damage(kind, what, data[:at] + struct.pack("<Q", length - size) + data[at + 8 :])

    def _entry(self) -> Iterator[Damage]:
        """Cut off the last bytes of a table, with the relocations there."""
        section = self.chance.choice(self.contents)
        size = int(self.file.sections["size"][section])
        cut = min(self.chance.choice([1, 4, 8, 12, 14]), size)
        yield self._without(section, size - cut, cut, "entry", f"{self.file.section_names[section]}: {cut} bytes less")

    def _symbol(self) -> Iterator[Damage]:
        number = self.chance.randrange(1, len(self.file.symbols))
        [table] = (self.file.sections["type"] == elf.SHT_SYMTAB).nonzero()[0].tolist()
        at = int(self.file.sections["offset"][table]) + 24 * number
        name, info, other, shndx, value, size = struct.unpack_from("<IBBHQQ", self.data, at)
        if shndx == 0 or info & 0xF in (elf.STT_SECTION, elf.STT_FILE) or shndx >= elf.SHN_LORESERVE:
            return  # of an undefined one the relocations say more
        for row in ((name + 1, info, value, size), (name, info, value + 1, size), (name, info, value, size + 1)):
            new = struct.pack("<IBBHQQ", row[0], row[1], other, shndx, *row[2:])
            yield Damage("symbol", f"symbol {self.file.symbol_name(number)}", self._with(at, new))
        new = struct.pack("<IBBHQQ", name, info ^ 3, other, shndx, value, size)
        yield Damage("symbol", f"symbol {self.file.symbol_name(number)}: type", self._with(at, new))

    def _header(self) -> Iterator[Damage]:
        section = self.chance.choice(self.contents)
        at, name = self.headers + 64 * section, self.file.section_names[section]
        flags = int(self.file.sections["flags"][section])
        bit = self.chance.choice([elf.SHF_ALLOC, elf.SHF_WRITE, elf.SHF_EXECINSTR])
        yield Damage("header", f"{name}: flag {bit:#x}", self._with(at + 8, struct.pack("<Q", flags ^ bit)))
        yield Damage("header", f"{name}: type", self._with(at + 4, struct.pack("<I", elf.SHT_NOTE)))


def survivors(made: Made, count: int, chance: random.Random, tried: Counter[str]) -> Iterator[str]:
    """Yield the changes that no check notices."""
    for damage in Damager(made.data, chance).some(count):
        tried[damage.kind] += 1
        try:
            made.check(damage.data)
        except KlpError:
            continue
        yield damage.what


def objects(directory: Path) -> list[Path]:
    """Return the objects of a tree, or the modules in a directory."""
    if (directory / ".config").exists():
        tree = BuildTree.open(directory)
        return sorted({Path(tree.root) / name for unit in tree.units() for name in unit.objects})
    return sorted(directory.rglob("*.ko"))


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("tree", help="a built kernel tree or a directory of modules; it is only read")
    parser.add_argument("--objects", type=int, default=40)
    parser.add_argument("--each", type=int, default=100, help="places in each extracted object")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    names = [path for path in objects(Path(arguments.tree)) if path.stat().st_size < LARGEST]
    chance.shuffle(names)
    tried: Counter[str] = Counter()
    bars: Counter[str] = Counter()
    found: list[str] = []
    count = 0
    for name in names:
        if count == arguments.objects:
            break
        view = ObjectView(str(name))
        mains = functions(view)
        if not mains:
            continue
        made = make(Correlated(view, view), RelocatedObject(view), chance.sample(mains, min(3, len(mains))))
        bars.update(refusal.bar.word for refusal in made.needed.refused)
        if made.data:
            count += 1
            made.check()
            found += [f"{name}: {what}" for what in survivors(made, arguments.each, chance, tried)]
    print(f"{count} objects; refused on the way: {dict(bars)}")
    print(f"{sum(tried.values())} changes: {dict(tried)}, {len(found)} survivors")
    print("\n".join(found[:100]))
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
