# SPDX-License-Identifier: GPL-2.0-only
"""What Clang's gcov says of how and where an object was made: __llvm_gcov_writeout, which the kernel calls for it.

It hands the name of a file to llvm_gcda_start_file() with a stamp, and for each function a number with two checksums
to llvm_gcda_emit_function(): of the function's name and line, and of the branches (LLVM: GCOVProfiler,
insertCounterWriteout). Clang 11 and later; all of it is kept for a program to hold beside the notes that the compiler
wrote (kernel/gcov/clang.c). The counters are variables, one for each function, and are told of themselves: that these
are handed over, and cleared by __llvm_gcov_reset, follows where they are not the same as before.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kbuild_klp.lines.calls import UNKNOWN, FunctionCalls
from kbuild_klp.object.view import ObjectView

_WRITEOUT = "__llvm_gcov_writeout"
_COUNTERS, _TABLES = "__llvm_gcov_ctr", "__llvm_internal_gcov_"
_RETURN = "__x86_return_thunk"  # CONFIG_MITIGATION_RETHUNK
_START_FILE, _FILE, _SUFFIX = "llvm_gcda_start_file", 0, ".gcda"
_STAMPS = {_START_FILE: (2,), "llvm_gcda_emit_function": (1, 2)}
# What the functions that Clang makes for gcov refer to, but for counters, tables of these, and the name of the file.
_CALLS = {
    _WRITEOUT: {
        *("llvm_gcda_start_file", "llvm_gcda_emit_function", "llvm_gcda_emit_arcs"),
        *("llvm_gcda_summary_info", "llvm_gcda_end_file", _RETURN),
    },
    "__llvm_gcov_reset": {"memset", _RETURN},
}
# Where there are many functions, a loop takes the arguments from tables: these are three words each.
_ARGUMENTS, _ARGUMENTS_SIZE, _ARGUMENT_STAMPS = "__llvm_internal_gcov_emit_function_args", 12, (4, 8)


def is_writeout(view: ObjectView, part: int) -> bool:
    """Say whether a function is the one that Clang made for gcov."""
    return view.part_name(part).partition(".")[0] == _WRITEOUT


def writeout_stamps(view: ObjectView, part: int) -> tuple[list[int], list[int]]:
    """Return which instructions of it load a stamp, and which of its references go to the name of the file; by place.

    They do nothing else with it.
    """
    calls = FunctionCalls(view, [part])
    stamps: list[int] = []
    files: list[int] = []
    for call in range(len(calls.spots)):
        callee = _callee(view, calls, call) if calls.is_call(call) else ""
        if callee not in _STAMPS:
            continue
        setters = calls.setters(call)
        for argument in _STAMPS[callee]:
            stamps += (calls.spots[at][1] for at in _only_for(calls, call, argument, setters))
        if callee == _START_FILE:
            rows = [row for at in _only_for(calls, call, _FILE, setters) for row in calls.references(at)]
            files += (view.reference_place(part, row) for row in rows if (view.string(row) or "").endswith(_SUFFIX))
    return stamps, files


def _callee(view: ObjectView, calls: FunctionCalls, call: int) -> str:
    symbols = [view.target_symbol(row) for row in calls.references(call)]
    return view.object.symbol_name(symbols[0]) if len(symbols) == 1 and symbols[0] >= 0 else ""


def _only_for(calls: FunctionCalls, call: int, argument: int, setters: Sequence[set[int]]) -> list[int]:
    """Return the instructions that set an argument of a call, if nothing else sets it, or does anything with it."""
    found = setters[argument]
    is_used = UNKNOWN in found or any(
        calls.uses(at, argument) for setter in found for at in calls.takers(setter, argument) if at != call
    )
    return [] if is_used else sorted(found)


def argument_stamps(view: ObjectView, part: int) -> Sequence[int]:
    """Return the places of stamps in a table of arguments, none for other data."""
    if view.part_name(part).partition(".")[0] != _ARGUMENTS or view.reference_range(part):
        return ()
    return [at + stamp for at in range(0, view.size(part), _ARGUMENTS_SIZE) for stamp in _ARGUMENT_STAMPS]


def is_for_gcov(name: str) -> bool:
    """Say whether a function is one that Clang made to hand over, or to clear, the counters of an object."""
    return name.partition(".")[0] in _CALLS


def follows_from_counters(old: ObjectView, new: ObjectView, old_parts: Sequence[int], new_parts: Sequence[int]) -> bool:
    """Say whether such a function is for all counters of its source, and these are not the same in both objects."""
    if not old_parts or not new_parts:
        return False
    # With kCFI, the hash of its type is before it.
    if [old.data(part) for part in old_parts[1:]] != [new.data(part) for part in new_parts[1:]]:
        return False
    sides = [(view, parts, _counters(view, parts[0])) for view, parts in ((old, old_parts), (new, new_parts))]
    before, after = (sorted(map(view.size, counters)) for view, _, counters in sides)
    return before != after and all(_is_for_all(*side) for side in sides)


def _counters(view: ObjectView, part: int) -> set[int]:
    """Return the counters of the source that a function is of."""
    chunks, sources = view.canonical.chunks, view.canonical.sources
    names = enumerate(view.object.names_of(chunks.heads.tolist()))
    named = np.array([at for at, name in names if name.partition(".")[0] == _COUNTERS], np.int64)
    is_own = sources.home(chunks.heads[named]) == sources.home(view.canonical.part_symbols(part)[:1])
    return {*view.canonical.parts.at(chunks.start[named[is_own]]).tolist()}


def _is_for_all(view: ObjectView, parts: Sequence[int], counters: set[int]) -> bool:
    """Say whether a function refers to all counters, and to nothing else but what it does with them."""
    if any(view.reference_range(part) for part in parts[1:]):
        return False
    allowed = _CALLS[view.part_name(parts[0]).partition(".")[0]]
    seen, waiting, reached = {parts[0]}, [parts[0]], set[int]()
    while waiting:
        for row in view.reference_range(waiting.pop()):
            symbol, part = view.target_symbol(row), int(view.canonical.targets.part[row])
            if symbol >= 0 and view.object.symbol_name(symbol) in allowed:
                continue
            if part in counters:
                reached.add(part)
            elif part >= 0 and view.part_name(part).startswith(_TABLES):
                waiting += {part} - seen
                seen.add(part)
            elif part != parts[0] and not (view.string(row) or "").endswith(_SUFFIX):
                return False
    return reached == counters
