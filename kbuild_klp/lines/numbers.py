# SPDX-License-Identifier: GPL-2.0-only
"""The numbers in which two versions of a function or variable differ, if nothing else does.

A line number can be an immediate operand, a field of nameless data that the function refers to (what UBSAN reports
with: roles.py), a field of a variable, or digits in a string. Everything else has to be equal: the instructions, what
they refer to, the entries of special sections. This is asked of every function that differs, and there are thousands
after a change in a header. So the first difference of another kind ends it, and only instructions that differ are
decoded.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from kbuild_klp.checksum.section_entries import unused_strings
from kbuild_klp.lines.identity import Identities
from kbuild_klp.lines.immediates import differing_immediates
from kbuild_klp.lines.proof import Readings
from kbuild_klp.lines.roles import (
    NOTHING,
    Fields,
    LinesInText,
    Role,
    fields_of,
    fields_of_function,
    fields_of_variable,
    locations,
    role_of,
    stack_lines,
)
from kbuild_klp.lines.ubsan import has_more, holds_only_records, places_in_type, size_read
from kbuild_klp.lines.versions import Version
from kbuild_klp.object.function import goes_to_target, part_code
from kbuild_klp.object.meanings import KIND_SHIFT
from kbuild_klp.object.reference_text import describe
from kbuild_klp.object.special_entries import special_tables
from kbuild_klp.object.view import ObjectView

_FIELD = 4  # bytes of data that are read as one number, or as two
_LOW, _HIGH = slice(0, 2), slice(2, 4)
_PLACE = (1 << KIND_SHIFT) - 1
_DIGITS = re.compile(r"(\d+)")


class Number(NamedTuple):
    """A number that differs, and where: ``place`` in words, and for an immediate operand its ``instruction`` on both
    sides (part, offset). ``file`` is the source file if the field is known to hold a line; empty for a column, and for
    a line that stands without its file; None for any other number.
    """

    readings: Readings
    place: str
    instruction: tuple[tuple[int, int], tuple[int, int]] | None = None
    file: str | None = None


class DifferentError(Exception):
    """Something else than numbers differs."""


class Differences(NamedTuple):
    """The numbers in which two entries differ, and what else does that may be no change.

    ``identity``: what the builds say of themselves. ``empty``: what lies at the place of a variable without bytes;
    only the source tells which of the two a reference means. ``beside``: what follows the data that UBSAN reads.
    """

    numbers: list[Number]
    identity: bool
    empty: bool
    beside: bool


def differing_numbers(old: Version, new: Version, is_function: bool, identities: Identities) -> Differences | None:
    """Return the numbers in which two versions of an entry differ, None when anything else does."""
    if len(old.parts) != len(new.parts):
        return None
    comparison = _Comparison(old.view, new.view, identities)
    return comparison.differences(comparison.entries(old.parts, new.parts, is_function))


def differing_leftovers(old: ObjectView, new: ObjectView, section: str, identities: Identities) -> Differences | None:
    """Return the numbers that differ in what belongs to nobody in the sections of a name, None when anything else."""
    comparison = _Comparison(old, new, identities)
    found = comparison.differences(comparison.leftovers(section))
    if found is not None and all(number.file is not None for number in found.numbers):
        return found
    # Compilers leave the records of checks there that they found to be unnecessary. These may come and go.
    comparison = _Comparison(old, new, identities)
    without_records = comparison.differences(comparison.leftovers(section, without_records=True))
    return found if without_records is None else without_records._replace(beside=True)


def differing_content(
    old: ObjectView, new: ObjectView, references: Sequence[tuple[int, int]], identities: Identities
) -> Differences | None:
    """Return the numbers that differ in what pairs of references go to, wherever these are; None when more differs."""
    comparison = _Comparison(old, new, identities)
    before, after = ([pair[side] for pair in references] for side in (0, 1))
    return comparison.differences(comparison.content(before, after))


def distinct_uses(view: ObjectView, numbers: Sequence[Number], chosen: Sequence[int]) -> int:
    """Count the uses of some numbers in one version of a function; ``chosen`` are their indices in ``numbers``.

    Compilers copy code, to the ends of several branches for instance. Immediate operands are one use when the rest of
    the instruction is the same and the next branch out of the function goes to the same place.
    """
    instructions = {index: numbers[index].instruction for index in chosen}
    return len({_use(view, *where[0]) if where else index for index, where in instructions.items()})


def _use(view: ObjectView, part: int, offset: int) -> object:
    """Return how an instruction with an immediate operand is used: see distinct_uses."""
    data, starts, *_ = part_code(view, part)
    arch = view.architecture
    _, end = _instruction_at(starts, data, offset)
    instruction = data[offset:end]
    rest = int.from_bytes(instruction, arch.byteorder) & ~arch.immediate(instruction)
    for reference in view.reference_range(part):
        place = view.reference_place(part, reference)
        if place >= end and goes_to_target(view, part, place):
            return rest, len(instruction), *view.meanings.target(reference)[2:]
    return rest, len(instruction), offset


def _instruction_at(starts: Sequence[int], data: bytes, place: int) -> tuple[int, int]:
    """Return where the instruction with the byte at a place starts and ends; raises DifferentError if there is none."""
    at = bisect_right(starts, place)
    if not at:
        raise DifferentError
    return starts[at - 1], starts[at] if at < len(starts) else len(data)


class _Comparison:
    """One comparison. ``_seen`` are the nameless parts that were compared: they may refer to each other."""

    def __init__(self, old: ObjectView, new: ObjectView, identities: Identities) -> None:
        self.old = old
        self.new = new
        self.identity_differs = self.empty_differs = self.beside_differs = False
        self._identities = identities
        self._seen: set[tuple[int, int]] = set()

    def differences(self, numbers: Iterator[Number]) -> Differences | None:
        """Return what ``numbers``, from one of the methods below, yields and what it notes; None if it raises."""
        try:
            found = list(numbers)
        except DifferentError:
            return None
        return Differences(found, self.identity_differs, self.empty_differs, self.beside_differs)

    def entries(self, old_parts: Sequence[int], new_parts: Sequence[int], is_function: bool) -> Iterator[Number]:
        """Yield what differs between the parts of two entries; raises DifferentError."""
        for old_part, new_part in zip(old_parts, new_parts, strict=True):
            before, after = (view.data(part) for view, part in self._sides(old_part, new_part))
            old_rows, new_rows = self.old.reference_range(old_part), self.new.reference_range(new_part)
            is_in_place = len(before) == len(after) or not old_rows
            if not is_function and is_in_place and self._is_identity(before, after):
                before = after
            if len(before) != len(after) or len(old_rows) != len(new_rows):
                raise DifferentError
            known = (fields_of_function if is_function else fields_of_variable)(self.old, old_part)
            found = list(self._references(old_rows, new_rows, known=known))
            if is_function:
                yield from self._immediates(old_part, new_part, before, after, known)
            else:
                yield from self._fields(before, after, "", known)
            yield from found
        yield from self._special(old_parts, new_parts)

    def content(self, old: Sequence[int], new: Sequence[int]) -> Iterator[Number]:
        """Yield what differs in what references go to; raises DifferentError."""
        yield from self._references(old, new, [False] * len(old))

    def _sides(self, old_part: int, new_part: int) -> tuple[tuple[ObjectView, int], tuple[ObjectView, int]]:
        return (self.old, old_part), (self.new, new_part)

    def _is_identity(self, before: bytes, after: bytes) -> bool:
        """Say whether nothing but what the builds say of themselves differs, and note it."""
        found = self._identities.are_all_that_differs(before, after)
        self.identity_differs |= found
        return found

    # -- references -----------------------------------------------------------------------------------------------

    def _references(
        self,
        old: Sequence[int],
        new: Sequence[int],
        is_owner: Sequence[bool] = (),
        known: Fields = NOTHING,
        within: Role = Role.OTHER,
    ) -> Iterator[Number]:
        """Yield what differs in what references go to, where that is known by content.

        ``known`` are the fields of the data that the references are in, and ``within`` is what these data are for.
        """
        if not old:
            return
        before = self.old.meanings.rows[np.asarray(old, np.int64)]
        after = self.new.meanings.rows[np.asarray(new, np.int64)]
        # The first word is place and kind; the place of an entry of a special section is its field.
        how = before[:, 0] ^ after[:, 0]
        if (how >> np.uint64(KIND_SHIFT) if is_owner else how).any():
            raise DifferentError
        for at in (before[:, 1:] != after[:, 1:]).any(axis=1).nonzero()[0].tolist():
            x, y = old[at], new[at]
            variable = self.old.empty_variable(x)
            if variable and variable == self.new.empty_variable(y):
                self.empty_differs = True
                continue
            if self.old.target_offset(x) != self.new.target_offset(y):
                raise DifferentError
            if self.old.meanings.ordinals.get(x) != self.new.meanings.ordinals.get(y):
                raise DifferentError
            if is_owner and is_owner[at]:
                continue
            if self.old.memory(x) != self.new.memory(y):
                raise DifferentError
            if known.quiet and int(before[at, 0]) & _PLACE in known.quiet:
                self.identity_differs = True
            else:
                yield from self._content(x, y, old, within)

    def _content(self, old: int, new: int, users: Sequence[int], within: Role) -> Iterator[Number]:
        """Yield the numbers in which two strings or nameless parts differ."""
        before, after = self.old.string(old), self.new.string(new)
        if before is not None and after is not None:
            encoded = (text.encode("utf-8", "surrogateescape") for text in (before, after))
            if not self._is_identity(*encoded):
                lines = stack_lines(self.old, old, before), stack_lines(self.new, new, after)
                yield from _moved_lines(*lines, "in a string") or _digits(before, after)
            return
        old_part, new_part = self.old.content_part(old), self.new.content_part(new)
        if old_part is None or new_part is None:
            raise DifferentError
        if (old_part, new_part) in self._seen:
            return
        self._seen.add((old_part, new_part))
        # A record of UBSAN refers to types.
        role = within if within is Role.UBSAN else role_of(self.old, old_part, users)
        if role is Role.UBSAN:
            types = places_in_type(self.old, old_part), places_in_type(self.new, new_part)
            if moved := _moved_lines(*types, "in the name of a type"):
                yield from moved
                return
        known = fields_of(self.old, old_part, role, within)
        yield from self._nameless(old_part, new_part, describe(self.new, new), known, role)

    def _nameless(self, old_part: int, new_part: int, where: str, known: Fields, role: Role) -> Iterator[Number]:
        """Yield the numbers in which two nameless parts differ."""
        sides = self._sides(old_part, new_part)
        contents = [view.meanings.content.of(part) for view, part in sides]
        kinds = {int(view.canonical.parts.kind[part]) for view, part in sides}
        # Code without a name is the replacement of an alternative: it holds no line.
        if len(kinds) > 1 or any(view.is_code(part) for view, part in sides) or contents[0][2] != contents[1][2]:
            raise DifferentError
        rows: list[Sequence[int]] = [view.reference_range(part) for view, part in sides]
        # Zeros behind nameless data may be a part of it, or align what comes next.
        size = max(len(data) for data, _, _ in contents) if known is not NOTHING else len(contents[0][0])
        read = self._size_read(old_part, new_part) if role is Role.UBSAN else None
        if read is not None and read < size:
            size, self.beside_differs = read, True
            rows = [
                [row for row in own if view.reference_place(part, row) < read]
                for (view, part), own in zip(sides, rows, strict=True)
            ]
        was, is_ = (data[:size].ljust(size, b"\0") for data, _, _ in contents)
        if len(was) != len(is_) or len(rows[0]) != len(rows[1]):
            raise DifferentError
        yield from self._fields(was, is_, where, known)
        yield from self._references(rows[0], rows[1], known=known, within=role)

    def _size_read(self, old_part: int, new_part: int) -> int | None:
        """Return how many bytes UBSAN reads of both parts, None where that is all, not known, or not the same."""
        if not any(has_more(view, part) for view, part in self._sides(old_part, new_part)):
            return None
        before, after = (size_read(view, part) for view, part in self._sides(old_part, new_part))
        return before if before == after else None

    # -- what belongs to nobody -----------------------------------------------------------------------------------

    def leftovers(self, section: str, *, without_records: bool = False) -> Iterator[Number]:
        """Yield what differs in what no symbol covers and nobody refers to, in the sections of a name."""
        if not self._are_same_strings(section):
            raise DifferentError
        parts = [
            [part for part in view.nameless_parts(section) if not (without_records and holds_only_records(view, part))]
            for view in (self.old, self.new)
        ]
        if len(parts[0]) != len(parts[1]):
            raise DifferentError
        for old_part, new_part in zip(*parts, strict=True):
            before, after = self.old.data(old_part), self.new.data(new_part)
            rows = self.old.reference_range(old_part) or self.new.reference_range(new_part)
            if rows or not self._is_identity(before, after):
                yield from self._nameless(old_part, new_part, "", locations(self.old, old_part), Role.OTHER)

    def _are_same_strings(self, section: str) -> bool:
        """Say whether the strings that nobody refers to are the same but for what builds say of themselves."""
        before, after = (
            [text for at, texts in unused_strings(view.canonical) for text in texts if at in wanted]
            for view in (self.old, self.new)
            for wanted in [set(view.sections_called(section))]
        )
        pairs = list(zip(before, after, strict=False))
        return len(before) == len(after) and all(x == y or self._is_identity(x, y) for x, y in pairs)

    # -- bytes ----------------------------------------------------------------------------------------------------

    def _immediates(self, old_part: int, new_part: int, before: bytes, after: bytes, known: Fields) -> Iterator[Number]:
        """Yield the immediate operands that have another value; ``known.stamps`` are instructions that load one."""
        differing = _differing(before, after)
        if not differing:
            return
        arch = self.new.architecture
        starts = part_code(self.old, old_part).starts
        if starts != part_code(self.new, new_part).starts:
            raise DifferentError
        places = {self.new.reference_place(new_part, index) for index in self.new.reference_range(new_part)}
        end = 0
        for at in differing:
            if at < end:
                continue
            start, end = _instruction_at(starts, before, at)
            mask, size = arch.immediate(after[start:end]), end - start
            values = differing_immediates(arch, before[start:end], after[start:end])
            is_filled_in = any(mask & arch.bits_at(at, size) for at in range(size) if start + at in places)
            if not values or is_filled_in:
                raise DifferentError
            if start in known.stamps:
                self.identity_differs = True
                continue
            yield Number(values, f"at +{start:#x}", ((old_part, start), (new_part, start)))

    def _fields(self, before: bytes, after: bytes, where: str, known: Fields = NOTHING) -> Iterator[Number]:
        """Yield the fields of data in which two parts of one length differ."""
        at, byteorder = -_FIELD, self.new.architecture.byteorder
        for differing in _differing(before, after):
            if differing < at + _FIELD:
                continue
            at = differing - differing % _FIELD
            if at in known.stamps:
                self.identity_differs = True
                continue
            old, new = before[at : at + _FIELD], after[at : at + _FIELD]
            values = [(int.from_bytes(old, byteorder), int.from_bytes(new, byteorder))]
            for half, other in ((_LOW, _HIGH), (_HIGH, _LOW)):
                if old[other] == new[other]:
                    values.append((int.from_bytes(old[half], byteorder), int.from_bytes(new[half], byteorder)))
            file = known.lines.get(at)
            if file is None and known is not NOTHING:
                raise DifferentError  # the type that it is about, say
            yield Number(tuple(values), f"at +{at:#x}{f' of {where}' if where else ''}", file=file)

    # -- special sections -----------------------------------------------------------------------------------------

    def _special(self, old_parts: Sequence[int], new_parts: Sequence[int]) -> Iterator[Number]:
        """Yield what differs in what the special entries of a function refer to; the entries have to be equal."""
        for old_part, new_part in zip(old_parts, new_parts, strict=True):
            before, after = special_tables(self.old, old_part), special_tables(self.new, new_part)
            if [table.section for table in before] != [table.section for table in after]:
                raise DifferentError
            for x, y in zip(before, after, strict=True):
                if (x.starts, x.data, x.places) != (y.starts, y.data, y.places):
                    raise DifferentError
                yield from self._references(x.references, y.references, x.is_owner)


def _differing(before: bytes, after: bytes) -> list[int]:
    """Return the places at which two strings of bytes of one length differ."""
    if before == after:
        return []
    places: list[int] = (np.frombuffer(before, np.uint8) != np.frombuffer(after, np.uint8)).nonzero()[0].tolist()
    return places


def _moved_lines(was: LinesInText | None, is_: LinesInText | None, place: str) -> list[Number]:
    """Return the lines in which two texts differ; none where they are not of that kind, or more differs."""
    if was is None or is_ is None or was.rest != is_.rest:
        return []
    if [file for file, _ in was.lines] != [file for file, _ in is_.lines]:
        return []
    pairs = zip(was.lines, is_.lines, strict=True)
    return [Number(((x, y),), place, file=file) for (file, x), (_, y) in pairs if x != y]


def _digits(before: str, after: str) -> Iterator[Number]:
    """Yield the numbers in which two strings differ."""
    old, new = _DIGITS.split(before), _DIGITS.split(after)
    if len(old) != len(new) or old[::2] != new[::2]:
        raise DifferentError
    for x, y in zip(old[1::2], new[1::2], strict=True):
        if x != y:
            if max(len(x), len(y)) > 7 or x.startswith("0") or y.startswith("0"):
                raise DifferentError
            yield Number(((int(x), int(y)),), "in a string")
