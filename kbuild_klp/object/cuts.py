# SPDX-License-Identifier: GPL-2.0-only
"""Tables of a layout that nobody told us: cut into entries by where they refer to functions.

What is known of such a section is where its relocations stand, and which of them go to functions of the object. Where
they repeat at one distance, that is the size of an entry, and the first of them that always goes to a function names
the owner. Where they do not, an entry begins at each reference to a function, and goes on to the next one; what stands
before the first belongs to it. Every byte is in one entry, so nothing is lost if the guess is wrong: a change then
names another function of the same table.

Both ways give the same entries where these begin with their owner, so that an entry that does not repeat what the
others do changes nothing for these.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Cuts(NamedTuple):
    """The entries of a section: where they ``start`` in it, and where the reference to the ``owner`` of each stands.

    The last one ends at ``end``, which is behind the section where its padding is missing.
    """

    start: NDArray[np.int64]
    owner: NDArray[np.int64]
    end: int


def find_cuts(size: int, align: int, offset: NDArray[np.int64], is_code: NDArray[np.bool_]) -> Cuts | None:
    """Cut a section of ``size`` bytes, whose relocations stand at ``offset`` (sorted, several may be at one place).

    ``is_code`` says which go to a function; None where none does. What is behind the section up to the next multiple
    of ``align`` is taken for its padding.
    """
    if not is_code.any():
        return None
    offset, number = np.unique(offset, return_inverse=True)
    is_code = np.bincount(number, is_code).astype(bool)
    found = _repeating(size, offset, is_code)
    if found is not None:
        return found
    start = offset[is_code]
    start[0] = 0
    return Cuts(start, offset[is_code], -(-size // align) * align)


def _repeating(size: int, offset: NDArray[np.int64], is_code: NDArray[np.bool_]) -> Cuts | None:
    """Cut into as many entries as have references at the same places; the last may lack its padding."""
    total = len(offset)
    for fields in range(1, total // 2 + 1):
        count, rest = divmod(total, fields)
        entry = int(offset[fields] - offset[0])
        if rest or offset[fields - 1] >= entry or not (count - 1) * entry + offset[fields - 1] < size <= count * entry:
            continue
        start = np.arange(count) * entry
        columns = np.flatnonzero(is_code.reshape(count, fields).all(axis=0))
        if len(columns) and (offset.reshape(count, fields) - start[:, None] == offset[:fields]).all():
            return Cuts(start, start + offset[columns[0]], count * entry)
    return None
