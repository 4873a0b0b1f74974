# SPDX-License-Identifier: GPL-2.0-only
"""A report for people: one line a change, by link unit and object, with a summary at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from posixpath import commonprefix

from kbuild_klp.changes.classification import Change, ChangeType
from kbuild_klp.changes.verdict import Obstacle, Verdict
from kbuild_klp.checksum.entry import KIND_DATA, KIND_FUNCTION
from kbuild_klp.report.model import ObjectChanges, Report, Summary

_COLORS = {
    ChangeType.CHANGED: "33",
    ChangeType.ADDED: "32",
    ChangeType.REMOVED: "31",
    ChangeType.MOVED: "36",
    ChangeType.LINE_ONLY: "2",
}
_BOLD = "1"

# The sign before a change that a livepatch cannot carry, or whose author has to know something, and its line in the
# legend. Obstacles without one are only shown in JSON and with -v.
_WITH_USERS = ("O", "a livepatch carries it, with all functions that refer to it")
_MARKS = {
    Obstacle.INIT: ("I", "no livepatch: init or exit code"),
    Obstacle.NOT_TRACEABLE: ("T", "no livepatch: not traceable"),
    Obstacle.NO_SYMBOL: ("N", "no livepatch: not found by name in vmlinux or the module"),
    Obstacle.DATA: ("D", "no livepatch: data"),
    Obstacle.TABLE: ("L", "no livepatch: in a table read when the kernel is linked or started"),
    Obstacle.VDSO: ("V", "no livepatch: vdso"),
    Obstacle.STATIC_KEY: ("K", "no livepatch: uses a static key of a module"),
    Obstacle.CRC: ("C", "no livepatch: the CRC of an export changed"),
    Obstacle.TYPE: ("Y", "no livepatch: called by pointers, and its type changed (kCFI)"),
    Obstacle.REFERENCED: ("R", "no livepatch: removed, but still referenced"),
    Obstacle.UNKNOWN: ("?", "not known whether a livepatch can carry it"),
    Obstacle.SYMPOS: ("#", "a livepatch needs sympos: the name is not unique"),
    Obstacle.TRACEPOINT: ("P", "a livepatch makes a tracepoint in it silent"),
    Obstacle.THREAD: ("H", "a livepatch waits for threads that are in it, maybe without end"),
    Obstacle.READ_ONLY: _WITH_USERS,
    Obstacle.CALLERS: _WITH_USERS,
}
# SYMBOL_CRC() in include/linux/export-internal.h.
_CRC = "__crc_"
_MANY_CRCS = 4  # of one object, that share a line
_LEAST_ROOM = 12  # columns for a reason
_MARK_COLORS = {False: "31", True: "33"}


class TextStyle:
    """How to print: ``width`` in columns, with colour, all reasons (``verbose``), line-only changes too (``lines``).

    ``columns`` is for listings: side by side.
    """

    def __init__(
        self, width: int = 80, color: bool = False, verbose: bool = False, lines: bool = False, columns: bool = False
    ) -> None:
        self.width = width
        self.color = color
        self.verbose = verbose
        self.lines = lines or verbose
        self.columns = columns

    def paint(self, text: str, code: str) -> str:
        """Return ``text`` in a colour."""
        return f"\x1b[{code}m{text}\x1b[m" if self.color else text


def render(report: Report, style: TextStyle) -> str:
    """Return the whole report, newline included."""
    return "".join(f"{line}\n" for line in _lines(report, style))


def shown_changes(changes: ObjectChanges, style: TextStyle) -> list[Change]:
    """Return the changes of an object that are listed."""
    return [
        change
        for change in changes.changes
        if change.ignored is None and (style.lines or change.change is not ChangeType.LINE_ONLY)
    ]


def _lines(report: Report, style: TextStyle) -> Iterator[str]:
    unit = None
    for changes in report.objects:
        shown = shown_changes(changes, style)
        if not shown:
            continue
        if changes.unit != unit:
            if unit is not None:
                yield ""
            unit = changes.unit
            yield style.paint(unit if unit in ("vmlinux", "object") else f"module {unit}", _BOLD)
        yield f"  {changes.object}"
        crcs = [] if style.verbose else [change for change in shown if _is_crc(change)]
        for change in shown:
            if len(crcs) < _MANY_CRCS or not _is_crc(change):
                yield from _change_lines(change, style)
            elif change is crcs[0]:
                yield _crc_line(crcs, style)
    if unit is not None:
        yield ""
    yield from _legend_lines(report, style)
    yield from _summary_lines(report, style)


def _mark(verdict: Verdict) -> Obstacle | None:
    """Return what the sign before a change is about: what forbids a livepatch, else what its author has to know."""
    marked = [reason.obstacle for reason in verdict.reasons if reason.obstacle in _MARKS]
    return next((obstacle for obstacle in marked if not obstacle.is_note), marked[0] if marked else None)


def _legend_lines(report: Report, style: TextStyle) -> Iterator[str]:
    """Explain the signs that were used, and why there are none in a kernel without livepatch."""
    verdicts = {change.livepatch for changes in report.objects for change in shown_changes(changes, style)}
    marks = {mark for mark in map(_mark, verdicts) if mark is not None}
    lines = dict.fromkeys((_MARKS[mark], mark.is_note) for mark in _MARKS if mark in marks)
    for (sign, meaning), is_note in lines:
        yield f"  {style.paint(sign, _MARK_COLORS[is_note])} {meaning}"
    reasons = {reason for verdict in verdicts for reason in verdict.reasons}
    for reason in reasons:
        if reason.obstacle is Obstacle.NO_LIVEPATCH:
            yield f"  {reason.text}"


def _is_crc(change: Change) -> bool:
    return change.change is ChangeType.CHANGED and change.kind == KIND_DATA and change.symbol.startswith(_CRC)


def _crc_line(crcs: list[Change], style: TextStyle) -> str:
    """Return one line for the CRCs of a module's exports: a new release of the kernel changes them all."""
    head, painted = _head(crcs[0], f"CRCs of {len(crcs)} exports (-v lists them)", style)
    names, room = ", ".join(change.symbol.removeprefix(_CRC) for change in crcs), style.width - len(head) - 2
    return painted if room < _LEAST_ROOM else f"{painted}  {_cut(names, room)}"


def _head(change: Change, title: str, style: TextStyle) -> tuple[str, str]:
    """Return the beginning of the line of a change, plain and in colour."""
    mark = _mark(change.livepatch)
    sign = _MARKS[mark][0] if mark is not None else " "
    head = f"  {sign} {change.change.value:<9} {title}"
    if mark is not None:
        sign = style.paint(sign, _MARK_COLORS[mark.is_note])
    return head, f"  {sign} {style.paint(f'{change.change.value:<9}', _COLORS[change.change])} {title}"


def title_with_kind(change: Change) -> str:
    """Return what a change is of, and the kind of that, but for functions."""
    return change.title if change.kind == KIND_FUNCTION else f"{change.title} ({change.kind})"


def _change_lines(change: Change, style: TextStyle) -> Iterator[str]:
    head, painted = _head(change, title_with_kind(change), style)
    if style.verbose:
        yield painted
        for text in change.reasons:
            yield f"              {text}"
        for obstacle in change.livepatch.reasons:
            yield f"              livepatch: {obstacle.text}"
        return
    room = style.width - len(head) - 2
    if not change.reasons or room < _LEAST_ROOM:
        yield painted
        return
    reason = change.reasons[0]
    more = f" (+{len(change.reasons) - 1})" if len(change.reasons) > 1 else ""
    yield f"{painted}  {fitted(reason, room - len(more))}{more}"


def fitted(reason: str, room: int) -> str:
    """Return as much of a reason as there is room for (12 columns at least).

    Of the new side only the words that differ, if that is enough; else both sides from where they begin to differ.
    """
    if len(reason) <= room:
        return reason
    head, arrow, new = reason.rpartition(" -> ")
    place, colon, old = head.partition(": ")
    if not (arrow and colon):
        return _cut(reason, room)
    before, after = old.split(" "), new.split(" ")
    while len(after) > 1 and before and before[0] == after[0]:
        del before[0], after[0]
    while len(after) > 1 and before and before[-1] == after[-1]:
        del before[-1], after[-1]
    differs = " ".join(after).rstrip(",")
    if len(head) + len(arrow) + len(differs) <= room:
        return f"{head}{arrow}{differs}"
    what, _, text = old.partition('"')
    same = len(commonprefix((text, differs[1:]))) if differs.startswith('"') else 0
    if same > len("..."):
        old, differs = (f'{begin}"...{own[same:]}' for begin, own in ((what, text), ("", differs[1:])))
    half = (room - len(place) - len(": ") - len(arrow)) // 2
    if half <= len("..."):
        return _cut(reason, room)
    differs = _cut(differs, max(half, 2 * half - len(old)))
    return f"{place}: {_cut(old, 2 * half - len(differs))}{arrow}{differs}"


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else text[: room - 3] + "..."


def _summary_lines(report: Report, style: TextStyle) -> Iterator[str]:
    summary = report.summary
    yield style.paint(summary_line(summary), _BOLD)
    if summary.line_only and not style.lines:
        inferred = f", {summary.line_only_inferred} of them inferred" if summary.line_only_inferred else ""
        yield f"{summary.line_only} more differ in line numbers only{inferred} (--lines lists them)"
    if summary.reencoded:
        yield f"{summary.reencoded} more have the same instructions, only their neighbours differ"
    if summary.identity_only:
        yield f"{summary.identity_only} more differ in what the builds say of themselves only (release, builder, time)"
    if summary.ignored:
        # An object may be in several units.
        ignored = {
            (changes.object, change.kind, change.id, change.change): change.ignored
            for changes in report.objects
            for change in changes.changes
        }
        rules = Counter(rule for rule in ignored.values() if rule is not None)
        for rule, count in sorted(rules.items()):
            yield f"{count} more left out by {rule}"


def summary_line(summary: Summary) -> str:
    """Return the counts in one line."""
    counts = [
        f"{number} {word}"
        for number, word in (
            (summary.changed, "changed"),
            (summary.added, "added"),
            (summary.removed, "removed"),
            (summary.moved, "moved"),
        )
        if number
    ]
    objects = f"{summary.objects_compared} object{'s' if summary.objects_compared != 1 else ''}"
    if not counts:
        return f"no change in {objects}"
    return f"{', '.join(counts)}; {summary.objects_changed} of {objects}"
