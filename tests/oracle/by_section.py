# SPDX-License-Identifier: GPL-2.0-only
"""A third opinion, from objects that were compiled with -ffunction-sections and -fdata-sections.

There the compiler has done the work: whatever lies in a section of its own differs if and only if the section does,
byte for byte, or a relocation of it, or a row of a table about it. No instruction is looked at. Functions that share
a section all the same (``__init``, ``noinstr``, assembly) are not judged.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from oracle.listing import Listing
from oracle.opinion import Answer, Reader, Span, Thing, compare_things, plain


class SectionReader(Reader):
    """Things that have a section of their own, with code as bytes."""

    def code_text(self, section: str, start: int, end: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return bytes and relocations, and what tables say about them."""
        body, lines = self.data_text(section, start, end)
        rows, more = self.row_text(section, start, end)
        return (*body, *rows), (*lines, *more)

    def is_judged(self, section: str, span: Span) -> bool:
        """Say whether a thing lies in a section that the compiler made for it."""
        return section.endswith(f".{span.symbol.name}") and self.spans[section] == [span]

    def things(self) -> Iterator[Thing]:
        """Yield what lies in sections of its own."""
        for section, spans in self.spans.items():
            if len(spans) == 1 and self.is_judged(section, spans[0]):
                for thing in self.thing(section, spans[0]):
                    yield thing._replace(section=section.removesuffix(f".{spans[0].symbol.name}"))

    def shared(self) -> set[str]:
        """Return the names of what lies in sections with others."""
        return {
            plain(span.symbol.name)
            for section, spans in self.spans.items()
            for span in spans
            if not self.is_judged(section, span)
        }


def differences(old: Path, new: Path) -> tuple[Answer, set[tuple[str, str]]]:
    """Say which sections differ, and of which (kind, name) it can be said."""
    readers = [SectionReader(Listing(path)) for path in (old, new)]
    before, after = (list(reader.things()) for reader in readers)
    shared = readers[0].shared() | readers[1].shared()
    asked = {(thing.kind, thing.name) for thing in (*before, *after) if thing.name not in shared}
    return compare_things(before, after), asked
