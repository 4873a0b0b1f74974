#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Counts each attribute of each symbol and section of a kernel's objects, and who answers for it.

    tests/attribute_coverage.py TREE [--objects N] [--largest BYTES] [--seed N] [--jobs N]

pyelftools reads the object and says which attributes there are, where in the file they stand, and which symbol lies in
which: nothing of that is asked of the program under test. An attribute is covered when the comparison of the object
with one in which only that attribute is another names the entry it belongs to. Attributes that no entry shares are
changed together, for there are a million of them. What is not covered has a row in `Row`, which says why; where a row
rests on a fact about the object, the fact is looked at. All objects of the kernel without --objects. Exit status 1
when an attribute has neither.
The test suite does the same to some objects.
"""

from __future__ import annotations

import argparse
import enum
import random
import struct
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from elf_reading import (
    ABS,
    ALLOC,
    COMMON,
    FILE,
    FUNC,
    GLOBAL,
    LINK_ORDER,
    LOCAL,
    NOTE,
    OBJECT,
    SECTION,
    UNDEF,
    WEAK,
    Reading,
    Symbol,
    parent,
)
from mutate import changes, entries

from kbuild_klp.checksum.entry import KIND_SECTION, Entry
from kbuild_klp.elf.symbol_names import canonical_name
from kbuild_klp.kernel.tree import BuildTree
from kbuild_klp.processes import in_processes, processors


class Row(enum.Enum):
    """Why an attribute may be another one and nothing is said."""

    SOURCE_FILE = "an STT_FILE symbol: names a source, the linker gives it no bytes"
    SECTION_SYMBOL = "an STT_SECTION symbol stands for its section, which has the attributes"
    LABEL = "a local label of the assembler: only its place counts, which is in the references to it"
    LOCAL_CONSTANT = "a local absolute symbol to which nothing refers: a constant of the assembler, in what it computed"
    UNDEFINED = "an undefined symbol has no type, size or place; they are zero"
    DISCARDED = "an undefined symbol to which only sections refer that are derived (.discard.addressable)"
    PLACE = "where in its section a symbol lies: neighbours move it; the bytes there and their order are compared"
    NUMBER = "the name of data that is known by its content (CSWTCH.5, __func__.2): the compiler numbers it"
    PADDING = "the name of padding (__pfx_foo): objtool makes it of that of the function, which is there"
    NO_BYTES = "a static variable without bytes (lock_class_key without lockdep): its place is in the references to it"
    EMPTY = "a section without content: nothing of it is loaded"
    NOT_LOADED = "a section or symbol outside of memory (debug information, .comment, relocations, which are compared)"
    DERIVED = "special.toml says that the section is derived"
    FIRST_FUNCTION = "the sh_link of SHF_LINK_ORDER is the section of a function that the table points to"
    TABLE_LABEL = "a local symbol in a table of special entries to which nothing refers"
    EQUAL_TABLE = "one of several numbered names of one place: the compiler put equal tables together (-fipa-icf)"


_NOT_LOADED = (
    ".comment",
    ".debug",
    ".rela",
    ".symtab",
    ".strtab",
    ".shstrtab",
    ".note.GNU-stack",
    ".discard.",
    ".llvm_addrsig",
)


class Attribute(NamedTuple):
    """One attribute, how to make another of it, and the names one of which must be reported (none: any).

    ``row`` excuses it where nobody is.
    """

    what: str
    kind: str
    at: int
    new: bytes
    owners: frozenset[str]
    touches: frozenset[str]
    alone: bool = False
    is_anonymous: bool = False
    row: Row | None = None


@dataclass
class Count:
    """How many attributes there are of each kind, by who answers for them; ``missed`` says the rest one by one."""

    covered: Counter[str] = field(default_factory=Counter)
    excused: Counter[tuple[str, Row]] = field(default_factory=Counter)
    missed: list[str] = field(default_factory=list)
    runs: int = 0

    @property
    def total(self) -> int:
        """All attributes."""
        return self.covered.total() + self.excused.total() + len(self.missed)

    def add(self, other: Count) -> None:
        """Add what was counted of another object."""
        self.covered.update(other.covered)
        self.excused.update(other.excused)
        self.missed += other.missed
        self.runs += other.runs

    def report(self) -> Iterator[str]:
        """Yield the lines of a table."""
        for kind in sorted({*self.covered, *(kind for kind, _ in self.excused)}):
            rows = [(row, n) for (of, row), n in self.excused.items() if of == kind]
            yield f"{kind:<20}{self.covered[kind]:>8} in an entry, {sum(n for _, n in rows):>7} in a row"
            yield from (f"{'':<20}{n:>8}   {row.value}" for row, n in sorted(rows, key=lambda found: -found[1]))
        share = 100 * (1 - len(self.missed) / max(1, self.total))
        yield f"{self.total} attributes, {len(self.missed)} missed: {share:.4f} % ({self.runs} comparisons)"
        yield from (f"  missed: {line}" for line in self.missed)


class Attributes:
    """All attributes of one object: ``wanted`` those that an entry must answer for, ``count`` has the rest."""

    def __init__(self, data: bytes, named: set[str]) -> None:
        self.reading = Reading(data)
        self.named = named
        self.count = Count()
        self.wanted = [*self._of_symbols(), *self._of_sections()]

    def _excuse(self, row: Row, *kinds: str) -> None:
        self.count.excused.update((kind, row) for kind in kinds)

    # -- symbols --------------------------------------------------------------------------------------------------

    def _of_symbols(self) -> Iterator[Attribute]:
        everything = tuple(f"symbol {kind}" for kind in ("binding", "type", "visibility", "size", "name", "value"))
        for index, symbol in enumerate(self.reading.symbols[1:], 1):
            section, users = symbol.section, self.reading.users.get(index)
            if symbol.type == FILE:
                self._excuse(Row.SOURCE_FILE, *everything, "symbol section")
            elif symbol.type == SECTION:
                self._excuse(Row.SECTION_SYMBOL, *everything, "symbol section")
            elif section == UNDEF:
                yield from self._of_undefined(index, symbol)
            elif section == ABS and symbol.binding == LOCAL and users is None:
                self._excuse(Row.LOCAL_CONSTANT, *everything, "symbol section")
            elif section in (ABS, COMMON):
                yield from self._of_defined(symbol, frozenset({symbol.name}))
            elif not self.reading.headers[section][2] & ALLOC:
                self._excuse(Row.NOT_LOADED, *everything, "symbol section")
            elif self.reading.derived[section]:
                self._excuse(Row.DERIVED, *everything, "symbol section")
            elif symbol.name.startswith(".L") or not symbol.name:
                self._excuse(Row.LABEL, *everything[:-1])
                if users is None:
                    self._excuse(Row.LABEL, "symbol value", "symbol section")
                else:
                    yield self._attribute(symbol, "value", 8, struct.pack("<Q", symbol.value + 1), frozenset())
                    yield self._attribute(symbol, "section", 6, struct.pack("<H", ABS), frozenset())
            elif self.reading.has_no_bytes(symbol):
                self._excuse(Row.NO_BYTES, *everything, "symbol section")
            elif self.reading.owned[section] and symbol.binding == LOCAL and users is None:
                self._excuse(Row.TABLE_LABEL, *everything, "symbol section")
            else:
                around = self.reading.around(section, symbol.value)
                owners = around if around & self.named else {parent(symbol.name)}
                yield from self._of_defined(symbol, frozenset(owners))

    def _attribute(self, symbol: Symbol, kind: str, at: int, new: bytes, owners: frozenset[str]) -> Attribute:
        known = owners & self.named
        what = f"{symbol.name}: {kind}"
        row = Row.EQUAL_TABLE if self.reading.is_equal_table(symbol) else None
        return Attribute(what, f"symbol {kind}", symbol.at + at, new, known, known, not known, row=row)

    def _of_undefined(self, index: int, symbol: Symbol) -> Iterator[Attribute]:
        if index in self.reading.discarded - self.reading.users.keys():
            self._excuse(Row.DISCARDED, *(f"symbol {kind}" for kind in ("binding", "visibility", "name")))
            self._excuse(Row.UNDEFINED, *(f"symbol {kind}" for kind in ("type", "size", "value", "section")))
            return
        users = frozenset(self.reading.users.get(index, ()))
        if symbol.type or symbol.size or symbol.value:
            self.count.missed.append(f"{symbol.name}: undefined, and has a type, size or value")
        self._excuse(Row.UNDEFINED, "symbol type", "symbol size", "symbol value", "symbol section")
        other = GLOBAL if symbol.binding == WEAK else WEAK
        yield self._attribute(symbol, "binding", 4, bytes([other << 4 | symbol.type]), users)
        yield self._attribute(symbol, "visibility", 5, bytes([symbol.visibility ^ 2]), users)
        yield self._attribute(symbol, "name", 0, struct.pack("<I", symbol.string + 1), users)

    def _of_defined(self, symbol: Symbol, owners: frozenset[str]) -> Iterator[Attribute]:
        other = LOCAL if symbol.binding == GLOBAL else GLOBAL
        yield self._attribute(symbol, "binding", 4, bytes([other << 4 | symbol.type]), owners)
        other = OBJECT if symbol.type == FUNC else FUNC
        yield self._attribute(symbol, "type", 4, bytes([symbol.binding << 4 | other]), owners)
        yield self._attribute(symbol, "visibility", 5, bytes([symbol.visibility ^ 2]), owners)
        size = symbol.size - 1 if symbol.size else 1
        yield self._attribute(symbol, "size", 16, struct.pack("<Q", size), owners)
        yield self._attribute(symbol, "section", 6, struct.pack("<H", UNDEF), owners)
        if symbol.binding == LOCAL and canonical_name(symbol.name).numbered and not owners & self.named:
            self._excuse(Row.NUMBER, "symbol name")
        elif symbol.name.startswith("__pfx_") and any(s.name == symbol.name[6:] for s in self.reading.symbols):
            self._excuse(Row.PADDING, "symbol name")
        else:
            yield self._attribute(symbol, "name", 0, struct.pack("<I", symbol.string + 1), owners)
        if symbol.section in (ABS, COMMON) or not self.reading.is_head(symbol):
            yield self._attribute(symbol, "value", 8, struct.pack("<Q", symbol.value + 1), owners)
        else:
            self._excuse(Row.PLACE, "symbol value")

    # -- sections -------------------------------------------------------------------------------------------------

    def _of_sections(self) -> Iterator[Attribute]:
        kinds = ("type", "flags", "alignment", "entry size", "name")
        for index, header in enumerate(self.reading.headers[1:], 1):
            name = self.reading.sections[index].name
            string, kind, flags, _, _, size, link, info, align, entry_size = header
            if self.reading.derived[index]:
                self._excuse(Row.DERIVED, *(f"section {kind}" for kind in kinds))
                continue
            if not flags & ALLOC:
                self._excuse(Row.NOT_LOADED, *(f"section {kind}" for kind in kinds))
                if not name.startswith(_NOT_LOADED):
                    self.count.missed.append(f"section {name}: unknown, and not loaded")
                continue
            if link or info:
                if flags & LINK_ORDER and link in self.reading.targets[index] and not info:
                    self._excuse(Row.FIRST_FUNCTION, "section link")
                else:
                    self.count.missed.append(f"section {name}: sh_link {link}, sh_info {info}")
            others = [(4, "type", "<I", NOTE if kind != NOTE else 1), (48, "alignment", "<Q", 2 * max(1, align))]
            others += [(56, "entry size", "<Q", entry_size + 1), (0, "name", "<I", string + 1)]
            others += [(8, f"flag {flag:#x}", "<Q", flags ^ flag) for flag in (1, 2, 4, 0x10, 0x20)]
            for at, field_name, form, new in others:
                label = "flags" if at == 8 else field_name
                if not size and (field_name == "name" or field_name == f"flag {ALLOC:#x}"):
                    self._excuse(Row.EMPTY, f"section {label}")
                    continue
                place, owners = (
                    self.reading.header_at(index) + at,
                    frozenset({name, *self.reading.section_users[index]}),
                )
                what = f"section {name}: {field_name}"
                # Known by its content: whoever is reported, it is because of this.
                is_anonymous = not any(symbol.name in self.named for symbol in self.reading.inside[index])
                yield Attribute(
                    what, f"section {label}", place, struct.pack(form, new), owners, owners, True, is_anonymous
                )


def rounds(attributes: Iterable[Attribute]) -> Iterator[list[Attribute]]:
    """Put attributes together that are of one kind and belong to nobody in common."""
    waiting: dict[str, list[tuple[set[str], list[Attribute]]]] = defaultdict(list)
    for attribute in attributes:
        if attribute.alone:
            yield [attribute]
            continue
        for taken, together in waiting[attribute.kind]:
            if taken.isdisjoint(attribute.touches):
                taken |= attribute.touches
                together.append(attribute)
                break
        else:
            waiting[attribute.kind].append((set(attribute.touches), [attribute]))
    for found in waiting.values():
        yield from (together for _, together in found)


def reported(old: list[Entry], data: bytes) -> set[str] | None:
    """Return under which names the changes of an object are reported, None when it is refused."""
    answer = changes(old, data)
    if isinstance(answer, str):
        return None
    sides = [entry for change in answer for entry in (change.old, change.new) if entry is not None]
    # A change of a section may be told by what lies in it.
    return {s.name.partition("@")[0] for s in sides} | {s.section for s in sides if s.kind != KIND_SECTION}


def cover(data: bytes, label: str) -> Count:
    """Count the attributes of one object."""
    old = entries(data)
    named = {entry.name.partition("@")[0] for entry in old if entry.kind != KIND_SECTION}
    attributes = Attributes(data, named)
    count = attributes.count
    count.missed = [f"{label}: {line}" for line in count.missed]
    waiting = list(rounds(attributes.wanted))
    while waiting:
        together = waiting.pop()
        changed = bytearray(data)
        for one in together:
            changed[one.at : one.at + len(one.new)] = one.new
        count.runs += 1
        names = reported(old, bytes(changed))
        if names is None and len(together) > 1:
            waiting += [[one] for one in together]
            continue
        for one in together:
            if names is None or (one.owners & names if one.owners and not one.is_anonymous else names):
                count.covered[one.kind] += 1
            elif len(together) > 1:
                waiting.append([one])  # it may be that another one changed who it belongs to
            elif one.row:
                count.excused[one.kind, one.row] += 1
            else:
                count.missed.append(f"{label}: {one.what}")
    return count


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("tree", type=Path, help="a built kernel tree; it is only read")
    parser.add_argument("--objects", type=int, help="so many of them, by chance")
    parser.add_argument("--largest", type=int, help="none of more bytes: the time grows with the square of the size")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=processors())
    arguments = parser.parse_args()
    names = sorted({name for unit in BuildTree.open(arguments.tree).units() for name in unit.objects})
    if arguments.largest:
        names = [name for name in names if (arguments.tree / name).stat().st_size <= arguments.largest]
    if arguments.objects:
        names = random.Random(arguments.seed).sample(names, min(arguments.objects, len(names)))
    total = Count()

    def cover_one(name: str) -> Count:
        return cover((arguments.tree / name).read_bytes(), name)

    # The largest first, so that no process waits for another at the end.
    names.sort(key=lambda name: -(arguments.tree / name).stat().st_size)
    for done, (_, count) in enumerate(in_processes(cover_one, names, arguments.jobs), 1):
        total.add(count)
        if sys.stderr.isatty():
            print(f"\r{done}/{len(names)} objects, {len(total.missed)} missed", end="", file=sys.stderr, flush=True)
    total.missed.sort()
    print(f"{len(names)} objects")
    print(*total.report(), sep="\n")
    return int(bool(total.missed))


if __name__ == "__main__":
    sys.exit(main())
