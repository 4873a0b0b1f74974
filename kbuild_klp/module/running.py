# SPDX-License-Identifier: GPL-2.0-only
"""How the symbols that carried code refers to are called in the kernel that is to be patched.

What vmlinux exports without a namespace stays an ordinary undefined symbol, so that modversions checks it. All else is
a livepatch symbol (`livepatch_elf`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from typing import NamedTuple

from kbuild_klp.builds.side import Build
from kbuild_klp.elf import constants as elf
from kbuild_klp.errors import KlpError
from kbuild_klp.extract.needed import Needed
from kbuild_klp.extract.pieces import Goal, TakenEntry
from kbuild_klp.extract.runtime_tables import runtime_tables
from kbuild_klp.extract.wanted import Taken
from kbuild_klp.extract.why_not import Bar, CannotCarryError
from kbuild_klp.kernel.symvers import Export, Exports
from kbuild_klp.kernel.tree import VMLINUX, BuildTree
from kbuild_klp.livepatch.linked_images import LinkedImages
from kbuild_klp.livepatch.linked_symbols import LinkedSymbols, crc_symbol
from kbuild_klp.livepatch.rules import Position
from kbuild_klp.livepatch.sides import CALL_KEY, TRAMPOLINE, FunctionSymbol
from kbuild_klp.module.live_code import LivePlace, live_places
from kbuild_klp.module.livepatch_elf import BELONGS, LivepatchSymbol, livepatch_symbol, module_name
from kbuild_klp.object.symbol_id import SymbolId

# KSYM_NAME_LEN is 512 since 6.1, 128 before; MODULE_NAME_LEN is 64 - sizeof(unsigned long) (include/linux/).
_LONGEST_OBJECT = 55
_LONGEST_NAME = {True: 511, False: 127}


class CarriedObject(NamedTuple):
    """What is carried of one object, for one of the units that it is linked into."""

    object: str
    unit: str
    taken: Taken

    @property
    def needed(self) -> Needed:
        """What comes along."""
        return self.taken.needed


class PatchedFunction(NamedTuple):
    """A function of the old kernel that is replaced, as struct klp_func names it (include/linux/livepatch.h)."""

    name: str
    position: int


class Running:
    """The symbols of the old kernel, for some ``parts`` that are to be put into one livepatch."""

    def __init__(self, old: Build, parts: Sequence[CarriedObject], tree: BuildTree) -> None:
        self._old = old
        self._parts = parts
        self._tree = tree
        self._images = LinkedImages(old, lambda unit: self._names)
        self._exports = old.exports() or Exports([], {})

    @cached_property
    def _names(self) -> set[str]:
        """All names that may have to be found."""
        outside = {name for part in self._parts for name in part.needed.outside}
        outside |= {part.needed.view.architecture.write_code for part in self._parts}
        outside |= {place.name for places in self._live.values() for place in places}
        return outside | {old.name for part in self._parts for _, old in part.needed.patched}

    @cached_property
    def _live(self) -> dict[str, list[LivePlace]]:
        """Where vmlinux has the constants that are needed, by table."""
        tables = {table for part in self._parts for table in runtime_tables(part.needed)}
        path = self._old.image(VMLINUX)
        found: dict[str, list[LivePlace]] = {}
        for table in sorted(tables):
            with suppress(KlpError):  # an image that cannot be read is as good as none
                found.update({table: live_places(path, table)} if path else {})
        return found

    def live_places(self, table: str) -> Sequence[LivePlace]:
        """Return some places where vmlinux has a constant that is needed; raises CannotCarryError without vmlinux."""
        if table not in self._live:
            raise CannotCarryError(Bar.NO_IMAGE, name=table, unit=VMLINUX)
        return self._live[table]

    @cached_property
    def _brought(self) -> set[str]:
        """The global symbols that the livepatch itself defines."""
        return {name for part in self._parts for name in _new_globals(part.needed)}

    # -- functions that are replaced --------------------------------------------------------------------------------

    def function(self, part: CarriedObject, old: SymbolId) -> PatchedFunction:
        """Return how an old function of a part is named; raises CannotCarryError."""
        return PatchedFunction(old.name, self._position(part, old, is_replaced=True))

    def is_thread(self, part: CarriedObject, old: SymbolId) -> bool:
        """Say whether the unit of a part, whichever object of it, starts threads with an old function."""
        found = self._images.position(part.object, part.unit, self._old_symbol(part, old))
        return found is not None and found.is_thread

    def _position(self, part: CarriedObject, symbol: SymbolId, *, is_replaced: bool = False) -> int:
        """Return where a symbol of the old object stands in its unit, 0 for the only one of its name.

        Who refers to a weak one gets the definition that the linker took; what is replaced has to be the object's own.
        """
        found = self._images.position(part.object, part.unit, self._old_symbol(part, symbol))
        if found is None:
            raise CannotCarryError(Bar.NO_IMAGE, name=symbol.name, unit=part.unit)
        if not found.count or (found.is_other and is_replaced):
            raise CannotCarryError(Bar.NOT_RUNNING, name=symbol.name, unit=part.unit)
        return _loader_position(found, symbol.name)

    def _old_symbol(self, part: CarriedObject, symbol: SymbolId) -> FunctionSymbol:
        """Return the symbol of the old object that is meant, as it is to be found in the linked image."""
        side = part.needed.both.old_side
        view = side.view
        for found in view.parts_of(symbol):
            for index in view.canonical.part_symbols(found).tolist():
                if view.object.symbol_name(index) == symbol.name:
                    return side.symbol_at(index)
        names = view.object.names_of(range(len(view.object.symbols)))
        return side.symbol_at(names.index(symbol.name))

    # -- what a finished module wants -------------------------------------------------------------------------------

    def _symbols_of(self, known: str) -> LinkedSymbols | None:
        """Return the symbols of the unit that the kernel knows by a name."""
        units = [unit.name for unit in self._old.units() if module_name(unit.name) == known]
        return self._images.symbols(units[0]) if len(units) == 1 else None

    def has(self, known: str, name: str, position: int) -> bool:
        """Say whether a livepatch symbol can be found: ``known`` is what the kernel calls its unit."""
        symbols = self._symbols_of(known)
        count = symbols.count(name) if symbols else 0
        return count == 1 if position == 0 else position <= count

    def is_in_table(self, text: str, table: str) -> bool:
        """Say whether a table of its unit lists a livepatch symbol."""
        symbol = LivepatchSymbol.parse(text)
        symbols = self._symbols_of(symbol.object) if symbol is not None else None
        if symbol is None or symbols is None:
            return False
        return symbols.is_in_table(symbol.name, symbol.position, table)

    def export(self, name: str) -> Export | None:
        """Return what vmlinux exports under a name."""
        found = self._exports.get(name)
        return found if found and found.unit == VMLINUX else None

    def linked_crcs(self, names: Collection[str]) -> dict[str, int]:
        """Return the CRCs that vmlinux itself has of what it exports; none where it is not at hand."""
        symbols = LinkedImages(self._old, lambda unit: {crc_symbol(name) for name in names}).symbols(VMLINUX)
        crcs = {name: symbols.crc(name) for name in names} if symbols else {}
        return {name: crc for name, crc in crcs.items() if crc is not None}

    # -- what code refers to ------------------------------------------------------------------------------------------

    def spelled(self, part: CarriedObject) -> dict[str, str]:
        """Return the new names of the undefined symbols of a part; refuses functions that need what cannot be had."""
        found = {}
        for name, (symbol, like) in list(part.needed.outside.items()):
            try:
                found[name] = self._spelled(part, name, symbol, like)
            except CannotCarryError as error:
                if part.needed.bring_site(name):
                    continue  # it refers to nothing but strings
                for main in _users(part.needed, name):
                    part.needed.refuse(main, error)
        return found

    def _spelled(self, part: CarriedObject, name: str, symbol: SymbolId | None, like: int) -> str:
        if symbol is None and name in self._brought:
            return name
        export = self.export(name)
        is_ordinary = export is not None and not export.namespace and not self._is_half_of_a_call(name)
        if is_ordinary and (symbol is None or part.unit == VMLINUX):
            return name
        if symbol is not None:
            return self._of(part.unit, name, self._position(part, symbol), part.unit)
        units = dict.fromkeys((part.unit, VMLINUX))
        export = self._exports.get(name)
        for unit in (*units, *([export.unit] if export else ())):
            position = self._outer_position(unit, name)
            if position is not None:
                if unit not in units and unit not in self._needed_by(part.unit):
                    raise CannotCarryError(Bar.NO_DEPENDENCY, name=name, unit=unit, home=part.unit)
                return self._of(unit, name, position, part.unit)
        if like >= 0 and part.needed.view.object.symbols["info"][like] >> 4 == elf.STB_WEAK:
            return name
        raise CannotCarryError(Bar.NOT_RUNNING, name=name, unit=" or ".join(units))

    def _is_half_of_a_call(self, name: str) -> bool:
        """Say whether a name is the trampoline of a static call of which vmlinux exports the key, too.

        objtool finds the key by its name in the module, and takes that for one that is not exported which is not there
        (create_static_call_sections in tools/objtool/check.c); the kernel then refuses to load the module
        (static_call_add_module in kernel/static_call_inline.c). A livepatch symbol it takes for any other function, and
        the trampoline always jumps to where the static call goes.
        """
        return name.startswith(TRAMPOLINE) and self.export(f"{CALL_KEY}{name.removeprefix(TRAMPOLINE)}") is not None

    def _needed_by(self, home: str) -> set[str]:
        """Return the modules that are there as long as an old module is: whose exports it uses, or they in turn.

        A new user would be no user to the loader: the module could be absent when the symbol is looked up, and be
        unloaded while it is called (resolve_symbol and ref_module in kernel/module/main.c).
        """
        found, waiting = set[str](), [home]
        while waiting:
            symbols = self._images.symbols(waiting.pop())
            exports = [self._exports.get(name) for name in symbols.undefined] if symbols else []
            units = {it.unit for it in exports if it is not None} - found - {VMLINUX}
            found |= units
            waiting += units
        return found

    def _outer_position(self, unit: str, name: str) -> int | None:
        """Return where a global symbol stands in a unit, None where there is none."""
        symbols = self._images.symbols(unit)
        if symbols is None:
            raise CannotCarryError(Bar.NO_IMAGE, name=name, unit=unit)
        found = symbols.position(FunctionSymbol(name, 0, False, False, ""), "", None)
        # In vmlinux, hidden symbols have become local ones.
        if not found.count or (unit != VMLINUX and not symbols.has_global(name)):
            return None
        return _loader_position(found, name)

    def _of(self, unit: str, name: str, position: int, home: str) -> str:
        """Return a livepatch symbol; ``home`` is the unit for which it is."""
        known = module_name(unit)
        if len(known) > _LONGEST_OBJECT or "." in known or len(name) > self._longest or "," in name:
            raise CannotCarryError(Bar.NAME, name=name, unit=unit)
        belongs = f"{BELONGS}{module_name(home)}" if unit not in (VMLINUX, home) else ""
        return livepatch_symbol(unit, name, position) + belongs

    @cached_property
    def _longest(self) -> int:
        release = (self._tree.release or "").split(".")
        numbers = [int(number) for number in release[:2] if number.isdigit()]
        return _LONGEST_NAME[numbers >= [6, 1]]


def _loader_position(found: Position, name: str) -> int:
    """Return a position as the loader takes it: 0 for the only symbol of its name."""
    if not found.number:
        raise CannotCarryError(Bar.NO_POSITION, name=name, unit=found.unit)
    return found.number if found.count > 1 else 0


def _new_globals(needed: Needed) -> Iterator[str]:
    """Yield the global symbols that an extracted object defines: those of what is new."""
    view = needed.view
    old = {main for main, _ in needed.patched}
    for piece in needed.pieces.values():
        if needed.main(piece.part) in old:
            continue
        for symbol in view.canonical.part_symbols(piece.part).tolist():
            if view.object.symbols["info"][symbol] >> 4 != elf.STB_LOCAL:
                yield view.object.symbol_name(symbol)


def goals_of_entry(needed: Needed, entry: TakenEntry) -> list[tuple[int, Goal]]:
    """Return the references of a table's entry that have to be resolved: their rows, and where they lead."""
    rows = [it.row for it in needed.relocated.between(entry.low, entry.high)]
    return [(row, needed.goals[row]) for row in rows if row in needed.goals]


def _users(needed: Needed, name: str) -> list[int]:
    """Return the functions for which a name is referred to."""
    found: dict[int, None] = {}
    for piece in needed.pieces.values():
        if any(needed.goals[it.row].name == name for it in needed.references_of(piece) if it.row in needed.goals):
            found[piece.need] = None
    for entry in needed.entries:
        if any(goal.name == name for _, goal in goals_of_entry(needed, entry)):
            found[needed.main(entry.owner)] = None
    return list(found) or list(needed.functions)[:1]
