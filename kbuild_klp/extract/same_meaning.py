# SPDX-License-Identifier: GPL-2.0-only
"""Whether a carried function means what it means in the new object, by the canonical form of both.

What may differ is what a symbol of the running kernel is called: `count.7` is `count.5` in it. Which symbol it is was
decided elsewhere (correlated, needed); here is seen that it has the name, but for numbers, of what lies in the new
object where the reference goes.
"""

from __future__ import annotations

from collections import defaultdict

from kbuild_klp.elf.symbol_names import canonical_name
from kbuild_klp.errors import BadObjectError
from kbuild_klp.extract.laid_out import LaidOut
from kbuild_klp.extract.needed import Needed
from kbuild_klp.object.references import symbol_addresses
from kbuild_klp.object.special_entries import owned_entries
from kbuild_klp.object.view import ObjectView


class _Names:
    """What the places of the new object are called, without numbers."""

    def __init__(self, needed: Needed) -> None:
        self._needed = needed
        objects = needed.view.object
        self._at = defaultdict[int, set[str]](set)
        self._addresses: list[int] = symbol_addresses(needed.canonical.image).tolist()
        for symbol, address in enumerate(self._addresses):
            if address >= 0 and objects.symbols["name"][symbol]:
                self._at[address].add(canonical_name(objects.symbol_name(symbol)).text)

    def are_of(self, row: int) -> bool:
        """Say whether a reference that goes out of the carried code goes to what it names in the new object."""
        goal, canonical = self._needed.goals[row], self._needed.canonical
        if canonical.references.section[row] < 0:
            name = self._needed.view.object.symbol_name(int(canonical.targets.symbol[row]))
            return (goal.name, goal.offset) == (name, int(canonical.targets.offset[row]))
        place = int(canonical.references.target[row]) - goal.offset
        return canonical_name(goal.name).text in self._at.get(place, ())

    def is_one_of(self, symbol: int, name: str) -> bool:
        """Say whether the place of a symbol is called so as well: an alias."""
        return canonical_name(name).text in self._at.get(self._addresses[symbol], ())


def check_meaning(needed: Needed, laid: LaidOut, view: ObjectView) -> int:
    """Compare the canonical form of each carried function in both objects; returns how many they are.

    Raises BadObjectError.
    """
    numbers = {section: at for at, section in enumerate(laid.sections, 1)}
    meaning = _Meaning(needed, laid, view)
    count = 0
    for main in needed.functions:
        for part in needed.view.family(main):
            piece = needed.piece_of(part)
            spot = laid.spots[piece.low]
            start = spot.offset + int(needed.parts.start[part]) - piece.low
            address = view.canonical.image.base[numbers[spot.section]] + start
            if not meaning.is_same(part, int(view.canonical.parts.at(address))):
                raise BadObjectError(
                    "the extracted object is wrong: its checksum would be another one",
                    file=view.file.path,
                    place=needed.name(main),
                    hint="report it",
                )
        count += 1
    return count


class _Meaning:
    """What the canonical form says of parts of the new object and of their copies in ``view``, held side by side."""

    def __init__(self, needed: Needed, laid: LaidOut, view: ObjectView) -> None:
        self._needed, self._laid, self._view = needed, laid, view
        self._names = _Names(needed)
        self._begun: set[tuple[int, int]] = set()

    def is_same(self, part: int, copy: int) -> bool:
        """Compare a part and its copy, with its special entries and what it refers to without a name."""
        if (part, copy) in self._begun:
            return True
        self._begun.add((part, copy))
        new, view = self._needed.view, self._view
        rows, copies = new.reference_range(part), view.reference_range(copy)
        if (new.size(part), new.data(part), len(rows)) != (view.size(copy), view.data(copy), len(copies)):
            return False
        entries = [it for it in owned_entries(new, part) if not self._is_dropped(it[2])]
        other = list(owned_entries(view, copy))
        # All but the references, which have other numbers.
        said, said_there = (
            [(table.name, data, [*fields], owner) for table, data, fields, owner in own] for own in (entries, other)
        )
        # What was dropped has no line numbers.
        if said != said_there or new.canonical.owned.lines.get(part) != view.canonical.owned.lines.get(copy):
            return False
        pairs = list(zip(rows, copies, strict=True))
        for (_, _, fields, _), (_, _, its_fields, _) in zip(entries, other, strict=True):
            pairs += zip(fields.values(), its_fields.values(), strict=True)
        return all(self._is_same_reference(row, its_copy, in_code=row in rows) for row, its_copy in pairs)

    def _is_dropped(self, fields: dict[int, int]) -> bool:
        """Say whether an entry, by its references, was left out on purpose."""
        field, row = next(iter(fields.items()))
        return int(self._needed.canonical.references.place[row]) - field in self._needed.dropped

    def _is_same_reference(self, row: int, copy: int, *, in_code: bool) -> bool:
        needed, view = self._needed, self._view
        [(place, key)], [(other_place, other_key)] = (
            needed.view.meaning_rows(row, row + 1),
            view.meaning_rows(copy, copy + 1),
        )
        if needed.goals[row].name and row not in needed.silenced and not self._names.are_of(row):
            return False
        if row in needed.landings and place == other_place:
            return True  # it goes to a jump, which was looked at
        if key[0] != other_key[0] or (in_code and place != other_place):
            return False
        content = needed.view.content_part(row)
        if content is not None and needed.goals[row].piece >= 0 and any(needed.view.reference_range(content)):
            return self._is_same_content(content, row, copy)
        return self._is_renamed(row, copy) or key == other_key

    def _is_same_content(self, part: int, row: int, copy: int) -> bool:
        """Compare what a reference goes to, and what that refers to: symbols may be called otherwise there."""
        needed, its_copy = self._needed, self._view.content_part(copy)
        start = int(needed.parts.start[part])
        # Where a piece without a name ends is known by who refers to what is behind it: not all of them come along.
        if any(low <= start < high for low, high in needed.joined):
            return True
        offsets = int(needed.canonical.targets.offset[row]), int(self._view.canonical.targets.offset[copy])
        return its_copy is not None and offsets[0] == offsets[1] and self.is_same(part, its_copy)

    def _is_renamed(self, row: int, copy: int) -> bool:
        """Say whether what a reference means may read otherwise in the extracted object, and is the same place."""
        needed, goal = self._needed, self._needed.goals[row]
        canonical, symbol = needed.canonical, int(needed.canonical.targets.symbol[row])
        if canonical.targets.section[row] >= 0:  # a place in a table, or of what has no bytes
            return True
        if goal.name:
            name = self._laid.spelled.get(goal.name, goal.name)
            is_alike = symbol in canonical.families.ambiguous or copy in self._view.meanings.ordinals
            return symbol < 0 or is_alike or name != needed.view.object.symbol_name(symbol)
        if symbol >= 0:  # of those that are called alike, which one was looked at
            (offset, _, *digest), (other, _, *other_digest) = (
                needed.view.meanings.target(row),
                self._view.meanings.target(copy),
            )
            return offset == other and (digest == other_digest or self._is_alias(symbol, copy))
        start = int(needed.parts.start[int(canonical.targets.part[row])])
        return any(low <= start < high for low, high in needed.joined)

    def _is_alias(self, symbol: int, copy: int) -> bool:
        """Say whether a copy has another name of the same place: of a weak and a global one, both are local there."""
        other = int(self._view.canonical.targets.symbol[copy])
        return other >= 0 and self._names.is_one_of(symbol, self._view.object.symbol_name(other))
