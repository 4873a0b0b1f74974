# SPDX-License-Identifier: GPL-2.0-only
"""What references mean: one row of fixed layout a reference, ready to be hashed in slices.

A named target is the digest of its canonical name, anything else the digest of its content. Rows of one part lie
behind each other, so hashing the references of a function is hashing one slice of bytes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_128_digest

from kbuild_klp.elf.symbol_names import CanonicalName
from kbuild_klp.object.canonical import Canonical
from kbuild_klp.object.owned import NOBODY
from kbuild_klp.object.parts import CONTENT, NAMED, PIECE, STRINGS
from kbuild_klp.object.runs import Numbers, blocks, run_bounds
from kbuild_klp.object.target_digests import Digests, TargetNames, as_digests, set_digests, set_symbols, text_digests

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


@dataclass(frozen=True)
class Meanings:
    """The meanings of all references of a batch.

    ``rows`` has shape (references, ROW_WORDS); ``owner`` says, by reference, to which part it belongs (that of a
    special entry to the owner of the entry); ``by_content`` gives the part for each reference that is known by content;
    ``ambiguous`` lists, by part, the symbols it refers to that look like others, in the order of first use, and
    ``ordinals`` says which of those of one name a reference means; ``content`` are the parts known by content.
    """

    canonical: Canonical
    rows: NDArray[np.uint64]
    owner: Numbers
    by_content: dict[int, int]
    ambiguous: dict[int, list[int]]
    ordinals: dict[int, int]
    content: ContentDigests
    special: SpecialRows

    def target(self, reference: int) -> tuple[int, int, int, int]:
        """Return what a reference goes to: offset, ordinal, and the two halves of the target's digest."""
        offset, ordinal = int(self.canonical.targets.offset[reference]), self.ordinals.get(reference, 0)
        _, high, low = self.rows[reference].tolist()
        return offset, ordinal, (high - offset * _OFFSET_FACTOR - ordinal * _ORDINAL_FACTOR) & _WORD, low

    @cached_property
    def record_references(self) -> list[tuple[int, int, int]]:
        """The references to records that are known by content: each with the part that has it, and the record."""
        return _record_references(self.canonical, self.owner, self.by_content)


def nobodys_part(section: Any) -> Any:
    """Return what stands for a part where `Meanings.ambiguous` is about entries of a section that belong to no part."""
    return NOBODY - section


def find_meanings(canonical: Canonical) -> Meanings:
    """Give each reference its row."""
    parts, references, targets, owned = canonical.parts, canonical.references, canonical.targets, canonical.owned
    count = len(references.place)
    rows: NDArray[np.uint64] = np.zeros((count, ROW_WORDS), "<u8")
    owner = np.repeat(np.arange(len(parts.start), dtype=np.int32), np.diff(canonical.first_reference))
    is_string = np.zeros(count, bool)
    by_content: dict[int, int] = {}
    if len(parts.start):
        is_content = targets.is_content
        is_string = is_content & (parts.kind[targets.part] == STRINGS)
        names = TargetNames(canonical)
        set_symbols(rows, targets.symbol, names)
        set_digests(rows, targets.section >= 0, targets.section, names.of_sections)
        set_digests(rows, is_string, references.target, names.of_strings)
        columns = references.place, references.kind, targets.offset, owner, rows
        for place, kind, offset, user, row in zip(*map(blocks, columns), strict=True):
            row[:, 0] = place - parts.start[user]
            row[:, 0] |= kind.astype(np.uint64) << np.uint64(KIND_SHIFT)
            row[:, 1] += _times(_OFFSET_FACTOR, offset)
        is_content &= ~is_string
        nothing = owned.unused[is_content[owned.unused]]
        rows[nothing, 1:] = 0
        is_content[nothing] = False
        content = is_content.nonzero()[0]
        by_content = dict(zip(content.tolist(), targets.part[content].tolist(), strict=True))
    owner[owned.references] = np.repeat(owned.owner, np.diff(owned.reference_at))
    ambiguous, ordinals = _number(canonical, rows, owner)
    special = SpecialRows(canonical, rows)
    digests = ContentDigests(canonical, rows, by_content, special)
    digests.resolve()
    _number_records(canonical, rows, owner, by_content, digests, ordinals)
    rows.flags.writeable = False
    return Meanings(canonical, rows, owner, by_content, ambiguous, ordinals, digests, special)


def _times(factor: int, values: Numbers) -> NDArray[np.uint64]:
    """Multiply modulo 2^64."""
    return values.astype(np.int64).view(np.uint64) * np.uint64(factor)


# -- which of several that look alike ---------------------------------------------------------------------------------


def _number(
    canonical: Canonical, rows: NDArray[np.uint64], owner: Numbers
) -> tuple[dict[int, list[int]], dict[int, int]]:
    """Tell symbols that look alike apart by the order in which a part first refers to them."""
    alike = canonical.families.ambiguous
    if not alike:
        return {}, {}
    symbols, parts = canonical.targets.symbol, canonical.parts
    is_ambiguous = np.zeros(len(canonical.objects.symbols), bool)
    is_ambiguous[list(alike)] = True
    hits = (is_ambiguous[np.maximum(symbols, 0)] & (symbols >= 0)).nonzero()[0]
    # What stands in entries that belong to no part is of their section.
    section = parts.section[parts.at(canonical.references.place[hits])]
    users = np.where(owner[hits] == NOBODY, nobodys_part(section), owner[hits])
    seen: dict[int, dict[CanonicalName, dict[int, int]]] = {}
    ordinals = []
    for part, symbol in zip(users.tolist(), symbols[hits].tolist(), strict=True):
        same = seen.setdefault(part, {}).setdefault(alike[symbol], {})
        ordinals.append(same.setdefault(symbol, len(same)))
    rows[hits, 1] += _times(_ORDINAL_FACTOR, np.array(ordinals, np.int64))
    ambiguous = {part: [symbol for same in names.values() for symbol in same] for part, names in seen.items()}
    return ambiguous, {hit: ordinal for hit, ordinal in zip(hits.tolist(), ordinals, strict=True) if ordinal}


def _record_references(canonical: Canonical, owner: Numbers, by_content: dict[int, int]) -> list[tuple[int, int, int]]:
    image, parts = canonical.image, canonical.parts
    if not image.records or not by_content:
        return []
    rows, targets = np.array([*by_content.items()], np.int64).T
    users = owner[rows]
    wanted = image.is_record[parts.section[targets]] & (users >= 0)
    wanted &= parts.kind[np.maximum(users, 0)] == NAMED
    return list(zip(rows[wanted].tolist(), users[wanted].tolist(), targets[wanted].tolist(), strict=True))


def _number_records(
    canonical: Canonical,
    rows: NDArray[np.uint64],
    owner: Numbers,
    by_content: dict[int, int],
    content: ContentDigests,
    ordinals: dict[int, int],
) -> None:
    """Tell records that look alike apart by the order in which a part first refers to them: they are several."""
    seen: dict[tuple[int, bytes], dict[int, int]] = defaultdict(dict)
    for reference, user, record in _record_references(canonical, owner, by_content):
        same = seen[user, content.digest(record)]
        ordinal = same.setdefault(record, len(same))
        if ordinal:
            ordinals[reference] = ordinal
            rows[reference, 1] = (int(rows[reference, 1]) + ordinal * _ORDINAL_FACTOR) & _WORD


# -- special entries --------------------------------------------------------------------------------------------------


class SpecialRows:
    """What is hashed of the entries of special sections."""

    def __init__(self, canonical: Canonical, rows: NDArray[np.uint64]) -> None:
        self._canonical = canonical
        self._rows = rows

    @cached_property
    def _tables(self) -> Digests:
        """The digest that stands for each table."""
        groups = self._canonical.owned.groups
        return as_digests(text_digests([f"\0table {group.name} {group.entry_size}" for group in groups]))

    def rows(self, low: int, high: int) -> NDArray[np.uint64]:
        """Return the rows of the references of the special entries ``low`` to ``high``.

        Those that name the owner say of which table an entry is, and where in the owner it applies: who the owner is,
        is no matter of the entry. Where nobody is, that is added to what the reference means.
        """
        canonical, owned = self._canonical, self._canonical.owned
        bounds = owned.reference_at[low : high + 1]
        mine = slice(int(bounds[0]), int(bounds[-1]))
        references, at_owner = owned.references[mine], owned.is_owner[mine].nonzero()[0]
        rows = self._rows.take(references, axis=0)
        rows[:, 0] = canonical.references.kind[references]
        rows[:, 0] <<= np.uint64(KIND_SHIFT)
        rows[:, 0] |= owned.field[mine].astype(np.uint64)
        entry = np.repeat(np.arange(low, high), np.diff(bounds))[at_owner]
        owner = owned.owner[entry]
        offset = canonical.references.target[references[at_owner]] - canonical.parts.start[owner]
        own = self._tables.take(owned.group[entry], axis=0)
        nobodys = (owner == NOBODY).nonzero()[0]
        if len(nobodys):
            # In nobody there is no place: what the reference means says where it goes.
            offset[nobodys] = 0
            own[nobodys] += rows[at_owner[nobodys], 1:]
        own[:, 0] += _times(_OFFSET_FACTOR, offset)
        rows[at_owner, 1:] = own
        return rows

    def hashed(self, low: int, high: int) -> bytes:
        """Return what is hashed of the special entries ``low`` to ``high``, which are of one owner."""
        start, end = self._canonical.owned.data_at[[low, high]].tolist()
        return self._canonical.owned.data[start:end] + self.rows(low, high).tobytes()

    def nobodys(self) -> dict[int, bytes]:
        """Return what is hashed of special entries that belong to no part, by section."""
        owned, parts = self._canonical.owned, self._canonical.parts
        count = int(np.searchsorted(owned.owner, NOBODY, "right"))
        if not count:
            return {}
        place = self._canonical.references.place[owned.references[owned.reference_at[:count]]]
        section = parts.section[parts.at(place)]
        return {
            int(section[low]): self.hashed(low, high)
            for low, high in zip(*(bound.tolist() for bound in run_bounds(section)), strict=True)
        }

    @cached_property
    def of_nameless(self) -> dict[int, tuple[int, int]]:
        """The special entries (first, end) of parts without a name: few, unlike those of functions."""
        owner, kind = self._canonical.owned.owner, self._canonical.parts.kind
        first, end = run_bounds(owner)
        part = owner[first]
        nameless = ((part >= 0) & (kind[np.maximum(part, 0)] != NAMED)).nonzero()[0]
        bounds = zip(first[nameless].tolist(), end[nameless].tolist(), strict=True)
        return dict(zip(part[nameless].tolist(), bounds, strict=True))


# -- content ----------------------------------------------------------------------------------------------------------


class ContentDigests:
    """The digests of parts that are known by their content, the references in them included."""

    def __init__(
        self, canonical: Canonical, rows: NDArray[np.uint64], by_content: dict[int, int], special: SpecialRows
    ) -> None:
        self._canonical = canonical
        self._rows = rows
        self._by_content = by_content
        self._special = special
        # These parts are looked at one by one, for which a memoryview is faster than an array.
        parts = canonical.parts
        self._first, self._start, self._end = canonical.first_reference.data, parts.start.data, parts.end.data
        self._kind, self._section = parts.kind.data, parts.section.data
        self._digests: dict[int, bytes] = {}

    def digest(self, part: int) -> bytes:
        """Return the digest of a part that is known by content, its own references included."""
        return self._digests[part]

    def resolve(self) -> None:
        """Find all digests, and set the rows of the references to them."""
        kind = self._canonical.parts.kind
        if self._by_content:
            digests = b"".join(map(self._resolved, self._by_content.values()))
            references = list(self._by_content)
            self._rows[references, 1:] = as_digests(digests)
            self._rows[references, 1] += _times(_OFFSET_FACTOR, self._canonical.targets.offset[references])
        for part in ((kind == CONTENT) | (kind == PIECE)).nonzero()[0].tolist():
            self._resolved(part)

    def _resolved(self, part: int) -> bytes:
        known = self._digests.get(part)
        if known is not None:
            return known
        if self._first[part] == self._first[part + 1] and part not in self._special.of_nameless:
            return self._hash(part)
        # Depth first with a stack of our own: a list in anonymous data may be longer than Python's.
        self._digests[part] = _CYCLE  # a part that refers back to itself is known by everything else in it
        stack = [(part, -1, self._nested(part))]
        while stack:
            current, user, nested = stack[-1]
            for reference, target in nested:
                if target not in self._digests:
                    self._digests[target] = _CYCLE
                    stack.append((target, reference, self._nested(target)))
                    break
                self._set(reference, target)
            else:
                self._hash(current)
                stack.pop()
                if user >= 0:
                    self._set(user, current)
        return self._digests[part]

    def _nested(self, part: int) -> Iterator[tuple[int, int]]:
        """Return the references of a part to parts that are known by content, with these parts."""
        references = list(range(self._first[part], self._first[part + 1]))
        entries = self._special.of_nameless.get(part)
        if entries is not None:
            owned = self._canonical.owned
            low, high = owned.reference_at[list(entries)].tolist()
            references += owned.references[low:high].tolist()
        return ((reference, self._by_content[reference]) for reference in references if reference in self._by_content)

    def _set(self, reference: int, part: int) -> None:
        """Set the row of one reference, before the part in which it stands is hashed."""
        digest = self._digests[part]
        offset = int(self._canonical.targets.offset[reference])
        row = self._rows[reference]
        row[1] = (int.from_bytes(digest[:8], "little") + offset * _OFFSET_FACTOR) & _WORD
        row[2] = int.from_bytes(digest[8:], "little")

    def _hash(self, part: int) -> bytes:
        """Set the digest of a part whose references are resolved."""
        memory = self._canonical.memories[self._section[part]]
        digest = self._digests[part] = xxh3_128_digest(b"\0".join(self.of(part)) + memory)
        return digest

    def of(self, part: int) -> tuple[bytes, bytes, bytes]:
        """Return bytes, reference rows and special entries of a part (anonymous data without trailing zeros)."""
        low, high, kind = self._first[part], self._first[part + 1], self._kind[part]
        data = self.data(part)
        if kind == PIECE:
            # The zeros behind anonymous data align what comes next; fields of references are zeros too.
            keep = int(self._canonical.references.place[high - 1]) - self._start[part] + 8 if high > low else 0
            data = data[:keep] + data[keep:].rstrip(b"\0")
        entries = self._special.of_nameless.get(part)
        special = self._special.hashed(*entries) if entries is not None else b""
        if kind == CONTENT:
            symbol = self._canonical.objects.symbols[int(self._canonical.part_symbols(part)[0])]
            special += b"%d %d %d" % (symbol["info"], symbol["other"], symbol["size"])
        return data, self._rows[low:high].tobytes() if high > low else b"", special

    def data(self, part: int) -> bytes:
        """Return the bytes of a part with references cleared (empty for .bss)."""
        return bytes(self._canonical.image.buffer[self._start[part] : self._end[part]])
