# SPDX-License-Identifier: GPL-2.0-only
"""A report as one JSON document, for scripts. Keys may be added, never renamed."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from kbuild_klp.classify import Change
from kbuild_klp.report.model import Report

DOCUMENT_VERSION = 1


def why(change: Change) -> list[dict[str, str]]:
    """Return the reasons of a change as data, in the order of its `reasons`."""
    return [{"kind": reason.kind.value, "old": reason.old, "new": reason.new} for reason in change.why]


def change_data(change: Change) -> dict[str, Any]:
    """Return what is said of a change wherever it is printed."""
    return {
        "symbol": change.symbol,
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
    """Return the JSON document."""
    document = {
        "version": DOCUMENT_VERSION,
        "summary": asdict(report.summary),
        "objects": [
            {
                "object": changes.object,
                "unit": changes.unit,
                "changes": [
                    {
                        **change_data(change),
                        **({"ignored": change.ignored} if change.ignored is not None else {}),
                        **({"proof": change.proof.value} if change.proof else {}),
                    }
                    for change in changes.changes
                ],
            }
            for changes in report.objects
        ],
        "warnings": report.warnings + report.failed,
    }
    return json.dumps(document, indent=2)
