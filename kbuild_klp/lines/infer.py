# SPDX-License-Identifier: GPL-2.0-only
"""Inference, where there are no sources, that immediate operands are source lines that moved.

Two things in the objects themselves are taken for evidence that number a, which is number b now, is a line. Both are
about the place, not the instruction: no opcode and no callee is looked at.

*Debug information.* The line table says that the very instruction stands on line a of a file in the old object, and on
line b of the same file in the new one.

*Records.* The function has line records of its own (bug table, dynamic debug, UBSAN; they name their file). Of all
records of that file in the object, the last at or before line a and the first at or behind it both moved by b - a, and
one of these two belongs to this function; so the number lies where the lines of this function are, between lines that
moved by just as much. Records of both versions are put side by side by function, and only where they are as many.

Neither is a proof. A constant is taken for a line if it happens to be the number of a line of its own function (with
debug information: of its own line), and changed by as much as that line moved. That is why small numbers are safe in
practice: errno and sizes are smaller than the first line of a C file that has a function. A constant that changes
within the lines that were edited has records that moved by different amounts around it, and stays a change.
Nothing is inferred about a function without records in an object without debug information, about numbers in data
(but for UBSAN's, which say themselves that they are lines) and in strings, or about numbers that were computed from
a line.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right

from kbuild_klp.dwarf.source_lines import SourceLines
from kbuild_klp.lines.numbers import Number
from kbuild_klp.lines.proof import MOST_LINES
from kbuild_klp.lines.records import LineMove, line_moves
from kbuild_klp.object.view import ObjectView


class _Bracket:
    """The line records of one file of an object, by old line, each with the old main part of its function."""

    def __init__(self, moves: list[tuple[LineMove, int]]) -> None:
        self._moves = sorted(moves, key=lambda move: move[0].old)
        self._lines = [move.old for move, _ in self._moves]

    def holds(self, old: int, new: int, function: int) -> bool:
        """Say whether line ``old`` lies between records that moved as it did, one of them of ``function``."""
        low, high = bisect_right(self._lines, old) - 1, bisect_left(self._lines, old)
        if low < 0 or high >= len(self._moves):
            return False
        # All records of one line: inlining makes several of one.
        around = [(move, owner) for move, owner in self._moves if move.old in (self._lines[low], self._lines[high])]
        return all(move.new - move.old == new - old for move, _ in around) and any(
            owner == function for _, owner in around
        )


class LineInference:
    """What the objects themselves say about lines; nothing is collected before the first question."""

    def __init__(self, old: ObjectView, new: ObjectView) -> None:
        self._old = old
        self._new = new
        self._tables = SourceLines(old.file), SourceLines(new.file)
        self._brackets: dict[str, _Bracket] = {}
        self._moved: dict[int, list[LineMove]] = {}

    def infers(self, function: int, numbers: list[Number]) -> bool:
        """Return True when all ``numbers`` of a function can be taken for lines; ``function`` is its old main part."""
        return all(
            any(
                0 < old <= MOST_LINES
                and 0 < new <= MOST_LINES
                and (self._in_line_table(number, old, new) or self._between_records(function, old, new))
                for old, new in number.pair.values
            )
            if number.instruction
            else number.file is not None
            for number in numbers
        )

    def _in_line_table(self, number: Number, old: int, new: int) -> bool:
        if number.instruction is None:
            return False
        found = []
        for view, table, (part, offset) in zip((self._old, self._new), self._tables, number.instruction, strict=True):
            parts = view.canonical.parts
            section = int(parts.section[part])
            start = int(parts.start[part]) - int(view.canonical.image.base[section])
            found.append(table.at(section, start + offset))
        before, after = found
        if before is None or after is None:
            return False
        return (before.line, after.line, before.file) == (old, new, after.file)

    def _between_records(self, function: int, old: int, new: int) -> bool:
        # Only a file in which the function has records itself can tell.
        files = {move.file for move in self._moves(function)}
        return any(file and self._bracket(file).holds(old, new, function) for file in files)

    def _bracket(self, file: str) -> _Bracket:
        """Return the records of one file, of all functions that both objects have."""
        if file not in self._brackets:
            users = self._old.functions_that_name(file)
            moves = [(move, user) for user in users for move in self._moves(user) if move.file == file]
            self._brackets[file] = _Bracket(moves)
        return self._brackets[file]

    def _moves(self, function: int) -> list[LineMove]:
        """Return the line records of a function before and now; none where its name does not tell which it is now."""
        if function not in self._moved:
            name = self._old.part_name(function)
            old, new = self._old.functions_called(name), self._new.functions_called(name)
            sides = [view.family(parts[0]) for view, parts in ((self._old, old), (self._new, new)) if len(parts) == 1]
            self._moved[function] = line_moves(self._old, self._new, *sides) if len(sides) == 2 else []
        return self._moved[function]
