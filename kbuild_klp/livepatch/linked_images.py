# SPDX-License-Identifier: GPL-2.0-only
"""What the units of a build were linked to, and where in it the symbols of their objects are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from functools import cached_property

from kbuild_klp.builds.side import SINGLE_OBJECT, Build
from kbuild_klp.errors import KlpError
from kbuild_klp.livepatch.linked_symbols import LinkedSymbols
from kbuild_klp.livepatch.rules import Position
from kbuild_klp.livepatch.sides import FunctionSymbol


class LinkedImages:
    """The linked images of one build; ``names_of`` says of a unit which symbols will be asked for."""

    def __init__(self, build: Build, names_of: Callable[[str], set[str]]) -> None:
        self._build = build
        self._names_of = names_of
        self._images: dict[str, LinkedSymbols | None] = {}

    def position(self, place: str, unit: str, symbol: FunctionSymbol, time: int = 0) -> Position | None:
        """Find a symbol of the object ``place`` in what it was linked into.

        None if that is not at hand, or older than the object, which is of ``time`` (ns).
        """
        symbols = self.symbols(unit)
        if symbols is None or symbols.time < time:
            return None
        base = place.rpartition("/")[2]
        file = symbol.file or base
        # Objects of one name have sources of one name, unless one is assembly or of several sources.
        rank, count = self._ranks.get((unit, place), (0, 0))
        is_known = file.rpartition(".")[0] == base.rpartition(".")[0] and symbols.file_counts.get(file) == count
        return symbols.position(symbol, file, rank if is_known else None)

    def symbols(self, unit: str) -> LinkedSymbols | None:
        """Return the symbols of a unit, None where what it was linked to is not at hand."""
        if unit not in self._images:
            self._images[unit] = self._open(unit)
        return self._images[unit]

    def _open(self, unit: str) -> LinkedSymbols | None:
        path = self._build.image(unit)
        if path is None:
            return None
        try:
            return LinkedSymbols(path, unit, self._names_of(unit))
        except (KlpError, OSError):
            return None  # as good as none

    @cached_property
    def _ranks(self) -> dict[tuple[str, str], tuple[int, int]]:
        """For each object of a unit: which of those of its file name it is, in link order, and how many there are."""
        build = self._build
        tree = build.tree(SINGLE_OBJECT)
        units = build.units() if SINGLE_OBJECT not in build.names else tree.units() if tree is not None else []
        ranks = {}
        for unit in units:
            same: dict[str, list[str]] = defaultdict(list)
            for name in unit.objects:
                same[name.rpartition("/")[2]].append(name)
            for names in same.values():
                ranks.update({(unit.name, name): (rank, len(names)) for rank, name in enumerate(names)})
        return ranks
