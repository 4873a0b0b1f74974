# SPDX-License-Identifier: GPL-2.0-only
"""Who has to be replaced together with what a livepatch cannot replace by itself.

A `static const` that differs, or is written to from now on, and a function of one object that ftrace cannot take over
(`inline` is also notrace, include/linux/compiler_types.h), are carried as new ones, if all that refers to them can be
replaced, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from kbuild_klp.changes.classification import Change
from kbuild_klp.checksum.entry import KIND_DATA, KIND_FUNCTION, Entry
from kbuild_klp.livepatch.rules import Readers, Stays, becomes_writable, is_per_cpu, needs_nothing
from kbuild_klp.livepatch.sides import ObjectSide
from kbuild_klp.object.symbol_id import SymbolId

_TAKES_ADDRESS = "takes its address"


def readers(changes: Sequence[Change], before: ObjectSide, after: ObjectSide) -> dict[int, Readers]:
    """Return, by the index of the change, who refers to what differs and cannot be replaced by itself.

    Who has to be replaced anyway has a verdict of its own.
    """
    functions = (change for change in changes if change.kind == KIND_FUNCTION and not needs_nothing(change))
    changed = {entry.symbol for change in functions for entry in (change.old, change.new) if entry is not None}
    constants = _of_constants(changes, before, after, changed)
    return {**constants, **_of_functions(changes, before, after, changed)}


def _of_constants(
    changes: Sequence[Change], before: ObjectSide, after: ObjectSide, changed: set[SymbolId]
) -> dict[int, Readers]:
    """Return who refers to each constant that differs."""
    constants = {
        at: (change.old, change.new)
        for at, change in enumerate(changes)
        if change.kind == KIND_DATA
        and change.old is not None
        and change.new is not None
        and before.is_own_constant(change.old)
        and (after.is_own_constant(change.new) or _begins_as_constant(change.old, change.new, after))
    }
    if not constants:
        return {}
    olds = before.users_of_entries([old for old, _ in constants.values()])
    news = after.users_of_entries([new for _, new in constants.values()])
    found = {}
    for at, (old, new) in constants.items():
        users = {**dict.fromkeys(olds[old.symbol], before), **dict.fromkeys(news[new.symbol], after)}
        others = {
            user: side for user, side in users.items() if user not in changed and user not in (old.symbol, new.symbol)
        }
        found[at] = _sorted(it for user, side in others.items() for it in _to_replace(side, user, changed))
    return found


def _begins_as_constant(old: Entry, new: Entry, after: ObjectSide) -> bool:
    """Say whether a variable can be another one for all its users: the old one was a constant, and has no state."""
    return becomes_writable(old, new) and not is_per_cpu(new.section) and after.is_own_variable(new)


def _to_replace(side: ObjectSide, user: SymbolId, changed: set[SymbolId]) -> Iterator[tuple[SymbolId, str]]:
    """Yield who has to come along so that a reader reads the new constant, and what keeps the old one in use."""
    if side.is_own_notrace(user):
        yield from _callers(side, user, changed)
    else:
        yield user, side.why_it_stays(user)


def _sorted(found: Iterable[tuple[SymbolId, str]]) -> Readers:
    along, stays = set[str](), set[Stays]()
    for user, why in found:
        if why:
            stays.add(Stays(user.name, why))
        else:
            along.add(user.name)
    return Readers(tuple(sorted(along)), tuple(sorted(stays)))


def _of_functions(
    changes: Sequence[Change], before: ObjectSide, after: ObjectSide, changed: set[SymbolId]
) -> dict[int, Readers]:
    """Return who calls each function that differs and that only this object can call; the rest has to stay."""
    found = {}
    for at, change in enumerate(changes):
        if change.kind != KIND_FUNCTION or change.old is None or change.new is None or needs_nothing(change):
            continue
        if not before.is_own_notrace(change.old.symbol):
            continue
        sides = (before, change.old.symbol), (after, change.new.symbol)
        callers = [(side, it) for side, symbol in sides for it in _callers(side, symbol, changed)]
        running = [
            it for side, it in callers if not (before.is_vmlinux and it[1] != _TAKES_ADDRESS and side.is_start(it[0]))
        ]
        is_called = bool(running) or any(not changed.isdisjoint(side.callers_of(symbol)) for side, symbol in sides)
        # If only init code called it, nothing will call it again.
        found[at] = _sorted(running if is_called else (it for _, it in callers))
    return found


def _callers(side: ObjectSide, function: SymbolId, changed: set[SymbolId]) -> Iterator[tuple[SymbolId, str]]:
    """Yield the unchanged functions that have to come along with one, and what keeps the old one in use, and why.

    Init code is among the latter. That of vmlinux has made its calls; that of a module may be still to come, and then
    calls the old one.
    """
    waiting, seen = [function], {function}
    while waiting:
        current = waiting.pop()
        for user, does_only_call in side.callers_of(current).items():
            if not does_only_call:
                yield user, "data" if side.why_it_stays(user) == "data" else _TAKES_ADDRESS
            elif user not in changed and user not in seen:
                seen.add(user)
                if side.is_own_notrace(user):
                    waiting.append(user)
                else:
                    yield user, side.why_it_stays(user)
