# SPDX-License-Identifier: GPL-2.0-only
"""Which parts belong to which function, and which symbols share a name.

GCC splits what is rarely run into `foo.cold`; that is `foo`. Padding before a function has a symbol of its own in
some configurations (`__pfx_foo`, objtool --prefix) and so has Clang's type hash (`__cfi_foo`); both are `foo`.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from kbuild_klp.elf import constants as elf
from kbuild_klp.elf.reader import ObjectFile
from kbuild_klp.elf.symbol_names import CanonicalName
from kbuild_klp.object.canonical import CanonicalObject
from kbuild_klp.object.parts import CONTENT
from kbuild_klp.object.symbol_id import SymbolId

_COLD = re.compile(r"(.+)\.cold(?:\.\d+)?$")
_PREFIXES = ("__pfx_", "__cfi_")
_PREFIX_LENGTH = 6


class FileSymbols:
    """The STT_FILE symbols of an object; local symbols belong to the one before them."""

    def __init__(self, obj: ObjectFile) -> None:
        self._object = obj
        index = (obj.symbols["info"] & 0xF == elf.STT_FILE).nonzero()[0]
        self._names = ["", *map(obj.symbol_name, index.tolist())]
        self.many = len(index) > 1
        """True for an object linked from several sources, whose local names are only unique by file."""
        self._first = index

    def position(self, symbols: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the number of the file of each symbol, 0 for symbols before the first."""
        return np.searchsorted(self._first, symbols)

    def name(self, symbol: int) -> str:
        """Return the name of the file of ``symbol``, empty for symbols before the first."""
        return self._names[int(np.searchsorted(self._first, symbol))]

    def homes(self, symbols: NDArray[np.int64]) -> list[tuple[str, int]]:
        """Return file and source of SymbolId for some symbols."""
        if not self.many:
            return [_NO_FILE] * len(symbols)
        is_local = self._object.symbols["info"][symbols] >> 4 == elf.STB_LOCAL
        where = np.where(is_local, self.position(symbols), -1)
        return list(map([*self._sources, _NO_FILE].__getitem__, where.tolist()))

    @cached_property
    def _sources(self) -> list[tuple[str, int]]:
        """Each file with the how manieth of its name it is."""
        counts: Counter[str] = Counter()
        result = []
        for name in self._names:
            counts[name] += 1
            result.append((name, counts[name]))
        return result

    @cached_property
    def _copies(self) -> dict[int, int]:
        """The symbols that are not the first of their name and file: which one each is."""
        obj = self._object
        kind = obj.symbols["info"] & 0xF
        named = (kind != elf.STT_SECTION) & (kind != elf.STT_FILE)
        symbols = named.nonzero()[0]
        listed = symbols.tolist()
        keys = list(zip(obj.symbol_names_of(listed), self.homes(symbols), strict=True))
        if len({*keys}) == len(keys):
            return {}
        counts: Counter[tuple[str, tuple[str, int]]] = Counter()
        result = {}
        for symbol, key in zip(listed, keys, strict=True):
            counts[key] += 1
            if counts[key] > 1:
                result[symbol] = counts[key]
        return result

    def ids(self, symbols: NDArray[np.int64]) -> list[SymbolId]:
        """Return which symbol of the object each is."""
        listed, copies = symbols.tolist(), self._copies
        rows = zip(self._object.symbol_names_of(listed), self.homes(symbols), listed, strict=True)
        return [SymbolId(name, *home, copies.get(symbol, 1)) for name, home, symbol in rows]


_NO_FILE = ("", 1)


@dataclass(frozen=True)
class Families:
    """``parent`` of split-off parts, by part; ``ambiguous``: the symbols whose names do not say which one is meant.

    Either a number of the compiler was in it, or several have it (of different sources); each with what they share.
    Those without bytes are not among them: which of two such keys is meant, means nothing.
    """

    parent: dict[int, int]
    ambiguous: dict[int, CanonicalName]
    files: FileSymbols

    @cached_property
    def children(self) -> dict[int, list[int]]:
        """The split-off parts of each part that has some."""
        children: dict[int, list[int]] = {}
        for part, owner in self.parent.items():
            children.setdefault(owner, []).append(part)
        return children


def _padding(canonical: CanonicalObject, in_code: int) -> NDArray[np.int64]:
    """Return the positions of symbols before ``in_code`` whose name has one of _PREFIXES."""
    obj = canonical.object
    strings = np.frombuffer(obj.symbol_strings + bytes(_PREFIX_LENGTH), np.uint8)
    offset = obj.symbols["name"][canonical.chunks.symbols[:in_code]].astype(np.int64)
    # By the byte of least company first.
    found: NDArray[np.int64] = (strings[offset + 3] == ord("f")).nonzero()[0]
    letters = strings[offset[found][:, None] + np.arange(_PREFIX_LENGTH)]
    is_prefix = np.zeros(len(found), bool)
    for prefix in _PREFIXES:
        is_prefix |= (letters == np.frombuffer(prefix.encode(), np.uint8)).all(axis=1)
    return found[is_prefix]


def _parent_name(name: str) -> str:
    """Return the name of the function of which ``name`` is a part, empty when it is none."""
    if name[:_PREFIX_LENGTH] in _PREFIXES:
        return name[_PREFIX_LENGTH:]
    match = _COLD.match(name)
    return match[1] if match else ""


def find_families(canonical: CanonicalObject) -> Families:
    """Find split-off parts and numbered names of an object."""
    obj, parts, chunks = canonical.object, canonical.parts, canonical.chunks
    files = FileSymbols(obj)
    if not len(chunks.start):
        return Families({}, {}, files)
    names = canonical.names
    part_of = np.empty(len(chunks.start), np.int64)
    has_chunk = (parts.chunk >= 0).nonzero()[0]
    part_of[parts.chunk[has_chunk]] = has_chunk
    part_of = np.repeat(part_of, chunks.first[1:] - chunks.first[:-1])  # of each symbol
    is_local = obj.symbols["info"][chunks.symbols] >> 4 == elf.STB_LOCAL

    ambiguous = _ambiguous(canonical, is_local, parts.kind[part_of] != CONTENT)
    # Machine code lies first in the image.
    in_code = int(chunks.first[np.searchsorted(chunks.start, canonical.image.code_end)])
    parent: dict[int, int] = {}
    padding = _padding(canonical, in_code)
    cold = [at for at in canonical.dotted if at < in_code and ".cold" in names[at]]
    if len(padding) or cold:
        # Numbers of files only matter where there are many; a global symbol is of none.
        file = files.position(chunks.symbols[:in_code]) if files.many else np.zeros(in_code, np.int64)
        own_file = np.where(is_local[:in_code], file, 0)
        rest = [*_take_padding(canonical, padding, part_of, file, own_file, parent), *cold]
        split = [(at, name) for at in dict.fromkeys(rest) if (name := _parent_name(names[at]))]
        _find_parents(names, split, part_of, file, own_file, parent)
    for part, owner in parent.items():
        while owner in parent:  # the padding before a .cold
            owner = parent[owner]
        parent[part] = owner
    return Families(parent, ambiguous, files)


def _ambiguous(
    canonical: CanonicalObject, is_local: NDArray[np.bool_], counts: NDArray[np.bool_]
) -> dict[int, CanonicalName]:
    """Return Families.ambiguous; ``is_local`` and ``counts`` (known by name) go by position in ``chunks.symbols``."""
    symbols, names = canonical.chunks.symbols, canonical.names
    empty = canonical.image.empty_variables
    found = {
        int(symbols[at]): form
        for at, form in canonical.numbered
        if is_local[at] and counts[at] and symbols[at] not in empty
    }
    obj = canonical.object
    outer = ((obj.symbols["info"] >> 4 != elf.STB_LOCAL) & (obj.symbols["name"] != 0)).nonzero()[0].tolist()
    own = (is_local & counts).nonzero()[0].tolist()
    all_names = [*obj.symbol_names_of(outer), *map(names.__getitem__, own)]
    if len({*all_names}) < len(all_names):
        several = Counter(all_names)
        rows = zip([*outer, *symbols[own].tolist()], all_names, strict=True)
        twins = {symbol: name for symbol, name in rows if several[name] > 1}
        found |= {
            symbol: CanonicalName(name, False) for symbol, name in twins.items() if symbol not in found | empty.keys()
        }
    return found


def _take_padding(
    canonical: CanonicalObject,
    padding: NDArray[np.int64],
    part_of: NDArray[np.int64],
    file: NDArray[np.int64],
    own_file: NDArray[np.int64],
    parent: dict[int, int],
) -> list[int]:
    """Give padding, which stands right before its function, to it; returns what is still without a parent.

    ``padding`` has the positions of symbols; ``file`` and ``own_file`` go by position.
    """
    chunks, names = canonical.chunks, canonical.names
    head = chunks.first[np.searchsorted(chunks.first, padding, "right")]  # of the chunk behind
    is_there = head < len(file)
    head = np.where(is_there, head, 0)
    is_there &= (own_file[head] == 0) | (own_file[head] == file[padding])
    # Linkers let names share their ends: then __pfx_foo lies six bytes before foo, and nothing is to be compared.
    offset = canonical.object.symbols["name"][chunks.symbols[: len(file)]].astype(np.int64)
    is_same = is_there & (offset[head] == offset[padding] + _PREFIX_LENGTH)
    for i in (is_there & ~is_same).nonzero()[0].tolist():
        is_same[i] = _parent_name(names[padding[i]]) == names[head[i]]
    taken = padding[is_same]
    parent.update(zip(part_of[taken].tolist(), part_of[head[is_same]].tolist(), strict=True))
    rest: list[int] = padding[~is_same].tolist()
    return rest


def _find_parents(
    names: list[str],
    split: list[tuple[int, str]],
    part_of: NDArray[np.int64],
    file: NDArray[np.int64],
    own_file: NDArray[np.int64],
    parent: dict[int, int],
) -> None:
    """Find the parents of split-off parts by name: in the same file first, else among global symbols."""
    wanted = {name for _, name in split}
    if not wanted:
        return
    found = [at for at in range(len(file)) if names[at] in wanted]
    keys = zip(own_file[found].tolist(), map(names.__getitem__, found), strict=True)
    named = dict(zip(keys, part_of[found].tolist(), strict=True))
    places = [at for at, _ in split]
    for (_, name), number, part in zip(split, file[places].tolist(), part_of[places].tolist(), strict=True):
        owner = named.get((number, name), named.get((0, name)))
        if owner is not None and owner != part:
            parent.setdefault(part, owner)
