# SPDX-License-Identifier: GPL-2.0-only
"""The entries of special sections that belong to a part: field by field in words, or as tables of numbers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from kbuild_klp.object.reference_text import describe
from kbuild_klp.object.special_groups import SpecialGroup
from kbuild_klp.object.view import ObjectView
from kbuild_klp.special.table import SpecialSection


class EntryField(NamedTuple):
    """A field of an entry of a special section.

    ``text`` is its value in words, ``meaning`` equal for fields that mean the same, and ``loose`` also for those that
    differ in nothing but places in the function itself, which are others when instructions come or go before them;
    ``row`` is the index in References (None: a number).
    """

    name: str
    text: str
    meaning: tuple[object, ...]
    loose: object
    row: int | None


class SpecialEntry(NamedTuple):
    """One entry of a special section.

    ``part`` is what it belongs to and ``place`` where in it (bytes); ``owner`` is the kind of relocation that says
    so; ``fields`` are the others, in order.
    """

    part: int
    place: int
    owner: int
    fields: tuple[EntryField, ...]


class EntryTable(NamedTuple):
    """The entries of one special section that belong to one part.

    ``data`` are their bytes, ``starts`` where each begins in them; ``references`` indices into References, ``entries``
    of which entry each is, ``places`` where it stands in ``data``, ``is_owner`` whether it names the part; ``lines``
    the line numbers of each entry.
    """

    section: str
    starts: list[int]
    data: bytes
    references: list[int]
    entries: list[int]
    places: list[int]
    is_owner: list[bool]
    lines: list[list[int]]


def special_entries(view: ObjectView, parts: Sequence[int]) -> dict[str, list[SpecialEntry]]:
    """Return the special entries of some parts, by section name."""
    found: dict[str, list[SpecialEntry]] = defaultdict(list)
    for part in parts:
        for group, data, references, field in owned_entries(view, part):
            owner = references[field]
            place = int(view.canonical.references.target[owner] - view.canonical.parts.start[part])
            kind = int(view.canonical.references.kind[owner])
            fields = tuple(_fields(view, group.row, data, references, field, parts))
            found[group.name].append(SpecialEntry(part, place, kind, fields))
    return found


def special_tables(view: ObjectView, part: int) -> list[EntryTable]:
    """Return the special entries of a part by table, without words."""
    owned = view.canonical.owned
    low, high = view.owned_entries.get(part, (0, 0))
    if low == high:
        return []
    numbers = np.frombuffer(owned.lines.get(part, b""), "<u4").tolist()
    groups, ends = owned.group[low:high].tolist(), owned.reference_at[low : high + 1].tolist()
    first = ends[0]
    references, is_owner = owned.references[first : ends[-1]].tolist(), owned.is_owner[first : ends[-1]].tolist()
    places = owned.field[first : ends[-1]].tolist()
    data_at = owned.data_at[low : high + 1].tolist()
    found = []
    at = 0
    while at < len(groups):
        group, end = owned.groups[groups[at]], at + groups.count(groups[at])
        rows = range(ends[at] - first, ends[end] - first)
        starts = [data_at[entry] - data_at[at] for entry in range(at, end)]
        entries = [entry for entry in range(end - at) for _ in range(ends[at + entry], ends[at + entry + 1])]
        for row, entry in zip(rows, entries, strict=True):
            places[row] += starts[entry]
        fields = len(group.row.lines)
        lines = [numbers[fields * entry : fields * (entry + 1)] for entry in range(end - at)]
        numbers = numbers[fields * (end - at) :]
        data = owned.data[data_at[at] : data_at[end]]
        mine = slice(rows.start, rows.stop)
        found.append(
            EntryTable(group.name, starts, data, references[mine], entries, places[mine], is_owner[mine], lines)
        )
        at = end
    return found


def owned_entries(view: ObjectView, part: int) -> Iterator[tuple[SpecialGroup, bytes, dict[int, int], int]]:
    """Yield the entries that a part owns: table, bytes, index in References by place in the entry, and which of these
    places names the part.
    """
    owned = view.canonical.owned
    for entry in range(*view.owned_entries.get(part, (0, 0))):
        first, last = owned.reference_at[entry : entry + 2].tolist()
        fields, indices = owned.field[first:last].tolist(), owned.references[first:last].tolist()
        data = owned.data[owned.data_at[entry] : owned.data_at[entry + 1]]
        references = dict(zip(fields, indices, strict=True))
        owner = fields[owned.is_owner[first:last].tolist().index(True)]  # or nobody would own it
        yield owned.groups[int(owned.group[entry])], data, references, owner


def _fields(
    view: ObjectView, row: SpecialSection, data: bytes, references: dict[int, int], owner: int, family: Collection[int]
) -> Iterator[EntryField]:
    """Yield the fields of an entry but for ``owner``; those of a layout without names end where references do."""
    lines = {field.offset for field in row.lines}
    kinds = view.canonical.references.kind
    ends = () if row.names else [at + view.kinds.field_size(int(kinds[own])) for at, own in references.items()]
    starts = sorted({0, *row.names, *references, *ends})
    for start, end in zip(starts, [*starts[1:], len(data)], strict=True):
        name = row.names.get(start, f"+{start:#x}")
        index = references.get(start)
        if start == owner or start in lines or start >= len(data):
            continue
        if index is not None:
            ((_, key),) = view.meaning_rows(index, index + 1)
            inner = view.inner_target(index, family)
            text = f"+{inner[1]:#x}" if inner else describe(view, index)
            # Digests knows an alternative that is replaced by nothing by no content.
            if row.content and row.content.reference == start and view.content_part(index) is None:
                text = "nothing"
            yield EntryField(name, text, key, "inner" if inner else _loose(view, index, key, family), index)
        else:
            value = data[start:end]
            number = int.from_bytes(value, view.architecture.byteorder)
            text = str(number) if start in row.names else value.hex()
            yield EntryField(name, text, (value,), (value,), None)


def _loose(view: ObjectView, index: int, key: tuple[int, ...], family: Collection[int]) -> object:
    """Return what a reference out of the function means, but for where code without a name goes back into it."""
    part = view.content_part(index)
    if part is None or not view.is_code(part):
        return key
    references = view.references(part)
    return view.data(part), tuple(
        (own.place, "inner" if view.inner_target(own.row, family) else own.key) for own in references
    )
