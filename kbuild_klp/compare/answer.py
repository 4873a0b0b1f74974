# SPDX-License-Identifier: GPL-2.0-only
"""What to say to somebody who asks about a symbol: where it differs, what it is part of, or that it is the same."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from kbuild_klp.builds.side import SINGLE_OBJECT, Build
from kbuild_klp.changes.classification import Change, ChangeType
from kbuild_klp.changes.verdict import Verdict
from kbuild_klp.checksum.batch import Progress
from kbuild_klp.containers.ar import split_path
from kbuild_klp.containers.compression import unpacked
from kbuild_klp.elf.symbol_names import canonical_name, source_name
from kbuild_klp.errors import KlpError
from kbuild_klp.report.model import ExplainedObject, Explanation, InlinedEverywhere, Report

if TYPE_CHECKING:
    from kbuild_klp.builds.object_pair import ObjectPair
    from kbuild_klp.explain.explainer import Explainer

_ENDLESS = 1 << 30  # patience: who asks for an explanation gets it


# -- which symbols ----------------------------------------------------------------------------------------------------


def _key(name: str) -> str:
    """Return what names of one function share: numbers and clones left out."""
    return source_name(canonical_name(name).text).removesuffix(".cold").removesuffix(".__part")


def _matches(wanted: str, *names: str) -> bool:
    """Say whether a user who says ``wanted`` can mean what has one of ``names``."""
    return wanted in names or _key(wanted) in map(_key, names)


def _names(build: Build) -> Iterator[tuple[str, str]]:
    """Return object and name of every entry of a side."""
    for name in sorted(build.names):
        data = build.sums(name)
        if data is None:
            continue
        try:
            entries = build.load(name, data).entries
        except KlpError:
            continue
        yield from ((name, entry.name) for entry in entries)


def _mentions(symbol: str, file: str) -> bool:
    """Say whether a name stands in an object, as that of a symbol or in debug information."""
    try:
        data = unpacked(Path(split_path(file)[0]).read_bytes(), file)
        return b"\0%s\0" % symbol.encode("utf-8", "surrogateescape") in bytes(data)
    except (OSError, KlpError):
        return False  # named among what was not compared


def _files_with(symbol: str, build: Build) -> Iterator[str]:
    """Yield the objects of a side in which a name stands."""
    files = map(build.object_file, sorted(build.names))
    yield from (file for file in files if file is not None and _mentions(symbol, file))


def _other_name(symbol: str, build: Build) -> str | None:
    """Return the name under which checksums list ``symbol``: that of the function it is an alias of, or a label in."""
    for file in _files_with(symbol, build):
        from kbuild_klp.object.view import ObjectView

        try:
            found = ObjectView(file).alias_of(symbol)
        except KlpError:
            continue
        if found is not None and not _matches(symbol, found):
            return found
    return None


def _find_unchanged(symbol: str, old: Build, new: Build) -> list[str]:
    """Return the objects in which ``symbol`` is, unchanged; raises KlpError when there is none."""
    from difflib import get_close_matches

    entries = [*_names(new), *_names(old)]
    objects = dict.fromkeys(name for name, entry in entries if _matches(symbol, entry))
    if objects:
        return list(objects)
    known = {_key(entry) for _, entry in entries}
    close = get_close_matches(_key(symbol), known, 3, 0.7)
    hint = f"did you mean {', '.join(close)}?" if close else "give the name of a function or variable"
    raise KlpError(f"no function or variable {symbol} in either build", file=new.label, hint=hint)


# -- what there is to say ---------------------------------------------------------------------------------------------


class _Group(NamedTuple):
    """The changes of one object: ``name`` is what the builds call it, ``label`` what people do."""

    name: str
    label: str
    units: list[str]
    changes: Sequence[Change]


def _groups(report: Report, new: Build) -> list[_Group]:
    """Return what differs, by object; an object that is linked into several units comes once."""
    groups: dict[str, _Group] = {}
    for row in report.objects:
        name = SINGLE_OBJECT if SINGLE_OBJECT in new.names else row.object
        group = groups.get(name)
        if group is None:
            groups[name] = _Group(name, row.object, [row.unit], row.changes)
            continue
        # A livepatch has to carry it into all units, so what stands in its way in any of them counts.
        both = [
            change._replace(
                livepatch=Verdict(tuple(dict.fromkeys((*change.livepatch.reasons, *other.livepatch.reasons))))
            )
            for change, other in zip(group.changes, row.changes, strict=True)
        ]
        groups[name] = group._replace(units=[*group.units, row.unit], changes=both)
    return list(groups.values())


class _Explanation:
    """Explains what differs between two builds, object by object."""

    def __init__(self, old: Build, new: Build, report: Report, context: int) -> None:
        self._old = old
        self._new = new
        self._groups = _groups(report, new)
        self._context = context

    def _changes(self, symbols: Collection[str] = ()) -> Iterator[tuple[_Group, list[Change]]]:
        """Yield what differs of ``symbols``, by object; where none is named, all but line numbers."""
        for group in self._groups:
            wanted = [
                change
                for change in group.changes
                if any(_matches(symbol, change.symbol, change.label) for symbol in symbols)
                or not (symbols or change.change is ChangeType.LINE_ONLY)
            ]
            if wanted:
                yield group, wanted

    def differ(self, symbols: list[str]) -> bool:
        """Say whether anything but line numbers differs of ``symbols``; of all that there is where none is named."""
        found = (change for _, changes in self._changes(symbols) for change in changes)
        return any(change.change is not ChangeType.LINE_ONLY for change in found)

    def has(self, symbol: str) -> bool:
        """Say whether anything differs that is called ``symbol``."""
        return any(self._changes([symbol]))

    def of(self, symbols: list[str]) -> Iterator[ExplainedObject]:
        """Yield what there is to say about everything that is called one of ``symbols``."""
        for group, wanted in self._changes(symbols) if symbols else ():
            yield self._explained(group, wanted, True)

    def all(self, progress: Progress) -> Iterator[ExplainedObject]:
        """Yield what there is to say about everything but line numbers."""
        found = list(self._changes())
        for number, (group, wanted) in enumerate(found):
            progress(number, len(found))
            yield self._explained(group, wanted, False)

    def inlined(self, symbol: str) -> InlinedEverywhere | None:
        """Say where an inlined function differs, None where it does not or no debug information knows it."""
        found: InlinedEverywhere | None = None
        for group in self._groups:
            files = self._pair(group.name).files
            if not any(file is not None and _mentions(symbol, file) for file in files):
                continue
            explainer = self._explainer(group.name)
            for change in group.changes if explainer else ():
                into = explainer.inlined_into(change, symbol) if explainer else None
                if into is not None:
                    function, differs = into
                    found = found or InlinedEverywhere(str(function), [], False)
                    if differs:
                        found.into.append((group.label, change.label))
        return found if found and found.into else None

    def inlined_unchanged(self, symbol: str) -> InlinedEverywhere | None:
        """Return an inlined function of which nothing differs, None where no debug information knows it."""
        for file in _files_with(symbol, self._new):
            from kbuild_klp.elf.reader import ObjectFile
            from kbuild_klp.explain.origins import DebugSide

            try:
                function = DebugSide(ObjectFile.open(file)).inlined.find(symbol)
            except KlpError:
                continue
            if function is not None:
                return InlinedEverywhere(str(function), [], True)
        return None

    def _pair(self, name: str) -> ObjectPair:
        from kbuild_klp.builds.object_pair import ObjectPair

        return ObjectPair(self._old, self._new, name)

    def _explainer(self, name: str) -> Explainer | None:
        """Return what explains one object, None where it is not on both sides."""
        pair = self._pair(name)
        old_file, new_file = pair.files
        if old_file is None or new_file is None:
            return None
        from kbuild_klp.explain.explainer import Explainer
        from kbuild_klp.object.view import ObjectView

        return Explainer(ObjectView(old_file), ObjectView(new_file), _ENDLESS, pair.sources)

    def _explained(self, group: _Group, wanted: list[Change], named: bool) -> ExplainedObject:
        files = self._pair(group.name).files
        for file, side in zip(files, (self._old, self._new), strict=True):
            if file is None and group.name in side.names:
                return ExplainedObject(group.label, group.units, wanted, None, {})
        from kbuild_klp.explain.listing import Lister
        from kbuild_klp.object.view import ObjectView

        explainer = self._explainer(group.name)
        if explainer is None:
            old, new = (ObjectView(file) if file else None for file in files)
            lister = Lister(old, new, context=self._context)
        else:
            debug = explainer.origins.old, explainer.origins.new
            lister = Lister(explainer.old, explainer.new, debug, self._context)
            wanted = list(map(explainer.explain, wanted))
        listings = [lister.listing(change, named) for change in wanted]
        return ExplainedObject(group.label, group.units, wanted, listings, explainer.inlined if explainer else {})


def answer(symbols: list[str], old: Build, new: Build, report: Report, context: int, progress: Progress) -> Explanation:
    """Find out what each symbol is; raises KlpError for one that is nowhere.

    ``context`` is the number of unchanged instructions to show around a change.
    """
    explanation = _Explanation(old, new, report, context)
    wanted: list[str] = []
    aliases: list[tuple[str, str]] = []
    inlined: list[InlinedEverywhere] = []
    unchanged: list[tuple[str, list[str]]] = []
    for symbol in dict.fromkeys(symbols):
        if explanation.has(symbol):
            wanted.append(symbol)
            continue
        other = _other_name(symbol, new) or _other_name(symbol, old)
        if other is not None:
            aliases.append((symbol, other))
            if explanation.has(other):
                wanted.append(other)
                continue
        found = explanation.inlined(symbol) if other is None else None
        try:
            objects = _find_unchanged(other or symbol, old, new)
        except KlpError:
            only = found or explanation.inlined_unchanged(symbol)
            if only is None:
                raise
            inlined.append(only._replace(is_only=True))
            continue
        if found is not None:
            inlined.append(found)
        unchanged.append((other or symbol, [new.label if name == SINGLE_OBJECT else name for name in objects]))
    differs = any(each.into for each in inlined)
    if wanted or not symbols:
        differs |= explanation.differ(wanted)
    explained = explanation.of(wanted) if symbols else explanation.all(progress)
    return Explanation(symbols, aliases, inlined, unchanged, explained, differs)
