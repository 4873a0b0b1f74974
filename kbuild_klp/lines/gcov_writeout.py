# SPDX-License-Identifier: GPL-2.0-only
"""What Clang's gcov says of how and where an object was made: __llvm_gcov_writeout, which the kernel calls for it.

It hands the name of a file to llvm_gcda_start_file() with a stamp, and for each function a number with two checksums
to llvm_gcda_emit_function(): of the function's name and line, and of the branches (LLVM: GCOVProfiler,
insertCounterWriteout). Clang 11 and later; all of it is kept for a program to hold beside the notes that the compiler
wrote (kernel/gcov/clang.c). How many counters there are, and which, is not told of these.
"""

from __future__ import annotations

from collections.abc import Sequence

from kbuild_klp.lines.calls import UNKNOWN, FunctionCalls
from kbuild_klp.object.view import ObjectView

_WRITEOUT = "__llvm_gcov_writeout"
_START_FILE, _FILE, _SUFFIX = "llvm_gcda_start_file", 0, ".gcda"
_STAMPS = {_START_FILE: (2,), "llvm_gcda_emit_function": (1, 2)}
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
