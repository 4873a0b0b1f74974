# SPDX-License-Identifier: GPL-2.0-only
"""NOPs inside a function that align the code behind them, and depend on where the function lies.

GCC aligns small loops to 32 and 64 bytes (from 14 on, with -falign-loops=1 as well), but functions only to 16. When the
code before a function grows by 16 bytes, the NOPs before each such loop change. They are left out of the comparison
where, in both versions,

- they have fewer bytes than a power of two to which both the next instruction, in its section, and the section are
  aligned;
- no branch goes to one of them but to the first, which means the instruction that they align.

Which NOPs are used is the assembler's choice. NOPs that both versions have are compared as any other instruction: they
may be the place of a static branch.
"""

from __future__ import annotations

from typing import NamedTuple

from kbuild_klp.lines.numbers import DifferentError
from kbuild_klp.lines.versions import Version
from kbuild_klp.object.function import Line, Spot, function_lines
from kbuild_klp.object.view import ObjectView


class Unpadded(NamedTuple):
    """The instructions of a function without its padding.

    ``numbers`` maps the place of an instruction to its index in ``lines``. ``kept`` has that index for each instruction
    of the function, padding included: the first NOP of a run has that of the instruction it aligns, the others None.
    """

    version: Version
    lines: list[Line]
    numbers: dict[Spot, int]
    kept: list[int | None]

    def goals(self, line: Line) -> tuple[tuple[int, ...], ...]:
        """Return to which instructions one goes, and each jump table that it uses; raises DifferentError."""
        return tuple(tuple(map(self._goal, goals)) for goals in (line.targets, *line.tables))

    def _goal(self, number: int) -> int:
        found = self.kept[number]
        if found is None:
            raise DifferentError
        return found


def lies_otherwise(old: ObjectView, new: ObjectView, old_part: int, new_part: int) -> bool:
    """Say whether code in a part may be aligned otherwise because of where its two versions lie in their sections."""
    (_, before), (_, after) = old.place(old_part), new.place(new_part)
    return (before - after) % min(_alignment(old, old_part), _alignment(new, new_part)) != 0


def _alignment(view: ObjectView, part: int) -> int:
    return max(int(view.object.sections["align"][view.place(part)[0]]), 1)


def without_padding(old: Version, new: Version) -> tuple[Unpadded, Unpadded]:
    """Return the instructions of two versions of a function, as many of each; raises DifferentError."""
    sides = before, after = _Side(old), _Side(new)
    while not (before.is_done and after.is_done):
        if before.is_done or after.is_done:
            raise DifferentError
        nops = [side.is_nop() for side in sides]
        if nops[0] == nops[1] and (not nops[0] or before.line.token == after.line.token):
            if before.part != after.part:
                raise DifferentError
            for side in sides:
                side.keep()
            continue
        lengths = [side.drop_nops() for side in sides]
        alignment = 1 << max(lengths).bit_length()
        if not all(side.is_aligned(alignment) for side in sides):
            raise DifferentError
    return before.found, after.found


class _Side:
    """One version, read from its first instruction to its last."""

    def __init__(self, version: Version) -> None:
        self._lines = function_lines(*version)
        self._at = 0
        self.found = Unpadded(version, [], {}, [])
        self._is_alignment = version.view.architecture.is_alignment

    @property
    def is_done(self) -> bool:
        return self._at == len(self._lines)

    @property
    def line(self) -> Line:
        """The next instruction."""
        return self._lines[self._at]

    @property
    def part(self) -> int:
        """Which part of the function the next instruction is in, by number."""
        return self.found.version.parts.index(self.line.part)

    def is_nop(self) -> bool:
        """Say whether the next instruction does nothing."""
        return not self.line.references and self._is_alignment(self.line.token[0])

    def keep(self) -> None:
        """Take the next instruction."""
        number = len(self.found.lines)
        self.found.lines.append(self.line)
        self.found.numbers[self.line.part, self.line.offset] = number
        self.found.kept.append(number)
        self._at += 1

    def drop_nops(self) -> int:
        """Leave out the NOPs before the next instruction that is none; returns their size in bytes."""
        first = self._at
        while not self.is_done and self.is_nop() and self.line.part == self._lines[first].part:
            self._at += 1
        run = self._lines[first : self._at]
        if run:
            self.found.numbers[run[0].part, run[0].offset] = len(self.found.lines)
            self.found.kept.extend([len(self.found.lines), *(None for _ in run[1:])])
            if self.is_done or self.line.part != run[0].part:
                raise DifferentError
        return sum(line.size for line in run)

    def is_aligned(self, alignment: int) -> bool:
        """Say whether the next instruction is aligned."""
        if self.is_done:
            return False
        view, part = self.found.version.view, self.line.part
        _, start = view.place(part)
        return _alignment(view, part) % alignment == 0 and (start + self.line.offset) % alignment == 0
