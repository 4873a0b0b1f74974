# SPDX-License-Identifier: GPL-2.0-only
"""A section that is relocated as it is read, against one that is relocated as a whole."""

from __future__ import annotations

import random

import made_up
import numpy as np
import pytest

from kbuild_klp.dwarf.relocated_stream import RelocatedStream, apply
from kbuild_klp.elf.reader import RELA

X86_64, R_X86_64_64, R_X86_64_32 = 62, 1, 10
SIZE = 20_000
VALUES = np.array([0, 5 << 40, 7 << 40], np.int64)


def _table(places: list[int]) -> np.ndarray:
    rows = np.zeros(len(places), RELA["little"])
    rows["offset"] = places
    rows["type"] = [R_X86_64_64 if place % 3 else R_X86_64_32 for place in places]
    rows["symbol"], rows["addend"] = 1 + rows["offset"] % 2, rows["offset"] * 3
    return rows


def test_any_piece_is_that_of_the_whole() -> None:
    # Some stand across the ends of windows, one across the end of the section.
    places = [*range(0, 4080, 17), 4090, 8188, 8196, *range(9000, SIZE - 8, 23), SIZE - 3]
    content, table = np.zeros(SIZE, np.uint8), _table(places)
    whole = content.copy()
    apply(whole, 0, table, VALUES, X86_64)
    assert whole.any() and not whole[SIZE - 3 :].any()
    chance = random.Random(1)
    stream = RelocatedStream(content, table, VALUES, X86_64)
    for _ in range(500):
        at, size = chance.randrange(SIZE + 10), chance.choice((1, 4, 8, 64, 9000))
        stream.seek(at)
        assert stream.read(size) == whole[at : at + size].tobytes()
        assert stream.tell() == max(at, min(at + size, SIZE))
    stream.seek(-4, 2)
    assert stream.read() == whole[-4:].tobytes()
    assert not content.any()


def test_relocations_in_no_order_are_refused() -> None:
    with pytest.raises(ValueError, match="order"):
        RelocatedStream(np.zeros(100, np.uint8), _table([8, 0]), VALUES, X86_64)
    table = _table(list(range(0, SIZE, 16)))
    table["offset"][[600, 601]] = table["offset"][[601, 600]]
    stream = RelocatedStream(np.zeros(SIZE, np.uint8), table, VALUES, X86_64)
    with pytest.raises(ValueError, match="order"):
        stream.read()


@pytest.mark.usefixtures("made_up_machine")
def test_differences_are_taken_wherever_they_stand_in_the_table() -> None:
    rows = np.zeros(4, RELA["big"])
    rows["offset"] = [4, 4, 8, 8]
    rows["type"] = [made_up.SET32, made_up.SUB32, made_up.SUB32, made_up.SET32]
    rows["symbol"], rows["addend"] = [1, 2, 2, 1], [0x10000, 1, 1, 0x10000]
    content = np.zeros(16, np.uint8)
    apply(content, 0, rows, np.array([0, 7 << 40 | 5, 7 << 40], np.int64), made_up.MACHINE)
    assert content.tobytes().hex(" ", 4) == "00000000 00010004 00010004 00000000"
