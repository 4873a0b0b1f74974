# SPDX-License-Identifier: GPL-2.0-only
"""Two versions of a function of which the instructions are the same, and have other lengths.

Line 128 does not fit where line 127 did: `push $127` has two bytes and `push $128` five, all that follows moves, and a
short branch across it may become a long one. So may a tail call, when the function between grew. And the loops of a
function are aligned where the function is not, so that it has other NOPs in another place (padding.py). The two are
compared instruction by instruction: the same operations with the same registers and displacements, the same
references, branches to the same instructions, and entries of special sections about the same instructions. What is
left are the values of immediate operands.

This costs more than a look at the bytes. It is tried where the sources say that nothing but lines can differ, and
where all references are the same but for their places, and for what the builds say of themselves in what they go to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from kbuild_klp.lines.identity import Identities
from kbuild_klp.lines.numbers import Differences, DifferentError, Number, differing_content
from kbuild_klp.lines.padding import Unpadded, lies_otherwise, without_padding
from kbuild_klp.lines.proof import NumberPair
from kbuild_klp.object.function import Line, part_code
from kbuild_klp.object.special_entries import special_tables
from kbuild_klp.object.view import ObjectView

_HOW = 2  # elements of what a reference means to an instruction: place and kind; behind it, what it goes to
_MOST_GROWTH = 64  # bytes: more than a few immediates and branches
_MOST_PADDING, _STEP = 512, 16  # before several loops; functions are aligned to no less


def can_be_reencoded(old_size: int, new_size: int) -> bool:
    """Say whether functions of these sizes can be the same but for the lengths of some instructions."""
    growth = abs(old_size - new_size)
    return 0 < growth <= _MOST_GROWTH or (0 < growth <= _MOST_PADDING and growth % _STEP == 0)


class Alike(NamedTuple):
    """What two versions of a function refer to: the same, but for ``differences`` of lines and of the builds.

    ``references`` are those of the new version that mean by content what another one of the old version does.
    """

    differences: Differences
    references: dict[int, int]


_SAME = Alike(Differences([], identity=False, empty=False, beside=False), {})


def alike(
    old: ObjectView, new: ObjectView, old_parts: Sequence[int], new_parts: Sequence[int], identities: Identities
) -> Alike | None:
    """Return what differs in what two versions of a function refer to, None when that is more than lines and builds."""
    if len(old_parts) != len(new_parts):
        return None
    pairs: list[tuple[int, int]] = []
    for sides in zip(old_parts, new_parts, strict=True):
        before, after = (
            _outward(view, part, parts)
            for view, part, parts in zip((old, new), sides, (old_parts, new_parts), strict=True)
        )
        tables = special_tables(old, sides[0]), special_tables(new, sides[1])
        if len(before) != len(after) or [it.section for it in tables[0]] != [it.section for it in tables[1]]:
            return None
        pairs += zip(before, after, strict=True)
        for x, y in zip(*tables, strict=True):
            if len(x.references) != len(y.references):
                return None
            pairs += (
                (row, other)
                for row, other, is_owner in zip(x.references, y.references, x.is_owner, strict=True)
                if not is_owner and int(old.canonical.targets.part[row]) not in old_parts
            )
    differ = [(row, other) for row, other in pairs if old.meanings.target(row) != new.meanings.target(other)]
    if not differ:
        return _SAME
    found = differing_content(old, new, pairs, identities)
    return Alike(found, {other: row for row, other in differ}) if found is not None and not found.empty else None


def has_other_form(old: ObjectView, new: ObjectView, old_parts: Sequence[int], new_parts: Sequence[int]) -> bool:
    """Say whether two versions of a function that refer to the same can differ in lengths, or in what aligns loops.

    Some branch out of one has another form, or they lie otherwise.
    """
    return any(
        _forms(old, x, _outward(old, x, old_parts)) != _forms(new, y, _outward(new, y, new_parts))
        or lies_otherwise(old, new, x, y)
        for x, y in zip(old_parts, new_parts, strict=True)
    )


def _outward(view: ObjectView, part: int, family: Sequence[int]) -> list[int]:
    """Return the references of a part but for those to the function itself, and to its jump tables."""
    own = view.reference_range(part)
    inside = np.isin(view.canonical.targets.part[own.start : own.stop], list(family)).tolist()
    tables = {row for row in view.known_by_content(part) if _is_jump_table(view, row, family)}
    return [row for row, is_inside in zip(own, inside, strict=True) if not is_inside and row not in tables]


def _is_jump_table(view: ObjectView, row: int, family: Sequence[int]) -> bool:
    part = view.content_part(row)
    return part is not None and view.jump_table(part, family) is not None


def _forms(view: ObjectView, part: int, outward: Sequence[int]) -> list[int | None]:
    """Return of which form the field of each reference is; None where it counts from nothing."""
    forms = part_code(view, part).forms
    return [forms.get(view.reference_place(part, row)) for row in outward]


def reencoded_numbers(
    old: ObjectView, new: ObjectView, old_parts: Sequence[int], new_parts: Sequence[int], references: dict[int, int]
) -> list[Number] | None:
    """Return the immediates that differ between two versions of a function, None when anything else does.

    ``references`` are those of the new version that go for others of the old one (`Alike`).
    """
    try:
        before, after = without_padding(old, new, old_parts, new_parts)
        lines = list(zip(before.lines, after.lines, strict=True))
        found = [number for x, y in lines for number in _numbers(x, y, references)]
        if any(before.goals(x) != after.goals(y) for x, y in lines):
            return None
        _compare_special((old, old_parts, before), (new, new_parts, after), references)
    except DifferentError:
        return None
    return found


def _numbers(x: Line, y: Line, references: dict[int, int]) -> Iterator[Number]:
    """Yield the immediates in which two instructions differ; raises DifferentError when more does than these, or where
    they go.
    """
    if x.token == y.token:
        return
    was_meant, is_meant = list(x.token[1]), list(y.token[1])
    if len(was_meant) == len(is_meant):
        for at, (one, other) in enumerate(zip(x.references, y.references, strict=True)):
            if references.get(other.row) == one.row and len(was_meant[at]) == len(is_meant[at]):
                is_meant[at] = (*is_meant[at][:_HOW], *was_meant[at][_HOW:])
    if x.is_branch and y.is_branch:  # its field stands in one place in its short form, in another in its long one
        was_meant, is_meant = ([meaning[1:] for meaning in side] for side in (was_meant, is_meant))
    operation = x.view.architecture.operation
    was, is_ = operation(x.token[0]), operation(y.token[0])
    if was_meant != is_meant or was.text != is_.text or (x.references and was != is_):
        raise DifferentError
    place = (x.part, x.offset), (y.part, y.offset)
    for old, new in zip(was.immediates, is_.immediates, strict=True):
        if old != new:
            yield Number(NumberPair(((old, new),)), f"at +{y.offset:#x}", place)


_Side = tuple[ObjectView, Sequence[int], Unpadded]


def _compare_special(old: _Side, new: _Side, references: dict[int, int]) -> None:
    """Raise DifferentError unless the special entries are about the same instructions."""
    view = old[0]
    for old_part, new_part in zip(old[1], new[1], strict=True):
        told = _special(new, new_part, lambda row: view.meanings.target(references[row]) if row in references else None)
        if list(_special(old, old_part)) != list(told):
            raise DifferentError


def _special(
    side: _Side, part: int, stands_for: Callable[[int], tuple[int, ...] | None] = lambda _: None
) -> Iterator[tuple[object, ...]]:
    """Yield what the special entries of a part mean, with instructions instead of places in the function.

    ``stands_for`` says what a reference means if that is not its own meaning.
    """
    view, parts, unpadded = side
    number = unpadded.numbers | {(own, view.size(own)): -1 - at for at, own in enumerate(parts)}
    for table in special_tables(view, part):
        meanings: list[tuple[object, ...]] = []
        for reference, place, is_owner in zip(table.references, table.places, table.is_owner, strict=True):
            offset, ordinal, *name = stands_for(reference) or view.meanings.target(reference)
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
