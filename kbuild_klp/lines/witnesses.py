# SPDX-License-Identifier: GPL-2.0-only
"""What in two versions of an object may be the number of a source line, before and now.

Records are, by definition (records.py). A number that a call passes together with the name of a source file or of a
function of the object may be one; infer.py decides.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np

from kbuild_klp.elf.symbol_names import canonical_name
from kbuild_klp.lines.calls import UNKNOWN, FunctionCalls
from kbuild_klp.lines.formats import Shown, shown
from kbuild_klp.lines.immediates import signed_immediate
from kbuild_klp.lines.records import line_moves
from kbuild_klp.lines.referring import target_name
from kbuild_klp.lines.versions import Version
from kbuild_klp.object.function import Spot, decode_parts
from kbuild_klp.object.parts import CONTENT, PIECE, STRINGS
from kbuild_klp.object.view import ObjectView
from kbuild_klp.special.table import SOURCE_NAME

Role = tuple[object, int]
"""Which argument of which function: what identifies the function, and the number of the argument."""

NO_UNIT = -1
HEADERS = (".h", ".inc")
"""Included files end in these; their functions may be inlined anywhere."""

# The variables that hold a function's name: C11 6.4.2.2, and GCC's older ones (GCC manual, Function Names). Clang's
# are __func__.NAME.
_FUNCTION_NAMES = frozenset(("__func__", "__FUNCTION__", "__PRETTY_FUNCTION__"))
_WORD = re.compile(rb"\w+\0")


class Home(NamedTuple):
    """The source that a line is of: ``file`` as it is named (None: it is not), ``unit`` the number of the source.

    The unit is NO_UNIT where the object has only one source, or its symbols do not say.
    """

    file: str | None
    unit: int = NO_UNIT


class Witness(NamedTuple):
    """A number that was ``old`` and is ``new`` now, and may be a line of ``home``.

    ``function`` is the old main part that it is in. ``spot`` and ``role`` are those of an argument, None for a record;
    ``call`` is the call that it is passed to, by its number in the function; ``is_said``: a format calls it a line.
    """

    home: Home
    function: int
    old: int
    new: int
    spot: Spot | None = None
    role: Role | None = None
    call: int = -1
    is_said: bool = False


class NamingCall(NamedTuple):
    """A call (``at``) that passes the name of a source file or function. ``numbers`` are its other arguments, each with
    the instructions that set it; those in memory are counted behind those in registers. ``said`` are the arguments
    that a format calls lines. A call that is not ``is_direct`` goes through a register.
    """

    at: int
    callee: object
    is_direct: bool
    names: tuple[Home, ...]
    numbers: dict[int, list[int]]
    said: set[int]

    @property
    def home(self) -> Home:
        """The source that it is about: the file that it names, else that of the function."""
        return next((name for name in self.names if name.file is not None), self.names[0])


class _Passed(NamedTuple):
    """The arguments of a call: names, numbers with the instructions that set them, other strings, and unknown ones."""

    names: dict[int, list[Home]]
    numbers: dict[int, list[int]]
    strings: dict[int, str]
    computed: set[int]


class NamingCalls:
    """The calls of one function that pass a name."""

    def __init__(self, version: Version) -> None:
        self._version = version
        self._view = view = version.view
        rows = (row for part in version.parts for row in view.content_rows(part))
        self._names = {row: home for row in rows if (home := named(view, row)) is not None}
        users = self._calls.users(self._names) if self._names else ()
        self._by_call: dict[int, NamingCall] = {}
        for call in sorted({call for at in users for call in self._receivers(at)}):
            found = self._naming(call)
            if found is not None:
                self._by_call[call] = found
        self.found = [*self._by_call.values()]
        """In order of place."""

    @cached_property
    def _calls(self) -> FunctionCalls:
        return FunctionCalls(self._version)

    def spot(self, at: int) -> Spot:
        """Return the place of an instruction."""
        return self._calls.spots[at]

    @property
    def used_elsewhere(self) -> set[Spot]:
        """The instructions whose number also goes elsewhere than to calls that pass a name."""
        naming = {found.at for found in self.found}
        numbers = {(at, argument) for found in self.found for argument, own in found.numbers.items() for at in own}
        return {
            self.spot(at)
            for at, argument in numbers
            if any(
                self._calls.uses(taker, argument) or (self._calls.is_call(taker) and taker not in naming)
                for taker in self._calls.takers(at, argument)
            )
        }

    def value(self, at: int) -> int:
        """Return the number that an instruction passes."""
        arch, code = self._view.architecture, self._calls.data(at)
        return signed_immediate(int.from_bytes(code, arch.byteorder), arch.immediate(code))

    def _receivers(self, at: int) -> Iterator[int]:
        """Yield the calls that may receive the argument that an instruction sets."""
        argument = self._calls.effect(at).sets
        return filter(self._calls.is_call, self._calls.takers(at, argument) if argument is not None else ())

    def _basename_before(self, call: int) -> Home | None:
        """Return the file whose name without directories a call may be passed, if the call before it computes that.

        kbasename() in include/linux/string.h calls strrchr() where the compiler does not compute it.
        """
        before = next((at for at in range(call - 1, -1, -1) if self._calls.is_call(at)), -1)
        found = self._by_call.get(before)
        if found is None or found.home.file is None:
            return None
        is_search = found.is_direct and target_name(self._view, self._calls.references(before)[0]) == "strrchr"
        return found.home if is_search and [self.value(at) for at in found.numbers.get(1, ())] == [ord("/")] else None

    def _naming(self, call: int) -> NamingCall | None:
        passed = self._passed(call)
        if not passed.names:
            return None
        names, numbers = passed.names, passed.numbers
        target = self._calls.callee(call)
        callee: object = target if target is not None else ("through a register", *self.spot(call))
        # Arguments behind a format are what it shows, whatever function is called.
        formats = ((at, text) for at, text in passed.strings.items() if "%" in text)
        text_at, text = next(formats, (max(numbers, default=0), ""))
        file = self._basename_before(call) if text and passed.computed else None
        if file is not None:
            for argument in passed.computed:
                if shown(text, argument - text_at, True) is Shown.LINE:  # the next argument, if this one is a file
                    names[argument] = [file]
        says = {
            argument: _shown(text, argument - text_at - 1, names.get(argument - 1, ()))
            for argument in numbers
            if argument > text_at
        }
        if text and not any(argument < text_at for argument in names):
            # What is shown is not the company of a number before the format, such as the size of a buffer.
            numbers = {argument: at for argument, at in numbers.items() if argument > text_at}
        if says:
            callee = (callee, text)
            numbers = {argument: at for argument, at in numbers.items() if says.get(argument) is not Shown.OTHER}
        lines = {argument for argument, what in says.items() if what is Shown.LINE}
        homes_named = tuple(home for own in names.values() for home in own)
        return NamingCall(call, callee, target is not None, homes_named, numbers, lines)

    def _passed(self, call: int) -> _Passed:
        """Sort the arguments of a call by what they can be."""
        passed = _Passed({}, {}, {}, set())
        *registers, stored = self._calls.setters(call)
        for argument, setters in enumerate(registers):
            known = sorted(setters - {UNKNOWN})
            rows = [self._calls.references(at) for at in known]
            homes = [self._names.get(own[0]) if len(own) == 1 else None for own in rows]
            if homes and None not in homes and len(known) == len(setters):
                passed.names[argument] = [home for home in homes if home is not None]
            elif plain := [at for at, own in zip(known, rows, strict=True) if not own]:
                passed.numbers[argument] = plain
            elif text := next((text for own in rows for row in own if (text := self._view.string(row))), None):
                passed.strings[argument] = text
            elif not known:
                passed.computed.add(argument)
        for argument, at in enumerate(sorted(stored), len(registers)):
            if not self._calls.references(at):
                passed.numbers[argument] = [at]
        return passed


def _shown(text: str, index: int, names: Sequence[Home]) -> Shown:
    return shown(text, index, all(name.file is not None for name in names)) if names else Shown.OTHER


def named(view: ObjectView, row: int) -> Home | None:
    """Return the source that is named by what a reference goes to, None when that is no such name."""
    text = view.string(row)
    if text is not None:
        if SOURCE_NAME.fullmatch(text):
            return Home(text)
        functions = view.functions_called(text)
        return Home(None, unit(view, functions[0])) if len(functions) == 1 else None
    part = view.content_part(row)
    is_name = part is not None and not view.target_offset(row) and is_function_name(view, part)
    return Home(None, unit(view, part)) if part is not None and is_name else None


def unit(view: ObjectView, part: int) -> int:
    """Return the number of the source that a part is of."""
    chunk = int(view.canonical.parts.chunk[part])
    return view.canonical.sources.home_of(int(view.canonical.chunks.heads[chunk])) if chunk >= 0 else NO_UNIT


def is_function_name(view: ObjectView, part: int) -> bool:
    """Say whether a part is the variable that ``__func__`` stands for."""
    name = canonical_name(view.part_name(part)).text.partition(".")[0]
    return name in _FUNCTION_NAMES and _WORD.fullmatch(view.data(part)) is not None


class Witnesses:
    """All that may be a line in two versions of an object; functions are read when they are first asked for.

    ``changed`` are the old main parts whose checksums changed, or that are gone.
    """

    def __init__(self, old: ObjectView, new: ObjectView, changed: Collection[int]) -> None:
        self._old = old
        self._new = new
        self._changed = changed
        self._known: dict[int, list[Witness]] = {}

    def of(self, old: Version, new: Version) -> list[Witness]:
        """Return those of one function that changed."""
        function = old.parts[0]
        if function not in self._known:
            self._known[function] = list(_witnesses(old, new))
        return self._known[function]

    def of_all(self, functions: Collection[int]) -> Iterator[Witness]:
        """Yield those of some functions, old main parts, in order."""
        wanted = [Version(self._old, self._old.family(function)) for function in sorted(functions)]
        decode_parts(self._old, (part for version in wanted for part in version.parts))
        for version in wanted:
            function = version.parts[0]
            yield from self.of(version, self._new_version(function) if function in self._changed else version)

    def _new_version(self, function: int) -> Version:
        return Version(self._new, self._new.parts_of(self._old.symbol_of(function)))

    @cached_property
    def has_many_sources(self) -> bool:
        """Whether the symbols of the old object tell of several sources."""
        return sum(map(bool, self._old.canonical.sources.files)) > 1

    def users(self, home: Home) -> set[int]:
        """Return the old main parts of the functions that refer to a name, in code or in a special entry."""
        return self._users.get(home, set())

    @cached_property
    def _users(self) -> dict[Home, set[int]]:
        view = self._old
        targets, owner = view.canonical.targets, view.meanings.owner
        parent, kind = view.canonical.families.parent, view.canonical.parts.kind
        rows = np.flatnonzero((owner >= 0) & (targets.part >= 0) & (targets.symbol < 0) & (targets.section < 0))
        rows = rows[np.isin(kind[targets.part[rows]], (STRINGS, CONTENT, PIECE))]
        _, first, which = np.unique(view.canonical.references.target[rows], return_index=True, return_inverse=True)
        homes = [named(view, row) for row in rows[first].tolist()]
        is_name = np.array([home is not None for home in homes], bool)[which]
        found = defaultdict[Home, set[int]](set)
        data = defaultdict[int, set[Home]](set)
        for part, at in zip(owner[rows[is_name]].tolist(), which[is_name].tolist(), strict=True):
            home = homes[at]
            if home is not None and view.is_code(part):
                found[home].add(parent.get(part, part))
            elif home is not None:
                data[part].add(home)
        # A record that has a name names the source of the functions that refer to it.
        users = np.flatnonzero(np.isin(targets.part, [*data]) & (owner >= 0))
        for part, record in zip(owner[users].tolist(), targets.part[users].tolist(), strict=True):
            if view.is_code(part):
                for home in data[record]:
                    found[home].add(parent.get(part, part))
        return found

    @cached_property
    def _files(self) -> dict[int, list[tuple[int, str]]]:
        """The functions that name a C file, by section and in order of place, and that file."""
        found = defaultdict[int, list[tuple[int, str]]](list)
        parts = self._old.canonical.parts
        for home, functions in self._users.items():
            if home.file is not None and not home.file.endswith(HEADERS):
                for function in functions:
                    found[int(parts.section[function])].append((function, home.file))
        return {section: sorted(functions) for section, functions in found.items()}

    @cached_property
    def _has_one_file(self) -> bool:
        return len({file for files in self._files.values() for _, file in files}) == 1

    def file_by_place(self, function: int) -> str | None:
        """Return the C file that a function is of, by those that the functions around it name; None: they differ.

        Linkers do not mix the code of several sources.
        """
        around = self._files.get(int(self._old.canonical.parts.section[function]), [])
        at, end = (bisect_left(around, (place, "")) for place in (function, function + 1))
        own = {file for _, file in around[at:end]}
        near = own or {file for _, file in around[max(at - 1, 0) : at + 1]}
        is_between = bool(own) or 0 < at < len(around)
        return near.pop() if len(near) == 1 and (is_between or self._has_one_file) else None


def _witnesses(old: Version, new: Version) -> Iterator[Witness]:
    """Yield what may be lines in two versions of a function: records, and what both pass to calls with a name."""
    if not new.parts:
        return
    function = old.parts[0]
    for move in line_moves(old, new):
        if move.file is not None:
            yield Witness(Home(move.file), function, move.old, move.new)
    before = NamingCalls(old)
    if not before.found:
        return
    after = before if new is old else NamingCalls(new)
    if [_shape(found) for found in before.found] != [_shape(found) for found in after.found]:
        return
    for x, y in zip(before.found, after.found, strict=True):
        for argument, setters in x.numbers.items():
            for was, is_ in zip(setters, y.numbers[argument], strict=True):
                lines, role = (before.value(was), after.value(is_)), (x.callee, argument)
                yield Witness(x.home, function, *lines, before.spot(was), role, x.at, argument in x.said)


def _shape(found: NamingCall) -> tuple[object, ...]:
    """Return what has to be equal in both versions of a call for its numbers to correspond."""
    callee = found.callee if found.is_direct else None
    files = [name.file for name in found.names]
    return callee, files, [(argument, len(setters)) for argument, setters in found.numbers.items()]
