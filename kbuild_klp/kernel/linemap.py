# SPDX-License-Identifier: GPL-2.0-only
"""Which line of an old source file is which line of the new one.

The map pairs only lines whose text is identical, and never crosses: it is a common subsequence of the two
files. As with diff(1) there may be several; a repeated line (a brace) may be paired with another copy of
itself, which does not matter for a proof about ``__LINE__``, because the text that would have to be
compiled is the same.

Equal ends are taken off first. What remains is cut at the lines that occur once on each side (patience
diff), and only the pieces between go through difflib, which is quadratic in repeated lines.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from difflib import SequenceMatcher

# A piece with more pairs of lines than this, and no line that occurs once, is left unpaired (generated
# tables).
_MOST_PAIRS = 4_000_000


class LineMap:
    """The line map from an old text to a new one. Line numbers count from 1, as the compiler's do."""

    def __init__(self, old: str | bytes, new: str | bytes) -> None:
        # Not splitlines(): a form feed ends no line for the compiler.
        before: Sequence[str | bytes] = old.split("\n") if isinstance(old, str) else old.split(b"\n")
        after: Sequence[str | bytes] = new.split("\n") if isinstance(new, str) else new.split(b"\n")
        self._length = len(before)
        self._runs: list[tuple[int, int, int]] = []
        self._match(before, after, 0, len(before), 0, len(after))
        self._starts = [run[0] for run in self._runs]

    def map(self, old_line: int) -> int | None:
        """The new number of an old line, None if its text went or changed, or there is no such line."""
        place = bisect_left(self._starts, old_line) - 1
        if place < 0 or not 0 < old_line <= self._length:
            return None
        start, target, length = self._runs[place]
        offset = old_line - 1 - start
        return target + offset + 1 if offset < length else None

    @property
    def runs(self) -> tuple[tuple[int, int, int], ...]:
        """The runs of identical lines: old start, new start (both from 0), number of lines; in order."""
        return tuple(self._runs)

    def _match(self, a: Sequence[str | bytes], b: Sequence[str | bytes], a0: int, a1: int, b0: int, b1: int) -> None:
        """Pair a[a0:a1] with b[b0:b1], adding runs in order."""
        head = 0
        most = min(a1 - a0, b1 - b0)
        while head < most and a[a0 + head] == b[b0 + head]:
            head += 1
        self._add(a0, b0, head)
        a0, b0, most = a0 + head, b0 + head, most - head
        tail = 0
        while tail < most and a[a1 - 1 - tail] == b[b1 - 1 - tail]:
            tail += 1
        a1, b1 = a1 - tail, b1 - tail
        if a0 < a1 and b0 < b1:
            anchors = [(a0 + i, b0 + j) for i, j in _anchors(a[a0:a1], b[b0:b1])]
            for i, j in anchors:
                self._match(a, b, a0, i, b0, j)
                self._add(i, j, 1)
                a0, b0 = i + 1, j + 1
            if anchors:
                self._match(a, b, a0, a1, b0, b1)
            elif (a1 - a0) * (b1 - b0) <= _MOST_PAIRS:
                matcher = SequenceMatcher(None, a[a0:a1], b[b0:b1], autojunk=False)
                for i, j, length in matcher.get_matching_blocks():
                    self._add(a0 + i, b0 + j, length)
        self._add(a1, b1, tail)

    def _add(self, old: int, new: int, length: int) -> None:
        if not length:
            return
        if self._runs:
            start, target, known = self._runs[-1]
            if start + known == old and target + known == new:
                self._runs[-1] = (start, target, known + length)
                return
        self._runs.append((old, new, length))


def _anchors(a: Sequence[str | bytes], b: Sequence[str | bytes]) -> list[tuple[int, int]]:
    """Pairs of lines that occur once on each side: the longest chain of them that rises on both."""
    count_a, count_b = Counter(a), Counter(b)
    places = {line: j for j, line in enumerate(b) if count_b[line] == 1}
    pairs = [(i, places[line]) for i, line in enumerate(a) if count_a[line] == 1 and line in places]
    # Patience sorting: `tops` is the last pair of the best chain of each length.
    tops: list[int] = []
    chain: list[int] = []
    back: list[int] = []
    for index, (_, j) in enumerate(pairs):
        place = bisect_left(tops, j)
        back.append(chain[place - 1] if place else -1)
        if place == len(tops):
            tops.append(j)
            chain.append(index)
        else:
            tops[place] = j
            chain[place] = index
    result: list[tuple[int, int]] = []
    index = chain[-1] if chain else -1
    while index >= 0:
        result.append(pairs[index])
        index = back[index]
    return result[::-1]
