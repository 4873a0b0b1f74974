# SPDX-License-Identifier: GPL-2.0-only
"""Entries of special sections in words: alternatives, exception table, jump labels and so on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from itertools import zip_longest

from kbuild_klp.changes.reasons import Code, Reason, ReasonKind
from kbuild_klp.object.function import function_lines
from kbuild_klp.object.place import Place
from kbuild_klp.object.reference_text import how
from kbuild_klp.object.special_entries import EntryField, SpecialEntry, special_entries
from kbuild_klp.object.view import ObjectView

NAMES = (
    (".altinstructions", ReasonKind.ALTERNATIVE, "alternatives"),
    ("__ex_table", ReasonKind.EXCEPTION_TABLE, "exception table"),
    ("__jump_table", ReasonKind.JUMP_LABEL, "jump labels"),
    (".static_call_sites", ReasonKind.STATIC_CALL, "static calls"),
    ("__bug_table", ReasonKind.BUG, "bug table"),
    ("runtime_*_*", ReasonKind.RUNTIME_CONSTANT, "runtime constants"),
)
"""Patterns of special sections, the word of the vocabulary for them, and what their entries are called together."""
_RUNTIME = "runtime_*_*"


def kind_of(section: str) -> tuple[ReasonKind, str]:
    """Return the word of the vocabulary for a special section, and what its entries are called together."""
    for pattern, kind, name in NAMES:
        if fnmatchcase(section, pattern):
            return kind, name
    return ReasonKind.SPECIAL_SECTION, section


class TableDifference:
    """One special section of a function in two versions.

    ``moves`` says that instructions came or went, so that places in the function differ by themselves.
    """

    def __init__(self, section: str, old: list[SpecialEntry], new: list[SpecialEntry], moves: bool) -> None:
        self.kind, self.name = kind_of(section)
        self.old = old
        self.new = new
        self._moves = moves

    @property
    def noun(self) -> str:
        """What one entry is called."""
        return self.name if self.kind is ReasonKind.SPECIAL_SECTION else self.kind.value

    def _meaning(self, entry: SpecialEntry, parts: Sequence[int]) -> tuple[object, ...]:
        place = () if self._moves else (parts.index(entry.part) if entry.part in parts else -1, entry.place)
        return (entry.owner, *place, *(self._field_meaning(field) for field in entry.fields))

    def _field_meaning(self, field: EntryField) -> object:
        return field.loose if self._moves else field.meaning

    def pairs(
        self, old_parts: Sequence[int], new_parts: Sequence[int]
    ) -> Iterator[tuple[SpecialEntry | None, SpecialEntry | None]]:
        """Yield the entries that differ: all in order while there are as many, else those that one side has."""
        if len(self.old) == len(self.new):
            for x, y in zip(self.old, self.new, strict=True):
                if self._meaning(x, old_parts) != self._meaning(y, new_parts):
                    yield x, y
            return
        before = [self._meaning(entry, old_parts) for entry in self.old]
        after = [self._meaning(entry, new_parts) for entry in self.new]
        gone = [entry for entry, meaning in zip(self.old, before, strict=True) if not _take(after, meaning)]
        after = [self._meaning(entry, new_parts) for entry in self.new]
        come = [entry for entry, meaning in zip(self.new, after, strict=True) if not _take(before, meaning)]
        yield from zip_longest(gone, come)

    def reasons(
        self, views: tuple[ObjectView, ObjectView], old_parts: Sequence[int], new_parts: Sequence[int]
    ) -> list[Reason]:
        """Return one reason for each entry that differs, or one for the number of entries."""
        if len(self.old) != len(self.new):
            was, is_ = (f"{len(side)} {'entry' if len(side) == 1 else 'entries'}" for side in (self.old, self.new))
            counts = Reason.of(Code.ENTRY_COUNT, was, is_, table=self.name, old_count=len(self.old))
            return [counts._replace(kind=self.kind)]
        reasons = []
        for x, y in self.pairs(old_parts, new_parts):
            assert x is not None and y is not None
            was, is_ = self._difference(x, y, views)
            place = where(views[1], y, new_parts)
            reasons.append(Reason.of(Code.ENTRY, was, is_, place, noun=self.noun)._replace(kind=self.kind))
        return reasons

    def _difference(self, x: SpecialEntry, y: SpecialEntry, views: tuple[ObjectView, ObjectView]) -> tuple[str, str]:
        """Return the fields in which two entries differ, in words."""
        fields = [(a, b) for a, b in _by_field(x, y) if self._field_meaning(a) != self._field_meaning(b)]
        if not fields:
            was, is_ = f"at +{x.place:#x}", f"at +{y.place:#x}"
            if x.owner != y.owner:
                was, is_ = (
                    f"{view.kinds.name(entry.owner)} {text}"
                    for view, entry, text in zip(views, (x, y), (was, is_), strict=True)
                )
            return was, is_
        was, is_ = (", ".join(in_words(views[side], pair[side]) for pair in fields) for side in (0, 1))
        if was == is_:
            was, is_ = (", ".join(_precise(views[side], pair[side]) for pair in fields) for side in (0, 1))
        return was, is_ if was != is_ else f"another {is_}"


def _by_field(x: SpecialEntry, y: SpecialEntry) -> Iterator[tuple[EntryField, EntryField]]:
    """Yield the fields of two entries side by side; one that an entry does not have has no value."""
    before, after = ({field.name: field for field in entry.fields} for entry in (x, y))
    for name in dict.fromkeys([*before, *after]):
        nothing = EntryField(name, "nothing", (), (), None)
        yield before.get(name, nothing), after.get(name, nothing)


def in_words(view: ObjectView, field: EntryField) -> str:
    """Return name and value of a field; code that is known by content (a replacement) as its instructions."""
    text = field.text
    part = view.content_part(field.row) if field.row is not None else None
    if part is not None and view.is_code(part):
        text = "; ".join(line.text for line in function_lines(view, [part]))
    return f"{field.name} {text}".strip()


def _precise(view: ObjectView, field: EntryField) -> str:
    """Return a field in more words than usual."""
    relation = f"{how(view, field.row)} " if field.row is not None else ""
    return f"{field.name} {relation}{field.text}"


def where(view: ObjectView, entry: SpecialEntry, parts: Sequence[int]) -> Place:
    """Return the place in the function to which an entry belongs."""
    return Place("" if entry.part == parts[0] else view.part_name(entry.part), entry.place)


def differences(
    old: ObjectView, new: ObjectView, old_parts: Sequence[int], new_parts: Sequence[int], moves: bool
) -> list[TableDifference]:
    """Return the special sections of a function on both sides, by name."""
    before, after = _by_name(special_entries(old, old_parts)), _by_name(special_entries(new, new_parts))
    return [
        TableDifference(name, before.get(name, []), after.get(name, []), moves)
        for name in sorted(before.keys() | after.keys())
    ]


def _by_name(found: dict[str, list[SpecialEntry]]) -> dict[str, list[SpecialEntry]]:
    """Join the sections in whose names stands what is patched in: they are one table with a field more."""
    tables: dict[str, list[SpecialEntry]] = {}
    for section, entries in found.items():
        name = section
        if kind_of(section)[0] is ReasonKind.RUNTIME_CONSTANT:
            name = _RUNTIME
            entries = [
                entry._replace(fields=(EntryField("", section, (section,), (section,), None), *entry.fields))
                for entry in entries
            ]
        tables.setdefault(name, []).extend(entries)
    if _RUNTIME in tables:
        tables[_RUNTIME].sort(key=lambda entry: (entry.part, entry.place))
    return tables


def _take(meanings: list[tuple[object, ...]], wanted: tuple[object, ...]) -> bool:
    """Remove ``wanted`` from ``meanings``; returns whether it was there."""
    if wanted in meanings:
        meanings.remove(wanted)
        return True
    return False
