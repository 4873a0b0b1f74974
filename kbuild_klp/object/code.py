# SPDX-License-Identifier: GPL-2.0-only
"""Machine code, taken apart into instructions."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kbuild_klp.arch.registry import Architecture, PcRelativeFields
from kbuild_klp.arch.sweep import sweep

_BLOCK = 1 << 18


class Decoded(NamedTuple):
    """Where instructions begin, for every byte of the code, and their fields that are relative to themselves."""

    begins: NDArray[np.bool_]
    fields: PcRelativeFields


class PartCode(NamedTuple):
    """One part: where its instructions start and where control goes after each (Flow), the branches that stay inside
    (place: form and target), and the form of each field that is relative to its instruction.
    """

    data: bytes
    starts: list[int]
    flows: bytes
    inside: dict[int, tuple[int, int]]
    forms: dict[int, int]


def decode(arch: Architecture, code: NDArray[np.uint8], starts: NDArray[np.int64], ends: NDArray[np.int64]) -> Decoded:
    """Decode the ranges of ``code`` from ``starts`` to ``ends``.

    Each range is swept from its start. Bytes that are no instruction (data in assembly) end the sweep of their
    range: what follows is compared as plain bytes.
    """
    lengths = arch.instruction_lengths(code)
    begins = sweep(lengths, starts, ends).begins
    # In blocks, so that the scratch arrays of one are there for the next.
    blocks = [
        arch.pc_relative_fields(code, lengths, begins[at : at + _BLOCK].nonzero()[0] + at)
        for at in range(0, max(len(code), 1), _BLOCK)
    ]
    if len(blocks) == 1:
        return Decoded(begins, blocks[0])
    return Decoded(begins, PcRelativeFields(*map(np.concatenate, zip(*blocks, strict=True))))
