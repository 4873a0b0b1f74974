# SPDX-License-Identifier: GPL-2.0-only
"""Gathers what the verdicts need: from each pair of objects while it is open, from the trees when all are known.

Whether a removed function is still in use, or a static key comes along, is told by changes of other objects; so
nothing is judged before all objects have been compared.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from kbuild_klp.builds.object_pair import ObjectPair
from kbuild_klp.builds.side import SINGLE_OBJECT, Build
from kbuild_klp.changes.classification import Change, ChangeType
from kbuild_klp.changes.verdict import Finding, Obstacle, Verdict
from kbuild_klp.checksum.entry import KIND_FUNCTION, Entry, short_hash
from kbuild_klp.kernel.symvers import Exports, changed_crcs
from kbuild_klp.kernel.tree import VMLINUX
from kbuild_klp.livepatch.import_crcs import changed_imports
from kbuild_klp.livepatch.linked_images import LinkedImages
from kbuild_klp.livepatch.readers import readers
from kbuild_klp.livepatch.removed import still_used
from kbuild_klp.livepatch.retyped import retyped
from kbuild_klp.livepatch.rules import (
    Facts,
    Position,
    ToldFunction,
    is_realigned,
    join_names,
    judge,
    needs_nothing,
    says_of_imports,
)
from kbuild_klp.livepatch.seen import SeenFunction, SeenObject
from kbuild_klp.livepatch.sides import TRAMPOLINE, FunctionSymbol, Key, ObjectSide
from kbuild_klp.livepatch.threads import Threads
from kbuild_klp.object.symbol_id import SymbolId

_UNKNOWN_UNIT = ""
_TRACEPOINT_KEY, _TRACEPOINT_CALL = "__tracepoint_", "__SCT__tp_func_"
# The objects that hold the vdso's image: vdso-image-64.o on x86, vdso-wrap.o, vdso64_wrapper.o and so on elsewhere.
_VDSO_IMAGE = ("-image-64.o", "-image-32.o", "-image-x32.o", "wrap.o", "wrapper.o")


class Survey:
    """All that is known of the changes between two builds."""

    def __init__(self, old: Build, new: Build) -> None:
        self.old = old
        self.new = new
        self._objects: dict[str, SeenObject] = {}

    # -- what the trees say ---------------------------------------------------------------------------------------

    @cached_property
    def _livepatch(self) -> bool:
        """Whether the old kernel can load livepatches; True when that is not known."""
        settings = self.old.settings()
        if settings is not None and settings.configuration:
            return "\nCONFIG_LIVEPATCH=y\n" in f"\n{settings.configuration}\n"
        tree = self.old.tree(SINGLE_OBJECT)
        return tree is None or tree.kernel is None or tree.setting("LIVEPATCH") == "y"

    @cached_property
    def _exports(self) -> tuple[Exports | None, Exports | None]:
        """What the two trees export, None where no file says."""
        return self.old.exports(), self.new.exports()

    @cached_property
    def crcs(self) -> dict[str, str]:
        """The exports whose CRC changed, each with the change in words."""
        old, new = self._exports
        changed = changed_crcs(old, new) if old and new else {}
        return {name: f"{name} {before:#010x} -> {after:#010x}" for name, (before, after) in changed.items()}

    def warnings(self) -> list[str]:
        """Return what is to be said of the two builds as a whole."""
        if not self.crcs:
            return []
        symbols = f"{len(self.crcs)} exported symbol{'s' * (len(self.crcs) > 1)}"
        return [f"CRC of {symbols} differs: {join_names(sorted(self.crcs))}"]

    # -- looking at objects ---------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Read what `look` needs of the trees; before processes are started, so that it is read once."""
        _ = self._livepatch, self.crcs

    def look(self, pair: ObjectPair, units: list[str], changes: Sequence[Change]) -> SeenObject:
        """Return what the two versions of one object say of its changes; nothing is kept here until `add`."""
        place, real = (pair.name, units) if pair.name != SINGLE_OBJECT else self._place_of_object()
        if not self._livepatch or all(change.change is ChangeType.LINE_ONLY for change in changes):
            return SeenObject(place, real)
        asked = {
            at: change
            for at, change in enumerate(changes)
            if change.kind == KIND_FUNCTION and not needs_nothing(change)
        }
        old, new = pair.old, pair.new
        in_module = any(unit != VMLINUX for unit in real)
        before = ObjectSide(old, is_vmlinux=not in_module) if old else None
        after = ObjectSide(new) if new else None
        refers = after.references_to(self.crcs) if after and self.crcs else {}
        threads = Threads(before) if before else None
        functions = {
            at: self._function(change, before, after, refers, in_module, threads) for at, change in asked.items()
        }
        seen = SeenObject(
            place,
            real,
            time=old.file.mtime_ns if old else 0,
            functions=functions,
            users=_users_of_removed(changes, before) if before else None,
        )
        if before is None or after is None:
            return seen
        return replace(
            seen,
            gone=before.users_of_gone(after),
            readers=readers(changes, before, after),
            imports=changed_imports(before.view.file, after.view.file) if any(map(says_of_imports, changes)) else None,
            realigned=frozenset(_realigned(changes, before, after)),
        )

    def _function(
        self,
        change: Change,
        before: ObjectSide | None,
        after: ObjectSide | None,
        refers: dict[SymbolId, set[str]],
        in_module: bool,
        threads: Threads | None,
    ) -> SeenFunction:
        """Return what both versions of an object say of one function; ``refers`` is what refers to which export."""
        old, new = change.old, change.new
        keys: tuple[Key, ...] | None = None
        if new is not None:
            keys = () if not in_module else tuple(after.keys(new)) if after else None
        facts = Facts(
            no_old="" if before else "the old object is not at hand",
            no_new="" if after else "the new object is not at hand",
            untraced=before.untraced(old) if before and old else None,
            crcs=self._crcs_of(new, refers) if new else (),
            is_thread=bool(threads and old and (threads.run(old.symbol) or threads.sleep_in(old.symbol))),
            tables=_tables(change, before, after),
            retyped=retyped(old, new, before, after) if old and new and before and after else None,
        )
        old_symbol = before.symbol(old) if before and old else None
        new_symbol = after.symbol(new) if after and new and old is None else None
        return SeenFunction(facts, old_symbol, new_symbol, keys)

    def add(self, name: str, found: SeenObject, changes: Sequence[Change]) -> None:
        """Take in what was seen of an object, and its changes."""
        self._objects[name] = replace(found, changes=changes)

    def _crcs_of(self, entry: Entry, refers: dict[SymbolId, set[str]]) -> tuple[str, ...]:
        if not self.crcs:
            return ()
        own = {symbol.name for symbol in (entry.symbol, *entry.aliases) if not symbol.file}
        names = refers.get(entry.symbol, set()) | own & self.crcs.keys()
        return tuple(self.crcs[name] for name in sorted(names))

    def _place_of_object(self) -> tuple[str, list[str]]:
        """Return where an object that was given by itself lies in its tree, and the units that it is linked into."""
        tree, path = self.old.tree(SINGLE_OBJECT), self.old.object_file(SINGLE_OBJECT)
        if tree is None or path is None:
            return SINGLE_OBJECT, [_UNKNOWN_UNIT]
        place = os.path.relpath(Path(path).resolve(), tree.root)
        return place, [unit.name for unit in tree.units() if place in unit.objects] or [_UNKNOWN_UNIT]

    # -- judging --------------------------------------------------------------------------------------------------

    def judged(self) -> dict[str, list[list[Verdict]]]:
        """Return the verdicts of each object when all has been seen: for each of its units, one a change."""
        verdicts = {
            name: [
                [judge(change, self._facts(found, unit, at)) for at, change in enumerate(found.changes)]
                for unit in found.units
            ]
            for name, found in self._objects.items()
        }
        # What keeps a removed function in use is known only now.
        for (name, at), users in still_used(self._objects, verdicts).items():
            found = self._objects[name]
            for unit, row in zip(found.units, verdicts[name], strict=True):
                row[at] = judge(found.changes[at], self._facts(found, unit, at, users))
        same: dict[Verdict, Verdict] = {}
        return {
            name: [[same.setdefault(verdict, verdict) for verdict in row] for row in rows]
            for name, rows in verdicts.items()
        }

    def _facts(self, found: SeenObject, unit: str, at: int, users: tuple[str, ...] = ()) -> Facts:
        """Put together what is known of one change in one unit."""
        place = found.name.rpartition("/")[2]
        seen = found.functions.get(at)
        facts = (seen.facts if seen is not None else Facts())._replace(
            livepatch=self._livepatch,
            is_vdso=place.startswith("vdso") and place.endswith(_VDSO_IMAGE),
            readers=found.readers.get(at),
            imports=found.imports,
            is_for_content=at in found.realigned,
        )
        if seen is None:
            return facts
        position = self._position(found, unit, seen.old) if seen.old else None
        moved = ""
        if found.changes[at].change is ChangeType.REMOVED and seen.old is not None and not seen.old.is_local:
            moved = self._new_homes.get((unit, seen.old.name), "")
        return facts._replace(
            position=position,
            keys=None if seen.keys is None else tuple(self._key_reasons(found, unit, seen.keys)),
            users=None if found.users is None else users,
            moved=moved,
            is_thread=facts.is_thread or bool(position and position.is_thread),
        )

    @cached_property
    def _added(self) -> dict[str, set[str]]:
        """The names of what was added, by unit."""
        added: dict[str, set[str]] = defaultdict(set)
        for found in self._objects.values():
            for unit in found.units:
                added[unit] |= {symbol.name for symbol in found.added}
        return added

    @cached_property
    def _new_homes(self) -> dict[tuple[str, str], str]:
        """The object to which each global function was added, by unit and name."""
        return {
            (unit, seen.new.name): found.name
            for found in self._objects.values()
            for at, seen in found.functions.items()
            if found.changes[at].change is ChangeType.ADDED and seen.new is not None and not seen.new.is_local
            for unit in found.units
        }

    # -- static keys and calls ------------------------------------------------------------------------------------

    def _key_reasons(self, found: SeenObject, unit: str, keys: Sequence[Key]) -> Iterator[Finding]:
        """Yield what the static keys and calls of a function mean for a livepatch.

        Those of vmlinux can be reached when the livepatch is loaded, those of a module only when that module is there,
        which may be later than the kernel goes through the livepatch's __jump_table and .static_call_sites
        (validate_special_section_klp_reloc in tools/objtool/klp-diff.c). A tracepoint is left out of the new function.
        A static call is never made a direct one: it goes on calling the trampoline, which is always right
        (include/linux/static_call.h).
        """
        silent: dict[str, set[str]] = defaultdict(set)
        indirect: dict[str, set[str]] = defaultdict(set)
        for key in keys:
            home = self._home(found, unit, key)
            if home == VMLINUX:
                continue
            tracepoint = key.symbol.removeprefix(_TRACEPOINT_CALL if key.is_call else _TRACEPOINT_KEY)
            if tracepoint != key.symbol:
                silent[home].add(tracepoint)
                continue
            if key.is_call:
                indirect[home].add(key.symbol.removeprefix(TRAMPOLINE))
            elif home == _UNKNOWN_UNIT:
                yield Finding(Obstacle.UNKNOWN, f"not known: whether static key {key.symbol} is that of a module")
            else:
                yield Finding(Obstacle.STATIC_KEY, f"static key: {key.symbol} of module {home}")
        for obstacle, what, homes, fate in (
            (Obstacle.STATIC_CALL, "static call", indirect, "go by its trampoline"),
            (Obstacle.TRACEPOINT, "tracepoint", silent, "be silent"),
        ):
            for home, names in homes.items():
                where = f" of module {home}" if home != _UNKNOWN_UNIT else ", if that is a module's,"
                yield Finding(obstacle, f"{what}: {join_names(sorted(names))}{where} would {fate} in the new function")

    def _home(self, found: SeenObject, unit: str, key: Key) -> str:
        """Return the unit in which a key lives; vmlinux also for one that the livepatch brings along."""
        if unit == VMLINUX:
            return VMLINUX
        if key.local in found.added if key.local else key.symbol in self._added[unit]:
            return VMLINUX
        if key.is_defined:
            return unit
        known = [exports for exports in self._exports if exports is not None]
        export = next(filter(None, (exports.get(key.symbol) for exports in known)), None)
        # What nobody exports is defined by another object of the same module.
        return export.unit if export else unit if known else _UNKNOWN_UNIT

    # -- the linked images ----------------------------------------------------------------------------------------

    def _position(self, found: SeenObject, unit: str, symbol: FunctionSymbol) -> Position | None:
        """Find an old function in what it was linked into; None if that is not at hand, or older than the object."""
        return None if unit == _UNKNOWN_UNIT else self._images.position(found.name, unit, symbol, found.time)

    @cached_property
    def _images(self) -> LinkedImages:
        return LinkedImages(self.old, self._old_names)

    def _old_names(self, unit: str) -> set[str]:
        """Return the names of all old functions of a unit."""
        mine = [found for found in self._objects.values() if unit in found.units]
        return {seen.old.name for found in mine for seen in found.functions.values() if seen.old is not None}


def _users_of_removed(changes: Sequence[Change], before: ObjectSide) -> dict[SymbolId, set[SymbolId]]:
    """Return who in the old object refers to what was removed from it; nobody asks where no function was."""
    removed = [change for change in changes if change.change is ChangeType.REMOVED]
    if not any(change.kind == KIND_FUNCTION and not needs_nothing(change) for change in removed):
        return {}
    return before.users_of_entries([change.old for change in removed if change.old is not None])


def _tables(change: Change, before: ObjectSide | None, after: ObjectSide | None) -> tuple[ToldFunction, ...] | None:
    """Return what tables that somebody walks through say of a function; None where it may differ and cannot be seen."""
    old, new = change.old, change.new
    if new is None:
        return ()
    if after is None or (old is not None and before is None):
        was = old.split_components().special if old is not None else short_hash(b"")
        return () if was == new.split_components().special else None
    told, told_before = after.told(new), before.told(old) if before is not None and old is not None else {}
    return tuple(
        ToldFunction(
            name,
            is_known=all(own[name].is_known for own in (told, told_before) if name in own),
            is_same=told.get(name) == told_before.get(name),
        )
        for name in sorted({*told, *told_before})
    )


def _realigned(changes: Sequence[Change], before: ObjectSide, after: ObjectSide) -> Iterator[int]:
    """Yield which of the changes are sections that content which came or went has aligned otherwise.

    It belongs to who refers to it, and comes along with that. As with a variable that is new, another one that is
    aligned as well by now is not seen.
    """
    for at, change in enumerate(changes):
        if is_realigned(change):
            name = change.symbol
            more, less = sorted((before, after), key=lambda side: side.alignment(name), reverse=True)
            if more.contents(name, more.alignment(name)) - less.contents(name):
                yield at
