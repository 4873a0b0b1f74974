# SPDX-License-Identifier: GPL-2.0-only
"""``kbuild-klp explain``: show where functions and variables differ, instruction by instruction."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from kbuild_klp.builds import SINGLE_OBJECT, Build
from kbuild_klp.classify import Change, ChangeType
from kbuild_klp.cli.diff import open_sides
from kbuild_klp.cli.progress import ProgressLine
from kbuild_klp.diff import compare
from kbuild_klp.errors import KlpError
from kbuild_klp.names import canonical_name, source_name
from kbuild_klp.report.model import Report
from kbuild_klp.verdict import Verdict

if TYPE_CHECKING:
    from kbuild_klp.explain import Explainer
    from kbuild_klp.explain.listing import Listing
    from kbuild_klp.explain.pair import ObjectPair

_ENDLESS = 1 << 30  # patience: who asks for an explanation gets it


class Explained(NamedTuple):
    """What there is to say about changes of one object.

    ``listings`` is None where the objects are not at hand; ``inlined`` maps inlined functions without code of their
    own, in words, to the functions that differ because of them.
    """

    object: str
    units: list[str]
    changes: list[Change]
    listings: list[Listing] | None
    inlined: dict[str, list[str]]


class Inlined(NamedTuple):
    """A function that was inlined: in words, and the objects and functions in which it differs.

    ``is_only`` says that it has no code of its own.
    """

    function: str
    into: list[tuple[str, str]]
    is_only: bool


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "names",
        metavar="OLD NEW [SYMBOL...]",
        nargs="+",
        help="two builds as for diff, and what to explain (default: all)",
    )
    parser.add_argument(
        "--kept", action="store_true", help="give TREE [SYMBOL...]: compare with what `make klp-base` kept"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("-y", "--side-by-side", action="store_true", help="two columns (default on a wide terminal)")
    form.add_argument("-u", "--unified", action="store_true", help="old below new, as diff -u (default elsewhere)")
    parser.add_argument("-W", "--width", type=int, metavar="N", help="columns to use")
    parser.add_argument("-U", "--context", type=int, metavar="N", default=3, help="unchanged instructions to show (3)")
    parser.add_argument("-j", "--jobs", type=int, metavar="N", help="processes for checksums that are missing")


# -- which symbols ----------------------------------------------------------------------------------------------------


def _key(name: str) -> str:
    """Return what names of one function share: numbers and clones left out."""
    return source_name(canonical_name(name).text).removesuffix(".cold")


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
        return b"\0%s\0" % symbol.encode("utf-8", "surrogateescape") in Path(file).read_bytes()
    except OSError:
        return False  # named among what was not compared


def _other_name(symbol: str, build: Build) -> str | None:
    """Return the name under which checksums list ``symbol``: that of the function it is an alias of, or a label in."""
    for name in sorted(build.names):
        file = build.object_file(name)
        if file is None or not _mentions(symbol, file):
            continue
        from kbuild_klp.explain.view import ObjectView

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
    changes: list[Change]


def _groups(report: Report, new: Build) -> list[_Group]:
    """Return what differs, by object; an object that is linked into several units comes once."""
    groups: dict[str, _Group] = {}
    for row in report.objects:
        name = SINGLE_OBJECT if SINGLE_OBJECT in new.names else row.object
        group = groups.get(name)
        if group is None:
            groups[name] = _Group(name, row.object, [row.unit], row.changes)
            continue
        group.units.append(row.unit)
        for change, other in zip(group.changes, row.changes, strict=True):
            # A livepatch has to carry it into all units, so what stands in its way in any of them counts.
            reasons = dict.fromkeys((*change.livepatch.reasons, *other.livepatch.reasons))
            change.livepatch = Verdict(tuple(reasons))
    return list(groups.values())


class _Explanation:
    """Explains what differs between two builds, object by object."""

    def __init__(self, old: Build, new: Build, report: Report, context: int) -> None:
        self._old = old
        self._new = new
        self._groups = _groups(report, new)
        self._context = context

    def has(self, symbol: str) -> bool:
        """Say whether anything differs that is called ``symbol``."""
        return any(_matches(symbol, change.symbol, change.label) for group in self._groups for change in group.changes)

    def of(self, symbols: list[str]) -> Iterator[Explained]:
        """Yield what there is to say about everything that is called one of ``symbols``."""
        for group in self._groups:
            wanted = [
                change
                for change in group.changes
                if any(_matches(name, change.symbol, change.label) for name in symbols)
            ]
            if wanted:
                yield self._explained(group, wanted, True)

    def all(self, progress: ProgressLine) -> Iterator[Explained]:
        """Yield what there is to say about everything but line numbers."""
        for number, group in enumerate(self._groups):
            progress(number, len(self._groups))
            wanted = [change for change in group.changes if change.change is not ChangeType.LINE_ONLY]
            found = self._explained(group, wanted, False) if wanted else None
            if found is not None and found.changes:
                progress.close()
                yield found
        progress.close()

    def inlined(self, symbol: str) -> Inlined | None:
        """Say where an inlined function differs, None where it does not or no debug information knows it."""
        found: Inlined | None = None
        for group in self._groups:
            files = self._pair(group.name).files
            if not any(file is not None and _mentions(symbol, file) for file in files):
                continue
            explainer = self._explainer(group.name)
            for change in group.changes if explainer else ():
                into = explainer.inlined_into(change, symbol) if explainer else None
                if into is not None:
                    found = found or Inlined(str(into.function), [], False)
                    if into.differs:
                        found.into.append((group.label, change.label))
        return found if found and found.into else None

    def inlined_unchanged(self, symbol: str) -> Inlined | None:
        """Return an inlined function of which nothing differs, None where no debug information knows it."""
        for name in sorted(self._new.names):
            file = self._new.object_file(name)
            if file is None or not _mentions(symbol, file):
                continue
            from kbuild_klp.elf.reader import ObjectFile
            from kbuild_klp.explain.origins import DebugSide

            try:
                function = DebugSide(ObjectFile.open(file)).inlined.find(symbol)
            except KlpError:
                continue
            if function is not None:
                return Inlined(str(function), [], True)
        return None

    def _pair(self, name: str) -> ObjectPair:
        from kbuild_klp.explain.pair import ObjectPair

        return ObjectPair(self._old, self._new, name)

    def _explainer(self, name: str) -> Explainer | None:
        """Return what explains one object, None where it is not on both sides."""
        pair = self._pair(name)
        old_file, new_file = pair.files
        if old_file is None or new_file is None:
            return None
        from kbuild_klp.explain import Explainer
        from kbuild_klp.explain.view import ObjectView

        return Explainer(ObjectView(old_file), ObjectView(new_file), _ENDLESS, pair.sources)

    def _explained(self, group: _Group, wanted: list[Change], named: bool) -> Explained:
        files = self._pair(group.name).files
        for file, side in zip(files, (self._old, self._new), strict=True):
            if file is None and group.name in side.names:
                return Explained(group.label, group.units, wanted, None, {})
        from kbuild_klp.explain.listing import Lister
        from kbuild_klp.explain.view import ObjectView

        explainer = self._explainer(group.name)
        if explainer is None:
            old, new = (ObjectView(file) if file else None for file in files)
            lister = Lister(old, new, context=self._context)
        else:
            debug = explainer.origins.old, explainer.origins.new
            lister = Lister(explainer.old, explainer.new, debug, self._context)
            for change in wanted:
                explainer.explain(change)
        if not named:
            wanted = [change for change in wanted if change.change is not ChangeType.LINE_ONLY]
        listings = [lister.listing(change, named) for change in wanted]
        return Explained(group.label, group.units, wanted, listings, explainer.inlined if explainer else {})


# -- the command ------------------------------------------------------------------------------------------------------


class _Answer(NamedTuple):
    """What is to be said about the symbols that were named."""

    wanted: list[str]
    aliases: list[tuple[str, str]]
    inlined: list[Inlined]
    unchanged: list[tuple[str, list[str]]]


def _answer(symbols: list[str], explanation: _Explanation, old: Build, new: Build) -> _Answer:
    """Find out what each symbol is; raises KlpError for one that is nowhere."""
    answer = _Answer([], [], [], [])
    for symbol in dict.fromkeys(symbols):
        if explanation.has(symbol):
            answer.wanted.append(symbol)
            continue
        other = _other_name(symbol, new) or _other_name(symbol, old)
        if other is not None:
            answer.aliases.append((symbol, other))
            if explanation.has(other):
                answer.wanted.append(other)
                continue
        inlined = explanation.inlined(symbol) if other is None else None
        if inlined is not None:
            answer.inlined.append(inlined)
        try:
            objects = _find_unchanged(other or symbol, old, new)
        except KlpError:
            found = inlined or explanation.inlined_unchanged(symbol)
            if found is None:
                raise
            answer.inlined[:] = [*(one for one in answer.inlined if one is not found), found._replace(is_only=True)]
            continue
        names = [new.label if name == SINGLE_OBJECT else name for name in objects]
        answer.unchanged.append((other or symbol, names))
    return answer


def _differs(changes: list[Change]) -> bool:
    return any(change.change is not ChangeType.LINE_ONLY for change in changes)


def main(arguments: argparse.Namespace) -> int:
    """Run the command; raises KlpError."""
    builds = 1 if arguments.kept else 2
    old, new = open_sides(arguments.names[:builds], arguments.kept)
    symbols: list[str] = arguments.names[builds:]
    progress, looking = ProgressLine("checksums"), ProgressLine("objects that differ")
    try:
        # Whether a livepatch can carry a change depends on others, so all objects that differ are read.
        report = compare(old, new, arguments.jobs, progress, looking=looking)
    finally:
        progress.close()
        looking.close()
    explanation = _Explanation(old, new, report, max(arguments.context, 0))
    answer = _answer(symbols, explanation, old, new)
    from kbuild_klp.cli.explain_output import JsonOutput, TextOutput

    output = JsonOutput(report) if arguments.json else TextOutput(report, arguments)
    output.aliases(answer.aliases)
    found = explanation.of(answer.wanted) if symbols else explanation.all(ProgressLine("explained"))
    differs = any(inlined.into for inlined in answer.inlined)
    for explained in found:
        output.explained(explained)
        differs |= _differs(explained.changes)
    output.inlined(answer.inlined)
    output.unchanged(answer.unchanged)
    output.end(not differs and not symbols)
    for line in report.failed:
        print(f"kbuild-klp: not compared: {line}", file=sys.stderr)
    return 2 if report.failed else int(differs)
