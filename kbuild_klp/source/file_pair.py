# SPDX-License-Identifier: GPL-2.0-only
"""Two versions of a source file: which line became which, and whether anything but lines differs."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from kbuild_klp.source.line_map import LineMap
from kbuild_klp.source.passages import Passage, TextChange, integers, is_only_comment, passages, text_change, tokens


class FilePair:
    """Two versions of one file, at paths ``old`` and ``new``; if they are equal, the paths may be, too.

    Nothing is read before it is needed, and no text is kept: an object has a thousand headers. A file that cannot be
    read counts as empty.
    """

    def __init__(self, old: str, new: str) -> None:
        self.old = old
        self.new = new

    @cached_property
    def lines(self) -> LineMap:
        """Which line became which."""
        return LineMap(read(self.old), read(self.new))

    @cached_property
    def only_lines_differ(self) -> bool:
        """Whether both have the same tokens in the same order, so that only their lines can differ."""
        if self.old == self.new:
            return True
        before, after = read(self.old), read(self.new)
        # Often all that came or went is a comment at the top, and the rest need not be taken apart.
        longer, shorter = (after, before) if len(after) > len(before) else (before, after)
        if longer.endswith(shorter):
            top = longer[: len(longer) - len(shorter)]
            if top.endswith("\n") and not top.endswith("\\\n") and is_only_comment(top):
                return True
        return tokens(before) == tokens(after)

    @cached_property
    def old_passages(self) -> list[Passage]:
        """The old version cut into pieces."""
        return passages(read(self.old))

    @cached_property
    def new_passages(self) -> list[Passage]:
        """The new version cut into pieces."""
        return self.old_passages if self.old == self.new else passages(read(self.new))

    @cached_property
    def change(self) -> TextChange:
        """The pieces that differ."""
        return text_change(self.old_passages, self.new_passages)

    @cached_property
    def replaced(self) -> tuple[frozenset[int], frozenset[int]]:
        """The integer constants in what went, and in what came."""
        change = self.change
        return integers(passage.text for passage in change.removed), integers(passage.text for passage in change.added)


def read(path: str) -> str:
    """Return the text of a source file, whatever its bytes are; empty if it cannot be read."""
    try:
        return Path(path).read_text("utf-8", "surrogateescape")
    except (OSError, ValueError):
        return ""
