# SPDX-License-Identifier: GPL-2.0-only
"""``kbuild-klp explain``: show where a function or variable differs, instruction by instruction."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from kbuild_klp.builds import SINGLE_OBJECT, Build
from kbuild_klp.classify import Change, ChangeType
from kbuild_klp.cli.diff import open_sides, text_style
from kbuild_klp.cli.progress import ProgressLine
from kbuild_klp.diff import compare, explain_object
from kbuild_klp.entry import KIND_FUNCTION
from kbuild_klp.errors import KlpError
from kbuild_klp.names import canonical_name, source_name
from kbuild_klp.report.model import Report
from kbuild_klp.report.text import TextStyle

_MARKS = {"@": "36", "-": "31", "+": "32"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "names", metavar="OLD NEW SYMBOL", nargs="+", help="two builds as for diff, and what to explain"
    )
    parser.add_argument("--kept", action="store_true", help="give TREE SYMBOL: compare with what `make klp-base` kept")
    parser.add_argument("-j", "--jobs", type=int, metavar="N", help="processes for checksums that are missing")


def _key(name: str) -> str:
    """Return what names of one function share: numbers, clones and the file behind @ left out."""
    return source_name(canonical_name(name.partition("@")[0]).text).removesuffix(".cold")


def _matches(symbol: str, name: str) -> bool:
    return symbol in (name, name.partition("@")[0]) or _key(symbol) == _key(name)


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


def _other_name(symbol: str, build: Build) -> str | None:
    """Return the name under which checksums list ``symbol``: that of the function it is an alias of, or a label in."""
    needle = b"\0%s\0" % symbol.encode("utf-8", "surrogateescape")
    for name in sorted(build.names):
        file = build.object_file(name)
        try:
            if file is not None and needle in Path(file).read_bytes():
                from kbuild_klp.explain.view import ObjectView

                found = ObjectView(file).alias_of(symbol)
                if found is not None and not _matches(symbol, found):
                    return found
        except (OSError, KlpError):
            continue  # named among what was not compared
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


def _print_object(old: Build, new: Build, name: str, changes: list[Change], unit: str, style: TextStyle) -> None:
    """Print all that there is to say about some changes of one object."""
    files = [side.object_file(name) if name in side.names else None for side in (old, new)]
    at_hand = all(file is not None or name not in side.names for file, side in zip(files, (old, new), strict=True))
    label = new.label if name == SINGLE_OBJECT else f"{name} ({unit})"
    print(style.paint(label, "1"))
    lister = None
    if at_hand:
        # Not at the top: an unchanged symbol is answered without capstone and numpy.
        from kbuild_klp.explain.listing import Lister
        from kbuild_klp.explain.view import ObjectView

        lister = Lister(*(ObjectView(file) if file else None for file in files))
    for change in changes:
        kind = "" if change.kind == KIND_FUNCTION else f" ({change.kind})"
        print(f"  {change.change.value:<9} {change.symbol}{kind}")
        for reason in change.reasons:
            print(f"    {reason}")
        for row in lister.rows(change) if lister else ():
            mark = row.kind.value
            line = f"@@ {row.text} @@" if mark == "@" else f"{mark} {row.text}"
            print("    " + (style.paint(line, _MARKS[mark]) if mark in _MARKS else line))
    if not at_hand:
        print("  the objects are not at hand (an archive holds checksums only), so no instructions are shown")


def _print_changes(symbol: str, old: Build, new: Build, report: Report, style: TextStyle) -> list[Change]:
    """Print what differs in everything that is called ``symbol``, and return it."""
    found: list[Change] = []
    for changes in report.objects:
        wanted = [change for change in changes.changes if _matches(symbol, change.symbol)]
        if wanted:
            name = SINGLE_OBJECT if SINGLE_OBJECT in new.names else changes.object
            wanted = explain_object(old, new, name, wanted)
            _print_object(old, new, name, wanted, changes.unit, style)
            found += wanted
    return found


def _differs(changes: list[Change]) -> bool:
    return any(change.change is not ChangeType.LINE_ONLY for change in changes)


def _sides(arguments: argparse.Namespace) -> tuple[Build, Build, list[str]]:
    builds = 1 if arguments.kept else 2
    symbols: list[str] = arguments.names[builds:]
    if not symbols:
        raise KlpError(
            "names no symbol to explain", hint="give OLD NEW SYMBOL (or --kept TREE SYMBOL, or make SYM=...)"
        )
    return *open_sides(arguments.names[:builds], arguments.kept), symbols


def main(arguments: argparse.Namespace) -> int:
    """Run the command; raises KlpError."""
    old, new, symbols = _sides(arguments)
    progress = ProgressLine("checksums")
    try:
        report = compare(old, new, arguments.jobs, progress, explain=False)
    finally:
        progress.close()
    for warning in report.warnings:
        print(f"kbuild-klp: {warning}", file=sys.stderr)
    style = text_style(True, True)
    differs = False
    unchanged: dict[str, list[str]] = {}
    for symbol in symbols:
        found = _print_changes(symbol, old, new, report, style)
        differs |= _differs(found)
        if found:
            continue
        other = _other_name(symbol, new) or _other_name(symbol, old)
        if other is not None:
            print(f"{symbol} is part of {other}")
            found = _print_changes(other, old, new, report, style)
            differs |= _differs(found)
        if not found:
            unchanged[symbol] = _find_unchanged(other or symbol, old, new)
    for symbol, objects in unchanged.items():
        where = ", ".join(new.label if name == SINGLE_OBJECT else name for name in objects)
        print(f"{symbol}: no difference ({where})")
    for line in report.failed:
        print(f"kbuild-klp: not compared: {line}", file=sys.stderr)
    return 2 if report.failed else int(differs)
