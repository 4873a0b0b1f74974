# SPDX-License-Identifier: GPL-2.0-only
"""Tables whose entries belong to functions: alternatives, exception table, jump labels, bug table and so on.

Each entry is given to the part into which its `owner` reference points. The entries of one owner stand behind each
other, those of one table in their order, which is the order in which the kernel applies them.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kbuild_klp.object.canonical import CanonicalObject
from kbuild_klp.object.image import OwnedTable
from kbuild_klp.special.table import LineField

NOBODY = -1
"""The owner of entries that point to no part of the image."""


class OwnedEntries(NamedTuple):
    """The entries of all special sections that belong to others, sorted by owner, then by section name.

    One row an entry: ``owner`` the part, ``table`` an index into ``tables``. Its bytes, references and line fields
    cleared, are ``data[data_at[i] : data_at[i + 1]]``; its references the rows ``reference_at[i]`` to
    ``reference_at[i + 1]`` of these: ``references`` indices into References, ``field`` the place in the entry,
    ``is_owner`` marks those that name the owner.
    ``lines`` are the line numbers taken out, by part; ``unused`` the references to content of which an entry uses
    nothing (an alternative that replaces by nothing points at whatever lies there).
    """

    tables: list[OwnedTable]
    owner: NDArray[np.int64]
    table: NDArray[np.int64]
    data: bytes
    data_at: NDArray[np.int64]
    references: NDArray[np.int64]
    reference_at: NDArray[np.int64]
    field: NDArray[np.int64]
    is_owner: NDArray[np.bool_]
    lines: dict[int, bytes]
    unused: list[int]


class _Table(NamedTuple):
    """One section: a row an entry (``entries``, ``owner``, ``counts`` of references), a row a reference (the rest)."""

    entries: NDArray[np.uint8]
    owner: NDArray[np.int64]
    counts: NDArray[np.int64]
    references: NDArray[np.int64]
    field: NDArray[np.int64]
    is_owner: NDArray[np.bool_]


def take_lines(entries: NDArray[np.uint8], fields: tuple[LineField, ...]) -> NDArray[np.uint8]:
    """Clear the line fields of ``entries`` (shape n, size) in place; return what was in them (shape n, 4 * fields)."""
    taken = np.zeros((len(entries), 4 * len(fields)), np.uint8)
    for index, field in enumerate(fields):
        # A field of up to 32 bits in little-endian order: whole bytes first, then the low bits of the next.
        for byte in range((field.bits + 7) // 8):
            mask = (1 << min(8, field.bits - 8 * byte)) - 1
            taken[:, 4 * index + byte] = entries[:, field.offset + byte] & mask
            entries[:, field.offset + byte] &= 0xFF ^ mask
    return taken


def _read_table(canonical: CanonicalObject, table: OwnedTable) -> _Table:
    image, references, targets = canonical.image, canonical.references, canonical.targets
    base, size = int(image.base[table.section]), table.entry_size
    count = int(image.object.sections["size"][table.section]) // size
    entries = image.data[base : base + count * size].reshape(count, size)
    low, high = np.searchsorted(references.place, [base, base + count * size]).tolist()
    record, field = np.divmod(references.place[low:high] - base, size)
    is_owner = field == table.row.owner
    owner = np.full(count, NOBODY, np.int64)
    owner[record[is_owner]] = targets.part[low:high][is_owner]
    return _Table(entries, owner, np.bincount(record, minlength=count), np.arange(low, high), field, is_owner)


def _unused_content(table: OwnedTable, read: _Table) -> list[int]:
    """Return the references of a table to content of no length."""
    content = table.row.content
    if content is None:
        return []
    is_empty = read.entries[:, content.length % table.entry_size] == 0
    unused = np.repeat(is_empty, read.counts) & (read.field == content.reference)
    found: list[int] = read.references[unused].tolist()
    return found


def _add_lines(lines: dict[int, bytes], owner: NDArray[np.int64], taken: NDArray[np.uint8]) -> None:
    """Add the line numbers of a table's entries to those of their owners."""
    order = np.argsort(owner, kind="stable")
    owner = owner[order]
    text = taken[order].tobytes()
    bounds = [0, *((owner[1:] != owner[:-1]).nonzero()[0] + 1).tolist(), len(owner)]
    size = taken.shape[1]
    for start, end in itertools.pairwise(bounds):
        part = int(owner[start])
        lines[part] = lines.get(part, b"") + text[start * size : end * size]


def _starts(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where each of several runs starts when they stand behind each other, and where the last one ends."""
    starts = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=starts[1:])
    return starts


def sort_by_owner(canonical: CanonicalObject) -> OwnedEntries:
    """Read all special sections of an object and sort their entries by the part that owns them."""
    image, names = canonical.image, canonical.object.section_names
    # By name: their order in the object is that of first use, which any function may change.
    tables = [image.owned[section] for section in sorted(image.owned, key=lambda index: (names[index], index))]
    lines: dict[int, bytes] = {}
    none = np.empty(0, np.int64)
    if not tables:
        zero = np.zeros(1, np.int64)
        return OwnedEntries([], none, none, b"", zero, none, zero, none, none.astype(bool), lines, [])
    read = []
    unused = []
    for table in tables:
        found = _read_table(canonical, table)
        unused += _unused_content(table, found)
        if table.row.lines:
            found = found._replace(entries=found.entries.copy())
            _add_lines(lines, found.owner, take_lines(found.entries, table.row.lines))
        read.append(found)

    owner = np.concatenate([found.owner for found in read])
    lengths = [len(found.owner) for found in read]
    order = np.argsort(owner, kind="stable")
    data_at = _starts(np.repeat([table.entry_size for table in tables], lengths)[order])
    place = np.empty(len(order), np.int64)
    place[order] = data_at[:-1]
    data = np.empty(int(data_at[-1]), np.uint8)
    start = 0
    for found in read:
        end = start + len(found.owner)
        data[place[start:end, None] + np.arange(found.entries.shape[1])] = found.entries
        start = end

    counts = np.concatenate([found.counts for found in read])
    first = _starts(counts)[:-1][order]
    reference_at = _starts(counts[order])
    rows = np.arange(reference_at[-1]) + np.repeat(first - reference_at[:-1], counts[order])
    return OwnedEntries(
        tables,
        owner[order],
        np.repeat(np.arange(len(tables)), lengths)[order],
        data.tobytes(),
        data_at,
        np.concatenate([found.references for found in read])[rows],
        reference_at,
        np.concatenate([found.field for found in read])[rows],
        np.concatenate([found.is_owner for found in read])[rows],
        lines,
        unused,
    )
