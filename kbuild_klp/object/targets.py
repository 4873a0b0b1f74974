# SPDX-License-Identifier: GPL-2.0-only
"""What each reference means: a name and an offset, or content and an offset."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kbuild_klp.elf import constants as elf
from kbuild_klp.object.chunks import Chunks
from kbuild_klp.object.image import Image
from kbuild_klp.object.parts import CONTENT, FILLER, NAMED, OWNED, Parts
from kbuild_klp.object.references import References


@dataclass(frozen=True)
class Targets:
    """The meaning of each reference, one row a reference.

    ``part`` is the part referred to, -1 when the target is not in the image; ``symbol`` the symbol whose name stands
    for the target, -1 when it is known by content (then ``part`` says by which) or only by its section (``section``,
    for addresses outside of everything); ``offset`` is counted from the symbol, or from the start of the part.
    """

    part: NDArray[np.int64]
    symbol: NDArray[np.int64]
    section: NDArray[np.int64]
    offset: NDArray[np.int64]


def _is_proper(image: Image) -> NDArray[np.bool_]:
    """Say which symbols have a name that means something: no sections, no labels of the assembler."""
    obj = image.object
    kind = obj.symbols["info"] & 0xF
    strings = np.frombuffer(obj.symbol_strings + b"\0\0", np.uint8)
    name = np.minimum(obj.symbols["name"].astype(np.int64), len(strings) - 2)
    label = (strings[name] == ord(".")) & (strings[name + 1] == ord("L"))
    nameless = strings[name] == 0
    return np.asarray((kind != elf.STT_SECTION) & ~label & ~nameless)


def _sorted_unique(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Do what np.unique does, which builds a hash table first."""
    values = np.sort(values)
    is_first = np.ones(len(values), bool)
    is_first[1:] = values[1:] != values[:-1]
    return values[is_first]


def nameless_targets(image: Image, references: References) -> NDArray[np.int64]:
    """Return the addresses inside the image, sorted, to which something refers without naming a symbol of its own.

    An entry of a special section says where in a piece of code something is done (a LOCK prefix in the middle of an
    alternative's replacement): that is no new piece.
    """
    is_bare = (references.target >= 0) & ~_is_proper(image)[references.symbol]
    for index, table in image.owned.items():
        low, high = np.searchsorted(references.place, [image.base[index], image.end(index)]).tolist()
        field = (references.place[low:high] - image.base[index]) % table.entry_size
        is_bare[low:high] &= field != table.row.owner
    bare = is_bare.nonzero()[0]
    target, section = references.target[bare], references.section[bare]
    start = image.base[section]
    end = start + image.object.sections["size"][section].astype(np.int64)
    target = target[(target >= start) & (target <= end)]
    # Sorting by counting, unless .bss makes the address line much longer than there are targets.
    size = int(image.starts[-1] + image.sizes[-1]) + 1 if len(image.starts) else 0
    if size > 64 * len(target):
        return _sorted_unique(target)
    seen = np.zeros(size, bool)
    seen[target] = True
    return seen.nonzero()[0]


def _parts_of_symbols(image: Image, parts: Parts) -> NDArray[np.int64]:
    """Return the part in which each symbol lies, 0 for those outside of the image: they are fewer than references."""
    shndx = image.object.shndx
    base = image.base[np.maximum(shndx, 0)]
    address = np.where((shndx > 0) & (base >= 0), base + image.object.symbols["value"].astype(np.int64), 0)
    return np.clip(parts.at(address), 0, None)


def find_targets(image: Image, chunks: Chunks, parts: Parts, references: References) -> Targets:
    """Give each reference its meaning."""
    proper = _is_proper(image)[references.symbol]
    internal = references.section >= 0
    count = len(references.place)
    part = np.full(count, -1, np.int64)
    symbol = np.where(internal, -1, references.symbol)
    section = np.full(count, -1, np.int64)
    offset = references.addend.copy()
    if not len(parts.start):
        return Targets(part, symbol, section, offset)

    # A named target lies where its symbol lies, however far the addend goes.
    named = internal & proper
    address = np.where(named, references.target - references.addend, references.target)
    at = _parts_of_symbols(image, parts)[references.symbol]
    nameless = (internal & ~proper).nonzero()[0]
    at[nameless] = np.clip(parts.at(address[nameless]), 0, None)
    start = image.base[references.section]
    end = start + image.object.sections["size"][references.section].astype(np.int64)
    outside = internal & ((address < start) | (address > end) | (parts.section[at] != references.section))
    section[outside] = references.section[outside]
    offset[outside] = (references.target - start)[outside]

    known = internal & ~outside
    filler = known & (parts.kind[at] == FILLER)
    for i in filler.nonzero()[0].tolist():
        at[i] = _beside_filler(parts, int(at[i]), int(address[i]), image.code_end)
    part[known] = at[known]
    offset[known] = (references.target - parts.start[at])[known]

    kind = parts.kind[at]
    # A global label in a nameless table is known by its name: the linker goes by that.
    is_global = image.object.symbols["info"][references.symbol] >> 4 != elf.STB_LOCAL
    by_name = known & ((kind == NAMED) | (named & is_global & (kind == CONTENT)))
    symbol[by_name] = references.symbol[by_name]
    if len(chunks.start):
        first = chunks.symbols[chunks.first[np.maximum(parts.chunk, 0)]]
        bare = (by_name & ~named).nonzero()[0]
        symbol[bare] = first[at[bare]]
    own = by_name & named
    offset[own] = references.addend[own]
    owned = known & ((kind == OWNED) | (kind == FILLER))
    section[owned] = references.section[owned]
    return Targets(part, symbol, section, offset)


def _beside_filler(parts: Parts, index: int, address: int, code_end: int) -> int:
    """Return the part by which an address in padding is known: the one that ends there, or the one behind it.

    Padding in code belongs to the function behind it, for which it was made (-fpatchable-function-entry=N,M); where
    padding in data begins is one past the end of what stands before it.
    """
    last = len(parts.start) - 1
    before, behind = max(index - 1, 0), min(index + 1, last)
    same_before = parts.section[before] == parts.section[index] and before != index
    same_behind = parts.section[behind] == parts.section[index] and behind != index
    is_end = address == parts.start[index] and address >= code_end
    if same_before and (is_end or not same_behind):
        return before
    return behind if same_behind else index
