# SPDX-License-Identifier: GPL-2.0-only
"""In which functions tasks are for long, and the transition of a livepatch has to wait for them."""

from __future__ import annotations

import numpy as np

from kbuild_klp.elf import constants as elf
from kbuild_klp.lines.roles import called_next
from kbuild_klp.livepatch.sides import ObjectSide
from kbuild_klp.object.function import goes_to_target
from kbuild_klp.object.runs import sorted_unique
from kbuild_klp.object.symbol_id import SymbolId

# include/linux/kthread.h, include/linux/sched/task.h
_START_THREADS = frozenset(
    {"kthread_create_on_node", "kthread_create_on_cpu", "kernel_thread", "user_mode_thread", "create_io_thread"}
)
# What switch_to() calls, by architecture (asm/switch_to.h): all tasks that do not run are in there.
_SWITCH_TASKS = frozenset({"__switch_to_asm", "__switch_to", "_switch"})


def is_thread(side: ObjectSide, function: SymbolId) -> bool:
    """Say whether an object starts threads with a function, which then run it until they end."""
    references, parts = side.view.canonical.references, side.view.canonical.parts
    rows = np.flatnonzero(np.isin(side.view.canonical.targets.part, side.view.parts_of(function)[:1]))
    for row, user in zip(rows.tolist(), side.parts_at(rows).tolist(), strict=True):
        place = int(references.place[row] - parts.start[user])
        is_address = side.view.is_code(user) and not goes_to_target(side.view, user, place)
        if is_address and called_next(side.view, row) in _START_THREADS:
            return True
    return False


def started(side: ObjectSide) -> frozenset[str]:
    """Return the functions of other objects with which one starts threads, by name."""
    starters = [side.outer[name] for name in _START_THREADS if name in side.outer]
    symbol = side.view.canonical.targets.symbol
    is_foreign = (symbol >= 0) & (side.view.object.shndx[symbol] == elf.SHN_UNDEF)
    calls = np.flatnonzero(np.isin(symbol, starters))
    return frozenset(
        side.view.object.symbol_name(side.view.target_symbol(row))
        for part in filter(side.view.is_code, sorted_unique(side.parts_at(calls)).tolist())
        for row in side.view.reference_range(part)
        if is_foreign[row]
        and not goes_to_target(side.view, part, side.view.reference_place(part, row))
        and called_next(side.view, row) in _START_THREADS
    )


def sleepers(side: ObjectSide) -> frozenset[SymbolId]:
    """Return the functions in which tasks are that sleep: what switches to another, and schedule(), which calls that.

    These are its callers as far as ftrace cannot take over what they call.
    """
    switches = [side.outer[name] for name in _SWITCH_TASKS if name in side.outer]
    if not switches:
        return frozenset()
    found = set[SymbolId]()
    waiting = [user for users in side.users_of_symbols(switches).values() for user in users]
    while waiting:
        function = waiting.pop()
        if function not in found:
            found.add(function)
            if side.is_own_notrace(function):
                waiting += side.callers_of(function)
    return frozenset(found)
