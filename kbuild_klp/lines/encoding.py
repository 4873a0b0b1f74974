# SPDX-License-Identifier: GPL-2.0-only
"""Two versions of a function of which the instructions are the same, and have other lengths.

Line 128 does not fit where line 127 did: `push $127` has two bytes and `push $128` five, all that follows moves, and a
short branch across it may become a long one. So may a tail call, when the function between grew. The two are compared
instruction by instruction: the same operations with the same registers and displacements, the same references,
branches to the same instructions, and entries of special sections about the same instructions. What is left are the
values of immediate operands.

This costs a thousand times as much as a look at the bytes. It is tried where the sources say that nothing but lines
can differ, and where all references are the same but for their places.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kbuild_klp.arch.registry import Instruction
from kbuild_klp.lines.numbers import DifferentError, Number, own_references
from kbuild_klp.lines.proof import NumberPair
from kbuild_klp.object.meanings import KIND_SHIFT
from kbuild_klp.object.view import ObjectView

_MOST_GROWTH = 64  # bytes: more than a few immediates and branches
_IMMEDIATE = re.compile(r"\$(-?)(0x[0-9a-f]+|\d+)")
_TARGET = re.compile(r"(?<![\w$(%])(?:0x[0-9a-f]+|\d+)$")


def can_be_reencoded(old_size: int, new_size: int) -> bool:
    """Say whether functions of these sizes can be the same but for the lengths of some instructions."""
    return old_size != new_size and abs(old_size - new_size) <= _MOST_GROWTH


def has_other_branches(old: ObjectView, new: ObjectView, old_parts: Sequence[int], new_parts: Sequence[int]) -> bool:
    """Say whether two versions of a function can differ in the lengths of branches alone.

    They refer to the same things in the same order, themselves apart, and some branch is short in one of them only.
    """
    counts = [
        [len(own_references(view, part)) for part in parts] for view, parts in ((old, old_parts), (new, new_parts))
    ]
    if counts[0] != counts[1]:
        return False
    is_other = False
    for old_part, new_part in zip(old_parts, new_parts, strict=True):
        x, y = _outward(old, old_part, old_parts), _outward(new, new_part, new_parts)
        if not np.array_equal(x.meanings, y.meanings):
            return False
        is_other |= not np.array_equal(x.is_short, y.is_short)
    return is_other


class _Outward(NamedTuple):
    """The references of a part but for those to the function itself: what they mean, and which are short branches."""

    meanings: NDArray[np.uint64]
    is_short: NDArray[np.bool_]


def _outward(view: ObjectView, part: int, family: Sequence[int]) -> _Outward:
    own = own_references(view, part)
    rows, targets = view.digests.rows[own.start : own.stop], view.canonical.targets.part[own.start : own.stop]
    is_inward = targets == family[0]
    for other in family[1:]:
        is_inward |= targets == other
    rows = rows[~is_inward]
    places = rows[:, 0] & np.uint64((1 << KIND_SHIFT) - 1)
    opcodes = np.frombuffer(view.data(part), np.uint8)[np.maximum(places.astype(np.int64) - 1, 0)]
    rows[:, 0] >>= np.uint64(KIND_SHIFT)
    is_branch = rows[:, 0] == view.architecture.branch_kind
    return _Outward(rows, is_branch & _is_short(view.architecture.short_branches)[opcodes])


@cache
def _is_short(opcodes: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return for each byte whether it is one of ``opcodes``."""
    return np.isin(np.arange(256), opcodes)


def reencoded_numbers(
    old: ObjectView, new: ObjectView, old_parts: Sequence[int], new_parts: Sequence[int]
) -> list[Number] | None:
    """Return the immediates that differ between two versions of a function, None when anything else does."""
    if len(old_parts) != len(new_parts):
        return None
    try:
        return list(_Alignment(old, new, old_parts, new_parts).numbers())
    except DifferentError:
        return None


class _Alignment:
    """Two versions of a function, instruction beside instruction."""

    def __init__(self, old: ObjectView, new: ObjectView, old_parts: Sequence[int], new_parts: Sequence[int]) -> None:
        self._views = old, new
        self._parts = list(old_parts), list(new_parts)
        self._code = [
            [view.architecture.disassemble(view.digests.part_data(part)) for part in parts]
            for view, parts in zip(self._views, self._parts, strict=True)
        ]
        # For each part, which offset is that of which instruction; the end of the part is one too.
        self._number = [
            [
                {**{instruction.offset: at for at, instruction in enumerate(code)}, _end(code): len(code)}
                for code in side
            ]
            for side in self._code
        ]

    def numbers(self) -> Iterator[Number]:
        """Yield the immediates that differ; raises DifferentError."""
        for at in range(len(self._parts[0])):
            yield from self._part(at)
        self._special()

    def _part(self, at: int) -> Iterator[Number]:
        before, after = self._code[0][at], self._code[1][at]
        if len(before) != len(after):
            raise DifferentError
        own = [self._references(side, at) for side in (0, 1)]
        if own[0] != own[1]:
            raise DifferentError
        referring = {where for where, _, _ in own[0]}
        for index, (x, y) in enumerate(zip(before, after, strict=True)):
            if x.text == y.text and not x.is_branch:
                continue
            was, is_ = x.text, y.text
            if x.is_branch:
                # Where a branch with a reference goes, is said by that.
                is_inside = index not in referring
                was, is_ = self._without_target(0, at, was, is_inside), self._without_target(1, at, is_, is_inside)
            if _IMMEDIATE.sub("$", was) != _IMMEDIATE.sub("$", is_):
                raise DifferentError
            for old, new in zip(_IMMEDIATE.finditer(was), _IMMEDIATE.finditer(is_), strict=True):
                if old[0] != new[0]:
                    if index in referring:
                        raise DifferentError
                    place = (self._parts[0][at], x.offset), (self._parts[1][at], y.offset)
                    yield Number(NumberPair(((_value(old), _value(new)),)), f"at +{y.offset:#x}", place)

    def _without_target(self, side: int, at: int, text: str, is_inside: bool) -> str:
        """Return a branch with the number of an instruction in the place of an offset."""
        match = _TARGET.search(text)
        if match is not None and not is_inside:
            return text[: match.start()]
        number = self._number[side][at].get(int(match[0], 0)) if match else None
        if match is None or number is None:
            return text
        return f"{text[: match.start()]}#{number}"

    def _references(self, side: int, at: int) -> list[tuple[int, int, tuple[int, ...]]]:
        """Return the references of a part: number of the instruction, place in it, and what they mean.

        That of a branch stands in one place in its short form, in another in its long one.
        """
        view, part = self._views[side], self._parts[side][at]
        code = self._code[side][at]
        result = []
        index = 0
        for reference in own_references(view, part):
            place = view.reference_place(part, reference)
            while index + 1 < len(code) and code[index + 1].offset <= place:
                index += 1
            field = -1 if code[index].is_branch else place - code[index].offset
            result.append((index, field, self._meaning(side, reference)))
        return result

    def _meaning(self, side: int, reference: int, is_owner: bool = False) -> tuple[int, ...]:
        """Return what a reference means, with instructions instead of offsets when it is into the function."""
        view = self._views[side]
        offset, ordinal, *name = view.digests.target(reference)
        part = int(view.canonical.targets.part[reference])
        meaning = int(view.canonical.references.kind[reference]), ordinal
        name = [0, 0] if is_owner else name
        if part not in self._parts[side]:
            return *meaning, -1, offset, *name
        at = self._parts[side].index(part)
        place = int(view.canonical.targets.offset[reference])
        # Before the function is its padding (__patchable_function_entries), which has no instructions of its own.
        number = place if place < 0 else self._number[side][at].get(place)
        if number is None:
            raise DifferentError
        return *meaning, at, number, *name

    def _special(self) -> None:
        """Raise DifferentError unless the special entries are about the same instructions."""
        for old_part, new_part in zip(*self._parts, strict=True):
            sides = []
            for side, part in enumerate((old_part, new_part)):
                entries = []
                for table in self._views[side].special_tables(part):
                    rows = zip(table.references, table.places, table.is_owner, strict=True)
                    meanings = [
                        (place, self._meaning(side, reference, is_owner)) for reference, place, is_owner in rows
                    ]
                    entries.append((table.section, table.data, meanings))
                sides.append(entries)
            if sides[0] != sides[1]:
                raise DifferentError


def _end(code: Sequence[Instruction]) -> int:
    return code[-1].offset + code[-1].size if code else 0


def _value(match: re.Match[str]) -> int:
    value = int(match[2], 0)
    return -value if match[1] else value
