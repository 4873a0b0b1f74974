# SPDX-License-Identifier: GPL-2.0-only
"""The source files of an object that was linked from several: those of the one that a symbol came from."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from kbuild_klp.errors import KlpError
from kbuild_klp.kernel.sources import SourceFiles
from kbuild_klp.kernel.tree import BuildTree

if TYPE_CHECKING:
    from kbuild_klp.object.symbol_id import SymbolId

_LTO = "-flto"


class LinkedSources:
    """The sources of an object at ``path`` that was linked from ``members``, objects of ``tree``, in link order.

    Only those of symbols that have one of ``names`` can be asked for. Nothing is known under LTO, where the code of one
    source is in functions of others, and where one of the members is not there any more: it may have had a symbol of
    any name.
    """

    def __init__(self, tree: BuildTree, path: str, members: Sequence[str], names: Iterable[str]) -> None:
        self._tree = tree
        self._members = members
        self._time = os.stat(path).st_mtime_ns
        self._times: dict[str, int] = {}
        self._homes = self._find_homes(names)

    def member(self, symbol: SymbolId) -> str | None:
        """Return the member that a symbol of the linked object is of, None where that is not certain."""
        if symbol.copy > 1:
            return None
        local, outer, all_of_name = (
            self._homes.get(key, ()) for key in ((symbol.name, symbol.file), (symbol.name, ""), (symbol.name, None))
        )
        # Without a file it is a global one, or the object has one file only.
        found = local if symbol.file else outer or all_of_name
        return self._members[found[0]] if len(found) == 1 else None

    def of_member(self, member: str) -> SourceFiles | None:
        """Return the sources of a member, None where they or the member changed since."""
        time = os.stat(os.path.join(self._tree.root, member)).st_mtime_ns
        sources = SourceFiles.compiled(self._tree, member, time, self._times)
        if time > self._time or sources is None:
            return None
        is_lto = sources.saved is None or any(word.startswith(_LTO) for word in sources.saved.command.split())
        return None if is_lto else sources

    def _find_homes(self, names: Iterable[str]) -> dict[tuple[str, str | None], list[int]]:
        """Return the members (by index) that have a symbol: by name, and its file, "" for global ones, None for all."""
        # Not at the top: most objects of most comparisons are not read.
        from kbuild_klp.elf.reader import ObjectFile
        from kbuild_klp.object.symbol_sources import defined_symbols

        try:
            files = [ObjectFile.open(os.path.join(self._tree.root, member)) for member in self._members]
        except (KlpError, OSError):
            return {}
        found: dict[tuple[str, str | None], list[int]] = defaultdict(list)
        for number, name, file in defined_symbols(files, names):
            for key in ((name, file), (name, None)):
                if found[key][-1:] != [number]:
                    found[key].append(number)
        return found
