# SPDX-License-Identifier: GPL-2.0-only
"""What UBSAN reports with: records that code hands to its functions, and the types that these records name.

The records of checks that the compiler found to be unnecessary stay behind, and nobody refers to them. Where such a
record stands behind another, or behind a type, nothing says where that ends but the structure that is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from weakref import WeakKeyDictionary

from kbuild_klp.lines.roles import COLUMN, LINE, LOCATION_SIZE, Role, called_next, locations
from kbuild_klp.object.view import ObjectView

# The structures of lib/ubsan.h (compiler-rt/lib/ubsan/ubsan_handlers.h) on 64-bit machines, in bytes, by the functions
# to which they are handed.
_RECORD_SIZES = (
    dict.fromkeys(("builtin_unreachable", "missing_return", "pointer_overflow"), 16)
    | dict.fromkeys((f"{what}_overflow" for what in ("add", "sub", "mul", "negate", "divrem")), 24)
    | dict.fromkeys(("load_invalid_value", "vla_bound_not_positive", "function_type_mismatch", "invalid_builtin"), 24)
    | dict.fromkeys(("out_of_bounds", "shift_out_of_bounds", "type_mismatch_v1"), 32)
    | dict.fromkeys(("nonnull_arg", "alignment_assumption", "implicit_conversion"), 40)
)
_MOST_RECORD = 64  # the longest, and what aligns the next
_ABORTS = "_abort"  # the same, and does not come back
# struct type_descriptor there: kind and what it is of, two bytes each, then the name.
_TYPE_NAME = 4


def is_of_ubsan(view: ObjectView, part: int) -> bool:
    """Say whether data are nothing but what UBSAN reports with: a place in the source, or a type that such data name.

    All who refer to them hand them to a function of UBSAN, or are such data. What changes in them is whether a place
    was reported (test_and_set_bit() in lib/ubsan.c, was_reported). To the record of a check that the compiler found to
    be unnecessary nobody refers: it may stand behind a type, and be taken for a part of it.
    """
    if not view.references_to(part):
        return False
    seen, waiting = {part}, [part]
    while waiting:
        part = waiting.pop()
        for row, user in _users(view, part):
            is_record = _begins_with_place(view, part) and called_next(view, row).startswith(Role.UBSAN.value)
            if view.target_offset(row) or not (is_record if view.is_code(user) else _is_in_record(view, user, row)):
                return False
            if not view.is_code(user) and user not in seen:
                seen.add(user)
                waiting.append(user)
    return True


def holds_only_records(view: ObjectView, part: int) -> bool:
    """Say whether data to which nobody refers are records, each of a place in the source and a type or two.

    Before the first, which is aligned, and between them are zeros at most where a record may end.
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
    """Say whether a reference stands in data behind a place in the source."""
    column = view.reference_place(part, row) - (LOCATION_SIZE - COLUMN)
    return any(place <= column for place in locations(view, part).lines)


def _begins_with_place(view: ObjectView, part: int) -> bool:
    return LINE in locations(view, part).lines


def has_more(view: ObjectView, part: int) -> bool:
    """Say whether something may stand behind a record or a type: another place in the source than that of a record."""
    lines = locations(view, part).lines
    return len(lines) > (len((LINE, COLUMN)) if LINE in lines else 0)


# What was found of a view, for as long as it is there: many records name one type.
_known: WeakKeyDictionary[ObjectView, dict[int, int | None]] = WeakKeyDictionary()


def size_read(view: ObjectView, part: int) -> int | None:
    """Return how many bytes UBSAN reads of a record or a type, None if that is not known, or others may refer to it."""
    known = _known.setdefault(view, {})
    if part not in known:
        known[part] = _size_read(view, part)
    return known[part]


def _size_read(view: ObjectView, part: int) -> int | None:
    if not is_of_ubsan(view, part):
        return None
    sizes = {
        _record_size(view, row) if view.is_code(user) else _type_size(view, part) for row, user in _users(view, part)
    }
    known = [size for size in sizes if size is not None]
    return max(known) if len(known) == len(sizes) else None


def _record_size(view: ObjectView, row: int) -> int | None:
    return _RECORD_SIZES.get(called_next(view, row).removeprefix(Role.UBSAN.value).removesuffix(_ABORTS))


def _type_size(view: ObjectView, part: int) -> int | None:
    return view.data(part).find(0, _TYPE_NAME) + 1 or None


def _users(view: ObjectView, part: int) -> Iterator[tuple[int, int]]:
    """Yield the references to a part, each with the part in which it stands."""
    rows = view.references_to(part)
    yield from zip(rows, view.canonical.parts.at(view.canonical.references.place[rows]).tolist(), strict=True)
