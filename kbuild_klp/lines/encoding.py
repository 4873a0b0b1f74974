# SPDX-License-Identifier: GPL-2.0-only
"""Two versions of a function of which the instructions are the same, and have other lengths.

Line 128 does not fit where line 127 did: `push $127` has two bytes and `push $128` five, all that follows moves, and a
short branch across it may become a long one. So may a tail call, when the function between grew. And the loops of a
function are aligned where the function is not, so that it has other NOPs in another place (padding.py). The two are
compared instruction by instruction: the same operations with the same registers and displacements, the same
references, branches to the same instructions, and entries of special sections about the same instructions. What is
left are the values of immediate operands.

This costs more than a look at the bytes. It is tried where the sources say that nothing but lines can differ, and
where all references are the same but for their places.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from kbuild_klp.lines.numbers import DifferentError, Number
from kbuild_klp.lines.padding import Unpadded, lies_otherwise, without_padding
from kbuild_klp.lines.proof import NumberPair
from kbuild_klp.object.function import Line, part_code
from kbuild_klp.object.meanings import KIND_SHIFT
from kbuild_klp.object.special_entries import special_tables
from kbuild_klp.object.view import ObjectView

_MOST_GROWTH = 64  # bytes: more than a few immediates and branches
_MOST_PADDING, _STEP = 512, 16  # before several loops; functions are aligned to no less


def can_be_reencoded(old_size: int, new_size: int) -> bool:
    """Say whether functions of these sizes can be the same but for the lengths of some instructions."""
    growth = abs(old_size - new_size)
    return 0 < growth <= _MOST_GROWTH or (0 < growth <= _MOST_PADDING and growth % _STEP == 0)


def has_other_form(old: ObjectView, new: ObjectView, old_parts: Sequence[int], new_parts: Sequence[int]) -> bool:
    """Say whether two versions of a function can differ in the lengths of branches, or in what aligns loops, alone.

    They refer to the same things in the same order, themselves apart, and some branch out of one has another form, or
    they lie otherwise.
    """
    if len(old_parts) != len(new_parts):
        return False
    is_other = False
    for old_part, new_part in zip(old_parts, new_parts, strict=True):
        own = old.reference_range(old_part), new.reference_range(new_part)
        if len(own[0]) != len(own[1]):
            return False
        before, after = _outward(old, old_part, old_parts), _outward(new, new_part, new_parts)
        if not np.array_equal(before[:, 1:], after[:, 1:]):
            return False
        is_other |= _forms(old, old_part, before) != _forms(new, new_part, after)
        is_other |= lies_otherwise(old, new, old_part, new_part)
    return is_other


def _outward(view: ObjectView, part: int, family: Sequence[int]) -> NDArray[np.uint64]:
    """Return the references of a part but for those to the function itself: place, kind and what they mean.

    What its jump tables mean is where in the function they go, and left out, too.
    """
    own = view.reference_range(part)
    rows, targets = view.meanings.rows[own.start : own.stop], view.canonical.targets.part[own.start : own.stop]
    tables = [row - own.start for row in view.known_by_content(part) if _is_jump_table(view, row, family)]
    if tables:
        rows = rows.copy()
        rows[tables, 1:] = 0
    rows = rows[~np.isin(targets, list(family))]
    place, kind = rows[:, :1] & np.uint64((1 << KIND_SHIFT) - 1), rows[:, :1] >> np.uint64(KIND_SHIFT)
    return np.concatenate([place, kind, rows[:, 1:]], axis=1)


def _is_jump_table(view: ObjectView, row: int, family: Sequence[int]) -> bool:
    part = view.content_part(row)
    return part is not None and view.jump_table(part, family) is not None


def _forms(view: ObjectView, part: int, outward: NDArray[np.uint64]) -> list[int | None]:
    """Return of which form the field of each reference is; None where it counts from nothing."""
    forms = part_code(view, part).forms
    return [forms.get(place) for place in outward[:, 0].tolist()]


def reencoded_numbers(
    old: ObjectView, new: ObjectView, old_parts: Sequence[int], new_parts: Sequence[int]
) -> list[Number] | None:
    """Return the immediates that differ between two versions of a function, None when anything else does."""
    try:
        before, after = without_padding(old, new, old_parts, new_parts)
        found = [number for x, y in zip(before.lines, after.lines, strict=True) for number in _numbers(x, y)]
        if any(before.goals(x) != after.goals(y) for x, y in zip(before.lines, after.lines, strict=True)):
            return None
        _compare_special((old, old_parts, before), (new, new_parts, after))
    except DifferentError:
        return None
    return found


def _numbers(x: Line, y: Line) -> Iterator[Number]:
    """Yield the immediates in which two instructions differ; raises DifferentError when more does than these, or where
    they go.
    """
    if x.token == y.token:
        return
    meanings = [line.token[1] for line in (x, y)]
    if x.is_branch and y.is_branch:  # its field stands in one place in its short form, in another in its long one
        meanings = [tuple(meaning[1:] for meaning in side) for side in meanings]
    operation = x.view.architecture.operation
    was, is_ = operation(x.token[0]), operation(y.token[0])
    if meanings[0] != meanings[1] or was.text != is_.text or (x.references and was != is_):
        raise DifferentError
    place = (x.part, x.offset), (y.part, y.offset)
    for old, new in zip(was.immediates, is_.immediates, strict=True):
        if old != new:
            yield Number(NumberPair(((old, new),)), f"at +{y.offset:#x}", place)


_Side = tuple[ObjectView, Sequence[int], Unpadded]


def _compare_special(old: _Side, new: _Side) -> None:
    """Raise DifferentError unless the special entries are about the same instructions."""
    for old_part, new_part in zip(old[1], new[1], strict=True):
        if list(_special(old, old_part)) != list(_special(new, new_part)):
            raise DifferentError


def _special(side: _Side, part: int) -> Iterator[tuple[object, ...]]:
    """Yield what the special entries of a part mean, with instructions instead of places in the function."""
    view, parts, unpadded = side
    number = unpadded.numbers | {(own, view.size(own)): -1 - at for at, own in enumerate(parts)}
    for table in special_tables(view, part):
        meanings: list[tuple[object, ...]] = []
        for reference, place, is_owner in zip(table.references, table.places, table.is_owner, strict=True):
            offset, ordinal, *name = view.meanings.target(reference)
            target = int(view.canonical.targets.part[reference])
            kind = int(view.canonical.references.kind[reference])
            if target in parts:
                goal = int(view.canonical.targets.offset[reference])
                # Before the function is its padding (__patchable_function_entries), which has no instructions.
                at = (goal,) if goal < 0 else (parts.index(target), number.get((target, goal)))
                if None in at:
                    raise DifferentError
                meanings.append((place, kind, ordinal, at, () if is_owner else tuple(name)))
            else:
                meanings.append((place, kind, ordinal, offset, () if is_owner else tuple(name)))
        yield table.section, table.data, meanings
