# SPDX-License-Identifier: GPL-2.0-only
"""Entries of special sections in words: alternatives, exception table, jump labels and so on."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from itertools import compress, zip_longest

from kbuild_klp.changes.wording import Code, Reason, ReasonKind
from kbuild_klp.lines.versions import Version
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
"""Patterns of special sections, each with the kind of its reasons and a name for all of its entries."""
_RUNTIME = "runtime_*_*"


def kind_of(section: str) -> tuple[ReasonKind, str]:
    """Return the kind of the reasons about a special section, and a name for all of its entries."""
    for pattern, kind, name in NAMES:
        if fnmatchcase(section, pattern):
            return kind, name
    return ReasonKind.SPECIAL_SECTION, section


class TableDifference:
    """One special section of a function in two versions: the ``entries`` of both that belong to it.

    ``moves`` says that instructions came or went, so that places in the function differ anyway.
    """

    def __init__(
        self,
        section: str,
        versions: tuple[Version, Version],
        entries: tuple[list[SpecialEntry], list[SpecialEntry]],
        moves: bool,
    ) -> None:
        self.kind, self.name = kind_of(section)
        self._versions = versions
        self._entries = entries
        self._moves = moves

    @property
    def noun(self) -> str:
        """What one entry is called."""
        return self.name if self.kind is ReasonKind.SPECIAL_SECTION else self.kind.value

    def _meanings(self, version: Version, entries: list[SpecialEntry]) -> list[tuple[object, ...]]:
        parts = version.parts
        return [
            (
                entry.owner,
                *(() if self._moves else (parts.index(entry.part) if entry.part in parts else -1, entry.place)),
                *map(self._field_meaning, entry.fields),
            )
            for entry in entries
        ]

    def _field_meaning(self, field: EntryField) -> object:
        return field.loose if self._moves else field.meaning

    def pairs(self) -> Iterator[tuple[SpecialEntry | None, SpecialEntry | None]]:
        """Yield the entries that differ: in order if both sides have as many, else those that only one side has."""
        old, new = self._entries
        before, after = map(self._meanings, self._versions, self._entries)
        if len(old) == len(new):
            differs = (was != is_ for was, is_ in zip(before, after, strict=True))
            yield from compress(zip(old, new, strict=True), differs)
        else:
            yield from zip_longest(_surplus(old, before, after), _surplus(new, after, before))

    def reasons(self) -> list[Reason]:
        """Return one reason for each entry that differs, or one for the number of entries."""
        (old, new), (_, version) = self._entries, self._versions
        if len(old) != len(new):
            was, is_ = (f"{len(side)} {'entry' if len(side) == 1 else 'entries'}" for side in (old, new))
            counts = Reason.of(Code.ENTRY_COUNT, was, is_, table=self.name, old_count=len(old))
            return [counts._replace(kind=self.kind)]
        reasons = []
        for x, y in self.pairs():
            assert x is not None and y is not None
            was, is_ = self._difference(x, y)
            place = Place("" if y.part == version.parts[0] else version.view.part_name(y.part), y.place)
            reasons.append(Reason.of(Code.ENTRY, was, is_, place, noun=self.noun)._replace(kind=self.kind))
        return reasons

    def _difference(self, x: SpecialEntry, y: SpecialEntry) -> tuple[str, str]:
        """Return the fields in which two entries differ, in words."""
        views = [version.view for version in self._versions]
        fields = [(a, b) for a, b in _by_field(x, y) if self._field_meaning(a) != self._field_meaning(b)]
        if not fields:
            sides = zip(views, (x, y), strict=True)
            kinds = [f"{view.kinds.name(entry.owner)} " if x.owner != y.owner else "" for view, entry in sides]
            return f"{kinds[0]}at +{x.place:#x}", f"{kinds[1]}at +{y.place:#x}"
        for words in (in_words, _precise):
            was, is_ = (", ".join(words(views[side], pair[side]) for pair in fields) for side in (0, 1))
            if was != is_:
                return was, is_
        return was, f"another {is_}"


def _surplus(
    entries: list[SpecialEntry], meanings: list[tuple[object, ...]], others: list[tuple[object, ...]]
) -> list[SpecialEntry]:
    """Return the entries whose meaning is not among ``others``, where each accounts for one."""
    left, found = others.copy(), []
    for entry, meaning in zip(entries, meanings, strict=True):
        if meaning in left:
            left.remove(meaning)
        else:
            found.append(entry)
    return found


def _by_field(x: SpecialEntry, y: SpecialEntry) -> Iterator[tuple[EntryField, EntryField]]:
    """Yield the fields of two entries in pairs; one that an entry does not have is "nothing"."""
    before, after = ({field.name: field for field in entry.fields} for entry in (x, y))
    for name in dict.fromkeys([*before, *after]):
        nothing = EntryField(name, "nothing", (), (), None)
        yield before.get(name, nothing), after.get(name, nothing)


def in_words(view: ObjectView, field: EntryField) -> str:
    """Return name and value of a field; for code without a name (a replacement), its instructions."""
    text = field.text
    part = view.content_part(field.row) if field.row is not None else None
    if part is not None and view.is_code(part):
        text = "; ".join(line.text for line in function_lines(view, [part]))
    return f"{field.name} {text}".strip()


def _precise(view: ObjectView, field: EntryField) -> str:
    """Return a field in more words than in_words, with the type of its relocation."""
    relation = f"{how(view, field.row)} " if field.row is not None else ""
    return f"{field.name} {relation}{field.text}"


def differences(old: Version, new: Version, moves: bool) -> list[TableDifference]:
    """Return the special sections of a function in both versions, by name."""
    before, after = _by_name(special_entries(*old)), _by_name(special_entries(*new))
    return [
        TableDifference(name, (old, new), (before.get(name, []), after.get(name, [])), moves)
        for name in sorted(before.keys() | after.keys())
    ]


def _by_name(found: dict[str, list[SpecialEntry]]) -> dict[str, list[SpecialEntry]]:
    """Make one table, with one more field, of the sections whose names say what is patched in."""
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
