# SPDX-License-Identifier: GPL-2.0-only
"""Functions that differ in nothing but immediate operands: the only way in which a line number can be in code.

This is asked of every function that differs, thousands after a change in a header, so only the instructions that
differ are decoded.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple

import numpy as np

from kbuild_klp.explain.view import ObjectView


class ImmediateChange(NamedTuple):
    """An immediate operand that has another value: ``offset`` of its instruction, ``old`` and ``new`` (signed)."""

    offset: int
    old: int
    new: int


def immediate_changes(old: ObjectView, new: ObjectView, old_part: int, new_part: int) -> list[ImmediateChange] | None:
    """Return what differs between two parts, None when that is anything but values of immediates."""
    before, after = old.digests.part_data(old_part), new.digests.part_data(new_part)
    if len(before) != len(after):
        return None
    if [(r.place, r.key) for r in old.references(old_part)] != [(r.place, r.key) for r in new.references(new_part)]:
        return None
    differing = (np.frombuffer(before, np.uint8) != np.frombuffer(after, np.uint8)).nonzero()[0].tolist()
    if not differing:
        return []
    arch = new.architecture
    starts = arch.instruction_starts(before)
    if starts != arch.instruction_starts(after):
        return None
    places = {reference.place for reference in new.references(new_part)}
    changes: list[ImmediateChange] = []
    end = 0
    for at in differing:
        if at < end:
            continue
        index = bisect_right(starts, at) - 1
        if index < 0:
            return None
        start = starts[index]
        end = starts[index + 1] if index + 1 < len(starts) else len(before)
        was, is_ = arch.immediate(before[start:end]), arch.immediate(after[start:end])
        field = end - len(is_)
        if not is_ or len(was) != len(is_) or before[start:field] != after[start:field] or field in places:
            return None
        values = (int.from_bytes(value, "little", signed=True) for value in (was, is_))
        changes.append(ImmediateChange(start, *values))
    return changes
