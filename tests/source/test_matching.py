# SPDX-License-Identifier: GPL-2.0-only
"""Lines and instructions that are the same are paired: what explain shows, and what lines are proved with."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from kbuild_klp.source.matching import Run, common_runs

ITEMS = st.lists(st.sampled_from("abcdefgh"), max_size=60)


@given(ITEMS, ITEMS)
def test_only_equal_items_are_paired_in_order_and_neighbours_joined(old: list[str], new: list[str]) -> None:
    runs = common_runs(old, new)
    for run in runs:
        assert run.length > 0
        assert old[run.old : run.old + run.length] == new[run.new : run.new + run.length]
    for before, after in pairwise(runs):
        gaps = after.old - before.old - before.length, after.new - before.new - before.length
        assert min(gaps) >= 0 and max(gaps) > 0


@given(ITEMS, ITEMS, ITEMS)
def test_what_is_put_in_between_leaves_the_rest_paired(head: list[str], middle: list[str], tail: list[str]) -> None:
    runs = common_runs([*head, *tail], [*head, *(item.upper() for item in middle), *tail])
    assert sum(run.length for run in runs) == len(head) + len(tail)


def test_items_that_occur_once_are_paired_first() -> None:
    """Though the longest stretch in common is another one: 1 and 2 stay what they are, and xxx moved."""
    assert common_runs("a1xxx2b", "cxxx12d") == [Run(1, 4, 1), Run(5, 5, 1)]


def test_long_repetitions_are_left_unpaired() -> None:
    """Their ends are paired, and nothing waits for the rest."""
    old, new = "a" + "xy" * 5_000 + "b", "a" + "yx" * 5_000 + "b"
    assert sum(run.length for run in common_runs(old, new)) == 2


def test_anchors_within_anchors_have_an_end() -> None:
    """Each pair has one item that occurs once, when the pair before it is taken away."""
    old = [number for at in range(5_000) for number in (at + 1, at)]
    new = [number for at in range(5_000) for number in (at + 1, -at - 2, at)]
    assert common_runs(old, new)
