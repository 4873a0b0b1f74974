# SPDX-License-Identifier: GPL-2.0-only
"""Why an entry differs, told from the two objects; and whether a difference is one of line numbers only."""

from __future__ import annotations

from typing import Protocol

from kbuild_klp.classify import Change, ChangeType
from kbuild_klp.elf import constants as elf
from kbuild_klp.entry import KIND_FUNCTION, Entry
from kbuild_klp.errors import KlpError
from kbuild_klp.explain.immediates import ImmediateChange, immediate_changes
from kbuild_klp.explain.instructions import Hunk, Line, differing_hunks, function_lines
from kbuild_klp.explain.view import ObjectView, Reference, SpecialEntries, quote

_MOST_REASONS = 8
PATIENCE = 1000
"""Changes that are explained in one comparison: nobody reads more, and two compilers differ in everything."""

# What the entries of special sections are called.
_SPECIAL_NAMES = {
    ".altinstructions": "alternatives",
    "__ex_table": "exception table",
    "__jump_table": "jump labels",
    ".static_call_sites": "static calls",
    "__bug_table": "bug table",
}


class LineProver(Protocol):
    """Says whether a number that changed is a source line that moved."""

    def proves(self, old: int, new: int) -> bool:
        """Return True when line ``old`` of a source file is line ``new`` of its other version."""
        ...


def explain_changes(
    old_path: str, new_path: str, changes: list[Change], proof: LineProver, patience: int = PATIENCE
) -> list[Change]:
    """Replace the reasons of ``changes`` by exact ones where the objects tell them.

    Changes that turn out to be of line numbers only become LINE_ONLY. The first ``patience`` other changes get
    reasons, later ones keep those that the checksums told.
    """
    try:
        explainer = Explainer(ObjectView(old_path), ObjectView(new_path), proof, patience)
    except KlpError:
        return changes  # the checksums stand; only the words are missing
    for change in changes:
        if change.change is ChangeType.CHANGED and change.old is not None and change.new is not None:
            explainer.explain(change, change.old, change.new)
    return changes


class Explainer:
    """Explains changes between two versions of one object."""

    def __init__(self, old: ObjectView, new: ObjectView, proof: LineProver, patience: int = PATIENCE) -> None:
        self.old = old
        self.new = new
        self.proof = proof
        self._open: list[tuple[int, int]] = []
        self.patience = patience

    def explain(self, change: Change, old: Entry, new: Entry) -> None:
        """Find the reasons of one change."""
        old_parts, new_parts = self.old.parts_of(old), self.new.parts_of(new)
        if not old_parts or not new_parts:
            return
        if change.kind == KIND_FUNCTION:
            lines = self._moved_lines(old, new, old_parts, new_parts)
            if lines:
                change.change = ChangeType.LINE_ONLY
                change.reasons = [f"line number at +{at:#x}: {was} -> {is_}" for at, was, is_ in lines[:_MOST_REASONS]]
                return
        if self.patience <= 0:
            return
        self.patience -= 1
        reasons = self._attribute_reasons(old_parts[0], new_parts[0])
        hunks: list[Hunk] = []
        if change.kind == KIND_FUNCTION:
            old_lines, new_lines = function_lines(self.old, old_parts), function_lines(self.new, new_parts)
            hunks = differing_hunks(old_lines, new_lines)
            for hunk in hunks:
                reasons += self._hunk_reasons(hunk, old_lines, new_lines)
            if not hunks and [line.target for line in old_lines] != [line.target for line in new_lines]:
                reasons.append("branches inside the function go elsewhere")
        else:
            reasons += self._data_reasons(old_parts[0], new_parts[0])
        reasons += self._special_reasons(old_parts, new_parts, bool(hunks))
        if reasons:
            if old.section != new.section:
                reasons.append(f"moved from {old.section} to {new.section}")
            if old.size != new.size:
                reasons.append(f"size {old.size} -> {new.size}")
            if len(reasons) > _MOST_REASONS:
                rest = len(reasons) - _MOST_REASONS + 1
                reasons = [*reasons[: _MOST_REASONS - 1], f"and {rest} more differences"]
            change.reasons = reasons

    def _moved_lines(self, old: Entry, new: Entry, old_parts: list[int], new_parts: list[int]) -> list[ImmediateChange]:
        """Return the immediates that differ when nothing else does and all are line numbers; empty otherwise."""
        before, after = old.split_components(), new.split_components()
        if (before.attributes, before.references, before.special, old.size, old.section) != (
            after.attributes,
            after.references,
            after.special,
            new.size,
            new.section,
        ):
            return []
        lines: list[ImmediateChange] = []
        for old_part, new_part in zip(old_parts, new_parts, strict=True):
            changes = immediate_changes(self.old, self.new, old_part, new_part)
            if changes is None or not all(self.proof.proves(change.old, change.new) for change in changes):
                return []
            lines += changes
        return lines

    # -- instructions ---------------------------------------------------------------------------------------------

    def _hunk_reasons(self, hunk: Hunk, old_lines: list[Line], new_lines: list[Line]) -> list[str]:
        removed, added = old_lines[hunk.a0 : hunk.a1], new_lines[hunk.b0 : hunk.b1]
        if len(removed) == len(added):
            reasons = []
            for a, b in zip(removed, added, strict=True):
                if a.token != b.token:
                    reasons += self._line_reason(a, b)
            return reasons
        at = (added or removed)[0].offset
        parts = []
        if removed:
            parts.append(f"{len(removed)} instruction{'s' * (len(removed) > 1)} removed")
        if added:
            parts.append(f"{len(added)} instruction{'s' * (len(added) > 1)} added")
        reasons = [f"{', '.join(parts)} at +{at:#x}"]
        gone = {self.old.describe(r.row) for line in removed if line.is_branch for r in line.references}
        come = {self.new.describe(r.row) for line in added if line.is_branch for r in line.references}
        reasons += [f"now calls {name}" for name in sorted(come - gone)]
        reasons += [f"no longer calls {name}" for name in sorted(gone - come)]
        return reasons

    def _line_reason(self, a: Line, b: Line) -> list[str]:
        """Say how one instruction became another."""
        if a.token[0] == b.token[0] and len(a.references) == len(b.references):
            reasons = []
            for x, y in zip(a.references, b.references, strict=True):
                if (x.place - a.offset, x.key) != (y.place - b.offset, y.key):
                    reasons += self._reference_reason(x, y, b.is_branch, f"+{b.offset:#x}")
            if reasons:
                return reasons
        return [f"+{b.offset:#x}: {_plain(a.text)} -> {_plain(b.text)}"]

    def _reference_reason(self, old: Reference, new: Reference, is_branch: bool, where: str) -> list[str]:
        before, after = self.old.string(old.row), self.new.string(new.row)
        if before is not None and after is not None and before != after:
            return [f"{where}: string {_string_change(before, after)}"]
        was, is_ = self.old.describe(old.row), self.new.describe(new.row)
        old_part, new_part = self.old.content_part(old.row), self.new.content_part(new.row)
        if old_part is not None and new_part is not None:
            inner = []
            if (old_part, new_part) not in self._open:  # nameless data may refer to itself
                self._open.append((old_part, new_part))
                inner = self._data_reasons(old_part, new_part)
                self._open.pop()
            return [f"{where}: {is_}: {reason}" for reason in inner] or [f"{where}: content of {is_}"]
        if was == is_:
            return [f"{where}: {is_} means something else (another symbol of that name)"]
        return [f"{where}: {'calls' if is_branch else 'refers to'} {is_} instead of {was}"]

    # -- data -----------------------------------------------------------------------------------------------------

    def _data_reasons(self, old_part: int, new_part: int) -> list[str]:
        reasons: list[str] = []
        before, after = self.old.digests.part_data(old_part), self.new.digests.part_data(new_part)
        if before != after:
            both = min(len(before), len(after))
            at = next((i for i in range(both) if before[i] != after[i]), both)
            if at < both:
                start = at & ~7
                reasons.append(
                    f"content at +{start:#x}: {before[start : start + 8].hex()} -> {after[start : start + 8].hex()}"
                )
        old_references = {reference.place: reference for reference in self.old.references(old_part)}
        new_references = {reference.place: reference for reference in self.new.references(new_part)}
        for place in sorted(old_references.keys() | new_references.keys()):
            x, y = old_references.get(place), new_references.get(place)
            where = f"+{place:#x}"
            if x is None and y is not None:
                reasons.append(f"{where}: now refers to {self.new.describe(y.row)}")
            elif y is None and x is not None:
                reasons.append(f"{where}: no longer refers to {self.old.describe(x.row)}")
            elif x is not None and y is not None and x.key != y.key:
                reasons += self._reference_reason(x, y, False, where)
        return reasons

    # -- special sections and symbols -----------------------------------------------------------------------------

    def _special_reasons(self, old_parts: list[int], new_parts: list[int], code_differs: bool) -> list[str]:
        reasons = []
        before, after = self.old.special(old_parts), self.new.special(new_parts)
        for name in sorted(before.keys() | after.keys()):
            counts = [sum(entries.number for entries in side.get(name, ())) for side in (before, after)]
            what = _SPECIAL_NAMES.get(name, name)
            if counts[0] != counts[1]:
                reasons.append(f"{what}: {counts[0]} -> {counts[1]} entries")
            # Entries name places in the function, so when instructions come or go they differ by themselves.
            elif not code_differs:
                contents = [b"".join(entries.meaning for entries in side.get(name, ())) for side in (before, after)]
                if contents[0] != contents[1]:
                    reasons.append(f"{what}: {self._table_difference(before[name], after[name])}")
        return reasons

    def _table_difference(self, before: list[SpecialEntries], after: list[SpecialEntries]) -> str:
        """Say in which entry two tables of the same length differ first."""
        for old, new in zip(before, after, strict=False):
            for x, y in zip(old.references, new.references, strict=False):
                was, is_ = self.old.describe(x), self.new.describe(y)
                if was != is_:
                    return f"{was} -> {is_}"
            size = new.entry_size
            for at in range(0, min(len(old.data), len(new.data)), size):
                if old.data[at : at + size] != new.data[at : at + size]:
                    was, is_ = old.data[at : at + size].hex(), new.data[at : at + size].hex()
                    return f"entry {at // size}: {was} -> {is_}"
        return "content of what they refer to"

    def _attribute_reasons(self, old_part: int, new_part: int) -> list[str]:
        reasons = []
        rows = []
        for view, part in ((self.old, old_part), (self.new, new_part)):
            rows.append(view.object.symbols[int(view.canonical.part_symbols(part)[0])])
        old, new = rows
        names = elf.BINDING_NAMES
        if old["info"] >> 4 != new["info"] >> 4:
            was, is_ = int(old["info"]) >> 4, int(new["info"]) >> 4
            reasons.append(f"binding {names.get(was, was)} -> {names.get(is_, is_)}")
        if old["info"] & 0xF != new["info"] & 0xF:
            was, is_ = int(old["info"]) & 0xF, int(new["info"]) & 0xF
            reasons.append(f"type {elf.TYPE_NAMES.get(was, was)} -> {elf.TYPE_NAMES.get(is_, is_)}")
        if old["other"] != new["other"]:
            was, is_ = int(old["other"]), int(new["other"])
            reasons.append(f"visibility {elf.VISIBILITY_NAMES.get(was, was)} -> {elf.VISIBILITY_NAMES.get(is_, is_)}")
        aliases = [
            {view.object.symbol_name(symbol) for symbol in view.canonical.part_symbols(part)[1:].tolist()}
            for view, part in ((self.old, old_part), (self.new, new_part))
        ]
        reasons += [f"no longer also named {name}" for name in sorted(aliases[0] - aliases[1])]
        reasons += [f"now also named {name}" for name in sorted(aliases[1] - aliases[0])]
        return reasons


def _string_change(before: str, after: str) -> str:
    """Return two strings with what they share at the start cut off, when they are long."""
    at = 0
    if max(len(before), len(after)) > 32:
        while at < min(len(before), len(after)) and before[at] == after[at]:
            at += 1
        at = max(0, at - 8)
    dots = "..." if at else ""
    return f"{dots}{quote(before[at:])} -> {dots}{quote(after[at:])}"


def _plain(text: str) -> str:
    return " ".join(text.split())
