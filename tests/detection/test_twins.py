# SPDX-License-Identifier: GPL-2.0-only
"""Objects linked from sources of one name, whose functions and variables have the same names, sizes and contents.

This is what vmlinux.o, LTO units and modules look like: a kernel has dozens of core.c. Whoever takes one for the other
calls a change of the second one no change at all.
"""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kbuild_klp.builds.single_object import ObjectBuild
from kbuild_klp.compare.passes import compare
from kbuild_klp.report.model import Report

# What only the global function of a source tells from that of another.
_SOURCE = """
    .file "core.c"
    .text
    .type helper, @function
helper:
    movl ${helper}, %eax
    addl state(%rip), %eax
    ret
    .size helper, .-helper
    .type other, @function
other:
    leal {other}(%rdi), %eax
    ret
    .size other, .-other
    .globl user{number}
    .type user{number}, @function
user{number}:
    pushq ${user}
    call helper
    call other
    ret
    .size user{number}, .-user{number}
    .data
    .type state, @object
    .size state, 4
state:
    .long {state}
"""


class Source(NamedTuple):
    """One source; ``number`` is in the name of its global function, the rest are constants."""

    number: int
    helper: int = 1
    other: int = 1
    state: int = 1
    user: int = 1


class Linker:
    """Assembles sources, each once, and links them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._count = 0
        self._assemble = cache(self._assembled)

    def _assembled(self, source: Source) -> str:
        path = self._directory / f"{'_'.join(map(str, source))}.o"
        text = _SOURCE.format(**source._asdict())
        subprocess.run(["as", "-o", path], input=text, text=True, check=True)
        return str(path)

    def object(self, sources: Sequence[Source]) -> str:
        self._count += 1
        path = str(self._directory / f"linked{self._count}.o")
        subprocess.run(["ld", "-r", "-o", path, *map(self._assemble, sources)], check=True)
        return path

    def compare(self, old: Sequence[Source], new: Sequence[Source]) -> Report:
        report = compare(ObjectBuild(self.object(old)), ObjectBuild(self.object(new)))
        assert not report.failed
        assert not report.warnings
        return report


@pytest.fixture(scope="module")
def linker(tmp_path_factory: pytest.TempPathFactory) -> Linker:
    return Linker(tmp_path_factory.mktemp("twins"))


Answer = Counter[tuple[str, str]]


def _answer(report: Report) -> Answer:
    return Counter(
        (change.symbol, change.change.value)
        for group in report.objects
        for change in group.changes
        if change.kind != "section"
    )


def _expected(old: Sequence[Source], new: Sequence[Source]) -> Answer:
    """Return what really changed, source by source."""
    before, after = ({source.number: source for source in side} for side in (old, new))
    answer: Answer = Counter()
    for number in before.keys() | after.keys():
        x, y = before.get(number), after.get(number)
        user = f"user{number}"
        if x is None or y is None:
            answer.update((name, "removed" if y is None else "added") for name in ("helper", "other", "state", user))
            continue
        names = [name for name in ("helper", "other", "state") if getattr(x, name) != getattr(y, name)]
        answer.update((name, "changed") for name in [*names, *([user] if x.user != y.user else [])])
    return answer


_CONSTANTS = st.integers(1, 2)


@st.composite
def _pairs(draw: st.DrawFn, users: st.SearchStrategy[int]) -> tuple[list[Source], list[Source]]:
    """Two objects of the same sources, in any order, with any constants."""
    numbers = range(draw(st.integers(2, 4)))
    constants = st.tuples(_CONSTANTS, _CONSTANTS, _CONSTANTS, users)
    old, new = ([Source(at, *draw(constants)) for at in draw(st.permutations(numbers))] for _ in range(2))
    return old, new


@settings(max_examples=150, deadline=None)
@given(_pairs(st.just(1)))
def test_who_did_not_change_tells_which_is_which(linker: Linker, pair: tuple[list[Source], list[Source]]) -> None:
    """Each source has a function that does not change, so the answer is known whatever the others exchange."""
    assert _answer(linker.compare(*pair)) == _expected(*pair)


@settings(max_examples=150, deadline=None)
@given(_pairs(_CONSTANTS), st.integers(0, 1), st.integers(0, 1))
def test_a_change_is_never_missed(
    linker: Linker, pair: tuple[list[Source], list[Source]], left: int, right: int
) -> None:
    """Where all that would tell twins apart changed too, which is which may be answered otherwise, but not whether."""
    old, new = pair[0][left:], pair[1][right:]
    answer, expected = _answer(linker.compare(old, new)), _expected(old, new)
    assert bool(answer) == bool(expected)
    users = {row for row in expected if row[0].startswith("user")}
    assert users <= answer.keys(), "a function with a name of its own"


@pytest.mark.parametrize("name", ["helper", "other", "state"])
@pytest.mark.parametrize("place", range(3))
def test_one_of_three_that_are_the_same_in_all(linker: Linker, name: str, place: int) -> None:
    old = [Source(number) for number in range(3)]
    new = [source._replace(**{name: 2}) if source.number == place else source for source in old]
    report = linker.compare(old, new)
    assert _answer(report) == Counter({(name, "changed"): 1})
    [change] = report.objects[0].changes
    assert (change.file, change.label) == ("core.c", f"{name}@core.c" + (f"[{place + 1}]" if place else ""))
    assert any("$2" in reason or "2(" in reason or "02000000" in reason for reason in change.reasons), (
        "of the right one"
    )


def test_two_that_exchange_what_they_do(linker: Linker) -> None:
    """To who calls them, both are the same name; and yet each caller now does what the other did."""
    old = [Source(0, helper=1), Source(1, helper=2)]
    new = [Source(0, helper=2), Source(1, helper=1)]
    assert _answer(linker.compare(old, new)) == Counter({("helper", "changed"): 2})


def test_a_source_more_in_front_changes_nothing_of_the_others(linker: Linker) -> None:
    old = [Source(number, helper=number) for number in (1, 2)]
    assert _answer(linker.compare(old, [Source(9), *old])) == _expected(old, [Source(9), *old])
    assert _answer(linker.compare([Source(9), *old], old)) == _expected([Source(9), *old], old)
