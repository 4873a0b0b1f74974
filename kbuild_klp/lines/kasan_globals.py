# SPDX-License-Identifier: GPL-2.0-only
"""KASAN's constructors, which hand descriptors of all variables of a file to the kernel (struct kasan_global).

What a descriptor says follows from its variable: where it lies, how large it is and with what behind it, what it is
called. A variable that came, went or is another one is told of itself, and so is a string of who uses it; that they
are registered otherwise is told only where that does not follow.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from kbuild_klp.elf.symbol_names import canonical_name
from kbuild_klp.lines.roles import Role, role_of
from kbuild_klp.object.view import ObjectView

_SIZE = 64  # struct kasan_global: eight words
_VARIABLE, _LENGTH, _WHOLE, _NAME, _REST = 0, 8, 16, 24, 40  # of _REST on: has_dynamic_init, location, odr_indicator
_NUMBERED = re.compile(r"(\*\.LC|\.str|__unnamed_)\.?\d+")  # what compilers call constants that have no name
_REGISTER = ("__asan_register_globals", "__asan_unregister_globals")
_RETURN = "__x86_return_thunk"  # CONFIG_MITIGATION_RETHUNK
_MOST_CODE, _NO_CODE = 64, 16  # bytes: two arguments and a call; a return
_GRANULE = 32  # bytes to which the whole is rounded

_Descriptor = tuple[object, bytes, str | None, tuple[int, ...], tuple[int, int, int]]


class _Nameless(NamedTuple):
    """A variable that is known by its content; ``is_told`` says whether it is in the checksum of somebody else as well.

    The length is here so that none of these is resized.
    """

    content: tuple[int, ...]
    length: int
    is_told: bool


class _Registered(NamedTuple):
    """What a constructor registers: ``variables`` with what their descriptors say, in the end of their sizes.

    ``total`` is their number, ``table`` the part in which they are.
    """

    variables: Counter[_Descriptor]
    total: int
    table: int


def is_constructor(name: str) -> bool:
    """Say whether a function is one that the compiler made to be called before or behind all others."""
    return name.startswith(("_sub_", "_GLOBAL_", "asan.module_"))


def registers_the_same(old: ObjectView, new: ObjectView, old_parts: Sequence[int], new_parts: Sequence[int]) -> bool:
    """Say whether two versions of a constructor differ in nothing but in what follows from the variables."""
    if len(old_parts) != len(new_parts) or not old_parts:
        return False
    # What is before it, in a kernel with kCFI.
    if any(_all_of(old, x) != _all_of(new, y) for x, y in zip(old_parts[1:], new_parts[1:], strict=True)):
        return False
    before, after = _registered(old, old_parts[0]), _registered(new, new_parts[0])
    if before is None or after is None:
        return False
    if not _is_same_code(old, new, old_parts[0], new_parts[0], before, after):
        return False
    gone, come = before.variables - after.variables, after.variables - before.variables
    if any(isinstance(key[0], _Nameless) and not key[0].is_told for key in (*gone, *come)):
        return False
    # A variable of another size has another descriptor.
    resized = {key[:-1] for key in gone if any(key[:-1] == other[:-1] and _is_less(key, other) for other in come)}
    resized |= {key[:-1] for key in come if any(key[:-1] == other[:-1] and _is_less(key, other) for other in gone)}
    left = [{key[0] for key in side if key[:-1] not in resized} for side in (gone, come)]
    names = [_names(view) | {key[0] for key in side.variables} for view, side in ((old, before), (new, after))]
    return left[0].isdisjoint(names[1]) and left[1].isdisjoint(names[0])


def registers_what_is_told(
    view: ObjectView, other: ObjectView, parts: Sequence[int], other_parts: Sequence[int]
) -> bool:
    """Say whether a constructor registers, or takes back, nothing but what ``other`` does not have.

    ``other_parts`` are its own ones there: none, or one that does nothing (Clang makes it for each file). It is there
    because of the first variables of their file, which are told of themselves.
    """
    found = _registered(view, parts[0]) if parts else None
    if found is None or not _does_nothing(other, other_parts) or not _does_nothing(view, parts[1:]):
        return False
    if view.size(parts[0]) > _MOST_CODE or any(
        view.content_part(row) != found.table and _name(view, row) not in (*_REGISTER, _RETURN)
        for row in view.reference_range(parts[0])
    ):
        return False
    names, data = _names(other), other.canonical.image.buffer
    if any(it[0] in names or (isinstance(it[0], _Nameless) and not it[0].is_told) for it in found.variables):
        return False
    rows = [row for row in view.reference_range(found.table) if not view.reference_place(found.table, row) % _SIZE]
    return not any(_bytes(view, row) in data for row in rows if view.target_symbol(row) < 0)


def holds_only_descriptors(view: ObjectView, section: str) -> bool:
    """Say whether there is nothing in the sections of a name but tables of descriptors, and places that these name."""
    parts = view.canonical.parts
    own = np.isin(parts.section, view.sections_called(section)).nonzero()[0].tolist()
    # Ends at the first one that is something else.
    return all(_is_table(view, part) or _is_used_by_tables(view, part) for part in own)


def _is_table(view: ObjectView, part: int) -> bool:
    return role_of(view, part, view.references_to(part)) is Role.KASAN_GLOBALS


def _is_used_by_tables(view: ObjectView, part: int) -> bool:
    rows = view.references_to(part)
    users = {*view.canonical.parts.at(view.canonical.references.place[rows]).tolist()}
    return bool(users) and all(_is_table(view, user) for user in users)


def _does_nothing(view: ObjectView, parts: Sequence[int]) -> bool:
    """Say whether parts of a constructor are nothing but a return, and the hash of its type before it."""
    rows = [row for part in parts for row in view.reference_range(part)]
    return all(view.size(part) <= _NO_CODE for part in parts) and all(_name(view, row) == _RETURN for row in rows)


def _name(view: ObjectView, reference: int) -> str:
    symbol = view.target_symbol(reference)
    return view.object.symbol_name(symbol) if symbol >= 0 else ""


def _bytes(view: ObjectView, reference: int) -> bytes:
    """Return what a reference goes to that is known by its content, places that are filled in cleared."""
    text = view.string(reference)
    if text is not None:
        return text.encode("utf-8", "surrogateescape") + b"\0"
    # Without the redzone, which it did not have before it was registered.
    return view.data(int(view.canonical.targets.part[reference])).rstrip(b"\0") + b"\0"


def _all_of(view: ObjectView, part: int) -> tuple[bytes, list[tuple[object, ...]]]:
    return view.data(part), [(it.place, *it.key) for it in view.references(part)]


def _is_less(key: _Descriptor, other: _Descriptor) -> bool:
    """Say whether a variable is smaller, which its symbol tells, too, and what is behind it not less than before."""
    return key[-1][0] < other[-1][0] and key[-1][1] <= other[-1][1] and key[-1][2] < other[-1][2]


def _names(view: ObjectView) -> set[object]:
    """Return the names of all variables and functions of an object."""
    symbols = view.canonical.chunks.heads.tolist()
    return {canonical_name(name).text for name in view.object.names_of(symbols)}


def _registered(view: ObjectView, part: int) -> _Registered | None:
    rows = view.reference_range(part)
    tables = {view.content_part(row) for row in rows} - {None}
    table = tables.pop() if len(tables) == 1 else None
    if table is None or role_of(view, table, rows) is not Role.KASAN_GLOBALS:
        return None
    data, order = view.data(table), view.architecture.byteorder
    at = {view.reference_place(table, row): row for row in view.reference_range(table)}
    count = sum(place % _SIZE == _VARIABLE for place in at)
    if any(place >= count * _SIZE for place in at) or any(data[count * _SIZE :]) or len(data) < count * _SIZE:
        return None
    variables: Counter[_Descriptor] = Counter()
    for start in range(0, count * _SIZE, _SIZE):
        variable, name = at.get(start + _VARIABLE), at.get(start + _NAME)
        length, whole = (int.from_bytes(data[start + at : start + at + 8], order) for at in (_LENGTH, _WHOLE))
        if variable is None or name is None or view.target_offset(variable) or whole % _GRANULE or whole <= length:
            return None
        size, text = length, view.string(name)
        symbol, target = view.target_symbol(variable), int(view.canonical.targets.part[variable])
        if symbol >= 0:
            # Clang puts the redzone into what it does not share with other objects.
            size = int(view.object.symbols["size"][symbol])
            if size not in (length, whole):
                return None
            what: object = canonical_name(view.object.symbol_name(symbol)).text
            text = text and canonical_name(text).text
        elif target >= 0 and (nameless := _nameless(view, variable, target, length)) is not None:
            what = nameless
            text = text and _NUMBERED.sub(r"\1", canonical_name(text).text)
        else:
            return None
        fields = tuple(sorted(place - start for place in at if start <= place < start + _SIZE))
        rest = data[start + _REST : start + _SIZE]
        variables[what, rest, text, fields, (length, whole, size)] += 1
    return _Registered(variables, count, table)


def _is_told_by_others(view: ObjectView, reference: int) -> bool:
    """Say whether what a reference goes to, known by its content, is in the checksum of somebody else as well."""
    references = view.canonical.references
    users = (references.target == references.target[reference]).nonzero()[0].tolist()
    return any(user != reference for user in users)


def _nameless(view: ObjectView, reference: int, target: int, length: int) -> _Nameless | None:
    """Return a variable that is known by its content, None where that is not all of it."""
    text = view.string(reference)
    size = view.size(target) if text is None else len(text.encode("utf-8", "surrogateescape")) + 1
    if length > size:
        return None
    return _Nameless(view.meanings.target(reference)[2:], length, _is_told_by_others(view, reference))


def _is_same_code(
    old: ObjectView, new: ObjectView, old_part: int, new_part: int, before: _Registered, after: _Registered
) -> bool:
    """Say whether the code is the same, but for the number of descriptors, and what it refers to, but for these."""
    x, y, order = old.data(old_part), new.data(new_part), new.architecture.byteorder
    differing = [at for at, (was, is_) in enumerate(zip(x, y, strict=False)) if was != is_]
    if len(x) != len(y):
        return False
    if differing:
        # Both numbers are of one word, of which the last bytes may be the same.
        counts = [side.total.to_bytes(4, order) for side in (before, after)]
        if not any(
            (x[at : at + 4], y[at : at + 4]) == tuple(counts) and x[:at] + x[at + 4 :] == y[:at] + y[at + 4 :]
            for at in range(max(differing[0] - 3, 0), differing[0] + 1)
        ):
            return False
    elif before.total != after.total:
        return False
    return _meanings(old, old_part, before.table) == _meanings(new, new_part, after.table)


def _meanings(view: ObjectView, part: int, table: int) -> list[tuple[int, ...]]:
    """Return what a constructor refers to, and where; of the table of descriptors only that it does."""
    references = view.references(part)
    return [(it.place, *(it.key[:1] if view.content_part(it.row) == table else it.key)) for it in references]
