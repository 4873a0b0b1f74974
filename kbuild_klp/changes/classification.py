# SPDX-License-Identifier: GPL-2.0-only
"""What kind of change a pair of entries is, told from checksum files alone."""

from __future__ import annotations

import enum
from typing import NamedTuple

from kbuild_klp.changes.labels import labels_of
from kbuild_klp.changes.pairing import Correlation, Pair
from kbuild_klp.changes.verdict import NOT_JUDGED, Verdict
from kbuild_klp.changes.wording import Code, Reason, sentence, unexplained
from kbuild_klp.checksum.entry import KIND_DATA, KIND_FUNCTION, KIND_SECTION, Entry
from kbuild_klp.object.symbol_id import SymbolId


class ChangeType(enum.Enum):
    """The values of `change` in the JSON document."""

    CHANGED = "changed"
    ADDED = "added"
    REMOVED = "removed"
    MOVED = "moved"
    LINE_ONLY = "line-only"


class Proof(enum.Enum):
    """How it is known that what differs are line numbers: the values of `proof` in the JSON document."""

    SOURCES = "sources"
    """By the line map between both versions of the sources."""
    RECORDS = "records"
    """They stand in fields that are line numbers by definition (bug table, dynamic debug, UBSAN)."""
    INFERRED = "inferred"
    """Some are in code, where what they are passed with makes them lines (lines/infer.py)."""


class Change(NamedTuple):
    """One difference: ``old`` and ``new`` are the entries (None for added and removed), ``why`` are the reasons.

    ``ignored`` is the user's rule that leaves it out, None if there is none; ``proof`` is only there for LINE_ONLY;
    ``livepatch`` says whether a livepatch can carry it; ``label`` is the name that people are shown (labels.py).
    """

    kind: str
    change: ChangeType
    old: Entry | None
    new: Entry | None
    why: tuple[Reason, ...] = ()
    ignored: str | None = None
    proof: Proof | None = None
    livepatch: Verdict = NOT_JUDGED
    label: str = ""

    @property
    def id(self) -> SymbolId:
        """Which symbol it is of the new object, or of the old one if it was removed; for a section its name."""
        entry = self.new or self.old
        assert entry is not None
        return entry.symbol

    @property
    def symbol(self) -> str:
        """What ELF calls it."""
        return self.id.name

    @property
    def file(self) -> str:
        """The source of a local symbol, if the object has several; else empty."""
        return self.id.file

    @property
    def aliases(self) -> list[str]:
        """Its other names, in both builds."""
        names = {alias.name for entry in (self.old, self.new) if entry for alias in entry.aliases}
        # The old build may list it under what is an alias now.
        names |= {self.old.name} if self.old and self.symbol in names else set()
        return sorted(names - {self.symbol})

    @property
    def title(self) -> str:
        """The label, with another name by which people may know the symbol."""
        aliases = self.aliases
        more = f" and {len(aliases) - 1} more" if len(aliases) > 1 else ""
        return f"{self.label} (alias {aliases[0]}{more})" if aliases else self.label

    @property
    def reasons(self) -> list[str]:
        """The reasons in words."""
        return list(map(sentence, self.why))


def component_reasons(old: Entry, new: Entry) -> list[Reason]:
    """Say which components of the checksum differ: all that can be said without the objects."""
    before, after = old.split_components(), new.split_components()
    in_code = new.kind == KIND_FUNCTION
    codes = (
        Code.ATTRIBUTES,
        Code.INSTRUCTIONS if in_code else Code.CONTENT,
        Code.REFERENCES,
        Code.SPECIAL_SECTIONS,
    )
    sides = zip(codes, before, after, strict=True)
    return [unexplained(code, was, is_) for code, was, is_ in sides if was != is_]


def place_reasons(old: Entry, new: Entry) -> list[Reason]:
    """Say whether an entry has another size or lies in another section."""
    reasons = []
    if old.size != new.size:
        sizes = f"{old.size} bytes", f"{new.size} bytes"
        reasons.append(Reason.of(Code.SIZE, *sizes, old_size=old.size, new_size=new.size))
    if old.home != new.home:
        reasons.append(Reason.of(Code.SECTION, old.section, new.section))
    return reasons


def moved_reason(old: Entry, new: Entry) -> Reason:
    """Say where something that is otherwise the same moved from and to."""
    return Reason.of(Code.MOVED, old.section, new.section)


def _classify_pair(pair: Pair) -> Change | None:
    old, new = pair
    if old is None:
        assert new is not None
        return Change(new.kind, ChangeType.ADDED, None, new)
    if new is None:
        return Change(old.kind, ChangeType.REMOVED, old, None)
    if old.checksum != new.checksum:
        reasons = component_reasons(old, new) + place_reasons(old, new)
        return Change(new.kind, ChangeType.CHANGED, old, new, tuple(reasons))
    if old.home != new.home:
        return Change(new.kind, ChangeType.MOVED, old, new, (moved_reason(old, new),))
    if old.lines != new.lines:
        why = (unexplained(Code.RECORD_LINES, old.lines, new.lines),)
        return Change(new.kind, ChangeType.LINE_ONLY, old, new, why, proof=Proof.RECORDS)
    return None


def _is_laid_out_otherwise(old: dict[str, str], new: dict[str, str]) -> bool:
    """Say whether the same variables have other places, because one is aligned differently and moves the next."""
    (sizes, _, places), (new_sizes, _, new_places) = (place.get("layout", "").partition(".") for place in (old, new))
    return bool(sizes) and sizes == new_sizes and places != new_places


def _moves_alignment(change: Change) -> bool:
    """Say whether a change of a symbol can have changed the alignment of its section by itself."""
    if change.old is None or change.new is None or change.kind == KIND_FUNCTION:
        return True
    return (change.old.size, change.old.section) != (change.new.size, change.new.section)


def _content_reasons(old: Entry, new: Entry) -> list[Reason]:
    """Say which components of a section entry differ."""
    before, after = old.split_components(), new.split_components()
    reasons = []
    if before.attributes != after.attributes:
        reasons.append(unexplained(Code.SECTION_FLAGS, before.attributes, after.attributes))
    was, is_ = (f"{side.data}.{side.references}" for side in (before, after))
    if was != is_:
        reasons.append(unexplained(Code.UNCOVERED_CONTENT, was, is_))
    if before.special != after.special:
        reasons.append(unexplained(Code.UNOWNED_ENTRIES, before.special, after.special))
    return reasons


def _classify_section(pair: Pair, touched: dict[str, set[ChangeType]], realigned: set[str]) -> Change | None:
    """Say what became of a section itself, apart from the symbols in it.

    ``touched`` are the sections in which symbols changed, and how; ``realigned`` those whose alignment these may have
    changed.
    """
    old, new = pair
    if old is None or new is None:
        only = old or new
        assert only is not None
        # The symbols of a section that comes or goes say it all.
        if not only.size:
            return None
        change = ChangeType.ADDED if old is None else ChangeType.REMOVED
        was, is_ = (f"{entry.size} bytes" if entry else "" for entry in pair)
        return Change(only.kind, change, old, new, (Reason.of(Code.UNCOVERED_BYTES, was, is_, size=only.size),))
    reasons = _content_reasons(old, new)
    old_place, new_place = old.place, new.place
    comes_or_goes = touched.get(old.name, set()) & {ChangeType.ADDED, ChangeType.REMOVED, ChangeType.MOVED}
    if old_place.get("order") != new_place.get("order") and not comes_or_goes:
        was, is_ = (place.get("order", "") for place in (old_place, new_place))
        reasons.append(unexplained(Code.ORDER, was, is_))
    if old_place.get("align") != new_place.get("align") and old.name not in realigned:
        reasons.append(Reason.of(Code.ALIGNMENT, old_place.get("align"), new_place.get("align")))
    elif _is_laid_out_otherwise(old_place, new_place) and not comes_or_goes:
        was, is_ = (place["layout"] for place in (old_place, new_place))
        reasons.append(unexplained(Code.VARIABLE_ALIGNMENT, was, is_))
    return Change(new.kind, ChangeType.CHANGED, old, new, tuple(reasons)) if reasons else None


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
        old, new = pair
        if old and new and old.section != new.section:  # no change where one of them is a section of its own
            for name in (old.section, new.section):
                realigned.add(name)
                touched.setdefault(name, set()).add(ChangeType.MOVED)
        change = change or _regrouped_change(pair, correlation)
        if change is not None:
            changes.append(change)
            if change.change is not ChangeType.LINE_ONLY:
                for entry in pair:
                    if entry is not None:
                        touched.setdefault(entry.section, set()).add(change.change)
                        if _moves_alignment(change):
                            realigned.add(entry.section)
    for pair in sections:
        change = _classify_section(pair, touched, realigned) or _regrouped_change(pair, correlation)
        if change is not None:
            changes.append(change)
    entries = (entry for pair in correlation.pairs for entry in pair if entry is not None)
    labels = labels_of({change.id for change in changes if change.kind != KIND_SECTION}, entries)
    changes.sort(key=lambda change: (_ORDER.get(change.kind, 3), change.id, change.change.value))
    return [change._replace(label=labels.get(change.id, change.symbol)) for change in changes]


_ORDER = {KIND_FUNCTION: 0, KIND_DATA: 1, KIND_SECTION: 2}


def _regrouped_change(pair: Pair, correlation: Correlation) -> Change | None:
    """Return the change of an entry that only refers to another one of several symbols that look alike."""
    if not correlation.regrouped or pair.old is None or pair.new not in correlation.regrouped:
        return None
    shared = correlation.regrouped[pair.new]
    why = (Reason.of(Code.SHARING, f"{shared} with some functions", f"{shared} with others", shared=shared),)
    return Change(pair.new.kind, ChangeType.CHANGED, pair.old, pair.new, why)
