# SPDX-License-Identifier: GPL-2.0-only
"""Which entry of the old object is which entry of the new one.

Names tell, where they are names. Where a compiler's number was in them, several symbols of one object can look alike;
then who uses them tells: two functions that did not change refer to the same variables and clones, in the same order.
Then equal checksums tell, and what is left over is paired in the order of the object. What has several names may go
by another one of them, and a function by that of a clone. Last it is checked that who did not change still refers to
the same things as others do.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from kbuild_klp.entry import KIND_FUNCTION, KIND_SECTION, Entry
from kbuild_klp.names import canonical_name, source_name


class Pair(NamedTuple):
    """An entry on both sides; None where there is no counterpart."""

    old: Entry | None
    new: Entry | None


@dataclass
class Correlation:
    """All pairs of two objects, and the new entries whose variables are shared in another way than before.

    ``regrouped`` maps the name of an unchanged new function to the canonical name of the numbered symbol that it
    shared with another function in one build and does not in the other.
    """

    pairs: list[Pair]
    regrouped: dict[str, str] = field(default_factory=dict)


def _key(entry: Entry) -> tuple[str, str]:
    if entry.kind == KIND_SECTION:
        return entry.kind, entry.name
    name, at, file = entry.name.partition("@")
    return entry.kind, canonical_name(name).text + at + file


def _group(entries: Iterable[Entry]) -> dict[tuple[str, str], list[Entry]]:
    groups: dict[tuple[str, str], list[Entry]] = defaultdict(list)
    for entry in entries:
        groups[_key(entry)].append(entry)
    return groups


def _take_equal(old: list[Entry], new: list[Entry], pairs: list[Pair]) -> None:
    """Pair entries with the same checksum, those of one name and section first; removes them from the lists."""
    for same_place in (True, False):
        waiting: dict[tuple[str, ...], list[Entry]] = defaultdict(list)
        for entry in old:
            waiting[(entry.checksum, *((entry.name, entry.section) if same_place else ()))].append(entry)
        for entry in list(new):
            candidates = waiting.get((entry.checksum, *((entry.name, entry.section) if same_place else ())))
            if candidates:
                partner = candidates.pop(0)
                pairs.append(Pair(partner, entry))
                old.remove(partner)
                new.remove(entry)


def _unchanged_users(pairs: Iterable[Pair]) -> Iterator[tuple[Pair, str, str]]:
    """Yield the numbered symbols to which unchanged entries refer, in both builds; the first by name comes first."""
    users = [pair for pair in pairs if pair.old and pair.new and pair.old.numbered]
    for pair in sorted(users, key=lambda pair: pair.new.name if pair.new else ""):
        old, new = pair
        assert old is not None and new is not None
        if old.checksum == new.checksum:
            for before, after in zip(old.numbered.split(" "), new.numbered.split(" "), strict=False):
                yield pair, before, after


def _pair_by_use(ambiguous: list[tuple[list[Entry], list[Entry]]], pairs: list[Pair]) -> None:
    """Pair entries that unchanged users take for the same; the first user decides."""
    which: dict[str, str] = {}
    taken: set[str] = set()
    for _, before, after in _unchanged_users(pairs):
        if before not in which and after not in taken:
            which[before] = after
            taken.add(after)
    for old, new in ambiguous:
        by_name = {entry.name: entry for entry in new}
        for entry in list(old):
            partner = by_name.get(which.get(entry.name, ""))
            if partner is not None:
                pairs.append(Pair(entry, partner))
                old.remove(entry)
                new.remove(partner)


def _regrouped(pairs: list[Pair]) -> dict[str, str]:
    """Return the unchanged users that refer to something else than it was paired with.

    Equal checksums say only that what they refer to looks the same: the other clone, or a variable of their own
    where they shared one.
    """
    forward = {pair.old.name: pair.new.name for pair in pairs if pair.old and pair.new}
    backward = {after: before for before, after in forward.items()}
    regrouped: dict[str, str] = {}
    for pair, before, after in _unchanged_users(pairs):
        if forward.setdefault(before, after) != after or backward.setdefault(after, before) != before:
            assert pair.new is not None
            regrouped[pair.new.name] = canonical_name(after.partition("@")[0]).text
    return regrouped


def _pair_by_alias(old: list[Entry], new: list[Entry], pairs: list[Pair]) -> None:
    """Pair entries that have both names in both builds: which one is the first hangs on the symbols' bindings."""
    by_name = {(entry.kind, entry.name): entry for entry in new}
    for entry in list(old):
        names = entry.aliases.split(" ") if entry.aliases else ()
        partners = (by_name.get((entry.kind, name)) for name in names)
        partner = next((found for found in partners if found and entry.name in found.aliases.split(" ")), None)
        if partner is not None:
            pairs.append(Pair(entry, partner))
            old.remove(entry)
            new.remove(partner)
            del by_name[partner.kind, partner.name]


def _pair_by_source(old: list[Entry], new: list[Entry], pairs: list[Pair]) -> None:
    """Pair functions of which the compiler made another variant: foo and foo.isra.0."""
    sources: dict[str, list[Entry]] = defaultdict(list)
    for entry in old:
        if entry.kind == KIND_FUNCTION:
            sources[source_name(_key(entry)[1])].append(entry)
    for entry in list(new):
        if entry.kind != KIND_FUNCTION:
            continue
        candidates = sources.get(source_name(_key(entry)[1]))
        if candidates:
            partner = candidates.pop(0)
            pairs.append(Pair(partner, entry))
            old.remove(partner)
            new.remove(entry)


def correlate(old: list[Entry], new: list[Entry]) -> Correlation:
    """Pair the entries of two objects."""
    pairs: list[Pair] = []
    ambiguous: list[tuple[list[Entry], list[Entry]]] = []
    old_groups, new_groups = _group(old), _group(new)
    rest_old: list[Entry] = []
    rest_new: list[Entry] = []
    for key in old_groups.keys() | new_groups.keys():
        before, after = old_groups.get(key, []), new_groups.get(key, [])
        if len(before) == 1 and len(after) == 1:
            pairs.append(Pair(before[0], after[0]))
        elif before and after:
            ambiguous.append((before, after))
        else:
            rest_old += before
            rest_new += after
    ambiguous.sort(key=lambda group: (group[0][0].kind != KIND_FUNCTION, group[0][0].name))
    _pair_by_use(ambiguous, pairs)
    # Functions first: what they agree on tells which of several equal variables is which.
    for before, after in ambiguous:
        if before and before[0].kind == KIND_FUNCTION:
            _take_equal(before, after, pairs)
    _pair_by_use(ambiguous, pairs)
    for before, after in ambiguous:
        _take_equal(before, after, pairs)
        both = min(len(before), len(after))
        pairs += map(Pair, before[:both], after[:both])
        rest_old += before[both:]
        rest_new += after[both:]
    rest_old.sort()
    rest_new.sort()
    _pair_by_alias(rest_old, rest_new, pairs)
    _pair_by_source(rest_old, rest_new, pairs)
    pairs += [Pair(entry, None) for entry in rest_old]
    pairs += [Pair(None, entry) for entry in rest_new]
    return Correlation(pairs, _regrouped(pairs))
