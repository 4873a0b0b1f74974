# SPDX-License-Identifier: GPL-2.0-only
"""What the module loader does before the symbols of a module that is to be patched are known.

Relocations to livepatch symbols of vmlinux are applied while the livepatch is loaded, before anything looks at its
tables. Those to symbols of a module are applied when that module is there, maybe much later; by then jump labels,
static calls and alternatives have been gone through (module_finalize in arch/x86/kernel/module.c and the notifiers that
kernel/module/main.c calls), with addresses that were not there yet.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from kbuild_klp.extract.needed import Needed
from kbuild_klp.extract.pieces import Goal, TakenEntry
from kbuild_klp.extract.relocated import WrittenReference
from kbuild_klp.extract.why_not import Bar, CannotCarryError
from kbuild_klp.kernel.tree import VMLINUX
from kbuild_klp.livepatch.sides import CALL_KEY
from kbuild_klp.module.livepatch_elf import LivepatchSymbol
from kbuild_klp.module.running import CarriedObject, goals_of_entry

_EARLY = ("__jump_table", ".static_call_sites", ".altinstructions", ".parainstructions")
_REPLACEMENT = ".altinstr_replacement"
_ALTERNATIVES = (".altinstructions", ".parainstructions")
_CALLS = ".static_call_sites"  # include/linux/static_call_types.h
_TRACEPOINT = "__tracepoint_"  # include/linux/tracepoint.h
SILENT_KEY = "klp_silent_key"
"""The static key, never enabled, that stands for those of a module's tracepoints; whoever uses it has to define it."""
_KEY_FLAGS = 3  # what of a jump label's reference to its key is no address (include/linux/jump_label.h)
_REPLACED = 8
"""Bytes behind the beginning of an alternative in which nothing may be written once it has been chosen."""


def refuse_what_comes_too_early(part: CarriedObject, spelled: dict[str, str]) -> None:
    """Refuse functions whose tables need what only the patched module can say."""
    symbols = {name: LivepatchSymbol.parse(text) for name, text in spelled.items()}
    of_modules = {name for name, symbol in symbols.items() if symbol is not None and symbol.object != VMLINUX}
    if not of_modules:
        return
    needed = part.needed
    _silence_tracepoints(needed, of_modules)
    _keep_trampolines(needed, of_modules)
    for owner, section, reference in _read_early(needed):
        goal = needed.goals.get(reference.row)
        if goal is not None and goal.name in of_modules:
            error = CannotCarryError(Bar.TOO_EARLY, section=section, name=goal.name, unit=part.unit)
            needed.refuse(owner, error)


def silent_tracepoints(needed: Needed) -> list[tuple[str, str]]:
    """Return which tracepoints are silent in the new version of which function."""
    found = dict[tuple[str, str], None]()
    for row, goal in needed.goals.items():
        if goal.name == SILENT_KEY:
            place = needed.canonical.references.place[row]
            entry = next(it for it in needed.entries if it.low <= place < it.high)
            key = needed.view.object.symbol_name(int(needed.canonical.targets.symbol[row]))
            found[needed.name(needed.main(entry.owner)), key.removeprefix(_TRACEPOINT)] = None
    return list(found)


def _silence_tracepoints(needed: Needed, of_modules: Collection[str]) -> None:
    """Give the jump labels of a module's tracepoints a key that is never enabled.

    What calls the tracepoint then is never reached, so that nobody has to know where its static call goes.
    """
    for entry in _entries_of(needed, "__jump_table"):
        for row, goal in goals_of_entry(needed, entry):
            if goal.name in of_modules and goal.name.startswith(_TRACEPOINT):
                needed.goals[row] = Goal(SILENT_KEY, goal.offset & _KEY_FLAGS)
                needed.silenced.add(row)


def _keep_trampolines(needed: Needed, of_modules: Collection[str]) -> None:
    """Leave out what would make direct calls of a module's static calls.

    What stands in the code is a call of the trampoline, a jump that is always to where the static call goes
    (arch_static_call_transform in arch/x86/kernel/static_call.c); and the trampoline is a function like others.
    """
    for entry in _entries_of(needed, _CALLS):
        if any(goal.name in of_modules and goal.name.startswith(CALL_KEY) for _, goal in goals_of_entry(needed, entry)):
            needed.entries.remove(entry)
            needed.dropped.add(entry.low)


def _entries_of(needed: Needed, section: str) -> list[TakenEntry]:
    return [entry for entry in needed.entries if entry.table == section]


def _read_early(needed: Needed) -> Iterator[tuple[int, str, WrittenReference]]:
    """Yield the references that the loader reads, or writes over, before a module is there: function, section, what."""
    replaced: dict[int, list[int]] = {}
    for entry in needed.entries:
        if entry.table in _EARLY:
            references = needed.relocated.between(entry.low, entry.high)
            yield from ((needed.main(entry.owner), entry.table, reference) for reference in references)
            if entry.table in _ALTERNATIVES and references:
                place = int(needed.canonical.references.target[references[0].row])
                replaced.setdefault(entry.owner, []).append(place)
    for piece in needed.pieces.values():
        section = needed.canonical.section_name(piece.part)
        places = replaced.get(piece.part, ())
        for reference in needed.references_of(piece) if places or section == _REPLACEMENT else ():
            if section == _REPLACEMENT or any(low <= reference.place < low + _REPLACED for low in places):
                yield piece.need, section, reference
