# SPDX-License-Identifier: GPL-2.0-only
"""Which parts belong to which function, and which symbols share a name.

GCC splits what is rarely run into `foo.cold`; that is `foo`. Padding before a function has a symbol of its own in
some configurations (`__pfx_foo`, objtool --prefix) and so has Clang's type hash (`__cfi_foo`); both are `foo`.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from dataclasses import dataclass

import numpy as np

from kbuild_klp.canonical import CanonicalObject, PartKind
from kbuild_klp.elf import constants as elf
from kbuild_klp.elf.reader import ObjectFile
from kbuild_klp.names import canonical_name, may_be_numbered

_COLD = re.compile(r"(.+)\.cold(?:\.\d+)?$")
_SPLIT_PREFIXES = ("__pfx_", "__cfi_")
_PREFIX = re.compile(r"__(?:pfx|cfi)_(.+)$")


class SourceFiles:
    """The STT_FILE symbols of an object; local symbols belong to the one before them."""

    def __init__(self, obj: ObjectFile) -> None:
        self._index = np.flatnonzero(obj.symbols["info"] & 0xF == elf.STT_FILE).tolist()
        self._names = [obj.symbol_name(index) for index in self._index]
        self.many = len(self._index) > 1
        """True for an object linked from several sources, whose local names are only unique by file."""

    def position(self, symbol: int) -> int:
        """Return the number of the file of ``symbol``, 0 for symbols before the first."""
        return bisect_left(self._index, symbol)

    def name(self, symbol: int) -> str:
        """Return the name of the file of ``symbol``, empty for symbols before the first."""
        at = bisect_left(self._index, symbol)
        return self._names[at - 1] if at else ""


@dataclass(frozen=True)
class Families:
    """``parent`` and ``children`` by part; ``numbered``: canonical name of each local symbol that had a number."""

    parent: dict[int, int]
    children: dict[int, list[int]]
    numbered: dict[int, str]
    files: SourceFiles


def find_families(canonical: CanonicalObject) -> Families:
    """Find split-off parts and numbered names of an object."""
    obj, parts, chunks = canonical.object, canonical.parts, canonical.chunks
    files = SourceFiles(obj)
    if not len(chunks.start):
        return Families({}, {}, {}, files)
    names = canonical.names
    local = (obj.symbols["info"][chunks.symbols] >> 4 == elf.STB_LOCAL).tolist()
    chunk_of = np.repeat(np.arange(len(chunks.start)), np.diff(chunks.first)).tolist()
    code_end = canonical.image.code_end
    in_code = int(np.searchsorted(chunks.start, code_end))  # machine code lies first in the image

    numbered: dict[int, str] = {}
    split: list[tuple[int, int, str]] = []
    by_content = (parts.kind == PartKind.CONTENT)[np.argsort(parts.chunk, kind="stable")[-len(chunks.start) :]]
    for at, name in enumerate(names):
        if not (may_be_numbered(name) or name.startswith(_SPLIT_PREFIXES)):
            continue
        form = canonical_name(name)
        if form.numbered and local[at] and not by_content[chunk_of[at]]:
            numbered[int(chunks.symbols[at])] = form.text
        if chunk_of[at] < in_code and (".cold" in name or name.startswith(_SPLIT_PREFIXES)):
            split.append((chunk_of[at], int(chunks.symbols[at]), name))
    parent: dict[int, int] = {}
    children: dict[int, list[int]] = {}
    if split:
        part_of = np.empty(len(chunks.start), np.int64)
        has_chunk = np.flatnonzero(parts.chunk >= 0)
        part_of[parts.chunk[has_chunk]] = has_chunk
        named: dict[tuple[int, str], int] = {}
        for at in range(int(chunks.first[in_code])):
            symbol = int(chunks.symbols[at])
            named[files.position(symbol) if local[at] and files.many else 0, names[at]] = chunk_of[at]
        for chunk, symbol, name in split:
            match = _COLD.match(name) or _PREFIX.match(name)
            if match is None:
                continue
            file = files.position(symbol) if files.many else 0
            owner = named.get((file, match[1]), named.get((0, match[1])))
            part = int(part_of[chunk])
            if owner is not None and owner != chunk and part not in parent:
                parent[part] = int(part_of[owner])
                children.setdefault(parent[part], []).append(part)
    return Families(parent, children, numbered, files)
