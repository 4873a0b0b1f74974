# SPDX-License-Identifier: GPL-2.0-only
"""What is reached through data without a name: whose checksum it is in, and which symbols it leads to that look alike.

Nearly always the answer is simple: each nameless table is referred to by a function. What is here is for tables
that refer to tables, and costs nothing where there are none.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from kbuild_klp.object.meanings import Meanings
from kbuild_klp.object.parts import CONTENT, PIECE
from kbuild_klp.object.runs import sorted_unique

_NAMELESS = (CONTENT, PIECE)


def _edges(meanings: Meanings) -> dict[int, list[int]]:
    """Return the parts known by content to which each part refers, through its special entries as well."""
    references = list(meanings.by_content)
    edges: dict[int, list[int]] = defaultdict(list)
    for owner, target in zip(meanings.owner[references].tolist(), meanings.by_content.values(), strict=True):
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
    kind: list[int] = meanings.canonical.parts.kind.tolist()
    if not any(part >= 0 and kind[part] in _NAMELESS for part in meanings.ambiguous):
        return meanings.ambiguous
    edges = _edges(meanings)
    result: dict[int, list[int]] = {}
    for part in {*edges, *meanings.ambiguous}:
        seen: dict[int, None] = {}
        _reach(edges, part, seen)
        lists = [meanings.ambiguous.get(part, []), *(meanings.ambiguous.get(target, []) for target in seen)]
        symbols = list(dict.fromkeys(symbol for symbols in lists for symbol in symbols))
        if symbols:
            result[part] = symbols
    return result
