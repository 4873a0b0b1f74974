# SPDX-License-Identifier: GPL-2.0-only
"""What is reached through data without a name: whose checksum it is in, and which symbols it leads to that look alike.

Nearly always the answer is simple: each nameless table is referred to by a function. What is here is for tables
that refer to tables, and costs nothing where there are none.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

from kbuild_klp.object.meanings import Meanings
from kbuild_klp.object.parts import CONTENT, PIECE
from kbuild_klp.object.runs import sorted_unique

_NAMELESS = (CONTENT, PIECE)


def _edges(meanings: Meanings, wanted: NDArray[np.bool_] | None = None) -> dict[int, list[int]]:
    """Return the parts known by content to which each part refers, through its special entries as well.

    ``wanted`` says of each part whether it is to be among them.
    """
    references = list(meanings.by_content)
    owners, targets = meanings.owner[references], np.fromiter(meanings.by_content.values(), np.int64)
    if wanted is not None:
        owners, targets = owners[wanted[targets]], targets[wanted[targets]]
    edges: dict[int, list[int]] = defaultdict(list)
    for owner, target in zip(owners.tolist(), targets.tolist(), strict=True):
        edges[owner].append(target)
    return edges


def _reach(edges: dict[int, list[int]], part: int, seen: dict[int, None]) -> None:
    """Add all that ``part`` leads to to ``seen``, in the order in which it is met."""
    waiting = [part]
    while waiting:
        for target in edges.get(waiting.pop(), ()):
            if target not in seen:
                seen[target] = None
                waiting.append(target)


def used_content(meanings: Meanings) -> set[int]:
    """Return the parts known by content that are in the checksum of who refers to them.

    Parts that refer only to each other are in nobody's: of these, one is left out, to be an entry with all others.
    """
    used = set(meanings.by_content.values())
    if not used:
        return used
    kind: list[int] = meanings.canonical.parts.kind.tolist()
    if used.isdisjoint(_sources(meanings)):
        return used
    edges = _edges(meanings)
    reached: dict[int, None] = {}
    for part in edges:
        if part < 0 or kind[part] not in _NAMELESS or part not in used:
            _reach(edges, part, reached)
    for part in sorted(used - reached.keys()):
        if part not in reached:
            _reach(edges, part, reached)
            used.discard(part)
    return used


def _sources(meanings: Meanings) -> set[int]:
    """Return the nameless parts that may refer to nameless parts."""
    parts = meanings.canonical.parts
    places = meanings.canonical.references.place[np.fromiter(meanings.by_content, np.int64)]
    source = sorted_unique(parts.at(places))
    nameless = source[np.isin(parts.kind[source], _NAMELESS)]
    return {*nameless.tolist(), *meanings.special.of_nameless}


def ambiguous_symbols(meanings: Meanings) -> dict[int, list[int]]:
    """Return the symbols that look like others to which each part leads, those in nameless tables behind its own."""
    listed = np.array([part for part in meanings.ambiguous if part >= 0], np.int64)
    nameless = listed[np.isin(meanings.canonical.parts.kind[listed], _NAMELESS)]
    if not len(nameless):
        return meanings.ambiguous
    edges = _edges(meanings, _leading_to(meanings, nameless))
    result: dict[int, list[int]] = {}
    for part in {*edges, *meanings.ambiguous}:
        seen: dict[int, None] = {}
        _reach(edges, part, seen)
        lists = [meanings.ambiguous.get(part, []), *(meanings.ambiguous.get(target, []) for target in seen)]
        symbols = list(dict.fromkeys(symbol for symbols in lists for symbol in symbols))
        if symbols:
            result[part] = symbols
    return result


def _leading_to(meanings: Meanings, wanted: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Say of each part whether it is one of ``wanted``, or leads to one through parts without a name."""
    is_nameless = np.isin(meanings.canonical.parts.kind, _NAMELESS)
    owner = meanings.owner[list(meanings.by_content)]
    target = np.fromiter(meanings.by_content.values(), np.int64)
    leads = np.zeros(len(is_nameless), bool)
    leads[wanted] = True
    while True:
        users = owner[leads[target]]
        users = users[users >= 0]
        users = users[is_nameless[users] & ~leads[users]]
        if not len(users):
            return leads
        leads[users] = True
