# SPDX-License-Identifier: GPL-2.0-only
"""What of two checksum files is to be paired at all: lines that both have are, for the most part, paired already.

vmlinux.o has 80,000 entries of which a few hundred differ. A line that stands in both files is that of a pair without
a difference, unless its name may mean something else as well, and that has to do with a line that differs: it is
called alike, or refers to what is, in any number of steps. Where several sources have one name, all that is of them
has to do with each other. So nearly all lines are never taken apart. What is left out is counted, for it tells which
source of the old object is which of the new one.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from typing import NamedTuple

from kbuild_klp.checksum.entry import KIND_SECTION, Entry
from kbuild_klp.checksum.sum_file import SumFile
from kbuild_klp.elf.symbol_names import canonical_name, maybe_numbered
from kbuild_klp.object.symbol_id import SymbolId

_SECTION = f"{KIND_SECTION}\t"
_FILE, _SOURCE = "\tfile=", "\tsource="


class Contested(NamedTuple):
    """The entries of both objects that are to be paired.

    ``settled`` counts those that are left out, by their source (its file, and the how manieth of that name).
    """

    old: list[Entry]
    new: list[Entry]
    settled: Mapping[tuple[str, int], int] = {}


def contested(old: SumFile, new: SumFile) -> Contested:
    """Leave out the entries of two files that are a pair whatever becomes of the others."""
    both = {*old.lines} & {*new.lines}
    sides = [side.parse(line for line in side.lines if line not in both) for side in (old, new)]
    speaking = {line for line in both if _speaks(line)}
    # A section is known by its name alone, and is the same if nothing is that it refers to by a name of several.
    shared = [line for line in both if not line.startswith(_SECTION) or line in speaking]
    names = [line.split("\t", 2)[1] for line in shared]
    unclear = {name for name, count in Counter(names).items() if count > 1}
    unclear.update(names[at] for at in maybe_numbered(names))
    plain, asked = {}, []
    for name, line in zip(names, shared, strict=True):
        if name in unclear or line in speaking:
            asked.append(line)
        else:
            plain[name] = line
    spoken, differing = old.parse(asked), [*sides[0], *sides[1]]
    sources = _sources(plain.values())
    sources.update(entry.symbol[1:3] for entry in spoken if entry.symbol.file)
    links = _Links(spoken, {*sources, *(symbol[1:3] for entry in differing for symbol in _symbols(entry))})
    found = links.reached(differing, lambda name: old.parse([plain[name]] if name in plain else []))
    sources.subtract(entry.symbol[1:3] for entry in found if entry.symbol.file)
    return Contested(sides[0] + found, sides[1] + found, +sources)


def _speaks(line: str) -> bool:
    """Say whether a line tells of symbols that may be others, or is not written as it is called."""
    return "\tuses=" in line or "\taliases=" in line or "\tcopy=" in line or "\\" in line


def _sources(lines: Iterable[str]) -> Counter[tuple[str, int]]:
    """Count lines that say nothing else of symbols by the source that they are of."""
    homes = Counter(line.partition(_FILE)[2] for line in lines)
    del homes[""]
    split = ((*home.partition(_SOURCE), count) for home, count in homes.items())
    return Counter({(file, int(source or 1)): count for file, _, source, count in split})


def _symbols(entry: Entry) -> Iterator[SymbolId]:
    return chain((entry.symbol,), entry.uses, entry.aliases)


class _Links:
    """What some entries have to do with each other: names without numbers, and names of which several sources are."""

    def __init__(self, entries: Iterable[Entry], sources: Iterable[tuple[str, int]]) -> None:
        self._several = {file for file, source in sources if source > 1}
        self._entries: dict[tuple[str, bool], list[Entry]] = defaultdict(list)
        for entry in entries:
            for link in self._of(entry):
                self._entries[link].append(entry)

    def _of(self, entry: Entry) -> Iterator[tuple[str, bool]]:
        """Yield the links of an entry: what it is, and whether that is the name of a source."""
        for symbol in _symbols(entry):
            yield canonical_name(symbol.name).text, False
            if symbol.file in self._several:
                yield symbol.file, True

    def reached(self, start: list[Entry], called: Callable[[str], list[Entry]]) -> list[Entry]:
        """Return the entries that have to do with those of ``start``, and what else is ``called`` by their names."""
        found: dict[int, Entry] = {}
        seen: set[tuple[str, bool]] = set()
        waiting = [*start]
        while waiting:
            for link in {*self._of(waiting.pop())} - seen:
                seen.add(link)
                reached = self._entries.get(link, []) + ([] if link[1] else called(link[0]))
                fresh = {id(entry): entry for entry in reached if id(entry) not in found}
                found |= fresh
                waiting += fresh.values()
        return [*found.values()]
