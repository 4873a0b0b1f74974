# SPDX-License-Identifier: GPL-2.0-only
"""A report for people: by link unit and object, one line a change, a summary line last."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from kbuild_klp.classify import Change, ChangeType
from kbuild_klp.entry import KIND_FUNCTION
from kbuild_klp.report.model import Report, Summary

_COLORS = {
    ChangeType.CHANGED: "33",
    ChangeType.ADDED: "32",
    ChangeType.REMOVED: "31",
    ChangeType.MOVED: "36",
    ChangeType.LINE_ONLY: "2",
}
_BOLD = "1"


class TextStyle:
    """How wide lines may be (in columns), whether there is colour, and whether everything is to be shown."""

    def __init__(self, width: int = 80, color: bool = False, verbose: bool = False, lines: bool = False) -> None:
        self.width = width
        self.color = color
        self.verbose = verbose
        self.lines = lines or verbose

    def paint(self, text: str, code: str) -> str:
        """Return ``text`` in a colour."""
        return f"\x1b[{code}m{text}\x1b[m" if self.color else text


def render(report: Report, style: TextStyle) -> str:
    """Return the whole report, newline included."""
    return "".join(f"{line}\n" for line in _lines(report, style))


def _lines(report: Report, style: TextStyle) -> Iterator[str]:
    unit = None
    for changes in report.objects:
        shown = [
            change
            for change in changes.changes
            if change.ignored is None and (style.lines or change.change is not ChangeType.LINE_ONLY)
        ]
        if not shown:
            continue
        if changes.unit != unit:
            if unit is not None:
                yield ""
            unit = changes.unit
            yield style.paint(unit if unit in ("vmlinux", "object") else f"module {unit}", _BOLD)
        yield f"  {changes.object}"
        for change in shown:
            yield from _change_lines(change, style)
    if unit is not None:
        yield ""
    yield from _summary_lines(report, style)


def _change_lines(change: Change, style: TextStyle) -> Iterator[str]:
    kind = "" if change.kind == KIND_FUNCTION else f" ({change.kind})"
    head = f"    {change.change.value:<9} {change.symbol}{kind}"
    painted = f"    {style.paint(f'{change.change.value:<9}', _COLORS[change.change])} {change.symbol}{kind}"
    if style.verbose:
        yield painted
        for reason in change.reasons:
            yield f"              {reason}"
        return
    room = style.width - len(head) - 2
    if not change.reasons or room < 12:
        yield painted
        return
    reason = change.reasons[0]
    more = f" (+{len(change.reasons) - 1})" if len(change.reasons) > 1 else ""
    if len(reason) + len(more) > room:
        reason = reason[: room - len(more) - 3] + "..."
    yield f"{painted}  {reason}{more}"


def _summary_lines(report: Report, style: TextStyle) -> Iterator[str]:
    summary = report.summary
    yield style.paint(summary_line(summary), _BOLD)
    if summary.line_only and not style.lines:
        inferred = f", {summary.line_only_inferred} of them inferred" if summary.line_only_inferred else ""
        yield f"{summary.line_only} more differ in line numbers only{inferred} (--lines lists them)"
    if summary.ignored:
        # An object may be in several units.
        ignored = {id(change): change.ignored for changes in report.objects for change in changes.changes}
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
