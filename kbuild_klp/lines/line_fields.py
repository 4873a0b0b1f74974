# SPDX-License-Identifier: GPL-2.0-only
"""Line numbers that a function carries outside of its instructions: in the bug table, dynamic debug descriptors etc.

Which sections these are, and where in an entry the number stands, says special.toml.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from kbuild_klp.changes.reasons import Code, Reason
from kbuild_klp.object.place import Place
from kbuild_klp.object.special_entries import special_tables
from kbuild_klp.object.view import ObjectView
from kbuild_klp.special.table import SOURCE_NAME

_LINE_SIZE = 4  # bytes of a line field, once taken out (canonical/owned.py)


class PlacedLine(NamedTuple):
    """One line number: the section that holds it, the place in the function that it is about, and the
    source file that stands beside it (None: it names none).
    """

    section: str
    place: Place
    file: str | None
    line: int


def line_fields(view: ObjectView, parts: Sequence[int]) -> list[PlacedLine]:
    """Return the line numbers in the records of the parts of a function or variable, in order."""
    return [field for part in parts for field in _fields(view, part, parts)]


def source_file(view: ObjectView, references: Sequence[int]) -> str | None:
    """Return the first of the strings to which ``references`` point that can be the name of a source file."""
    strings = map(view.string, references)
    return next((text for text in strings if text and SOURCE_NAME.fullmatch(text)), None)


def line_reasons(
    old: ObjectView, new: ObjectView, old_parts: Sequence[int], new_parts: Sequence[int]
) -> Iterator[Reason]:
    """Yield the line numbers outside of the instructions that differ between two versions of a function."""
    for x, y in zip(line_fields(old, old_parts), line_fields(new, new_parts), strict=False):
        if x.line == y.line:
            continue
        file = {"file": y.file} if y.file else {}
        yield Reason.of(Code.LINE_IN_RECORD, x.line, y.line, y.place, section=y.section, **file)


def _fields(view: ObjectView, part: int, parts: Sequence[int]) -> Iterator[PlacedLine]:
    name = "" if part == parts[0] else view.part_name(part)
    start = int(view.canonical.parts.start[part])
    users: list[tuple[int, int | None]] = [(row, None) for row in view.known_by_content(part)]
    for table in special_tables(view, part):
        owners: dict[int, int] = {}
        others: dict[int, list[int]] = defaultdict(list)
        for row, entry, is_owner in zip(table.references, table.entries, table.is_owner, strict=True):
            if is_owner:
                owners.setdefault(entry, row)
            others[entry].append(row)
        for at, lines in enumerate(table.lines):
            references, owner = others[at], owners.get(at)
            place = int(view.canonical.references.target[owner]) - start if owner is not None else 0
            users += [(row, place) for row in references if row != owner and row in view.meanings.by_content]
            for line in lines:
                yield PlacedLine(table.section, Place(name, place), source_file(view, references), line)
    # Records that have no owner are known by content; several instructions may refer to one. Or by name.
    seen = {part}
    yield from _record_fields(view, part, Place(name, 0))
    for row, owner_place in users:
        record = view.content_part(row)
        if record is not None and record not in seen and view.canonical.lines_of_record(record):
            seen.add(record)
            place = view.reference_place(part, row) if owner_place is None else owner_place
            yield from _record_fields(view, record, Place(name, place))


def _record_fields(view: ObjectView, record: int, place: Place) -> Iterator[PlacedLine]:
    data = view.canonical.lines_of_record(record)
    section = view.object.section_names[int(view.canonical.parts.section[record])]
    file = source_file(view, [reference.row for reference in view.references(record)]) if data else None
    for at in range(0, len(data), _LINE_SIZE):
        yield PlacedLine(section, place, file, int.from_bytes(data[at : at + _LINE_SIZE], "little"))
