# SPDX-License-Identifier: GPL-2.0-only
"""The calls of a function, and which constants its instructions pass to them in registers.

What reaches a call is followed along all ways through the function, split-off parts, jump tables and the places of its
special entries (static branches, exception fixups) included. Only what is asked for is followed: where the value of
an instruction goes to, and where the arguments of a call come from.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property

from kbuild_klp.arch.registry import Effect, Flow
from kbuild_klp.object.function import Spot, decode_parts, jump_table
from kbuild_klp.object.special_entries import special_tables
from kbuild_klp.object.view import ObjectView

UNKNOWN = -1
"""In place of an instruction that sets an argument: something else did."""

# Looking up a member of an enum costs as much as the rest of the line.
_NEXT, _CALL, _BRANCH, _JUMP, _END = Flow
_LEAVES = (_JUMP, _END)
_ENDS_WAY = (*_LEAVES, _CALL)
_LEAVING = re.compile(b"[%c%c]" % _LEAVES)


class FunctionCalls:
    """The instructions of a function and its split-off parts, by number, and the ways of control between them.

    Arguments are counted from 0: those in registers, and one behind them for all that are stored in memory.
    """

    def __init__(self, view: ObjectView, parts: Sequence[int]) -> None:
        decode_parts(view, parts)
        self._view = view
        self._in_memory = view.architecture.arguments
        self._parts = parts
        self.spots: list[Spot] = [(part, start) for part in parts for start in view.code[part].starts]
        self._number = {spot: at for at, spot in enumerate(self.spots)}
        self._flows = b"".join(view.code[part].flows for part in parts)
        self._effects: dict[int, Effect] = {}
        self._references: dict[int, list[int]] = defaultdict(list)
        self._goals: dict[int, set[int]] = defaultdict(set)
        """By instruction, those to which control may go from it, the next one apart."""
        self._stay: set[int] = set()
        """The instructions that go, or refer, to a place in the function."""
        self._leave: set[int] = set()
        """The instructions that refer to something else."""
        for part in parts:
            self._find_goals(part)
            self._find_special_goals(part)

    # -- instructions ---------------------------------------------------------------------------------------------

    def references(self, at: int) -> Sequence[int]:
        """Return the references of an instruction."""
        return self._references.get(at, ())

    def users(self, rows: Collection[int]) -> list[int]:
        """Return the instructions that have one reference, which is among some."""
        return [at for at, own in self._references.items() if len(own) == 1 and own[0] in rows]

    def data(self, at: int) -> bytes:
        """Return the bytes of an instruction."""
        part, start = self.spots[at]
        is_last = at + 1 == len(self.spots) or self.spots[at + 1][0] != part
        return self._view.code[part].data[start : None if is_last else self.spots[at + 1][1]]

    def effect(self, at: int) -> Effect:
        """Return what an instruction does with arguments."""
        found = self._effects.get(at)
        if found is None:
            found = self._effects[at] = self._view.architecture.effect(self.data(at))
        return found

    def callee(self, at: int) -> tuple[int, ...] | None:
        """Return what is equal for calls of the same function, None for those that go through a register."""
        rows = self.references(at)
        return self._view.meanings.target(rows[0]) if rows else None

    def is_call(self, at: int) -> bool:
        """Say whether an instruction is a call, or a jump to another function."""
        flow = self._flows[at]
        return flow == _CALL or (flow in (_BRANCH, _JUMP) and at in self._leave and at not in self._stay)

    # -- from where an argument comes, and where it goes ----------------------------------------------------------

    def setters(self, call: int) -> list[set[int]]:
        """Return, by argument of a call, the instructions that may have set it, with UNKNOWN for anything else.

        The last are those that stored some in memory.
        """
        found: list[set[int]] = [set() for _ in range(self._in_memory + 1)]
        seen: dict[int, frozenset[int]] = {}
        waiting = [(call, frozenset(range(self._in_memory + 1)))]
        while waiting:
            at, arguments = waiting.pop()
            arguments -= seen.get(at, frozenset())
            if not arguments:
                continue
            seen[at] = seen.get(at, frozenset()) | arguments
            waiting += ((origin, arguments) for origin in self._origins.get(at, ()) if self._is_reached(origin))
            before = at - 1
            is_next = at > 0 and self._flows[before] not in _LEAVES and self._is_reached(before)
            if at in self._heads or not self._is_reached(at) or (is_next and self._flows[before] == _CALL):
                for argument in arguments - {self._in_memory}:
                    found[argument].add(UNKNOWN)
            if is_next and self._flows[before] != _CALL:
                effect = self.effect(before)
                for argument in effect.writes & arguments:
                    found[argument].add(before if effect.sets == argument else UNKNOWN)
                if effect.stores and self._in_memory in arguments:
                    found[-1].add(before)
                waiting.append((before, arguments - effect.writes))
        return found

    def takers(self, setter: int, argument: int) -> Iterator[int]:
        """Yield the instructions before which an argument may still be in its register as one instruction set it."""
        seen, waiting = set[int](), [setter + 1]
        while waiting:
            at = waiting.pop()
            while at < len(self.spots) and at not in seen:
                yield at
                seen.add(at)
                waiting += self._goals.get(at, ())
                if self._flows[at] in _ENDS_WAY or argument in self.effect(at).writes:
                    break
                at += 1

    def uses(self, at: int, argument: int) -> bool:
        """Say whether an instruction does anything with an argument; one that jumps to who knows where does."""
        is_lost = self._flows[at] in (_BRANCH, _JUMP) and not self._goals.get(at) and not self.is_call(at)
        return is_lost or argument in self.effect(at).reads

    # -- the ways of control --------------------------------------------------------------------------------------

    def _find_goals(self, part: int) -> None:
        """Find the ways of branches, of references to places in the function, and of jump tables."""
        view, code, family = self._view, self._view.code[part], frozenset(self._parts)
        for place, (_, goal) in code.inside.items():
            if (part, goal) in self._number:
                self._stays(self._at(part, place), self._number[part, goal])
        rows = view.reference_range(part)
        inner, content = view.rows_into(part, family), set(view.known_by_content(part))
        start = int(view.canonical.parts.start[part])
        for row, place in zip(rows, view.canonical.references.place[rows.start : rows.stop].tolist(), strict=True):
            at = self._at(part, place - start)
            self._references[at].append(row)
            spot = view.inner_target(row, family) if row in inner else None
            if spot in self._number:
                self._stays(at, self._number[spot])
                continue
            self._leave.add(at)
            table = jump_table(view, row, family, self._number) if row in content else None
            if table is not None:
                self._goals[at].update(table.entries)

    def _stays(self, at: int, goal: int) -> None:
        self._stay.add(at)
        self._goals[at].add(goal)

    def _find_special_goals(self, part: int) -> None:
        """Find the ways between the places in the function that an entry of a special section names."""
        view = self._view
        start = {own: int(view.canonical.parts.start[own]) for own in self._parts}
        references, targets = view.canonical.references, view.canonical.targets
        for table in special_tables(view, part):
            places = defaultdict[int, list[int]](list)
            for row, entry in zip(table.references, table.entries, strict=True):
                goal = int(targets.part[row])
                at = self._number.get((goal, int(references.target[row]) - start[goal])) if goal in start else None
                if at is not None:
                    places[entry].append(at)
            for known in places.values():
                for at in known:
                    self._goals[at].update(known)

    def _at(self, part: int, place: int) -> int:
        """Return the instruction that has a byte of a part."""
        starts = self._view.code[part].starts
        return self._number[part, starts[max(bisect_right(starts, place) - 1, 0)]]

    @cached_property
    def _origins(self) -> dict[int, set[int]]:
        """By instruction, those from which control may come to it, the one before it apart."""
        found = defaultdict[int, set[int]](set)
        for at, goals in self._goals.items():
            for goal in goals:
                found[goal].add(at)
        return found

    @cached_property
    def _heads(self) -> set[int]:
        """The instructions to which control comes from who knows where."""
        branched, other = set[int](), set[int]()
        for at, goals in self._goals.items():
            (other if self._flows[at] == _NEXT else branched).update(goals)
        return (({end + 1 for end in self._ends[:-1]} | other) - branched) | {0}

    @cached_property
    def _ends(self) -> list[int]:
        """The instructions behind which control does not go to the next one, and the last."""
        return [
            *(found.start() for found in _LEAVING.finditer(self._flows, 0, len(self._flows) - 1)),
            len(self._flows) - 1,
        ]

    @cached_property
    def _first_reached(self) -> list[int]:
        """For each of ``_ends``, the first instruction from which control comes there without leaving the order."""
        first = [end + 1 for end in self._ends]
        sources, waiting = sorted(self._goals), list(self._heads)
        while waiting:
            at = waiting.pop()
            run = bisect_left(self._ends, at)
            if at < first[run]:
                passed = sources[bisect_left(sources, at) : bisect_left(sources, first[run])]
                first[run] = at
                waiting += (goal for source in passed for goal in self._goals[source])
        return first

    def _is_reached(self, at: int) -> bool:
        """Say whether there is a way to an instruction."""
        return at >= self._first_reached[bisect_left(self._ends, at)]
