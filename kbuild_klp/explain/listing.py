# SPDX-License-Identifier: GPL-2.0-only
"""One changed entry in full, as data: what differs on both sides, with what stands around it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from itertools import takewhile, zip_longest
from typing import NamedTuple

from kbuild_klp.changes.classification import Change
from kbuild_klp.checksum.entry import KIND_FUNCTION, Entry
from kbuild_klp.explain import tables
from kbuild_klp.explain.comparison import Comparison, Hunk
from kbuild_klp.explain.origins import DebugSide
from kbuild_klp.object.function import Line, function_lines
from kbuild_klp.object.reference_text import describe, quote
from kbuild_klp.object.view import ObjectView

_ROW = 16  # bytes of data in a line
_WORD = 8
_LONG, _LEAD = 32, 8  # characters of a string, and of what is the same before a difference in it
_MOST_PAIRED = 400  # instructions of a hunk for which a best match is looked for


class ListedLine(NamedTuple):
    """One instruction, or a row of data.

    ``place`` is where it stands, as text; ``offset`` the same in bytes, in the symbol ``part``; ``bytes`` are those
    in the object; ``target`` is what it refers to and ``source`` its source line (empty: nothing, not known).
    """

    place: str
    part: str
    offset: int
    bytes: bytes
    text: str
    target: str = ""
    source: str = ""


class ListedRow(NamedTuple):
    """A line of each side; None where one has no counterpart. ``differs`` is False for what stands around a change."""

    old: ListedLine | None
    new: ListedLine | None
    differs: bool

    @property
    def sides(self) -> tuple[ListedLine | None, ListedLine | None]:
        """Both lines, the old one first."""
        return self.old, self.new


class ListedHunk(NamedTuple):
    """A stretch that differs, with its context.

    ``what`` it is of (instructions, bytes, or entries of a special section); ``before`` counts the lines that are the
    same since the last hunk and are not in ``rows``. One without rows counts those behind the last one.
    """

    what: str
    before: int
    rows: list[ListedRow]


class Listing(NamedTuple):
    """Everything about one change.

    ``first`` are the first instructions that differ, or None; ``note`` says what is missing and why.
    """

    change: Change
    hunks: list[ListedHunk]
    first: ListedRow | None
    note: str


class Lister:
    """Lists changes between two versions of one object; a side that is None has no such object."""

    def __init__(
        self,
        old: ObjectView | None,
        new: ObjectView | None,
        sides: Sequence[DebugSide | None] = (),
        context: int = 3,
    ) -> None:
        self._views = (old, new)
        self._debug = sides or [DebugSide(view.file) if view else None for view in (old, new)]
        self._context = context

    def listing(self, change: Change, whole: bool = True) -> Listing:
        """Return what differs; for a function that was added or removed, all of it if ``whole``."""
        parts = [self._parts(side, entry) for side, entry in enumerate((change.old, change.new))]
        if None in (change.old, change.new) and not whole:
            return Listing(change, [], None, "")
        if change.kind != KIND_FUNCTION:
            return Listing(change, self._data(parts), None, "")
        old, new = (
            function_lines(view, own) if view and own else [] for view, own in zip(self._views, parts, strict=True)
        )
        comparison = Comparison(old, new)
        hunks = self._code(comparison, parts)
        hunks += self._jump_tables(comparison, parts)
        hunks += self._tables(comparison, parts)
        stretches = comparison.stretches if old and new else []
        first = self._first(stretches[0], comparison, parts) if stretches else None
        return Listing(change, hunks, first, self._note())

    def _parts(self, side: int, entry: Entry | None) -> list[int]:
        view = self._views[side]
        return view.parts_of(entry.part_symbol) if view and entry else []

    def _note(self) -> str:
        """Say why there are no source lines, where there might be some."""
        for side in self._debug:
            if side and side.info.is_too_large:
                size = side.info.size >> 20
                return f"no source lines: {size} MiB of debug information are more than this reads"
        return ""

    # -- functions ------------------------------------------------------------------------------------------------

    def _code(self, comparison: Comparison, parts: list[list[int]]) -> list[ListedHunk]:
        """Return the hunks of a function."""
        context, hunks = self._context, []
        done = 0  # new instructions that were listed or counted
        for group in _joined(comparison.stretches, 2 * context):
            first, last = group[0], group[-1]
            lead = min(context, first.b0 - done, first.a0)
            rows = [self._same(comparison, first.a0 - i, first.b0 - i, parts) for i in range(lead, 0, -1)]
            before = first.b0 - lead - done
            a, b = first.a0, first.b0
            for hunk in group:
                rows += [self._same(comparison, a + i, b + i, parts) for i in range(hunk.b0 - b)]
                for x, y in _paired(comparison, hunk):
                    rows.append(self._differing(x, y, parts))
                a, b = hunk.a1, hunk.b1
            tail = min(context, len(comparison.new) - b, len(comparison.old) - a)
            rows += [self._same(comparison, a + i, b + i, parts) for i in range(tail)]
            done = last.b1 + tail
            hunks.append(ListedHunk("instructions", before, rows))
        return _ended(hunks, "instructions", len(comparison.new) - done)

    def _same(self, comparison: Comparison, a: int, b: int, parts: list[list[int]]) -> ListedRow:
        return ListedRow(self._line(0, comparison.old[a], parts), self._line(1, comparison.new[b], parts), False)

    def _differing(self, x: Line | None, y: Line | None, parts: list[list[int]]) -> ListedRow:
        """Return two instructions that differ; of long strings that are the same at the start, where they differ."""
        old, new = self._line(0, x, parts), self._line(1, y, parts)
        for a, b in zip(x.references, y.references, strict=False) if x and y else ():
            before, after = x.view.string(a.row) if x else None, y.view.string(b.row) if y else None
            if old and new and before is not None and after is not None and before != after:
                texts = shown_strings(before, after)
                old = old._replace(text=old.text.replace(quote(before), texts[0]))
                new = new._replace(text=new.text.replace(quote(after), texts[1]))
        return ListedRow(old, new, True)

    def _line(self, side: int, line: Line | None, parts: list[list[int]]) -> ListedLine | None:
        if line is None:
            return None
        debug = self._debug[side]
        source = debug.source(line) if debug else None
        return ListedLine(
            str(line.where(parts[side])),
            line.view.part_name(line.part),
            line.offset,
            line.bytes,
            line.text,
            line.target,
            str(source or ""),
        )

    def _first(self, hunk: Hunk, comparison: Comparison, parts: list[list[int]]) -> ListedRow:
        """Return the first instructions that differ."""
        x, y = next((x, y) for x, y in _paired(comparison, hunk))
        return self._differing(x, y, parts)

    def _jump_tables(self, comparison: Comparison, parts: list[list[int]]) -> Iterator[ListedHunk]:
        """Yield the entries of jump tables that go elsewhere."""
        rows = []
        for target in comparison.retargets:
            if target.entry >= 0:
                lines = [
                    line._replace(text=f"entry {target.entry}: {line.text}")
                    for line in (
                        self._line(0, comparison.old[target.old], parts),
                        self._line(1, comparison.new[target.new], parts),
                    )
                    if line
                ]
                rows.append(ListedRow(lines[0], lines[1], True))
        if rows:
            yield ListedHunk("jump table", 0, rows)

    def _tables(self, comparison: Comparison, parts: list[list[int]]) -> Iterator[ListedHunk]:
        """Yield the entries of special sections that differ."""
        old, new = self._views
        if old is None or new is None or not all(parts):
            return
        for table in tables.differences(old, new, parts[0], parts[1], comparison.moves):
            rows = []
            for pair in table.pairs(parts[0], parts[1]):
                lines = [
                    ListedLine(
                        f"+{entry.place:#x}",
                        view.part_name(entry.part),
                        entry.place,
                        b"",
                        ", ".join([table.noun, *(tables.in_words(view, field) for field in entry.fields)]),
                    )
                    if entry
                    else None
                    for view, entry in zip((old, new), pair, strict=True)
                ]
                rows.append(ListedRow(lines[0], lines[1], True))
            if rows:
                yield ListedHunk(table.name, 0, rows)

    # -- data -----------------------------------------------------------------------------------------------------

    def _data(self, parts: list[list[int]]) -> list[ListedHunk]:
        old, new = (self._rows(side, own) for side, own in enumerate(parts))
        hunks: list[ListedHunk] = []
        before = 0
        fresh = True
        for (x, meant), (y, means) in zip_longest(old, new, fillvalue=(None, None)):
            if meant == means:
                before += 1
                fresh = True
                continue
            row = ListedRow(x, y, True)
            if fresh:
                hunks.append(ListedHunk("bytes", before, []))
            hunks[-1].rows.append(row)
            before, fresh = 0, False
        return _ended(hunks, "bytes", before)

    def _rows(self, side: int, parts: list[int]) -> list[tuple[ListedLine | None, object]]:
        """Return the rows of a variable and what each of them means."""
        view = self._views[side]
        if view is None or not parts:
            return []
        data, references = view.data(parts[0]), view.references(parts[0])
        rows: list[tuple[ListedLine | None, object]] = []
        name = view.part_name(parts[0])
        for at in range(0, len(data), _ROW):
            own = [reference for reference in references if at <= reference.place < at + _ROW]
            names = ", ".join(describe(view, reference.row) for reference in own)
            piece = data[at : at + _ROW]
            fields = [(reference.place - at, view.kinds.field_size(reference.key[0]) or _WORD) for reference in own]
            text = _hex(piece, names, fields)
            line = ListedLine(f"+{at:#x}", name, at, view.raw_bytes(parts[0], at, len(piece)), text, names)
            rows.append((line, (piece, [(reference.place, reference.key) for reference in own])))
        return rows


def shown_strings(before: str, after: str) -> tuple[str, str]:
    """Return two strings as they are shown: what they share at the start left out where it hides the difference."""
    shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(before, after, strict=False)))
    if max(len(before), len(after)) <= _LONG or shared < _LONG - _LEAD:
        return quote(before), quote(after)
    at = shared - _LEAD
    return f"...{quote(before[at:])}", f"...{quote(after[at:])}"


def _ended(hunks: list[ListedHunk], what: str, after: int) -> list[ListedHunk]:
    """Return hunks with the number of lines behind the last one, if there is one."""
    return [*hunks, ListedHunk(what, after, [])] if hunks and after else hunks


def _hex(data: bytes, names: str, fields: Sequence[tuple[int, int]]) -> str:
    """Return a row of data; ``fields`` (place, size) are filled in later, with the addresses of ``names``."""
    text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in data)
    words = [f"{byte:02x}" for byte in data]
    for place, size in fields:
        for at in range(place, min(place + size, len(words))):
            words[at] = "--"
    return f"{' '.join(words):<{3 * _ROW - 1}} {text}" + (f" <{names}>" if names else "")


def _joined(hunks: list[Hunk], most: int) -> Iterator[list[Hunk]]:
    """Group hunks with no more than ``most`` lines between them."""
    group: list[Hunk] = []
    for hunk in hunks:
        if group and hunk.b0 - group[-1].b1 > most:
            yield group
            group = []
        group.append(hunk)
    if group:
        yield group


def _paired(comparison: Comparison, hunk: Hunk) -> Iterator[tuple[Line | None, Line | None]]:
    """Yield the instructions of a hunk, those with the same mnemonic beside each other."""
    removed, added = comparison.old[hunk.a0 : hunk.a1], comparison.new[hunk.b0 : hunk.b1]
    if len(removed) == len(added) or not removed or not added or len(removed) + len(added) > _MOST_PAIRED:
        yield from zip_longest(removed, added)
        return
    old, new = ([line.text.partition(" ")[0] for line in lines] for lines in (removed, added))
    for _, a0, a1, b0, b1 in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        yield from zip_longest(removed[a0:a1], added[b0:b1])
