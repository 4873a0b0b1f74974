# SPDX-License-Identifier: GPL-2.0-only
"""Tables whose entries belong to functions: alternatives, exception table, jump labels, bug table and so on.

Each entry is given to the part into which its `owner` reference points. The entries of one owner stand behind each
other, those of one table in their order, which is the order in which the kernel applies them. Line numbers are taken
out of them, and out of records (sections of variables of one layout): they are kept apart from all else.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kbuild_klp.object.image import Image
from kbuild_klp.object.references import References
from kbuild_klp.object.runs import Numbers, narrow, run_bounds, run_rows, run_starts
from kbuild_klp.object.special_groups import SpecialGroup
from kbuild_klp.object.targets import Targets, rows_of_group
from kbuild_klp.special.table import LineField

NOBODY = -1
"""The owner of entries that point to no part of the image."""

LINE_SIZE = 4
"""Bytes of a line number that was taken out: little-endian, whatever the object is."""


class OwnedEntries(NamedTuple):
    """The entries of all special sections that belong to others, sorted by owner, then by section name.

    One row an entry: ``owner`` the part, ``group`` an index into ``groups``. Its bytes, references and line fields
    cleared, are ``data[data_at[i] : data_at[i + 1]]``; its references the rows ``reference_at[i]`` to
    ``reference_at[i + 1]`` of these: ``references`` indices into References, ``field`` the place in the entry,
    ``is_owner`` marks those that name the owner.
    ``lines`` are the line numbers taken out, by part; ``unused`` the references to content of which an entry uses
    nothing (an alternative that replaces by nothing points at whatever lies there).
    """

    groups: list[SpecialGroup]
    owner: Numbers
    group: Numbers
    data: bytes
    data_at: Numbers
    references: Numbers
    reference_at: Numbers
    field: Numbers
    is_owner: NDArray[np.bool_]
    lines: dict[int, bytes]
    unused: NDArray[np.int64]


class RecordLines(NamedTuple):
    """The line numbers taken out of a section of records: its linear address, the size of a record, a row a record."""

    base: int
    size: int
    rows: NDArray[np.uint8]


class _Table(NamedTuple):
    """A group of tables: a row an entry (``entries`` in bytes, ``sizes``, ``owner``, ``counts`` of references), a row a
    reference (the rest). Entries of a layout that no row knows stand behind each other in one row.
    """

    entries: NDArray[np.uint8]
    sizes: NDArray[np.int64]
    owner: NDArray[np.int64]
    counts: NDArray[np.int64]
    references: NDArray[np.int64]
    field: NDArray[np.int64]
    is_owner: NDArray[np.bool_]


def take_lines(entries: NDArray[np.uint8], fields: tuple[LineField, ...], byteorder: str) -> NDArray[np.uint8]:
    """Clear the line fields of ``entries`` (shape n, size) in place; return what was in them (shape n, 4 * fields).

    A field is the lowest bits of a word, where compilers put the first bit field on little-endian machines; on
    big-endian ones that are its highest. The word has as few bytes as hold the field, or four if that is a part of one.
    """
    taken = np.zeros((len(entries), LINE_SIZE * len(fields)), np.uint8)
    for index, field in enumerate(fields):
        whole, rest = divmod(field.bits, 8)
        size = LINE_SIZE if rest else whole
        word = np.zeros(len(entries), np.uint32)
        for byte in range(size):
            shift = 8 * (byte if byteorder == "little" else size - 1 - byte)
            word |= entries[:, field.offset + byte].astype(np.uint32) << np.uint32(shift)
        low = 0 if byteorder == "little" else 8 * size - field.bits
        mask = ((1 << field.bits) - 1) << low
        for byte in range(size):
            shift = 8 * (byte if byteorder == "little" else size - 1 - byte)
            entries[:, field.offset + byte] &= 0xFF ^ (mask >> shift & 0xFF)
        line = (word & np.uint32(mask)) >> np.uint32(low)
        taken[:, LINE_SIZE * index : LINE_SIZE * (index + 1)] = line.astype("<u4")[:, None].view(np.uint8)
    return taken


def _content(image: Image, group: SpecialGroup) -> NDArray[np.uint8]:
    """Return the entries of a group, one a row: a copy.

    Padding that the last one of a section lacks is read from behind it, where there are zeros as well.
    """
    start, size = image.base[group.sections], group.entry_size
    counts = group.entry_counts(image.objects)
    first = np.repeat(start, counts) + (run_rows(np.zeros(len(counts), np.int64), counts) * size)
    entries: NDArray[np.uint8] = image.data[first[:, None] + np.arange(size)]
    return entries


def _read_group(image: Image, group: SpecialGroup, references: References, targets: Targets) -> _Table:
    if group.cuts is None:
        entries = _content(image, group)
        sizes = np.full(len(entries), group.entry_size)
    else:
        [section] = group.sections.tolist()
        entries = image.data[None, image.base[section] : image.base[section] + group.cuts.end]
        sizes = np.diff(group.cuts.start, append=group.cuts.end)
    found = rows_of_group(image, group, references)
    owner = np.full(len(sizes), NOBODY, np.int64)
    owner[found.entry[found.is_owner]] = targets.part[found.rows[found.is_owner]]
    counts = np.bincount(found.entry, minlength=len(sizes))
    return _Table(entries, sizes, owner, counts, found.rows, found.field, found.is_owner)


def _unused_content(group: SpecialGroup, read: _Table) -> NDArray[np.int64]:
    """Return the references of a group to content of no length."""
    content = group.row.content
    if content is None:
        return read.references[:0]
    is_empty = read.entries[:, content.length % group.entry_size] == 0
    unused: NDArray[np.int64] = read.references[np.repeat(is_empty, read.counts) & (read.field == content.reference)]
    return unused


def _add_lines(lines: dict[int, bytes], owner: NDArray[np.int64], taken: NDArray[np.uint8]) -> None:
    """Add the line numbers of a group's entries to those of their owners."""
    order = np.argsort(owner, kind="stable")
    order = order[np.searchsorted(owner, NOBODY, "right", sorter=order) :]
    owner = owner[order]
    text, size = taken[order].tobytes(), taken.shape[1]
    starts, ends = run_bounds(owner)
    for part, start, end in zip(owner[starts].tolist(), starts.tolist(), ends.tolist(), strict=True):
        lines[part] = lines.get(part, b"") + text[start * size : end * size]


def take_record_lines(image: Image) -> dict[int, RecordLines]:
    """Clear the line numbers in sections of records, and return what was in them, by section."""
    taken = {}
    for group in image.records:
        for section in group.sections.tolist() if group.row.lines else ():
            base, size = int(image.base[section]), group.entry_size
            count = int(image.objects.sections["size"][section]) // size
            view = image.data[base : base + count * size].reshape(count, size)
            taken[section] = RecordLines(base, size, take_lines(view, group.row.lines, image.architecture.byteorder))
    return taken


def sort_by_owner(image: Image, references: References, targets: Targets) -> OwnedEntries:
    """Read all special sections of a batch and sort their entries by the part that owns them."""
    lines: dict[int, bytes] = {}
    none = np.empty(0, np.int64)
    if not image.owned:
        zero = np.zeros(1, np.int64)
        return OwnedEntries([], none, none, b"", zero, none, zero, none, none.astype(bool), lines, none)
    read = []
    for group in image.owned:
        found = _read_group(image, group, references, targets)
        read.append(found)
        if group.row.lines:
            _add_lines(lines, found.owner, take_lines(found.entries, group.row.lines, image.architecture.byteorder))

    owner = np.concatenate([found.owner for found in read])
    lengths = [len(found.owner) for found in read]
    order = np.argsort(owner, kind="stable")
    data_at = run_starts(np.concatenate([found.sizes for found in read])[order])
    place = np.empty(len(order), np.int64)
    place[order] = data_at[:-1]
    data = np.empty(int(data_at[-1]), np.uint8)
    for found, start in _with_starts(read, lengths):
        mine = place[start : start + len(found.owner)]
        if len(found.entries) == len(mine):
            data[mine[:, None] + np.arange(found.entries.shape[1])] = found.entries
        else:
            data[run_rows(mine, found.sizes)] = found.entries[0]

    counts = np.concatenate([found.counts for found in read])
    rows = run_rows(run_starts(counts)[:-1][order], counts[order])
    return OwnedEntries(
        image.owned,
        narrow(owner[order]),
        narrow(np.repeat(np.arange(len(read)), lengths)[order]),
        data.tobytes(),
        narrow(data_at),
        narrow(np.concatenate([found.references for found in read])[rows]),
        narrow(run_starts(counts[order])),
        narrow(np.concatenate([found.field for found in read])[rows]),
        np.concatenate([found.is_owner for found in read])[rows],
        lines,
        np.concatenate([_unused_content(group, found) for group, found in zip(image.owned, read, strict=True)]),
    )


def _with_starts(read: list[_Table], lengths: list[int]) -> Iterator[tuple[_Table, int]]:
    """Yield groups with the number of entries before each."""
    start = 0
    for found, length in zip(read, lengths, strict=True):
        yield found, start
        start += length
