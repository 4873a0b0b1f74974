# SPDX-License-Identifier: GPL-2.0-only
"""Changes that no objects were needed for."""

from __future__ import annotations

from kbuild_klp.changes.classification import Change, ChangeType
from kbuild_klp.changes.verdict import NOT_JUDGED, Verdict
from kbuild_klp.checksum.entry import Entry
from kbuild_klp.object.symbol_id import SymbolId


def function_change(name: str, change: ChangeType = ChangeType.CHANGED, livepatch: Verdict = NOT_JUDGED) -> Change:
    """Return the change of a function of which nothing else is known."""
    entry = Entry("function", SymbolId(name), ".text", 1, "0" * 32, "-.-.-.-")
    return Change("function", change, entry, entry, livepatch=livepatch, label=name)
