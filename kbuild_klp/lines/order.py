# SPDX-License-Identifier: GPL-2.0-only
"""Which of some numbers, before and now, can be lines of one source file: those that are in order with each other.

A chain is a choice among them that rises, before and now, with the places of their functions. Within a function, where
compilers move code, they come in their own order, and the same line may come several times. The best chain has the
most numbers, and among these the fewest that moved by another amount than the one before: that many edits it takes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_ONE = 1 << 24  # one number more counts for more than any number of edits less

_Columns = NDArray[np.int64]
"""Place, number before and number now: one column each number, in order."""


class Ordered:
    """Numbers that were ``old`` and are ``new`` now; ``place`` is that of the function of each."""

    def __init__(self, place: Sequence[int], old: Sequence[int], new: Sequence[int]) -> None:
        columns = np.array([place, old, new], np.int64).reshape(3, -1)
        self._order = np.lexsort(columns[::-1])
        self._columns = columns[:, self._order]

    @property
    def most(self) -> int:
        """The number of numbers in the best chain."""
        return -(-_best(self._columns) // _ONE)

    def certain(self) -> list[bool]:
        """Say of each number whether every best chain has it."""
        columns = self._columns
        through = _ending(columns) + _ending(-columns[:, ::-1], is_start=False)[::-1] - _ONE
        best = through.max(initial=0)
        rank = np.argsort(self._order)
        return [
            bool(through[row] == best and _best(np.delete(columns, row, 1)) < best)
            for row in rank.tolist()
        ]


def _best(columns: _Columns) -> int:
    """Return how good the best chain is."""
    return int(_ending(columns).max(initial=0))


def _ending(columns: _Columns, is_start: bool = True) -> NDArray[np.int64]:
    """Return how good the best chain is that ends at each number.

    ``is_start`` says that the chain starts where the file does: that its first number moved is an edit, too.
    """
    place, old, new = columns
    shift = new - old
    best = np.where((shift == 0) | (not is_start), _ONE, _ONE - 1)
    for at in range(1, len(best)):
        rises = (old[:at] < old[at]) & (new[:at] < new[at])
        rises |= (place[:at] == place[at]) & (old[:at] == old[at]) & (new[:at] == new[at])
        steps = best[:at][rises] + _ONE - (shift[:at][rises] != shift[at])
        best[at] = max(best[at], steps.max(initial=0))
    return best
