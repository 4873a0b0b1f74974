#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Makes the livepatch of two built kernels, and damages the module in thousands of places.

    tests/linked_mutations.py OLD NEW [--each N] [--seed N] [-- OPTION of `kbuild-klp patch`...]

A byte, a relocation that is dropped, retargeted, shifted or moved to another table, a symbol, a section's header, what
the module says of itself: in the module as the linker left it, and in the finished one. The checks that `patch` makes
must fail each time. Only what was carried is damaged, and what ties it to the kernel: the generated code and objtool's
own tables are new, there is nothing to hold them beside. Exit status 1 with survivors.
"""

from __future__ import annotations

import argparse
import random
import struct
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

from extracted_mutations import Damage, Damager

from kbuild_klp.builds.opening import open_build
from kbuild_klp.elf import constants as elf
from kbuild_klp.elf.reader import ObjectFile
from kbuild_klp.errors import KlpError
from kbuild_klp.module import making
from kbuild_klp.module.finished import Destination, RelocatedFile, _Beside
from kbuild_klp.module.glue import FUNCTIONS, OBJECTS
from kbuild_klp.module.livepatch_elf import SHN_LIVEPATCH, LivepatchSymbol
from kbuild_klp.module.post_link import post_link

_NAME = "livepatch-damaged"
_ARRAYS = (FUNCTIONS.partition("{")[0], OBJECTS)


class Range(NamedTuple):
    """Where something that was carried is in the module: from ``low`` up to ``high`` in a section."""

    section: int
    low: int
    high: int


class _Noting(_Beside):
    """The walk of the check, which also notes where the strings and constants are that the linker merged."""

    def __init__(self, made: RelocatedFile, module: RelocatedFile) -> None:
        super().__init__(made, module)
        self.constants: set[Range] = set()

    def _is_same_constant(self, section: int, goal: Destination, now: Destination) -> bool:
        moved = now.place - goal.place
        found = self._constants(section, goal)
        self.constants |= {Range(now.section, low + moved, high + moved) for low, high in found}
        return super()._is_same_constant(section, goal, now)


def carried_ranges(module: ObjectFile, objects: Iterable[bytes]) -> list[Range]:
    """Return where everything of some extracted objects is in a module; raises BadObjectError."""
    finished, found = RelocatedFile(module), set[Range]()
    for data in objects:
        walk = _Noting(RelocatedFile(ObjectFile(data, module.path)), finished)
        walk.check()
        found |= walk.constants
        for section, home in walk.homes.items():
            found.add(Range(home.section, home.place, home.place + walk.made.size(section)))
    return sorted(found)


class Linked(NamedTuple):
    """A module as the linker left it and as it was finished; the places in it of what was carried; and the checks."""

    linked: bytes
    finished: bytes
    ranges: list[Range]
    check: Callable[[bytes], object]


def make(old: Path, new: Path, options: making.Options | None = None) -> Linked:
    """Make the livepatch of two trees; raises KlpError where something is refused."""
    seen: dict[str, Any] = {}

    def linked(data: bytes, path: str) -> bytes:
        seen["linked"] = data
        return post_link(data, path)

    def checked(module: ObjectFile, *others: Any) -> Any:
        seen["checked"] = others
        return check(module, *others)

    check = making._check
    with (
        tempfile.TemporaryDirectory() as directory,
        patch.object(making, "post_link", linked),
        patch.object(making, "_check", checked),
    ):
        output = Path(directory, f"{_NAME}.ko")
        builds = open_build(str(old)), open_build(str(new))
        made = making.make_livepatch(*builds, str(output), options or making.Options(_NAME))
        if not made.module:
            raise KlpError("; ".join(it.refusal.reason for it in made.refused) or "nothing differs", file=str(new))
        finished = output.read_bytes()
    others = seen["checked"]
    ranges = carried_ranges(ObjectFile(finished, _NAME), [it.data for it in others[0]])
    return Linked(seen["linked"], finished, ranges, lambda data: check(ObjectFile(data, _NAME), *others))


class ModuleDamager(Damager):
    """All changes of one module that a check has to notice."""

    def __init__(self, data: bytes, chance: random.Random, ranges: Sequence[Range]) -> None:
        super().__init__(data, chance)
        self.ranges = [it for it in ranges if self.file.sections["type"][it.section] == elf.SHT_PROGBITS]
        self.contents = sorted({it.section for it in self.ranges})
        self.rows = [(table, at) for table in self.tables for at in self._rows_of(table)]
        self.own = [number for number in range(1, len(self.file.symbols)) if self._is_own(number)]
        names = [self.file.symbol_name(number) for number in range(len(self.file.symbols))]
        self.arrays = [number for number, name in enumerate(names) if name.startswith(_ARRAYS)]
        self.named = [number for number, name in enumerate(names) if name and self._is_place(number)]
        [self.symtab] = (self.file.sections["type"] == elf.SHT_SYMTAB).nonzero()[0].tolist()

    def some(self, count: int) -> Iterator[Damage]:
        """Yield some changes of each kind."""
        contents = self._byte, self._byte, self._relocation, self._relocation, self._moved
        kinds = *contents, self._name, self._symbol, self._header, self._glue
        for _ in range(count):
            yield from self.chance.choice(kinds)()
        yield from self._version()

    def _is_carried(self, section: int, place: int) -> bool:
        return any(it.section == section and it.low <= place < it.high for it in self.ranges)

    def _rows_of(self, table: int) -> Iterator[int]:
        """Yield the offsets of the rows of a table that are of something carried."""
        start, size, section = (int(self.file.sections[field][table]) for field in ("offset", "size", "info"))
        for at in range(0, size, 24):
            if self._is_carried(section, int.from_bytes(self.data[start + at : start + at + 8], "little")):
                yield at

    def _is_place(self, number: int) -> bool:
        """Say whether a symbol is of something that was carried, and means its place."""
        kind, section, value = (int(self.file.symbols[field][number]) for field in ("info", "shndx", "value"))
        is_of_objtool = self.file.symbol_name(number).startswith("__pfx_")
        return kind & 0xF in (elf.STT_FUNC, elf.STT_OBJECT) and self._is_carried(section, value) and not is_of_objtool

    def _is_own(self, number: int) -> bool:
        """Say whether a symbol is one of the kernel's that the module refers to, not counting those of the glue."""
        shndx = int(self.file.symbols["shndx"][number])
        return shndx == SHN_LIVEPATCH or (
            shndx == elf.SHN_UNDEF and LivepatchSymbol.parse(self.file.symbol_name(number)) is not None
        )

    def _place_in(self, sections: Sequence[int]) -> tuple[int, int]:
        if sections is self.tables:
            return self.chance.choice(self.rows)
        [found] = self.chance.choices(self.ranges, [it.high - it.low for it in self.ranges])
        return found.section, self.chance.randrange(found.low, found.high)

    def _moved(self) -> Iterator[Damage]:
        """Move a relocation to another table of the same section, one of the livepatch loader's or the module's."""
        table, offset = self.chance.choice(self.rows)
        section = self.file.sections["info"][table]
        others = [it for it in self.tables if it != table and self.file.sections["info"][it] == section]
        if not others:
            return
        other = self.chance.choice(others)
        start, size = (int(self.file.sections[field][other]) for field in ("offset", "size"))
        if not size:
            return
        at = int(self.file.sections["offset"][table]) + offset
        last = start + size - 24
        names = [self.file.section_names[number] for number in (table, other)]
        # The two rows change places.
        data = bytearray(self.data)
        data[at : at + 24], data[last : last + 24] = data[last : last + 24], data[at : at + 24]
        yield Damage("moved", f"a row of {names[0]} and one of {names[1]} changed places", bytes(data))

    def _name(self) -> Iterator[Damage]:
        """Call a livepatch symbol otherwise, or make it an ordinary one."""
        if not self.own:
            return
        number = self.chance.choice(self.own)
        name = self.file.symbol_name(number)
        strings = int(self.file.sections["link"][self.symtab])
        at = int(self.file.sections["offset"][self.symtab]) + 24 * number
        place = int(self.file.sections["offset"][strings]) + struct.unpack_from("<I", self.data, at)[0]
        for inside in (0, name.index("."), len(".klp.sym."), name.rindex(".") + 1, name.rindex(",") - 1, len(name) - 1):
            if name[inside] == "," or inside == len(".klp.sym.") - 1:
                continue
            new = bytes([self.data[place + inside] ^ self.chance.choice([1, 3, 7])])
            yield Damage("name", f"{name}: {new!r} at {inside}", self._with(place + inside, new))
        for shndx in (elf.SHN_UNDEF, elf.SHN_ABS, 1):
            if shndx != int(self.file.symbols["shndx"][number]):
                yield Damage("name", f"{name}: section {shndx}", self._with(at + 6, struct.pack("<H", shndx)))

    def _header(self) -> Iterator[Damage]:
        # The linker makes sections writable that it joins with such, and nothing of it is damaged by that.
        yield from (it for it in super()._header() if not it.what.endswith(f"flag {elf.SHF_WRITE:#x}"))
        tables = [number for number in self.tables if self.file.section_names[number].startswith(".klp.")]
        if not tables:
            return
        table = self.chance.choice(tables)
        at, name = self.headers + 64 * table, self.file.section_names[table]
        for field, size in ((4, 4), (8, 8), (32, 8), (40, 4), (44, 4), (56, 8)):
            old = int.from_bytes(self.data[at + field : at + field + size], "little")
            new = old ^ self.chance.choice([1, 2, 4, 0x10, 0x20, 0x40, 0x100000] if field == 8 else [1, 2, 8])
            yield Damage(
                "header", f"{name}: field {field} {new:#x}", self._with(at + field, new.to_bytes(size, "little"))
            )
        strings = int(self.file.sections["offset"][self.file.section_names.index(".shstrtab")])
        start = strings + int(self.file.sections["name"][table])
        inside = self.chance.randrange(len(name))
        new_name = bytes([self.data[start + inside] ^ 1])
        yield Damage("header", f"{name}: {new_name!r} at {inside}", self._with(start + inside, new_name))

    def _glue(self) -> Iterator[Damage]:
        """Change what is replaced: an old function's name or position, or the array that they stand in."""
        number = self.chance.choice(self.arrays)
        section, low, size = (int(self.file.symbols[field][number]) for field in ("shndx", "value", "size"))
        [table] = [it for it in self.tables if self.file.sections["info"][it] == section]
        base, length = (int(self.file.sections[field][table]) for field in ("offset", "size"))
        name = self.file.symbol_name(number)
        for at in range(base, base + length, 24):
            place, kind, symbol, addend = struct.unpack_from("<QIIq", self.data, at)
            if not low <= place < low + size:
                continue
            what = f"{name}+{place - low:#x}"
            yield Damage("glue", f"{what}: addend", self._with(at + 16, struct.pack("<q", addend + 1)))
            yield Damage("glue", f"{what}: place", self._with(at, struct.pack("<Q", place + 8)))
            yield Damage("glue", f"{what}: type", self._with(at + 8, struct.pack("<I", kind ^ 2)))
            yield Damage("glue", f"{what}: symbol", self._with(at + 12, struct.pack("<I", symbol ^ 1)))
            if name != OBJECTS:
                position = int(self.file.sections["offset"][section]) + place + 16
                new = bytes([self.data[position] ^ 1])
                yield Damage("glue", f"{what}: position", self._with(position, new))

    def _symbol(self) -> Iterator[Damage]:
        """Give something that was carried another name, or its name to another place."""
        number = self.chance.choice(self.named)
        at = int(self.file.sections["offset"][self.symtab]) + 24 * number
        name, value = (int(self.file.symbols[field][number]) for field in ("name", "value"))
        text = self.file.symbol_name(number)
        yield Damage("symbol", f"{text}: name", self._with(at, struct.pack("<I", name + 1)))
        yield Damage("symbol", f"{text}: value", self._with(at + 8, struct.pack("<Q", value + 1)))

    def _version(self) -> Iterator[Damage]:
        """Change what the module says that it is for."""
        for key in (b"vermagic=", b"livepatch=Y"):
            at = self.data.find(key)
            if at >= 0:
                place = at + len(key) + (0 if key.endswith(b"=") else -1)
                yield Damage("version", key.decode(), self._with(place, bytes([self.data[place] ^ 1])))
        if "__versions" in self.file.section_names:
            section = self.file.section_names.index("__versions")
            start, size = (int(self.file.sections[field][section]) for field in ("offset", "size"))
            for at in range(0, size, 64):
                for inside in (0, 3, 8):
                    place = start + at + inside
                    new = bytes([self.data[place] ^ 1])
                    yield Damage("version", f"__versions+{at + inside:#x}", self._with(place, new))


def survivors(made: Linked, count: int, chance: random.Random, tried: Counter[str]) -> Iterator[str]:
    """Yield the changes that no check notices."""
    for damage in ModuleDamager(made.finished, chance, made.ranges).some(count):
        tried[f"finished: {damage.kind}"] += 1
        if _passes(made, lambda data=damage.data: data):  # type: ignore[misc]
            yield f"finished: {damage.what}"
    for damage in ModuleDamager(made.linked, chance, made.ranges).some(count):
        tried[f"linked: {damage.kind}"] += 1
        if _passes(made, lambda data=damage.data: post_link(data, _NAME)):  # type: ignore[misc]
            yield f"linked: {damage.what}"


def _passes(made: Linked, finish: Callable[[], bytes]) -> bool:
    """Say whether nothing notices a damage, unless `post_link` mended it."""
    try:
        finished = finish()
        if finished == made.finished:
            return False
        made.check(finished)
    except KlpError:
        return False
    return True


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("old", help="a built kernel tree, which is only read")
    parser.add_argument("new", help="the same with other functions")
    parser.add_argument("--each", type=int, default=1000, help="places in the module")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--without", action="append", default=[], help="as for `kbuild-klp patch`")
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    made = make(arguments.old, arguments.new, making.Options(_NAME, arguments.without))
    made.check(made.finished)
    tried: Counter[str] = Counter()
    found = list(survivors(made, arguments.each, chance, tried))
    print(f"{sum(tried.values())} changes: {dict(tried)}, {len(found)} survivors")
    print("\n".join(found[:100]))
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
