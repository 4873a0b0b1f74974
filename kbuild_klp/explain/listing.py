# SPDX-License-Identifier: GPL-2.0-only
"""One changed entry in full: the instructions or bytes that differ, both sides, with what stands around them."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import NamedTuple

from kbuild_klp.classify import Change
from kbuild_klp.entry import KIND_FUNCTION, Entry
from kbuild_klp.explain.instructions import Hunk, Line, differing_hunks, function_lines
from kbuild_klp.explain.source_lines import SourceLine, SourceLines
from kbuild_klp.explain.view import ObjectView

_CONTEXT = 3
_ROW = 16
_MOST_ROWS = 200


class RowKind(enum.Enum):
    """What a row of a listing is."""

    PLACE = "@"
    SAME = " "
    OLD = "-"
    NEW = "+"


class Row(NamedTuple):
    """One row of a listing, without its mark."""

    kind: RowKind
    text: str


class Lister:
    """Lists changes between two versions of one object; a side that is None has no such object."""

    def __init__(self, old: ObjectView | None, new: ObjectView | None) -> None:
        self._sides = [(view, SourceLines(view.object)) if view else None for view in (old, new)]

    def rows(self, change: Change) -> list[Row]:
        """Return what differs, empty when it is not in the entry's own bytes."""
        entries = (change.old, change.new)
        parts = [self._parts(side, entry) for side, entry in enumerate(entries)]
        if change.kind == KIND_FUNCTION:
            rows = list(self._instruction_rows(change.symbol, parts))
        else:
            rows = list(self._data_rows(parts))
        if len(rows) > _MOST_ROWS:
            rest = len(rows) - _MOST_ROWS
            rows = [*rows[:_MOST_ROWS], Row(RowKind.PLACE, f"and {rest} more rows")]
        return rows

    def _parts(self, side: int, entry: Entry | None) -> list[int]:
        opened = self._sides[side]
        return opened[0].parts_of(entry) if opened and entry else []

    # -- functions ------------------------------------------------------------------------------------------------

    def _instruction_rows(self, symbol: str, parts: list[list[int]]) -> Iterator[Row]:
        old, new = (self._lines(side, parts[side]) for side in (0, 1))
        hunks = differing_hunks(old, new) or _branch_hunks(old, new)
        for group in _joined(hunks):
            first, last = group[0], group[-1]
            yield Row(RowKind.PLACE, self._place(symbol, first, old, new))
            yield from (Row(RowKind.SAME, _text(line)) for line in new[max(first.b0 - _CONTEXT, 0) : first.b0])
            at = first.b0
            for hunk in group:
                yield from (Row(RowKind.SAME, _text(line)) for line in new[at : hunk.b0])
                yield from (Row(RowKind.OLD, _text(line)) for line in old[hunk.a0 : hunk.a1])
                yield from (Row(RowKind.NEW, _text(line)) for line in new[hunk.b0 : hunk.b1])
                at = hunk.b1
            yield from (Row(RowKind.SAME, _text(line)) for line in new[last.b1 : last.b1 + _CONTEXT])

    def _lines(self, side: int, parts: list[int]) -> list[Line]:
        opened = self._sides[side]
        return function_lines(opened[0], parts) if opened and parts else []

    def _place(self, symbol: str, hunk: Hunk, old: list[Line], new: list[Line]) -> str:
        """Say where a hunk starts on both sides, with source lines where they are known."""
        words = []
        for side, lines, at in ((0, old, hunk.a0), (1, new, hunk.b0)):
            if not lines:
                continue
            line = lines[min(at, len(lines) - 1)]
            source = self._source(side, line)
            words.append(f"{symbol}+{line.offset:#x}" + (f" ({source})" if source else ""))
        return " -> ".join(dict.fromkeys(words))

    def _source(self, side: int, line: Line) -> SourceLine | None:
        opened = self._sides[side]
        if opened is None:
            return None
        view, sources = opened
        section = int(view.canonical.parts.section[line.part])
        start = int(view.canonical.parts.start[line.part] - view.canonical.image.base[section])
        return sources.at(section, start + line.offset)

    # -- data -----------------------------------------------------------------------------------------------------

    def _data_rows(self, parts: list[list[int]]) -> Iterator[Row]:
        old, new = (self._bytes(side, parts[side]) for side in (0, 1))
        for at in range(0, max(len(old), len(new)), _ROW):
            before, after = old[at : at + _ROW], new[at : at + _ROW]
            if before != after:
                if before:
                    yield Row(RowKind.OLD, _hex_row(at, before))
                if after:
                    yield Row(RowKind.NEW, _hex_row(at, after))

    def _bytes(self, side: int, parts: list[int]) -> bytes:
        opened = self._sides[side]
        return opened[0].digests.part_data(parts[0]) if opened and parts else b""


def _text(line: Line) -> str:
    return f"+{line.offset:<#6x} {' '.join(line.text.split())}"


def _hex_row(at: int, data: bytes) -> str:
    text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in data)
    return f"+{at:<#6x} {data.hex(' '):<{3 * _ROW - 1}} {text}"


def _branch_hunks(old: list[Line], new: list[Line]) -> list[Hunk]:
    """Return the instructions that differ in nothing but where in the function they branch to."""
    if len(old) != len(new):
        return []
    pairs = zip(old, new, strict=True)
    return [Hunk(at, at + 1, at, at + 1) for at, (a, b) in enumerate(pairs) if a.target != b.target]


def _joined(hunks: list[Hunk]) -> Iterator[list[Hunk]]:
    """Group hunks whose contexts touch."""
    group: list[Hunk] = []
    for hunk in hunks:
        if group and hunk.b0 - group[-1].b1 > 2 * _CONTEXT:
            yield group
            group = []
        group.append(hunk)
    if group:
        yield group
