# SPDX-License-Identifier: GPL-2.0-only
"""What stands for the target of a reference: the digest of a name, or of a string."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_128_digest

from kbuild_klp.elf import constants as elf
from kbuild_klp.elf.symbol_names import canonical_name
from kbuild_klp.object.canonical import Canonical
from kbuild_klp.object.runs import Numbers, blocks, ranked

_CRC = "__crc_"  # of an export, an entry of its own: only tables of such (__kcrctab) refer to them, up to 5.18
_NO_STRING = xxh3_128_digest(b"\0no string")

Digests = NDArray[np.uint64]
"""128 bits each: shape (n, 2)."""


def as_digests(digests: bytes) -> Digests:
    """Return digests behind each other as an array."""
    return np.frombuffer(digests, "<u8").reshape(-1, 2)


def set_symbols(rows: NDArray[np.uint64], symbol: NDArray[np.int32], names: TargetNames) -> None:
    """Set the digest of each reference to that of its symbol, zeros where it has none (-1)."""
    # Nearly all have one, and there are fewer symbols than references.
    is_used = np.zeros(names.symbol_count + 1, bool)
    is_used[symbol] = True
    is_used[-1] = False
    table: Digests = np.zeros((len(is_used), 2), "<u8")
    for used in blocks(is_used.nonzero()[0]):
        table[used] = as_digests(names.of_symbols(used))
    for some, row in zip(blocks(symbol), blocks(rows), strict=True):
        row[:, 1:] = table.take(some, axis=0, mode="wrap")


def set_digests(
    rows: NDArray[np.uint64],
    which: NDArray[np.bool_],
    keys: Numbers,
    digests: Callable[[NDArray[np.int64]], bytes],
) -> None:
    """Set the digest of each reference marked in ``which``; equal keys (not negative) have equal digests."""
    index = which.nonzero()[0]
    if not len(index):
        return
    unique, which_one = ranked(keys[index])
    found = as_digests(digests(unique))
    for some, which_ones in zip(blocks(index), blocks(which_one), strict=True):
        rows[some, 1:] = found[which_ones]


def text_digests(texts: list[str]) -> bytes:
    """Return the digests of some texts behind each other."""
    try:
        return b"".join(map(xxh3_128_digest, map(str.encode, texts)))
    except UnicodeEncodeError:  # a name that is no UTF-8
        return b"".join([xxh3_128_digest(text.encode("utf-8", "surrogateescape")) for text in texts])


class TargetNames:
    """What stands for symbols, sections and strings in references to them."""

    def __init__(self, canonical: Canonical) -> None:
        self._canonical = canonical
        self._objects = canonical.objects
        self.symbol_count = len(canonical.objects.symbols)

    def of_symbols(self, symbols: NDArray[np.int64]) -> bytes:
        """Return the digests that stand for some symbols."""
        objects = self._objects
        names = objects.names_of(symbols.tolist())
        info, section = objects.symbols["info"][symbols], objects.shndx[symbols]
        # A defined symbol whose name has nothing to drop is known by it: most of them are.
        is_plain = (section > 0) & (info & 0xF != elf.STT_SECTION)
        is_strong = (info >> 4 != elf.STB_WEAK) & (objects.symbols["other"][symbols] & 3 == 0)
        is_plain |= (section == elf.SHN_UNDEF) & is_strong
        is_plain &= (section <= 0) | ~objects.is_maybe_numbered[symbols]
        for at in (~is_plain).nonzero()[0].tolist():
            names[at] = self._symbol(int(symbols[at]), names[at])
        return text_digests(names)

    def _symbol(self, symbol: int, name: str) -> str:
        """Return what stands for a symbol."""
        objects = self._objects
        section, info = int(objects.shndx[symbol]), int(objects.symbols["info"][symbol])
        if info & 0xF == elf.STT_SECTION or (not name and section > 0):
            return f"\0section {self._canonical.single_section_names[section] if section > 0 else section}"
        if section == elf.SHN_UNDEF:
            text = f"{name}\0weak" if info >> 4 == elf.STB_WEAK else name
            visibility = int(objects.symbols["other"][symbol]) & 3
            return f"{text}\0visibility {visibility}" if visibility else text
        if section == elf.ABSOLUTE:
            if name.startswith(_CRC):
                return f"{name}\0absolute"
            return f"{name}\0absolute {int(objects.symbols['value'][symbol])}"
        text, numbered = canonical_name(name)
        # A static local is not the variable of that name outside of functions.
        return f"{text}\0numbered" if numbered else text

    def of_sections(self, sections: NDArray[np.int64]) -> bytes:
        """Return the digests that stand for some sections, where a reference goes to no symbol and no content."""
        names = self._canonical.single_section_names
        return text_digests([f"\0section {names[section]}" for section in sections.tolist()])

    def of_strings(self, addresses: NDArray[np.int64]) -> bytes:
        """Return the digests of the strings at some addresses.

        The middle of a string means all of it: "0123456789abcdef"[i + 10] may reach what stands before. One past the
        end of a section of strings is no string, and not the empty one.
        """
        image = self._canonical.image
        buffer, memories = image.buffer, self._canonical.memories
        position = np.searchsorted(image.starts, addresses, "right") - 1
        is_outside = addresses >= image.starts[position] + image.sizes[position]
        digests = []
        rows = zip(addresses.tolist(), image.order[position].tolist(), is_outside.tolist(), strict=True)
        for address, section, outside in rows:
            end = buffer.find(0, address)
            start = buffer.rfind(0, 0, address) + 1
            text: bytes | bytearray = buffer[start : end + 1] + memories[section]
            if start != address:
                text = b"%d\0%s" % (address - start, text)
            digests.append(_NO_STRING if outside else xxh3_128_digest(text))
        return b"".join(digests)
