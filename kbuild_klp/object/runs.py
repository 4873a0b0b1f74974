# SPDX-License-Identifier: GPL-2.0-only
"""Runs of rows in a table, handled many at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[Any]
"""Addresses, or what is added to them: 32 bits each where all fit, which is half the memory; or rows of a table."""

_BLOCK = 1 << 13


def run_starts(counts: Numbers) -> NDArray[np.int64]:
    """Return where each of several runs starts when they stand behind each other, and where the last one ends."""
    starts = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=starts[1:])
    return starts


def run_rows(first: Numbers, counts: Numbers) -> NDArray[np.int64]:
    """Return all rows of several runs, by where each starts and how many rows it has."""
    starts = run_starts(counts)
    return np.arange(starts[-1]) + np.repeat(first - starts[:-1], counts)


def blocks(rows: Numbers) -> Iterator[Numbers]:
    """Yield rows so many at a time that what is made of them for a moment is small, and stays in the cache."""
    return (rows[at : at + _BLOCK] for at in range(0, len(rows), _BLOCK))


def run_bounds(values: Numbers) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where runs of equal values start and end."""
    edges = (values[1:] != values[:-1]).nonzero()[0] + 1
    if not len(values):
        return edges, edges
    return np.concatenate([[0], edges]), np.concatenate([edges, [len(values)]])


def with_end(addresses: Numbers) -> Numbers:
    """Return addresses with one behind them that is larger than all."""
    return np.append(addresses, np.array([np.iinfo(addresses.dtype).max], addresses.dtype))


def narrow(values: Numbers) -> Numbers:
    """Return numbers that are not negative, or little so, in 32 bits each if all fit: a kernel has many of them."""
    return values.astype(np.int32) if not len(values) or values.max() < 1 << 31 else values


_SPARSE = 64
"""How many times as large as there are values the largest may be for counting to cost less than sorting."""


def sorted_unique(values: Numbers) -> Numbers:
    """Return the distinct values, sorted; as np.unique does, which imports half of numpy first."""
    if _is_dense(values):
        seen = np.zeros(int(values.max()) + 1, bool)
        seen[values] = True
        return seen.nonzero()[0].astype(values.dtype)
    values = np.sort(values)
    is_first = np.ones(len(values), bool)
    is_first[1:] = values[1:] != values[:-1]
    return values[is_first]


def ranked(values: Numbers) -> tuple[Numbers, NDArray[np.integer[Any]]]:
    """Return the distinct values, sorted, and which of them each of ``values`` is."""
    unique = sorted_unique(values)
    if not _is_dense(values):
        return unique, np.searchsorted(unique, values)
    position = np.empty(int(values.max()) + 1, np.int32)
    position[unique] = np.arange(len(unique), dtype=np.int32)
    return unique, position[values]


def _is_dense(values: Numbers) -> bool:
    return bool(len(values)) and values.min() >= 0 and values.max() < _SPARSE * len(values)
