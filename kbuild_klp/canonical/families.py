# SPDX-License-Identifier: GPL-2.0-only
"""Which parts belong to which function, and which symbols share a name.

GCC splits what is rarely run into `foo.cold`; that is `foo`. Padding before a function has a symbol of its own in
some configurations (`__pfx_foo`, objtool --prefix) and so has Clang's type hash (`__cfi_foo`); both are `foo`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from kbuild_klp.canonical import CanonicalObject
from kbuild_klp.canonical.parts import CONTENT
from kbuild_klp.elf import constants as elf
from kbuild_klp.elf.reader import ObjectFile

_COLD = re.compile(r"(.+)\.cold(?:\.\d+)?$")
_PREFIXES = ("__pfx_", "__cfi_")
_PREFIX_LENGTH = 6


class SourceFiles:
    """The STT_FILE symbols of an object; local symbols belong to the one before them."""

    def __init__(self, obj: ObjectFile) -> None:
        index = (obj.symbols["info"] & 0xF == elf.STT_FILE).nonzero()[0]
        self._names = ["", *map(obj.symbol_name, index.tolist())]
        self.many = len(index) > 1
        """True for an object linked from several sources, whose local names are only unique by file."""
        self._first = index
        self._labels: dict[str, list[str]] = {}

    def position(self, symbols: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the number of the file of each symbol, 0 for symbols before the first."""
        return np.searchsorted(self._first, symbols)

    def name(self, symbol: int) -> str:
        """Return the name of the file of ``symbol``, empty for symbols before the first."""
        return self._names[int(np.searchsorted(self._first, symbol))]

    def labels(self, symbols: NDArray[np.int64], wanted: NDArray[np.bool_], form: str) -> list[str]:
        """Return, for each symbol, the name of its file put into ``form``; nothing where it is not ``wanted``."""
        labels = self._labels.get(form)
        if labels is None:
            labels = self._labels[form] = ["", *map(form.format, self._names)]
        return list(map(labels.__getitem__, np.where(wanted, self.position(symbols) + 1, 0).tolist()))


@dataclass(frozen=True)
class Families:
    """``parent`` of split-off parts, by part; ``numbered``: canonical name of each local symbol that had a number.

    Those without bytes are not among them: which of two such keys is meant, means nothing.
    """

    parent: dict[int, int]
    numbered: dict[int, str]
    files: SourceFiles

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
    files = SourceFiles(obj)
    if not len(chunks.start):
        return Families({}, {}, files)
    names = canonical.names
    part_of = np.empty(len(chunks.start), np.int64)
    has_chunk = (parts.chunk >= 0).nonzero()[0]
    part_of[parts.chunk[has_chunk]] = has_chunk
    part_of = np.repeat(part_of, chunks.first[1:] - chunks.first[:-1])  # of each symbol
    is_local = obj.symbols["info"][chunks.symbols] >> 4 == elf.STB_LOCAL

    numbered: dict[int, str] = {}
    if canonical.numbered:
        at = np.array([at for at, _ in canonical.numbered])
        counts = is_local[at] & (parts.kind[part_of[at]] != CONTENT)
        numbered = {
            symbol: form.text
            for symbol, (_, form), is_one in zip(
                chunks.symbols[at].tolist(), canonical.numbered, counts.tolist(), strict=True
            )
            if is_one and symbol not in canonical.image.empty_variables
        }
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
    return Families(parent, numbered, files)


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
