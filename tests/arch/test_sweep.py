# SPDX-License-Identifier: GPL-2.0-only
"""Where the instructions of a range begin, one by one and many ranges at a time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kbuild_klp.arch import sweep as sweeping
from kbuild_klp.arch.sweep import instruction_starts, sweep
from kbuild_klp.arch.x86_decode import instruction_lengths


def _lengths_of(code: bytes) -> bytes:
    return instruction_lengths(np.frombuffer(code, np.uint8)).tobytes()


def test_starts_fill_the_range() -> None:
    code = bytes.fromhex("f30f1efa 55 4889e5 e800000000 5d c3 cccc")
    assert instruction_starts(_lengths_of(code), 0, len(code)) == ([0, 4, 5, 8, 13, 14, 15, 16], 17)
    assert instruction_starts(_lengths_of(code), 5, 13) == ([5, 8], 13)
    assert instruction_starts(_lengths_of(code), 5, 5) == ([], 5)


def test_starts_stop_at_what_is_no_instruction() -> None:
    code = bytes.fromhex("55 06 c3")
    assert instruction_starts(_lengths_of(code), 0, 3) == ([0], 1)


def test_starts_stop_at_what_reaches_beyond_the_end() -> None:
    code = bytes.fromhex("55 f6c3cc 90")
    assert instruction_starts(_lengths_of(code), 0, 3) == ([0], 1)
    assert instruction_starts(_lengths_of(code), 1, 3) == ([], 1)


@given(
    st.lists(st.integers(0, 15), max_size=64).map(bytes),
    st.lists(st.tuples(st.integers(0, 64), st.integers(0, 64))),
    st.sampled_from([0, 3, 100]),
)
@example(b"\2\1", [(0, 1), (0, 2)], 0)  # what the end of one range cuts off is whole in the other
@settings(deadline=None)
def test_sweep_is_instruction_starts_of_each_range(lengths: bytes, ranges: list[tuple[int, int]], few: int) -> None:
    ranges = [(min(start, len(lengths)), min(end, len(lengths))) for start, end in ranges]
    single = [instruction_starts(lengths, start, end) for start, end in ranges]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweeping, "_FEW_RANGES", few)
        found = sweep(np.frombuffer(lengths, np.uint8), *np.array(ranges, np.int64).reshape(-1, 2).T)
    assert found.begins.nonzero()[0].tolist() == sorted({start for starts, _ in single for start in starts})
    assert found.stopped.tolist() == [stopped for _, stopped in single]
