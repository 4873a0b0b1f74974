# SPDX-License-Identifier: GPL-2.0-only
"""What each reference means: a name and an offset, or content and an offset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kbuild_klp.elf import constants as elf
from kbuild_klp.object.chunks import Chunks
from kbuild_klp.object.image import Image
from kbuild_klp.object.parts import CONTENT, FILLER, NAMED, OWNED, STRINGS, Parts
from kbuild_klp.object.references import References, far_by, symbol_addresses
from kbuild_klp.object.runs import Numbers, run_rows, sorted_unique
from kbuild_klp.object.special_groups import SpecialGroup


@dataclass(frozen=True)
class Targets:
    """The meaning of each reference, one row a reference.

    ``part`` is the part referred to, -1 when the target is not in the image; ``symbol`` the symbol whose name stands
    for the target, -1 when it is known by content (then ``part`` says by which) or only by its section (``section``,
    for addresses outside of everything); ``offset`` is counted from the symbol, or from the start of the part, and 0
    for a string, which is known by its text from there on.
    """

    part: NDArray[np.int32]
    symbol: NDArray[np.int32]
    section: NDArray[np.int32]
    offset: Numbers

    @property
    def is_content(self) -> NDArray[np.bool_]:
        """Whether each reference is known by what it refers to."""
        return (self.symbol < 0) & (self.section < 0)


class EntryRows(NamedTuple):
    """The references in the tables of a group: ``rows`` of References, ``entry`` (counted over all tables of the group
    in order) and ``field``, the place in it in bytes; ``is_owner`` marks those that say whom the entry belongs to.
    """

    rows: NDArray[np.int64]
    entry: NDArray[np.int64]
    field: NDArray[np.int64]
    is_owner: NDArray[np.bool_]


def rows_of_group(image: Image, group: SpecialGroup, references: References) -> EntryRows:
    """Return the references that stand in the sections of a group of special tables."""
    start = image.base[group.sections]
    low = np.searchsorted(references.place, start)
    counts = np.searchsorted(references.place, image.end[group.sections]) - low
    rows = run_rows(low, counts)
    offset = references.place[rows] - np.repeat(start, counts)
    if group.cuts is not None:
        entry = np.searchsorted(group.cuts.start, offset, "right") - 1
        return EntryRows(rows, entry, offset - group.cuts.start[entry], np.isin(offset, group.cuts.owner))
    entry, field = np.divmod(offset, group.entry_size)
    entries = group.entry_counts(image.objects)
    entry = entry + np.repeat(np.cumsum(entries) - entries, counts)
    return EntryRows(rows, entry, field, field == group.row.owner)


def _is_proper(image: Image) -> NDArray[np.bool_]:
    """Say which symbols have a name that means something: no sections, no labels of the assembler."""
    kind = image.objects.symbols["info"] & 0xF
    first, second = image.objects.first_letters.T
    label = (first == ord(".")) & (second == ord("L"))
    return np.asarray((kind != elf.STT_SECTION) & ~label & (first != 0))


def count_from_entries(image: Image, references: References) -> None:
    """Take off the references that count from the start of their entry how far behind that they stand."""
    for group in image.owned:
        if group.row.from_entry:
            found = rows_of_group(image, group, references)
            is_counted = np.isin(found.field, list(group.row.from_entry))
            rows, distance = found.rows[is_counted], found.field[is_counted]
            references.addend[rows] -= distance.astype(references.addend.dtype)
            inner = references.section[rows] >= 0
            references.target[rows[inner]] -= distance[inner].astype(references.target.dtype)


def nameless_targets(image: Image, references: References) -> Numbers:
    """Return the addresses inside the image, sorted, to which something refers without naming a symbol of its own.

    An entry of a special section says where in a piece of code something is done (a LOCK prefix in the middle of an
    alternative's replacement): that is no new piece.
    """
    is_bare = (references.target >= 0) & ~_is_proper(image)[references.symbol]
    for group in image.owned:
        found = rows_of_group(image, group, references)
        is_bare[found.rows[found.is_owner]] = False
    bare = is_bare.nonzero()[0]
    target, section = references.target[bare], references.section[bare]
    return sorted_unique(target[(target >= image.base[section]) & (target <= image.end[section])])


def find_targets(image: Image, chunks: Chunks, parts: Parts, references: References) -> Targets:
    """Give each reference its meaning."""
    # What arrays are indexed by, as numpy wants it: it would make the same of 32 bits each time.
    symbols, sections = references.symbol.astype(np.intp), references.section.astype(np.intp)
    proper = _is_proper(image)[symbols]
    internal = sections >= 0
    count = len(references.place)
    part = np.full(count, -1, np.int32)
    symbol = np.where(internal, np.int32(-1), references.symbol).astype(np.int32, copy=False)
    section = np.full(count, -1, np.int32)
    offset = references.addend.copy()
    if not len(parts.start):
        return Targets(part, symbol, section, offset)

    # A named target lies where its symbol lies, however far the addend goes; symbols are fewer than references.
    named = internal & proper
    of_symbols = symbol_addresses(image)
    address = np.where(named, of_symbols[symbols], references.target)
    at = np.maximum(parts.at(of_symbols), 0)[symbols]
    nameless = (internal & ~proper).nonzero()[0]
    at[nameless] = np.maximum(parts.at(address[nameless]), 0)
    start = image.base[sections]
    is_outside = (address < start) | (address > image.end[sections])
    is_outside |= parts.section[at] != references.section
    outside = (internal & is_outside).nonzero()[0]
    section[outside] = references.section[outside]
    offset[outside] = references.target[outside] - start[outside]

    known = internal & ~is_outside
    in_filler = (known & (parts.kind[at] == FILLER)).nonzero()[0]
    at[in_filler] = _beside_filler(parts, at[in_filler], address[in_filler], image.code_end)
    np.copyto(part, at, where=known, casting="same_kind")
    np.copyto(offset, references.target - parts.start[at], where=known)

    kind = parts.kind[at]
    # A global label in a nameless table is known by its name: the linker goes by that.
    is_global = (image.objects.symbols["info"] >> 4 != elf.STB_LOCAL)[symbols]
    by_name = known & ((kind == NAMED) | (named & is_global & (kind == CONTENT)))
    np.copyto(symbol, references.symbol, where=by_name)
    if len(chunks.start):
        bare = (by_name & ~named).nonzero()[0]
        symbol[bare] = chunks.heads[np.maximum(parts.chunk[at[bare]], 0)]
    np.copyto(offset, references.addend, where=by_name & named)
    far, distance = far_by(image, references)
    offset[far] += distance * ~(by_name & named)[far]
    np.copyto(section, references.section, where=known & ((kind == OWNED) | (kind == FILLER)))
    offset[known & (kind == STRINGS) & (symbol < 0) & (section < 0)] = 0
    return Targets(part, symbol, section, offset)


def _beside_filler(parts: Parts, index: NDArray[np.int32], address: Numbers, code_end: int) -> NDArray[np.integer[Any]]:
    """Return the parts by which addresses in padding are known: the one that ends there, or the one behind it.

    Padding in code belongs to the function behind it, for which it was made (-fpatchable-function-entry=N,M); where
    padding in data begins is one past the end of what stands before it.
    """
    before, behind = np.maximum(index - 1, 0), np.minimum(index + 1, len(parts.start) - 1)
    section = parts.section
    same_before = (section[before] == section[index]) & (before != index)
    same_behind = (section[behind] == section[index]) & (behind != index)
    is_end = (address == parts.start[index]) & (address >= code_end)
    return np.where(same_before & (is_end | ~same_behind), before, np.where(same_behind, behind, index))
