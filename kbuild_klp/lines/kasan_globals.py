# SPDX-License-Identifier: GPL-2.0-only
"""KASAN's constructors, which hand descriptors of all variables of a file to the kernel (struct kasan_global).

What a descriptor says follows from its variable: where that lies, its size with and without the redzone, its name. A
variable that came, went or changed is a change of its own, and so is a string of the function that uses it. That they
are registered differently is a change only where it does not follow from these.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from typing import NamedTuple

import numpy as np

from kbuild_klp.elf.symbol_names import canonical_name
from kbuild_klp.lines.referring import content, target_name, users
from kbuild_klp.lines.roles import Role, role_of
from kbuild_klp.lines.versions import Version
from kbuild_klp.object.parts import NAMED
from kbuild_klp.object.view import ObjectView

_SIZES = (64, 56)  # struct kasan_global: eight words, seven by GCC 5, without odr_indicator (KASAN_ABI_VERSION)
# From _REST on: has_dynamic_init, location, odr_indicator.
_VARIABLE, _LENGTH, _WHOLE, _NAME, _MODULE, _REST = 0, 8, 16, 24, 32, 40
_NUMBERED = re.compile(r"(\*\.LC|\.str|__unnamed_)\.?\d+")  # what compilers call constants that have no name
_REGISTER = ("__asan_register_globals", "__asan_unregister_globals")
_RETURN = "__x86_return_thunk"  # CONFIG_MITIGATION_RETHUNK
_MOST_CODE, _NO_CODE = 64, 16  # bytes: two arguments and a call; a return
_GRANULE = 32  # bytes that the size with the redzone is a multiple of


class _Nameless(NamedTuple):
    """A variable that is known by its content; ``is_told`` says whether other checksums cover it as well.

    With another length it is another variable: only those with a name are resized.
    """

    content: tuple[int, ...]
    length: int
    is_told: bool


class _Descriptor(NamedTuple):
    """What a descriptor says: ``fields`` are the places of its references, ``rest`` is what nothing else here covers.

    ``sizes`` are those of the variable, of the variable with its redzone, and of its symbol.
    """

    variable: str | _Nameless
    rest: bytes
    name: str | None
    fields: tuple[int, ...]
    sizes: tuple[int, int, int]

    def is_smaller(self, other: _Descriptor) -> bool:
        """Say whether the same variable is smaller here, as its symbol says as well, and its redzone no larger."""
        (length, whole, size), (other_length, other_whole, other_size) = self.sizes, other.sizes
        return self[:-1] == other[:-1] and length < other_length and whole <= other_whole and size < other_size

    @property
    def is_untold(self) -> bool:
        """Whether only the constructor's checksum covers the variable."""
        return isinstance(self.variable, _Nameless) and not self.variable.is_told


class _Registered(NamedTuple):
    """What a constructor registers: the descriptors, the part that they are in, the bytes of each."""

    descriptors: Counter[_Descriptor]
    table: int
    size: int


def is_constructor(name: str) -> bool:
    """Say whether a function is one that the compiler made to run before or after all others."""
    return name.startswith(("_sub_", "_GLOBAL_", "asan.module_"))


def registers_the_same(old: Version, new: Version) -> bool:
    """Say whether two versions of a constructor differ in nothing but in what follows from the variables."""
    if len(old.parts) != len(new.parts) or not old.parts:
        return False
    # With kCFI, the hash of its type is before it.
    rest = zip(old.parts[1:], new.parts[1:], strict=True)
    if any(content(old.view, x) != content(new.view, y) for x, y in rest):
        return False
    before, after = _registered(old), _registered(new)
    if before is None or after is None or not _is_same_code(old, new, before, after):
        return False
    gone, come = before.descriptors - after.descriptors, after.descriptors - before.descriptors
    if any(descriptor.is_untold for descriptor in (*gone, *come)):
        return False
    # A variable of another size has another descriptor.
    resized = {x[:-1] for x in gone for y in come if x.is_smaller(y) or y.is_smaller(x)}
    left = [{descriptor.variable for descriptor in side if descriptor[:-1] not in resized} for side in (gone, come)]
    counts = [(_named(version.view), _registered_names(side)) for version, side in ((old, before), (new, after))]
    # Several may share a name: how many of them are registered follows from the variables if all are.
    in_both = {x.variable for x in gone} & {y.variable for y in come}
    in_other = [
        name
        for here, (named, registered) in zip(left, counts[::-1], strict=True)
        for name in here
        if named[name] or registered[name]
    ]
    return in_both.isdisjoint(in_other) and all(
        named[name] == registered[name] for named, registered in counts for name in in_other
    )


def registers_what_other_lacks(version: Version, other: Version) -> bool:
    """Say whether a constructor registers, or unregisters, nothing but what the other object does not have.

    Its version there is missing, or does nothing (Clang makes one for each file). It exists because of the first
    variables of its file, which are changes of their own.
    """
    view, found = version.view, _registered(version) if version.parts else None
    if found is None or not _does_nothing(other) or not _does_nothing(Version(view, version.parts[1:])):
        return False
    head = version.parts[0]
    if view.size(head) > _MOST_CODE or any(
        view.content_part(row) != found.table and target_name(view, row) not in (*_REGISTER, _RETURN)
        for row in view.reference_range(head)
    ):
        return False
    names, data = _names(other.view), other.view.canonical.image.buffer
    if any(descriptor.variable in names or descriptor.is_untold for descriptor in found.descriptors):
        return False
    rows = [row for row in view.reference_range(found.table) if not view.reference_place(found.table, row) % found.size]
    return not any(_bytes(view, row) in data for row in rows if view.target_symbol(row) < 0)


def holds_only_descriptors(view: ObjectView, section: str) -> bool:
    """Say whether the sections of a name hold only tables of descriptors, and places that these refer to."""
    parts = view.canonical.parts
    own = np.isin(parts.section, view.sections_called(section)).nonzero()[0].tolist()
    return all(_is_table(view, part) or _is_used_by_tables(view, part) for part in own)


def _is_table(view: ObjectView, part: int) -> bool:
    return role_of(view, part, view.references_to(part)) is Role.KASAN_GLOBALS


def _is_used_by_tables(view: ObjectView, part: int) -> bool:
    parts = {user for _, user in users(view, part)}
    return bool(parts) and all(_is_table(view, user) for user in parts)


def _does_nothing(version: Version) -> bool:
    """Say whether parts of a constructor are nothing but a return, and the hash of its type before it."""
    view, parts = version
    rows = [row for part in parts for row in view.reference_range(part)]
    return all(view.size(part) <= _NO_CODE for part in parts) and all(target_name(view, row) == _RETURN for row in rows)


def _bytes(view: ObjectView, reference: int) -> bytes:
    """Return what a reference goes to that is known by its content, with the fields of relocations cleared."""
    text = view.string(reference)
    if text is not None:
        return text.encode("utf-8", "surrogateescape") + b"\0"
    # Without the redzone, which it did not have before it was registered.
    return view.data(int(view.canonical.targets.part[reference])).rstrip(b"\0") + b"\0"


def _names(view: ObjectView) -> set[object]:
    """Return the names of all variables and functions of an object."""
    symbols = view.canonical.chunks.heads.tolist()
    return {canonical_name(name).text for name in view.object.names_of(symbols)}


def _named(view: ObjectView) -> Counter[object]:
    """Count the variables and functions of an object that are known by each name; compilers may number several."""
    parts = view.canonical.parts
    symbols = view.canonical.chunks.heads[parts.chunk[parts.kind == NAMED]].tolist()
    return Counter(canonical_name(name).text for name in view.object.names_of(symbols))


def _registered_names(registered: _Registered) -> Counter[object]:
    """Count the variables of each name that a constructor registers."""
    return Counter(descriptor.variable for descriptor in registered.descriptors.elements())


def _registered(constructor: Version) -> _Registered | None:
    """Return what a constructor registers, None for other functions and tables that are not understood."""
    view, rows = constructor.view, constructor.view.reference_range(constructor.parts[0])
    tables = {view.content_part(row) for row in rows} - {None}
    table = tables.pop() if len(tables) == 1 else None
    if table is None or role_of(view, table, rows) is not Role.KASAN_GLOBALS:
        return None
    return next(filter(None, (_registered_by(view, table, size) for size in _SIZES)), None)


def _registered_by(view: ObjectView, table: int, size: int) -> _Registered | None:
    """Read a table of descriptors that have a size; None if they have another one, or are not understood."""
    data, references = view.data(table), defaultdict[int, dict[int, int]](dict)
    for row in view.reference_range(table):
        number, field = divmod(view.reference_place(table, row), size)
        references[number][field] = row
    count = sum({_VARIABLE, _NAME, _MODULE} <= fields.keys() for fields in references.values())
    if max(references, default=-1) >= count or any(data[count * size :]) or len(data) < count * size:
        return None
    found = [_descriptor(view, data[at * size : (at + 1) * size], references[at]) for at in range(count)]
    descriptors = Counter(descriptor for descriptor in found if descriptor is not None)
    return _Registered(descriptors, table, size) if descriptors.total() == count else None


def _descriptor(view: ObjectView, data: bytes, references: dict[int, int]) -> _Descriptor | None:
    """Read one descriptor, with its ``references`` by place; None if it is not understood."""
    variable, name, order = references.get(_VARIABLE), references.get(_NAME), view.architecture.byteorder
    length, whole = (int.from_bytes(data[at : at + 8], order) for at in (_LENGTH, _WHOLE))
    if variable is None or name is None or view.target_offset(variable) or whole % _GRANULE or whole <= length:
        return None
    size, text = length, view.string(name)
    text = text and canonical_name(text).text
    symbol, target = view.target_symbol(variable), int(view.canonical.targets.part[variable])
    what: str | _Nameless | None
    if symbol >= 0:
        # Clang puts the redzone into what it does not share with other objects.
        size = int(view.object.symbols["size"][symbol])
        what = canonical_name(target_name(view, variable)).text if size in (length, whole) else None
    else:
        what = _nameless(view, variable, target, length) if target >= 0 else None
        text = text and _NUMBERED.sub(r"\1", text)
    if what is None:
        return None
    return _Descriptor(what, data[_REST:], text, tuple(sorted(references)), (length, whole, size))


def _nameless(view: ObjectView, reference: int, target: int, length: int) -> _Nameless | None:
    """Return a variable that is known by its content, None where that is not all of it."""
    text = view.string(reference)
    size = view.size(target) if text is None else len(text.encode("utf-8", "surrogateescape")) + 1
    if length > size:
        return None
    # Whether any other reference goes to the same place.
    targets = view.canonical.references.target
    return _Nameless(view.meanings.target(reference)[2:], length, int((targets == targets[reference]).sum()) > 1)


def _is_same_code(old: Version, new: Version, before: _Registered, after: _Registered) -> bool:
    """Say whether two constructors have the same code but for the number of descriptors and what these refer to."""
    x, y, order = old.view.data(old.parts[0]), new.view.data(new.parts[0]), new.view.architecture.byteorder
    was, is_ = (side.descriptors.total().to_bytes(4, order) for side in (before, after))
    is_same = x == y
    if was != is_:
        places = (at for at in range(len(x)) if x.startswith(was, at))
        is_same = any(x[:at] + is_ + x[at + len(is_) :] == y for at in places)
    return is_same and _meanings(old, before.table) == _meanings(new, after.table)


def _meanings(constructor: Version, table: int) -> list[tuple[int, ...]]:
    """Return what a constructor refers to, and where; of the table of descriptors only that it does."""
    view, parts = constructor
    return [
        (it.place, *(it.key[:1] if view.content_part(it.row) == table else it.key)) for it in view.references(parts[0])
    ]
