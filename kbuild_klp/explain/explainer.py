# SPDX-License-Identifier: GPL-2.0-only
"""Why an entry differs, told from the two objects."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import zip_longest

from kbuild_klp.changes.classification import Change, ChangeType, component_reasons, place_reasons
from kbuild_klp.changes.wording import Code, Reason, ReasonKind, sentence
from kbuild_klp.checksum.entry import KIND_FUNCTION, KIND_SECTION, Entry
from kbuild_klp.dwarf.inlined import InlinedFunction
from kbuild_klp.explain import tables
from kbuild_klp.explain.attributes import number_reasons, part_reasons, section_in_words
from kbuild_klp.explain.comparison import Comparison
from kbuild_klp.explain.contents import Contents
from kbuild_klp.explain.origins import DebugSide, Origins, Sources
from kbuild_klp.lines.line_fields import line_reasons
from kbuild_klp.lines.versions import Version, versions_of
from kbuild_klp.object.function import decode_functions
from kbuild_klp.object.view import ObjectView

_MOST_REASONS = 8
_MOST_INLINED = 64
"""Changes of one comparison for which the debug information is read: it costs 20 ms for each object and side."""
_MOST_ORDER = 3  # symbols that are named where their order differs
PATIENCE = 1000
"""Changes that are explained in one comparison: nobody reads more, and two compilers differ in everything."""

# The kinds of reasons that explain a difference in a component of the checksum. Where there are none, the component
# itself is named.
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


class Explainer:
    """Explains changes between two versions of one object.

    The first ``patience`` changes get reasons, later ones keep those known from the checksums.
    ``sources`` finds the source files of both objects.
    ``inlined`` collects the inlined functions that changes come from and that have no code of their own, in words,
    with the functions that differ because of them.
    """

    def __init__(
        self, old: ObjectView, new: ObjectView, patience: int = PATIENCE, sources: Sources | None = None
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
        versions = before, after = versions_of(change, self.old, self.new)
        # Line numbers in code got their reasons when it turned out that nothing else differs.
        if change.change is ChangeType.LINE_ONLY and all(reason.is_hash for reason in change.why):
            return _shortened(list(line_reasons(before, after)), 0, []) or change.why
        if change.change is not ChangeType.CHANGED:
            return change.why
        if change.kind == KIND_SECTION:
            return [self._section_reason(new.name, reason) for reason in change.why]
        if not before.parts or not after.parts:
            return number_reasons(self.old, self.new, (old, new)) or change.why
        if self.patience <= 0:
            return change.why
        self.patience -= 1
        # Where only sharing with others differs, the function itself shows nothing.
        return self._reasons(change, old, new, versions) or change.why

    def _reasons(self, change: Change, old: Entry, new: Entry, versions: tuple[Version, Version]) -> list[Reason]:
        reasons = part_reasons(*versions)
        inlined: list[Reason] = []
        left = 0
        moves = False
        if change.kind == KIND_FUNCTION:
            comparison = Comparison(*versions)
            code_differs, moves = comparison.differs, comparison.moves
            inner, left = self._contents.code(comparison, _MOST_REASONS)
            if self.patience >= PATIENCE - _MOST_INLINED:
                inlined = self._inlined_reasons(change, comparison, versions)
        else:
            inner = self._contents.data(versions[0].parts[0], versions[1].parts[0])
            code_differs = bool(inner)
        reasons += inner
        if (old.split_components().special, old.lines) != (new.split_components().special, new.lines):
            for table in tables.differences(*versions, moves):
                reasons += table.reasons()
        reasons += _unexplained(old, new, reasons, code_differs, moves)
        return _shortened(reasons + place_reasons(old, new), left, inlined)

    def _inlined_reasons(
        self, change: Change, comparison: Comparison, versions: tuple[Version, Version]
    ) -> list[Reason]:
        """Say which inlined functions a change comes from."""
        reasons = []
        for function, reason in self.origins.of(comparison, *versions):
            reasons.append(reason)
            if not (self.old.has_symbol(function.name) or self.new.has_symbol(function.name)):
                self.inlined.setdefault(str(function), []).append(change.label)
        return reasons

    def inlined_into(self, change: Change, name: str) -> tuple[InlinedFunction, bool] | None:
        """Return the function ``name`` if it was inlined into one that changed, and whether it makes that differ."""
        versions = versions_of(change, self.old, self.new)
        if change.kind != KIND_FUNCTION or not all(version.parts for version in versions):
            return None
        function = self.origins.find(name, *versions)
        if function is None:
            return None
        return function, self.origins.differs(name, Comparison(*versions), *versions)

    # -- sections -------------------------------------------------------------------------------------------------

    def _section_reason(self, name: str, reason: Reason) -> Reason:
        """Return a reason about a section in more words than checksums have, where the objects tell more."""
        if not reason.is_hash:
            return reason
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
    """Return reasons that name the components of the checksum that differ for none of ``reasons``."""
    kinds = {reason.kind for reason in reasons}
    missing = []
    for reason in component_reasons(old, new):
        if reason.kind in _EXPLAINS:
            # Entries of special sections contain places in the function, so they differ when these move.
            explained = kinds & _EXPLAINS[reason.kind] or (moves and reason.kind is ReasonKind.SPECIAL_SECTION)
        else:
            explained = code_differs or old.size != new.size
        if not explained:
            missing.append(reason)
    return missing


def _shortened(reasons: list[Reason], left: int, kept: list[Reason]) -> list[Reason]:
    """Return the reasons, cut where there are too many, and ``kept``; ``left`` is the number already left out."""
    count = len(reasons) + left
    most = _MOST_REASONS - len(kept)
    if count <= most:
        return reasons + kept
    rest = count - most + 1
    return [*reasons[: most - 1], *kept, Reason.of(Code.MORE, "", f"{rest} more", count=rest)]
