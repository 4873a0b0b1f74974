# SPDX-License-Identifier: GPL-2.0-only
"""One object as explanations need it: parts found by entry, references in words."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from kbuild_klp.arch.registry import Architecture
from kbuild_klp.elf import constants as elf
from kbuild_klp.elf.reader import ObjectFile
from kbuild_klp.elf.symbol_names import canonical_name
from kbuild_klp.object.canonical import canonicalize
from kbuild_klp.object.image import SpecialGroup
from kbuild_klp.object.meanings import KIND_SHIFT, find_meanings
from kbuild_klp.object.parts import PartKind
from kbuild_klp.object.reach import used_content
from kbuild_klp.object.references import UNKNOWN_KIND
from kbuild_klp.object.runs import run_bounds
from kbuild_klp.object.symbol_id import SymbolId
from kbuild_klp.special.table import SpecialSection

if TYPE_CHECKING:
    from kbuild_klp.object.code import PartCode

_MOST_TEXT = 40
_MOST_CONSTANT = 16


class Reference(NamedTuple):
    """A reference of a part.

    ``place`` in it; ``key`` equal for references that mean the same (its first element is the kind of relocation);
    ``row`` its index in References.
    """

    place: int
    key: tuple[int, ...]
    row: int


class EntryField(NamedTuple):
    """A field of an entry of a special section.

    ``text`` is its value in words, ``meaning`` equal for fields that mean the same; ``row`` is the index in
    References (None: a number); ``inner`` says that it is a place in the function itself, which is another one when
    instructions come or go before it.
    """

    name: str
    text: str
    meaning: tuple[object, ...]
    row: int | None
    inner: bool


class SpecialEntry(NamedTuple):
    """One entry of a special section.

    ``part`` is what it belongs to and ``place`` where in it (bytes); ``owner`` is the kind of relocation that says
    so; ``fields`` are the others, in order.
    """

    part: int
    place: int
    owner: int
    fields: tuple[EntryField, ...]


class EntryTable(NamedTuple):
    """The entries of one special section that belong to one part.

    ``data`` are their bytes, ``entry_size`` each; ``references`` indices into References, ``places`` where each stands
    counted from the first entry, ``is_owner`` whether it names the part; ``lines`` the line numbers of each entry.
    """

    section: str
    entry_size: int
    data: bytes
    references: list[int]
    places: list[int]
    is_owner: list[bool]
    lines: list[list[int]]


class ObjectView:
    """An object, its parts by entry and its references in words."""

    def __init__(self, path: str) -> None:
        self.file = ObjectFile.open(path)
        self.canonical = canonicalize(self.file)
        self.meanings = find_meanings(self.canonical)
        self.object = self.canonical.objects
        self._first: list[int] = self.canonical.first_reference.tolist()
        self.code: dict[int, PartCode] = {}
        """The parts that were taken apart into instructions."""

    @property
    def architecture(self) -> Architecture:
        """The machine of the object."""
        return self.canonical.image.architecture

    @cached_property
    def _named_parts(self) -> dict[str, list[int]]:
        """The parts that are known by a symbol, by what ELF calls it."""
        parts, chunks = self.canonical.parts, self.canonical.chunks
        found = np.flatnonzero((parts.kind == PartKind.NAMED) | (parts.kind == PartKind.CONTENT))
        named: dict[str, list[int]] = defaultdict(list)
        names = self.object.names_of(chunks.heads[parts.chunk[found]].tolist())
        for name, part in zip(names, found.tolist(), strict=True):
            named[name].append(part)
        return named

    def parts_of(self, symbol: SymbolId | None) -> list[int]:
        """Return the parts of a function or variable, the main one first; empty when it has none (absolute symbols)."""
        candidates = [] if symbol is None else self._named_parts.get(symbol.name, [])
        heads = self.canonical.chunks.heads[self.canonical.parts.chunk[candidates]]
        ids = self.canonical.sources.ids(heads) if candidates else []
        part = next((part for part, found in zip(candidates, ids, strict=True) if found == symbol), None)
        return [] if part is None else self.family(part)

    def family(self, part: int) -> list[int]:
        """Return a main part and those that were split off it."""
        return [part, *self.canonical.families.children.get(part, ())]

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
        return [Reference(place, key, index) for index, (place, key) in enumerate(self._rows(low, high), low)]

    def _rows(self, low: int, high: int) -> list[tuple[int, tuple[int, ...]]]:
        """Return place and meaning of references: the kind, and what is equal for what means the same."""
        rows: list[list[int]] = self.meanings.rows[low:high].tolist()
        mask = (1 << KIND_SHIFT) - 1
        return [(first & mask, (first >> KIND_SHIFT, *target)) for first, *target in rows]

    def reference_place(self, part: int, index: int) -> int:
        """Return where in a part one of its references stands, in bytes."""
        return int(self.canonical.references.place[index] - self.canonical.parts.start[part])

    def target_offset(self, index: int) -> int:
        """Return the place to which a reference goes, in bytes from what it is known by."""
        return int(self.canonical.targets.offset[index])

    def data(self, part: int) -> bytes:
        """Return the bytes of a part with references cleared (empty for .bss)."""
        return self.meanings.content.data(part)

    def raw_bytes(self, part: int, offset: int, size: int) -> bytes:
        """Return ``size`` bytes from ``offset`` in a part as they stand in the object."""
        section, start = self.place(part)
        return bytes(self.object.content(section)[start + offset : start + offset + size])

    def place(self, part: int) -> tuple[int, int]:
        """Return where a part starts: number of the section, offset in it."""
        section = int(self.canonical.parts.section[part])
        return section, int(self.canonical.parts.start[part] - self.canonical.image.base[section])

    def has_symbol(self, name: str) -> bool:
        """Say whether a function or variable of that name has bytes of its own here."""
        return name in self._named_parts

    def size(self, part: int) -> int:
        """Return the number of bytes of a part."""
        return int(self.canonical.parts.end[part] - self.canonical.parts.start[part])

    def part_name(self, part: int) -> str:
        """Return the symbol that names a part, empty for one without a name."""
        members = self.canonical.part_symbols(part)
        return self.object.symbol_name(int(members[0])) if len(members) else ""

    def is_code(self, part: int) -> bool:
        """Say whether a part lies in a section of machine code."""
        return bool(self.object.sections["flags"][int(self.canonical.parts.section[part])] & elf.SHF_EXECINSTR)

    def target_symbol(self, index: int) -> int:
        """Return the symbol that a reference is known by, -1 when by something else."""
        return int(self.canonical.targets.symbol[index])

    def content_part(self, index: int) -> int | None:
        """Return the part by whose content a reference is known, None when by something else."""
        return self.meanings.by_content.get(index)

    def memory(self, index: int) -> bytes | None:
        """Return what is hashed of the memory to which a reference goes, None for one that is not known by content."""
        targets = self.canonical.targets
        part = int(targets.part[index])
        if part < 0 or targets.symbol[index] >= 0 or targets.section[index] >= 0:
            return None
        return self.canonical.memories[int(self.canonical.parts.section[part])]

    @cached_property
    def _empty_variables(self) -> dict[int, str]:
        """The names, without number, of static variables without bytes, by address; empty where there are several."""
        found: dict[int, str] = {}
        for symbol, name in self.canonical.image.empty_variables.items():
            base = int(self.canonical.image.base[self.object.shndx[symbol]])
            if base >= 0:
                address = base + int(self.object.symbols["value"][symbol])
                found[address] = name if found.get(address, name) == name else ""
        return found

    def empty_variable(self, index: int) -> str:
        """Return the name, without number, of a static variable without bytes to which a reference may go.

        Something else may begin at the same place, as it does in .bss behind a struct lock_class_key without lockdep:
        then no object says which of the two is meant. Empty: it goes to no such place, or names another symbol.
        """
        references = self.canonical.references
        info = int(self.object.symbols["info"][int(references.symbol[index])])
        if references.symbol[index] and info & 0xF != elf.STT_SECTION and info >> 4 != elf.STB_LOCAL:
            return ""
        return self._empty_variables.get(int(references.target[index]), "")

    def describe_with_section(self, index: int) -> str:
        """Return a reference's target and the section in which it lies."""
        section = self.canonical.section_name(int(self.canonical.targets.part[index]))
        words = self.describe(index)
        return words if words.endswith(f" in {section}") else f"{words} in {section}"

    def rows_into(self, part: int, family: Collection[int]) -> set[int]:
        """Return the references of a part that go to one of ``family``: the few that may be inner ones."""
        low, high = self._first[part], self._first[part + 1]
        targets = self.canonical.targets.part[low:high].tolist()
        return {row for row, target in enumerate(targets, low) if target in family}

    def known_by_content(self, part: int) -> list[int]:
        """Return the references of a part to parts that are known by content."""
        by_content = self.meanings.by_content
        return [row for row in range(self._first[part], self._first[part + 1]) if row in by_content]

    def functions_that_name(self, text: str) -> list[int]:
        """Return the main parts of the functions that refer to a string: themselves, or something that they refer to.

        What refers to it for a function is an entry of a special section, or data that are known by content.
        """
        buffer, pattern = self.canonical.image.buffer, text.encode("utf-8", "surrogateescape") + b"\0"
        places = []
        at = buffer.find(pattern)
        while at >= 0:
            places.append(at)
            at = buffer.find(pattern, at + 1)
        targets, owner = self.canonical.targets, self.meanings.owner
        hits = np.isin(self.canonical.references.target, places).nonzero()[0]
        direct = {int(owner[row]) for row in hits.tolist() if self.string(row) == text}
        data = [part for part in direct if part >= 0 and not self.is_code(part)]
        users = direct.union(owner[np.isin(targets.part, data)].tolist())
        parent = self.canonical.families.parent
        return sorted({parent.get(part, part) for part in users if part >= 0 and self.is_code(part)})

    def functions_called(self, name: str) -> list[int]:
        """Return the main parts of all functions of a name."""
        parent, end = self.canonical.families.parent, self.canonical.image.code_end
        start = self.canonical.parts.start
        return [part for part in self._named_parts.get(name, ()) if part not in parent and start[part] < end]

    def inner_target(self, index: int, family: Collection[int]) -> tuple[int, int] | None:
        """Return part and offset to which a reference goes that stays in the code of ``family``; None for others.

        A reference that names a global symbol is none of these: the linker may give that name to something else.
        """
        targets, references = self.canonical.targets, self.canonical.references
        part = int(targets.part[index])
        if part not in family or not self.is_code(part):
            return None
        symbol = int(references.symbol[index])
        by_name = symbol and self.object.symbols["info"][symbol] >> 4 != elf.STB_LOCAL
        if by_name or targets.symbol[index] != self.canonical.part_symbols(part)[0]:
            return None
        return part, int(references.target[index] - self.canonical.parts.start[part])

    def jump_table(self, part: int, family: Collection[int]) -> list[tuple[int, int]] | None:
        """Return where the entries of a jump table go (part, offset), None for data that is no table of ``family``."""
        references = range(self._first[part], self._first[part + 1])
        if not references or any(self.data(part)):
            return None
        entries = [self.inner_target(index, family) for index in references]
        return [entry for entry in entries if entry is not None] if all(entries) else None

    def string(self, index: int) -> str | None:
        """Return the text to which a reference points, None when it points to something else."""
        targets = self.canonical.targets
        part = int(targets.part[index])
        by_content = targets.symbol[index] < 0 and targets.section[index] < 0 and part >= 0
        if not by_content or self.canonical.parts.kind[part] != PartKind.STRINGS:
            return None
        address = int(self.canonical.references.target[index])
        buffer = self.canonical.image.buffer
        return buffer[address : buffer.find(0, address)].decode("utf-8", "backslashreplace")

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
        return f"{self.part_name(part)}{suffix}" if self.part_name(part) else self._describe_nameless(part)

    def _describe_nameless(self, part: int) -> str:
        references = range(self._first[part], self._first[part + 1])
        flags = int(self.object.sections["flags"][int(self.canonical.parts.section[part])])
        if flags & elf.SHF_MERGE and self.size(part) <= _MOST_CONSTANT and not references:
            return f"constant {int.from_bytes(self.data(part), 'little'):#x}"
        kinds = {self.is_code(target) for i in references if (target := int(self.canonical.targets.part[i])) >= 0}
        what = "jump table" if kinds == {True} and not any(self.data(part)) else "unnamed data"
        return f"{what} in {self.canonical.section_name(part)}"

    def operand(self, index: int) -> str:
        """Return a reference's target as it stands in an instruction: what has no name of its own in <>."""
        words = self.describe(index)
        return words if self.target_symbol(index) >= 0 else f"<{words}>"

    def how(self, index: int) -> str:
        """Return how a reference refers to its target: relocation type, and what an undefined symbol is known by."""
        words = [self.relocation(int(self.canonical.references.kind[index]))]
        symbol = self.target_symbol(index)
        if symbol > 0:
            row, shndx = self.object.symbols[symbol], int(self.object.shndx[symbol])
            if shndx == elf.SHN_UNDEF:
                weak = int(row["info"]) >> 4 == elf.STB_WEAK
                words += ["undefined"] + ["weak"] * weak
                if row["other"] & 3:
                    words.append(elf.VISIBILITY_NAMES[int(row["other"]) & 3])
            elif shndx == elf.ABSOLUTE:
                words.append(f"absolute {int(row['value']):#x}")
        return " ".join(words)

    def relocation(self, kind: int) -> str:
        """Return the name of a kind of relocation."""
        names = [row.name for row in self.architecture.relocation_types.values() if row.kind == kind]
        return names[0] if names else f"relocation type {kind - UNKNOWN_KIND}"

    # -- what has no part of its own ------------------------------------------------------------------------------

    def bare_symbol(self, symbol: SymbolId) -> int | None:
        """Return the index of a symbol that has no bytes: an absolute or a common one."""
        shndx = self.object.shndx
        wanted = ((shndx == elf.ABSOLUTE) | (shndx == elf.COMMON)).nonzero()[0]
        ids = zip(wanted.tolist(), self.canonical.sources.ids(wanted), strict=True)
        return next((index for index, known in ids if known == symbol), None)

    def sections_called(self, name: str) -> list[int]:
        """Return the sections that share the entry ``name``, in the order of the image."""
        names = self.canonical.section_names
        return [section for section in self.canonical.image.order.tolist() if names[section] == name]

    def nameless_parts(self, name: str) -> list[int]:
        """Return the parts of the sections called ``name`` that no symbol covers and nobody refers to."""
        sections, used = self.sections_called(name), used_content(self.meanings)
        parts = self.canonical.parts
        found = (np.isin(parts.section, sections) & (parts.kind == PartKind.PIECE)).nonzero()[0].tolist()
        return [part for part in found if part not in used]

    def symbol_order(self, name: str) -> list[tuple[str, int]]:
        """Return the names of what lies in the sections called ``name``, in order, and their offsets."""
        chunks, base = self.canonical.chunks, self.canonical.image.base
        found = np.isin(chunks.section, self.sections_called(name))
        heads = chunks.heads[found].tolist()
        offsets = (chunks.start - base[chunks.section])[found].tolist()
        names = (canonical_name(self.object.symbol_name(symbol)).text for symbol in heads)
        return list(zip(names, offsets, strict=True))

    # -- special sections -----------------------------------------------------------------------------------------

    def special(self, parts: Sequence[int]) -> dict[str, list[SpecialEntry]]:
        """Return the special entries of some parts, by section name."""
        found: dict[str, list[SpecialEntry]] = defaultdict(list)
        for part in parts:
            for group, data, references in self._owned_entries(part):
                owner = references.pop(group.row.owner)  # or nobody would own it
                place = int(self.canonical.references.target[owner] - self.canonical.parts.start[part])
                kind = int(self.canonical.references.kind[owner])
                fields = tuple(self._fields(group.row, data, references, parts))
                found[group.name].append(SpecialEntry(part, place, kind, fields))
        return found

    def special_tables(self, part: int) -> list[EntryTable]:
        """Return the special entries of a part by table, without words."""
        owned = self.canonical.owned
        low, high = self._entries.get(part, (0, 0))
        if low == high:
            return []
        numbers = np.frombuffer(owned.lines.get(part, b""), "<u4").tolist()
        groups, ends = owned.group[low:high].tolist(), owned.reference_at[low : high + 1].tolist()
        first = ends[0]
        references, is_owner = owned.references[first : ends[-1]].tolist(), owned.is_owner[first : ends[-1]].tolist()
        places = owned.field[first : ends[-1]].tolist()
        data_at = owned.data_at[low : high + 1].tolist()
        found = []
        at = 0
        while at < len(groups):
            group, end = owned.groups[groups[at]], at + groups.count(groups[at])
            rows = range(ends[at] - first, ends[end] - first)
            for entry in range(at, end):
                for row in range(ends[entry] - first, ends[entry + 1] - first):
                    places[row] += (entry - at) * group.entry_size
            fields = len(group.row.lines)
            lines = [numbers[fields * entry : fields * (entry + 1)] for entry in range(end - at)]
            numbers = numbers[fields * (end - at) :]
            data = owned.data[data_at[at] : data_at[end]]
            mine = slice(rows.start, rows.stop)
            found.append(
                EntryTable(group.name, group.entry_size, data, references[mine], places[mine], is_owner[mine], lines)
            )
            at = end
        return found

    @cached_property
    def _entries(self) -> dict[int, tuple[int, int]]:
        """The special entries of each part that owns some: from, to."""
        owner = self.canonical.owned.owner
        starts, ends = run_bounds(owner)
        return dict(zip(owner[starts].tolist(), zip(starts.tolist(), ends.tolist(), strict=True), strict=True))

    def _owned_entries(self, part: int) -> Iterator[tuple[SpecialGroup, bytes, dict[int, int]]]:
        """Yield the entries that a part owns: table, bytes, and index in References by place in the entry."""
        owned = self.canonical.owned
        for entry in range(*self._entries.get(part, (0, 0))):
            first, last = owned.reference_at[entry : entry + 2].tolist()
            fields, indices = owned.field[first:last].tolist(), owned.references[first:last].tolist()
            data = owned.data[owned.data_at[entry] : owned.data_at[entry + 1]]
            yield owned.groups[int(owned.group[entry])], data, dict(zip(fields, indices, strict=True))

    def _fields(
        self, row: SpecialSection, data: bytes, references: dict[int, int], family: Collection[int]
    ) -> Iterator[EntryField]:
        lines = {field.offset for field in row.lines}
        starts = sorted({*row.names, *references}) or [row.owner]
        for start, end in zip(starts, [*starts[1:], len(data)], strict=True):
            name = row.names.get(start, f"+{start:#x}")
            index = references.get(start)
            if index is not None:
                ((_, key),) = self._rows(index, index + 1)
                inner = self.inner_target(index, family)
                text = f"+{inner[1]:#x}" if inner else self.describe(index)
                # Digests knows an alternative that is replaced by nothing by no content.
                if row.content and row.content.reference == start and self.content_part(index) is None:
                    text = "nothing"
                yield EntryField(name, text, key, index, inner is not None)
            elif start not in lines and (start in row.names or any(data[start:end])):
                value = data[start:end]
                text = str(int.from_bytes(value, "little")) if start in row.names else value.hex()
                yield EntryField(name, text, (value,), None, False)


def quote(text: str, most: int = _MOST_TEXT) -> str:
    """Return a string literal, cut when it has more than ``most`` characters."""
    cut = text if len(text) <= most else text[: most - 3] + "..."
    printable = cut.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    return '"' + "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in printable) + '"'
