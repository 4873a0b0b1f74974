# SPDX-License-Identifier: GPL-2.0-only
"""What comes along with the functions that are to be carried, and what each of their references becomes.

From each carried piece all references are followed, in the new object:

- what exists in the old object, too, is the running kernel's: a function by its name, a variable never by a copy;
- a call of a function that is carried goes to the new one, its address to the old one, from which ftrace leads on and
  which others compare it with, if anybody had it before;
- what is new is carried with all that it refers to, and so is what is known by its content;
- what is neither is refused, with the function that needs it.

Objects are not built with -fdata-sections: a reference to a static variable is written as a place in its section, and
may be one past the end of what stands before, or the beginning of an array behind, counted from another element than
the first (readings.py). Such a reference is good as long as all that it may mean lies together in the running kernel,
too, or is carried together.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property

import numpy as np

from kbuild_klp.changes.labels import label_of
from kbuild_klp.elf import constants as elf
from kbuild_klp.extract.callbacks import Callback
from kbuild_klp.extract.correlated import Correlated
from kbuild_klp.extract.landings import Landing, landing
from kbuild_klp.extract.pieces import Goal, Piece, TakenEntry
from kbuild_klp.extract.readings import Readings
from kbuild_klp.extract.relocated import RelocatedObject, WrittenReference
from kbuild_klp.extract.why_not import Bar, CannotCarryError, Refusal
from kbuild_klp.livepatch.rules import is_init, is_per_cpu
from kbuild_klp.object.parts import FILLER, NAMED, OWNED, PIECE, STRINGS
from kbuild_klp.object.reference_text import describe
from kbuild_klp.object.special_entries import owned_entries
from kbuild_klp.object.symbol_id import SymbolId

_ORDINARY = (".data", ".rodata", ".bss", ".ref.data", ".ref.rodata", "__dyndbg", "__bug_table", "__tracepoint_str")


class Needed:
    """All that comes along; ``changed`` are the main parts of functions to begin with, ``callbacks`` among them.

    ``constants`` are parts of read-only data that takes the place of the old one for all that is carried.
    """

    def __init__(
        self,
        both: Correlated,
        relocated: RelocatedObject,
        changed: Iterable[tuple[int, str]],
        callbacks: Sequence[Callback] = (),
        constants: Container[int] = (),
    ) -> None:
        self.callbacks = callbacks
        self._constants = constants
        self.both = both
        self.relocated = relocated
        self.view = both.new.view
        self.canonical = self.view.canonical
        self.parts = self.canonical.parts
        self.functions: dict[int, str] = {}
        self.pieces: dict[int, Piece] = {}
        self._of_part: dict[int, Piece] = {}
        self.goals: dict[int, Goal] = {}
        self.entries: list[TakenEntry] = []
        self.dropped: set[int] = set()
        """Where entries lie that were taken out of ``entries`` again, on purpose."""
        self.silenced: set[int] = set()
        """The references that were given another goal than they have in the new object, on purpose."""
        self.landings: dict[int, Landing] = {}
        """The jumps at which short branches land, by the row of the reference."""
        self.joined: list[tuple[int, int]] = []
        self.outside: dict[str, tuple[SymbolId | None, int]] = {}
        """The undefined symbols: which of the old object each is (None: of another object)."""
        self.refused: dict[Refusal, None] = {}
        self._waiting: list[int] = []
        self._readings = Readings(both)
        roots = list(changed)
        for part, why in roots:  # all of them before the first reference is followed: calls go to the new ones
            self._take_function(part, why)
        while self._waiting:
            self._follow(self._waiting.pop())
        self._check_whole()

    # -- taking -----------------------------------------------------------------------------------------------------

    def main(self, part: int) -> int:
        """Return the main part of a function of which ``part`` is one."""
        return self.canonical.families.parent.get(part, part)

    def name(self, part: int) -> str:
        """Return what a part is called, or where it lies."""
        section, offset = self.view.place(part)
        return self.view.part_name(part) or f"{self.view.object.section_names[section]}+{offset:#x}"

    def original(self, section: int, low: int, high: int) -> bytes:
        """Return the bytes of a range (linear) of a section, as they stand in the new object."""
        base = int(self.canonical.image.base[section])
        return bytes(self.view.object.content(section)[low - base : high - base])

    def _take_function(self, main: int, why: str) -> None:
        self.functions[main] = why
        for part in self.view.family(main):
            low, high = int(self.parts.start[part]), int(self.parts.end[part])
            self._take(Piece(self._lead(part) if part == main else low, high, part, main, why))

    def _take(self, piece: Piece) -> None:
        if piece.low not in self.pieces:
            self.pieces[piece.low] = piece
            self._of_part.setdefault(piece.part, piece)
            self._waiting.append(piece.low)

    def piece_of(self, part: int) -> Piece:
        """Return the piece in which a part is carried, the first of several strings in it."""
        return self._of_part[part]

    def _lead(self, main: int) -> int:
        """Return where the padding begins that a function's own entries speak of (-fpatchable-function-entry=N,M)."""
        start, owned = int(self.parts.start[main]), self.canonical.owned
        low, high = self.view.owned_entries.get(main, (0, 0))
        rows = owned.references[int(owned.reference_at[low]) : int(owned.reference_at[high])]
        places = self.canonical.references.target[rows][self.canonical.targets.part[rows] == main]
        lead: int = min([start, *places.tolist()])
        return lead

    @property
    def patched(self) -> list[tuple[int, SymbolId]]:
        """The main parts of functions that take the place of old ones, and which these are."""
        olds = [(main, self.both.old_function(main)) for main in sorted(self.functions)]
        return [(main, old) for main, old in olds if old is not None]

    # -- following --------------------------------------------------------------------------------------------------

    def _follow(self, low: int) -> None:
        piece = self.pieces[low]
        for reference in self.references_of(piece):
            self._settle(reference, piece, in_entry=False)
        for entry in self._entries_of(piece.part, piece.need):
            self.entries.append(entry)
            for reference in self.relocated.between(entry.low, entry.high):
                self._settle(reference, piece, in_entry=True)

    def bring_site(self, name: str) -> bool:
        """Carry a pr_debug() site that cannot be had of the running kernel; False if ``name`` is none."""
        symbol, _ = self.outside[name]
        if symbol is None or symbol not in self.both.old_sites.values():
            return False
        self.both.lost_sites.add(symbol)
        del self.outside[name]
        users = [(piece, self.references_of(piece), False) for piece in self.pieces.values()]
        for entry in self.entries:
            users.append((self.piece_of(entry.owner), self.relocated.between(entry.low, entry.high), True))
        for piece, references, in_entry in users:
            for reference in references:
                if reference.row in self.goals and self.goals[reference.row].name == name:
                    self._settle(reference, piece, in_entry=in_entry)
        while self._waiting:
            self._follow(self._waiting.pop())
        return True

    def references_of(self, piece: Piece) -> list[WrittenReference]:
        """Return the references that stand in a piece."""
        if self.view.is_code(piece.part):
            return self.relocated.of_part(piece.part)
        return self.relocated.between(piece.low, piece.high)

    def landings_of(self, piece: Piece) -> list[Landing]:
        """Return the jumps that stand behind a piece, in order."""
        return sorted(it for it in self.landings.values() if it.piece == piece.low)

    def _entries_of(self, part: int, need: int) -> Iterator[TakenEntry]:
        """Yield the entries of special sections that are about a part; those of a layout that is guessed are refused.

        ``need`` is the function that needs them.
        """
        references = self.canonical.references
        for group, _, fields, owner in owned_entries(self.view, part):
            field, row = next(iter(fields.items()))
            low = int(references.place[row]) - field
            section = int(self.parts.section[self.parts.at(references.place[row : row + 1])[0]])
            if group.cuts is None:
                end = min(low + group.entry_size, int(self.canonical.image.end[section]))
                yield TakenEntry(group.name, section, low, end, part, group.entry_size)
                continue
            place = f"+{int(references.target[fields[owner]] - self.parts.start[part]):#x}"
            self.refuse(need, CannotCarryError(Bar.UNKNOWN_TABLE, name=group.name, place=place))

    def _settle(self, reference: WrittenReference, piece: Piece, *, in_entry: bool) -> None:
        """Say what a reference becomes, or that it stands in the way."""
        try:
            self.goals[reference.row] = self._goal(reference, piece, in_entry)
            self._check_type(reference, piece)
        except CannotCarryError as error:
            self.refuse(piece.need, error)

    def refuse(self, function: int, error: CannotCarryError) -> None:
        """Note what stands in the way of a function."""
        self.refused[Refusal.of(self.name(function), error.bar, **error.values)] = None

    def _check_type(self, reference: WrittenReference, piece: Piece) -> None:
        place = f"+{reference.place - int(self.parts.start[piece.part]):#x}"
        if not reference.type:
            self._land(reference, piece, place)
        elif reference.type not in self.relocated.known:
            raise CannotCarryError(Bar.UNKNOWN_RELOCATION, place=place, number=str(reference.type))

    def _land(self, branch: WrittenReference, piece: Piece, place: str) -> None:
        """Put a jump behind a function at which a short branch lands."""
        address = max([piece.high, *(it.end for it in self.landings_of(piece))])
        behind, jump = self.pieces.get(piece.high), self.view.architecture.far_jump
        is_last = self.parts.kind[piece.part] == NAMED and (behind is None or behind.need != piece.need)
        found = landing(jump, branch, piece.low, address) if jump and is_last else None
        if found is None:
            raise CannotCarryError(Bar.SHORT_BRANCH, place=place, name=describe(self.view, branch.row))
        self.landings[branch.row] = found

    def _goal(self, reference: WrittenReference, piece: Piece, in_entry: bool) -> Goal:
        row, symbol = reference.row, reference.symbol
        targets, references = self.canonical.targets, self.canonical.references
        part, address = int(targets.part[row]), int(references.target[row])
        if references.section[row] < 0:
            return self._outside(row, symbol)
        if row in self._unused:
            return Goal("", 0)
        section = int(references.section[row])
        if part < 0 or targets.section[row] >= 0:
            array = self._readings.end_of(reference, section, address, piece.need)
            if array is None:
                return self._own_entry(address, piece) or self._empty(row)
            part = array
        if self.view.is_code(part):
            return self._code(reference, piece, in_entry)
        if self.parts.kind[part] == STRINGS:
            buffer = self.canonical.image.buffer
            low = buffer.rfind(0, int(self.parts.start[part]), address) + 1 or int(self.parts.start[part])
            high = buffer.find(0, address) + 1
            self._take(Piece(low, min(high, int(self.parts.end[part])), part, piece.need, "string"))
            return Goal("", 0, low, address)
        if self.parts.kind[part] == PIECE or self._readings.is_global(part):
            part = self._readings.end_of(reference, section, address, piece.need) or part
        others = list(self._readings.other(reference, part, address, piece.part, piece.need))
        if not others and self._readings.is_other(reference, part):
            raise CannotCarryError(Bar.READINGS, name=self.name(part), other=self.name(part - 1))
        home = self._running(part, others)
        for other in {part: None, **dict.fromkeys(others)}:
            if other != home:
                self._agree(home, other, piece)
        return self._data(row, symbol, home, address, piece)

    @cached_property
    def _unused(self) -> set[int]:
        """The references of entries that use nothing of what they refer to."""
        return {*self.canonical.owned.unused.tolist()}

    def _old(self, symbol: SymbolId, offset: int, like: int = -1) -> Goal:
        """Return a symbol of the running kernel."""
        self._know(symbol.name, symbol)
        return Goal(symbol.name, offset, like=like)

    def _know(self, name: str, symbol: SymbolId | None, like: int = -1) -> None:
        known = self.outside.setdefault(name, (symbol, like))[0]
        if known != symbol:
            first, second = (label_of(it) if it else "that of another object" for it in (known, symbol))
            raise CannotCarryError(Bar.ONE_NAME, name=name, first=first, second=second)

    def _outside(self, row: int, symbol: int) -> Goal:
        """Return what is of no section of this object."""
        shndx, name = int(self.view.object.shndx[symbol]), self.view.object.symbol_name(symbol)
        if shndx == elf.COMMON:
            raise CannotCarryError(Bar.COMMON, name=name)
        if shndx > 0 or not name:
            raise CannotCarryError(Bar.NO_PLACE, name=describe(self.view, row))
        if shndx == elf.SHN_UNDEF:
            self._know(name, None, symbol)
        return Goal(name, int(self.canonical.references.addend[row]), like=symbol)

    def _own_entry(self, address: int, piece: Piece) -> Goal | None:
        """Return the entry of a table that is about the function itself (WARN_ONCE in 6.19: its bug_entry)."""
        for part in self.view.family(piece.need):
            for entry in self._entries_of(part, piece.need):
                if entry.low <= address < entry.high:
                    return Goal("", 0, entry.low, address)
        return None

    def _empty(self, row: int) -> Goal:
        """Return any static variable without bytes of the name of the one that a reference may go to."""
        name = self.both.old.empty_variables.get(self.view.empty_variable(row))
        if name is None:
            raise CannotCarryError(Bar.NO_PLACE, name=describe(self.view, row))
        return self._old(SymbolId(name), 0)

    # -- code -------------------------------------------------------------------------------------------------------

    def _code(self, reference: WrittenReference, piece: Piece, in_entry: bool) -> Goal:
        row, symbol = reference.row, reference.symbol
        part = int(self.canonical.targets.part[row])
        start, address = int(self.parts.start[part]), int(self.canonical.references.target[row])
        if self.parts.kind[part] != NAMED:
            self._take(Piece(start, int(self.parts.end[part]), part, piece.need, "code without a name"))
            return Goal("", 0, start, address)
        main = self.main(part)
        old = self.both.old_function(main)
        info = int(self.view.object.symbols["info"][symbol]) if symbol else 0
        by_name = info >> 4 != elf.STB_LOCAL and bool(symbol)
        if old is None and main not in self.functions:
            self._check_memory(part)
            word = "changed" if main in self.both.copies else "new"
            self._take_function(main, f"{word}, needed by {self.name(piece.need)}")
        is_pointer = not reference.is_branch and not in_entry and part == main and address == start
        is_pointer = is_pointer and old is not None and self.both.is_pointed_to(old)
        if main in self.functions and not (old is not None and (is_pointer or info >> 4 == elf.STB_WEAK)):
            low = self._lead(part) if part == main else start
            return Goal("", 0, low, address)
        assert old is not None
        self._check_memory(part)
        if part != main:
            raise CannotCarryError(Bar.PART_OF_ANOTHER, name=self.name(part))
        name = self.view.object.symbol_name(symbol)
        if by_name and name in self.both.old.globals:
            return self._old(SymbolId(name), int(self.canonical.references.addend[row]), symbol)
        if address != start and (main in self.functions or not self.both.is_unchanged(main)):
            raise CannotCarryError(Bar.INSIDE_ANOTHER, name=describe(self.view, row))
        return self._old(old, address - start)

    def _check_memory(self, part: int) -> None:
        section = self.canonical.section_name(part)
        if is_init(section):
            raise CannotCarryError(Bar.INIT, name=self.name(part), section=section)

    # -- data -------------------------------------------------------------------------------------------------------

    def _data(self, row: int, symbol: int, part: int, address: int, piece: Piece) -> Goal:
        start = int(self.parts.start[part])
        self._check_memory(part)
        old = self._home(part)
        name = self.view.object.symbol_name(symbol) if symbol else ""
        is_global = bool(name) and self.view.object.symbols["info"][symbol] >> 4 != elf.STB_LOCAL
        is_of_old = is_global and name in self.both.old.globals
        # A global name of what has none is the end of what stands before it (labels of assembly).
        if old is None and not (is_of_old and self.parts.kind[part] != NAMED):
            self._take(Piece(start, int(self.parts.end[part]), part, piece.need, self._why_data(part)))
            return Goal("", 0, start, address)
        if is_of_old:
            return self._old(SymbolId(name), int(self.canonical.references.addend[row]), symbol)
        assert old is not None
        return self._old(old, address - start)

    def _why_data(self, part: int) -> str:
        if part in self._constants:
            is_constant = self.both.new.is_read_only(part)
            return "changed, read-only" if is_constant else "changed, read-only before"
        return "new" if self.parts.kind[part] == NAMED else "content"

    def _home(self, part: int) -> SymbolId | None:
        """Return the old variable that a part is, None for one that is carried; raises CannotCarryError."""
        if part in self._constants:
            return None
        if self.parts.kind[part] == NAMED:
            old = self.both.old_variable(part)
            if old is not None:
                return old
            section = self.canonical.section_name(part)
            if is_per_cpu(section):
                raise CannotCarryError(Bar.PER_CPU, name=self.name(part))
            if not section.startswith(_ORDINARY):
                raise CannotCarryError(Bar.ATTRIBUTES, name=self.name(part), section=section)
        elif self.both.new.is_nameless_state(part) and not self.both.new.is_of_ubsan(part):
            raise CannotCarryError(Bar.NAMELESS_STATE, name=self.name(part))
        return self.both.old_site(part)

    # -- what else a place in a section may mean ----------------------------------------------------------------------

    def _running(self, part: int, others: list[int]) -> int:
        """Return ``part``, or, if it would be carried, another reading that is the running kernel's."""
        if others and self._home(part) is None:
            for other in others:
                with suppress(CannotCarryError):
                    if self._home(other) is not None:
                        return other
        return part

    def _agree(self, part: int, other: int, piece: Piece) -> None:
        """See to it that two parts which a reference may mean lie together as they do in the new object."""
        both = CannotCarryError(Bar.READINGS, name=self.name(part), other=self.name(other))
        try:
            first, second = self._home(part), self._home(other)
        except CannotCarryError:
            raise both from None
        if first is None and second is None:
            start, end = int(self.parts.start[other]), int(self.parts.end[other])
            self._take(Piece(start, end, other, piece.need, self._why_data(other)))
            low, high = sorted((part, other))
            self.joined.append((int(self.parts.start[low]), int(self.parts.end[high])))
            for between in range(low + 1, high):
                if self.parts.kind[between] != FILLER:
                    self._agree(part, between, piece)
            return
        place = self.both.old_place(first) if first is not None else None
        distance = int(self.parts.start[other]) - int(self.parts.start[part])
        if place is None or (place[0], place[1] + distance) != self._old_place(other, second, place, distance):
            raise both

    def _old_place(
        self, part: int, symbol: SymbolId | None, beside: tuple[int, int], distance: int
    ) -> tuple[int, int] | None:
        """Return where a part lies in the old object; without a symbol, ``distance`` from another or nowhere."""
        if symbol is not None:
            return self.both.old_place(symbol)
        place = beside[0], beside[1] + distance
        return place if self.both.has_content(place, part) else None

    # -- what belongs to carried code and was not taken ---------------------------------------------------------------

    def _check_whole(self) -> None:
        """Refuse functions into which something refers that is no entry of a table that is known."""
        references, targets = self.canonical.references, self.canonical.targets
        code = {part: main for main in self.functions for part in self.view.family(main)}
        inside = np.isin(targets.part, list(code)) & (references.target != self.parts.start[targets.part])
        for row in inside.nonzero()[0].tolist():
            if row in self.goals:
                continue
            main = code[int(targets.part[row])]
            part = int(self.parts.at(references.place[row : row + 1])[0])
            if self.view.is_code(part) or not self._is_plain_table(part):
                continue
            place = f"+{int(references.target[row] - self.parts.start[int(targets.part[row])]):#x}"
            where = self.view.object.section_names[int(self.parts.section[part])]
            self.refuse(main, CannotCarryError(Bar.UNKNOWN_TABLE, name=where, place=place))

    def _is_plain_table(self, part: int) -> bool:
        """Say whether a part may be a table about code: data that no function refers to."""
        return self.parts.kind[part] != OWNED and not self.both.new.users(part)
