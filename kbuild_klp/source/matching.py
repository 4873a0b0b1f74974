# SPDX-License-Identifier: GPL-2.0-only
"""What two sequences have in common, in order: lines of a source, or instructions of a function.

Equal beginnings and ends are taken off first. The rest is cut at the items that occur once on each side (patience
diff), and only the pieces in between go through difflib, which is quadratic in repeated items.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Hashable, Sequence
from difflib import SequenceMatcher
from typing import NamedTuple, TypeVar

Item = TypeVar("Item", bound=Hashable)

# A piece with more pairs of items, or of equal ones, is left unpaired if no item occurs once (generated tables).
_MOST_PAIRS = 16_000_000
_MOST_EQUAL_PAIRS = 500_000
# What is between two anchors may have anchors of its own, and so on. No source and no function goes this deep.
_DEEPEST = 40


class Run(NamedTuple):
    """A stretch that is the same: ``length`` items from ``old`` in the one sequence, and from ``new`` in the other."""

    old: int
    new: int
    length: int


def common_runs(old: Sequence[Item], new: Sequence[Item]) -> list[Run]:
    """Return what is the same in two sequences, in order, with neighbours joined. It never crosses."""
    runs: list[Run] = []
    _match(old, new, (0, 0), runs, _DEEPEST)
    return runs


def _match(old: Sequence[Item], new: Sequence[Item], start: tuple[int, int], runs: list[Run], depth: int) -> None:
    """Pair two pieces, which begin at ``start`` of the whole sequences, adding runs in order."""
    head = _common_start(old, new)
    tail = _common_start(old[head:][::-1], new[head:][::-1])
    a0, b0 = start[0] + head, start[1] + head
    a1, b1 = len(old) - tail, len(new) - tail
    _add(runs, Run(*start, head))
    if head < a1 and head < b1:
        # Numbers instead of items: they are compared much faster.
        numbers: dict[Item, int] = {}
        left = [numbers.setdefault(item, len(numbers)) for item in old[head:a1]]
        right = [numbers.setdefault(item, len(numbers)) for item in new[head:b1]]
        count_left, count_right = Counter(left), Counter(right)
        anchors = _anchors(left, right, count_left, count_right) if depth else []
        i0 = j0 = 0
        for i, j in anchors:
            if i0 < i and j0 < j:
                _match(left[i0:i], right[j0:j], (a0 + i0, b0 + j0), runs, depth - 1)
            _add(runs, Run(a0 + i, b0 + j, 1))
            i0, j0 = i + 1, j + 1
        if anchors:
            _match(left[i0:], right[j0:], (a0 + i0, b0 + j0), runs, depth - 1)
        elif _is_small(count_left, count_right):
            for i, j, length in SequenceMatcher(None, left, right, autojunk=False).get_matching_blocks():
                _add(runs, Run(a0 + i, b0 + j, length))
    _add(runs, Run(start[0] + a1, start[1] + b1, tail))


def _common_start(a: Sequence[Item], b: Sequence[Item]) -> int:
    """Return how many items two sequences have in common at their beginning."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _is_small(old: Counter[int], new: Counter[int]) -> bool:
    equal = sum(count * new[item] for item, count in old.items())
    return equal <= _MOST_EQUAL_PAIRS and old.total() * new.total() <= _MOST_PAIRS


def _add(runs: list[Run], run: Run) -> None:
    if not run.length:
        return
    if runs:
        last = runs[-1]
        if last.old + last.length == run.old and last.new + last.length == run.new:
            runs[-1] = Run(last.old, last.new, last.length + run.length)
            return
    runs.append(run)


def _anchors(a: Sequence[int], b: Sequence[int], count_a: Counter[int], count_b: Counter[int]) -> list[tuple[int, int]]:
    """Return the pairs of items that occur once on each side: the longest chain of them that rises on both."""
    places = {item: j for j, item in enumerate(b) if count_b[item] == 1}
    pairs = [(i, places[item]) for i, item in enumerate(a) if count_a[item] == 1 and item in places]
    # Patience sorting: `tops` is the last pair of the best chain of each length.
    tops: list[int] = []
    chain: list[int] = []
    back: list[int] = []
    for index, (_, j) in enumerate(pairs):
        place = bisect_left(tops, j)
        back.append(chain[place - 1] if place else -1)
        if place == len(tops):
            tops.append(j)
            chain.append(index)
        else:
            tops[place] = j
            chain[place] = index
    result: list[tuple[int, int]] = []
    index = chain[-1] if chain else -1
    while index >= 0:
        result.append(pairs[index])
        index = back[index]
    return result[::-1]
