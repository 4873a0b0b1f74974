# SPDX-License-Identifier: GPL-2.0-only
"""Reports and explanations as JSON documents, for scripts. Keys may be added, never renamed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING, Any

from kbuild_klp.changes.classification import Change
from kbuild_klp.report.model import Explanation, Report

if TYPE_CHECKING:
    from kbuild_klp.explain.listing import ListedLine, Listing

DOCUMENT_VERSION = 1


def why(change: Change) -> list[dict[str, Any]]:
    """Return the reasons of a change as data, in the order of its `reasons`."""
    return [
        {
            "kind": reason.kind.value,
            "code": reason.code.word,
            "old": reason.old,
            "new": reason.new,
            **reason.values,
            **({"within": reason.within} if reason.within else {}),
        }
        for reason in change.why
    ]


def change_data(change: Change) -> dict[str, Any]:
    """Return what reports and explanations both say of a change."""
    return {
        "symbol": change.symbol,
        **({"file": change.file} if change.file else {}),
        **({"aliases": change.aliases} if change.aliases else {}),
        "kind": change.kind,
        "change": change.change.value,
        "reasons": change.reasons,
        "why": why(change),
        "livepatch": {
            "possible": change.livepatch.possible,
            "reasons": [reason.text for reason in change.livepatch.reasons],
        },
    }


def render(report: Report) -> str:
    """Return the JSON document, each change on a line of its own."""
    groups = [
        _listed(
            f'{{"object": {json.dumps(group.object)}, "unit": {json.dumps(group.unit)}, "changes": ',
            [json.dumps(_in_report(change)) for change in group.changes],
            "   ",
        )
        + "}"
        for group in report.objects
    ]
    parts = [
        f'{{\n "version": {DOCUMENT_VERSION}',
        f' "summary": {json.dumps(asdict(report.summary))}',
        _listed(' "objects": ', groups, "  "),
        _listed(' "warnings": ', list(map(json.dumps, [*report.warnings, *report.failed])), "  "),
    ]
    return ",\n".join(parts) + "\n}"


def _in_report(change: Change) -> dict[str, Any]:
    data = change_data(change)
    if change.ignored is not None:
        data["ignored"] = change.ignored
    if change.proof:
        data["proof"] = change.proof.value
    return data


def _listed(head: str, rows: list[str], indent: str) -> str:
    """Return an array of texts that are JSON already, one a line."""
    return f"{head}[]" if not rows else f"{head}[\n{indent}" + f",\n{indent}".join(rows) + "]"


# -- explanations -----------------------------------------------------------------------------------------------------


def as_data(listing: Listing) -> dict[str, Any]:
    """Return everything about one change."""
    change, first = listing.change, listing.first
    document: dict[str, Any] = {
        **change_data(change),
        "first_difference": {"old": _line_data(first.old), "new": _line_data(first.new)} if first else None,
        "hunks": list(_hunks(listing)),
    }
    if listing.note:
        document["note"] = listing.note
    return document


def _hunks(listing: Listing) -> Iterator[dict[str, Any]]:
    """Yield each run of lines that differ, and how many are the same before it."""
    same = 0
    what = ""
    for hunk in listing.hunks:
        same = (same if hunk.what == what else 0) + hunk.before
        what = hunk.what
        for differs, group in groupby(hunk.rows, lambda row: row.differs):
            run = list(group)
            if not differs:
                same += len(run)
                continue
            yield {
                "what": hunk.what,
                "same_before": same,
                "old": [_line_data(row.old) for row in run if row.old],
                "new": [_line_data(row.new) for row in run if row.new],
            }
            same = 0


def _line_data(line: ListedLine | None) -> dict[str, Any] | None:
    if line is None:
        return None
    return {
        "part": line.part,
        "offset": line.offset,
        "bytes": line.bytes.hex(),
        "text": line.text,
        "target": line.target or None,
        "source": line.source or None,
    }


def explanation(answer: Explanation, report: Report) -> Iterator[str]:
    """Yield the lines of one JSON document, each change as soon as it is known: there may be many thousands."""
    inlined: list[dict[str, Any]] = []
    yield f'{{"version": {DOCUMENT_VERSION},'
    last = '"changes": ['
    for found in answer.objects:
        place = {"object": found.object, "unit": found.units[0], "units": found.units}
        missing: dict[str, Any] = {"first_difference": None, "hunks": [], "note": "the objects are not at hand"}
        rows: Iterable[dict[str, Any]] = map(as_data, found.listings or ())
        if found.listings is None:
            rows = (change_data(change) | missing for change in found.changes)
        for row in rows:
            yield last if last.endswith("[") else f"{last},"
            last = json.dumps(place | row)
        for function, symbols in found.inlined.items():
            inlined.append({"function": function, "into": _into((found.object, symbol) for symbol in symbols)})
    yield last
    inlined += [{"function": each.function, "into": _into(each.into)} for each in answer.inlined]
    rest = {
        "inlined": inlined,
        "unchanged": [{"symbol": symbol, "objects": objects} for symbol, objects in answer.unchanged],
        "aliases": [{"symbol": symbol, "of": other} for symbol, other in answer.aliases],
        "warnings": [*report.warnings, *report.failed],
    }
    yield "],"
    yield ",\n".join(f"{json.dumps(name)}: {json.dumps(rows)}" for name, rows in rest.items()) + "}"


def _into(places: Iterable[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"object": name, "symbol": function} for name, function in places]
