# SPDX-License-Identifier: GPL-2.0-only
"""The calls of a function, and which constants its instructions pass to them in registers.

What reaches a call is followed along all ways through the function, split-off parts, jump tables and the places of its
special entries (static branches, exception fixups) included. A constant that reaches anything else than calls is said
to be used elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from kbuild_klp.arch.registry import Effect, Flow
from kbuild_klp.object.function import Line, function_lines
from kbuild_klp.object.special_entries import special_tables
from kbuild_klp.object.view import ObjectView

_UNKNOWN = frozenset({-1})

_State = tuple[frozenset[int], ...]
"""By argument, the instructions that may have set it (-1: something else); behind them, those that stored some."""


class Call(NamedTuple):
    """One call, or jump to another function.

    ``at`` is the instruction, ``callee`` equal for calls of the same function (by its name) and None for those that
    go through a register; ``arguments`` are, by register, the instructions that may have set it, -1 for any other;
    ``stored`` the instructions that stored numbers for it in memory.
    """

    at: int
    callee: tuple[int, ...] | None
    arguments: tuple[frozenset[int], ...]
    stored: frozenset[int]


class FunctionCalls(NamedTuple):
    """The instructions of a function, its calls, and the instructions of which the constant is used elsewhere too."""

    lines: list[Line]
    calls: list[Call]
    elsewhere: frozenset[int]


def function_calls(view: ObjectView, parts: Sequence[int]) -> FunctionCalls:
    """Return the calls of a function and its split-off parts."""
    arch, lines = view.architecture, function_lines(view, parts)
    effects = [arch.effect(line.code.data[line.offset : line.offset + line.size]) for line in lines]
    edges = _edges(view, parts, lines)
    states = _states(arch.arguments, lines, effects, edges)
    calls, elsewhere = [], set[int]()
    for at, (line, effect, state) in enumerate(zip(lines, effects, states, strict=True)):
        for argument in effect.reads:
            elsewhere |= state[argument]
        if effect.flow in (Flow.NEXT, Flow.END) or line.targets:
            continue
        if effect.flow is Flow.CALL or line.outer_references:
            callee = view.meanings.target(line.references[0].row) if line.references else None
            calls.append(Call(at, callee, state[:-1], state[-1]))
        elif not edges[at]:
            elsewhere |= frozenset().union(*state)  # a jump to who knows where
    return FunctionCalls(lines, calls, frozenset(elsewhere))


def _edges(view: ObjectView, parts: Sequence[int], lines: list[Line]) -> list[set[int]]:
    """Return, by instruction, those to which control may go from it, the next one apart."""
    edges = [{*line.targets, *(at for table in line.tables for at in table)} for line in lines]
    number = {(line.part, line.offset): at for at, line in enumerate(lines)}
    start = {part: int(view.canonical.parts.start[part]) for part in parts}
    references, targets = view.canonical.references, view.canonical.targets
    for part in parts:
        for table in special_tables(view, part):
            places: dict[int, list[tuple[int, int]]] = {}
            for row, entry in zip(table.references, table.entries, strict=True):
                goal = int(targets.part[row])
                if goal in start:
                    spot = goal, int(references.target[row]) - start[goal]
                    places.setdefault(entry, []).append(spot)
            for spots in places.values():
                known = [number[spot] for spot in spots if spot in number]
                for at in known:
                    edges[at].update(known)
    return edges


def _states(arguments: int, lines: list[Line], effects: list[Effect], edges: list[set[int]]) -> list[_State]:
    """Return, by instruction, what may have set each argument before it."""
    nothing: _State = (*(_UNKNOWN,) * arguments, frozenset())
    states: list[_State | None] = [None] * len(lines)
    heads = {0, *(goal for at, goals in enumerate(edges) if effects[at].flow is Flow.NEXT for goal in goals)}
    heads |= {at + 1 for at, effect in enumerate(effects) if effect.flow in (Flow.JUMP, Flow.END)}
    heads -= {goal for at, goals in enumerate(edges) if effects[at].flow is not Flow.NEXT for goal in goals} - {0}
    waiting = [(at, nothing) for at in heads if at < len(lines)]
    while waiting:
        at, state = waiting.pop()
        while at < len(lines):
            known = states[at]
            merged = state if known is None else tuple(map(frozenset.union, known, state))
            if merged == known:
                break
            states[at] = merged
            waiting += ((goal, merged) for goal in edges[at])
            effect = effects[at]
            if effect.flow in (Flow.JUMP, Flow.END):
                break
            state = nothing if effect.flow is Flow.CALL else _after(merged, effect, at)
            at += 1
    return [state or nothing for state in states]


def _after(state: _State, effect: Effect, at: int) -> _State:
    """Return what may have set each argument behind an instruction."""
    if not effect.writes and not effect.stores:
        return state
    found = list(state)
    for argument in effect.writes:
        found[argument] = frozenset({at}) if effect.sets == argument else _UNKNOWN
    if effect.stores:
        found[-1] |= {at}
    return tuple(found)
