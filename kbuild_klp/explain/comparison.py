# SPDX-License-Identifier: GPL-2.0-only
"""Two versions of a function compared: which instructions differ.

Where branches and jump tables inside the function go is compared last, when it is known which old instruction is which
new one. Otherwise every branch across a new instruction would differ.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

from kbuild_klp.lines.versions import Version
from kbuild_klp.object.function import Line, function_lines
from kbuild_klp.object.place import Place
from kbuild_klp.source.matching import Run, common_runs


class Hunk(NamedTuple):
    """A stretch in which two functions differ: lines [a0, a1) of the old one against [b0, b1) of the new one."""

    a0: int
    a1: int
    b0: int
    b1: int


class Retarget(NamedTuple):
    """An instruction (line ``a``, now ``b``) that goes elsewhere in the function and is otherwise the same.

    ``old`` and ``new`` are the lines that it goes to. ``entry`` is OPERAND, or the number of an entry if they are those
    of a jump table. It is LENGTH for tables of different lengths, which are ``old`` and ``new`` then.
    """

    a: int
    b: int
    old: int
    new: int
    entry: int


OPERAND, LENGTH = -1, -2


class Comparison:
    """Two versions of a function as instructions, ``old`` and ``new``; none for a version that is not there.

    ``hunks`` are where they differ, in order; ``retargets`` the branches and jump tables that differ outside these.
    """

    def __init__(self, old: Version | None, new: Version | None) -> None:
        self._parts = [version.parts if version else () for version in (old, new)]
        self.old, self.new = (function_lines(*version) if version else [] for version in (old, new))
        self.hunks = differing_hunks(self.old, self.new)
        self.retargets = list(self._retargets())

    def place(self, side: int, line: Line) -> Place:
        """Return the place in the function of an instruction of the old (0) or new (1) version."""
        return line.where(self._parts[side])

    @property
    def differs(self) -> bool:
        """Whether any instruction differs."""
        return bool(self.hunks or self.retargets)

    @property
    def moves(self) -> bool:
        """Whether any instruction stands elsewhere, and what names its place changes with it."""
        return [line.offset for line in self.old] != [line.offset for line in self.new]

    @cached_property
    def stretches(self) -> list[Hunk]:
        """Everything that differs, in order: hunks, and one line each for branches that go elsewhere."""
        single = [Hunk(a, a + 1, b, b + 1) for a, b in sorted({(target.a, target.b) for target in self.retargets})]
        return sorted([*self.hunks, *single])

    def _same(self) -> Iterator[tuple[int, int]]:
        """Yield the instructions that are the same: number in the old function, number in the new one."""
        a = b = 0
        for hunk in [*self.hunks, Hunk(len(self.old), len(self.old), len(self.new), len(self.new))]:
            yield from zip(range(a, hunk.a0), range(b, hunk.b0), strict=True)
            a, b = hunk.a1, hunk.b1

    def _retargets(self) -> Iterator[Retarget]:
        for a, b in self._same():
            x, y = self.old[a], self.new[b]
            if not (x.targets or x.tables or y.tables):
                continue
            moved = _elsewhere(x.targets, y.targets, self._reach)
            yield from (Retarget(a, b, p, q, OPERAND) for p, q in moved.values())
            for before, after in zip(x.tables, y.tables, strict=False):
                if len(before) != len(after):
                    yield Retarget(a, b, len(before), len(after), LENGTH)
                else:
                    moved = _elsewhere(before, after, self._reach)
                    yield from (Retarget(a, b, p, q, entry) for entry, (p, q) in moved.items())

    @cached_property
    def _reach(self) -> dict[int, tuple[int, int]]:
        """The range of new lines (both ends included) that stands for each old line.

        A jump to what was inserted before an instruction is the same as one to the instruction.
        """
        reach = {a: (b, b) for a, b in self._same()}
        for a0, a1, b0, b1 in self.hunks:
            if a1 - a0 == b1 - b0:
                reach.update((a0 + i, (b0 + i, b0 + i)) for i in range(a1 - a0))
            else:
                reach.update((a, (b0, b1)) for a in range(a0, min(a1 + 1, len(self.old))))
        return reach


def _elsewhere(
    before: tuple[int, ...], after: tuple[int, ...], reach: dict[int, tuple[int, int]]
) -> dict[int, tuple[int, int]]:
    """Return the targets that are elsewhere, by their number."""
    return {
        number: (p, q)
        for number, (p, q) in enumerate(zip(before, after, strict=True))
        if not reach[p][0] <= q <= reach[p][1]
    }


def differing_hunks(old: list[Line], new: list[Line]) -> list[Hunk]:
    """Return where two lists of instructions differ, in order."""
    hunks = []
    a = b = 0
    runs = common_runs([line.token for line in old], [line.token for line in new])
    for run in [*runs, Run(len(old), len(new), 0)]:
        if (a, b) != (run.old, run.new):
            hunks.append(Hunk(a, run.old, b, run.new))
        a, b = run.old + run.length, run.new + run.length
    return hunks
