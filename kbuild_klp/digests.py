# SPDX-License-Identifier: GPL-2.0-only
"""Digests of what references mean: one row of fixed layout a reference, ready to be hashed in slices.

A named target is the digest of its canonical name, anything else the digest of its content. Rows of one part lie
behind each other, so hashing the references of a function is hashing one slice of bytes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_128_digest

from kbuild_klp.canonical import CanonicalObject
from kbuild_klp.canonical.families import find_families
from kbuild_klp.canonical.owned import NOBODY, OwnerSlice, SortedTable, sort_by_owner, take_lines
from kbuild_klp.canonical.parts import CONTENT, NAMED, PIECE, STRINGS
from kbuild_klp.elf import constants as elf
from kbuild_klp.names import canonical_name

REFERENCE_ROW = np.dtype(
    [
        ("place", "<i8"),
        ("kind", "<i4"),
        ("ordinal", "<u4"),
        ("offset", "<i8"),
        ("high", "<u8"),
        ("low", "<u8"),
    ]
)
ROW_SIZE = REFERENCE_ROW.itemsize
_CYCLE = xxh3_128_digest(b"\0cycle")


def as_bytes(rows: NDArray[np.void]) -> memoryview:
    """Return reference rows as bytes to be cut into slices, without copying them."""
    return memoryview(rows.view(np.uint8)).cast("B") if len(rows) else memoryview(b"")  # type: ignore[arg-type]


class Digests:
    """The references of one object as rows to be hashed, and the content of what has no name.

    ``rows`` has shape (references,) and dtype REFERENCE_ROW; ``data`` is the image with all references and line
    numbers cleared; ``owned`` lists, by part, the special entries that belong to it; ``by_content`` gives the part
    for each reference that is known by content; ``numbered`` lists, by part, the numbered symbols it refers to in
    the order of first use; ``record_lines`` holds what was cleared in sections of class records, by section: base,
    entry size and one row of line numbers an entry.
    """

    def __init__(self, canonical: CanonicalObject) -> None:
        self.canonical = canonical
        self.families = find_families(canonical)
        self.tables: list[SortedTable] = []
        image = canonical.image
        # By name: their order in the object is that of first use, which any function may change.
        section_names = canonical.object.section_names
        for section in sorted(image.owned, key=lambda section: (section_names[section], section)):
            self.tables.append(sort_by_owner(canonical, image.owned[section]))
        self.record_lines = self._take_record_lines()
        self.data = image.data.tobytes()
        image.data = np.frombuffer(self.data, np.uint8)  # from here on nothing changes; one copy is enough
        self.rows = np.zeros(len(canonical.references.place), REFERENCE_ROW)
        self.by_content: dict[int, int] = {}
        self.numbered: dict[int, list[int]] = {}
        self._first = canonical.first_reference.tolist()
        self._content: dict[int, bytes] = {}
        self._many_files = self.families.files.many
        self._info: list[int] = canonical.object.symbols["info"].tolist()
        self._shndx: list[int] = canonical.object.shndx.tolist()
        if len(canonical.parts.start):
            self._fill_rows()

    @cached_property
    def owned(self) -> dict[int, list[tuple[SortedTable, OwnerSlice]]]:
        """The special entries of each part."""
        return self._owned(lambda part: True)

    @cached_property
    def _owned_by_content(self) -> dict[int, list[tuple[SortedTable, OwnerSlice]]]:
        """The special entries of parts without a name: few, unlike those of functions."""
        named = (self.canonical.parts.kind == NAMED).tolist()
        return self._owned(lambda part: part >= 0 and not named[part])

    @property
    def nameless_owners(self) -> set[int]:
        """The parts without a name that have special entries."""
        return set(self._owned_by_content)

    def _owned(self, wanted: Callable[[int], bool]) -> dict[int, list[tuple[SortedTable, OwnerSlice]]]:
        found: dict[int, list[tuple[SortedTable, OwnerSlice]]] = defaultdict(list)
        for table in self.tables:
            for owner in table.owners:
                if wanted(owner.part):
                    found[owner.part].append((table, owner))
        return found

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
        part_of = parts.at(references.place)
        rows["place"] = references.place - parts.start[part_of]
        rows["kind"] = references.kind
        rows["offset"] = targets.offset
        self._set_digests(targets.symbol >= 0, targets.symbol, self._symbol_digest)
        self._set_digests(targets.section >= 0, targets.section, self._section_digest)
        by_content = (targets.symbol < 0) & (targets.section < 0)
        strings = by_content & (parts.kind[targets.part] == STRINGS)
        self._set_digests(strings, references.target, self._string_digest)
        rows["offset"][strings] = 0
        self._number(part_of)
        content = (by_content & ~strings).nonzero()[0]
        self.by_content = dict(zip(content.tolist(), targets.part[content].tolist(), strict=True))
        self._drop_empty_content()
        for reference, part in self.by_content.items():
            self._resolve(reference, part)

    def _set_digests(self, which: NDArray[np.bool_], keys: NDArray[np.int64], digest: Callable[[int], bytes]) -> None:
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
        table = np.frombuffer(b"".join(map(digest, unique.tolist())), "<u8").reshape(-1, 2)
        rank = position[wanted]
        self.rows["high"][index] = table[rank, 0]
        self.rows["low"][index] = table[rank, 1]

    def _symbol_digest(self, symbol: int) -> bytes:
        """Return the digest that stands for a symbol in references to it."""
        obj = self.canonical.object
        name = obj.symbol_name(symbol)
        section, info = self._shndx[symbol], self._info[symbol]
        if info & 0xF == elf.STT_SECTION or (not name and section > 0):
            text = f"\0section {self.canonical.section_names[section] if section > 0 else section}"
        elif section == elf.SHN_UNDEF:
            text = f"{name}\0weak" if info >> 4 == elf.STB_WEAK else name
            visibility = int(obj.symbols["other"][symbol]) & 3
            if visibility:
                text += f"\0visibility {visibility}"
        elif section == elf.SHN_ABS - 0x10000:
            text = f"{name}\0absolute {int(obj.symbols['value'][symbol])}"
        else:
            text = name
            if "." in name or name.startswith("_"):  # else there is nothing that canonical_name would take out
                text, numbered = canonical_name(name)
                if numbered:
                    text += "\0numbered"  # a static local is not the variable of that name outside of functions
            if self._many_files and info >> 4 == elf.STB_LOCAL:
                text = f"{self.families.files.name(symbol)}\0{text}"
        return xxh3_128_digest(text.encode("utf-8", "surrogateescape"))

    def _section_digest(self, section: int) -> bytes:
        return xxh3_128_digest(f"\0section {self.canonical.section_names[section]}".encode("utf-8", "surrogateescape"))

    def _string_digest(self, address: int) -> bytes:
        end = self.data.find(b"\0", address)
        # The middle of a string means all of it: "0123456789abcdef"[i + 10] may reach what stands before.
        start = self.data.rfind(b"\0", 0, address) + 1
        text = self.data[start : end + 1]
        return xxh3_128_digest(text if start == address else b"%d\0%s" % (address - start, text))

    def _number(self, part_of: NDArray[np.int64]) -> None:
        """Tell numbered symbols of one name apart by the order in which a part first refers to them."""
        numbered = self.families.numbered
        if not numbered:
            return
        symbols = self.canonical.targets.symbol
        is_numbered = np.zeros(len(self.canonical.object.symbols), bool)
        is_numbered[list(numbered)] = True
        hits = (is_numbered[np.maximum(symbols, 0)] & (symbols >= 0)).nonzero()[0]
        owner = part_of.copy()
        for table in self.tables:
            counts = [slice_.high - slice_.low for slice_ in table.owners]
            owner[table.references] = np.repeat([slice_.part for slice_ in table.owners], counts)
        seen: dict[int, dict[str, dict[int, int]]] = {}
        ordinals = []
        for part, symbol in zip(owner[hits].tolist(), symbols[hits].tolist(), strict=True):
            same_name = seen.setdefault(part, {}).setdefault(numbered[symbol], {})
            ordinals.append(same_name.setdefault(symbol, len(same_name)))
        self.rows["ordinal"][hits] = ordinals
        for part, names in seen.items():
            self.numbered[part] = [symbol for same in names.values() for symbol in same]

    def _drop_empty_content(self) -> None:
        """Take out references to content of which none is used: an alternative that replaces by nothing.

        They point at whatever lies next to them.
        """
        for table in self.tables:
            field = table.table.row.content
            if field is None:
                continue
            size = table.table.entry_size
            lengths = np.frombuffer(table.data, np.uint8).reshape(-1, size)[:, field.length % size]
            for owner in table.owners:
                record, offset = np.divmod(table.places[owner.low : owner.high], size)
                empty = (offset == field.reference) & (lengths[owner.start + record] == 0)
                for reference in table.references[owner.low : owner.high][empty].tolist():
                    if self.by_content.pop(reference, None) is not None:
                        self.rows["offset"][reference] = 0

    # -- content --------------------------------------------------------------------------------------------------

    def _resolve(self, reference: int, part: int) -> None:
        digest = self.content_digest(part)
        row = self.rows[reference]
        row["high"] = int.from_bytes(digest[:8], "little")
        row["low"] = int.from_bytes(digest[8:], "little")

    def _nested(self, part: int) -> Iterator[tuple[int, int]]:
        """Return the references of a part to parts that are known by content, with these parts."""
        references = list(range(self._first[part], self._first[part + 1]))
        for table, owner in self._owned_by_content.get(part, ()):
            references += table.references[owner.low : owner.high].tolist()
        return ((reference, self.by_content[reference]) for reference in references if reference in self.by_content)

    def content_digest(self, part: int) -> bytes:
        """Return the digest of a part that is known by content, its own references included."""
        known = self._content.get(part)
        if known is not None:
            return known
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
                self._content[current] = xxh3_128_digest(b"\0".join(self.content(current)))
                stack.pop()
                if user >= 0:
                    self._resolve(user, current)
        return self._content[part]

    def content(self, part: int) -> tuple[bytes, bytes, bytes]:
        """Return bytes, reference rows and special entries of a part (anonymous data without trailing zeros)."""
        parts = self.canonical.parts
        low, high = self._first[part], self._first[part + 1]
        data = self.part_data(part)
        if parts.kind[part] == PIECE:
            # The zeros behind anonymous data align what comes next; fields of references are zeros too.
            keep = int(self.rows["place"][high - 1]) + 8 if high > low else 0
            data = data[:keep] + data[keep:].rstrip(b"\0")
        special = b"".join(self.special_bytes(table, owner) for table, owner in self._owned_by_content.get(part, ()))
        if parts.kind[part] == CONTENT:
            symbol = self.canonical.object.symbols[int(self.canonical.part_symbols(part)[0])]
            special += b"%d %d %d" % (symbol["info"], symbol["other"], symbol["size"])
        return data, self.rows[low:high].tobytes(), special

    def part_data(self, part: int) -> bytes:
        """Return the bytes of a part with references cleared (empty for .bss)."""
        start, end = int(self.canonical.parts.start[part]), int(self.canonical.parts.end[part])
        return self.data[start:end]

    def table_rows(self, table: SortedTable, low: int = 0, high: int | None = None) -> memoryview:
        """Return the rows of a table's references ``low`` to ``high``, places counted from each owner's first entry."""
        rows = self.rows[table.references[low:high]]
        rows["place"] = table.places[low:high]
        # The owner is whoever hashes this; where in it the entry applies is the row's offset.
        is_owner = table.owner_references[low:high]
        rows["high"][is_owner] = 0
        rows["low"][is_owner] = 0
        return as_bytes(rows)

    def special_bytes(self, table: SortedTable, owner: OwnerSlice) -> bytes:
        """Return what is hashed of the entries of one owner."""
        name = self.canonical.object.section_names[table.section].encode("utf-8", "surrogateescape")
        return table.special_bytes(name, owner, self.table_rows(table, owner.low, owner.high))

    def nobodys(self) -> list[tuple[SortedTable, OwnerSlice]]:
        """Return the special entries that belong to no part."""
        return [(table, owner) for table in self.tables for owner in table.owners[:1] if owner.part == NOBODY]
