# SPDX-License-Identifier: GPL-2.0-only
"""Of which source a symbol is, and what tells it from all others of its object."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from kbuild_klp.elf import constants as elf
from kbuild_klp.elf.objects import Objects
from kbuild_klp.elf.reader import ObjectFile
from kbuild_klp.object.runs import sorted_unique
from kbuild_klp.object.symbol_id import SymbolId

_FACTOR = np.uint64(0x9E3779B97F4A7C15)

NO_HOME = ("", 1)
"""File and source of a global symbol, and of all symbols of an object that is of one source."""


class Sources:
    """The sources that the objects of a batch are of: local symbols belong to the STT_FILE symbol before them."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        files = (objects.symbols["info"] & 0xF == elf.STT_FILE).nonzero()[0]
        # What stands before the first one is of no file; above all not of the last one of the object before.
        self._marks = sorted_unique(np.concatenate([files, objects.first_symbol[:-1]]))
        number = objects.object_of_symbols(self._marks)
        has_many = np.bincount(objects.object_of_symbols(files), minlength=len(objects.files)) > 1
        self._has_many = has_many[number]
        # An object of one source has one namespace, wherever its STT_FILE symbol stands.
        first = np.searchsorted(self._marks, objects.first_symbol[:-1])[number]
        self._namespace = np.where(self._has_many, np.arange(len(number)), first)
        self.files = objects.names_of(self._marks.tolist())
        """The name of each source; empty for what is before all."""
        self._numbers = number.tolist()

    def position(self, symbols: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the number of the source of each symbol, as if all were local."""
        return self._namespace[np.searchsorted(self._marks, symbols, "right") - 1]

    def home(self, symbols: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the index into ``homes`` of each symbol; -1 stands for NO_HOME, which is their last."""
        position = self.position(symbols)
        is_local = self._objects.symbols["info"][symbols] >> 4 == elf.STB_LOCAL
        return np.where(is_local & self._has_many[position], position, -1)

    @cached_property
    def homes(self) -> list[tuple[str, int]]:
        """Each file with the how manieth of its name in its object it is."""
        counts: Counter[tuple[int, str]] = Counter()
        result = []
        for number, name in zip(self._numbers, self.files, strict=True):
            counts[number, name] += 1
            result.append((name, counts[number, name]))
        return [*result, NO_HOME]

    @cached_property
    def twins(self) -> dict[int, tuple[int, str]]:
        """The symbols (no sections, no files) that share their name with others of their object: object and name."""
        objects = self._objects
        kind = objects.symbols["info"] & 0xF
        named = ((kind != elf.STT_SECTION) & (kind != elf.STT_FILE) & (objects.symbols["name"] != 0)).nonzero()[0]
        # Names that are equal are as long, and begin and end with the same letters: few others do.
        looks = objects.looks[named]
        looks += objects.object_of_symbols(named).astype(np.uint64) * _FACTOR
        order = np.argsort(looks)
        is_alike = np.zeros(len(named) + 1, bool)
        is_alike[1:-1] = looks[order[1:]] == looks[order[:-1]]
        maybe = np.sort(named[order[is_alike[1:] | is_alike[:-1]]])
        numbers, names = objects.object_of_symbols(maybe).tolist(), objects.names_of(maybe.tolist())
        keys = list(zip(numbers, names, strict=True))
        counts = Counter(keys)
        return {symbol: key for symbol, key in zip(maybe.tolist(), keys, strict=True) if counts[key] > 1}

    @cached_property
    def copies(self) -> dict[int, int]:
        """The symbols that are not the first of their name and source: which one each is."""
        homes = self.home(np.array([*self.twins], np.int64)).tolist()
        counts: Counter[tuple[int, tuple[int, str]]] = Counter()
        result = {}
        for (symbol, name), home in zip(self.twins.items(), homes, strict=True):
            counts[home, name] += 1
            if counts[home, name] > 1:
                result[symbol] = counts[home, name]
        return result

    def home_of(self, symbol: int) -> int:
        """Return the index into ``homes`` of one symbol, as `home`."""
        position = int(self._namespace[np.searchsorted(self._marks, symbol, "right") - 1])
        is_local = self._objects.symbols["info"][symbol] >> 4 == elf.STB_LOCAL
        return position if is_local and self._has_many[position] else -1

    def id_of(self, symbol: int) -> SymbolId:
        """Return which symbol of its object one is."""
        file, source = self.homes[self.home_of(symbol)]
        return SymbolId(self._objects.symbol_name(symbol), file, source, self.copies.get(symbol, 1))

    def ids(self, symbols: NDArray[np.int64]) -> list[SymbolId]:
        """Return which symbol of its object each is."""
        listed, copies, homes = symbols.tolist(), self.copies, self.homes
        rows = zip(self._objects.names_of(listed), self.home(symbols).tolist(), listed, strict=True)
        return [SymbolId(name, homes[home][0], homes[home][1], copies.get(symbol, 1)) for name, home, symbol in rows]


def defined_symbols(files: Sequence[ObjectFile], names: Iterable[str]) -> Iterator[tuple[int, str, str]]:
    """Yield where objects of one machine define symbols of some names: object, name, and the STT_FILE symbol before it.

    Global symbols have none, nor have local ones that stand before the first of their object.
    """
    objects = Objects(files)
    encoded = {name.encode("utf-8", "surrogateescape"): name for name in names}
    found = objects.named(encoded)
    symbols = np.array([symbol for symbol, _ in found], np.int64)
    info = objects.symbols["info"]
    kind = info & 0xF
    marks = np.append((kind == elf.STT_FILE).nonzero()[0], len(kind))
    number = objects.object_of_symbols(symbols)
    mark = marks[np.searchsorted(marks, symbols) - 1]
    is_of_file = (info[symbols] >> 4 == elf.STB_LOCAL) & (mark < symbols) & (mark >= objects.first_symbol[number])
    kinds, shndx = kind[symbols], objects.shndx[symbols]
    is_defined = (kinds != elf.STT_SECTION) & (kinds != elf.STT_FILE) & (shndx != 0)
    rows = zip(found, number.tolist(), mark.tolist(), is_of_file.tolist(), is_defined.tolist(), strict=True)
    for (_, name), at, file, is_local, defined in rows:
        if defined:
            yield at, encoded[name], objects.encoded_name(file).decode("utf-8", "surrogateescape") if is_local else ""
