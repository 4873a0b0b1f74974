# SPDX-License-Identifier: GPL-2.0-only
"""Which numbers are in order with each other: held against a look at all choices."""

from __future__ import annotations

import random
from itertools import combinations, pairwise

import pytest

from kbuild_klp.lines.order import Ordered

Item = tuple[int, int, int]
"""Place, before, now."""


def _is_chain(items: list[Item]) -> bool:
    return all((x[1] < y[1] and x[2] < y[2]) or (x[0] == y[0] and x[1:] == y[1:]) for x, y in pairwise(items))


def _score(items: list[Item]) -> tuple[int, int]:
    shifts = [0, *(new - old for _, old, new in items)]
    return len(items), -sum(x != y for x, y in pairwise(shifts))


def _by_all_choices(items: list[Item]) -> tuple[int, list[bool]]:
    """Return what Ordered has to say: how many numbers the best chain has, and which are in all of the best."""
    order = sorted(range(len(items)), key=lambda at: items[at])
    chains = [
        chosen
        for size in range(len(items) + 1)
        for chosen in combinations(order, size)
        if _is_chain([items[at] for at in chosen])
    ]
    scores = [_score([items[at] for at in chain]) for chain in chains]
    best = [set(chain) for chain, score in zip(chains, scores, strict=True) if score == max(scores)]
    return max(scores)[0], [all(at in chain for chain in best) for at in range(len(items))]


def _ordered(items: list[Item]) -> Ordered:
    return Ordered(*([item[column] for item in items] for column in range(3)))


@pytest.mark.parametrize(
    ("items", "most", "certain"),
    [
        ([], 0, []),
        ([(1, 5, 7)], 1, [True]),
        ([(1, 5, 7), (2, 9, 11)], 2, [True, True]),
        # as good as each other
        ([(1, 5, 7), (2, 3, 5)], 1, [False, False]),
        ([(1, 5, 7), (2, 5, 7)], 1, [False, False]),
        # in one function, order is that of the numbers, and a line may come twice
        ([(1, 9, 11), (1, 5, 7), (1, 5, 7)], 3, [True, True, True]),
        ([(1, 5, 7), (1, 5, 8)], 1, [False, False]),
        # one edit explains the first two, and it takes two for the first and the last
        ([(1, 4, 6), (2, 8, 10), (3, 11, 8)], 2, [True, True, False]),
        # lines that did not move take none
        ([(1, 4, 4), (1, 3, 5)], 1, [True, False]),
    ],
)
def test_order(items: list[Item], most: int, certain: list[bool]) -> None:
    assert (_ordered(items).most, _ordered(items).certain()) == (most, certain) == _by_all_choices(items)


def test_order_of_random_numbers() -> None:
    choose = random.Random(4)
    for _ in range(150):
        items = [
            (choose.randint(1, 3), line := choose.randint(1, 9), line + choose.choice((0, 0, 2, 2, 5, -3)))
            for _ in range(choose.randint(1, 8))
        ]
        assert (_ordered(items).most, _ordered(items).certain()) == _by_all_choices(items)
