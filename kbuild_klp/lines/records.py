# SPDX-License-Identifier: GPL-2.0-only
"""The line numbers that an object carries in records of its own: bug table, dynamic debug descriptors, UBSAN's data.

They are lines because the kernel's structures say so. Records in sections of their own (special.toml) are read by
line_fields.py. UBSAN's and those of Rust's panics have no such section, and are known by the functions that they are
handed to (roles.py).
"""

from __future__ import annotations

from typing import NamedTuple

from kbuild_klp.lines.line_fields import line_fields
from kbuild_klp.lines.remembered import kept_with_view
from kbuild_klp.lines.roles import Role, fields_of, role_of
from kbuild_klp.lines.versions import Version
from kbuild_klp.object.view import ObjectView

_LINE_SIZE = 4  # u32 line in struct source_location (lib/ubsan.h), and in Rust's struct Location


class LineRecord(NamedTuple):
    """One line number in a record, and the source file that the record names (None: it names none)."""

    file: str | None
    line: int


class LineMove(NamedTuple):
    """A line number in a record, before and now; ``file`` is the one that the new record names."""

    file: str | None
    old: int
    new: int


def line_records(version: Version) -> list[LineRecord]:
    """Return the line records of a function or variable, in order."""
    return [record for part in version.parts for record in _part_records(version.view, part)]


def line_moves(old: Version, new: Version) -> list[LineMove]:
    """Return the line records of two versions side by side; nothing where they do not correspond."""
    before, after = line_records(old), line_records(new)
    if [record.file for record in before] != [record.file for record in after]:
        return []
    return [LineMove(x.file, x.line, y.line) for x, y in zip(before, after, strict=True)]


@kept_with_view  # most functions that differ are asked about three times
def _part_records(view: ObjectView, part: int) -> list[LineRecord]:
    found = [LineRecord(field.file, field.line) for field in line_fields(Version(view, [part]))]
    references = view.reference_range(part)
    for target in dict.fromkeys(map(view.content_part, view.content_rows(part))):
        if target is None or view.canonical.lines_of_record(target):
            continue
        role = role_of(view, target, references)
        if role in (Role.UBSAN, Role.PANIC):
            data = view.data(target)
            for place, file in fields_of(view, target, role).lines.items():
                if file:
                    line = data[place : place + _LINE_SIZE]
                    found.append(LineRecord(file, int.from_bytes(line, view.architecture.byteorder)))
    return found
