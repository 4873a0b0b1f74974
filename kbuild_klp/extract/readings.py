# SPDX-License-Identifier: GPL-2.0-only
"""What else a place in a section may mean than what lies there.

Objects are not built with -fdata-sections: a reference to a static variable is written as a place in its section, and
may be where a walk through an array ends that stands before, or the beginning of an array behind, counted from another
element than the first. A walk that looks at one member only goes from that of the first element to where that of one
more would be (GCC's ivopts): as far behind the end of the array as it began behind its start.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator
from math import gcd

from kbuild_klp.arch.registry import Asked
from kbuild_klp.elf import constants as elf
from kbuild_klp.extract.correlated import Correlated, is_harmless
from kbuild_klp.extract.relocated import WrittenReference
from kbuild_klp.object.function import part_code
from kbuild_klp.object.parts import CONTENT, FILLER, OWNED, PIECE

_NEAR = 64  # bytes before an array from which it may be counted
_SCALAR = 8  # bytes of what nobody walks through


class Readings:
    """What references of the new object may mean."""

    def __init__(self, both: Correlated) -> None:
        self._both = both
        self._view = both.new.view
        self._parts = self._view.canonical.parts
        self._targets = self._view.canonical.targets.part
        self._known: dict[int, dict[int, list[int]]] = {}

    def other(self, reference: WrittenReference, part: int, address: int, place: int, function: int) -> Iterator[int]:
        """Yield the parts beside ``part`` that a reference to ``address`` in it, or behind it, may mean.

        The reference stands in part ``place``, which is carried because a function (its main part) needs it.
        """
        if not self._is_place(reference) or self._is_access(reference, place):
            return
        view, parts = self._view, self._parts
        section = int(parts.section[part])
        # The linker itself reads these one by one (SHF_MERGE, gABI chapter 4).
        if view.object.sections["flags"][section] & elf.SHF_MERGE:
            return
        # Descriptors point to whole strings and types, and what reports gets whole descriptors.
        is_of_ubsan = any(map(self._both.new.is_of_ubsan, (part, place)))
        if is_of_ubsan or view.canonical.section_name(place) == "__dyndbg":
            return
        if view.jump_table(part, view.family(function)) is not None:
            return
        # Compilers emit nothing that nobody refers to: the only reference to it means it.
        goals = self._own_goals(part, function)
        if len(goals) == 1:
            return
        yield from (array for array in self._walked(section, address, function) if array != part)
        ended = self._ended_at(section, address)
        if ended is not None and self._asks_for_end(reference, part, ended, place, function):
            yield ended
        if goals and len(set(goals)) == 1:
            return
        behind = part + 1
        while behind < len(parts.start) and int(parts.start[behind]) <= address + _NEAR:
            if self._is_array(behind, section) and not self._is_padding(behind):
                yield behind
            behind += 1

    def end_of(self, reference: WrittenReference, section: int, address: int, function: int) -> int | None:
        """Return the array of which a place is the end, at which nothing begins that may be meant.

        That is padding, or behind all of its section, or what assemblers refer to by its name (is_global).
        """
        part = int(self._parts.at(self._parts.start.dtype.type(address)))
        is_inside = int(self._parts.section[part]) == section and address < int(self._parts.end[part])
        if not self._is_place(reference) or (is_inside and not self._is_padding(part) and not self.is_global(part)):
            return None
        arrays = list(self._walked(section, address, function))
        return max(arrays, default=self._ended_at(section, address))  # the nearest

    def is_other(self, reference: WrittenReference, part: int) -> bool:
        """Say whether a reference cannot mean the part to which it goes."""
        return self._is_place(reference) and self.is_global(part)

    def is_global(self, part: int) -> bool:
        """Say whether a part has no local name: a reference to it names it then, and is no place in its section."""
        symbols = self._view.canonical.part_symbols(part)
        return bool(len(symbols)) and bool((self._view.object.symbols["info"][symbols] >> 4 != elf.STB_LOCAL).all())

    def _is_place(self, reference: WrittenReference) -> bool:
        """Say whether a reference is written as a place in a section."""
        info = self._view.object.symbols["info"]
        return not reference.symbol or info[reference.symbol] & 0xF == elf.STT_SECTION

    def _is_access(self, reference: WrittenReference, place: int) -> bool:
        """Say whether code reads or writes right there: then that is inside of what is meant."""
        arch = self._view.architecture
        kind = arch.relocation_types.get(reference.type)
        if arch.makes_address is None or kind is None or not kind.pc_relative or reference.is_branch:
            return False
        before = self._view.canonical.image.buffer[reference.place - 2 : reference.place]
        return self._view.is_code(place) and not arch.makes_address(bytes(before))

    def _walked(self, section: int, address: int, function: int) -> Iterator[int]:
        """Yield the arrays of which a walk of a function may end at an address.

        It begins at a member of some element; elements are of a size that divides the array's.
        """
        for array, places in self._places_of(function).items():
            size = self._view.size(array)
            behind = address - int(self._parts.end[array])
            if not 0 <= behind < size or not self._is_array(array, section):
                continue
            if any(place >= behind and gcd(size, place - behind) > behind for place in places):
                yield array

    def _ended_at(self, section: int, address: int) -> int | None:
        """Return the array that ends right at an address."""
        part = int(self._parts.at(self._parts.start.dtype.type(address - 1)))
        is_end = int(self._parts.end[part]) == address and self._is_array(part, section)
        return part if is_end and not self._is_padding(part) else None

    def _asks_for_end(self, reference: WrittenReference, part: int, array: int, place: int, function: int) -> bool:
        """Say whether a reference to the start of ``part`` may ask whether the end of the array before is reached.

        Who was given a pointer into that refers to its end only. Who asks whether a pointer is equal to a variable is
        taken at its word if it refers to that otherwise, as a walk through a list begins at its head.
        """
        if not self._view.is_code(place):
            return any(int(self._targets[row]) == array for row in self._view.reference_range(place))
        if array in self._places_of(function):
            return False  # _walked() knows
        places = self._view.canonical.references.place
        asked = self._asked(reference.place)
        rows = [row for row in self._rows_of(function) if int(self._targets[row]) == part]
        is_used = any(self._asked(int(places[row])) is Asked.NONE for row in rows)
        return asked is Asked.ORDER or (asked is Asked.EQUAL and not is_used)

    def _asked(self, place: int) -> Asked:
        """Return what the instruction at a place asks about the address in it."""
        part = int(self._parts.at(self._parts.start.dtype.type(place)))
        compares, code = self._view.architecture.compares, part_code(self._view, part)
        if compares is None:
            return Asked.NONE
        at = bisect_right(code.starts, place - int(self._parts.start[part])) - 1
        bounds = [*code.starts[at : at + 3], len(code.data), len(code.data)]
        return compares(code.data[bounds[0] : bounds[1]], code.data[bounds[1] : bounds[2]])

    def _rows_of(self, function: int) -> Iterator[int]:
        """Yield the references in the code of a function."""
        for member in self._view.family(function):
            yield from self._view.reference_range(member)

    def _places_of(self, function: int) -> dict[int, list[int]]:
        """Return where in which data the code of a function refers to."""
        if function not in self._known:
            found = self._known[function] = defaultdict(list)
            targets = self._view.canonical.references.target
            for row in self._rows_of(function):
                part = int(self._targets[row])
                if part >= 0 and not self._view.is_code(part):
                    found[part].append(int(targets[row] - self._parts.start[part]))
        return self._known[function]

    def _own_goals(self, part: int, function: int) -> list[int]:
        """Return where the references of a function to a part go; nothing if it may be another one's, too."""
        canonical = self._view.canonical
        rows = self._view.references_to(part)
        users = {canonical.families.parent.get(user, user) for user in self._both.new.users(part)}
        is_own = self._parts.chunk[part] >= 0 and users == {function} and not self.is_global(part)
        return canonical.references.target[rows].tolist() if is_own else []

    def _is_array(self, part: int, section: int) -> bool:
        """Say whether a part lies in a section, and may be what is walked through."""
        parts = self._parts
        if int(parts.section[part]) != section or parts.kind[part] in (FILLER, OWNED):
            return False
        flags = int(self._view.object.sections["flags"][section])
        if (parts.kind[part] == CONTENT and flags & elf.SHF_WRITE) or self._both.new.is_of_ubsan(part):
            return False  # one rate limit, one descriptor
        if is_harmless(self._view.part_name(part)):
            return False  # LLVM's name for the same
        return self._view.size(part) > _SCALAR and not self.is_global(part) and not self._is_one(part)

    def _is_one(self, part: int) -> bool:
        """Say whether the empty lists in a part are not those of several elements: it is a list, a lock, a work.

        LIST_HEAD_INIT() points to itself (include/linux/list.h); elements of an array have the same number each.
        """
        references, size = self._view.canonical.references, self._view.size(part)
        rows = self._view.reference_range(part)
        lists = [
            self._view.reference_place(part, row) for row in rows if references.target[row] == references.place[row]
        ]
        return bool(lists) and not any(
            all(behind - place == size // count for place, behind in pairs)
            for count in range(2, len(lists) + 1)
            if len(lists) % count == 0 and (pairs := zip(lists, lists[len(lists) // count :], strict=False))
        )

    def _is_padding(self, part: int) -> bool:
        """Say whether a part is nothing but what aligns the symbol behind it.

        Something refers into it, or it would not be a part (data_filler in object/parts.py). But compilers write no
        zeros without a name into an object: code fills memory with zeros by itself.
        """
        parts, image = self._parts, self._view.canonical.image
        first = last = part
        while first and self._is_piece_of(first - 1, part):
            first -= 1
        while last + 1 < len(parts.start) and self._is_piece_of(last + 1, part):
            last += 1
        behind = last + 1
        if not self._is_piece_of(part, part) or behind == len(parts.start) or parts.chunk[behind] < 0:
            return False
        section, low, high = int(parts.section[part]), int(parts.start[first]), int(parts.end[last])
        offset = high - int(image.base[section])
        align = min(max(int(self._view.object.sections["align"][section]), 1), offset & -offset)
        if int(parts.section[behind]) != section or int(parts.start[behind]) != high or high - low >= align:
            return False
        return not any(any(self._view.reference_range(it)) or any(self._view.data(it)) for it in range(first, behind))

    def _is_piece_of(self, part: int, other: int) -> bool:
        """Say whether a part has no name, and lies in the section of another one."""
        is_bare = self._parts.kind[part] == PIECE
        return bool(is_bare and self._parts.section[part] == self._parts.section[other])
