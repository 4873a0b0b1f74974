# SPDX-License-Identifier: GPL-2.0-only
"""From one instruction to the next, through many functions at a time."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# With fewer ranges than this, walking them singly is faster.
_FEW_RANGES = 100


def instruction_starts(lengths: bytes | memoryview, start: int, end: int) -> tuple[list[int], int]:
    """Return where instructions begin from ``start`` on, one after the other, and where that stopped.

    ``lengths`` are those of Architecture.instruction_lengths as bytes (indexing an array takes three times as long),
    ``start`` and ``end`` are offsets into them. When the second value is ``end``, the instructions fill the range
    exactly. Otherwise it is the first offset that is not understood: no instruction begins there or it reaches beyond
    ``end``; it is not in the list.
    """
    starts: list[int] = []
    append = starts.append
    at = start
    while at < end and (length := lengths[at]):
        append(at)
        at += length
    if at > end and starts:
        at = starts.pop()
    return starts, at


class Sweep(NamedTuple):
    """The instructions of many ranges."""

    begins: NDArray[np.bool_]  # whether an instruction begins there, for every offset
    stopped: NDArray[np.int64]  # for each range what instruction_starts returns as its second value


def sweep(length: NDArray[np.uint8], starts: NDArray[np.int64], ends: NDArray[np.int64]) -> Sweep:
    """Do instruction_starts for many ranges, one step in all of them at a time.

    ``starts[i]`` and ``ends[i]`` bound a range; ranges may overlap. For a whole kernel this is ten times as
    fast as one range after the other; when only long functions are left, they are walked singly.
    """
    begins = np.zeros(len(length), np.bool_)
    stopped = np.array(starts, np.int64)
    row = (stopped < ends).nonzero()[0]
    at, end = stopped[row], np.asarray(ends, np.int64)[row]
    while row.size > _FEW_RANGES:
        step = length[at]
        behind = at + step
        is_whole = behind <= end
        is_whole &= step != 0
        # Ranges may overlap: what is cut off in one may be an instruction in another.
        begins[at if is_whole.all() else at[is_whole]] = True
        goes_on = behind < end
        goes_on &= is_whole
        done = (~goes_on).nonzero()[0]
        if done.size:
            stopped[row[done]] = np.where(is_whole[done], behind[done], at[done])
            rest = goes_on.nonzero()[0]
            row, behind, end = row[rest], behind[rest], end[rest]
        at = behind
    for number, first, last in zip(row.tolist(), at.tolist(), end.tolist(), strict=True):
        found, stopped[number] = instruction_starts(length.data, first, last)
        begins[found] = True
    return Sweep(begins, stopped)
