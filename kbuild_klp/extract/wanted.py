# SPDX-License-Identifier: GPL-2.0-only
"""Which changes of an object an extraction begins with, and what comes along with them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from kbuild_klp.changes.classification import Change, ChangeType
from kbuild_klp.changes.verdict import Obstacle
from kbuild_klp.checksum.entry import KIND_FUNCTION
from kbuild_klp.compare.selection import matches, names_of, symbol_patterns
from kbuild_klp.elf import constants as elf
from kbuild_klp.elf.symbol_names import canonical_name
from kbuild_klp.errors import KlpError
from kbuild_klp.extract.callbacks import callbacks
from kbuild_klp.extract.correlated import Correlated
from kbuild_klp.extract.needed import Needed
from kbuild_klp.extract.relocated import RelocatedObject
from kbuild_klp.extract.side_tables import SideEntry, side_entries
from kbuild_klp.extract.why_not import Bar, CannotCarryError, Refusal
from kbuild_klp.livepatch.rules import is_init, needs_nothing
from kbuild_klp.object.view import ObjectView
from kbuild_klp.report.model import ObjectChanges


class Wanted(NamedTuple):
    """The changes of an object, sorted: those to begin with, and what is said of the others.

    ``constants`` is read-only data that differs, ``copies`` functions that differ and that ftrace cannot take over;
    ``left_out`` are changes that the user did not want, ``not_needed`` those that nothing carried needs. ``without``
    are the patterns of the former.
    """

    begin: list[Change]
    constants: list[Change]
    copies: list[Change]
    refused: list[Refusal]
    left_out: list[str]
    not_needed: list[str]
    without: Sequence[str]


class Taken(NamedTuple):
    """What is carried of one object, and the entries about it of tables that no checksum holds.

    ``not_needed`` are changes that turned out to be none to begin with.
    """

    needed: Needed
    side: list[SideEntry]
    not_needed: list[str]


def sort_changes(group: ObjectChanges, without: Sequence[str]) -> Wanted:
    """Say of each change of an object whether it is one to begin with.

    ``without`` are patterns, as of the shell, of symbols (or OBJECT:SYMBOL) to be left out. What cannot be carried for
    no other reason than that they go on using the old version of it is carried for all others.
    """
    wanted = Wanted([], [], [], [], [], [], symbol_patterns(without, group.object))
    for change in group.changes:
        if needs_nothing(change):
            continue
        forbidden = [it for it in change.livepatch.reasons if not it.obstacle.is_note]
        obstacles = {it.obstacle for it in change.livepatch.reasons}
        if matches(wanted.without, names_of(change)):
            wanted.left_out.append(change.label or change.symbol)
        elif not all(_are_left_out(it.users, wanted.without) for it in forbidden):
            text = "; ".join(it.text for it in forbidden)
            wanted.refused.append(Refusal.of(change.label or change.symbol, Bar.VERDICT, text=text))
        elif obstacles & {Obstacle.CALLERS, Obstacle.NOT_TRACEABLE}:
            wanted.copies.append(change)
        # A new one that has no local name may be called by other objects.
        elif change.kind == KIND_FUNCTION and (
            change.change is ChangeType.CHANGED or (change.change is ChangeType.ADDED and not change.file)
        ):
            wanted.begin.append(change)
        elif obstacles & {Obstacle.READ_ONLY, Obstacle.DATA}:
            wanted.constants.append(change)
        else:
            wanted.not_needed.append(change.symbol)
    named = [name for change in group.changes for name in _users(change) if _are_left_out((name,), wanted.without)]
    wanted.left_out.extend(dict.fromkeys(name for name in named if name not in wanted.left_out))
    return wanted


def _users(change: Change) -> Iterator[str]:
    """Yield who goes on using the old version of what changed if left alone."""
    for reason in change.livepatch.reasons:
        yield from reason.users


def _are_left_out(users: Sequence[str], without: Sequence[str]) -> bool:
    """Say whether there are users, and the user of this program wants all of them to go on as they are."""
    return bool(users) and all(matches(without, _spellings(user)) for user in users)


def _spellings(name: str) -> set[str]:
    return {name, canonical_name(name).text}


def index_warning(changes: Sequence[Change]) -> list[str]:
    """Return what is to be said of the printk index, nothing if no message is another one."""
    found = (change for change in changes for it in change.livepatch.reasons if it.obstacle is Obstacle.PRINTK_INDEX)
    number = sum(1 for _ in found)
    messages = f"{number} message{'s' * (number != 1)}"
    return [f"{messages} of the livepatch will not be in the printk index (debugfs)"] if number else []


def misspelt(groups: Iterable[ObjectChanges], without: Iterable[str]) -> Iterator[str]:
    """Yield a warning for each pattern that is of nothing: what it was to leave out comes along."""
    names = {
        group.object: [it for change in group.changes for it in (names_of(change), *map(_spellings, _users(change)))]
        for group in groups
    }
    for pattern in without:
        found = (symbol_patterns([pattern], name) for name in names)
        if not any(matches(own, it) for own, of_object in zip(found, names.values(), strict=True) for it in of_object):
            yield f"--without {pattern} leaves out nothing: no change has such a name"


def _part_of(view: ObjectView, change: Change) -> int:
    """Return the part of the new object that changed."""
    assert change.new is not None
    return view.parts_of(change.new.part_symbol)[0]


def _is_left_out(both: Correlated, part: int, wanted: Wanted) -> bool:
    symbol = both.new.view.symbol_of(part)
    return symbol is not None and _are_left_out((symbol.name,), wanted.without)


def _copies(both: Correlated, wanted: Wanted) -> dict[int, str]:
    """Return the functions that are to be carried as new ones, by part: those that ftrace cannot take over.

    Of the callers of one of them, some may be such functions as well, and so may readers of a constant that differs.
    """
    view, side = both.new.view, both.old_side

    def users(part: int) -> list[int]:
        olds = {user: both.old_function(user) for user in both.new.users(part) - both.copies}
        return [user for user, old in olds.items() if old is not None and side.is_own_notrace(old)]

    waiting = [_part_of(view, change) for change in wanted.copies if change.new is not None]
    for change in wanted.constants:
        waiting += users(_part_of(view, change))
    while waiting:
        part = waiting.pop()
        both.copies.add(part)
        waiting += users(part)
    return {part: view.part_name(part) for part in sorted(both.copies)}


def take(old: ObjectView, new: ObjectView, wanted: Wanted, *, is_vmlinux: bool = False) -> Taken:
    """Take some changes and all that they need; raises KlpError for an architecture that cannot be extracted yet.

    In ``is_vmlinux`` a pr_debug() site that exists is the running kernel's. Elsewhere it is one of the livepatch: the
    loader goes through the table of jump labels before a module may be there.
    """
    both, relocated = Correlated(old, new), RelocatedObject(new)
    both.keeps_sites = is_vmlinux
    if not relocated.is_supported:
        raise KlpError(f"functions of {new.architecture.name} cannot be extracted yet", file=new.file.path)
    called = list(callbacks(new))
    begin, not_needed = [(callback.part, "callback") for callback in called], list[str]()
    copies = _copies(both, wanted)

    def bring(users: Iterable[int], why: str) -> None:
        """Begin with the old functions among some users, too, but for those that the user of this program left out."""
        known = {main for main, _ in begin}
        for user in sorted(users):
            is_old = user not in known and new.is_code(user) and both.old_function(user) is not None
            if is_old and not _is_left_out(both, user, wanted):
                begin.append((user, why))

    for change in wanted.begin:
        part = _part_of(new, change)
        is_local = int(new.object.symbols["info"][int(new.canonical.part_symbols(part)[0])]) >> 4 == elf.STB_LOCAL
        if both.old_function(part) is not None:
            begin.append((part, "changed"))
        elif change.change is ChangeType.ADDED and not is_local:
            begin.append((part, "new"))
        elif not any(callback.part == part for callback in called):
            not_needed.append(change.symbol)
    constants = {}
    for change in wanted.constants:
        part = _part_of(new, change)
        constants[part] = change.symbol
        # Whoever reads it has to read the new one, be it that he differs in nothing, or in line numbers.
        bring(both.new.users(part), f"changed, refers to {change.symbol}")
    for part, name in copies.items():
        callers = both.new.users(part) - copies.keys()
        # Init code has made its calls.
        bring((it for it in callers if not is_init(new.canonical.section_name(it))), f"changed, calls {name}")
    needed = Needed(both, relocated, begin, called, constants)
    not_needed += (name for part, name in copies.items() if part not in needed.functions)
    try:
        side = list(side_entries(needed))
    except CannotCarryError as error:
        needed.refuse(begin[0][0], error)
        side = []
    return Taken(needed, side, not_needed)
