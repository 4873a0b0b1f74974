# SPDX-License-Identifier: GPL-2.0-only
"""Who owns which bytes: the address line cut by symbols.

A *chunk* is what one outermost symbol covers: a function, a variable, or, for a symbol of size zero (assembly),
everything up to the next symbol. Symbols inside or at the same place (aliases, inner labels) belong to it as
attributes. A *gap* is what no symbol covers: padding, literals, jump tables, code without a name.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from kbuild_klp.elf import constants as elf
from kbuild_klp.elf.symbol_names import BTF_ID, canonical_name
from kbuild_klp.object.image import Image
from kbuild_klp.object.runs import Numbers, narrow, with_end


@dataclass(frozen=True)
class Chunks:
    """Chunks sorted by address, one array per column.

    ``symbols`` are the symbol indices of all chunks behind each other, those of chunk i from ``first[i]`` to
    ``first[i + 1]``; the first of each is the one that names the chunk.
    """

    start: Numbers
    end: Numbers
    section: Numbers
    symbols: Numbers
    first: Numbers

    @cached_property
    def heads(self) -> Numbers:
        """The symbol that names each chunk."""
        return self.symbols[self.first[:-1]]


@dataclass(frozen=True)
class Gaps:
    """What lies between chunks, sorted by address."""

    start: Numbers
    end: Numbers
    section: NDArray[np.int64]


def _eligible_symbols(image: Image) -> NDArray[np.int64]:
    """Return the symbols that give bytes a name: defined, in the image, not a label of the assembler."""
    objects = image.objects
    kind = objects.symbols["info"] & 0xF
    section = np.maximum(objects.shndx, 0)
    in_image = (objects.shndx > 0) & (image.base[section] >= 0) & ~image.is_owned[section]
    first, second = objects.first_letters.T
    is_label = ((first == ord(".")) & (second == ord("L"))) | (first == ord("$")) | (first == 0)
    eligible: NDArray[np.bool_] = in_image & (kind != elf.STT_SECTION) & (kind != elf.STT_FILE) & ~is_label
    return eligible.nonzero()[0]


_RANKS = {elf.STB_GLOBAL: 1, elf.STB_WEAK: 2}


def _by_name_rank(image: Image, symbols: list[int]) -> list[int]:
    """Return the symbols at one address in order: the first names the chunk.

    That is the name in the source. What is static there may have aliases for others to find it by: init_module and
    cleanup_module (include/linux/module.h), __x64_sys_NAME (arch/x86/include/asm/syscall_wrapper.h) and
    __mod_TYPE__NAME_device_table. Labels of assembly, and names that a compiler made (.localalias), come last.
    """
    rows = image.objects.symbols[symbols]
    names = dict(zip(symbols, image.objects.names_of(symbols), strict=True))
    has_aliases = (rows["info"] >> 4 != elf.STB_LOCAL).any()
    kinds = {}
    for symbol, row in zip(symbols, rows, strict=True):
        binding = int(row["info"]) >> 4
        is_static = binding == elf.STB_LOCAL and row["info"] & 0xF != elf.STT_NOTYPE and "." not in names[symbol]
        is_whole = has_aliases and row["size"] == rows["size"].max() != 0
        rank = 0 if is_static and is_whole else _RANKS.get(binding, 3)
        # A list of BTF ids is called otherwise than the first of them.
        is_last = 2 if names[symbol].startswith(BTF_ID) else 0 if row["size"] else 1
        # Numbers in names may be others: without them first.
        kinds[symbol] = (is_last, rank, canonical_name(names[symbol]).text, names[symbol])
    return sorted(symbols, key=kinds.__getitem__)


def _by_start_and_size(start: Numbers, size: Numbers) -> NDArray[np.int64]:
    """Return the order of symbols by address, of those at one address (few) the largest first."""
    order = np.argsort(start, kind="stable")
    is_tie = np.zeros(len(order) + 1, bool)
    is_tie[1:-1] = start[order[1:]] == start[order[:-1]]
    ties = (is_tie[1:] | is_tie[:-1]).nonzero()[0]
    if len(ties):
        tied = order[ties]
        order[ties] = tied[np.lexsort((-size[tied], start[tied]))]
    return order


def find_chunks(image: Image) -> Chunks:
    """Cut the address line by the symbols of the objects."""
    objects = image.objects
    index = _eligible_symbols(image)
    shndx = objects.shndx[index]
    value = objects.symbols["value"][index].astype(np.int64)
    size = objects.symbols["size"][index].astype(np.int64)
    section_size = objects.sections["size"][shndx].astype(np.int64)
    is_outside = (value < 0) | (value > section_size)
    if is_outside.any():
        bad = int(index[is_outside.nonzero()[0][0]])
        raise objects.symbol_error(bad, "lies outside its section", f"symbol {objects.symbol_name(bad)}")
    start = image.base[shndx] + value.astype(image.base.dtype)
    # A size that runs over the end of the section (assembly) covers what there is; the size itself is compared too.
    covered = np.minimum(np.where(size < 0, section_size, size), section_size - value)
    end = start + covered.astype(image.base.dtype)
    order = _by_start_and_size(start, size)
    index, start, end, shndx = index[order], start[order], end[order], shndx[order]

    reach = np.maximum.accumulate(end) if len(end) else end
    before = np.empty(len(index), bool)
    before[:1] = True
    before[1:] = (start[1:] >= reach[:-1]) & (start[1:] != start[:-1])
    first = before.nonzero()[0]
    chunk_start = start[first]
    chunk_section = shndx[first]
    bounds = np.concatenate([first, [len(index)]])
    chunk_end = reach[bounds[1:] - 1] if len(first) else chunk_start
    empty = (chunk_end == chunk_start).nonzero()[0]
    if len(empty):
        # A compiler's variable of no bytes covers nothing; a label does.
        empty = empty[[symbol not in image.empty_variables for symbol in index[first[empty]].tolist()]]
        following = with_end(chunk_start[1:])[empty]
        chunk_end[empty] = np.minimum(image.end[chunk_section[empty]], following)
    for i in (bounds[1:] - bounds[:-1] > 1).nonzero()[0].tolist():
        group = index[bounds[i] : bounds[i + 1]]
        at_start = int(np.count_nonzero(start[bounds[i] : bounds[i + 1]] == chunk_start[i]))
        if at_start > 1:
            group[:at_start] = _by_name_rank(image, group[:at_start].tolist())
    return Chunks(chunk_start, chunk_end, narrow(chunk_section), narrow(index), narrow(bounds))


def find_gaps(image: Image, chunks: Chunks) -> Gaps:
    """Return what the chunks leave over of each section (tables of owned entries excepted)."""
    keep = ~image.is_owned[image.order]
    start = np.concatenate([image.starts[keep], chunks.end])
    section = np.concatenate([image.order[keep], chunks.section])
    following = with_end(chunks.start)
    first = following[np.searchsorted(chunks.start, image.starts[keep], "left")]
    end = np.minimum(image.end[section], np.concatenate([first, following[1:]]))
    real = (end > start).nonzero()[0]
    real = real[np.argsort(start[real], kind="stable")]
    return Gaps(start[real], end[real], section[real])
