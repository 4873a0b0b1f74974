# SPDX-License-Identifier: GPL-2.0-only
"""Two versions of a function whose instructions are the same but have other lengths.

Line 128 does not fit where line 127 did: `push $127` has two bytes and `push $128` five, all that follows moves, and a
short branch across it may become a long one. A tail call may grow in the same way when the function in between does.
And the loops of a function are aligned where the function itself is not, so that the NOPs in it differ when it lies
elsewhere (padding.py). So the two versions are compared instruction by instruction: the same operations with the same
registers and displacements, the same references, branches to the same instructions, and entries of special sections
about the same instructions. What is left are the values of immediate operands.

This costs more than comparing bytes. It is tried only where the sources say that nothing but lines can differ, and
where all references are the same but for their places, and for what the builds say of themselves in what they go to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from kbuild_klp.lines.identity import Identities
from kbuild_klp.lines.numbers import Differences, DifferentError, Number, differing_content
from kbuild_klp.lines.padding import Unpadded, lies_otherwise, without_padding
from kbuild_klp.lines.versions import Version
from kbuild_klp.object.function import Line, part_code
from kbuild_klp.object.special_entries import special_tables

_HOW = 2  # elements that say how an instruction refers to something (place and kind); what it refers to follows
_MOST_GROWTH = 64  # bytes: more than a few immediates and branches
_MOST_PADDING, _STEP = 512, 16  # before several loops; functions are aligned to no less


def can_be_reencoded(old_size: int, new_size: int) -> bool:
    """Say whether functions of these sizes can be the same but for the lengths of some instructions."""
    growth = abs(old_size - new_size)
    return 0 < growth <= _MOST_GROWTH or (0 < growth <= _MOST_PADDING and growth % _STEP == 0)


class Alike(NamedTuple):
    """What two versions of a function refer to: the same, but for ``differences`` in lines and in what builds say.

    ``references`` maps references of the new version to those of the old one that stand for the same content.
    """

    differences: Differences
    references: dict[int, int]


_SAME = Alike(Differences([], identity=False, empty=False, beside=False), {})


def alike(old: Version, new: Version, identities: Identities) -> Alike | None:
    """Return what differs in what two versions of a function refer to, None when that is more than lines and builds."""
    if len(old.parts) != len(new.parts):
        return None
    pairs: list[tuple[int, int]] = []
    for old_part, new_part in zip(old.parts, new.parts, strict=True):
        before, after = _outward(old, old_part), _outward(new, new_part)
        tables = special_tables(old.view, old_part), special_tables(new.view, new_part)
        if len(before) != len(after) or [it.section for it in tables[0]] != [it.section for it in tables[1]]:
            return None
        pairs += zip(before, after, strict=True)
        for x, y in zip(*tables, strict=True):
            if len(x.references) != len(y.references):
                return None
            pairs += (
                (row, other)
                for row, other, is_owner in zip(x.references, y.references, x.is_owner, strict=True)
                if not is_owner and int(old.view.canonical.targets.part[row]) not in old.parts
            )
    meanings = old.view.meanings, new.view.meanings
    differ = [(row, other) for row, other in pairs if meanings[0].target(row) != meanings[1].target(other)]
    if not differ:
        return _SAME
    found = differing_content(old.view, new.view, pairs, identities)
    return Alike(found, {other: row for row, other in differ}) if found is not None and not found.empty else None


def has_other_form(old: Version, new: Version) -> bool:
    """Say whether two versions of a function that refer to the same can differ in lengths, or in what aligns loops.

    They can if a branch out of them has another form, or if their places make the alignment in them differ.
    """
    return any(
        _forms(old, x) != _forms(new, y) or lies_otherwise(old.view, new.view, x, y)
        for x, y in zip(old.parts, new.parts, strict=True)
    )


def _outward(version: Version, part: int) -> list[int]:
    """Return the references of a part except those to the function itself and to its jump tables."""
    view, family = version
    own = view.reference_range(part)
    inside = np.isin(view.canonical.targets.part[own.start : own.stop], list(family)).tolist()
    tables = {row for row in view.known_by_content(part) if _is_jump_table(version, row)}
    return [row for row, is_inside in zip(own, inside, strict=True) if not is_inside and row not in tables]


def _is_jump_table(version: Version, row: int) -> bool:
    part = version.view.content_part(row)
    return part is not None and version.view.jump_table(part, version.parts) is not None


def _forms(version: Version, part: int) -> list[int | None]:
    """Return the form of the field of each outward reference; None where it is not relative to its place."""
    forms = part_code(version.view, part).forms
    return [forms.get(version.view.reference_place(part, row)) for row in _outward(version, part)]


def reencoded_numbers(old: Version, new: Version, references: dict[int, int]) -> list[Number] | None:
    """Return the immediates that differ between two versions of a function, None when anything else does.

    ``references`` are those of `Alike`.
    """
    try:
        before, after = without_padding(old, new)
        lines = list(zip(before.lines, after.lines, strict=True))
        found = [number for x, y in lines for number in _numbers(x, y, references)]
        if any(before.goals(x) != after.goals(y) for x, y in lines):
            return None
        _compare_special(before, after, references)
    except DifferentError:
        return None
    return found


def _numbers(x: Line, y: Line, references: dict[int, int]) -> Iterator[Number]:
    """Yield the immediates in which two instructions differ.

    Raises DifferentError when anything else does, apart from where they go.
    """
    if x.token == y.token:
        return
    was_meant, is_meant = list(x.token[1]), list(y.token[1])
    if len(was_meant) == len(is_meant):
        for at, (one, other) in enumerate(zip(x.references, y.references, strict=True)):
            if references.get(other.row) == one.row and len(was_meant[at]) == len(is_meant[at]):
                is_meant[at] = (*is_meant[at][:_HOW], *was_meant[at][_HOW:])
    if x.is_branch and y.is_branch:  # the field of a long branch stands in another place than that of a short one
        was_meant, is_meant = ([meaning[1:] for meaning in side] for side in (was_meant, is_meant))
    operation = x.view.architecture.operation
    was, is_ = operation(x.token[0]), operation(y.token[0])
    if was_meant != is_meant or was.text != is_.text or (x.references and was != is_):
        raise DifferentError
    place = (x.part, x.offset), (y.part, y.offset)
    for old, new in zip(was.immediates, is_.immediates, strict=True):
        if old != new:
            yield Number(((old, new),), f"at +{y.offset:#x}", place)


def _compare_special(old: Unpadded, new: Unpadded, references: dict[int, int]) -> None:
    """Raise DifferentError unless the special entries are about the same instructions."""
    target = old.version.view.meanings.target
    for old_part, new_part in zip(old.version.parts, new.version.parts, strict=True):
        meant = _special(new, new_part, lambda row: target(references[row]) if row in references else None)
        if list(_special(old, old_part)) != list(meant):
            raise DifferentError


def _special(
    side: Unpadded, part: int, stands_for: Callable[[int], tuple[int, ...] | None] = lambda _: None
) -> Iterator[tuple[object, ...]]:
    """Yield what the special entries of a part mean, with instructions instead of places in the function.

    ``stands_for`` says what a reference means if that is not its own meaning.
    """
    view, parts = side.version
    number = side.numbers | {(own, view.size(own)): -1 - at for at, own in enumerate(parts)}
    for table in special_tables(view, part):
        meanings: list[tuple[object, ...]] = []
        for reference, place, is_owner in zip(table.references, table.places, table.is_owner, strict=True):
            offset, ordinal, *name = stands_for(reference) or view.meanings.target(reference)
            target = int(view.canonical.targets.part[reference])
            goes_to: tuple[object, ...] = ("outside", offset)
            if target in parts:
                goal = int(view.canonical.targets.offset[reference])
                # Before the function is its padding (__patchable_function_entries), which has no instructions.
                goes_to = (goal,) if goal < 0 else (parts.index(target), number.get((target, goal)))
                if None in goes_to:
                    raise DifferentError
            kind = int(view.canonical.references.kind[reference])
            meanings.append((place, kind, ordinal, goes_to, () if is_owner else tuple(name)))
        yield table.section, table.data, meanings
