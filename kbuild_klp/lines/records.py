# SPDX-License-Identifier: GPL-2.0-only
"""The line numbers that an object carries in records of its own: bug table, dynamic debug descriptors, UBSAN's data.

Those in sections of their own (special.toml) are read by line_fields.py; UBSAN's data have none, and are known by who
uses them. The numbers are lines because the kernel's structures say so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple
from weakref import WeakKeyDictionary

from kbuild_klp.lines.line_fields import line_fields
from kbuild_klp.lines.roles import Role, fields_of, role_of
from kbuild_klp.object.view import ObjectView

_LINE_SIZE = 4  # u32 line in struct source_location (lib/ubsan.h)


class LineRecord(NamedTuple):
    """One line number in a record, and the source file that the record names (None: it names none)."""

    file: str | None
    line: int


class LineMove(NamedTuple):
    """A line record before and now: ``file`` as it is named now."""

    file: str | None
    old: int
    new: int


# What was read of a view, for as long as it is there: of most functions that differ it is asked three times.
_known: WeakKeyDictionary[ObjectView, dict[int, list[LineRecord]]] = WeakKeyDictionary()


def line_records(view: ObjectView, parts: Sequence[int]) -> list[LineRecord]:
    """Return the line records of the parts of a function or variable, in order."""
    known = _known.setdefault(view, {})
    for part in parts:
        if part not in known:
            known[part] = list(_part_records(view, part))
    return [record for part in parts for record in known[part]]


def line_moves(old: ObjectView, new: ObjectView, old_parts: Sequence[int], new_parts: Sequence[int]) -> list[LineMove]:
    """Return the line records of both versions of a function side by side, empty when they are not as many."""
    before, after = line_records(old, old_parts), line_records(new, new_parts)
    if len(before) != len(after) or [record.file for record in before] != [record.file for record in after]:
        return []
    return [LineMove(x.file, x.line, y.line) for x, y in zip(before, after, strict=True)]


def _part_records(view: ObjectView, part: int) -> Iterator[LineRecord]:
    for field in line_fields(view, [part]):
        yield LineRecord(field.file, field.line)
    users = view.reference_range(part)
    for target in dict.fromkeys(map(view.content_part, view.content_rows(part))):
        if target is None or view.canonical.lines_of_record(target):
            continue
        if role_of(view, target, users) is Role.UBSAN:
            data = view.data(target)
            for place, file in fields_of(view, target, Role.UBSAN).lines.items():
                if file:
                    line = data[place : place + _LINE_SIZE]
                    yield LineRecord(file, int.from_bytes(line, view.architecture.byteorder))
