# SPDX-License-Identifier: GPL-2.0-only
"""Which entry of the old object is which entry of the new one.

A name decides where one entry of each side has it. Where several do, because compilers add numbers to it or because
several sources of the object use it, these decide, in turn:

- *the sources*: those of one name are told apart by what unchanged users refer to, by what else they contain, and last
  by their order;
- *the users*: two functions that did not change refer to the same variables and clones, in the same order;
- *the checksums*, and for what is left then, the order in the object.

An entry with several names may be paired by another of them, and a function by the name that it is a clone of.

The answer does not depend on any of this being right: it only decides which version is shown beside which. At the end
it is checked that every unchanged entry still refers to what its counterpart refers to. One that does not is reported:
with equal checksums it may call the other one of two functions of one name. So pairs and checksums together say that
two objects are the same up to names, whatever the names are.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from operator import attrgetter
from typing import NamedTuple

from kbuild_klp.changes.contested import Contested
from kbuild_klp.checksum.entry import KIND_FUNCTION, KIND_SECTION, Entry
from kbuild_klp.elf.symbol_names import CanonicalName, canonical_name, source_name
from kbuild_klp.object.symbol_id import SymbolId


class Pair(NamedTuple):
    """An entry on both sides; None where there is no counterpart."""

    old: Entry | None
    new: Entry | None


@dataclass
class Correlation:
    """All pairs of two objects, and the unchanged entries that share something in another way than before.

    ``regrouped`` maps such a new entry to the name, without number, of what it shares with others in only one build.
    """

    pairs: list[Pair]
    regrouped: dict[Entry, str] = field(default_factory=dict)


class _Source(NamedTuple):
    """One of the sources of an object: its file, and its number among those of that name."""

    file: str
    number: int

    @classmethod
    def of(cls, symbol: SymbolId) -> _Source:
        return cls(symbol.file, symbol.source)


_Name = tuple[str, str, str | None]
"""Kind and name of an entry without numbers, and the file of a local one if both objects have it.

A file that only one object has may have been renamed, or not be recorded (there is one source only).
"""


class _Side:
    """The symbols of one object that are to be paired, by number in the object's order.

    ``left`` are the numbers of those that are not paired yet. ``settled`` are the sources of the others.
    """

    def __init__(self, entries: Iterable[Entry], settled: Iterable[_Source]) -> None:
        # Two sorts cost less than one by both: hardly any two names are equal, and nearly all homes are.
        self.entries = sorted(sorted(entries, key=_name), key=_kind_and_home)
        self.left = dict.fromkeys(range(len(self.entries)))
        sources = {entry.symbol[1:3] for entry in self.entries}
        self.sources = sorted({*map(_Source._make, sources), *settled})
        self.files = {source.file for source in self.sources}
        self.names: list[int] = []

    def number_names(self, files: set[str], numbers: dict[_Name, int]) -> None:
        """Find the name of each entry, as a number that is equal for equal names; ``files`` are those of both sides."""
        for entry in self.entries:
            symbol = entry.symbol
            name = entry.kind, canonical_name(symbol.name).text, symbol.file if symbol.file in files else None
            self.names.append(numbers.setdefault(name, len(numbers)))

    @cached_property
    def numbers(self) -> dict[SymbolId, int]:
        """The number of each symbol, by its other names, too."""
        numbers = {alias: at for at, entry in enumerate(self.entries) for alias in entry.aliases}
        numbers.update((entry.symbol, at) for at, entry in enumerate(self.entries))
        return numbers

    @cached_property
    def _alike(self) -> dict[CanonicalName, list[SymbolId]]:
        alike: dict[CanonicalName, list[SymbolId]] = defaultdict(list)
        for entry in self.entries:
            alike[canonical_name(entry.symbol.name)].append(entry.symbol)
        return alike

    def unpaired(self) -> list[Entry]:
        """Return the entries that are not paired yet."""
        return [self.entries[at] for at in self.left]

    def find(self, symbol: SymbolId) -> int | None:
        """Return the number of the entry of a symbol if it is not paired yet, None if there is none."""
        at = self.numbers.get(symbol)
        return at if at is not None and at in self.left and self.entries[at].symbol == symbol else None

    def grouped(self, key: _KeyOf) -> dict[Hashable, list[int]]:
        """Return the entries that are not paired yet by their keys, leaving out those whose key is None."""
        groups: dict[Hashable, list[int]] = defaultdict(list)
        entries, names = self.entries, self.names
        for at in self.left:
            if (found := key(entries[at], names[at])) is not None:
                groups[found].append(at)
        return groups

    def used_by(self, entry: Entry) -> dict[CanonicalName, list[SymbolId]]:
        """Return the symbols with ambiguous names that an entry refers to, in the order of first use."""
        used: dict[CanonicalName, list[SymbolId]] = defaultdict(list)
        for symbol in entry.uses:
            at = self.numbers.get(symbol)
            used[canonical_name(symbol.name)].append(symbol if at is None else self.entries[at].symbol)
        return used

    def all_alike(self, name: CanonicalName) -> list[SymbolId]:
        """Return all symbols of a name; one that is not defined here if there is none."""
        return self._alike.get(name) or [SymbolId(name.text)]

    def has(self, symbol: SymbolId) -> bool:
        """Say whether a symbol has an entry: it is defined here, and is no label inside something else."""
        return symbol in self.numbers


_KeyOf = Callable[[Entry, int], Hashable]
"""Returns the key by which an entry is paired; called with the entry and the number of its name."""


def _name(entry: Entry) -> str:
    return entry.symbol.name


def _kind_and_home(entry: Entry) -> tuple[str, tuple[str | int, ...]]:
    return entry.kind, entry.symbol[1:]


def _text(entry: Entry) -> str:
    """Return the name of an entry without numbers."""
    return canonical_name(entry.name).text


def _by_name(_: Entry, name: int) -> Hashable:
    return name


def _by_content(entry: Entry, name: int) -> Hashable:
    return name, entry.checksum


class _Use(NamedTuple):
    """What an unchanged entry refers to in both builds; None where that is not certain."""

    user: Entry
    old: SymbolId | None
    new: SymbolId


def _is_own(name: CanonicalName, entry: Entry) -> bool:
    """Say whether a name is that of an entry itself, or of the padding before it.

    The special entries of a function refer to it, so it is listed if its name has a number. Its checksum does not
    contain that name, and changes if it calls another function instead of itself.
    """
    own = canonical_name(entry.name)
    return name.numbered and own.numbered and name.text.removeprefix("__pfx_").removeprefix("__cfi_") == own.text


class _Correlator:
    """Pairs the symbols of two objects, one question after the other."""

    def __init__(self, found: Contested) -> None:
        self._settled = Counter({_Source(*source): count for source, count in found.settled.items()})
        self.old, self.new = (
            _Side((entry for entry in side if entry.kind != KIND_SECTION), self._settled)
            for side in (found.old, found.new)
        )
        self._files = self.old.files & self.new.files
        numbers: dict[_Name, int] = {}
        for side in (self.old, self.new):
            side.number_names(self._files, numbers)
        self.pairs: list[tuple[Entry, Entry]] = []
        self._uses: dict[SymbolId, list[_Use]] = {}
        """What _unchanged_uses found so far, by new symbol."""

    def run(self) -> None:
        """Pair what can be paired."""
        self._pair_groups(_by_name, only_single=True)
        if sources := self._paired_sources():
            of_source: tuple[_KeyOf, _KeyOf] = (
                lambda entry, name: (name, sources.get(_Source.of(entry.symbol))),
                lambda entry, name: (name, _Source.of(entry.symbol)),
            )
            self._pair_groups(*of_source, only_single=True)
        self._pair_by_use()
        # Functions first: what they agree on says which of several equal variables is which.
        if any(entry.kind == KIND_FUNCTION for entry in self.new.unpaired()):
            self._pair_equal(lambda entry: entry.kind == KIND_FUNCTION)
            self._pair_groups(self._same_variant)
            self._pair_by_use()
        self._pair_equal(lambda entry: True)
        if sources:
            self._pair_groups(*of_source)
        self._pair_groups(_by_name)
        self._pair_by_alias()
        self._pair_groups(self._variant)
        self._pair_by_binding()

    # -- keys -----------------------------------------------------------------------------------------------------

    def _variant(self, entry: Entry, _: int) -> Hashable:
        """Return the name in the source of the function that an entry is a variant of, as foo.isra.0 is of foo."""
        kind, text, file = entry.kind, _text(entry), entry.symbol.file
        return (source_name(text), file if file in self._files else None) if kind == KIND_FUNCTION else None

    def _same_variant(self, entry: Entry, name: int) -> Hashable:
        variant = self._variant(entry, name)
        return variant and (variant, entry.checksum)

    def _pair(self, old: int, new: int) -> None:
        self.pairs.append((self.old.entries[old], self.new.entries[new]))
        del self.old.left[old], self.new.left[new]

    def _with_same_key(
        self, old_key: _KeyOf, new_key: _KeyOf | None = None, *, only_single: bool = False
    ) -> Iterator[tuple[int, int]]:
        """Yield entries with the same key, in their order; with ``only_single`` only if each side has one of them."""
        news = self.new.grouped(new_key or old_key)
        for key, olds in self.old.grouped(old_key).items():
            partners = news.get(key, [])
            if not only_single or len(olds) == len(partners) == 1:
                yield from zip(olds, partners, strict=False)

    def _pair_groups(self, old_key: _KeyOf, new_key: _KeyOf | None = None, *, only_single: bool = False) -> None:
        """Pair what _with_same_key yields."""
        for old, new in self._with_same_key(old_key, new_key, only_single=only_single):
            self._pair(old, new)

    # -- what unchanged users say ---------------------------------------------------------------------------------

    def _unchanged_uses(self) -> Iterator[_Use]:
        """Yield what unchanged entries refer to by ambiguous names, in the order of the entries' names.

        An object in which only one symbol has a name does not list it.
        """
        users = [(old, new) for old, new in self.pairs if old.checksum == new.checksum and (old.uses or new.uses)]
        for old, new in sorted(users, key=lambda pair: pair[1].symbol):
            if new.symbol not in self._uses:
                self._uses[new.symbol] = list(self._uses_of(old, new))
            yield from self._uses[new.symbol]

    def _uses_of(self, old: Entry, new: Entry) -> Iterator[_Use]:
        before, after = self.old.used_by(old), self.new.used_by(new)
        for name in dict.fromkeys((*before, *after)):
            if (name in before) != (name in after) and _is_own(name, old if name in before else new):
                continue
            was = before.get(name) or self.old.all_alike(name)
            is_ = after.get(name) or self.new.all_alike(name)
            is_clear = len(was) == len(is_) and [*map(self.old.has, was)] == [*map(self.new.has, is_)]
            yield from (_Use(new, x if is_clear else None, y) for x, y in zip(was, is_, strict=False))

    def _pair_by_use(self) -> None:
        """Pair entries that unchanged users use alike; the first user decides."""
        which: dict[SymbolId, SymbolId] = {}
        taken: set[SymbolId] = set()
        for _, before, after in self._unchanged_uses():
            if before and before not in which and after not in taken:
                which[before] = after
                taken.add(after)
        for before, after in which.items():
            old, new = self.old.find(before), self.new.find(after)
            if old is not None and new is not None and self.old.names[old] == self.new.names[new]:
                self._pair(old, new)

    def regrouped(self) -> dict[Entry, str]:
        """Return the unchanged users that refer to something else than their counterparts do.

        Equal checksums only say that what they refer to looks the same: it may be the other clone, or a variable of
        their own where they shared one.
        """
        if not any(old.uses or new.uses for old, new in self.pairs):
            return {}
        forward = {old.symbol: new.symbol for old, new in self.pairs}
        backward = {after: before for before, after in forward.items()}
        regrouped: dict[Entry, str] = {}
        for user, before, after in self._unchanged_uses():
            is_same = before is not None and forward.setdefault(before, after) == after
            if before is None or not is_same or backward.setdefault(after, before) != before:
                regrouped[user] = canonical_name(after.name).text
        return regrouped

    # -- sources of one name --------------------------------------------------------------------------------------

    def _paired_sources(self) -> dict[_Source, _Source]:
        """Say which source of the old object is which of the new one, where a name has several."""
        counts = [Counter(source.file for source in side.sources) for side in (self.old, self.new)]
        several = {file for side in counts for file, count in side.items() if file and count > 1}
        if not several:
            return {}
        users, others = Counter[tuple[_Source, _Source]](), Counter[tuple[_Source, _Source]]()
        users.update((_Source.of(old), _Source.of(new)) for _, old, new in self._unchanged_uses() if old)
        users.update((_Source.of(old.symbol), _Source.of(new.symbol)) for old, new in self.pairs)
        users.update({(source, source): count for source, count in self._settled.items()})
        others.update(
            (_Source.of(self.old.entries[old].symbol), _Source.of(self.new.entries[new].symbol))
            for old, new in self._with_same_key(_by_content, only_single=True)
        )
        # The last resort is their order.
        ranked = sorted({*users, *others}, key=lambda pair: (-users[pair], -others[pair], pair))
        for file in sorted(several):
            sides = ([source for source in side.sources if source.file == file] for side in (self.old, self.new))
            ranked += zip(*sides, strict=False)
        paired: dict[_Source, _Source] = {}
        taken: set[_Source] = set()
        for source, counterpart in ranked:
            if source.file in several and source not in paired and counterpart not in taken:
                paired[source] = counterpart
                taken.add(counterpart)
        return paired

    # -- the rest -------------------------------------------------------------------------------------------------

    def _pair_equal(self, wanted: Callable[[Entry], bool]) -> None:
        """Pair entries of one name with the same checksum, those of one symbol and section first."""
        is_same = attrgetter("checksum", "section")
        for at in list(self.old.left):
            old = self.old.entries[at]
            partner = self.new.find(old.symbol)
            if partner is None or self.old.names[at] != self.new.names[partner]:
                continue
            if is_same(old) == is_same(self.new.entries[partner]) and wanted(old):
                self._pair(at, partner)
        self._pair_groups(lambda entry, name: (name, entry.checksum) if wanted(entry) else None)

    def _pair_by_alias(self) -> None:
        """Pair entries that share names: which one comes first depends on the symbols' bindings."""
        entries = self.new.entries
        for at in list(self.old.left):
            old = self.old.entries[at]
            partners = [found for alias in old.aliases if (found := self.new.find(alias)) is not None]
            new = next(
                (it for it in partners if entries[it].kind == old.kind and old.symbol in entries[it].aliases), None
            )
            if new is not None:
                self._pair(at, new)
        # Or entries that share one in one build only: a static function in a stripped module is known by its alias.
        with_alias = {alias: new for new in self.new.left for alias in entries[new].aliases}
        for at in list(self.old.left):
            old = self.old.entries[at]
            known = [found for alias in old.aliases if (found := self.new.find(alias)) is not None]
            new = known[0] if known else with_alias.get(old.symbol)
            if new is not None and entries[new].kind == old.kind and new in self.new.left:
                self._pair(at, new)

    def _pair_by_binding(self) -> None:
        """Pair what was static and is global now, or the other way round: only one of the two has a file."""
        for old, new in self._with_same_key(lambda entry, _: (entry.kind, _text(entry)), only_single=True):
            if not (self.old.entries[old].symbol.file and self.new.entries[new].symbol.file):
                self._pair(old, new)


def correlate(found: Contested) -> Correlation:
    """Pair the entries of two objects."""
    sides = [{entry.name: entry for entry in side if entry.kind == KIND_SECTION} for side in (found.old, found.new)]
    sections = [Pair(sides[0].get(name), sides[1].get(name)) for name in sides[0] | sides[1]]
    both = _Correlator(found)
    both.run()
    pairs = [*sections, *map(Pair._make, both.pairs)]
    pairs += [Pair(entry, None) for entry in both.old.unpaired()]
    pairs += [Pair(None, entry) for entry in both.new.unpaired()]
    # Sections refer to symbols, too.
    both.pairs += [(pair.old, pair.new) for pair in sections if pair.old and pair.new]
    return Correlation(pairs, both.regrouped())
