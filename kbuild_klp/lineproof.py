# SPDX-License-Identifier: GPL-2.0-only
"""Proof that a number in the code is a source line that moved.

It holds when line a of a source file of the old object is, by the line map of the two versions of that file, line b
of the new one, and line a is one on which a macro stands that expands to `__LINE__`. Both versions have to be those
that were compiled. No opcode and no callee is looked at: an errno that changed stays a change.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from kbuild_klp.builds import Build
from kbuild_klp.errors import KlpError
from kbuild_klp.kernel.linemap import LineMap
from kbuild_klp.kernel.macros import MacroIndex, expanding_lines
from kbuild_klp.kernel.sources import changed_files, configuration_symbols

_MOST_LINES = 1 << 20  # the longest generated header of Linux has some 250,000
_macro_indices: dict[str, MacroIndex] = {}


class _ChangedFile(NamedTuple):
    lines: LineMap
    expanding: frozenset[int]


class LineProof:
    """The line maps of one object's sources; nothing is read before the first question."""

    def __init__(self, old: Build, new: Build, name: str) -> None:
        self._old = old
        self._new = new
        self._name = name

    @cached_property
    def _files(self) -> list[_ChangedFile]:
        try:
            old = self._old.sources(self._name, self._new)
            new = self._new.sources(self._name, self._old)
        except (KlpError, OSError):
            return []
        tree = self._old.tree(self._name) or self._new.tree(self._name)
        if old is None or new is None or tree is None:
            return []
        index = _macro_indices.get(str(tree.root))
        if index is None:
            index = _macro_indices[str(tree.root)] = MacroIndex(configuration_symbols(tree))
        macros = index.line_macros(old.files.values())
        result = []
        for change in changed_files(old, new):
            if change.old is None or change.new is None:
                continue
            try:
                before = Path(change.old).read_text("utf-8", "surrogateescape")
                after = Path(change.new).read_text("utf-8", "surrogateescape")
            except OSError:
                continue
            result.append(_ChangedFile(LineMap(before, after), expanding_lines(before, macros)))
        return result

    def proves(self, old: int, new: int) -> bool:
        """Return True when line ``old`` can have been compiled into the code and is line ``new`` now."""
        # Before any source is read: what can be no line number needs no proof.
        if not (0 < old <= _MOST_LINES and 0 < new <= _MOST_LINES):
            return False
        return any(old in file.expanding and file.lines.map(old) == new for file in self._files)
