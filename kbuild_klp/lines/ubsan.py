# SPDX-License-Identifier: GPL-2.0-only
"""What UBSAN reports with: records that code passes to its functions, and the types that these records name.

The records of checks that the compiler found to be unnecessary stay in the object, and nobody refers to them. Where
such a record follows another one, or a type, only the structure that is read says where that ends.
"""

from __future__ import annotations

import re
from itertools import pairwise

from kbuild_klp.lines.referring import called_next, users
from kbuild_klp.lines.remembered import kept_with_view
from kbuild_klp.lines.roles import COLUMN, LINE, LOCATION_SIZE, LinesInText, Role, locations
from kbuild_klp.object.view import ObjectView

# The sizes in bytes of the structures in lib/ubsan.h (compiler-rt/lib/ubsan/ubsan_handlers.h) on 64-bit machines, by
# the functions that they are passed to.
_RECORD_SIZES = (
    dict.fromkeys(("builtin_unreachable", "missing_return", "pointer_overflow"), 16)
    | dict.fromkeys((f"{what}_overflow" for what in ("add", "sub", "mul", "negate", "divrem")), 24)
    | dict.fromkeys(("load_invalid_value", "vla_bound_not_positive", "function_type_mismatch", "invalid_builtin"), 24)
    | dict.fromkeys(("out_of_bounds", "shift_out_of_bounds", "type_mismatch_v1"), 32)
    | dict.fromkeys(("nonnull_arg", "alignment_assumption", "implicit_conversion"), 40)
)
_MOST_RECORD = 64  # the longest, and the padding before the next
_ABORTS = "_abort"  # the variant that does not return
# struct type_descriptor there: kind and info, two bytes each, then the name.
_TYPE_NAME = 4
# Clang calls a type without a name after its place: (anonymous struct at FILE:LINE:COLUMN), and so on.
_PLACE = re.compile(rb"(?<= at )([^\s\0]+\.[ch]):(\d{1,7}):(\d{1,7})(?=\))")


def is_of_ubsan(view: ObjectView, part: int) -> bool:
    """Say whether data are nothing but what UBSAN reports with: a place in the source, or a type that such data name.

    All that refers to them passes them to a function of UBSAN, or is such data. At run time UBSAN only notes in them
    that a place was reported (test_and_set_bit() in lib/ubsan.c, was_reported). Nobody refers to the record of a check
    that the compiler found to be unnecessary: it may stand behind a type, and be taken for a part of it.
    """
    if not view.references_to(part):
        return False
    seen, waiting = {part}, [part]
    while waiting:
        part = waiting.pop()
        for row, user in users(view, part):
            is_record = LINE in locations(view, part).lines and called_next(view, row).startswith(Role.UBSAN.value)
            if view.target_offset(row) or not (is_record if view.is_code(user) else _is_in_record(view, user, row)):
                return False
            if not view.is_code(user) and user not in seen:
                seen.add(user)
                waiting.append(user)
    return True


def places_in_type(view: ObjectView, part: int) -> LinesInText | None:
    """Return the places in the name of a type, None for what is no type's descriptor, or that of one with a name."""
    data = view.data(part)
    found = list(_PLACE.finditer(data, _TYPE_NAME))
    if not found or view.reference_range(part) or b"\0" in data[_TYPE_NAME:].rstrip(b"\0"):
        return None
    numbers = [
        (text, int(number))
        for one in found
        for text, number in ((one[1].decode(errors="backslashreplace"), one[2]), ("", one[3]))
    ]
    return LinesInText(_PLACE.sub(rb"\1", data).rstrip(b"\0"), numbers)


def holds_only_records(view: ObjectView, part: int) -> bool:
    """Say whether data that nobody refers to are records, each of a place in the source and one or two types.

    Before the first and between them may be zeros, which align them.
    """
    places = {view.reference_place(part, row): row for row in view.reference_range(part)}
    starts = sorted(place - LINE for place in locations(view, part).lines if place - LINE in places)
    data, free = view.data(part), {*places} - {*starts}
    if not starts or any(data[: starts[0]]):
        return False
    for start, end in pairwise((*starts, len(data))):
        types = [place for place in free if start < place < end]
        if min(types, default=0) != start + LOCATION_SIZE or end - start > _MOST_RECORD:
            return False
        if any(view.content_part(places[place]) is None for place in types):
            return False
        free -= {*types}
    return not free


def _is_in_record(view: ObjectView, part: int, row: int) -> bool:
    """Say whether a reference is in data behind a place in the source."""
    column = view.reference_place(part, row) - (LOCATION_SIZE - COLUMN)
    return any(place <= column for place in locations(view, part).lines)


def has_more(view: ObjectView, part: int) -> bool:
    """Say whether something may stand behind a record or a type: a place in the source that is not the record's."""
    lines = locations(view, part).lines
    return len(lines) > (len((LINE, COLUMN)) if LINE in lines else 0)


@kept_with_view  # many records name one type
def size_read(view: ObjectView, part: int) -> int | None:
    """Return how many bytes UBSAN reads of a record or a type, None if that is not known, or others may refer to it."""
    if not is_of_ubsan(view, part):
        return None
    sizes = {
        _record_size(view, row) if view.is_code(user) else _type_size(view, part) for row, user in users(view, part)
    }
    return None if None in sizes else max(size for size in sizes if size is not None)


def _record_size(view: ObjectView, row: int) -> int | None:
    return _RECORD_SIZES.get(called_next(view, row).removeprefix(Role.UBSAN.value).removesuffix(_ABORTS))


def _type_size(view: ObjectView, part: int) -> int | None:
    return view.data(part).find(0, _TYPE_NAME) + 1 or None
