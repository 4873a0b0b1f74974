# SPDX-License-Identifier: GPL-2.0-only
"""How ``kbuild-klp explain`` prints: for people, or as one JSON document."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from kbuild_klp.builds import SINGLE_OBJECT
from kbuild_klp.cli.diff import text_style
from kbuild_klp.cli.explain import Explained, Inlined
from kbuild_klp.report.json import change_data
from kbuild_klp.report.listing import WIDE, ListingStyle, as_data, change_line, reason_lines, text_lines
from kbuild_klp.report.model import Report
from kbuild_klp.report.text import TextStyle, summary_line

_DOCUMENT_VERSION = 1
_SIDE_BY_SIDE = 130  # columns of `diff --side-by-side`


class TextOutput:
    """Prints for people."""

    def __init__(self, report: Report, arguments: argparse.Namespace) -> None:
        self._report = report
        for warning in report.warnings:
            print(f"kbuild-klp: {warning}", file=sys.stderr)
        style = text_style(True, True)
        wide = sys.stdout.isatty() and style.width >= WIDE
        columns = arguments.side_by_side or (wide and not arguments.unified)
        width = arguments.width or (style.width if sys.stdout.isatty() else _SIDE_BY_SIDE)
        self._text = TextStyle(max(width, 60), style.color, True, True)
        self._style = ListingStyle(self._text, columns)

    def explained(self, found: Explained) -> None:
        """Print what there is to say about one object."""
        label = found.object if found.units == [SINGLE_OBJECT] else f"{found.object} {_in_units(found.units)}"
        print(self._text.paint(label, "1"))
        for listing in found.listings or ():
            for line in text_lines(listing, self._style):
                print(line)
        if found.listings is None:
            for change in found.changes:
                print(change_line(change))
                for line in reason_lines(change, self._text):
                    print(line)
            print("  the objects are not at hand (an archive holds checksums only), so no instructions are shown")
        for function, symbols in found.inlined.items():
            print(f"  inlined   {function} has no code of its own, and differs in {', '.join(symbols)}")

    def aliases(self, aliases: list[tuple[str, str]]) -> None:
        """Say which symbols are other names."""
        for symbol, other in aliases:
            print(f"{symbol} is part of {other}")

    def inlined(self, functions: list[Inlined]) -> None:
        """Say where inlined functions differ."""
        for found in functions:
            own = "has no code of its own; it was" if found.is_only else "was also"
            if not found.into:
                print(f"{found.function} {own} inlined, and no instruction of it differs")
                continue
            print(f"{found.function} {own} inlined, and differs in")
            for name, function in found.into:
                print(f"  {function} ({name})")

    def unchanged(self, symbols: list[tuple[str, list[str]]]) -> None:
        """Say of which symbols nothing differs."""
        for symbol, objects in symbols:
            print(f"{symbol}: no difference ({', '.join(objects)})")

    def end(self, nothing: bool) -> None:
        """Print what comes last; ``nothing`` says that there is no difference at all."""
        if nothing:
            print(summary_line(self._report.summary))


def _in_units(units: list[str]) -> str:
    return " ".join(f"({unit})" for unit in units)


class JsonOutput:
    """Prints one JSON document, each change as soon as it is known: there may be many thousands."""

    def __init__(self, report: Report) -> None:
        self._first = True
        self._rest: dict[str, list[Any]] = {
            "inlined": [],
            "unchanged": [],
            "aliases": [],
            "warnings": report.warnings + report.failed,
        }
        print(f'{{"version": {_DOCUMENT_VERSION},\n"changes": [', end="")

    def explained(self, found: Explained) -> None:
        """Print the changes of one object."""
        place = {"object": found.object, "unit": found.units[0], "units": found.units}
        if found.listings is not None:
            rows = [as_data(listing) for listing in found.listings]
        else:
            rows = [
                {
                    **change_data(change),
                    "first_difference": None,
                    "hunks": [],
                    "note": "the objects are not at hand",
                }
                for change in found.changes
            ]
        for row in rows:
            print("" if self._first else ",")
            print(json.dumps(place | row), end="")
            self._first = False
        for function, symbols in found.inlined.items():
            into = [{"object": found.object, "symbol": symbol} for symbol in symbols]
            self._rest["inlined"].append({"function": function, "into": into})

    def aliases(self, aliases: list[tuple[str, str]]) -> None:
        """Note which symbols are other names."""
        self._rest["aliases"] += [{"symbol": symbol, "of": other} for symbol, other in aliases]

    def inlined(self, functions: list[Inlined]) -> None:
        """Note where inlined functions differ."""
        for found in functions:
            rows = [{"object": name, "symbol": function} for name, function in found.into]
            self._rest["inlined"].append({"function": found.function, "into": rows})

    def unchanged(self, symbols: list[tuple[str, list[str]]]) -> None:
        """Note of which symbols nothing differs."""
        self._rest["unchanged"] += [{"symbol": symbol, "objects": objects} for symbol, objects in symbols]

    def end(self, nothing: bool) -> None:
        """Print what comes last."""
        del nothing
        print("\n],")
        print(",\n".join(f"{json.dumps(name)}: {json.dumps(rows)}" for name, rows in self._rest.items()) + "}")
