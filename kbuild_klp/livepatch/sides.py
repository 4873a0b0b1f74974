# SPDX-License-Identifier: GPL-2.0-only
"""What one object says about its functions that matters to a livepatch; each table is made once, when first asked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kbuild_klp.checksum.entry import Entry
from kbuild_klp.elf import constants as elf
from kbuild_klp.livepatch.rules import is_init
from kbuild_klp.object.function import goes_to_target
from kbuild_klp.object.parts import CONTENT, NAMED, OWNED, PIECE
from kbuild_klp.object.reference_text import describe
from kbuild_klp.object.special_entries import owned_entries, special_entries
from kbuild_klp.object.special_groups import SpecialGroup
from kbuild_klp.object.symbol_id import SymbolId
from kbuild_klp.object.view import ObjectView

# Where in an entry of __jump_table the key stands: struct jump_entry, include/linux/jump_label.h.
JUMP_TABLE, JUMP_KEY = "__jump_table", 8
# static_call(x) calls __SCT__x in an object; objtool lists the call for patching later, under IBT and LTO much later
# (include/linux/static_call.h). The key of that is __SCK__x.
TRAMPOLINE, CALL_KEY = "__SCT__", "__SCK__"
_READ_ONLY = ".rodata"
_CONTENT = (CONTENT, PIECE)
_START = (".init.text", ".exit.text")  # .meminit.text may stay
_NOINSTR = (".noinstr.text", ".entry.text")


class Key(NamedTuple):
    """A static key, or the trampoline of a static call, that a function uses.

    ``is_defined``: in the same object; ``local`` is which of its symbols, where that is a local one.
    """

    symbol: str
    is_call: bool
    is_defined: bool
    local: SymbolId | None = None


class FunctionSymbol(NamedTuple):
    """The symbol of a function, by which it is found again in the linked image.

    ``file`` is the STT_FILE symbol of a local one, empty in assembly.
    """

    name: str
    size: int
    is_local: bool
    is_weak: bool
    file: str


class TableEntries(NamedTuple):
    """What a table says of a function: equal where it is the same; ``is_known``: a row of special.toml is about it."""

    is_known: bool
    entries: tuple[tuple[object, ...], ...]


class ObjectSide:
    """The object of one build; ``is_vmlinux``: it is linked into nothing else."""

    def __init__(self, view: ObjectView, *, is_vmlinux: bool = False) -> None:
        self.view = view
        self.is_vmlinux = is_vmlinux
        self._canonical = view.canonical
        self._object = view.object

    # -- functions ------------------------------------------------------------------------------------------------

    @cached_property
    def _traced(self) -> frozenset[int]:
        """The parts in which ftrace has a place, as ftrace_location() in kernel/trace/ftrace.c finds it."""
        arch = self.view.architecture
        owned = self._canonical.owned
        listed = [at for at, group in enumerate(owned.groups) if group.name == arch.trace_section]
        if listed:
            return frozenset(owned.owner[np.isin(owned.group, listed)].tolist())
        # objtool makes the list when it sees the linked kernel: the calls are what it will find.
        undefined = np.flatnonzero(self._object.shndx == elf.SHN_UNDEF).tolist()
        symbols = [symbol for symbol in undefined if self._object.symbol_name(symbol) == arch.trace_call]
        calls = np.flatnonzero(np.isin(self._canonical.targets.symbol, symbols))
        parts, places = self.parts_at(calls), self._canonical.references.place[calls]
        at = places - self._canonical.parts.start[parts]
        return frozenset(parts[np.isin(at, arch.trace_fields)].tolist())

    def untraced(self, entry: Entry) -> str | None:
        """Return why ftrace cannot take over a function, empty if it can, None when its code is not there."""
        parts = self.view.parts_of(entry.part_symbol)
        if not parts:
            return None
        if parts[0] in self._traced:
            return ""
        if entry.section.startswith(_NOINSTR):
            return f"no fentry (in {entry.section})"
        if not self._file_of(parts[0]):
            return "no fentry (assembly)"
        return "no fentry (notrace)" if self._traced else "no fentry (its object is compiled without)"

    def told(self, entry: Entry) -> dict[str, TableEntries]:
        """Return what the tables that somebody walks through say of a function, by section."""
        names = {group.name for group in self._walked}
        parts = self.view.parts_of(entry.part_symbol)
        if not names or not any(part in self.view.owned_entries for part in parts):
            return {}
        unknown = {group.name for group in self._walked if group.cuts is not None}
        return {
            name: TableEntries(
                name not in unknown,
                tuple((it.place, it.owner, *((own.name, own.meaning) for own in it.fields)) for it in entries),
            )
            for name, entries in special_entries(self.view, parts).items()
            if name in names
        }

    def symbol(self, entry: Entry) -> FunctionSymbol | None:
        """Return the symbol of a function, None when its code is not there."""
        parts = self.view.parts_of(entry.part_symbol)
        return self.symbol_at(int(self._canonical.part_symbols(parts[0])[0])) if parts else None

    def symbol_at(self, index: int) -> FunctionSymbol:
        """Return one of the object's symbols."""
        row = self._object.symbols[index]
        binding = int(row["info"]) >> 4
        return FunctionSymbol(
            self._object.symbol_name(index),
            int(row["size"]),
            binding == elf.STB_LOCAL,
            binding == elf.STB_WEAK,
            self._file(index),
        )

    @cached_property
    def _files(self) -> NDArray[np.int64]:
        return np.flatnonzero(self._object.symbols["info"] & 0xF == elf.STT_FILE)

    def _file_of(self, part: int) -> str:
        """Return the source file of a part, empty for assembly."""
        return self._file(int(self._canonical.part_symbols(part)[0]))

    def _file(self, symbol: int) -> str:
        """Return the STT_FILE symbol before a symbol; of a global one, the object's first. Assembly has none."""
        if not len(self._files):
            return ""
        before = max(int(np.searchsorted(self._files, symbol)) - 1, 0)
        is_global = self._object.symbols["info"][symbol] >> 4 != elf.STB_LOCAL
        return self._object.symbol_name(int(self._files[0 if is_global else before]))

    # -- static keys ----------------------------------------------------------------------------------------------

    def keys(self, entry: Entry) -> list[Key]:
        """Return the static keys and calls that a function uses, but for those that it brings along."""
        return [key for part in self.view.parts_of(entry.part_symbol) for key in self._keys_of(part)]

    def _keys_of(self, part: int) -> list[Key]:
        """Return the keys of a part: from its jump labels, and from its calls of static calls' trampolines."""
        sites = [
            fields[JUMP_KEY]
            for group, _, fields, _ in owned_entries(self.view, part)
            if group.name == JUMP_TABLE and JUMP_KEY in fields
        ]
        found = [self._key(row, is_call=False) for row in sites]
        found += [
            self._key(row, is_call=True) for row in self.view.reference_range(part) if self._calls_trampoline(row)
        ]
        return list(dict.fromkeys(key for key in found if key is not None))

    def _calls_trampoline(self, reference: int) -> bool:
        symbol = self.view.target_symbol(reference)
        return symbol >= 0 and self._object.symbol_name(symbol).startswith(TRAMPOLINE)

    def _key(self, reference: int, *, is_call: bool) -> Key | None:
        """Return the key to which a reference points; None for one that is part of its user (pr_debug's descriptor)."""
        targets, parts = self._canonical.targets, self._canonical.parts
        part, symbol = int(targets.part[reference]), int(targets.symbol[reference])
        if part >= 0 and parts.kind[part] == CONTENT:
            return None
        if symbol >= 0:
            is_local = part >= 0 and self._object.symbols["info"][symbol] >> 4 == elf.STB_LOCAL
            local = self.view.canonical.sources.id_of(symbol) if is_local else None
            return Key(self._object.symbol_name(symbol), is_call, part >= 0, local)
        return Key(describe(self.view, reference), is_call, True)

    # -- who refers to what ---------------------------------------------------------------------------------------

    def parts_at(self, references: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the parts in which references stand."""
        return self._canonical.parts.at(self._canonical.references.place[references])

    @cached_property
    def outer(self) -> dict[str, int]:
        """All global and undefined symbols, by name."""
        symbols = np.flatnonzero(self._object.symbols["info"] >> 4 != elf.STB_LOCAL).tolist()
        return {self._object.symbol_name(symbol): symbol for symbol in symbols}

    def users_of_gone(self, new: ObjectSide) -> dict[str, set[SymbolId]]:
        """Return, by name, the entries that refer to what other objects define and ``new`` mentions no more."""
        undefined = self._object.shndx == elf.SHN_UNDEF
        gone = {symbol: name for name, symbol in self.outer.items() if undefined[symbol] and name not in new.outer}
        return {gone[symbol]: users for symbol, users in self.users_of_symbols(list(gone)).items()}

    def users_of_symbols(self, symbols: list[int]) -> dict[int, set[SymbolId]]:
        """Return, by symbol, the entries that refer to it."""
        rows = self._without_start(np.flatnonzero(np.isin(self._canonical.targets.symbol, symbols)))
        return self._users(rows, self._canonical.targets.symbol[rows])

    def users_of_entries(self, entries: list[Entry]) -> dict[SymbolId, set[SymbolId]]:
        """Return, by symbol of the entry, the entries that refer to it, itself among them."""
        wanted = {part: entry.symbol for entry in entries for part in self.view.parts_of(entry.part_symbol)}
        rows = self._without_start(np.flatnonzero(np.isin(self._canonical.targets.part, list(wanted))))
        by_part = self._users(rows, self._canonical.targets.part[rows])
        users: dict[SymbolId, set[SymbolId]] = defaultdict(set)
        for part, found in by_part.items():
            users[wanted[part]] |= found
        return users

    def is_own_constant(self, entry: Entry) -> bool:
        """Say whether data is read-only, and known to this object only."""
        if not self.is_own_variable(entry) or not entry.section.startswith(_READ_ONLY):
            return False
        part = self.view.parts_of(entry.part_symbol)[0]
        return not int(self._object.sections["flags"][int(self._canonical.parts.section[part])]) & elf.SHF_WRITE

    def is_own_variable(self, entry: Entry) -> bool:
        """Say whether data is known to this object only."""
        parts = self.view.parts_of(entry.part_symbol)
        if not parts:
            return False
        return self._is_own(parts[0])

    def _is_own(self, part: int) -> bool:
        """Say whether all symbols of a part are local."""
        binding = self._object.symbols["info"][self._canonical.part_symbols(part)] >> 4
        return bool((binding == elf.STB_LOCAL).all())

    def alignment(self, section: str) -> int:
        """Return how the sections of a name are aligned."""
        return max((int(self._object.sections["align"][at]) for at in self._sections(section)), default=0)

    def contents(self, section: str, align: int = 1) -> set[bytes]:
        """Return the digests of what is known by its content in the sections of a name, at places so aligned."""
        parts = self._canonical.parts
        is_content = np.isin(parts.section, self._sections(section)) & np.isin(parts.kind, _CONTENT)
        found = is_content.nonzero()[0].tolist()
        return {self.view.meanings.content.digest(part) for part in found if self.view.place(part)[1] % align == 0}

    def _sections(self, name: str) -> list[int]:
        return [at for at, own in enumerate(self._object.section_names) if own == name]

    def why_it_stays(self, user: SymbolId) -> str:
        """Say why an entry cannot be replaced, empty for a function that can."""
        parts = self.view.parts_of(user)
        if not parts or not self.view.is_code(parts[0]):
            return "data"
        if is_init(self._canonical.section_name(parts[0])):
            return "init or exit code"
        return "" if parts[0] in self._traced else "not traceable"

    def is_start(self, function: SymbolId) -> bool:
        """Say whether a function is code of which nothing is left when vmlinux has started (free_initmem())."""
        parts = self.view.parts_of(function)
        return bool(parts) and self._is_start(parts[0])

    def _is_start(self, part: int) -> bool:
        return self._canonical.section_name(part).startswith(_START)

    def _without_start(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Leave out calls by code that is gone when vmlinux has started; an address that it took may have been kept."""
        if not self.is_vmlinux:
            return rows
        made = [
            self._is_start(part) and goes_to_target(self.view, part, self.view.reference_place(part, row))
            for row, part in zip(rows.tolist(), self.parts_at(rows).tolist(), strict=True)
        ]
        kept: NDArray[np.int64] = rows[~np.array(made, bool)]
        return kept

    def is_own_notrace(self, function: SymbolId) -> bool:
        """Say whether a function is known to this object only, and ordinary code in which ftrace has no place."""
        parts = self.view.parts_of(function)
        if not parts or not self.view.is_code(parts[0]) or parts[0] in self._traced or not self._traced:
            return False
        section = self._canonical.section_name(parts[0])
        is_ordinary = not is_init(section) and not section.startswith(_NOINSTR) and self._file_of(parts[0]) != ""
        return is_ordinary and self._is_own(parts[0])

    def callers_of(self, function: SymbolId) -> dict[SymbolId, bool]:
        """Return the entries that refer to a function, and of each whether it does nothing but call it.

        Tables about the function do not count.
        """
        parts, kinds = self.view.parts_of(function), self._canonical.parts.kind
        rows = np.array(sorted(row for part in parts for row in self.view.references_to(part)), np.int64)
        found: dict[SymbolId, bool] = {}
        for row, user in zip(rows.tolist(), self.parts_at(rows).tolist(), strict=True):
            if kinds[user] == OWNED and int(self._canonical.parts.section[user]) not in self._walked_tables:
                continue
            place = int(self._canonical.references.place[row] - self._canonical.parts.start[user])
            is_call = self.view.is_code(user) and goes_to_target(self.view, user, place)
            is_inside = self._canonical.references.target[row] != self._canonical.parts.start[parts[0]]
            for entry in self._entries_of(user):
                if entry != function or not (is_call or is_inside):  # its own jumps and jump tables
                    found[entry] = found.get(entry, True) and is_call
        return found

    def references_to(self, names: Iterable[str]) -> dict[SymbolId, set[str]]:
        """Return, by entry, those of the global symbols ``names`` to which it refers."""
        symbols = {self.outer[name]: name for name in names if name in self.outer}
        result: dict[SymbolId, set[str]] = defaultdict(set)
        for symbol, users in self.users_of_symbols(list(symbols)).items():
            for user in users:
                result[user].add(symbols[symbol])
        return result

    def _users(self, rows: NDArray[np.int64], targets: NDArray[Any]) -> dict[int, set[SymbolId]]:
        """Return the entries in which references stand, by what these refer to."""
        result: dict[int, set[SymbolId]] = defaultdict(set)
        for part, target in set(zip(self.parts_at(rows).tolist(), targets.tolist(), strict=True)):
            result[target] |= self._entries_of(part)
        return result

    def _entries_of(self, part: int) -> set[SymbolId]:
        """Return the entries to which a part belongs: through whom it is used, if it has no name."""
        kinds = self._canonical.parts.kind
        found: set[SymbolId] = set()
        waiting, seen = [part], {part}
        while waiting:
            current = waiting.pop()
            if kinds[current] == NAMED:
                found.add(self._entry_of(self._canonical.families.parent.get(current, current)))
            elif kinds[current] == OWNED:  # what a special section says is about its owner
                if int(self._canonical.parts.section[current]) in self._walked_tables:
                    found.add(self._entry_of(current))
            else:
                users = self._users_of_content.get(current, set())
                if not users:  # nobody's: it is an entry of its own, or in that of its section
                    found.add(self._entry_of(current))
                waiting += users - seen
                seen |= users
        return found

    @cached_property
    def _walked_tables(self) -> frozenset[int]:
        """The special sections that somebody walks through, for the functions in them: constructors, unknown tables."""
        return frozenset(section for group in self._walked for section in group.sections.tolist())

    @property
    def _walked(self) -> list[SpecialGroup]:
        return [group for group in self._canonical.image.owned if group.row.ordered]

    def _entry_of(self, part: int) -> SymbolId:
        """Return the symbol of the entry of a part; of one without a name, that of its section."""
        return self.view.symbol_of(part) or SymbolId(self._canonical.section_name(part))

    @cached_property
    def _users_of_content(self) -> dict[int, set[int]]:
        """Who refers to each part that is known by its content."""
        users: dict[int, set[int]] = defaultdict(set)
        by_content = self.view.meanings.by_content
        rows = np.fromiter(by_content, np.int64, len(by_content))
        for user, part in zip(self.parts_at(rows).tolist(), by_content.values(), strict=True):
            users[part].add(user)
        return users
