# SPDX-License-Identifier: GPL-2.0-only
"""Tables whose entries belong to functions: alternatives, exception table, jump labels, bug table and so on.

Each entry is given to the part into which its `owner` reference points. The entries of one owner keep their order,
which is the order in which the kernel applies them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kbuild_klp.canonical import CanonicalObject
from kbuild_klp.canonical.image import OwnedTable
from kbuild_klp.special import LineField


class OwnedEntries(NamedTuple):
    """The entries of one special section that belong to one part.

    ``part`` the owner (-1: nobody's); ``section`` their section; ``count`` how many; ``data`` their bytes with
    references and line fields cleared; ``lines`` the line fields; ``references`` the indices of their references;
    ``places`` where these stand in ``data``; ``owner_references`` marks those that name the owner.
    """

    part: int
    section: int
    count: int
    data: bytes
    lines: bytes
    references: NDArray[np.int64]
    places: NDArray[np.int64]
    owner_references: NDArray[np.bool_]


def take_lines(entries: NDArray[np.uint8], fields: tuple[LineField, ...]) -> NDArray[np.uint8]:
    """Clear the line fields of ``entries`` (shape n, size) in place; return what was in them (shape n, 4 * fields)."""
    taken = np.zeros((len(entries), 4 * len(fields)), np.uint8)
    for index, field in enumerate(fields):
        # A field of up to 32 bits in little-endian order: whole bytes first, then the low bits of the next.
        for byte in range((field.bits + 7) // 8):
            bits = min(8, field.bits - 8 * byte)
            mask = (1 << bits) - 1
            taken[:, 4 * index + byte] = entries[:, field.offset + byte] & mask
            entries[:, field.offset + byte] &= 0xFF ^ mask
    return taken


def owned_entries(canonical: CanonicalObject, table: OwnedTable) -> Iterator[OwnedEntries]:
    """Yield the entries of one table, owner by owner."""
    image, references, targets = canonical.image, canonical.references, canonical.targets
    base, size = int(image.base[table.section]), table.entry_size
    count = int(image.object.sections["size"][table.section]) // size
    entries = image.data[base : base + count * size].reshape(count, size)
    low, high = np.searchsorted(references.place, [base, base + count * size]).tolist()
    index = np.arange(low, high)
    record, field = np.divmod(references.place[low:high] - base, size)
    is_owner = field == table.row.owner

    owner = np.full(count, -1, np.int64)
    owner[record[is_owner]] = targets.part[low:high][is_owner]
    order = np.argsort(owner, kind="stable")
    rank = np.empty(count, np.int64)
    rank[order] = np.arange(count)
    entries = entries[order]
    lines = take_lines(entries, table.row.lines)
    by_rank = np.argsort(rank[record] * size + field, kind="stable")
    index, is_owner = index[by_rank], is_owner[by_rank]
    place = (rank[record] * size + field)[by_rank]

    owner = owner[order]
    first = np.flatnonzero(np.append(True, owner[1:] != owner[:-1])) if count else np.empty(0, np.int64)
    bounds = np.append(first, count)
    reference_bounds = np.searchsorted(place, bounds * size)
    for i, start in enumerate(first.tolist()):
        end = int(bounds[i + 1])
        a, b = int(reference_bounds[i]), int(reference_bounds[i + 1])
        yield OwnedEntries(
            int(owner[start]),
            table.section,
            end - start,
            entries[start:end].tobytes(),
            lines[start:end].tobytes(),
            index[a:b],
            place[a:b] - start * size,
            is_owner[a:b],
        )
