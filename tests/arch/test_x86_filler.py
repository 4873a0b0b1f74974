# SPDX-License-Identifier: GPL-2.0-only
"""Padding between functions is known as such, whatever stands behind it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kbuild_klp.arch.x86_64 import is_filler

# What gas and LLVM pad with (AMD64 Architecture Programmer's Manual, volume 3, NOP).
RUNS = st.sampled_from(
    [
        b"\xcc",
        b"\x90",
        b"\x66\x90",
        b"\x0f\x1f\x00",
        b"\x0f\x1f\x40\x00",
        b"\x0f\x1f\x44\x00\x00",
        b"\x66\x0f\x1f\x44\x00\x00",
        b"\x0f\x1f\x80\x00\x00\x00\x00",
        b"\x0f\x1f\x84\x00\x00\x00\x00\x00",
        b"\x66\x66\x2e\x0f\x1f\x84\x00\x00\x00\x00\x00",
    ]
)


@given(st.lists(RUNS, max_size=40).map(b"".join))
def test_any_row_of_nops_is_padding(padding: bytes) -> None:
    assert is_filler(padding)


@given(st.lists(RUNS, max_size=4000).map(b"".join), st.sampled_from([b"\xc3", b"\x66", b"\x0f\x1f", b"\x0f\x0b"]))
def test_padding_with_something_behind_is_none(padding: bytes, behind: bytes) -> None:
    """And it is told in one pass: arch/x86/lib/retpoline.o, with one symbol less, took for ever."""
    assert not is_filler(padding + behind)


def test_a_long_run_with_something_behind_is_told_at_once() -> None:
    assert not is_filler(b"\xcc" * 100_000 + b"\xc3")
    assert not is_filler(b"\x66" * 100_000)
