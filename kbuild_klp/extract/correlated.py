# SPDX-License-Identifier: GPL-2.0-only
"""Which symbol of the running kernel a symbol of the new object is.

The comparison pairs symbols too, but there a wrong pair costs a reason that reads oddly; here it would make two
functions count in the same variable, or one of them start again from nothing. So what has a compiler's number in its
name is only taken for what a function says that refers to it in both builds.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from functools import cached_property
from itertools import chain

import numpy as np

from kbuild_klp.changes.contested import Contested
from kbuild_klp.changes.pairing import correlate
from kbuild_klp.checksum import sum_file
from kbuild_klp.checksum.batch import compute_read
from kbuild_klp.checksum.entry import KIND_FUNCTION, KIND_SECTION, Entry
from kbuild_klp.elf import constants as elf
from kbuild_klp.elf.symbol_names import CanonicalName, canonical_name
from kbuild_klp.extract.why_not import Bar, CannotCarryError
from kbuild_klp.lines.ubsan import is_of_ubsan
from kbuild_klp.livepatch.sides import ObjectSide
from kbuild_klp.object.parts import CONTENT, PIECE
from kbuild_klp.object.symbol_id import SymbolId
from kbuild_klp.object.view import ObjectView

DEBUG = "__dyndbg"
"""Where struct _ddebug of each pr_debug() stands (include/linux/dynamic_debug.h): whether it is switched on."""

# State that means nothing to anybody else: whether a message has been printed, or how often lately
# (include/linux/once_lite.h, printk.h, ratelimit.h). Without its counterpart, it is printed once more.
# ___tp_str is no state, but a pointer that is never written (tracepoint_string() in include/linux/tracepoint.h).
_HARMLESS = frozenset({"__already_done", "__warned", "__print_once", "_rs", "___tp_str"})
_WORD = 8  # bytes of the longest field that a relocation fills in


class CorrelatedSide:
    """One of both objects: its entries, by symbol, and who refers to what."""

    def __init__(self, view: ObjectView) -> None:
        self.view = view
        entries = sum_file.load(compute_read(view.meanings).data, view.file.path).entries
        self.entries = {entry.symbol: entry for entry in entries if entry.kind != KIND_SECTION}

    @cached_property
    def globals(self) -> frozenset[str]:
        """The names of the global symbols that are defined here."""
        objects = self.view.object
        is_global = (objects.symbols["info"] >> 4 != elf.STB_LOCAL) & (objects.shndx != elf.SHN_UNDEF)
        return frozenset(objects.names_of(is_global.nonzero()[0].tolist()))

    @cached_property
    def alike(self) -> dict[CanonicalName, list[SymbolId]]:
        """The variables by what is left of their names without numbers."""
        found: dict[CanonicalName, list[SymbolId]] = defaultdict(list)
        for symbol, entry in self.entries.items():
            if entry.kind != KIND_FUNCTION:
                found[_family_name(symbol.name)].append(symbol)
        return found

    @cached_property
    def empty_variables(self) -> dict[str, str]:
        """A static variable without bytes for each name without number."""
        names = self.view.canonical.image.empty_variables
        return {name: self.view.object.symbol_name(symbol) for symbol, name in names.items()}

    def users(self, part: int) -> set[int]:
        """Return the main parts of all that refers to a part: functions, and data."""
        canonical = self.view.canonical
        owners = set(self.view.meanings.owner[self.view.references_to(part)].tolist())
        return {canonical.families.parent.get(owner, owner) for owner in owners} - {part}

    @cached_property
    def sites(self) -> dict[tuple[str, bytes], list[int]]:
        """The pr_debug() sites by source, and what they say (file, function, format) but for lines, which sort them."""
        parts, found = self.view.canonical.parts, defaultdict[tuple[str, bytes], list[int]](list)
        sections = [at for at, name in enumerate(self.view.object.section_names) if name == DEBUG]
        if sections:
            is_site = (parts.kind == CONTENT) & np.isin(parts.section, sections)
            for part in sorted(is_site.nonzero()[0].tolist(), key=self._line):
                symbol = self.view.symbol_of(part)
                found[symbol.file if symbol else "", self.view.meanings.content.digest(part)].append(part)
        return found

    def _line(self, part: int) -> int:
        return int.from_bytes(self.view.canonical.lines_of_record(part), "little")

    def is_nameless_state(self, part: int) -> bool:
        """Say whether a part is writable data without a name."""
        return not self.is_read_only(part) and self.view.canonical.parts.kind[part] == PIECE

    def is_read_only(self, part: int) -> bool:
        """Say whether a part is in a section that nobody writes to."""
        section = int(self.view.canonical.parts.section[part])
        return not self.view.object.sections["flags"][section] & elf.SHF_WRITE

    def is_of_ubsan(self, part: int) -> bool:
        """Say whether a part is such data with which UBSAN reports: in a copy of its own it reports once more."""
        return self.is_nameless_state(part) and is_of_ubsan(self.view, part)


class Correlated:
    """Both objects, and which symbol of the old one is which of the new one."""

    def __init__(self, old: ObjectView, new: ObjectView) -> None:
        self.old, self.new = CorrelatedSide(old), CorrelatedSide(new)
        found = correlate(Contested([*self.old.entries.values()], [*self.new.entries.values()]))
        self._old_of = {pair.new.symbol: pair.old.symbol for pair in found.pairs if pair.old and pair.new}
        said = {*self._unchanged_users(found.pairs)}
        self.keeps_sites = False
        """Whether pr_debug() sites are the running kernel's (`old_site`)."""
        self.lost_sites: set[SymbolId] = set()
        """Those of the old object that cannot be named in the running kernel."""
        self._pointed_to: dict[SymbolId, bool] = {}
        self.copies: set[int] = set()
        """Functions of the new object that take the place of no old one, because ftrace cannot lead there."""
        # Where two of them say different things, who is right is not for us to say.
        counts = Counter(chain.from_iterable(((True, after), (False, before)) for after, before in said))
        self._said = {after: before for after, before in said if counts[True, after] == counts[False, before] == 1}

    @cached_property
    def old_side(self) -> ObjectSide:
        """What the old object says of its functions."""
        return ObjectSide(self.old.view)

    def _unchanged_users(
        self, pairs: Iterable[tuple[Entry | None, Entry | None]]
    ) -> Iterable[tuple[SymbolId, SymbolId]]:
        """Yield what functions without a change say: new symbol, old symbol."""
        for old, new in pairs:
            if old and new and old.checksum == new.checksum and len(old.uses) == len(new.uses):
                for before, after in zip(old.uses, new.uses, strict=True):
                    if _family_name(before.name) == _family_name(after.name):
                        yield after, before

    def is_unchanged(self, part: int) -> bool:
        """Say whether a part of the new object has a counterpart with the same checksum."""
        symbol = self.new.view.symbol_of(part)
        old = self._old_of.get(symbol) if symbol else None
        return bool(old and symbol and self.old.entries[old].checksum == self.new.entries[symbol].checksum)

    def old_function(self, part: int) -> SymbolId | None:
        """Return the old function that a function of the new object takes the place of, None for a new one.

        One that the compiler made otherwise (foo, foo.isra.0) has other arguments: it is a new one. So are `copies`.
        """
        symbol = self.new.view.symbol_of(part)
        old = self._old_of.get(symbol) if symbol else None
        if old is None or symbol is None or part in self.copies:
            return None
        is_same = canonical_name(old.name).text == canonical_name(symbol.name).text
        return old if is_same or old.name in self._names_of(part) else None

    def is_pointed_to(self, old: SymbolId) -> bool:
        """Say whether a pointer to an old function may be somewhere, and be called.

        To a function of which nobody took the address, no pointer is equal, and none can be called under IBT or kCFI:
        compilers leave out ENDBR, or the hash of the type.
        """
        if old.name in self.old.globals:
            return True
        if old not in self._pointed_to:
            self._pointed_to[old] = not all(self.old_side.callers_of(old).values())
        return self._pointed_to[old]

    def _names_of(self, part: int) -> set[str]:
        """Return all names of a part."""
        return {*self.new.view.object.names_of(self.new.view.canonical.part_symbols(part).tolist())}

    def old_variable(self, part: int) -> SymbolId | None:
        """Return the variable of the running kernel that a variable of the new object is, None for a new one.

        Raises CannotCarryError when it may be one of several, or of another function.
        """
        symbol = self.new.view.symbol_of(part)
        assert symbol is not None
        old = self._old_variable(part, symbol)
        if old is None:
            self._check_not_moved(symbol)
        return old

    def _check_not_moved(self, symbol: SymbolId) -> None:
        """Raise CannotCarryError when an old variable of another function is gone that has a new one's name.

        LLVM calls a static variable FUNCTION.NAME; GCC, which leaves the function out, has the two as candidates.
        """
        function, _, name = canonical_name(symbol.name).text.rpartition(".")
        if not function or is_harmless(symbol.name):
            return
        moved = [
            old
            for old in self.gone_variables
            if canonical_name(old.name).text.endswith(f".{name}") and _may_be_of_one_file(old, symbol)
        ]
        if moved:
            raise CannotCarryError(Bar.CANDIDATES, name=symbol.name, old=" or ".join(it.name for it in moved))

    @cached_property
    def gone_variables(self) -> list[SymbolId]:
        """The variables of the old object that are none of the new one's by their names."""
        paired = {*self._old_of.values()}
        return [old for old, entry in self.old.entries.items() if entry.kind != KIND_FUNCTION and old not in paired]

    def _old_variable(self, part: int, symbol: SymbolId) -> SymbolId | None:
        name = _family_name(symbol.name)
        if not name.numbered or self._is_first_and_only(symbol, name):
            return self._old_of.get(symbol)
        candidates = [it for it in self.old.alike.get(name, ()) if _may_be_of_one_file(it, symbol)]
        if symbol in self._said:
            return self._said[symbol]
        mine = [it for it in candidates if self.share_a_user(it, part)]
        if len(mine) == 1 and self._is_only_one(mine[0], name, symbol):
            return mine[0]
        if not mine and all(self._is_taken(it, name, symbol) for it in candidates):
            return None
        if is_harmless(symbol.name):
            return None
        raise CannotCarryError(Bar.CANDIDATES, name=symbol.name, old=" or ".join(it.name for it in mine or candidates))

    def _is_first_and_only(self, symbol: SymbolId, name: CanonicalName) -> bool:
        """Say whether a variable needs no number to be told from others, in either object."""
        several = (len(side.alike.get(name, ())) > 1 for side in (self.old, self.new))
        return not canonical_name(symbol.name).numbered and not any(several)

    def share_a_user(self, old: SymbolId, new_part: int) -> bool:
        """Say whether a function refers to both, each in its build."""
        before = self.old.users(self.old.view.parts_of(old)[0])
        after = self.new.users(new_part)
        olds = {self._old_of.get(symbol) for user in after if (symbol := self.new.view.symbol_of(user)) is not None}
        return any(self.old.view.symbol_of(user) in olds for user in before)

    def _is_only_one(self, old: SymbolId, name: CanonicalName, symbol: SymbolId) -> bool:
        """Say whether no other variable of the new object could be an old one as well."""
        others = (it for it in self.new.alike[name] if it != symbol and self._said.get(it, old) == old)
        return not any(self.share_a_user(old, self.new.view.parts_of(it)[0]) for it in others)

    def _is_taken(self, old: SymbolId, name: CanonicalName, symbol: SymbolId) -> bool:
        """Say whether an old variable is another one of the new object."""
        others = [it for it in self.new.alike[name] if it != symbol]
        return any(
            self._said[it] == old if it in self._said else self.share_a_user(old, self.new.view.parts_of(it)[0])
            for it in others
        )

    def old_site(self, part: int) -> SymbolId | None:
        """Return the pr_debug() site of the running kernel that one of the new object is, None for a new one.

        Several of one text are told apart by their order, if they are as many as they were.
        """
        old = self.old_sites.get(part) if self.keeps_sites else None
        return None if old in self.lost_sites else old

    @cached_property
    def old_sites(self) -> dict[int, SymbolId | None]:
        """The pr_debug() sites of the old object that the new one has, too, by the part of the new one."""
        before = self.old.sites
        return {
            part: self.old.view.symbol_of(old)
            for text, parts in self.new.sites.items()
            if len(before.get(text, ())) == len(parts)
            for part, old in zip(parts, before[text], strict=True)
        }

    def old_place(self, symbol: SymbolId) -> tuple[int, int] | None:
        """Return section and offset of an old variable, None for one without bytes."""
        parts = self.old.view.parts_of(symbol)
        return self.old.view.place(parts[0]) if parts else None

    def has_content(self, place: tuple[int, int], part: int) -> bool:
        """Say whether the old object has at a place (section, offset) what a read-only part of the new one consists of.

        Not of what refers to something: that may have changed.
        """
        section, offset = place
        old, new = self.old.view, self.new.view
        size, header = new.size(part), old.object.sections[section]
        home = new.object.sections[new.place(part)[0]]
        if (header["flags"] | home["flags"]) & (elf.SHF_WRITE | elf.SHF_MERGE) or header["type"] == elf.SHT_NOBITS:
            return False
        if offset < 0 or any(new.reference_range(part)):
            return False
        places = old.object.relocations(np.array([section])).offset
        if ((places > offset - _WORD) & (places < offset + size)).any():
            return False
        return bytes(old.object.content(section)[offset : offset + size]) == new.raw_bytes(part, 0, size)


def _family_name(name: str) -> CanonicalName:
    """Return what a variable is called but for the number that keeps it apart from others.

    LLVM calls a static variable of a function FUNCTION.NAME, and numbers the second one of it only.
    """
    found = canonical_name(name)
    return found._replace(numbered=True) if "." in found.text else found


def is_harmless(name: str) -> bool:
    """Say whether a static variable of a function is such that another one does as well, each by itself."""
    return canonical_name(name).text.rpartition(".")[2] in _HARMLESS


def _may_be_of_one_file(old: SymbolId, new: SymbolId) -> bool:
    return not (old.file and new.file) or old.file == new.file
