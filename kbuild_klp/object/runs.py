# SPDX-License-Identifier: GPL-2.0-only
"""Runs of rows in a table, handled many at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[Any]
"""Addresses, or what is added to them: 32 bits each where all fit, which is half the memory; or rows of a table."""


def run_starts(counts: Numbers) -> NDArray[np.int64]:
    """Return where each of several runs starts when they stand behind each other, and where the last one ends."""
    starts = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=starts[1:])
    return starts


def run_rows(first: Numbers, counts: Numbers) -> NDArray[np.int64]:
    """Return all rows of several runs, by where each starts and how many rows it has."""
    starts = run_starts(counts)
    return np.arange(starts[-1]) + np.repeat(first - starts[:-1], counts)


def run_bounds(values: Numbers) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where runs of equal values start and end."""
    edges = (values[1:] != values[:-1]).nonzero()[0] + 1
    if not len(values):
        return edges, edges
    return np.concatenate([[0], edges]), np.concatenate([edges, [len(values)]])


def with_end(addresses: Numbers) -> Numbers:
    """Return addresses with one behind them that is larger than all."""
    return np.append(addresses, np.array([np.iinfo(addresses.dtype).max], addresses.dtype))


def sorted_unique(values: Numbers) -> Numbers:
    """Do what np.unique does, which imports half of numpy first, and builds a hash table."""
    values = np.sort(values)
    is_first = np.ones(len(values), bool)
    is_first[1:] = values[1:] != values[:-1]
    return values[is_first]
