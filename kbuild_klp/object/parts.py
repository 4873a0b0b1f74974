# SPDX-License-Identifier: GPL-2.0-only
"""The final partition of an object's bytes: every byte of the image lies in exactly one part.

Chunks become parts as they are. Gaps become filler (derived), strings, or anonymous pieces, which are cut where
something refers into them: what nobody can name is known by its content, and belongs to who uses it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kbuild_klp.elf import constants as elf
from kbuild_klp.elf.symbol_names import BTF_ID, CanonicalName
from kbuild_klp.object.chunks import Chunks, Gaps
from kbuild_klp.object.image import Image
from kbuild_klp.object.runs import Numbers, narrow, sorted_unique, with_end


class PartKind(enum.IntEnum):
    """How a part is known to those who refer to it."""

    FILLER = 0
    """NOPs, int3 or zeros up to the next symbol: in no checksum."""
    NAMED = 1
    """By its symbol's canonical name."""
    CONTENT = 2
    """By its content: the symbol's name is only a number of the compiler (CSWTCH.5, __func__.2)."""
    PIECE = 3
    """By its content: no symbol at all."""
    STRINGS = 4
    """Strings, each known by its text."""
    OWNED = 5
    """A table whose entries belong to others (special.toml)."""


# As plain numbers: numpy asks the class of a member of an enum for three attributes that it has not, each time that
# it compares something with one.
FILLER, NAMED, CONTENT, PIECE, STRINGS, OWNED = map(int, PartKind)

# Read-only data with a numbered name is always known by content, and so is Clang's of a function, where the number may
# be missing. These are writable, and yet mean nothing but what is in them: a rate limit's state
# (include/linux/ratelimit.h), dynamic debug descriptors, what has no name in LLVM.
_WRITABLE_CONTENT = frozenset({"_rs", "descriptor", "__UNIQUE_ID_ddebug", "__unnamed"})


@dataclass(frozen=True)
class Parts:
    """All parts, sorted by address, one array per column; ``chunk`` is the index of the chunk or -1."""

    start: Numbers
    end: Numbers
    section: Numbers
    kind: NDArray[np.int8]
    chunk: Numbers

    def at(self, address: Numbers) -> NDArray[np.int64]:
        """Return the index of the part in which (or at the end of which) each address lies."""
        return np.searchsorted(self.start, address, "right") - 1


def chunk_kinds(image: Image, chunks: Chunks, named: list[tuple[int, CanonicalName]]) -> NDArray[np.int8]:
    """Tell chunks known by name from those known by content.

    ``named`` are the positions in ``chunks.symbols`` of the names that the compiler made up (`is_made_up`), and what
    is left of them without numbers.
    """
    kinds = np.full(len(chunks.start), NAMED, np.int8)
    flags = image.objects.sections["flags"]
    info = image.objects.symbols["info"]
    if not named:
        return kinds
    at = np.array([at for at, _ in named])
    chunk = np.searchsorted(chunks.first, at, "right") - 1
    section = chunks.section[chunk]
    is_local = info[chunks.symbols[at]] >> 4 == elf.STB_LOCAL
    is_record = image.is_record[section]
    is_bare = np.array([name.text.rpartition(".")[2] in _WRITABLE_CONTENT for _, name in named])
    is_local &= np.array([not name.text.startswith(BTF_ID) for _, name in named])
    read_only, is_code = flags[section] & elf.SHF_WRITE == 0, flags[section] & elf.SHF_EXECINSTR != 0
    names_chunk = chunks.first[chunk] == at  # else it is an alias or an inner label
    kinds[chunk[names_chunk & is_local & ~is_code & (read_only | is_record | is_bare)]] = CONTENT
    return kinds


_SHORT = 16  # bytes that are compared at once


def code_filler(image: Image, gaps: Gaps) -> NDArray[np.bool_]:
    """Say which gaps in machine code are nothing but NOPs and int3, not relocated, and not all there is.

    A section of nothing but NOPs pads nothing: they may be an alternative's replacement.
    """
    result = np.zeros(len(gaps.start), bool)
    is_code = gaps.start < image.code_end
    has_relocation = np.searchsorted(image.places, gaps.start) != np.searchsorted(image.places, gaps.end)
    is_whole = gaps.end - gaps.start == image.objects.sections["size"][gaps.section].astype(np.int64)
    maybe = (is_code & ~has_relocation & ~is_whole).nonzero()[0]
    start, size = gaps.start[maybe], gaps.end[maybe] - gaps.start[maybe]
    # There are ten thousands of them, and hardly a hundred that are not equal.
    row = np.arange(_SHORT)
    heads = image.data[np.minimum(start[:, None] + row, len(image.data) - 1)] * (row < size[:, None]).astype(np.uint8)
    keys = np.column_stack([size, *np.ascontiguousarray(heads).view("<i8").T])
    keys[size > _SHORT, 1] = start[size > _SHORT]  # what is longer is equal to none
    order = np.lexsort(keys.T)
    is_first = np.ones(len(order), bool)
    is_first[1:] = (keys[order[1:]] != keys[order[:-1]]).any(axis=1)
    first = order[is_first]
    filler, ends = image.architecture.is_filler, (start + size)[first].tolist()
    found = [filler(bytes(image.buffer[low:high])) for low, high in zip(start[first].tolist(), ends, strict=True)]
    result[maybe[order]] = np.array(found, bool)[np.cumsum(is_first) - 1] if found else False
    return result


def data_filler(image: Image, chunks: Chunks, gaps: Gaps, targets: Numbers) -> NDArray[np.bool_]:
    """Say which gaps in data are alignment: zeros, fewer than the section's alignment, to which nobody refers.

    ``targets`` are the sorted linear addresses to which something refers that names no symbol.
    """
    headers = image.objects.sections
    result = np.zeros(len(gaps.start), bool)
    # A reference to the very start of a gap is one past the end of what stands before it.
    has_target = np.searchsorted(targets, gaps.start, "right") != np.searchsorted(targets, gaps.end)
    has_relocation = np.searchsorted(image.places, gaps.start) != np.searchsorted(image.places, gaps.end)
    no_content = headers["type"][gaps.section] == elf.SHT_NOBITS
    mergeable = (headers["flags"][gaps.section] & elf.SHF_MERGE) != 0
    short = gaps.end - gaps.start < np.maximum(headers["align"][gaps.section].astype(np.int64), 1)
    at_head = gaps.start == image.base[gaps.section]
    if at_head.any() and len(chunks.start):  # but for what aligns the second variable, behind one of no bytes
        heads = gaps.start[at_head]
        behind = np.minimum(np.searchsorted(chunks.start, heads), len(chunks.start) - 1)
        at_head[at_head] = chunks.start[behind] != heads
    quiet = (gaps.start >= image.code_end) & ~has_target & ~has_relocation & ~mergeable & ~at_head & short
    result[quiet & no_content] = True
    maybe = (quiet & ~no_content).nonzero()[0]
    starts, ends = gaps.start[maybe].tolist(), gaps.end[maybe].tolist()
    result[maybe] = [not any(image.buffer[start:end]) for start, end in zip(starts, ends, strict=True)]
    return result


def _aligned_heads(image: Image, gaps: Gaps, cut: Numbers, origin: Numbers, targets: Numbers) -> Numbers:
    """Return the gaps in data of which the first nameless thing is aligned, with zeros to which nobody refers.

    ``cut`` are the places (sorted) at which gaps are cut, ``origin`` the gap that each is in. There are fewer bytes of
    zeros than the power of two to which that thing is aligned.
    """
    if not len(cut):
        return cut
    gap, first = np.unique(origin, return_index=True)
    start, end, section = gaps.start[gap], cut[first], gaps.section[gap]
    headers = image.objects.sections
    alignment = np.int64(1) << np.ceil(np.log2(end - start + 1)).astype(np.int64)
    base = image.base[section]
    quiet = (start >= image.code_end) & (start != base) & ((end - base) % alignment == 0)
    quiet &= alignment <= headers["align"][section].astype(np.int64)
    quiet &= (headers["flags"][section] & elf.SHF_MERGE) == 0
    quiet &= np.searchsorted(targets, start) == np.searchsorted(targets, start, "right")
    quiet &= np.searchsorted(image.places, start) == np.searchsorted(image.places, end)
    maybe = quiet.nonzero()[0]
    rows = zip(start[maybe].tolist(), end[maybe].tolist(), (headers["type"][section[maybe]]).tolist(), strict=True)
    is_zero = [kind == elf.SHT_NOBITS or not any(image.buffer[low:high]) for low, high, kind in rows]
    found: Numbers = gap[maybe[np.array(is_zero, bool)]]
    return found


def _whole_constants(image: Image, gaps: Gaps, cut: Numbers) -> Numbers:
    """Return where to cut so that a constant (.rodata.cst*) stays whole: a place inside it is an offset in it."""
    headers = image.objects.sections
    gap = np.searchsorted(gaps.start, cut, "right") - 1
    section = gaps.section[gap]
    size = np.where(headers["flags"][section] & elf.SHF_MERGE != 0, headers["entsize"][section].astype(np.int64), 1)
    start = image.base[section]
    whole = cut - (cut - start) % np.maximum(size, 1)
    # The gap itself starts a piece already.
    return sorted_unique(whole[whole > gaps.start[gap]])


def build_parts(
    image: Image,
    chunks: Chunks,
    kinds: NDArray[np.int8],
    gaps: Gaps,
    filler: NDArray[np.bool_],
    targets: Numbers,
) -> Parts:
    """Put chunks, gaps (cut at ``targets``, sorted, each once) and owned tables into one sorted table."""
    headers = image.objects.sections
    gap_flags = headers["flags"][gaps.section]
    strings = ((gap_flags & elf.SHF_STRINGS) != 0) & (headers["entsize"][gaps.section] == 1)
    kind = np.where(filler, FILLER, np.where(strings, STRINGS, PIECE)).astype(np.int8)

    cut = gaps.start[:0]
    if len(gaps.start):
        gap = np.maximum(np.searchsorted(gaps.start, targets, "right") - 1, 0)
        is_inside = (kind[gap] == PIECE) & (gaps.start[gap] < targets) & (targets < gaps.end[gap])
        cut = _whole_constants(image, gaps, targets[is_inside])
    origin = np.searchsorted(gaps.start, cut, "right") - 1
    own_kind = kind.copy()
    own_kind[_aligned_heads(image, gaps, cut, origin, targets)] = FILLER

    owned = image.is_owned.nonzero()[0]
    start = np.concatenate([chunks.start, gaps.start, cut, image.base[owned]])
    section = np.concatenate([chunks.section, gaps.section, gaps.section[origin], owned])
    part_kind = np.concatenate([kinds, own_kind, kind[origin], np.full(len(owned), OWNED, np.int8)])
    chunk = np.full(len(start), -1, np.int64)
    chunk[: len(chunks.start)] = np.arange(len(chunks.start))
    own_end = np.concatenate([chunks.end, gaps.end, gaps.end[origin], image.end[owned]])
    order = np.argsort(start, kind="stable")
    start, section, part_kind, chunk, own_end = (
        start[order],
        section[order],
        part_kind[order],
        chunk[order],
        own_end[order],
    )
    end = np.minimum(own_end, with_end(start[1:]))
    return Parts(start, end, narrow(section), part_kind, narrow(chunk))
