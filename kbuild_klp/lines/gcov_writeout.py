# SPDX-License-Identifier: GPL-2.0-only
"""What Clang's gcov says of how and where an object was made: __llvm_gcov_writeout, which the kernel calls for it.

It passes the name of a file and a stamp to llvm_gcda_start_file(), and for each function a number and two checksums to
llvm_gcda_emit_function(): of the function's name and line, and of its branches (LLVM: GCOVProfiler,
insertCounterWriteout; Clang 11 and later). The kernel only keeps all this for a program that compares it with the
notes that the compiler wrote (kernel/gcov/clang.c). The counters are variables, one for each function, and have
changes of their own. Where they change, it follows that other ones are handed over, and cleared by __llvm_gcov_reset.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kbuild_klp.lines.calls import UNKNOWN, FunctionCalls
from kbuild_klp.lines.referring import target_name
from kbuild_klp.lines.versions import Version
from kbuild_klp.object.view import ObjectView

_WRITEOUT = "__llvm_gcov_writeout"
_COUNTERS, _TABLES = "__llvm_gcov_ctr", "__llvm_internal_gcov_"
_RETURN = "__x86_return_thunk"  # CONFIG_MITIGATION_RETHUNK
_START_FILE, _FILE, _SUFFIX = "llvm_gcda_start_file", 0, ".gcda"
_STAMPS = {_START_FILE: (2,), "llvm_gcda_emit_function": (1, 2)}
# What the functions that Clang makes for gcov refer to, besides counters, tables of these, and the name of the file.
_CALLS = {
    _WRITEOUT: {
        *("llvm_gcda_start_file", "llvm_gcda_emit_function", "llvm_gcda_emit_arcs"),
        *("llvm_gcda_summary_info", "llvm_gcda_end_file", _RETURN),
    },
    "__llvm_gcov_reset": {"memset", _RETURN},
}
# With many functions, a loop takes the arguments from tables, which have three words for each.
_ARGUMENTS, _ARGUMENTS_SIZE, _ARGUMENT_STAMPS = "__llvm_internal_gcov_emit_function_args", 12, (4, 8)


def writeout_stamps(view: ObjectView, part: int) -> tuple[list[int], list[int]] | None:
    """Return the instructions that load a stamp, and the references to the name of the file, all by place.

    Only those whose value goes nowhere else. None for a function that is not the one of gcov.
    """
    if view.part_name(part).partition(".")[0] != _WRITEOUT:
        return None
    calls = FunctionCalls(Version(view, [part]))
    stamps: list[int] = []
    files: list[int] = []
    for call in filter(calls.is_call, range(len(calls.spots))):
        references = calls.references(call)
        callee = target_name(view, references[0]) if len(references) == 1 else ""
        if callee not in _STAMPS:
            continue
        setters = calls.setters(call)
        for argument in _STAMPS[callee]:
            stamps += (calls.spots[at][1] for at in _only_for(calls, call, argument, setters))
        if callee == _START_FILE:
            rows = [row for at in _only_for(calls, call, _FILE, setters) for row in calls.references(at)]
            files += (view.reference_place(part, row) for row in rows if (view.string(row) or "").endswith(_SUFFIX))
    return stamps, files


def _only_for(calls: FunctionCalls, call: int, argument: int, setters: Sequence[set[int]]) -> list[int]:
    """Return the instructions that set an argument of a call; none where anything else sets or uses it."""
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
    """Say whether Clang made a function to hand over or to clear the counters of an object."""
    return name.partition(".")[0] in _CALLS


def follows_from_counters(old: Version, new: Version) -> bool:
    """Say whether such a function is for all counters of its source, and these are not the same in both objects."""
    if not old.parts or not new.parts:
        return False
    # With kCFI, the hash of its type is before it.
    if [old.view.data(part) for part in old.parts[1:]] != [new.view.data(part) for part in new.parts[1:]]:
        return False
    counters = _counters(old), _counters(new)
    sizes = [sorted(map(version.view.size, own)) for version, own in zip((old, new), counters, strict=True)]
    return sizes[0] != sizes[1] and _is_for_all(old, counters[0]) and _is_for_all(new, counters[1])


def _counters(function: Version) -> set[int]:
    """Return the counters of the source that a function is of."""
    view, part = function.view, function.parts[0]
    chunks, sources = view.canonical.chunks, view.canonical.sources
    names = enumerate(view.object.names_of(chunks.heads.tolist()))
    named = np.array([at for at, name in names if name.partition(".")[0] == _COUNTERS], np.int64)
    is_own = sources.home(chunks.heads[named]) == sources.home(view.canonical.part_symbols(part)[:1])
    return {*view.canonical.parts.at(chunks.start[named[is_own]]).tolist()}


def _is_for_all(function: Version, counters: set[int]) -> bool:
    """Say whether a function refers to all counters, and otherwise only to what it needs for them."""
    view, parts = function
    if any(view.reference_range(part) for part in parts[1:]):
        return False
    allowed = _CALLS[view.part_name(parts[0]).partition(".")[0]]
    seen, waiting, reached = {parts[0]}, [parts[0]], set[int]()
    while waiting:
        for row in view.reference_range(waiting.pop()):
            part = int(view.canonical.targets.part[row])
            if target_name(view, row) in allowed:
                continue
            if part in counters:
                reached.add(part)
            elif part >= 0 and view.part_name(part).startswith(_TABLES):
                waiting += {part} - seen
                seen.add(part)
            elif part != parts[0] and not (view.string(row) or "").endswith(_SUFFIX):
                return False
    return reached == counters
