# SPDX-License-Identifier: GPL-2.0-only
"""Which line of an old source file is which line of the new one.

The map pairs only lines with the same text, and never crosses: it is a common subsequence of the two files. As with
diff(1) there may be several, and a repeated line (a brace) may be paired with another copy of itself. For a proof about
``__LINE__`` that does not matter, because the compiled text is the same.
"""

from __future__ import annotations

from bisect import bisect_left

from kbuild_klp.source.matching import common_runs


class LineMap:
    """The line map from an old text to a new one. Line numbers count from 1, as the compiler's do."""

    def __init__(self, old: str, new: str) -> None:
        # Not splitlines(): a form feed ends no line for the compiler.
        before = old.split("\n")
        self._length = len(before)
        self._runs = common_runs(before, new.split("\n"))
        self._starts = [run[0] for run in self._runs]

    def map(self, old_line: int) -> int | None:
        """Return the new number of an old line, None if its text went or changed, or there is no such line."""
        place = bisect_left(self._starts, old_line) - 1
        if place < 0 or not 0 < old_line <= self._length:
            return None
        start, target, length = self._runs[place]
        offset = old_line - 1 - start
        return target + offset + 1 if offset < length else None
