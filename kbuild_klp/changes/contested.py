# SPDX-License-Identifier: GPL-2.0-only
"""Which entries of two checksum files have to be paired: most lines are in both files, and are paired already.

vmlinux.o has 80,000 entries, of which a few hundred differ. A line that is in both files is a pair without a
difference, unless its name is ambiguous and it is linked to a line that differs: by an equal name, or because it refers
to something of that name, in any number of steps. If several sources have one name, all of their entries are linked.
So nearly all lines are never parsed. What is left out is counted, for it tells which source of the old object is which
one of the new.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from itertools import chain
from typing import NamedTuple

from kbuild_klp.checksum.entry import KIND_SECTION, Entry
from kbuild_klp.checksum.sum_file import SumFile
from kbuild_klp.elf.symbol_names import canonical_name, maybe_numbered
from kbuild_klp.object.symbol_id import SymbolId

_SECTION = f"{KIND_SECTION}\t"
_FILE, _SOURCE = "\tfile=", "\tsource="


class Contested(NamedTuple):
    """The entries of both objects that have to be paired.

    ``settled`` counts those that are left out, by their source (its file, and its number among those of that name).
    """

    old: list[Entry]
    new: list[Entry]
    settled: Mapping[tuple[str, int], int] = {}


def contested(old: SumFile, new: SumFile) -> Contested:
    """Leave out the entries of two files that are pairs however the others are paired."""
    after = {*new.lines}
    before, speaking, silent = _sorted_out(old.lines, after)
    sides = old.parse(before), new.parse(sorted(after.difference(old.lines)))
    differing = [*sides[0], *sides[1]]
    spoken, sources = old.parse(speaking), _sources(silent)
    sources.update(entry.symbol[1:3] for entry in spoken if entry.symbol.file)
    homes = {*sources, *(symbol[1:3] for entry in differing for symbol in _symbols(entry))}
    links = _Links({file for file, source in homes if source > 1})
    links.add_entries(speaking, spoken)
    links.add_silent(silent)
    found = links.reached(differing, old.parse)
    sources.subtract(entry.symbol[1:3] for entry in found if entry.symbol.file)
    return Contested(sides[0] + found, sides[1] + found, +sources)


def _sorted_out(lines: Iterable[str], others: Set[str]) -> tuple[list[str], list[str], list[str]]:
    """Return the lines that are not among ``others``, and of the rest the speaking and the silent ones.

    A speaking line names other symbols that may be ambiguous, or has an escaped name. A silent one is known by its
    name alone. Silent sections are left out: they are the same if they refer to nothing by an ambiguous name.
    """
    missing, speaking, silent = [], [], []
    for line in lines:
        if line not in others:
            missing.append(line)
        elif "\\" in line or ("=" in line and ("\tuses=" in line or "\taliases=" in line or "\tcopy=" in line)):
            speaking.append(line)
        elif not line.startswith(_SECTION):
            silent.append(line)
    return missing, speaking, silent


def _sources(lines: Iterable[str]) -> Counter[tuple[str, int]]:
    """Count silent lines by their source."""
    homes = Counter(line.partition(_FILE)[2] for line in lines)
    del homes[""]
    split = ((*home.partition(_SOURCE), count) for home, count in homes.items())
    return Counter({(file, int(source or 1)): count for file, _, source, count in split})


def _symbols(entry: Entry) -> Iterator[SymbolId]:
    return chain((entry.symbol,), entry.uses, entry.aliases)


class _Links:
    """What links lines to each other: names without numbers, and the names of sources that several share.

    ``several`` are the latter. A silent line with a unique name is found by that name. No line is parsed to be found.
    """

    def __init__(self, several: Set[str]) -> None:
        self._several = several
        self._lines: dict[tuple[str, bool], list[str]] = defaultdict(list)
        self._called: dict[str, str] = {}

    def add_entries(self, lines: Iterable[str], entries: Iterable[Entry]) -> None:
        """Take in lines, with what they say."""
        for line, entry in zip(lines, entries, strict=True):
            for link in self._of(entry):
                self._lines[link].append(line)

    def add_silent(self, lines: list[str]) -> None:
        """Take in silent lines."""
        names = [line.split("\t", 2)[1] for line in lines]
        self._called = dict(zip(names, lines, strict=True))
        unclear = {names[at] for at in maybe_numbered(names)}
        if len(self._called) < len(names):
            unclear.update(name for name, count in Counter(names).items() if count > 1)
        for at in [at for at, name in enumerate(names) if name in unclear]:
            self._lines[canonical_name(names[at]).text, False].append(lines[at])
            file = lines[at].partition(_FILE)[2].partition(_SOURCE)[0]
            if file in self._several:
                self._lines[file, True].append(lines[at])

    def _of(self, entry: Entry) -> Iterator[tuple[str, bool]]:
        """Yield the links of an entry: a name, and whether it is that of a source."""
        for symbol in _symbols(entry):
            yield canonical_name(symbol.name).text, False
            if symbol.file in self._several:
                yield symbol.file, True

    def reached(self, start: list[Entry], parse: Callable[[list[str]], list[Entry]]) -> list[Entry]:
        """Return the entries that are linked to those of ``start``, in any number of steps."""
        found: dict[str, Entry] = {}
        seen: set[tuple[str, bool]] = set()
        waiting = [*start]
        while waiting:
            for link in {*self._of(waiting.pop())} - seen:
                seen.add(link)
                called = self._called.get(link[0]) if not link[1] else None
                reached = {*self._lines.get(link, ()), *([called] if called else [])}
                fresh = [line for line in sorted(reached) if line not in found]
                entries = parse(fresh)
                found.update(zip(fresh, entries, strict=True))
                waiting += entries
        return [*found.values()]
