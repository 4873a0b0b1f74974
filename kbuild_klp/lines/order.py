# SPDX-License-Identifier: GPL-2.0-only
"""Which of some numbers, before and now, can be lines of one source file: those that are in order with each other.

A chain is a choice of numbers that rises, before and now, with the places of their functions. Numbers within a function
may be taken in any order, since compilers move code, and one line may occur several times. The best chain has the most
numbers, and among chains of one length the fewest that moved by another amount than the number before: each of these is
an edit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_ONE = 1 << 24  # one number more counts for more than any number of edits less
# Chains are counted modulo a prime: a number is in every best chain if as many lead through it as there are at all.
_PRIME = (1 << 31) - 1

_Columns = NDArray[np.int64]
"""Place, number before and number now: one column each number, in order."""


class _Chains(NamedTuple):
    """The best chains that end at each number: their score, and how many there are (modulo _PRIME)."""

    best: NDArray[np.int64]
    ways: NDArray[np.int64]


class Ordered:
    """Numbers that were ``old`` and are ``new`` now; ``place`` is that of the function of each."""

    def __init__(self, place: Sequence[int], old: Sequence[int], new: Sequence[int]) -> None:
        columns = np.array([place, old, new], np.int64).reshape(3, -1)
        self._order = np.lexsort(columns[::-1])
        self._columns = columns[:, self._order]

    @property
    def most(self) -> int:
        """The length of the best chain."""
        return int(-(-_ending(self._columns).best.max(initial=0) // _ONE))

    def certain(self) -> list[bool]:
        """Say of each number whether it is in every best chain."""
        before = _ending(self._columns)
        behind = _ending(-self._columns[:, ::-1], is_start=False)
        through = before.best + behind.best[::-1] - _ONE
        is_best = through == through.max(initial=0)
        total = before.ways[before.best == before.best.max(initial=0)].sum() % _PRIME
        is_certain = is_best & (before.ways * behind.ways[::-1] % _PRIME == total)
        return [bool(found) for found in is_certain[np.argsort(self._order)]]


def _ending(columns: _Columns, is_start: bool = True) -> _Chains:
    """Return the best chains up to each number.

    ``is_start`` says that chains begin at the start of the file, where it is an edit that the first number moved.
    """
    place, old, new = columns
    shift = new - old
    best = np.where((shift == 0) | (not is_start), _ONE, _ONE - 1)
    count = np.ones(len(best), np.int64)
    for at in range(1, len(best)):
        rises = (old[:at] < old[at]) & (new[:at] < new[at])
        rises |= (place[:at] == place[at]) & (old[:at] == old[at]) & (new[:at] == new[at])
        steps = best[:at][rises] + _ONE - (shift[:at][rises] != shift[at])
        most = steps.max(initial=0)
        if most > best[at]:
            best[at] = most
            count[at] = count[:at][rises][steps == most].sum() % _PRIME
        elif most == best[at]:
            count[at] = (1 + count[:at][rises][steps == most].sum()) % _PRIME
    return _Chains(best, count)


def concordance(place: Sequence[int], number: Sequence[int], count: int) -> int:
    """Return how many pairs of numbers rise with their places, minus those that do not (Kendall's tau, not divided).

    The first number of a pair is among the first ``count``. Pairs at one place do not count.
    """
    places, numbers = np.array(place, np.int64), np.array(number, np.int64)
    total = 0
    for at in range(count):
        behind = places[at + 1 :] - places[at]
        rises = np.where(behind > 0, numbers[at + 1 :] > numbers[at], numbers[at + 1 :] < numbers[at])
        total += int(np.where(rises, 1, -1)[behind != 0].sum())
    return total
