# SPDX-License-Identifier: GPL-2.0-only
"""One changed entry in full, as data: what differs on both sides, with what stands around it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from itertools import zip_longest
from typing import NamedTuple

from kbuild_klp.changes.classification import Change
from kbuild_klp.checksum.entry import KIND_FUNCTION, Entry
from kbuild_klp.explain import tables
from kbuild_klp.explain.comparison import Comparison, Hunk
from kbuild_klp.explain.contents import shown_strings
from kbuild_klp.explain.origins import DebugSide
from kbuild_klp.lines.versions import Version
from kbuild_klp.object.function import Line
from kbuild_klp.object.reference_text import describe, quote
from kbuild_klp.object.special_entries import SpecialEntry
from kbuild_klp.object.view import ObjectView

_ROW = 16  # bytes of data in a line
_WORD = 8
_MOST_PAIRED = 400  # instructions of a hunk for which a best match is looked for


class ListedLine(NamedTuple):
    """One instruction, or a row of data.

    ``place`` is its place as text, ``offset`` the same in bytes in the symbol ``part``; ``bytes`` are those in the
    object; ``target`` is what it refers to (empty: nothing), ``source`` its source line (empty: not known).
    """

    place: str
    part: str
    offset: int
    bytes: bytes
    text: str
    target: str = ""
    source: str = ""


class ListedRow(NamedTuple):
    """A line of each side; None where one has no counterpart. ``differs`` is False for the lines around a change."""

    old: ListedLine | None
    new: ListedLine | None
    differs: bool

    @property
    def sides(self) -> tuple[ListedLine | None, ListedLine | None]:
        """Both lines, the old one first."""
        return self.old, self.new


class ListedHunk(NamedTuple):
    """A stretch that differs, with its context.

    ``what`` are the lines (instructions, bytes, or entries of a special section); ``before`` counts the unchanged lines
    since the last hunk that are not in ``rows``. A hunk without rows counts those behind the last one.
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
    """Lists changes between two versions of one object; None for one that is not there."""

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
        """Return what differs: for a function that was added or removed, all of it if ``whole``, else nothing."""
        if None in (change.old, change.new) and not whole:
            return Listing(change, [], None, "")
        old, new = (_version(view, entry) for view, entry in zip(self._views, (change.old, change.new), strict=True))
        if change.kind != KIND_FUNCTION:
            return Listing(change, self._data(old, new), None, "")
        comparison = Comparison(old, new)
        hunks = [*self._code(comparison), *self._jump_tables(comparison)]
        if old and new:
            hunks += _tables(old, new, comparison.moves)
        first = None
        if comparison.old and comparison.new and comparison.stretches:
            first = self._differing(comparison, *next(_paired(comparison, comparison.stretches[0])))
        return Listing(change, hunks, first, self._note())

    def _note(self) -> str:
        """Say why there are no source lines if debug information would have some."""
        for side in self._debug:
            if side and side.info.is_too_large:
                size = side.info.size >> 20
                return f"no source lines: {size} MiB of debug information are more than this reads"
        return ""

    # -- functions ------------------------------------------------------------------------------------------------

    def _code(self, comparison: Comparison) -> list[ListedHunk]:
        """Return the hunks of a function."""
        context, hunks = self._context, []
        done = 0  # new instructions that were listed or counted
        for group in _joined(comparison.stretches, 2 * context):
            first, last = group[0], group[-1]
            lead = min(context, first.b0 - done, first.a0)
            rows = [self._same(comparison, first.a0 - i, first.b0 - i) for i in range(lead, 0, -1)]
            before = first.b0 - lead - done
            a, b = first.a0, first.b0
            for hunk in group:
                rows += [self._same(comparison, a + i, b + i) for i in range(hunk.b0 - b)]
                rows += [self._differing(comparison, x, y) for x, y in _paired(comparison, hunk)]
                a, b = hunk.a1, hunk.b1
            tail = min(context, len(comparison.new) - b, len(comparison.old) - a)
            rows += [self._same(comparison, a + i, b + i) for i in range(tail)]
            done = last.b1 + tail
            hunks.append(ListedHunk("instructions", before, rows))
        return _ended(hunks, "instructions", len(comparison.new) - done)

    def _same(self, comparison: Comparison, a: int, b: int) -> ListedRow:
        return ListedRow(*self._lines(comparison, comparison.old[a], comparison.new[b]), False)

    def _differing(self, comparison: Comparison, x: Line | None, y: Line | None) -> ListedRow:
        """Return two instructions that differ; of long strings that begin alike, the place where they differ."""
        old, new = self._lines(comparison, x, y)
        for a, b in zip(x.references, y.references, strict=False) if x and y else ():
            before, after = x.view.string(a.row) if x else None, y.view.string(b.row) if y else None
            if old and new and before is not None and after is not None and before != after:
                texts = shown_strings(before, after)
                old = old._replace(text=old.text.replace(quote(before), texts[0]))
                new = new._replace(text=new.text.replace(quote(after), texts[1]))
        return ListedRow(old, new, True)

    def _lines(
        self, comparison: Comparison, old: Line | None, new: Line | None
    ) -> tuple[ListedLine | None, ListedLine | None]:
        x, y = (self._line(comparison, side, line) if line else None for side, line in enumerate((old, new)))
        return x, y

    def _line(self, comparison: Comparison, side: int, line: Line) -> ListedLine:
        debug = self._debug[side]
        source = debug.source(line) if debug else None
        return ListedLine(
            str(comparison.place(side, line)),
            line.view.part_name(line.part),
            line.offset,
            line.bytes,
            line.text,
            line.target,
            str(source or ""),
        )

    def _jump_tables(self, comparison: Comparison) -> Iterator[ListedHunk]:
        """Yield the entries of jump tables that go elsewhere."""
        rows = []
        for target in comparison.retargets:
            if target.entry >= 0:
                goals = (comparison.old[target.old], comparison.new[target.new])
                lines = (self._line(comparison, side, line) for side, line in enumerate(goals))
                old, new = (line._replace(text=f"entry {target.entry}: {line.text}") for line in lines)
                rows.append(ListedRow(old, new, True))
        if rows:
            yield ListedHunk("jump table", 0, rows)

    # -- data -----------------------------------------------------------------------------------------------------

    def _data(self, *versions: Version | None) -> list[ListedHunk]:
        old, new = map(_rows, versions)
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


def _version(view: ObjectView | None, entry: Entry | None) -> Version | None:
    parts = view.parts_of(entry.part_symbol) if view and entry else []
    return Version(view, parts) if view and parts else None


def _tables(old: Version, new: Version, moves: bool) -> Iterator[ListedHunk]:
    """Yield the entries of special sections that differ."""
    for table in tables.differences(old, new, moves):
        rows = [
            ListedRow(_entry(old.view, table, x) if x else None, _entry(new.view, table, y) if y else None, True)
            for x, y in table.pairs()
        ]
        if rows:
            yield ListedHunk(table.name, 0, rows)


def _entry(view: ObjectView, table: tables.TableDifference, entry: SpecialEntry) -> ListedLine:
    text = ", ".join([table.noun, *(tables.in_words(view, field) for field in entry.fields)])
    return ListedLine(f"+{entry.place:#x}", view.part_name(entry.part), entry.place, b"", text)


def _rows(version: Version | None) -> list[tuple[ListedLine | None, object]]:
    """Return the rows of a variable and what each of them means."""
    if version is None:
        return []
    view, (part, *_) = version
    data, references = view.data(part), view.references(part)
    rows: list[tuple[ListedLine | None, object]] = []
    name = view.part_name(part)
    for at in range(0, len(data), _ROW):
        own = [reference for reference in references if at <= reference.place < at + _ROW]
        names = ", ".join(describe(view, reference.row) for reference in own)
        piece = data[at : at + _ROW]
        fields = [(reference.place - at, view.kinds.field_size(reference.key[0]) or _WORD) for reference in own]
        text = _hex(piece, names, fields)
        line = ListedLine(f"+{at:#x}", name, at, view.raw_bytes(part, at, len(piece)), text, names)
        rows.append((line, (piece, [(reference.place, reference.key) for reference in own])))
    return rows


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
