# SPDX-License-Identifier: GPL-2.0-only
"""Which parts belong to which function, and which symbols look alike.

GCC splits what is rarely run into `foo.cold`; that is `foo`. So are the pieces `foo.__part.1` into which Clang splits a
function by its basic blocks (-fbasic-block-sections, CONFIG_PROPELLER_CLANG). Padding before a function has a symbol of
its own in some configurations (`__pfx_foo`, objtool --prefix) and so has Clang's type hash (`__cfi_foo`); both are
`foo`.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from kbuild_klp.elf import constants as elf
from kbuild_klp.elf.symbol_names import CanonicalName, canonical_name
from kbuild_klp.object.chunks import Chunks
from kbuild_klp.object.image import Image
from kbuild_klp.object.parts import CONTENT, Parts
from kbuild_klp.object.symbol_sources import Sources

_SPLIT = re.compile(r"(.+)\.(?:cold(?:\.\d+)?|__part\.\d+)$")
_PREFIXES = ("__pfx_", "__cfi_")
_PREFIX_LENGTH = 6


@dataclass(frozen=True)
class Families:
    """``parent`` of split-off parts, by part; ``ambiguous``: the symbols whose names do not say which one is meant.

    Either a number of the compiler was in it, or several have it (of different sources); each with what they share.
    Those without bytes are not among them: which of two such keys is meant, means nothing.
    """

    parent: dict[int, int]
    ambiguous: dict[int, CanonicalName]

    @cached_property
    def children(self) -> dict[int, list[int]]:
        """The split-off parts of each part that has some."""
        children: dict[int, list[int]] = {}
        for part, owner in self.parent.items():
            children.setdefault(owner, []).append(part)
        return children


class _Symbols:
    """The symbols of the chunks, by position in ``chunks.symbols``.

    ``part`` is the part that each is of; ``home`` tells apart in which namespace it is: a source for a local one, else
    the object (negative); ``outer`` is the namespace of the object in any case.
    """

    def __init__(self, image: Image, chunks: Chunks, parts: Parts, sources: Sources, names: list[str]) -> None:
        self.image = image
        self.chunks = chunks
        self.parts = parts
        self.names = names
        part_of = np.empty(len(chunks.start), np.int64)
        has_chunk = (parts.chunk >= 0).nonzero()[0]
        part_of[parts.chunk[has_chunk]] = has_chunk
        self.part = np.repeat(part_of, np.diff(chunks.first))
        symbols = chunks.symbols
        self.is_local = image.objects.symbols["info"][symbols] >> 4 == elf.STB_LOCAL
        self.source = sources.position(symbols)
        self.outer = ~image.objects.object_of_symbols(symbols)
        self.home = np.where(self.is_local, self.source, self.outer)


def find_families(
    image: Image,
    chunks: Chunks,
    parts: Parts,
    sources: Sources,
    names: list[str],
    maybe: list[int],
    numbered: list[tuple[int, CanonicalName]],
) -> Families:
    """Find split-off parts, and the symbols that look alike.

    ``names`` are those of ``chunks.symbols``, ``maybe`` the positions in it of names that may have lost a number,
    ``numbered`` of those that did.
    """
    if not len(chunks.start):
        return Families({}, {})
    symbols = _Symbols(image, chunks, parts, sources, names)
    is_named = symbols.is_local & (parts.kind[symbols.part] != CONTENT)
    # Machine code lies first in the image.
    in_code = int(chunks.first[np.searchsorted(chunks.start, image.code_end)])
    parent: dict[int, int] = {}
    padding = _padding(symbols, in_code)
    pieces = [at for at in maybe if at < in_code and (".cold" in names[at] or ".__part." in names[at])]
    if len(padding) or pieces:
        rest = [*_take_padding(symbols, padding, in_code, parent), *pieces]
        split = [(at, name) for at in dict.fromkeys(rest) if (name := _parent_name(names[at]))]
        _find_parents(symbols, split, in_code, parent)
    for part in [part for part, owner in parent.items() if owner in parent]:  # the padding before a .cold
        while parent[part] in parent:
            parent[part] = parent[parent[part]]
    alike = _alike_without_hash(symbols, maybe)
    return Families(parent, alike | _ambiguous(symbols, is_named, sources, numbered))


def _alike_without_hash(symbols: _Symbols, maybe: list[int]) -> dict[int, CanonicalName]:
    """Return the symbols that share their names with others but for hashes of modules (foo.llvm.1, foo.llvm.2)."""
    names, outer = symbols.names, symbols.outer
    forms = {at: form for at in maybe if not (form := canonical_name(names[at])).numbered and form.text != names[at]}
    if not forms:
        return {}
    wanted = {form.text for form in forms.values()}
    forms |= {at: CanonicalName(name, False) for at, name in enumerate(names) if name in wanted}
    several = Counter((int(outer[at]), form.text) for at, form in forms.items())
    listed, kinds = symbols.chunks.symbols, symbols.parts.kind
    return {
        int(listed[at]): form
        for at, form in forms.items()
        if several[int(outer[at]), form.text] > 1 and kinds[symbols.part[at]] != CONTENT
    }


def _ambiguous(
    symbols: _Symbols, is_named: NDArray[np.bool_], sources: Sources, numbered: list[tuple[int, CanonicalName]]
) -> dict[int, CanonicalName]:
    """Return Families.ambiguous; ``is_named`` marks the local symbols that are known by name."""
    objects, empty = symbols.image.objects, symbols.image.empty_variables
    listed = symbols.chunks.symbols
    found = {int(listed[at]): form for at, form in numbered if is_named[at] and listed[at] not in empty}
    counts = objects.symbols["info"] >> 4 != elf.STB_LOCAL
    counts[listed[is_named]] = True
    twins = {symbol: key for symbol, key in sources.twins.items() if counts[symbol] and symbol not in empty}
    several = Counter(twins.values())
    for symbol, key in twins.items():
        if several[key] > 1 and symbol not in found:
            found[symbol] = CanonicalName(key[1], False)
    return found


# -- split-off parts --------------------------------------------------------------------------------------------------


def _padding(symbols: _Symbols, in_code: int) -> NDArray[np.int64]:
    """Return the positions of symbols before ``in_code`` whose name has one of _PREFIXES."""
    objects = symbols.image.objects
    strings = np.frombuffer(objects.strings + bytes(_PREFIX_LENGTH), np.uint8)
    offset = objects.symbols["name"][symbols.chunks.symbols[:in_code]].astype(np.int64)
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
    match = _SPLIT.match(name)
    return match[1] if match else ""


def _take_padding(symbols: _Symbols, padding: NDArray[np.int64], in_code: int, parent: dict[int, int]) -> list[int]:
    """Give padding, which stands right before its function, to it; returns what is still without a parent.

    ``padding`` has the positions of symbols. Of which source they are, their place in the symbol table does not say:
    objtool adds those of local functions behind all other local symbols (tools/objtool/elf.c: elf_create_symbol in 7.3,
    elf_create_prefix_symbol in 6.12).
    """
    chunks, names = symbols.chunks, symbols.names
    chunk = np.searchsorted(chunks.first, padding, "right") - 1
    behind = np.minimum(chunk + 1, len(chunks.start) - 1)
    head = chunks.first[behind]
    is_there = (chunks.end[chunk] == chunks.start[behind]) & (head < in_code)
    # Linkers let names share their ends: then __pfx_foo lies six bytes before foo, and nothing is to be compared.
    offset = symbols.image.objects.symbols["name"][chunks.symbols].astype(np.int64)
    is_same = is_there & (offset[head] == offset[padding] + _PREFIX_LENGTH)
    rest = (is_there & ~is_same).nonzero()[0]
    pairs = zip(padding[rest].tolist(), head[rest].tolist(), strict=True)
    is_same[rest] = [names[own][_PREFIX_LENGTH:] == names[behind] for own, behind in pairs]
    taken = padding[is_same]
    parent.update(zip(symbols.part[taken].tolist(), symbols.part[head[is_same]].tolist(), strict=True))
    left: list[int] = padding[~is_same].tolist()
    return left


def _find_parents(symbols: _Symbols, split: list[tuple[int, str]], in_code: int, parent: dict[int, int]) -> None:
    """Find the parents of split-off parts by name: in the same source first, else among global symbols."""
    wanted = {name for _, name in split}
    if not wanted:
        return
    names, part = symbols.names, symbols.part
    found = [at for at, name in enumerate(islice(names, in_code)) if name in wanted]
    keys = zip(symbols.home[found].tolist(), map(names.__getitem__, found), strict=True)
    named = dict(zip(keys, part[found].tolist(), strict=True))
    places = [at for at, _ in split]
    rows = zip(split, symbols.source[places].tolist(), symbols.outer[places].tolist(), strict=True)
    for (at, name), source, outer in rows:
        owner = named.get((source, name), named.get((outer, name)))
        if owner is not None and owner != part[at]:
            parent.setdefault(int(part[at]), owner)
