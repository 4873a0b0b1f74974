# SPDX-License-Identifier: GPL-2.0-only
"""Why an entry differs, told from the two objects."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import zip_longest
from typing import NamedTuple

from kbuild_klp.changes.classification import Change, ChangeType, component_reasons, place_reasons
from kbuild_klp.changes.reasons import Code, Reason, ReasonKind
from kbuild_klp.changes.wording import sentence
from kbuild_klp.checksum.entry import KIND_FUNCTION, KIND_SECTION, Entry
from kbuild_klp.dwarf.inlined import InlinedFunction
from kbuild_klp.explain import tables
from kbuild_klp.explain.attributes import number_reasons, part_reasons, section_in_words
from kbuild_klp.explain.comparison import Comparison
from kbuild_klp.explain.contents import Contents
from kbuild_klp.explain.origins import DebugSide, Origins, Sources
from kbuild_klp.lines.line_fields import line_reasons
from kbuild_klp.object.function import decode_functions
from kbuild_klp.object.view import ObjectView

_MOST_REASONS = 8
_MOST_INLINED = 64
"""Changes of one comparison for which the debug information is read: it costs 20 ms an object and side."""
_MOST_ORDER = 3  # symbols of which the order is told
PATIENCE = 1000
"""Changes that are explained in one comparison: nobody reads more, and two compilers differ in everything."""

# Which words explain a difference in a component of the checksum. What no word explains is not left out: the
# component itself is named then.
_EXPLAINS = {
    ReasonKind.ATTRIBUTE: {
        ReasonKind.BINDING,
        ReasonKind.TYPE,
        ReasonKind.VISIBILITY,
        ReasonKind.ALIAS,
        ReasonKind.SIZE,
        ReasonKind.PART,
        ReasonKind.VALUE,
    },
    ReasonKind.SPECIAL_SECTION: {kind for _, kind, _ in tables.NAMES} | {ReasonKind.SPECIAL_SECTION},
}


def explain_changes(
    old: ObjectView, new: ObjectView, changes: list[Change], patience: int = PATIENCE, sources: Sources | None = None
) -> list[Change]:
    """Return ``changes`` with exact reasons where the objects tell them: see Explainer."""
    if patience <= 0:
        return changes
    explainer = Explainer(old, new, patience, sources)
    heard = [it for it in changes if it.change is ChangeType.CHANGED and it.kind == KIND_FUNCTION][:patience]
    decode_functions(old, (it.old.symbol for it in heard if it.old))
    decode_functions(new, (it.new.symbol for it in heard if it.new))
    return list(map(explainer.explain, changes))


class InlinedInto(NamedTuple):
    """An inlined function, and whether it is another one in the function that was asked about."""

    function: InlinedFunction
    differs: bool


class Explainer:
    """Explains changes between two versions of one object.

    The first ``patience`` changes get reasons, later ones keep those that the checksums told.
    ``sources`` finds the source files of both objects.
    ``inlined`` collects the inlined functions that changes come from and that have no code of their own, in words,
    with the functions that differ because of them.
    """

    def __init__(
        self,
        old: ObjectView,
        new: ObjectView,
        patience: int = PATIENCE,
        sources: Sources | None = None,
    ) -> None:
        self.old = old
        self.new = new
        self.patience = patience
        self.origins = Origins(DebugSide(old.file), DebugSide(new.file), sources)
        self.inlined: dict[str, list[str]] = {}
        self._contents = Contents(old, new)

    def explain(self, change: Change) -> Change:
        """Return one change with its reasons."""
        return change._replace(why=tuple(self._why(change)))

    def _why(self, change: Change) -> Iterable[Reason]:
        old, new = change.old, change.new
        if old is None or new is None:
            return change.why
        # Line numbers in code were told when it was found that there is nothing else.
        if change.change is ChangeType.LINE_ONLY and all(reason.is_hash for reason in change.why):
            return self._line_numbers(old, new) or change.why
        if change.change is not ChangeType.CHANGED:
            return change.why
        if change.kind == KIND_SECTION:
            return [self._section_reason(new.name, reason) for reason in change.why]
        old_parts, new_parts = self.old.parts_of(old.part_symbol), self.new.parts_of(new.part_symbol)
        if not old_parts or not new_parts:
            return number_reasons(self.old, self.new, (old, new)) or change.why
        if self.patience <= 0:
            return change.why
        self.patience -= 1
        # Where only who shares what with whom is another, there is nothing to be seen in the function itself.
        return self._reasons(change, old, new, old_parts, new_parts) or change.why

    def _reasons(
        self, change: Change, old: Entry, new: Entry, old_parts: list[int], new_parts: list[int]
    ) -> list[Reason]:
        reasons = part_reasons(self.old, self.new, old_parts, new_parts)
        last = place_reasons(old, new)
        inlined: list[Reason] = []
        left = 0
        code_differs = moves = False
        if change.kind == KIND_FUNCTION:
            comparison = Comparison.of(self.old, self.new, old_parts, new_parts)
            code_differs, moves = comparison.differs, comparison.moves
            code, left = self._contents.code(comparison, old_parts, new_parts, _MOST_REASONS)
            reasons += code
            if self.patience >= PATIENCE - _MOST_INLINED:
                inlined = self._inlined_reasons(change, comparison, old_parts, new_parts)
        else:
            inner = self._contents.data(old_parts[0], new_parts[0])
            code_differs = bool(inner)
            reasons += inner
        if (old.split_components().special, old.lines) != (new.split_components().special, new.lines):
            for table in tables.differences(self.old, self.new, old_parts, new_parts, moves):
                reasons += table.reasons((self.old, self.new), old_parts, new_parts)
        reasons += _unexplained(old, new, reasons, code_differs, moves)
        return _shortened(reasons + last, left, inlined)

    def _line_numbers(self, old: Entry, new: Entry) -> list[Reason]:
        """Return the line numbers outside of the instructions that differ."""
        old_parts, new_parts = self.old.parts_of(old.part_symbol), self.new.parts_of(new.part_symbol)
        return _shortened(list(line_reasons(self.old, self.new, old_parts, new_parts)), 0, [])

    def _inlined_reasons(
        self, change: Change, comparison: Comparison, old_parts: list[int], new_parts: list[int]
    ) -> list[Reason]:
        """Say which inlined functions a change comes from."""
        reasons = []
        for function, reason in self.origins.of(comparison, old_parts, new_parts):
            reasons.append(reason)
            if not (self.old.has_symbol(function.name) or self.new.has_symbol(function.name)):
                self.inlined.setdefault(str(function), []).append(change.label)
        return reasons

    def inlined_into(self, change: Change, name: str) -> InlinedInto | None:
        """Say whether the function ``name`` was inlined into a function that changed, None when it was not."""
        if change.kind != KIND_FUNCTION or change.old is None or change.new is None:
            return None
        old_parts, new_parts = self.old.parts_of(change.old.part_symbol), self.new.parts_of(change.new.part_symbol)
        if not old_parts or not new_parts:
            return None
        function = self.origins.find(name, self.old, self.new, old_parts, new_parts)
        if function is None:
            return None
        comparison = Comparison.of(self.old, self.new, old_parts, new_parts)
        return InlinedInto(function, self.origins.differs(name, comparison, old_parts, new_parts))

    # -- sections -------------------------------------------------------------------------------------------------

    def _section_reason(self, name: str, reason: Reason) -> Reason:
        """Return a reason that the checksums told of a section in more words, where the objects have them."""
        if not reason.is_hash:
            return reason  # has been told
        if reason.kind is ReasonKind.FLAGS:
            was, is_ = section_in_words(self.old, name), section_in_words(self.new, name)
            return reason._replace(old=was, new=is_) if was != is_ else reason
        if reason.kind is ReasonKind.ORDER:
            before, after = ([symbol for symbol, _ in side.symbol_order(name)] for side in (self.old, self.new))
            pairs = enumerate(zip(before, after, strict=False))
            at = next((i for i, (x, y) in pairs if x != y), None)
            if at is not None:
                was, is_ = (", ".join(side[at : at + _MOST_ORDER]) for side in (before, after))
                return reason._replace(old=was, new=is_)
        if reason.kind is ReasonKind.ALIGNMENT:
            places = zip(self.old.symbol_order(name), self.new.symbol_order(name), strict=False)
            moved = next(((symbol, was, is_) for (symbol, was), (_, is_) in places if was != is_), None)
            if moved is not None:
                symbol, before_at, after_at = moved
                return reason._replace(old=f"{before_at:#x}", new=f"{after_at:#x}", values={"symbol": symbol})
        if reason.kind is ReasonKind.CONTENT:
            old_parts, new_parts = self.old.nameless_parts(name), self.new.nameless_parts(name)
            for old_part, new_part in zip_longest(old_parts, new_parts):
                inner = self._contents.pieces(old_part, new_part)
                if inner:
                    return inner[0]._replace(within=(sentence(reason), *inner[0].within))
        return reason


def _unexplained(old: Entry, new: Entry, reasons: list[Reason], code_differs: bool, moves: bool) -> list[Reason]:
    """Return the components of the checksum that differ for none of ``reasons``."""
    kinds = {reason.kind for reason in reasons}
    missing = []
    for reason in component_reasons(old, new):
        if reason.kind in _EXPLAINS:
            # Entries of special sections name places in the function, so they differ when these move.
            explained = kinds & _EXPLAINS[reason.kind] or (moves and reason.kind is ReasonKind.SPECIAL_SECTION)
        else:
            explained = code_differs or old.size != new.size
        if not explained:
            missing.append(reason)
    return missing


def _shortened(reasons: list[Reason], left: int, kept: list[Reason]) -> list[Reason]:
    """Return the reasons, cut when there are too many, and ``kept``; ``left`` were not even made."""
    count = len(reasons) + left
    most = _MOST_REASONS - len(kept)
    if count <= most:
        return reasons + kept
    rest = count - most + 1
    return [*reasons[: most - 1], *kept, Reason.of(Code.MORE, "", f"{rest} more", count=rest)]
