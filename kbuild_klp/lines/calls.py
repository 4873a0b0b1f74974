# SPDX-License-Identifier: GPL-2.0-only
"""The calls of a function, and the constants that its instructions pass to them in registers.

Values are followed along all paths through the function, including split-off parts, jump tables and the places that its
special entries name (static branches, exception fixups). Only what is asked for is followed: where the value that an
instruction sets goes, and where the arguments of a call come from.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from itertools import compress

from kbuild_klp.arch.registry import Effect, Flow
from kbuild_klp.lines.versions import Version
from kbuild_klp.object.function import Spot, decode_parts, jump_table
from kbuild_klp.object.special_entries import special_tables

UNKNOWN = -1
"""In place of an instruction that sets an argument: something else did."""

# Looking up a member of an enum costs as much as the rest of the line.
_NEXT, _CALL, _BRANCH, _JUMP, _END = Flow
_LEAVES = (_JUMP, _END)
_IF_LEAVES = bytes(flow in _LEAVES for flow in range(256))
_ENDS_PATH = (*_LEAVES, _CALL)


class FunctionCalls:
    """The instructions of a function and its split-off parts, by number, and the flow of control between them.

    Arguments are counted from 0: those in registers, and one more for all that are stored in memory.
    """

    def __init__(self, function: Version) -> None:
        self._view, self._parts = view, parts = function.view, function.parts
        decode_parts(view, parts)
        self._in_memory = view.architecture.arguments
        self.spots: list[Spot] = [(part, start) for part in parts for start in view.code[part].starts]
        self._number = {spot: at for at, spot in enumerate(self.spots)}
        self._flows = b"".join(view.code[part].flows for part in parts)
        self._effects: dict[int, Effect] = {}
        self._references: dict[int, list[int]] = defaultdict(list)
        self._goals: dict[int, set[int]] = defaultdict(set)
        """By instruction, those that control may go to from it, apart from the next one."""
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
        """Return the instructions that have one reference, and it is among ``rows``."""
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
        """Return what is equal for calls of the same function, None for calls through a register."""
        rows = self.references(at)
        return self._view.meanings.target(rows[0]) if rows else None

    def is_call(self, at: int) -> bool:
        """Say whether an instruction is a call, or a jump to another function."""
        flow = self._flows[at]
        return flow == _CALL or (flow in (_BRANCH, _JUMP) and at in self._leave and at not in self._stay)

    # -- where an argument comes from, and where it goes ----------------------------------------------------------

    def setters(self, call: int) -> list[set[int]]:
        """Return, by argument of a call, the instructions that may have set it, with UNKNOWN for anything else.

        The last set has those that stored an argument in memory.
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
            waiting += ((origin, arguments) for origin in self._origins.get(at, ()) if self._reached[origin])
            before = at - 1
            is_next = self._reached[before] and self._flows[before] not in _LEAVES
            if at in self._heads or not self._reached[at] or (is_next and self._flows[before] == _CALL):
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
        """Yield the instructions before which an argument may still be in its register as ``setter`` set it."""
        seen, waiting = set[int](), [setter + 1]
        while waiting:
            at = waiting.pop()
            while at < len(self.spots) and at not in seen:
                yield at
                seen.add(at)
                waiting += self._goals.get(at, ())
                if self._flows[at] in _ENDS_PATH or argument in self.effect(at).writes:
                    break
                at += 1

    def uses(self, at: int, argument: int) -> bool:
        """Say whether an instruction may do anything with an argument, as one that jumps to an unknown place may."""
        is_lost = self._flows[at] in (_BRANCH, _JUMP) and not self._goals.get(at) and not self.is_call(at)
        return is_lost or argument in self.effect(at).reads

    # -- the flow of control --------------------------------------------------------------------------------------

    def _find_goals(self, part: int) -> None:
        """Find where branches, references to places in the function, and jump tables go."""
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
        """Let control go between all places in the function that one entry of a special section names."""
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
        """Return the instruction that has the byte at a place of a part."""
        starts = self._view.code[part].starts
        return self._number[part, starts[max(bisect_right(starts, place) - 1, 0)]]

    @cached_property
    def _origins(self) -> dict[int, set[int]]:
        """By instruction, those that control may come from, apart from the one before it."""
        found = defaultdict[int, set[int]](set)
        for at, goals in self._goals.items():
            for goal in goals:
                found[goal].add(at)
        return found

    @cached_property
    def _heads(self) -> set[int]:
        """The instructions that control reaches from an unknown place."""
        branched, other = set[int](), set[int]()
        for at, goals in self._goals.items():
            (other if self._flows[at] == _NEXT else branched).update(goals)
        other.update(compress(range(1, len(self._flows)), self._leaves))
        return (other - branched) | {0}

    @cached_property
    def _leaves(self) -> bytes:
        """By instruction, whether control never goes to the next one."""
        return self._flows.translate(_IF_LEAVES)

    @cached_property
    def _reached(self) -> bytearray:
        """By instruction, whether control can reach it; what would be before the first one is none."""
        count, sources = len(self._flows), sorted(self._goals)
        reached, waiting = bytearray(count + 1), list(self._heads)
        while waiting:
            start = waiting.pop()
            end = self._leaves.find(True, start) + 1 or count
            known = reached.find(True, start, end)
            if known >= 0:
                end = known
            reached[start:end] = b"\1" * (end - start)
            for at in sources[bisect_left(sources, start) : bisect_left(sources, end)]:
                waiting += self._goals[at]
        return reached
