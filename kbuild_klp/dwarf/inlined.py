# SPDX-License-Identifier: GPL-2.0-only
"""Which inlined function an instruction comes from, by the object's debug information (DWARF 5, section 3.3.8)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from kbuild_klp.dwarf.debug_info import DebugInfo, address, ranges_of
from kbuild_klp.dwarf.source_lines import SourceLines

if TYPE_CHECKING:
    from elftools.dwarf.die import DIE

_MOST_ORIGINS = 8


class InlinedFunction(NamedTuple):
    """A function in the source: its name, and where it is declared (empty and 0 when unknown)."""

    name: str
    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.name}() from {self.file}:{self.line}" if self.file else f"{self.name}()"


class _Instance(NamedTuple):
    low: int
    high: int
    depth: int
    function: InlinedFunction


class InlinedCode:
    """The inlined functions of one object; only the functions that are asked for are read."""

    def __init__(self, info: DebugInfo, sources: SourceLines) -> None:
        self._info = info
        self._sources = sources
        self._instances: dict[int, list[_Instance]] = {}

    def at(self, section: int, offset: int) -> tuple[InlinedFunction, ...]:
        """Return the inlined functions that the code at a place (offset in a section) is of, the innermost first."""
        place = address(section, offset)
        covering = [found for found in self._around(place) if found.low <= place < found.high]
        covering.sort(key=lambda found: -found.depth)
        return tuple(found.function for found in covering)

    def around(self, section: int, offset: int) -> InlinedFunction | None:
        """Return the function around a place in the code, not one inlined there; None if it is unknown."""
        try:
            die = self._info.function_at(address(section, offset))
            return None if die is None else self._function(die)
        except Exception:  # as in DebugInfo.dwarf
            return None

    def functions(self, section: int, offset: int) -> list[InlinedFunction]:
        """Return everything that was inlined into the function around a place in the code."""
        return list(dict.fromkeys(found.function for found in self._around(address(section, offset))))

    def _around(self, place: int) -> list[_Instance]:
        """Return what was inlined into the function around an address."""
        found = self._info.function_at(place)
        return [] if found is None else self._inside(found)

    def find(self, name: str) -> InlinedFunction | None:
        """Return the function ``name`` if it was inlined anywhere in the object."""
        for die in self._info.functions():
            for found in self._inside(die):
                if found.function.name == name:
                    return found.function
        return None

    def _inside(self, found: DIE) -> list[_Instance]:
        """Return what was inlined into a function."""
        known = self._instances.get(found.offset)
        if known is None:
            known = []
            with suppress(Exception):  # as in DebugInfo.dwarf
                known = list(self._nested(found))
            self._instances[found.offset] = known
        return known

    def _nested(self, function: DIE) -> Iterator[_Instance]:
        for depth, die in self._info.nested(function):
            origin = self._function(die)
            if origin is not None:
                yield from (_Instance(low, high, depth, origin) for low, high in ranges_of(die))

    def _function(self, die: DIE) -> InlinedFunction | None:
        """Return the function that an inlined subroutine is an instance of."""
        for _ in range(_MOST_ORIGINS):
            if "DW_AT_name" in die.attributes:
                name = die.attributes["DW_AT_name"].value.decode("utf-8", "replace")
                file, line = (die.attributes.get(f"DW_AT_decl_{what}") for what in ("file", "line"))
                place = self._sources.file_name(die.cu, file.value) if file is not None else None
                return InlinedFunction(name, place or "", line.value if line is not None and place else 0)
            link = next(
                (tag for tag in ("DW_AT_abstract_origin", "DW_AT_specification") if tag in die.attributes), None
            )
            if link is None:
                return None
            die = die.get_DIE_from_attribute(link)
        return None
