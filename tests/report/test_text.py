# SPDX-License-Identifier: GPL-2.0-only
"""What a reader sees of a reason for which a line has no room."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbuild_klp.report.text import fitted

IMMEDIATE = "+0x64: movl $0xffffffa1, %eax -> movl $0xffffff95, %eax"
STRING = '+0x5: string "the quick brown fox" -> "the quick brown dog"'


@pytest.mark.parametrize(
    ("reason", "room", "shown"),
    [
        (IMMEDIATE, 80, IMMEDIATE),
        (IMMEDIATE, 45, "+0x64: movl $0xffffffa1, %eax -> $0xffffff95"),
        (IMMEDIATE, 33, "+0x64: movl $0x... -> $0xffffff95"),
        ("+0x5c: movl 0x30(%r13), %edx -> movl 0x30(%r13), %esi", 45, "+0x5c: movl 0x30(%r13), %edx -> %esi"),
        (STRING, 45, '+0x5: string "...fox" -> "...dog"'),
        (STRING, 30, '+0x5: string ".... -> "...dog"'),
        ("now calls a_function_with_a_long_name", 20, "now calls a_funct..."),
    ],
)
def test_the_new_side_is_seen(reason: str, room: int, shown: str) -> None:
    """Else nobody knows what the new value is without asking again."""
    assert fitted(reason, room) == shown


@given(st.text("ab: ,->", max_size=60), st.text("ab, ", max_size=60), st.integers(12, 80))
def test_it_fits(old: str, new: str, room: int) -> None:
    assert len(fitted(f"+0x1: {old} -> {new}", room)) <= room
