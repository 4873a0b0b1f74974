# SPDX-License-Identifier: GPL-2.0-only
"""A report as one JSON document, for scripts. Keys may be added, never renamed."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from kbuild_klp.changes.classification import Change
from kbuild_klp.report.model import Report

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
    """Return what is said of a change wherever it is printed."""
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
