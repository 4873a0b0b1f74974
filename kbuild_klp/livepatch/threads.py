# SPDX-License-Identifier: GPL-2.0-only
"""In which functions tasks are for long, and the transition of a livepatch has to wait for them."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from kbuild_klp.lines.referring import called_next
from kbuild_klp.livepatch.sides import ObjectSide
from kbuild_klp.object.function import goes_to_target
from kbuild_klp.object.runs import sorted_unique
from kbuild_klp.object.symbol_id import SymbolId

# include/linux/kthread.h, include/linux/sched/task.h
START_THREADS = frozenset(
    {"kthread_create_on_node", "kthread_create_on_cpu", "kernel_thread", "user_mode_thread", "create_io_thread"}
)
# What switch_to() calls, by architecture (asm/switch_to.h): all tasks that do not run are in there.
_SWITCH_TASKS = frozenset({"__switch_to_asm", "__switch_to", "_switch"})


class Threads:
    """The functions of an object in which tasks are for long; linked_threads.py knows what other objects start."""

    def __init__(self, side: ObjectSide) -> None:
        self._side = side

    def run(self, function: SymbolId) -> bool:
        """Say whether this object starts threads with a function, which then run it until they end."""
        return not self._started.isdisjoint(self._side.view.parts_of(function)[:1])

    def sleep_in(self, function: SymbolId) -> bool:
        """Say whether tasks that sleep are in a function."""
        return function in self._sleepers

    @cached_property
    def _started(self) -> frozenset[int]:
        """The main parts of functions of this object with which it starts threads."""
        view, side = self._side.view, self._side
        starters = [side.outer[name] for name in START_THREADS if name in side.outer]
        calls = np.flatnonzero(np.isin(view.canonical.targets.symbol, starters))
        rows = [
            row
            for part in filter(view.is_code, sorted_unique(side.parts_at(calls)).tolist())
            for row in view.reference_range(part)
            if not goes_to_target(view, part, view.reference_place(part, row))
            and called_next(view, row) in START_THREADS
        ]
        return frozenset(view.canonical.targets.part[rows].tolist())

    @cached_property
    def _sleepers(self) -> frozenset[SymbolId]:
        """The functions in which tasks are that sleep: what switches to another, and schedule(), which calls that.

        These are its callers as far as ftrace cannot take over what they call.
        """
        side = self._side
        switches = [side.outer[name] for name in _SWITCH_TASKS if name in side.outer]
        found = set[SymbolId]()
        waiting = [user for users in side.users_of_symbols(switches).values() for user in users] if switches else []
        while waiting:
            function = waiting.pop()
            if function not in found:
                found.add(function)
                if side.is_own_notrace(function):
                    waiting += side.callers_of(function)
        return frozenset(found)
