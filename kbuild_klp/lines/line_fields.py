# SPDX-License-Identifier: GPL-2.0-only
"""Line numbers that a function carries outside its instructions: in the bug table, dynamic debug descriptors and so on.

special.toml says which sections have them, and where in an entry.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from kbuild_klp.changes.wording import Code, Reason
from kbuild_klp.lines.versions import Version
from kbuild_klp.object.owned import LINE_SIZE
from kbuild_klp.object.place import Place
from kbuild_klp.object.special_entries import special_tables
from kbuild_klp.object.view import ObjectView
from kbuild_klp.special.table import SOURCE_NAME


class PlacedLine(NamedTuple):
    """One line number: its section, the place in the function that it is about, and the source file that is named
    beside it (None: there is none).
    """

    section: str
    place: Place
    file: str | None
    line: int


def line_fields(version: Version) -> list[PlacedLine]:
    """Return the line numbers in the records of a function or variable, in order."""
    return [field for part in version.parts for field in _fields(version, part)]


def source_file(view: ObjectView, references: Sequence[int]) -> str | None:
    """Return the first string that ``references`` point to and that can be the name of a source file."""
    strings = map(view.string, references)
    return next((text for text in strings if text and SOURCE_NAME.fullmatch(text)), None)


def line_reasons(old: Version, new: Version) -> Iterator[Reason]:
    """Yield a reason for each line number outside the instructions that differs between two versions of a function."""
    for x, y in zip(line_fields(old), line_fields(new), strict=False):
        if x.line != y.line:
            file = {"file": y.file} if y.file else {}
            yield Reason.of(Code.LINE_IN_RECORD, x.line, y.line, y.place, section=y.section, **file)


def _fields(version: Version, part: int) -> Iterator[PlacedLine]:
    view = version.view
    name = "" if part == version.parts[0] else view.part_name(part)
    start = int(view.canonical.parts.start[part])
    users: list[tuple[int, int | None]] = [(row, None) for row in view.rows_to_lines(part)]
    for table in special_tables(view, part) if view.entries_have_lines(part) else ():
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
    # Records without an owner are known by their content, and several instructions may refer to one; or by name.
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
    for at in range(0, len(data), LINE_SIZE):
        yield PlacedLine(section, place, file, int.from_bytes(data[at : at + LINE_SIZE], "little"))
