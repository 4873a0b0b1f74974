# SPDX-License-Identifier: GPL-2.0-only
"""Tables whose entries belong to functions: alternatives, exception table, jump labels, bug table and so on.

Each entry is given to the part into which its `owner` reference points. The entries of one owner keep their order,
which is the order in which the kernel applies them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kbuild_klp.canonical import CanonicalObject
from kbuild_klp.canonical.image import OwnedTable
from kbuild_klp.special import LineField

NOBODY = -1
"""The owner of entries that point to no part of the image."""


class OwnerSlice(NamedTuple):
    """The entries of one owner: rows ``start`` to ``end`` of the table, references ``low`` to ``high``."""

    part: int
    start: int
    end: int
    low: int
    high: int


class SortedTable(NamedTuple):
    """One special section, its entries sorted by owner.

    ``data`` their bytes with references and line fields cleared; ``lines`` the line fields, ``line_size`` bytes an
    entry; ``references`` indices into References, ``places`` where each stands counted from its owner's first entry;
    ``owner_references`` marks those that name the owner.
    """

    section: int
    table: OwnedTable
    data: bytes
    lines: bytes
    line_size: int
    references: NDArray[np.int64]
    places: NDArray[np.int64]
    owner_references: NDArray[np.bool_]
    owners: list[OwnerSlice]

    def special_bytes(self, name: bytes, owner: OwnerSlice, rows: memoryview) -> bytes:
        """Return what is hashed of one owner's entries; ``rows`` are its reference rows."""
        size = self.table.entry_size
        data = self.data[owner.start * size : owner.end * size]
        return b"".join((name, b"\0%d\0" % (owner.end - owner.start), data, rows))


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


def sort_by_owner(canonical: CanonicalObject, table: OwnedTable) -> SortedTable:
    """Sort the entries of one table by the part that owns them."""
    image, references, targets = canonical.image, canonical.references, canonical.targets
    base, size = int(image.base[table.section]), table.entry_size
    count = int(image.object.sections["size"][table.section]) // size
    entries = image.data[base : base + count * size].reshape(count, size)
    low, high = np.searchsorted(references.place, [base, base + count * size]).tolist()
    record, field = np.divmod(references.place[low:high] - base, size)
    is_owner = field == table.row.owner

    owner = np.full(count, NOBODY, np.int64)
    owner[record[is_owner]] = targets.part[low:high][is_owner]
    order = np.argsort(owner, kind="stable")
    rank = np.empty(count, np.int64)
    rank[order] = np.arange(count)
    entries = entries[order]
    lines = take_lines(entries, table.row.lines)
    place = rank[record] * size + field
    by_place = np.argsort(place, kind="stable")
    place = place[by_place]

    owner = owner[order]
    first = np.concatenate([[0], (owner[1:] != owner[:-1]).nonzero()[0] + 1]) if count else np.empty(0, np.int64)
    bounds = np.concatenate([first, [count]])
    cuts = np.searchsorted(place, bounds * size)
    owners = list(
        map(
            OwnerSlice,
            owner[first].tolist(),
            bounds[:-1].tolist(),
            bounds[1:].tolist(),
            cuts[:-1].tolist(),
            cuts[1:].tolist(),
        )
    )
    return SortedTable(
        table.section,
        table,
        entries.tobytes(),
        lines.tobytes(),
        lines.shape[1],
        np.arange(low, high)[by_place],
        place - np.repeat(first * size, cuts[1:] - cuts[:-1]),
        is_owner[by_place],
        owners,
    )
