# SPDX-License-Identifier: GPL-2.0-only
"""Numbers in the fields of instructions."""

from __future__ import annotations

import pytest

from kbuild_klp.lines.immediates import immediate_values

WHOLE, S_TYPE = 0x0000FFFF, 0xFE000F80  # of riscv's stores: bits 11 to 5, then registers, then bits 4 to 0


@pytest.mark.parametrize(
    ("mask", "was", "is_", "values"),
    [
        (WHOLE, 0x0007, 0x0009, ((7, 9),)),
        (WHOLE << 8, 0x000700, 0xFFFF00, ((7, -1), (7, 0xFFFF))),
        (0xFF000000, 0x7F000000, 0x80000000, ((127, -128), (127, 128))),
        (S_TYPE, 0x00000F80, 0x02000000, ((31, 32),)),
        (S_TYPE, 0x00000080, 0xFE000F80, ((1, -1), (1, 0xFFF))),
    ],
)
def test_bits_of_an_immediate(mask: int, was: int, is_: int, values: tuple[tuple[int, int], ...]) -> None:
    assert immediate_values(was, is_, mask) == values
