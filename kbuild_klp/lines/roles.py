# SPDX-License-Identifier: GPL-2.0-only
"""The fields of data that the compiler made to instrument code. They have no names, and are known by who uses them.

A field is a line number, or a stamp of the build, because the function that the data are passed to takes a structure
with such a field at that place. The section of the data says nothing; scripts/module.lds.S of 7.x puts them beside all
others.
"""

from __future__ import annotations

import enum
import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import NamedTuple

from kbuild_klp.lines import rust_panics
from kbuild_klp.lines.gcov_writeout import argument_stamps, writeout_stamps
from kbuild_klp.lines.line_fields import source_file
from kbuild_klp.lines.referring import called_next, part_with, target_name
from kbuild_klp.lines.remembered import kept_with_view
from kbuild_klp.object.view import ObjectView

# struct source_location in lib/ubsan.h, and struct kasan_source_location in mm/kasan/kasan.h: file, line, column.
LINE, COLUMN, LOCATION_SIZE = 8, 12, 16
# struct gcov_info in kernel/gcov/gcc_4_7.c: version, next, stamp, checksum (GCC 12), file name, then merge functions,
# and last the number of functions and the table of them.
_GCOV_STAMPS, _GCOV_FILE = (16, 20), 24
_TRACED_FILE = 2
# struct gcov_fn_info there: the key (gcov_info), then ident and lineno_checksum, both made of name, file and line.
_GCOV_FUNCTION, _GCOV_IDENT = "__gcov_.", (8, 12)


class Role(enum.Enum):
    """What nameless data are for. The value is the name of the function that they are passed to, or its beginning."""

    UBSAN = "__ubsan_handle_"
    """What UBSAN reports with: a struct source_location first, in some a second one behind it."""
    KASAN_GLOBALS = "__asan_register_globals"
    """An array of struct kasan_global: the places in the source that it refers to are known by their own form."""
    GCOV = "__gcov_init"
    """struct gcov_info."""
    PM_TRACE = "generate_pm_trace"
    """TRACE_RESUME() in arch/x86/include/asm/pm-trace.h: 2 bytes of a line, then the file."""
    PANIC = rust_panics.CORE
    """What a panic of Rust reports with (rust_panics.py)."""
    OTHER = ""


_CALLED = {
    "__asan_register_globals": Role.KASAN_GLOBALS,
    "__asan_unregister_globals": Role.KASAN_GLOBALS,
    "__gcov_init": Role.GCOV,
    "generate_pm_trace": Role.PM_TRACE,
}

_TAKERS = (Role.UBSAN.value, Role.PANIC.value, *_CALLED)
# struct type_descriptor: its kind (integer, floating, others) and what is known of it, then the name in quotes.
_TYPE = re.compile(rb"(?:\x00[\x00\x01]|\x01\x00|\xff\xff)..'[^\x00]+'\x00", re.S)


class Fields(NamedTuple):
    """The places of fields whose meaning is known: ``lines``, each with its file (empty: it is a column).

    ``stamps``, and what the references at the places ``quiet`` go to, only say how and where the data were made.
    """

    lines: dict[int, str]
    stamps: Sequence[int] = ()
    quiet: Sequence[int] = ()


NOTHING = Fields({})


class LinesInText(NamedTuple):
    """The lines that a text names, each with its file (empty: it is a column, or none is named), and all else in it."""

    rest: object
    lines: list[tuple[str, int]]


def role_of(view: ObjectView, part: int, users: Sequence[int]) -> Role:
    """Return what nameless data are for, going by those of ``users`` (references) that go to them."""
    if not users or not _has_takers(view):
        return Role.OTHER
    rows = view.references_to(part)
    among = users if isinstance(users, range) else frozenset(users)
    own = [
        user
        for user in rows[bisect_left(rows, min(among)) : bisect_right(rows, max(among))]
        if user in among and view.content_part(user) == part and view.target_offset(user) == 0
    ]
    roles = (_role_of_argument(view, part, called_next(view, user)) for user in own)
    found = next((role for role in roles if role is not Role.OTHER), Role.OTHER)
    if found is Role.OTHER and _names_type(view, part) and any(_reports(view, user) for user in own):
        return Role.UBSAN
    return found


def _names_type(view: ObjectView, part: int) -> bool:
    """Say whether data are a place in the source and behind it a type, as in most of UBSAN's records.

    Compilers make such types (struct type_descriptor in lib/ubsan.h) for nothing else. So a record is known also where
    it is loaded long before it is passed, as in front of a loop.
    """
    rows = {view.reference_place(part, row): row for row in view.reference_range(part)}
    if LOCATION_SIZE not in rows or LINE not in locations(view, part).lines:
        return False
    target = view.content_part(rows[LOCATION_SIZE])
    return target is not None and _TYPE.match(view.data(target)) is not None


def _reports(view: ObjectView, reference: int) -> bool:
    """Say whether a reference is in code that calls a function of UBSAN."""
    part = part_with(view, reference)
    return view.is_code(part) and any(
        target_name(view, row).startswith(Role.UBSAN.value) for row in view.reference_range(part)
    )


def _role_of_argument(view: ObjectView, part: int, function: str) -> Role:
    """Return what data are for that are passed to a function of a name."""
    if function.startswith(Role.UBSAN.value):
        return Role.UBSAN
    return Role.PANIC if rust_panics.is_passed(view, part, function) else _CALLED.get(function, Role.OTHER)


@kept_with_view
def _has_takers(view: ObjectView) -> bool:
    """Say whether a function that takes such data may be among the symbols of an object."""
    return any(name.encode() in view.object.strings for name in _TAKERS)


def fields_of(view: ObjectView, part: int, role: Role, within: Role = Role.OTHER) -> Fields:
    """Return what is known of the fields of nameless data; ``within`` is the role of the data that refer to them."""
    if role is Role.UBSAN or within is Role.KASAN_GLOBALS:
        return locations(view, part)
    if role is Role.PANIC:
        source = rust_panics.source_of(view, part)
        return Fields({rust_panics.LINE: source, rust_panics.COLUMN: ""}) if source else NOTHING
    if role is Role.GCOV:
        rows = view.reference_range(part)
        last = view.reference_place(part, rows[-1]) if rows else 0
        # The number and the table of functions: these have changes of their own.
        return Fields({}, (*_GCOV_STAMPS, last - 8), (_GCOV_FILE, last))
    if role is Role.PM_TRACE:
        rows = view.reference_range(part)
        file = source_file(view, rows[:1]) if rows and view.reference_place(part, rows[0]) == _TRACED_FILE else None
        # A field has 4 bytes: the two behind the line are filled by a relocation.
        return Fields({0: file}) if file else NOTHING
    stamps = argument_stamps(view, part)
    return Fields({}, stamps) if stamps else NOTHING


def fields_of_function(view: ObjectView, part: int) -> Fields:
    """Return what is known of the operands of a function: ``stamps`` are the places of instructions that load one."""
    found = writeout_stamps(view, part)
    return NOTHING if found is None else Fields({}, *found)


def fields_of_variable(view: ObjectView, part: int) -> Fields:
    """Return what is known of the fields of a variable."""
    rows = view.reference_range(part)
    if view.part_name(part).startswith(_GCOV_FUNCTION) and rows and view.reference_place(part, rows[0]) == 0:
        return Fields({}, _GCOV_IDENT, (0,))
    return NOTHING


def locations(view: ObjectView, part: int) -> Fields:
    """Return the places of lines and columns in data that are known to hold places in the source."""
    lines: dict[int, str] = {}
    for row in view.reference_range(part):
        place, file = view.reference_place(part, row), source_file(view, [row])
        if file is not None and place + LOCATION_SIZE <= view.size(part):
            lines |= {place + LINE: file, place + COLUMN: ""}
    return Fields(lines)


# ASAN's string about a function's variables on the stack: their number, and for each its offset, its size, the length
# of what follows, its name, and behind a colon the line that declares it (GCC: asan_emit_stack_protection; LLVM:
# ComputeASanStackFrameDescription). On the stack, a magic number stands before the pointer to it.
_STACK_MAGIC = 0x41B58AB3
_STACK_VARIABLE = re.compile(r" (\d+ \d+) (\d+) ")
_LINE_OF_NAME = re.compile(r"(.*):(\d{1,7})", re.S)


def stack_lines(view: ObjectView, reference: int, text: str) -> LinesInText | None:
    """Return the lines in KASAN's string about a function's variables, None for others."""
    count, magic = re.match(r"\d+(?= )", text), _STACK_MAGIC.to_bytes(4, view.architecture.byteorder)
    if count is None or magic not in view.data(part_with(view, reference)):
        return None
    said, lines, at = [count[0]], list[tuple[str, int]](), count.end()
    while match := _STACK_VARIABLE.match(text, at):
        at = match.end() + int(match[2])
        name = text[match.end() : at]
        found = _LINE_OF_NAME.fullmatch(name)
        said += [match[1], found[1] if found else name]
        if found:
            lines.append(("", int(found[2])))
    return LinesInText(said, lines) if at == len(text) and len(said) == 2 * int(count[0]) + 1 else None
