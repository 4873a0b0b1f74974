# SPDX-License-Identifier: GPL-2.0-only
"""The line numbers that an object carries in records of its own: bug table, dynamic debug descriptors, UBSAN's data.

Which sections these are, and where in an entry the line stands, says special.toml; UBSAN's data have no section of
their own, and are known by who uses them. The numbers are lines because the kernel's structures say so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from kbuild_klp.explain.view import ObjectView
from kbuild_klp.lines.numbers import UBSAN_LINE, own_references, source_file, ubsan_file

_LINE_SIZE = 4  # bytes of a line field, once taken out (canonical/owned.py)


class LineRecord(NamedTuple):
    """One line number in a record, and the source file that the record names (None: it names none)."""

    file: str | None
    line: int


class LineMove(NamedTuple):
    """A line record before and now: ``file`` as it is named now."""

    file: str | None
    old: int
    new: int


def line_records(view: ObjectView, parts: Sequence[int]) -> list[LineRecord]:
    """Return the line records of the parts of a function or variable, in order."""
    return [record for part in parts for record in _part_records(view, part)]


def line_moves(old: ObjectView, new: ObjectView, old_parts: Sequence[int], new_parts: Sequence[int]) -> list[LineMove]:
    """Return the line records of both versions of a function side by side, empty when they are not as many."""
    before, after = line_records(old, old_parts), line_records(new, new_parts)
    if len(before) != len(after) or [record.file for record in before] != [record.file for record in after]:
        return []
    return [LineMove(x.file, x.line, y.line) for x, y in zip(before, after, strict=True)]


def _part_records(view: ObjectView, part: int) -> Iterator[LineRecord]:
    for table in view.special_tables(part):
        for at, lines in enumerate(table.lines):
            inside = range(at * table.entry_size, (at + 1) * table.entry_size)
            rows = zip(table.references, table.places, strict=True)
            file = source_file(view, [reference for reference, place in rows if place in inside]) if lines else None
            for line in lines:
                yield LineRecord(file, line)
    references = own_references(view, part)
    for reference in references:
        target = view.content_part(reference)
        if target is not None:
            yield from _nameless_records(view, target, references)


def _nameless_records(view: ObjectView, part: int, users: Sequence[int]) -> Iterator[LineRecord]:
    """Yield the records in a nameless part that is referred to among ``users``."""
    taken = view.digests.record_lines.get(int(view.canonical.parts.section[part]))
    if taken is not None:
        base, size, rows = taken
        file = source_file(view, own_references(view, part))
        index = (int(view.canonical.parts.start[part]) - base) // size
        for line in _numbers(rows[index].tobytes()):
            yield LineRecord(file, line)
        return
    file = ubsan_file(view, part, users)
    if file is not None:
        data = view.digests.part_data(part)
        yield LineRecord(file, int.from_bytes(data[UBSAN_LINE : UBSAN_LINE + _LINE_SIZE], "little"))


def _numbers(taken: bytes) -> list[int]:
    return [int.from_bytes(taken[at : at + _LINE_SIZE], "little") for at in range(0, len(taken), _LINE_SIZE)]
