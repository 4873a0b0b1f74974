# SPDX-License-Identifier: GPL-2.0-only
"""What kind of difference a pair of entries is, told from checksum files alone."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from kbuild_klp.correlate import Correlation, Pair
from kbuild_klp.entry import KIND_FUNCTION, KIND_SECTION, Entry


class ChangeType(enum.Enum):
    """The values of `change` in the JSON document."""

    CHANGED = "changed"
    ADDED = "added"
    REMOVED = "removed"
    MOVED = "moved"
    LINE_ONLY = "line-only"


@dataclass
class Change:
    """One difference: ``old`` and ``new`` are the entries (None for added and removed), ``reasons`` say why.

    ``ignored`` is the rule by which the user does not want to hear of it, None when he does.
    """

    symbol: str
    kind: str
    change: ChangeType
    old: Entry | None
    new: Entry | None
    reasons: list[str] = field(default_factory=list)
    ignored: str | None = None


def _component_reasons(old: Entry, new: Entry) -> list[str]:
    """Say which components differ: all that can be said without the objects."""
    before, after = old.split_components(), new.split_components()
    reasons = []
    if before.attributes != after.attributes:
        reasons.append("symbol attributes")
    if before.data != after.data:
        reasons.append("instructions" if new.kind == KIND_FUNCTION else "content")
    if before.references != after.references:
        reasons.append("references")
    if before.special != after.special:
        reasons.append("special sections (alternatives, exceptions, jump labels, bugs)")
    return reasons


def _classify_pair(pair: Pair) -> Change | None:
    old, new = pair
    if old is None:
        assert new is not None
        return Change(new.name, new.kind, ChangeType.ADDED, None, new)
    if new is None:
        return Change(old.name, old.kind, ChangeType.REMOVED, old, None)
    if old.checksum != new.checksum:
        change = Change(new.name, new.kind, ChangeType.CHANGED, old, new, _component_reasons(old, new))
        if old.size != new.size:
            change.reasons.append(f"size {old.size} -> {new.size}")
        if old.section != new.section:
            change.reasons.append(f"moved from {old.section} to {new.section}")
        return change
    if old.section != new.section:
        return Change(new.name, new.kind, ChangeType.MOVED, old, new, [f"from {old.section} to {new.section}"])
    if old.lines != new.lines:
        reason = "line numbers in special sections only"
        return Change(new.name, new.kind, ChangeType.LINE_ONLY, old, new, [reason])
    return None


def _place(entry: Entry) -> dict[str, str]:
    """Return alignment and order of a section entry."""
    return dict(word.split("=", 1) for word in entry.section.split(" ") if "=" in word)


def _moves_alignment(change: Change) -> bool:
    """Say whether a change of a symbol can have changed the alignment of its section by itself."""
    if change.old is None or change.new is None or change.kind == KIND_FUNCTION:
        return True
    return (change.old.size, change.old.section) != (change.new.size, change.new.section)


def _classify_section(pair: Pair, touched: dict[str, set[ChangeType]], realigned: set[str]) -> Change | None:
    """Say what became of a section itself, beyond the symbols in it.

    ``touched`` are the sections in which symbols changed, and how; ``realigned`` those in which they may have taken
    the alignment with them.
    """
    old, new = pair
    if old is None or new is None:
        only = old or new
        assert only is not None
        # A section that comes or goes with its symbols is no news.
        if not only.size:
            return None
        change = ChangeType.ADDED if old is None else ChangeType.REMOVED
        return Change(only.name, only.kind, change, old, new, [f"{only.size} bytes without a symbol"])
    reasons = []
    before, after = old.split_components(), new.split_components()
    if before.attributes != after.attributes:
        reasons.append("type or flags of the section")
    if (before.data, before.references) != (after.data, after.references):
        reasons.append("content that no symbol covers")
    if before.special != after.special:
        reasons.append("entries that belong to no symbol")
    old_place, new_place = _place(old), _place(new)
    if old_place.get("order") != new_place.get("order") and not (
        touched.get(old.name, set()) & {ChangeType.ADDED, ChangeType.REMOVED, ChangeType.MOVED}
    ):
        reasons.append("order of the symbols")
    # Alignment follows from what lies in a section, which may have no entry of its own (strings, rate limits): then
    # it belongs to who uses it.
    excused = old.name in realigned or ("anonymous" in {**old_place, **new_place} and touched)
    if old_place.get("align") != new_place.get("align") and not excused:
        reasons.append(f"alignment {old_place.get('align')} -> {new_place.get('align')}")
    return Change(new.name, new.kind, ChangeType.CHANGED, old, new, reasons) if reasons else None


def classify(correlation: Correlation) -> list[Change]:
    """Return all differences of two objects, sorted by kind and symbol."""
    changes = []
    touched: dict[str, set[ChangeType]] = {}
    realigned: set[str] = set()
    sections = []
    for pair in correlation.pairs:
        if any(entry is not None and entry.kind == KIND_SECTION for entry in pair):
            sections.append(pair)
            continue
        change = _classify_pair(pair)
        if change is None and pair.new is not None and pair.new.name in correlation.regrouped:
            shared = correlation.regrouped[pair.new.name]
            reason = f"no longer shares {shared} with the same functions"
            change = Change(pair.new.name, pair.new.kind, ChangeType.CHANGED, pair.old, pair.new, [reason])
        if change is not None:
            changes.append(change)
            if change.change is not ChangeType.LINE_ONLY:
                for entry in pair:
                    if entry is not None:
                        touched.setdefault(entry.section, set()).add(change.change)
                        if _moves_alignment(change):
                            realigned.add(entry.section)
    for pair in sections:
        change = _classify_section(pair, touched, realigned)
        if change is not None:
            changes.append(change)
    order = {KIND_FUNCTION: 0, "data": 1, KIND_SECTION: 2}
    changes.sort(key=lambda change: (order.get(change.kind, 3), change.symbol, change.change.value))
    return changes
