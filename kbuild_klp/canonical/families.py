# SPDX-License-Identifier: GPL-2.0-only
"""Which parts belong to which function, and which symbols share a name.

GCC splits what is rarely run into `foo.cold`; that is `foo`. Padding before a function has a symbol of its own in
some configurations (`__pfx_foo`, objtool --prefix) and so has Clang's type hash (`__cfi_foo`); both are `foo`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from kbuild_klp.canonical import CanonicalObject
from kbuild_klp.canonical.parts import CONTENT
from kbuild_klp.elf import constants as elf
from kbuild_klp.elf.reader import ObjectFile

_COLD = re.compile(r"(.+)\.cold(?:\.\d+)?$")
_PREFIX = re.compile(r"__(?:pfx|cfi)_(.+)$")


class SourceFiles:
    """The STT_FILE symbols of an object; local symbols belong to the one before them."""

    def __init__(self, obj: ObjectFile) -> None:
        index = (obj.symbols["info"] & 0xF == elf.STT_FILE).nonzero()[0]
        self._names = ["", *map(obj.symbol_name, index.tolist())]
        self.many = len(index) > 1
        """True for an object linked from several sources, whose local names are only unique by file."""
        self._position: list[int] = np.searchsorted(index, np.arange(len(obj.symbols))).tolist() if self.many else []

    def position(self, symbol: int) -> int:
        """Return the number of the file of ``symbol``, 0 for symbols before the first; only where there are many."""
        return self._position[symbol]

    def name(self, symbol: int) -> str:
        """Return the name of the file of ``symbol``, empty for symbols before the first; only where there are many."""
        return self._names[self._position[symbol]]


@dataclass(frozen=True)
class Families:
    """``parent`` and ``children`` by part; ``numbered``: canonical name of each local symbol that had a number."""

    parent: dict[int, int]
    children: dict[int, list[int]]
    numbered: dict[int, str]
    files: SourceFiles


def _split_candidates(canonical: CanonicalObject) -> list[int]:
    """Return the positions in ``names`` of the few that can be those of split-off parts, in order."""
    obj = canonical.object
    strings = np.frombuffer(obj.symbol_strings + bytes(4), np.uint8)
    offset = obj.symbols["name"][canonical.chunks.symbols].astype(np.int64)
    # __pfx_ and __cfi_, by three of their bytes.
    third, fourth = strings[offset + 2], strings[offset + 3]
    prefixed = (strings[offset] == ord("_")) & (
        ((third == ord("p")) & (fourth == ord("f"))) | ((third == ord("c")) & (fourth == ord("f")))
    )
    cold = [at for at in canonical.dotted if ".cold" in canonical.names[at]]
    return sorted({*prefixed.nonzero()[0].tolist(), *cold})


def find_families(canonical: CanonicalObject) -> Families:
    """Find split-off parts and numbered names of an object."""
    obj, parts, chunks = canonical.object, canonical.parts, canonical.chunks
    files = SourceFiles(obj)
    if not len(chunks.start):
        return Families({}, {}, {}, files)
    names = canonical.names
    symbols: list[int] = chunks.symbols.tolist()
    local: list[bool] = (obj.symbols["info"][chunks.symbols] >> 4 == elf.STB_LOCAL).tolist()
    part_of = np.empty(len(chunks.start), np.int64)
    has_chunk = (parts.chunk >= 0).nonzero()[0]
    part_of[parts.chunk[has_chunk]] = has_chunk
    by_content = parts.kind[part_of] == CONTENT
    chunk_of = np.repeat(np.arange(len(chunks.start)), chunks.first[1:] - chunks.first[:-1])

    numbered = {symbols[at]: form.text for at, form in canonical.numbered if local[at] and not by_content[chunk_of[at]]}
    # Machine code lies first in the image.
    in_code = int(chunks.first[np.searchsorted(chunks.start, canonical.image.code_end)])
    split = [
        (at, match[1])
        for at in _split_candidates(canonical)
        if at < in_code and (match := _PREFIX.match(names[at]) or _COLD.match(names[at]))
    ]

    def is_same_file(one: int, other: int) -> bool:
        return not files.many or not local[other] or files.position(symbols[one]) == files.position(symbols[other])

    parent: dict[int, int] = {}
    chunk = chunk_of[[at for at, _ in split]] if split else chunk_of[:0]
    own, behind = part_of[chunk].tolist(), part_of[np.minimum(chunk + 1, len(part_of) - 1)].tolist()
    heads = chunks.first[chunk + 1].tolist()
    rest = []
    for (at, name), part, following, head in zip(split, own, behind, heads, strict=True):
        # Padding stands right before its function; .cold is elsewhere.
        if head < in_code and names[head] == name and is_same_file(at, head):
            parent.setdefault(part, following)
        else:
            rest.append((at, name, part))
    wanted = {name for _, name, _ in rest}
    named: dict[tuple[int, str], int] = {}
    for at in (at for at, name in enumerate(names[:in_code]) if name in wanted) if wanted else ():
        named[files.position(symbols[at]) if local[at] and files.many else 0, names[at]] = int(part_of[chunk_of[at]])
    for at, name, part in rest:
        file = files.position(symbols[at]) if files.many else 0
        owner = named.get((file, name), named.get((0, name)))
        if owner is not None and owner != part:
            parent.setdefault(part, owner)
    children: dict[int, list[int]] = {}
    for part, owner in parent.items():
        while owner in parent:  # the padding before a .cold
            owner = parent[owner]
        parent[part] = owner
        children.setdefault(owner, []).append(part)
    return Families(parent, children, numbered, files)
