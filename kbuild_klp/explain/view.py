# SPDX-License-Identifier: GPL-2.0-only
"""One object as explanations need it: parts found by entry, references in words."""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

import numpy as np

from kbuild_klp.arch.registry import Architecture
from kbuild_klp.canonical import CanonicalObject, PartKind, canonicalize
from kbuild_klp.digests import KIND_SHIFT, Digests
from kbuild_klp.elf import constants as elf
from kbuild_klp.elf.reader import ObjectFile
from kbuild_klp.entry import Entry

_MOST_TEXT = 40


class Reference(NamedTuple):
    """A reference of a part.

    ``place`` in it; ``key`` equal for references that mean the same; ``row`` its index in References.
    """

    place: int
    key: tuple[int, ...]
    row: int


class SpecialEntries(NamedTuple):
    """Entries of one special section that belong to one part.

    ``data`` their bytes, ``entry_size`` each; ``references`` indices into References; ``meaning`` what is hashed.
    """

    number: int
    entry_size: int
    data: bytes
    references: list[int]
    meaning: bytes


class ObjectView:
    """An object, its parts by entry and its references in words."""

    def __init__(self, path: str) -> None:
        self.canonical: CanonicalObject = canonicalize(ObjectFile.open(path))
        self.digests = Digests(self.canonical)
        self.object = self.canonical.object
        self._parts = self._index_parts()
        self._first: list[int] = self.canonical.first_reference.tolist()

    @property
    def architecture(self) -> Architecture:
        """The machine of the object."""
        return self.canonical.image.architecture

    def _index_parts(self) -> dict[str, list[int]]:
        index: dict[str, list[int]] = defaultdict(list)
        files = self.digests.families.files
        info = self.object.symbols["info"]
        kinds = self.canonical.parts.kind
        for part in np.flatnonzero((kinds == PartKind.NAMED) | (kinds == PartKind.CONTENT)).tolist():
            symbol = int(self.canonical.part_symbols(part)[0])
            name = self.object.symbol_name(symbol)
            if files.many and info[symbol] >> 4 == elf.STB_LOCAL:
                name = f"{name}@{files.name(symbol)}"
            index[name].append(part)
        return index

    def parts_of(self, entry: Entry) -> list[int]:
        """Return the parts of an entry, the main one first; empty when it has none (sections, absolute symbols)."""
        candidates = self._parts.get(entry.name, [])
        for part in candidates:
            size = int(self.canonical.parts.end[part] - self.canonical.parts.start[part])
            if self.canonical.section_name(part) == entry.section and size == entry.size:
                return [part, *self.digests.families.children.get(part, ())]
        return candidates[:1]

    def alias_of(self, symbol: str) -> str | None:
        """Return the name of the entry that ``symbol`` is another name of, or a label in; None if it is not there."""
        chunks = self.canonical.chunks
        for at, member in enumerate(chunks.symbols.tolist()):
            if self.object.symbol_name(member) == symbol:
                chunk = int(np.searchsorted(chunks.first, at, "right")) - 1
                return self.object.symbol_name(int(chunks.symbols[chunks.first[chunk]]))
        return None

    def references(self, part: int) -> list[Reference]:
        """Return the references of a part, in order of place."""
        low, high = self._first[part], self._first[part + 1]
        rows: list[list[int]] = self.digests.rows[low:high].tolist()
        mask = (1 << KIND_SHIFT) - 1
        return [
            Reference(place & mask, (place >> KIND_SHIFT, *target), low + at)
            for at, (place, *target) in enumerate(rows)
        ]

    def target_symbol(self, index: int) -> int:
        """Return the symbol that a reference is known by, -1 when by something else."""
        return int(self.canonical.targets.symbol[index])

    def content_part(self, index: int) -> int | None:
        """Return the part by whose content a reference is known, None when by something else."""
        return self.digests.by_content.get(index)

    def string(self, index: int) -> str | None:
        """Return the text to which a reference points, None when it points to something else."""
        targets = self.canonical.targets
        part = int(targets.part[index])
        by_content = targets.symbol[index] < 0 and targets.section[index] < 0 and part >= 0
        if not by_content or self.canonical.parts.kind[part] != PartKind.STRINGS:
            return None
        address = int(self.canonical.references.target[index])
        end = self.digests.data.find(b"\0", address)
        return self.digests.data[address:end].decode("utf-8", "backslashreplace")

    def describe(self, index: int) -> str:
        """Return a reference's target in words."""
        text = self.string(index)
        if text is not None:
            return quote(text)
        targets = self.canonical.targets
        offset = int(targets.offset[index])
        suffix = "" if not offset else f"{'+' if offset > 0 else '-'}{abs(offset):#x}"
        symbol, section = int(targets.symbol[index]), int(targets.section[index])
        if symbol >= 0:
            name = self.object.symbol_name(symbol)
            if not name and self.object.shndx[symbol] > 0:
                name = self.object.section_names[int(self.object.shndx[symbol])]
            return f"{name or 'address'}{suffix}"
        if section >= 0:
            return f"{self.object.section_names[section]}{suffix}"
        part = int(targets.part[index])
        members = self.canonical.part_symbols(part)
        if len(members):
            return f"{self.object.symbol_name(int(members[0]))}{suffix}"
        return f"unnamed data in {self.canonical.section_name(part)}"

    def special(self, parts: list[int]) -> dict[str, list[SpecialEntries]]:
        """Return the special entries of some parts, by section name."""
        owned = self.digests.owned
        found: dict[str, list[SpecialEntries]] = defaultdict(list)
        for part in parts:
            low, high = np.searchsorted(owned.owner, [part, part + 1]).tolist()
            for table in sorted(set(owned.table[low:high].tolist())):
                start, end = (low + np.searchsorted(owned.table[low:high], [table, table + 1])).tolist()
                first, last = owned.reference_at[[start, end]].tolist()
                data = owned.data[owned.data_at[start] : owned.data_at[end]]
                found[self.object.section_names[owned.tables[table].section]].append(
                    SpecialEntries(
                        end - start,
                        owned.tables[table].entry_size,
                        data,
                        owned.references[first:last].tolist(),
                        self.digests.special_bytes(start, end),
                    )
                )
        return found


def quote(text: str) -> str:
    """Return a string literal, cut when long."""
    cut = text if len(text) <= _MOST_TEXT else text[: _MOST_TEXT - 3] + "..."
    printable = cut.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    return '"' + "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in printable) + '"'
