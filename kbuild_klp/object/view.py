# SPDX-License-Identifier: GPL-2.0-only
"""One object as explanations need it: parts found by entry, references in words."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kbuild_klp.arch.registry import Architecture
from kbuild_klp.elf import constants as elf
from kbuild_klp.elf.reader import ObjectFile
from kbuild_klp.elf.symbol_names import canonical_name
from kbuild_klp.object.apart import take_apart
from kbuild_klp.object.canonical import Canonical, canonicalize
from kbuild_klp.object.kinds import Kinds
from kbuild_klp.object.meanings import KIND_SHIFT, find_meanings
from kbuild_klp.object.parts import CONTENT, NAMED, PIECE, STRINGS
from kbuild_klp.object.reach import used_content
from kbuild_klp.object.runs import run_bounds, with_end
from kbuild_klp.object.symbol_id import SymbolId

if TYPE_CHECKING:
    from kbuild_klp.object.code import PartCode

# What is shorter may be a number: of 32 bits, these are larger than any line.
_TEXT = re.compile(rb"[\x01\t\n\r\x1b -~\x80-\xff]{3,}\0+")


class Reference(NamedTuple):
    """A reference of a part.

    ``place`` in it; ``key`` equal for references that mean the same (its first element is the kind of relocation);
    ``row`` its index in References.
    """

    place: int
    key: tuple[int, ...]
    row: int


class ObjectView:
    """An object, its parts by entry and its references in words."""

    def __init__(self, file: str | ObjectFile | Canonical) -> None:
        if not isinstance(file, Canonical):
            file = canonicalize(ObjectFile.open(file) if isinstance(file, str) else file)
        self.canonical = file
        [self.file] = file.objects.files
        self.meanings = find_meanings(self.canonical)
        self.object = self.canonical.objects
        self.kinds = Kinds(self.architecture)
        self._first: list[int] = self.canonical.first_reference.tolist()
        self._found: dict[SymbolId | None, list[int]] = {}
        self._contents: dict[int, NDArray[np.uint8]] = {}
        self._strings: dict[int, str | None] = {}
        self.code: dict[int, PartCode] = {}
        """The parts that were taken apart into instructions."""
        self.expected_parts: dict[int, int] = {}
        """The parts that may be asked for next, each with its place in that order."""

    @property
    def architecture(self) -> Architecture:
        """The machine of the object."""
        return self.canonical.image.architecture

    @cached_property
    def _named_parts(self) -> tuple[dict[str, int], dict[str, list[int]]]:
        """The parts that are known by a symbol, by what ELF calls it: one of each name, and those that share theirs."""
        parts, chunks = self.canonical.parts, self.canonical.chunks
        found = np.flatnonzero((parts.kind == NAMED) | (parts.kind == CONTENT))
        names, numbers = self.object.names_of(chunks.heads[parts.chunk[found]].tolist()), found.tolist()
        last = dict(zip(names, numbers, strict=True))
        shared: dict[str, list[int]] = {}
        if len(last) < len(names):
            shared = {name: [] for name, part in zip(names, numbers, strict=True) if last[name] != part}
            for name, part in zip(names, numbers, strict=True):
                if name in shared:
                    shared[name].append(part)
        return last, shared

    def _parts_called(self, name: str) -> list[int]:
        """Return the parts that are known by a symbol of a name, in order."""
        one, shared = self._named_parts
        return shared.get(name) or ([one[name]] if name in one else [])

    def parts_of(self, symbol: SymbolId | None) -> list[int]:
        """Return the parts of a function or variable, the main one first; empty when it has none (absolute symbols)."""
        if symbol not in self._found:
            self._found[symbol] = self._find_parts(symbol)
        return self._found[symbol]

    def _find_parts(self, symbol: SymbolId | None) -> list[int]:
        candidates = [] if symbol is None else self._parts_called(symbol.name)
        part = next((part for part in candidates if self.symbol_of(part) == symbol), None)
        return [] if part is None else self.family(part)

    def symbol_of(self, part: int) -> SymbolId | None:
        """Return the symbol by which a part is known, None for one without."""
        chunk = int(self.canonical.parts.chunk[part])
        return self.canonical.sources.id_of(int(self.canonical.chunks.heads[chunk])) if chunk >= 0 else None

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
        return [Reference(place, key, index) for index, (place, key) in enumerate(self.meaning_rows(low, high), low)]

    def meaning_rows(self, low: int, high: int) -> list[tuple[int, tuple[int, ...]]]:
        """Return place and meaning of references: the kind, and what is equal for what means the same."""
        rows: list[list[int]] = self.meanings.rows[low:high].tolist()
        mask = (1 << KIND_SHIFT) - 1
        return [(first & mask, (first >> KIND_SHIFT, *target)) for first, *target in rows]

    def reference_range(self, part: int) -> range:
        """Return the indices of a part's references."""
        return range(self._first[part], self._first[part + 1])

    @cached_property
    def _by_target(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """All references in the order of the parts to which they go, and these parts."""
        target = self.canonical.targets.part
        order = np.argsort(target, kind="stable")
        return order, target[order].astype(np.int64)

    def references_to(self, part: int) -> list[int]:
        """Return the references that go to a part, in order of place."""
        order, targets = self._by_target
        low, high = np.searchsorted(targets, [part, part + 1])
        found: list[int] = order[low:high].tolist()
        return found

    def content_rows(self, part: int) -> list[int]:
        """Return the references of a part to strings, and to what else has no name that means anything."""
        low, high = self._first[part], self._first[part + 1]
        rows: list[int] = (self._is_content[low:high].nonzero()[0] + low).tolist()
        return rows

    @cached_property
    def _is_content(self) -> NDArray[np.bool_]:
        return self.canonical.targets.is_content

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
        if section not in self._contents:
            self._contents[section] = self.object.content(section)
        return self._contents[section][start + offset : start + offset + size].tobytes()

    def place(self, part: int) -> tuple[int, int]:
        """Return where a part starts: number of the section, offset in it."""
        section = int(self.canonical.parts.section[part])
        return section, int(self.canonical.parts.start[part] - self.canonical.image.base[section])

    def has_symbol(self, name: str) -> bool:
        """Say whether a function or variable of that name has bytes of its own here."""
        return name in self._named_parts[0]

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

    def rows_into(self, part: int, family: Collection[int]) -> set[int]:
        """Return the references of a part that go to one of ``family``: the few that may be inner ones."""
        low, high = self._first[part], self._first[part + 1]
        targets = self.canonical.targets.part[low:high].tolist()
        return {row for row, target in enumerate(targets, low) if target in family}

    def known_by_content(self, part: int) -> list[int]:
        """Return the references of a part to parts that are known by content."""
        by_content = self.meanings.by_content
        return [row for row in self.reference_range(part) if row in by_content]

    @cached_property
    def _goes_to_lines(self) -> NDArray[np.bool_]:
        """Whether each reference goes to a record from which line numbers were taken."""
        canonical = self.canonical
        has_lines = np.isin(with_end(canonical.parts.section), [*canonical.record_lines])
        has_lines[[*canonical.pointed_lines]] = True
        return has_lines[canonical.targets.part]  # the end is for those that go to no part

    def rows_to_lines(self, part: int) -> list[int]:
        """Return the references of a part to records with line numbers that are known by content."""
        low, high = self._first[part], self._first[part + 1]
        rows: list[int] = (self._goes_to_lines[low:high].nonzero()[0] + low).tolist()
        return [row for row in rows if row in self.meanings.by_content]

    def entries_have_lines(self, part: int) -> bool:
        """Say whether the special entries of a part have line numbers, or refer to records that may."""
        owned = self.canonical.owned
        if part in owned.lines:
            return True
        low, high = (int(owned.reference_at[entry]) for entry in self.owned_entries.get(part, (0, 0)))
        return bool(self._goes_to_lines[owned.references[low:high]].any())

    def functions_called(self, name: str) -> list[int]:
        """Return the main parts of all functions of a name."""
        parent, end = self.canonical.families.parent, self.canonical.image.code_end
        start = self.canonical.parts.start
        return [part for part in self._parts_called(name) if part not in parent and start[part] < end]

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
        references = self.entries(part)
        if not references or any(self.data(part)):
            return None
        entries = [self.inner_target(index, family) for index in references]
        return [entry for entry in entries if entry is not None] if all(entries) else None

    def entries(self, part: int) -> list[int]:
        """Return the references of a table, without those that take off its start: its entries may count from there."""
        kinds, targets = self.canonical.references.kind, self.canonical.targets
        return [
            row
            for row in self.reference_range(part)
            if not (self.kinds.subtracts(int(kinds[row])) and (targets.part[row], targets.offset[row]) == (part, 0))
        ]

    def string(self, index: int) -> str | None:
        """Return the text to which a reference points, None when it points to something else."""
        if index not in self._strings:
            self._strings[index] = self._read_string(index)
        return self._strings[index]

    def text(self, index: int, length: int) -> str | None:
        """Return the text of ``length`` bytes to which a reference points, None when it points to no content."""
        address, targets = int(self.canonical.references.target[index]), self.canonical.targets
        part = int(targets.part[index])
        if part < 0 or targets.symbol[index] >= 0 or address + length > self.canonical.parts.end[part]:
            return None
        return self.canonical.image.buffer[address : address + length].decode("utf-8", "backslashreplace")

    def _read_string(self, index: int) -> str | None:
        targets = self.canonical.targets
        part = int(targets.part[index])
        by_content = targets.symbol[index] < 0 and targets.section[index] < 0 and part >= 0
        if not by_content or not (self.canonical.parts.kind[part] == STRINGS or self._is_text(part)):
            return None
        address = int(self.canonical.references.target[index])
        buffer = self.canonical.image.buffer
        return buffer[address : buffer.find(0, address)].decode("utf-8", "backslashreplace")

    def _is_text(self, part: int) -> bool:
        """Say whether data without a name are one string.

        scripts/module.lds.S of 7.x links .rodata.str* into .rodata, and the flag that these are strings is lost.
        """
        parts = self.canonical.parts
        if parts.kind[part] != PIECE or self.reference_range(part) or part in self.owned_entries:
            return False
        flags = int(self.object.sections["flags"][int(parts.section[part])])
        is_constant = flags & elf.SHF_MERGE and not flags & elf.SHF_STRINGS
        return not is_constant and not self.is_code(part) and _TEXT.fullmatch(self.data(part)) is not None

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
        found = (np.isin(parts.section, sections) & (parts.kind == PIECE)).nonzero()[0].tolist()
        return [part for part in found if part not in used]

    def symbol_order(self, name: str) -> list[tuple[str, int]]:
        """Return the names of what lies in the sections called ``name``, in order, and their offsets.

        Of tables the names of whom their entries belong to, without offsets.
        """
        owners = [
            owner
            for group in self.canonical.image.owned
            for section in group.sections.tolist()
            if self.canonical.section_names[section] == name
            for owner in self.canonical.owners_out_of_order(group, section)
        ]
        if owners:
            return [(owner, 0) for owner in owners]
        chunks, base = self.canonical.chunks, self.canonical.image.base
        found = np.isin(chunks.section, self.sections_called(name))
        heads = chunks.heads[found].tolist()
        offsets = (chunks.start - base[chunks.section])[found].tolist()
        names = (canonical_name(self.object.symbol_name(symbol)).text for symbol in heads)
        return list(zip(names, offsets, strict=True))

    @cached_property
    def owned_entries(self) -> dict[int, tuple[int, int]]:
        """The special entries of each part that owns some: from, to."""
        owner = self.canonical.owned.owner
        starts, ends = run_bounds(owner)
        return dict(zip(owner[starts].tolist(), zip(starts.tolist(), ends.tolist(), strict=True), strict=True))


def views_of(paths: Sequence[str]) -> list[ObjectView]:
    """Return views of some objects of one machine, read together; raises BadObjectError where one is not like that."""
    files = list(map(ObjectFile.open, paths))
    for file in files:
        if (file.machine, file.byteorder) != (files[0].machine, files[0].byteorder):
            raise file.error(f"is not of the machine of {files[0].path}")
    return list(map(ObjectView, take_apart(canonicalize(files)))) if files else []
