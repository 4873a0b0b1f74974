# SPDX-License-Identifier: GPL-2.0-only
"""The module, held beside the extracted objects that it was linked from.

These have been held beside the new tree's objects (extract/beside.py). What the linker, objtool, modpost and
`post_link` made of them is read here as a stranger would read it: global names lead to the array of new functions and
to what is new, the array leads to the functions that take the place of old ones, and these lead to all that they refer
to. What refers to them and is referred to by nobody, the special sections, is found by where it leads. So each byte and
each relocation of each section is seen again, whatever the linker script of modules put where.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import NamedTuple

import numpy as np

from kbuild_klp.arch.registry import architecture
from kbuild_klp.elf import constants as elf
from kbuild_klp.elf.objects import Objects
from kbuild_klp.elf.reader import ObjectFile
from kbuild_klp.errors import BadObjectError
from kbuild_klp.livepatch.sides import JUMP_KEY, JUMP_TABLE
from kbuild_klp.module.livepatch_elf import BELONGS, LivepatchSymbol, wrong_module
from kbuild_klp.module.loader_tables import loader_tables

_LONGEST_TAIL = 12
"""Bytes from the field of a PC-relative reference to the end of the instruction, at most: an address and a constant."""
_LONGEST_INSTRUCTION = 16
_JUMP_ENTRY = 16
"""Size of struct jump_entry with HAVE_ARCH_JUMP_LABEL_RELATIVE, as all have it that leave jump labels to objtool."""
_BECOMES_NOP = 2
"""Added to the address of a key for objtool (JUMP_TABLE_ENTRY, arch/x86/include/asm/jump_label.h)."""

_RENAMED = {".kcfi_traps": "__kcfi_traps"}
"""Sections to which the linker script of modules gives another name (scripts/module.lds.S)."""


class Destination(NamedTuple):
    """Where a relocation leads: a place in a section, or as section -1 an addend to the symbol ``name``."""

    type: int
    section: int
    place: int
    name: str


# Entry n of the one is about the place that entry n of the other names (orc_find in arch/x86/kernel/unwind_orc.c).
_PLACES = {".orc_unwind": ".orc_unwind_ip"}
_PLACE = 4
_MEMORY = elf.SHF_ALLOC | elf.SHF_EXECINSTR
_NOWHERE = Destination(-1, -1, 0, "")


class NewPlace(NamedTuple):
    """Where a section of an object went: a section of the module, and the place there of its first byte."""

    section: int
    place: int


class RelocatedFile:
    """An object or module: the contents and relocations of its sections."""

    def __init__(self, file: ObjectFile) -> None:
        found = architecture(file.machine)
        assert found is not None
        self.architecture = found
        self.file = file
        self.names = file.section_names
        self.flags = [int(flags) for flags in file.sections["flags"]]
        self.rows: dict[int, dict[int, Destination]] = defaultdict(dict)
        self._contents: dict[int, bytes] = {}
        objects = Objects.of(file)
        rows = objects.relocations(np.arange(len(self.names)))
        columns = (rows.section, rows.offset, rows.type, rows.symbol, rows.addend)
        values, shndx = objects.symbols["value"], objects.shndx
        homes = {(it.section, place): it.home for it in loader_tables(file) for place in it.places}
        for section, place, kind, symbol, addend in zip(*(column.tolist() for column in columns), strict=True):
            home = int(shndx[symbol])
            if home > 0:
                goal = Destination(kind, home, int(values[symbol]) + addend, "")
            else:
                name = _with_home(objects.symbol_name(symbol), homes.get((section, place)))
                goal = Destination(kind, -1, addend, name)
            # Two at one place: whatever comes of it, it is not what either says.
            self.rows[section][place] = goal if place not in self.rows[section] else _NOWHERE
        self.defined: dict[str, list[NewPlace]] = defaultdict(list)
        self.globals: list[str] = []
        """The names that are defined here for other objects."""
        for symbol in (shndx > 0).nonzero()[0].tolist():
            name = objects.symbol_name(symbol)
            self.defined[name].append(NewPlace(int(shndx[symbol]), int(values[symbol])))
            if objects.symbols["info"][symbol] >> 4 != elf.STB_LOCAL:
                self.globals.append(name)

    def size(self, section: int) -> int:
        """Return the size of a section."""
        return int(self.file.sections["size"][section])

    def content(self, section: int) -> bytes:
        """Return the bytes of a section; of one without (.bss), zeros."""
        if section not in self._contents:
            is_empty = self.file.sections["type"][section] == elf.SHT_NOBITS
            found = bytes(self.size(section)) if is_empty else self.file.section_bytes(section)
            self._contents[section] = found
        return self._contents[section]


def _with_home(name: str, home: str | None) -> str:
    """Return a livepatch symbol as an extracted object has it: with the unit in whose table it stands."""
    symbol = LivepatchSymbol.parse(name) if home else None
    return f"{name}{BELONGS}{home}" if symbol is not None and symbol.object != home else name


class _Beside:
    """The walk through one extracted object and the module."""

    def __init__(self, made: RelocatedFile, module: RelocatedFile) -> None:
        self.made, self.module = made, module
        self.homes: dict[int, NewPlace] = {}
        self.relocations = 0

    def fail(self, section: int, what: str) -> BadObjectError:
        """Make the error that names the module, and the section of the extracted object."""
        return wrong_module(self.module.file, what, self.made.names[section])

    def check(self) -> None:
        """Find everything of the object again."""
        for name in self.made.globals:
            [start], found = self.made.defined[name], self.module.defined[name]
            if len(found) != 1:
                raise self.fail(start.section, f"{name} is there {len(found)} times")
            self._go(start.section, NewPlace(found[0].section, found[0].place - start.place))
        waiting = [section for section in self._sections() if section not in self.homes]
        while waiting:
            left = [section for section in waiting if section not in self.homes and not self._find(section)]
            if len(left) == len(waiting):
                break
            waiting = left
        for section in waiting:
            beside = self._beside_another(section)
            if beside is not None:
                self._go(section, beside)
            elif self.made.rows[section] or not self._is_somewhere(section):
                raise self.fail(section, "it is not there")
        self._check_names()

    def _check_names(self) -> None:
        """Check that everything has the name that it had: stack traces show it."""
        for name, places in self.made.defined.items():
            for place in places if name else ():
                home = self.homes.get(place.section)
                now = NewPlace(home.section, home.place + place.place) if home else place
                if home and now not in self.module.defined[name]:
                    raise self.fail(place.section, f"{name} is called otherwise")

    def _sections(self) -> Iterator[int]:
        for section, flags in enumerate(self.made.flags):
            if flags & elf.SHF_ALLOC and self.made.size(section) and not self._is_merged(section):
                yield section

    def _is_merged(self, section: int) -> bool:
        """Say whether the linker merges what is in a section: nothing with relocations (.altinstructions of 6.19)."""
        return bool(self.made.flags[section] & elf.SHF_MERGE) and not self.made.rows[section]

    def _beside_another(self, section: int) -> NewPlace | None:
        """Return where a table has to be of which each entry goes with one of another table; None for what is none."""
        name = self.made.names[section]
        other = self.made.names.index(_PLACES[name]) if _PLACES.get(name) in self.made.names else None
        home = self.homes.get(other) if other is not None else None
        if other is None or home is None or name not in self.module.names:
            return None
        entry = self.made.size(section) // (self.made.size(other) // _PLACE)
        return NewPlace(self.module.names.index(name), home.place // _PLACE * entry)

    def _is_somewhere(self, section: int) -> bool:
        """Say whether bytes to which nothing leads are in a section of the same name."""
        named = [at for at, name in enumerate(self.module.names) if name == self.made.names[section]]
        return any(self.made.content(section) in self.module.content(at) for at in named)

    # -- a section at its new place -------------------------------------------------------------------------------

    def _go(self, section: int, home: NewPlace) -> None:
        """Note where a section went, and check that it and all that it refers to are there."""
        waiting = [(section, home)]
        while waiting:
            section, home = waiting.pop()
            known = self.homes.setdefault(section, home)
            if known != home:
                raise self.fail(section, "it is referred to at two places")
            difference, found = self._compared(section, home)
            difference = difference or self._header(section, home.section) or self._alignment(section, home)
            if difference:
                raise self.fail(section, difference)
            self.relocations += len(self.made.rows[section])
            waiting += [(at, it) for at, it in found.items() if at not in self.homes]

    def _header(self, section: int, home: int) -> str:
        """Say why the header of a section of the module does not suit the section that went there, empty if it does."""
        old, new = self.made.file.sections[section], self.module.file.sections[home]
        old_flags, new_flags = int(old["flags"]), int(new["flags"])
        # Sections of one name that the linker joins may be writable for the sake of one of them.
        kept = _MEMORY | (elf.SHF_WRITE if old_flags & (elf.SHF_EXECINSTR | elf.SHF_WRITE) else 0)
        if (old_flags ^ new_flags) & kept:
            return f"its flags are {new_flags:#x}, not {old_flags:#x}"
        if new["type"] not in (old["type"], elf.SHT_PROGBITS):
            return f"it is of type {new['type']}"
        return ""

    def _alignment(self, section: int, home: NewPlace) -> str:
        """Say whether a section is aligned less than it was, empty if it is not."""
        align = max(int(self.made.file.sections["align"][section]), 1)
        is_less = int(self.module.file.sections["align"][home.section]) % align or home.place % align
        return f"it is not aligned to {align}" if is_less else ""

    def _compared(self, section: int, home: NewPlace) -> tuple[str, dict[int, NewPlace]]:
        """Compare a section with what stands at a place of the module.

        Returns what differs, empty if nothing does, and where sections went to which it refers.
        """
        rows, size = self.made.rows[section], self.made.size(section)
        there = self.module.content(home.section)[home.place : home.place + size]
        content = bytearray(self.made.content(section))
        moved = self.module.rows[home.section]
        count = sum(home.place <= place < home.place + size for place in moved)
        found: dict[int, NewPlace] = {}
        if count != len(rows):
            return f"it has {count} relocations, not {len(rows)}", found
        off = self._switched_off(section, content, there)
        for place, goal in rows.items():
            now = moved.get(home.place + place)
            if now is None:
                return f"the relocation at {place:#x} is lost", found
            is_none = now.type in self.made.architecture.none_types
            if not (is_none if place in off else self._leads_there(section, goal, now, found)):
                return f"the relocation at {place:#x} leads elsewhere", found
        if bytes(content) != there:
            return "its bytes differ", found
        return "", found

    def _switched_off(self, section: int, content: bytearray, there: bytes) -> set[int]:
        """Return the places of a section that objtool made NOPs, and do the same in ``content``.

        These are calls of __fentry__ (--mnop), and jumps of jump labels that begin as a NOP (--hacks=jump_label).
        """
        architecture = self.made.architecture
        calls = (at - 1 for at, goal in self.made.rows[section].items() if goal.name == architecture.trace_call)
        off: set[int] = set()
        for start in (*calls, *self._switches[section]):
            code = np.frombuffer(bytes(content[start : start + _LONGEST_INSTRUCTION]), np.uint8)
            end = start + int(architecture.instruction_lengths(code)[0]) if len(code) else start
            nop = there[start:end]
            if nop in architecture.switched_off:
                content[start:end] = nop
                off.update(range(start, end))
        return off

    @cached_property
    def _switches(self) -> dict[int, list[int]]:
        """The places of each section at which there are jumps that objtool makes NOPs: the key says so."""
        found: dict[int, list[int]] = defaultdict(list)
        for section, name in enumerate(self.made.names):
            rows = self.made.rows[section] if name == JUMP_TABLE else {}
            for place, key in rows.items():
                label = rows.get(place - JUMP_KEY)
                if place % _JUMP_ENTRY == JUMP_KEY and key.place & _BECOMES_NOP and label:
                    found[label.section].append(label.place)
        return found

    def _leads_there(self, section: int, goal: Destination, now: Destination, found: dict[int, NewPlace]) -> bool:
        """Say whether two relocations lead to the same; where a section went that is new to us, goes into ``found``."""
        if goal.type != now.type:
            return False
        if goal.section < 0:
            if now.section < 0:
                return (now.name, now.place) == (goal.name, goal.place)
            homes = self.module.defined[goal.name]  # of another object of this livepatch
            return [(now.section, now.place - goal.place)] == [(it.section, it.place) for it in homes]
        if now.section < 0:
            return False
        if self._is_merged(goal.section):
            return self._is_same_constant(section, goal, now) and not self._header(goal.section, now.section)
        known = self.homes.get(goal.section) or found.setdefault(
            goal.section, NewPlace(now.section, now.place - goal.place)
        )
        return (now.section, now.place) == (known.section, known.place + goal.place)

    def _is_same_constant(self, section: int, goal: Destination, now: Destination) -> bool:
        """Compare strings or constants that the linker may have merged with those of others."""
        content, there, moved = (
            self.made.content(goal.section),
            self.module.content(now.section),
            now.place - goal.place,
        )
        meant = self._constants(section, goal)
        same = (content[low:high] == there[low + moved : high + moved] for low, high in meant)
        return bool(meant) and all(same)

    def _constants(self, section: int, goal: Destination) -> list[tuple[int, int]]:
        """Return where the strings or constants are that a relocation may mean."""
        content = self.made.content(goal.section)
        size = int(self.made.file.sections["entsize"][goal.section])
        is_text = bool(self.made.flags[goal.section] & elf.SHF_STRINGS)
        starts = [goal.place + tail for tail in self._tails(section, goal.type)]
        inside = [start for start in starts if 0 <= start < len(content)]
        first = [start for start in inside if start == 0 or not (content[start - 1] if is_text else start % size)]
        # None: the end of a longer string, from its first byte, for the field that is most common.
        return [(at, content.index(b"\0", at) + 1 if is_text else at + size) for at in first or inside[:1]]

    def _tails(self, section: int, kind: int) -> Iterable[int]:
        """Return how far what is meant may lie behind what a relocation says.

        In code, a reference counts from the end of the instruction; in a table, from its field or the entry's first.
        """
        if not self.made.architecture.relocation_types[kind].pc_relative:
            return (0,)
        is_code = self.made.flags[section] & elf.SHF_EXECINSTR
        return range(4, _LONGEST_TAIL) if is_code else (0, -4, -8)

    # -- tables that nobody refers to -------------------------------------------------------------------------------

    def _find(self, section: int) -> bool:
        """Find a section by where its relocations lead; False when these are not known yet."""
        first = next(
            ((place, goal) for place, goal in self.made.rows[section].items() if goal.section in self.homes), None
        )
        if first is None:
            return False
        place, goal = first
        known = self.homes[goal.section]
        wanted = Destination(goal.type, known.section, known.place + goal.place, "")
        own = self.made.names[section]
        for number, name in enumerate(self.module.names):
            # Who reads a table knows its name; the linker script of modules shortens those of contents.
            if not f"{own}.".startswith(f"{name}.") and name != _RENAMED.get(own):
                continue
            for at, other in self.module.rows[number].items():
                home = NewPlace(number, at - place)
                is_taken = home in self.homes.values()
                if other == wanted and home.place >= 0 and not is_taken and not self._compared(section, home)[0]:
                    self._go(section, home)
                    return True
        raise self.fail(section, "it is not there")


def check_linked(module: ObjectFile, objects: Iterable[bytes]) -> int:
    """Find everything of some extracted objects in a module; returns the number of relocations.

    Raises BadObjectError.
    """
    finished, relocations = RelocatedFile(module), 0
    for data in objects:
        walk = _Beside(RelocatedFile(ObjectFile(data, module.path)), finished)
        walk.check()
        relocations += walk.relocations
    return relocations
