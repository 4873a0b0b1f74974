# SPDX-License-Identifier: GPL-2.0-only
"""Which entry of the old object is which entry of the new one.

Names tell, where they are names. Where a compiler's number was in them, several symbols of one object can look
alike; then equal checksums tell, then who uses them: two functions that did not change refer to the same variables,
in the same order. What is left over is paired in the order of the object.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
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


def _usage(pairs: Iterable[Pair]) -> tuple[dict[str, str], dict[str, str]]:
    """Return which numbered symbol is which, told by unchanged functions, and the functions that disagree.

    The first function to use a symbol decides.
    """
    forward: dict[str, str] = {}
    backward: dict[str, str] = {}
    regrouped: dict[str, str] = {}
    for old, new in pairs:
        if old is None or new is None or old.checksum != new.checksum or not old.numbered:
            continue
        for before, after in zip(old.numbered.split(" "), new.numbered.split(" "), strict=False):
            if forward.setdefault(before, after) != after or backward.setdefault(after, before) != before:
                regrouped[new.name] = canonical_name(after).text
    return forward, regrouped


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
    # Functions first: what they agree on tells which of several equal variables is which.
    ambiguous.sort(key=lambda group: (group[0][0].kind != KIND_FUNCTION, group[0][0].name))
    for before, after in ambiguous:
        if before[0].kind == KIND_FUNCTION:
            _take_equal(before, after, pairs)
    pairs.sort(key=lambda pair: pair.new.name if pair.new else "")
    which, regrouped = _usage(pairs)
    for before, after in ambiguous:
        for entry in list(before):
            partner = next((other for other in after if which.get(entry.name) == other.name), None)
            if partner is not None:
                pairs.append(Pair(entry, partner))
                before.remove(entry)
                after.remove(partner)
        _take_equal(before, after, pairs)
        both = min(len(before), len(after))
        pairs += map(Pair, before[:both], after[:both])
        rest_old += before[both:]
        rest_new += after[both:]
    rest_old.sort()
    rest_new.sort()
    _pair_by_source(rest_old, rest_new, pairs)
    pairs += [Pair(entry, None) for entry in rest_old]
    pairs += [Pair(None, entry) for entry in rest_new]
    return Correlation(pairs, regrouped)
