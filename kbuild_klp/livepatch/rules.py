# SPDX-License-Identifier: GPL-2.0-only
"""Can a livepatch carry a change? The rules, over facts that others gather.

A livepatch is a module that brings new functions, and has ftrace lead each old one's callers to its new one
(kernel/livepatch/patch.c). The old function must therefore have a place at which ftrace can take over, and must be
found by name (klp_find_object_symbol in kernel/livepatch/core.c). It replaces nothing else: data stays what it is in
the running kernel. What is added comes along in the module; what is removed stays where it is, unused or not.
Documentation/livepatch/livepatch.rst, "Limitations", says the first half of it; tools/objtool/klp-diff.c and kpatch's
patch author guide the other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from typing import NamedTuple

from kbuild_klp.changes.classification import Change, ChangeType
from kbuild_klp.changes.verdict import Finding, Obstacle, Verdict
from kbuild_klp.changes.wording import ReasonKind
from kbuild_klp.checksum.entry import KIND_DATA, KIND_FUNCTION, KIND_SECTION, Entry

# Code and data that is freed after boot, or used only at the end (include/linux/init.h, include/asm-generic/
# vmlinux.lds.h). With memory hotplug .meminit stays (up to 6.9); a function of it is better looked at than patched.
_INIT = re.compile(r"\.(?:mem|cpu|dev)?(?:init|exit)\.|\..*\.(?:init|exit)$")
_VERSIONS = "__version*"  # struct modversion_info, include/linux/module.h
# Tables that are read once, when the kernel is linked or started or the module loaded: an entry more or less has no
# effect on what runs, and one in a livepatch module would be about the livepatch module.
_EXPORTS = (
    (".export_symbol", "is made into exports by the linker"),
    ("*__ksymtab*", "is what the kernel exports, fixed when it is linked"),
    ("*__kcrctab*", "is what the kernel exports, fixed when it is linked"),
)
_TABLES = (
    (".modinfo", "is read from the module's file"),
    *_EXPORTS,
    (_VERSIONS, "is read when the module is loaded, the CRCs of what it uses"),
    ("__param", "is read at boot, or when the module is loaded"),
    (".pci_fixup_*", "is put together when the kernel is linked"),
)
# What is run through when the kernel starts or a module is loaded (KERNEL_CTORS in vmlinux.lds.h, do_mod_ctors in
# kernel/module/main.c).
_CONSTRUCTORS = (".init_array*", ".ctors*", ".fini_array*")
_CODE = re.compile(r"(?!\.(?:data|rodata|bss)).*\.text(?:\.|$)")  # .text.hot, .noinstr.text; not .data.text
# Strings and constants, which the linker merges: one is reached by a reference, and belongs to its user. What is left
# is what the compiler wrote for a call that it made instructions of (memcmp()), and forgot.
_CONSTANTS = re.compile(r"\.rodata(?:\..+)?\.(?:str|cst)[0-9.]+$")
_PRINTK_INDEX = ".printk_index"  # struct pi_entry, include/linux/printk.h: for debugfs; nothing else depends on it
_PER_CPU = ".data..percpu"
# What mark_rodata_ro() and the loader of modules make read-only (include/asm-generic/vmlinux.lds.h).
_CONSTANT = (".rodata", ".ref.rodata", ".data..ro_after_init", ".data.rel.ro")
# klp_try_switch_task in kernel/livepatch/transition.c: a task is patched when no old function is on its stack.
WAITS_FOR_THREADS = "the transition waits until the threads that are in it return from it, maybe for good"
# What a module brings of its own, and what is no section. Whatever else is new is an entry that the linker puts beside
# those of other objects (vmlinux.lds.h), or that the loader of the module that was patched has looked for long ago.
_BROUGHT = (
    *(".data", ".rodata", ".bss", ".ref.data", ".ref.rodata", ".sdata", ".sbss", ".toc", ".opd", ".note"),
    *("__dyndbg", "__bug_table", "__tracepoint_str", "*"),
)
_MOST_NAMES = 3


@dataclass(frozen=True)
class Position:
    """Where the old function stands among all symbols of its name, as the kernel looks them up.

    ``number`` counts from 1 (0: cannot be told), ``count`` is 0 when the linked image has no such symbol.
    ``is_other`` says that the image has another definition in its place (weak functions), ``is_listed`` whether the
    kernel has it in its list of what ftrace can take over (None: cannot be told), ``is_thread`` whether code of the
    unit starts threads with it. ``unit`` is the image.
    """

    unit: str
    number: int
    count: int
    is_other: bool = False
    is_listed: bool | None = None
    is_thread: bool = False


class Stays(NamedTuple):
    """Something that goes on using the old version of what it refers to, and why, in words."""

    name: str
    why: str


class Readers(NamedTuple):
    """Who refers to something of one object: ``functions`` that are the same in both builds, in words.

    ``others`` refer to it, too, and cannot be replaced.
    """

    functions: tuple[str, ...]
    others: tuple[Stays, ...]

    @property
    def used_by(self) -> str:
        """Who cannot be replaced, in words."""
        return f"it is used by {join_names([f'{it.name} ({it.why})' for it in self.others])}"

    @property
    def names(self) -> tuple[str, ...]:
        """Who cannot be replaced, by name."""
        return tuple(it.name for it in self.others)

    @property
    def along(self) -> str:
        """Who comes along, in words; empty if nobody does."""
        return f"; carried with it: {join_names(self.functions)}" if self.functions else ""


class ToldFunction(NamedTuple):
    """A table that somebody walks through, with an entry about a function.

    ``is_known`` says that a row of special.toml is about it, ``is_same`` that both builds say the same there.
    """

    section: str
    is_known: bool
    is_same: bool


class Facts(NamedTuple):
    """What is known of one change beyond what the checksums say; None where it could not be found out."""

    livepatch: bool = True
    """Whether the old kernel can load livepatches."""
    is_vdso: bool = False
    no_old: str = "the old object was not read"
    """Why nothing is known of the old object."""
    no_new: str = "the new object was not read"
    untraced: str | None = None
    """Why ftrace cannot take over the old function, empty if it can."""
    position: Position | None = None
    """None without the linked image."""
    keys: tuple[Finding, ...] | None = None
    """What the static keys and calls of a module mean that the new function uses."""
    crcs: tuple[str, ...] = ()
    """The exports whose CRC changed that the new function is or uses."""
    users: tuple[str, ...] | None = None
    """Who in the patched kernel goes on referring to a removed function."""
    moved: str = ""
    """The object in which a removed function is now."""
    readers: Readers | None = None
    """None for what users in other objects can have, for writable data, and for a function that has to stay."""
    is_thread: bool = False
    """Whether the old function is what some thread runs, or what all that sleep are in."""
    tables: tuple[ToldFunction, ...] | None = ()
    imports: tuple[str, ...] | None = None
    """The symbols that both versions of a linked module use with another CRC, in words."""
    is_for_content: bool = False
    """Whether a section is aligned otherwise because of data without a name that came or went."""
    retyped: Finding | None = None
    """What another kCFI hash of the function's type means."""


def judge(change: Change, facts: Facts) -> Verdict:
    """Say whether a livepatch can carry one change."""
    if needs_nothing(change):
        return Verdict()
    if not facts.livepatch:
        reason = "no livepatch: the old kernel was built without CONFIG_LIVEPATCH"
        return Verdict((Finding(Obstacle.NO_LIVEPATCH, reason),))
    if facts.imports is not None and says_of_imports(change):
        return Verdict(tuple(Finding(Obstacle.CRC, f"CRC: {text}") for text in facts.imports))
    first = _place_reason(change, facts)
    return Verdict((first,) if first else tuple(_RULES.get(change.kind, _data_reasons)(change, facts)))


def needs_nothing(change: Change) -> bool:
    """Say whether the running kernel can stay as it is: only lines, place or what the linker sees of it differ."""
    if change.change is ChangeType.LINE_ONLY:
        return True
    old, new = change.old, change.new
    if old is None or new is None or change.kind == KIND_SECTION or _changes_lifetime(old, new):
        return False
    if change.change is ChangeType.MOVED:
        return True
    # An absolute symbol has no bytes: all that there is to it is among its attributes.
    same = old.size == new.size and old.split_components()[1:] == new.split_components()[1:]
    return same and old.checksum != new.checksum and not new.section.startswith("*")


def is_realigned(change: Change) -> bool:
    """Say whether a section, or what is in it, is aligned otherwise."""
    return change.kind == KIND_SECTION and any(reason.kind is ReasonKind.ALIGNMENT for reason in change.why)


def says_of_imports(change: Change) -> bool:
    """Say whether a change is one of the CRCs that a linked module has of what it uses."""
    sections = _sections_of(change)
    return change.kind != KIND_FUNCTION and all(fnmatchcase(section, _VERSIONS) for section in sections)


def _sections_of(change: Change) -> list[str]:
    """Return the sections that a change is in, or is of: the old and the new one."""
    entries = [entry for entry in (change.old, change.new) if entry is not None]
    return [entry.name if change.kind == KIND_SECTION else entry.section for entry in entries]


def _changes_lifetime(old: Entry, new: Entry) -> bool:
    """Say whether something moved to memory of another kind, so that its users would have to know.

    What becomes init code has no users left but init code.
    """
    leaves_init = is_init(old.section) and not is_init(new.section)
    return leaves_init or _becomes_per_cpu(old, new) or becomes_writable(old, new)


def _becomes_per_cpu(old: Entry, new: Entry) -> bool:
    """Say whether something is a variable of each processor in one of two builds only."""
    return is_per_cpu(old.section) != is_per_cpu(new.section)


def is_per_cpu(section: str) -> bool:
    """Say whether what lies in a section is a variable of each processor."""
    return section.startswith(_PER_CPU)


def becomes_writable(old: Entry, new: Entry) -> bool:
    """Say whether who writes to the new version of something would fault with the old one.

    GCC makes a constant of a static variable that nobody writes to, whatever the source says.
    """
    return old.section.startswith(_CONSTANT) and not new.section.startswith(_CONSTANT) and not is_init(new.section)


@cache
def is_init(section: str) -> bool:
    """Say whether what lies in a section is freed after boot, or used only at the end (shutdown, unload)."""
    return _INIT.match(section) is not None


def _place_reason(change: Change, facts: Facts) -> Finding | None:
    """Return why a change in such a place forbids a livepatch, whatever the change is."""
    if facts.is_vdso and change.kind != KIND_FUNCTION:
        return Finding(Obstacle.VDSO, "vdso: its image is mapped into running programs")
    for section in _sections_of(change):
        reason = _section_reason(section)
        if reason is not None and not (change.change is ChangeType.REMOVED and _is_of_exports(section)):
            return reason
    return None


def _is_of_exports(section: str) -> bool:
    """Say whether a section is about what is exported: what no longer is, stays with its exports where it is."""
    return any(fnmatchcase(section, pattern) for pattern, _ in _EXPORTS)


@cache
def _section_reason(section: str) -> Finding | None:
    if is_init(section):
        return Finding(Obstacle.INIT, f"init or exit code: in {section}")
    meaning = next((text for pattern, text in _TABLES if fnmatchcase(section, pattern)), None)
    return None if meaning is None else Finding(Obstacle.TABLE, f"table: {section} {meaning}")


# -- functions ------------------------------------------------------------------------------------------------------


def _function_reasons(change: Change, facts: Facts) -> Iterator[Finding]:
    if change.change is ChangeType.REMOVED and not facts.moved:
        yield from _removed_reasons(facts)
        return
    if change.change is not ChangeType.ADDED:
        yield from _old_function_reasons(facts)
    if change.change is not ChangeType.REMOVED:
        if facts.keys is None:
            yield Finding(Obstacle.UNKNOWN, f"not known: whether it uses a static key of a module: {facts.no_new}")
        yield from facts.keys or ()
        yield from _table_reasons(facts)
        if facts.retyped is not None:
            yield facts.retyped
        yield from (Finding(Obstacle.CRC, f"CRC: {text}") for text in facts.crcs)


def _old_function_reasons(facts: Facts) -> Iterator[Finding]:
    """Yield what is in the way of leading callers from the old function to the new one."""
    if facts.untraced is None:
        yield Finding(Obstacle.UNKNOWN, f"not known: whether it can be traced: {facts.no_old}")
        return
    thread = (Finding(Obstacle.THREAD, f"thread: {WAITS_FOR_THREADS}"),) if facts.is_thread else ()
    if facts.untraced and facts.readers is not None and not facts.readers.others:
        text = f"by its callers: it has {facts.untraced}{facts.readers.along}"
        yield Finding(Obstacle.CALLERS, text, facts.readers.functions)
        yield from thread
        return
    if facts.untraced:
        used, names = (f"; {facts.readers.used_by}", facts.readers.names) if facts.readers is not None else ("", ())
        yield Finding(Obstacle.NOT_TRACEABLE, f"not traceable: {facts.untraced}{used}", names)
    elif facts.position is not None and facts.position.is_listed is False:
        yield Finding(Obstacle.NOT_TRACEABLE, f"not traceable: not in {facts.position.unit}'s list of what is")
    yield from thread
    if facts.moved:
        yield Finding(Obstacle.MOVED, f"moved to {facts.moved}: that is the new version of it")
    position = facts.position
    if position is None:
        yield Finding(Obstacle.UNCHECKED, "not checked: whether its name is unique (no linked image of the old build)")
    elif position.is_other:
        yield Finding(Obstacle.NO_SYMBOL, f"no symbol: {position.unit} has another definition of it")
    elif not position.count:
        yield Finding(Obstacle.NO_SYMBOL, f"no symbol: {position.unit} has none of that name")
    elif position.count > 1:
        which = str(position.number) if position.number else "unknown"
        yield Finding(Obstacle.SYMPOS, f"sympos {which} of {position.count} in {position.unit}")


def _table_reasons(facts: Facts) -> Iterator[Finding]:
    """Yield the tables about a function that are read when its old version was new, or by nobody knows whom."""
    if facts.tables is None:
        yield Finding(Obstacle.UNKNOWN, f"not known: whether a table names it that only boot reads: {facts.no_new}")
    for table in facts.tables or ():
        if any(fnmatchcase(table.section, pattern) for pattern in _CONSTRUCTORS):
            text = f"table: {table.section} names it, which is called at boot, or with its module"
            yield Finding(Obstacle.TABLE, text)
        elif not table.is_known:
            yield Finding(Obstacle.TABLE, f"table: {table.section} names it, and no row of special.toml is about that")
        elif not table.is_same:
            reason = _section_reason(table.section)
            meaning = reason.text if reason else f"table: {table.section} is put together when the kernel is linked"
            yield Finding(Obstacle.TABLE, f"{meaning}; what it says of the function differs")


def _removed_reasons(facts: Facts) -> Iterator[Finding]:
    """Yield who keeps a function going that is not there any more."""
    if facts.users is None:
        yield Finding(Obstacle.UNKNOWN, f"not known: whether it is still referenced: {facts.no_old}")
    elif facts.users:
        yield Finding(Obstacle.REFERENCED, f"still referenced: by {join_names(facts.users)}", facts.users)


def join_names(names: Sequence[str]) -> str:
    """Return some names in words, and how many more there are."""
    rest = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {rest} more" if rest > 0 else "")


# -- data and sections ----------------------------------------------------------------------------------------------


def _data_stays(what: str) -> Finding:
    return Finding(Obstacle.DATA, f"data: {what}; a livepatch replaces functions only")


def _data_reasons(change: Change, facts: Facts) -> Iterator[Finding]:
    old, new = change.old, change.new
    if new is not None and new.section == _PRINTK_INDEX:
        yield Finding(Obstacle.PRINTK_INDEX, "printk index: it does not name the message of the livepatch")
        return
    if old is None and new is not None and not new.section.startswith(_BROUGHT) and not _CODE.match(new.section):
        yield Finding(Obstacle.TABLE, f"table: {new.section} is put together when the kernel or the module is linked")
    elif old is None and new is not None and is_per_cpu(new.section):
        yield _data_stays("a new per-CPU variable")
    if old is None or new is None:
        return  # new data comes with the livepatch; old data stays where it is
    before, after = old.split_components(), new.split_components()
    if _becomes_per_cpu(old, new) or becomes_writable(old, new):
        what = f"from {old.section} to {new.section}"
    elif old.size != new.size:
        what = f"size {old.size} -> {new.size}"
    elif before.references != after.references and before.data == after.data:
        what = "what it points to"
    else:
        what = "content"
    if facts.readers is None:
        yield _data_stays(what)
    elif facts.readers.others:
        yield Finding(Obstacle.DATA, f"data: {what}; {facts.readers.used_by}", facts.readers.names)
    else:
        text = f"read-only data: who has its address keeps the old one{facts.readers.along}"
        yield Finding(Obstacle.READ_ONLY, text, facts.readers.functions)


def _section_reasons(change: Change, facts: Facts) -> Iterator[Finding]:
    old, new = change.old, change.new
    if old is None or new is None:
        return
    before, after = old.split_components(), new.split_components()
    if before[1:] != after[1:] and not _CONSTANTS.match(new.name):
        yield _data_stays("content without a symbol")
    elif before.attributes != after.attributes:
        yield _data_stays("type or flags of the section")
    elif old.place.get("order") != new.place.get("order"):
        yield _data_stays("the order of its symbols")
    elif not _CODE.match(new.name) and not facts.is_for_content and is_realigned(change):
        yield _data_stays("alignment")


_RULES: dict[str, Callable[[Change, Facts], Iterator[Finding]]] = {
    KIND_FUNCTION: _function_reasons,
    KIND_DATA: _data_reasons,
    KIND_SECTION: _section_reasons,
}
