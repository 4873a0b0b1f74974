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

from collections.abc import Iterator
from itertools import groupby, takewhile, zip_longest
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

    def take(self, step: _Step, count: int) -> None:
        """Add an instruction and the first ``count`` NOPs before it; the other NOPs are padding."""
        for line in step.nops[:count]:
            self._keep(line)
        padding = step.nops[count:]
        if padding:
            self.numbers[padding[0].part, padding[0].offset] = len(self.lines)
            self.kept.extend([len(self.lines), *(None for _ in padding[1:])])
        if step.line is not None:
            self._keep(step.line)

    def _keep(self, line: Line) -> None:
        self.numbers[line.part, line.offset] = len(self.lines)
        self.kept.append(len(self.lines))
        self.lines.append(line)

    def goals(self, line: Line) -> tuple[tuple[int, ...], ...]:
        """Return where an instruction goes, and where each jump table that it uses does; raises DifferentError."""
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
    before, after = (Unpadded(version, [], {}, []) for version in (old, new))
    for x, y in zip_longest(_steps(old), _steps(new)):
        if x is None or y is None or x.part != y.part:
            raise DifferentError
        pairs = zip(x.nops, y.nops, strict=False)
        same = sum(1 for _ in takewhile(lambda nops: nops[0].token == nops[1].token, pairs))
        lengths = [sum(line.size for line in step.nops[same:]) for step in (x, y)]
        alignment = 1 << max(lengths).bit_length()
        for found, step in ((before, x), (after, y)):
            if any(lengths) and not _is_aligned(found.version.view, step.line, alignment):
                raise DifferentError
            found.take(step, same)
    return before, after


class _Step(NamedTuple):
    """An instruction (None: the end) of a part of a function, and the NOPs before it."""

    part: int
    nops: list[Line]
    line: Line | None


def _steps(version: Version) -> Iterator[_Step]:
    """Yield the instructions of a function in order."""
    view, parts = version
    for part, lines in groupby(function_lines(view, parts), lambda line: line.part):
        nops: list[Line] = []
        for line in lines:
            if not line.references and view.architecture.is_alignment(line.token[0]):
                nops.append(line)
            else:
                yield _Step(parts.index(part), nops, line)
                nops = []
        yield _Step(parts.index(part), nops, None)


def _is_aligned(view: ObjectView, line: Line | None, alignment: int) -> bool:
    """Say whether an instruction is aligned in its section, and the section, too."""
    if line is None:
        return False
    _, start = view.place(line.part)
    return _alignment(view, line.part) % alignment == 0 and (start + line.offset) % alignment == 0
