# SPDX-License-Identifier: GPL-2.0-only
"""What differs in one function or variable, for people: side by side, or as a unified diff."""

from __future__ import annotations

import re
from collections.abc import Iterator

from kbuild_klp.builds.side import SINGLE_OBJECT
from kbuild_klp.changes.classification import Change, ChangeType
from kbuild_klp.changes.verdict import Obstacle
from kbuild_klp.explain.listing import ListedHunk, ListedLine, ListedRow, Listing
from kbuild_klp.report.model import Explanation, Report
from kbuild_klp.report.text import TextStyle, summary_line, title_with_kind

WIDE = 100
"""Columns that a terminal needs to show two versions side by side by default."""

_INDENT = "    "
_MOST_ROWS = 200
_TEXT = 44  # columns for an instruction before its source line
_OPERAND = re.compile(r'"(?:\\.|[^"\\])*"|[(<]|[)>]|, ?| ')

_Pieces = list[tuple[str, bool]]
"""Text, cut where a difference begins or ends; the second value says whether a piece differs."""


def change_line(change: Change) -> str:
    """Return the line that names a change."""
    return f"  {change.change.value:<9} {title_with_kind(change)}"


def reason_lines(change: Change, style: TextStyle, first: ListedRow | None = None) -> Iterator[str]:
    """Yield the reasons of a change, ``first`` (the first instructions that differ) before all, and its verdict."""
    difference = ""
    if first is not None:
        difference = _difference(first)
        yield f"{_INDENT}first difference at {_place(first)}: {difference}"
    for reason in change.reasons:
        # Do not repeat it: a reason about one instruction is its place and both versions.
        if not difference or not reason.startswith("+") or reason.partition(": ")[2] != difference:
            yield f"{_INDENT}{reason}"
    yield from _verdict_lines(change, style)


def _verdict_lines(change: Change, style: TextStyle) -> Iterator[str]:
    """Say whether a livepatch can carry a change, and what its author has to know.

    Nothing for line numbers, and nothing if the whole kernel has no livepatch.
    """
    reasons = change.livepatch.reasons
    obstacles = {reason.obstacle for reason in reasons if not reason.obstacle.is_note}
    if change.change is ChangeType.LINE_ONLY or Obstacle.NO_LIVEPATCH in obstacles:
        return
    words, code = ("not possible", "31") if obstacles else ("possible", "33" if reasons else "32")
    if obstacles == {Obstacle.UNKNOWN}:
        words, code = Obstacle.UNKNOWN.word, "31"
    yield f"{_INDENT}livepatch: {style.paint(words, code)}"
    for reason in sorted(reasons, key=lambda reason: reason.obstacle.is_note):
        yield f"{_INDENT}  {reason.text.removeprefix(f'{words}: ')}"


def text_lines(listing: Listing, style: TextStyle) -> Iterator[str]:
    """Yield the lines about one change."""
    change = listing.change
    yield change_line(change)
    yield from reason_lines(change, style, listing.first)
    if listing.note:
        yield f"{_INDENT}({listing.note})"
    left = _MOST_ROWS
    for hunk in listing.hunks:
        shown = hunk._replace(rows=hunk.rows[: max(left, 0)])
        if hunk.before and (shown.rows or (left > 0 and not hunk.rows)):
            yield _folded(hunk.before, style)
        if hunk.what != "bytes" and shown.rows:
            yield _INDENT + style.paint(f"@@ {_title(hunk, change.label)} @@", "36")
        yield from (_side_by_side if style.columns else _unified)(shown, style)
        left -= len(hunk.rows)
    if left < 0:
        yield _INDENT + style.paint(f"@@ and {-left} more rows @@", "36")


def _folded(count: int, style: TextStyle) -> str:
    return _INDENT + style.paint(f"  ... {count} unchanged ...", "2")


def _title(hunk: ListedHunk, symbol: str) -> str:
    """Return what a hunk is of, and where it starts on both sides."""
    if hunk.what != "instructions":
        return hunk.what
    start = next(i for i, row in enumerate(hunk.rows) if row.differs)
    sides = [next((line for row in hunk.rows[start:] if (line := row.sides[side])), None) for side in (0, 1)]
    return _place(ListedRow(sides[0], sides[1], True), symbol)


def _place(row: ListedRow, symbol: str = "") -> str:
    """Return where a row stands on both sides, with source lines where they are known."""
    words = []
    for line in row.sides:
        if line is not None:
            place = f"{symbol}{line.place}" if line.place.startswith("+") else line.place
            words.append(f"{place} ({line.source})" if line.source else place)
    return " -> ".join(dict.fromkeys(words))


def _difference(row: ListedRow) -> str:
    if row.old is None or row.new is None:
        return f"added {row.new.text}" if row.new else f"removed {row.old.text}" if row.old else ""
    return f"{row.old.text} -> {row.new.text}"


# -- which operands differ --------------------------------------------------------------------------------------------


def _operands(text: str) -> list[str]:
    """Cut an instruction into mnemonic, operands, and what stands between them."""
    pieces = [""]
    depth = 0
    at = 0
    for match in _OPERAND.finditer(text):
        pieces[-1] += text[at : match.start()]
        at = match.end()
        found = match[0]
        depth += (found in "(<") - (found in ")>")
        if found in (", ", ",", " ") and depth <= 0:
            pieces += [found, ""]
        else:
            pieces[-1] += found
    pieces[-1] += text[at:]
    return pieces


def marked(old: str, new: str) -> tuple[_Pieces, _Pieces]:
    """Cut two instructions into pieces and say which differ; none, when they have nothing in common."""
    before, after = _operands(old), _operands(new)
    same = [x == y for x, y in zip(before, after, strict=False)]
    if len(before) != len(after) or all(same) or not any(same[::2]):
        return [(old, False)], [(new, False)]
    return (
        [(piece, not equal) for piece, equal in zip(before, same, strict=True)],
        [(piece, not equal) for piece, equal in zip(after, same, strict=True)],
    )


def _marked_names(old: ListedLine, new: ListedLine) -> tuple[_Pieces, _Pieces]:
    """Mark what two rows of data refer to; for the bytes, a line below them does that."""
    sides = []
    for line in (old, new):
        names = f"<{line.target}>"
        cut = len(line.text) - len(names)
        differs = old.target != new.target
        sides.append([(line.text[:cut], False), (names, differs)] if line.target else [(line.text, False)])
    return sides[0], sides[1]


def _painted(pieces: _Pieces, ends: tuple[str, str], style: TextStyle) -> _Pieces:
    """Put marks around what differs: brackets, as in a word diff, where there is no colour."""
    return [(text if style.color or not differs else f"{ends[0]}{text}{ends[1]}", differs) for text, differs in pieces]


def _render(pieces: _Pieces, code: str, style: TextStyle) -> str:
    """Return pieces in a colour, those that differ in reverse."""
    text = "".join(f"\x1b[7m{text}\x1b[27m" if differs and style.color else text for text, differs in pieces)
    return style.paint(text, code) if code else text


def _cut(pieces: _Pieces, width: int) -> _Pieces:
    """Cut pieces to a number of columns: first what is between the place and the first difference, then the end."""
    if sum(len(text) for text, _ in pieces) <= width:
        return pieces
    first = next((at for at, (_, differs) in enumerate(pieces) if differs), 0)
    if first > 2 and sum(len(text) for text, _ in pieces[: first + 1]) > width - 3:
        pieces = [pieces[0], ("...", False), *pieces[first:]]
        if sum(len(text) for text, _ in pieces) <= width:
            return pieces
    result: _Pieces = []
    left = width - 3
    for text, differs in pieces:
        result.append((text[: max(left, 0)], differs))
        left -= len(text)
    return [*result, ("...", False)]


_ENDS = (("[-", "-]"), ("{+", "+}"))


def _both(row: ListedRow, what: str, style: TextStyle) -> tuple[_Pieces, _Pieces]:
    """Return the texts of both sides of a row with marks."""
    old, new = (line.text if line else "" for line in row.sides)
    if row.old is None or row.new is None or not row.differs:
        return [(old, False)], [(new, False)]
    before, after = _marked_names(row.old, row.new) if what == "bytes" else marked(old, new)
    return _painted(before, _ENDS[0], style), _painted(after, _ENDS[1], style)


# -- one below the other ----------------------------------------------------------------------------------------------


def _unified(hunk: ListedHunk, style: TextStyle) -> Iterator[str]:
    sources = ["", ""]
    waiting: list[ListedRow] = []
    for row in [*hunk.rows, ListedRow(None, None, False)]:
        if row.differs:
            waiting.append(row)
            continue
        yield from _run(waiting, hunk.what, sources, style)
        waiting = []
        if row.new is not None:
            own = _new_sources(row, sources)
            yield f"{_INDENT}  {_with_source(row.new, [(row.new.text, False)], own, '', style)}"


def _run(rows: list[ListedRow], what: str, sources: list[str], style: TextStyle) -> Iterator[str]:
    """Yield a run of lines that differ: those of the old side, then those of the new side."""
    texts = [_both(row, what, style) for row in rows]
    for side, mark, code in ((0, "-", "31"), (1, "+", "32")):
        for row, text in zip(rows, texts, strict=True):
            line = row.sides[side]
            if line is None:
                continue
            source = line.source if line.source != sources[side] else ""
            sources[side] = line.source
            yield _INDENT + _with_source(line, text[side], source, code, style, f"{mark} ")
            if side and what == "bytes" and len(rows) == 1 and row.old is not None and row.old.bytes != line.bytes:
                yield f"{_INDENT}  {_guide(row.old, line)}".rstrip()


def _new_sources(row: ListedRow, sources: list[str]) -> str:
    """Return the source lines of a row that is the same on both sides, empty if they are those of the row before."""
    own = [line.source if line else "" for line in row.sides]
    if own == sources:
        return ""
    sources[:] = own
    return " -> ".join(dict.fromkeys(filter(None, own)))


def _with_source(line: ListedLine, text: _Pieces, source: str, code: str, style: TextStyle, mark: str = "") -> str:
    place = line.place if not line.place.startswith("+") else f"{line.place:<7}"
    length = sum(len(piece) for piece, _ in text)
    end = f"{' ' * max(_TEXT - length, 1)}{style.paint(source, '2')}" if source else ""
    return _render([(f"{mark}{place} ", False), *text], code, style) + end


def _guide(old: ListedLine, new: ListedLine) -> str:
    """Return a line that points at the bytes that differ."""
    marks = ["  " if x == y else "^^" for x, y in zip(old.bytes, new.bytes, strict=False)]
    return f"{'':<7} {' '.join(marks)}"


# -- side by side -----------------------------------------------------------------------------------------------------


def _side_by_side(hunk: ListedHunk, style: TextStyle) -> Iterator[str]:
    width = (style.width - len(_INDENT) - 3) // 2
    sources = ["", ""]
    for row in hunk.rows:
        own = [line.source if line else sources[side] for side, line in enumerate(row.sides)]
        if own != sources and any(own):
            shown = ["" if own[side] == sources[side] else own[side] for side in (0, 1)]
            yield (_INDENT + style.paint(f"{shown[0][-width:]:<{width}}   {shown[1][-width:]}", "2")).rstrip()
            sources = own
        yield _columns(row, _both(row, hunk.what, style), width, style)


def _columns(row: ListedRow, texts: tuple[_Pieces, _Pieces], width: int, style: TextStyle) -> str:
    mark = " " if not row.differs else "<" if row.new is None else ">" if row.old is None else "|"
    sides = []
    for line, text, code in ((row.old, texts[0], "31"), (row.new, texts[1], "32")):
        place = "" if line is None else f"{line.place:<7} "
        pieces = _cut([(place, False), *text], width)
        room = " " * (width - sum(len(piece) for piece, _ in pieces))
        sides.append(_render(pieces, code if row.differs else "", style) + room)
    return f"{_INDENT}{sides[0]} {mark} {sides[1]}".rstrip()


# -- the whole answer -------------------------------------------------------------------------------------------------


def text_answer(answer: Explanation, report: Report, style: TextStyle) -> Iterator[str]:
    """Yield the lines of an answer, each as soon as it is known."""
    for symbol, other in answer.aliases:
        yield f"{symbol} is part of {other}"
    for found in answer.objects:
        label = found.object
        if found.units != [SINGLE_OBJECT]:
            label += "".join(f" ({unit})" for unit in found.units)
        yield style.paint(label, "1")
        for listing in found.listings or ():
            yield from text_lines(listing, style)
        if found.listings is None:
            for change in found.changes:
                yield change_line(change)
                yield from reason_lines(change, style)
            yield "  the objects are not at hand (an archive holds checksums only), so no instructions are shown"
        for function, symbols in found.inlined.items():
            yield f"  inlined   {function} has no code of its own, and differs in {', '.join(symbols)}"
    for inlined in answer.inlined:
        own = "has no code of its own; it was" if inlined.is_only else "was also"
        if not inlined.into:
            yield f"{inlined.function} {own} inlined, and no instruction of it differs"
            continue
        yield f"{inlined.function} {own} inlined, and differs in"
        yield from (f"  {function} ({name})" for name, function in inlined.into)
    for symbol, objects in answer.unchanged:
        yield f"{symbol}: no difference ({', '.join(objects)})"
    if not (answer.differs or answer.symbols):
        yield summary_line(report.summary)
