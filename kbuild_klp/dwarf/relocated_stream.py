# SPDX-License-Identifier: GPL-2.0-only
"""Sections of debug information with relocations applied, to all of it or to the pieces that are read.

The debug information of vmlinux.o has hundreds of megabytes, and a few functions need a thousandth of it.
"""

from __future__ import annotations

from bisect import bisect_left

import numpy as np
from numpy.typing import NDArray

from kbuild_klp.arch.registry import architecture

_SHIFT = 12
_WINDOW = 1 << _SHIFT  # bytes that are relocated at a time
_WIDEST = 8  # bytes of a field
_SAMPLES = 256


def apply(
    content: NDArray[np.uint8], base: int, rows: NDArray[np.void], values: NDArray[np.int64], machine: int
) -> None:
    """Apply the relocations ``rows`` (Elf64_Rela) to ``content``, which starts at ``base`` in its section.

    ``values`` are those of all symbols. Fields that are not completely in ``content`` are left alone.
    """
    arch = architecture(machine)
    if arch is None:
        return
    rows = rows[rows["symbol"] < len(values)]
    own = values[rows["symbol"]] + rows["addend"]
    place = rows["offset"].astype(np.int64) - base
    known = [(number, row) for number in {*rows["type"].tolist()} if (row := arch.relocation_types.get(number))]
    # What subtracts comes after what it subtracts from.
    for number, row in sorted(known, key=lambda pair: pair[1].subtracts):
        if row.pc_relative:
            continue
        size = row.field.size
        chosen = (rows["type"] == number) & (place >= 0) & (place + size <= len(content))
        places, words = place[chosen], own[chosen]
        shifts = [8 * (byte if arch.byteorder == "little" else size - 1 - byte) for byte in range(size)]
        if row.subtracts:
            words = sum(content[places + byte].astype(np.int64) << shift for byte, shift in enumerate(shifts)) - words
        for byte, shift in enumerate(shifts):
            content[places + byte] = (words >> shift) & 0xFF


class RelocatedStream:
    """A section as a binary stream. A piece is relocated when it is first read, and kept.

    ``table`` are its relocations (Elf64_Rela; None: it has none), ordered by place as assemblers and linkers write
    them. Raises ValueError if they are not.
    """

    def __init__(
        self, content: NDArray[np.uint8], table: NDArray[np.void] | None, values: NDArray[np.int64], machine: int
    ) -> None:
        self._content = content
        self._table = table
        self._offsets = None if table is None else table["offset"]
        self._values = values
        self._machine = machine
        self._windows: dict[int, bytes] = {}
        self._at = 0
        if self._offsets is not None:
            self._check_order(self._offsets[:: len(self._offsets) // _SAMPLES + 1])

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a place, as io.IOBase.seek."""
        self._at = max(0, offset + (0, self._at, len(self._content))[whence])
        return self._at

    def tell(self) -> int:
        """Return the present place."""
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        """Return up to ``size`` bytes, or all that are left."""
        start, length = self._at, len(self._content)
        end = length if size is None or size < 0 else min(start + size, length)
        if end <= start:
            return b""
        self._at = end
        number = start >> _SHIFT
        if (end - 1) >> _SHIFT == number:
            first = number << _SHIFT
            return self._window(number)[start - first : end - first]
        numbers = range(number, ((end - 1) >> _SHIFT) + 1)
        whole = b"".join(map(self._window, numbers))
        return whole[start - (number << _SHIFT) : end - (number << _SHIFT)]

    def _window(self, number: int) -> bytes:
        window = self._windows.get(number)
        if window is None:
            window = self._windows[number] = self._relocated(number << _SHIFT)
        return window

    def _relocated(self, start: int) -> bytes:
        """Return the window at ``start``. Fields may reach into it from its neighbours, and out of it."""
        low = max(0, start - _WIDEST)
        content = self._content[low : start + _WINDOW + _WIDEST].copy()
        if self._table is not None and self._offsets is not None:
            first, last = bisect_left(self._offsets, low), bisect_left(self._offsets, start + _WINDOW)
            self._check_order(self._offsets[first:last])
            apply(content, low, self._table[first:last], self._values, self._machine)
        return content[start - low : start - low + _WINDOW].tobytes()

    @staticmethod
    def _check_order(offsets: NDArray[np.uint64]) -> None:
        if (offsets[1:] < offsets[:-1]).any():
            raise ValueError("relocations in no order")
