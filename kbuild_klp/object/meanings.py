# SPDX-License-Identifier: GPL-2.0-only
"""Digests of what references mean: one row of fixed layout a reference, ready to be hashed in slices.

A named target is the digest of its canonical name, anything else the digest of its content. Rows of one part lie
behind each other, so hashing the references of a function is hashing one slice of bytes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_128_digest

from kbuild_klp.elf import constants as elf
from kbuild_klp.elf.symbol_names import CanonicalName, canonical_name, maybe_numbered, memory_of
from kbuild_klp.object.canonical import CanonicalObject
from kbuild_klp.object.families import find_families
from kbuild_klp.object.owned import NOBODY, sort_by_owner, take_lines
from kbuild_klp.object.parts import CONTENT, NAMED, PIECE, STRINGS

# A row is three words of 64 bits: place and kind, and the two halves of the target's digest, offset and ordinal
# added to the first. Two rows that mean different things are equal only if the digests are: the second half is that
# of the target alone, and the factors are odd.
ROW_WORDS = 3
ROW_SIZE = 8 * ROW_WORDS
KIND_SHIFT = 32
_OFFSET_FACTOR = 0x9E3779B97F4A7C15
_ORDINAL_FACTOR = 0xC2B2AE3D27D4EB4F
_WORD = (1 << 64) - 1
_CYCLE = xxh3_128_digest(b"\0cycle")
_NO_STRING = xxh3_128_digest(b"\0no string")


def _times(factor: int, values: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Multiply modulo 2^64."""
    return values.astype(np.int64).view(np.uint64) * np.uint64(factor)


def _as_words(digests: bytes) -> NDArray[np.uint64]:
    """Return digests behind each other as an array of shape (n, 2)."""
    return np.frombuffer(digests, "<u8").reshape(-1, 2)


def _text_digests(texts: list[str]) -> bytes:
    """Return the digests of some names behind each other."""
    try:
        return b"".join(map(xxh3_128_digest, map(str.encode, texts)))
    except UnicodeEncodeError:  # a name that is no UTF-8
        return b"".join([xxh3_128_digest(text.encode("utf-8", "surrogateescape")) for text in texts])


def nobodys_part(section: Any) -> Any:
    """Return what stands for a part where `Digests.ambiguous` is about entries of a section that belong to no part."""
    return NOBODY - section


class Digests:
    """The references of one object as rows to be hashed, and the content of what has no name.

    ``rows`` has shape (references, ROW_WORDS); ``data`` is the image with all references and line numbers cleared;
    ``owned`` are the special entries; ``owner`` says, by reference, to which part it belongs (that of a special entry
    to the owner of the entry); ``by_content`` gives the part for each reference that is known by content;
    ``ambiguous`` lists, by part, the symbols it refers to that look like others, in the order of first use, and
    ``ordinals`` says which of those of one name a reference means; ``record_lines`` holds
    what was cleared in sections of class records, by section: base, entry size and one row of line numbers an entry.
    """

    def __init__(self, canonical: CanonicalObject) -> None:
        self.canonical = canonical
        self.families = find_families(canonical)
        image = canonical.image
        self.owned = sort_by_owner(canonical)
        self.record_lines = self._take_record_lines()
        self.data = image.data.tobytes()
        image.data = np.frombuffer(self.data, np.uint8)  # from here on nothing changes; one copy is enough
        self.rows = np.zeros((len(canonical.references.place), ROW_WORDS), "<u8")
        self.owner = np.zeros(len(canonical.references.place), np.int64)
        self.by_content: dict[int, int] = {}
        self.ambiguous: dict[int, list[int]] = {}
        self.ordinals: dict[int, int] = {}
        # Of parts without a name, which are looked at one by one.
        self._first: list[int] = canonical.first_reference.tolist()
        self._start: list[int] = canonical.parts.start.tolist()
        self._end: list[int] = canonical.parts.end.tolist()
        self._kind: list[int] = canonical.parts.kind.tolist()
        self._section: list[int] = canonical.parts.section.tolist()
        self._content: dict[int, bytes] = {}
        if len(canonical.parts.start):
            self._fill_rows()

    # -- filling the rows -----------------------------------------------------------------------------------------

    def _take_record_lines(self) -> dict[int, tuple[int, int, NDArray[np.uint8]]]:
        image = self.canonical.image
        taken = {}
        for section, table in image.records.items():
            if not table.row.lines:
                continue
            base, size = int(image.base[section]), table.entry_size
            count = int(image.object.sections["size"][section]) // size
            view = image.data[base : base + count * size].reshape(count, size)
            taken[section] = (base, size, take_lines(view, table.row.lines))
        return taken

    def _fill_rows(self) -> None:
        parts, references, targets = self.canonical.parts, self.canonical.references, self.canonical.targets
        rows = self.rows
        self.owner = part_of = np.repeat(np.arange(len(parts.start)), np.diff(self.canonical.first_reference))
        by_content = (targets.symbol < 0) & (targets.section < 0)
        strings = by_content & (parts.kind[targets.part] == STRINGS)
        targets.offset[strings] = 0  # a string is known by its text from there on
        self._set_digests(targets.symbol >= 0, targets.symbol, self._symbol_digests)
        self._set_digests(targets.section >= 0, targets.section, self._section_digests)
        self._set_digests(strings, references.target, self._string_digests)
        rows[:, 0] = references.place - parts.start[part_of]
        rows[:, 0] += references.kind.astype(np.uint64) << np.uint64(KIND_SHIFT)
        rows[:, 1] += _times(_OFFSET_FACTOR, targets.offset)
        self.owner[self.owned.references] = np.repeat(self.owned.owner, np.diff(self.owned.reference_at))
        self._number()
        content = (by_content & ~strings).nonzero()[0]
        self.by_content = dict(zip(content.tolist(), targets.part[content].tolist(), strict=True))
        for reference in self.owned.unused:
            if self.by_content.pop(reference, None) is not None:
                rows[reference, 1:] = 0
                targets.offset[reference] = 0
        if self.by_content:
            self._resolve_all()

    def _set_digests(
        self, which: NDArray[np.bool_], keys: NDArray[np.int64], digests: Callable[[NDArray[np.int64]], bytes]
    ) -> None:
        """Set the digest of each reference marked in ``which``; equal keys (not negative) have equal digests."""
        index = which.nonzero()[0]
        if not len(index):
            return
        wanted = keys[index]
        # Counting instead of sorting: keys are symbols, sections or addresses, all of them small numbers.
        seen = np.zeros(int(wanted.max()) + 1, bool)
        seen[wanted] = True
        unique = seen.nonzero()[0]
        position = np.empty(len(seen), np.int32)
        position[unique] = np.arange(len(unique), dtype=np.int32)
        self.rows[index, 1:] = _as_words(digests(unique))[position[wanted]]

    def _symbol_digests(self, symbols: NDArray[np.int64]) -> bytes:
        """Return the digests that stand for some symbols in references to them."""
        obj = self.canonical.object
        names = obj.symbol_names_of(symbols.tolist())
        info, section = obj.symbols["info"][symbols], obj.shndx[symbols]
        texts = names
        # A defined symbol whose name has nothing to drop is known by it: most of them are.
        is_odd = (section <= 0) | (info & 0xF == elf.STT_SECTION)
        odd = {*is_odd.nonzero()[0].tolist(), *maybe_numbered(names)}
        if odd:
            texts = texts.copy()
            for at in odd:
                texts[at] = self._symbol_text(int(symbols[at]), names[at])
        return _text_digests(texts)

    def _symbol_text(self, symbol: int, name: str) -> str:
        """Return what stands for a symbol in references to it."""
        obj = self.canonical.object
        section, info = int(obj.shndx[symbol]), int(obj.symbols["info"][symbol])
        if info & 0xF == elf.STT_SECTION or (not name and section > 0):
            return f"\0section {self.canonical.single_section_names[section] if section > 0 else section}"
        if section == elf.SHN_UNDEF:
            text = f"{name}\0weak" if info >> 4 == elf.STB_WEAK else name
            visibility = int(obj.symbols["other"][symbol]) & 3
            return f"{text}\0visibility {visibility}" if visibility else text
        if section == elf.SHN_ABS - 0x10000:
            return f"{name}\0absolute {int(obj.symbols['value'][symbol])}"
        text, numbered = canonical_name(name)
        if numbered:
            text += "\0numbered"  # a static local is not the variable of that name outside of functions
        return text

    def _section_digests(self, sections: NDArray[np.int64]) -> bytes:
        return _text_digests(
            [f"\0section {self.canonical.single_section_names[section]}" for section in sections.tolist()]
        )

    def _string_digests(self, addresses: NDArray[np.int64]) -> bytes:
        image = self.canonical.image
        section = np.searchsorted(image.starts, addresses, "right") - 1
        is_outside = addresses >= image.starts[section] + image.sizes[section]
        memories = [self.memories[index] for index in image.order[section].tolist()]
        rows = zip(addresses.tolist(), is_outside.tolist(), memories, strict=True)
        # One past the end of a section of strings is no string, and not the empty one.
        return b"".join(
            [_NO_STRING if outside else self._string_digest(address, memory) for address, outside, memory in rows]
        )

    def _string_digest(self, address: int, memory: bytes) -> bytes:
        end = self.data.find(b"\0", address)
        # The middle of a string means all of it: "0123456789abcdef"[i + 10] may reach what stands before.
        start = self.data.rfind(b"\0", 0, address) + 1
        text = self.data[start : end + 1] + memory
        return xxh3_128_digest(text if start == address else b"%d\0%s" % (address - start, text))

    @cached_property
    def memories(self) -> list[bytes]:
        """For each section what its memory is, where that is not the rule: init memory is given back after boot."""
        return [memory_of(name).encode("utf-8", "surrogateescape") for name in self.canonical.single_section_names]

    def _number(self) -> None:
        """Tell symbols that look alike apart by the order in which a part first refers to them."""
        ambiguous = self.families.ambiguous
        if not ambiguous:
            return
        symbols = self.canonical.targets.symbol
        is_ambiguous = np.zeros(len(self.canonical.object.symbols), bool)
        is_ambiguous[list(ambiguous)] = True
        hits = (is_ambiguous[np.maximum(symbols, 0)] & (symbols >= 0)).nonzero()[0]
        seen: dict[int, dict[CanonicalName, dict[int, int]]] = {}
        ordinals = []
        parts, owner = self.canonical.parts, self.owner[hits]
        # What stands in entries that belong to no part is of their section.
        section = parts.section[parts.at(self.canonical.references.place[hits])]
        owner = np.where(owner == NOBODY, nobodys_part(section), owner)
        for part, symbol in zip(owner.tolist(), symbols[hits].tolist(), strict=True):
            alike = seen.setdefault(part, {}).setdefault(ambiguous[symbol], {})
            ordinals.append(alike.setdefault(symbol, len(alike)))
        self.rows[hits, 1] += _times(_ORDINAL_FACTOR, np.array(ordinals, np.int64))
        self.ordinals = dict(zip(hits.tolist(), ordinals, strict=True))
        for part, names in seen.items():
            self.ambiguous[part] = [symbol for alike in names.values() for symbol in alike]

    def target(self, reference: int) -> tuple[int, int, int, int]:
        """Return what a reference goes to: offset, ordinal, and the two halves of the target's digest."""
        offset, ordinal = int(self.canonical.targets.offset[reference]), self.ordinals.get(reference, 0)
        _, high, low = self.rows[reference].tolist()
        return offset, ordinal, (high - offset * _OFFSET_FACTOR - ordinal * _ORDINAL_FACTOR) & _WORD, low

    # -- content --------------------------------------------------------------------------------------------------

    def _resolve_all(self) -> None:
        """Set the rows of all references to what is known by content."""
        digests = b"".join(map(self.content_digest, self.by_content.values()))
        references = list(self.by_content)
        self.rows[references, 1:] = _as_words(digests)
        self.rows[references, 1] += _times(_OFFSET_FACTOR, self.canonical.targets.offset[references])
        if self.canonical.image.records:
            self._number_records()

    def _number_records(self) -> None:
        """Tell records that look alike apart by the order in which a part first refers to them: they are several."""
        seen: dict[tuple[int, bytes], dict[int, int]] = defaultdict(dict)
        for reference, user, record in self.record_references:
            same = seen[user, self.content_digest(record)]
            ordinal = same.setdefault(record, len(same))
            if ordinal:
                self.ordinals[reference] = ordinal
                self.rows[reference, 1] = (int(self.rows[reference, 1]) + ordinal * _ORDINAL_FACTOR) & _WORD

    @cached_property
    def record_references(self) -> list[tuple[int, int, int]]:
        """The references to records that are known by content: each with the part that has it, and the record."""
        records = self.canonical.image.records
        found = [
            (at, int(self.owner[at]), part) for at, part in self.by_content.items() if self._section[part] in records
        ]
        return [row for row in found if row[1] >= 0 and self._kind[row[1]] == NAMED]

    def _resolve(self, reference: int, part: int) -> None:
        """Set the row of one reference, before the part in which it stands is hashed."""
        digest = self.content_digest(part)
        offset = int(self.canonical.targets.offset[reference])
        row = self.rows[reference]
        row[1] = (int.from_bytes(digest[:8], "little") + offset * _OFFSET_FACTOR) & _WORD
        row[2] = int.from_bytes(digest[8:], "little")

    @cached_property
    def _owned_by_nameless(self) -> dict[int, tuple[int, int]]:
        """The special entries of parts without a name: few, unlike those of functions."""
        owner = self.owned.owner
        if not len(owner):
            return {}
        first = np.concatenate([[0], (owner[1:] != owner[:-1]).nonzero()[0] + 1])
        end = np.concatenate([first[1:], [len(owner)]])
        part = owner[first]
        nameless = ((part >= 0) & (self.canonical.parts.kind[np.maximum(part, 0)] != NAMED)).nonzero()[0]
        bounds = zip(first[nameless].tolist(), end[nameless].tolist(), strict=True)
        return dict(zip(part[nameless].tolist(), bounds, strict=True))

    @property
    def nameless_owners(self) -> set[int]:
        """The parts without a name that have special entries."""
        return set(self._owned_by_nameless)

    def _nested(self, part: int) -> Iterator[tuple[int, int]]:
        """Return the references of a part to parts that are known by content, with these parts."""
        references = list(range(self._first[part], self._first[part + 1]))
        entries = self._owned_by_nameless.get(part)
        if entries is not None:
            low, high = self.owned.reference_at[list(entries)].tolist()
            references += self.owned.references[low:high].tolist()
        return ((reference, self.by_content[reference]) for reference in references if reference in self.by_content)

    def content_digest(self, part: int) -> bytes:
        """Return the digest of a part that is known by content, its own references included."""
        known = self._content.get(part)
        if known is not None:
            return known
        if self._first[part] == self._first[part + 1] and part not in self._owned_by_nameless:
            return self._hash(part)
        # Depth first with a stack of our own: a list in anonymous data may be longer than Python's.
        self._content[part] = _CYCLE  # a part that refers back to itself is known by everything else in it
        stack = [(part, -1, self._nested(part))]
        while stack:
            current, user, nested = stack[-1]
            for reference, target in nested:
                if target not in self._content:
                    self._content[target] = _CYCLE
                    stack.append((target, reference, self._nested(target)))
                    break
                self._resolve(reference, target)
            else:
                self._hash(current)
                stack.pop()
                if user >= 0:
                    self._resolve(user, current)
        return self._content[part]

    def _hash(self, part: int) -> bytes:
        """Set the digest of a part whose references are resolved."""
        digest = xxh3_128_digest(b"\0".join(self.content(part)) + self.memories[self._section[part]])
        self._content[part] = digest
        return digest

    def content(self, part: int) -> tuple[bytes, bytes, bytes]:
        """Return bytes, reference rows and special entries of a part (anonymous data without trailing zeros)."""
        low, high, kind = self._first[part], self._first[part + 1], self._kind[part]
        data = self.part_data(part)
        if kind == PIECE:
            # The zeros behind anonymous data align what comes next; fields of references are zeros too.
            keep = int(self.canonical.references.place[high - 1]) - self._start[part] + 8 if high > low else 0
            data = data[:keep] + data[keep:].rstrip(b"\0")
        entries = self._owned_by_nameless.get(part)
        special = self.special_bytes(*entries) if entries is not None else b""
        if kind == CONTENT:
            symbol = self.canonical.object.symbols[int(self.canonical.part_symbols(part)[0])]
            special += b"%d %d %d" % (symbol["info"], symbol["other"], symbol["size"])
        return data, self.rows[low:high].tobytes(), special

    def part_data(self, part: int) -> bytes:
        """Return the bytes of a part with references cleared (empty for .bss)."""
        return self.data[self._start[part] : self._end[part]]

    # -- special entries ------------------------------------------------------------------------------------------

    @cached_property
    def _table_digests(self) -> NDArray[np.uint64]:
        """What stands for each table in the rows of its entries: name and entry size."""
        names = self.canonical.object.section_names
        texts = [f"\0table {names[table.section]} {table.entry_size}" for table in self.owned.tables]
        return _as_words(_text_digests(texts))

    def special_rows(self, low: int, high: int) -> NDArray[np.uint64]:
        """Return the rows of the references of the special entries ``low`` to ``high``.

        The row that names the owner says of which table an entry is, and where in the owner it applies: who the
        owner is, is no matter of the entry.
        """
        owned, parts, references = self.owned, self.canonical.parts, self.canonical.references
        first, last = owned.reference_at[[low, high]].tolist()
        which = owned.references[first:last]
        rows = self.rows[which]
        rows[:, 0] = owned.field[first:last]
        rows[:, 0] += references.kind[which].astype(np.uint64) << np.uint64(KIND_SHIFT)
        entry = np.repeat(np.arange(low, high), np.diff(owned.reference_at[low : high + 1]))
        at = owned.is_owner[first:last].nonzero()[0]
        entry = entry[at]
        table, owner = self._table_digests[owned.table[entry]], owned.owner[entry]
        offset = references.target[which[at]] - parts.start[owner]
        foreign = at[owner == NOBODY]
        named = rows[foreign, 1:]
        rows[at, 1:] = table
        rows[at, 1] += _times(_OFFSET_FACTOR, offset)
        rows[foreign, 1:] += named
        return rows

    def special_bytes(self, low: int, high: int) -> bytes:
        """Return what is hashed of the special entries ``low`` to ``high``, which are of one owner."""
        start, end = self.owned.data_at[[low, high]].tolist()
        return self.owned.data[start:end] + self.special_rows(low, high).tobytes()

    def nobodys(self) -> dict[int, bytes]:
        """Return what is hashed of special entries that belong to no part, by section."""
        owned = self.owned
        count = int(np.searchsorted(owned.owner, NOBODY, "right"))
        bounds = np.searchsorted(owned.table[:count], np.arange(len(owned.tables) + 1)).tolist()
        return {
            table.section: self.special_bytes(low, high)
            for table, low, high in zip(owned.tables, bounds[:-1], bounds[1:], strict=True)
            if high > low
        }
