# SPDX-License-Identifier: GPL-2.0-only
"""Inference, where there are no sources, that numbers in code are source lines that moved.

A number is a line because of its role, and for no other reason. That it equals the line on which its instruction
stands, as debug information says, or that it moved by as much as all lines did, happens to constants as well. Records
are lines by definition (records.py). In code there is one more role, which shows in what a number is passed with: the
kernel passes ``__LINE__`` to a function together with ``__FILE__`` or ``__func__``. So number a, which is b now, is
taken for a line if all of the following holds.

*Argument.* An instruction loads the whole number into a register in which the psABI passes arguments, and from there
it reaches calls and nothing else, whichever way control takes: no instruction reads it, and no other call comes in
between. A number on the stack is never taken for a line.

*Company.* Another register of each of these calls holds, whichever way control came, the address of a string that
is the name of a source file or of a function of this object, or of what ``__func__`` stands for (in an inlined
function, that is its own name).

*Nothing else differs* in the function but numbers for which all this holds.

*One argument only.* Where more than one number is passed to the called function (in registers or on the stack, changed
or not), one argument is the line, and it is the same one in all calls about this source file. Each version of the
object has to show by itself which one, by order: in the calls that have both, more of its numbers than of any other
argument's are in order of place with each other and with records and other lines, in at least one version, and no
fewer in the other. Log levels and errnos are not. Or all its numbers, at least three, are lines of records in their
functions, as where a WARN stands beside the call, and those of no other argument are. Where neither decides, all
changes stand. In a call with a format, the format says what a number is (formats.py), and each format counts as a
function of its own.

*Most of them.* Of the numbers of an argument in all calls about one source file, no more are neither lines by what
follows, nor between lines and moved as these did, than are one of both: if only one in three looks like a line, none
is. With as many of each, those that are neither changed: one that stays while the lines around it move is a constant.

*Order of place.* Take all records and arguments that are lines of one source file. The largest set of them that rises,
before and now, with the places of the functions in their section are the lines in order (order.py), and the number is
in every such set. So it lies between the lines of its neighbours in both versions. Among sets of one size those win
that take fewer edits; where several are left, the changes stand. Compilers do not emit all functions in the order of
the source, so this is required only where the role is in doubt: not of an argument that a format calls a line, that is
in order in at least three functions and in half of all, or that is recorded. All numbers have to be in order among
themselves, wherever their functions are. Functions of headers are inlined anywhere, so for the lines of a header
places do not count at all.

*The source file* of a number is the one that is named with it. Where only a function is named, it is the source of
that function's symbol, or, in an object without such symbols, the file that the functions around it name.

*Agreement.* The nearest lines before and after it, of records or of lines in order of the same source file, moved as
well: the number moved by as much as one of the two, or by an amount in between. Before the first line nothing moves;
behind the last one there is no limit.

*Debug information*, where there is some, does not contradict: the number lies between the first and the last line of
that file that code of the function came from.

None of this is a proof. A number that is no line is taken for one if it is passed with the name of a file and with no
other number that could be the line, fits between the lines of the functions around it, before and now, and moved as if
it were one of them. Nothing is inferred about numbers in data and strings, in instructions that became longer, and
in calls that name neither file nor function; nor about lines in a static function that was inlined away from where
its own place would have been and does not name itself.
"""

from __future__ import annotations

import posixpath
from collections import defaultdict
from collections.abc import Collection, Iterable

from kbuild_klp.dwarf.debug_info import DebugInfo
from kbuild_klp.dwarf.source_lines import SourceLines
from kbuild_klp.lines.numbers import Number
from kbuild_klp.lines.order import Ordered, concordance
from kbuild_klp.lines.proof import MOST_LINES
from kbuild_klp.lines.versions import Version
from kbuild_klp.lines.witnesses import HEADERS, NO_UNIT, Home, NamingCalls, Witness, Witnesses
from kbuild_klp.object.view import ObjectView

_MOST_FUNCTIONS = 1024  # that are taken apart to see what they say of one source
_ENOUGH = 3  # lines in order that show what an argument is


class LineInference:
    """What the objects themselves tell about lines; nothing is collected before the first question.

    ``changed`` are the old main parts of the functions that are not the same in both.
    """

    def __init__(self, old: ObjectView, new: ObjectView, changed: Collection[int]) -> None:
        self._old = old
        self._tables = SourceLines(DebugInfo(old.file)), SourceLines(DebugInfo(new.file))
        self._witnesses = Witnesses(old, new, changed)
        self._lines: dict[Home, frozenset[Witness]] = {}

    def infers(self, old: Version, new: Version, numbers: list[Number]) -> bool:
        """Return True when all ``numbers`` in which two versions of a function differ can be taken for lines."""
        if not all(number.file is not None or _is_in_code(number) for number in numbers):
            return False
        own = self._witnesses.of(old, new)
        elsewhere = NamingCalls(old).used_elsewhere
        for number in numbers:
            if number.instruction is None:
                continue  # a record of UBSAN
            spot = number.instruction[0]
            found = [witness for witness in own if witness.spot == spot]
            if not found or spot in elsewhere or not all(map(self._is_in_register, found)):
                return False
            if not all(witness in self._lines_of(self._source(witness)) for witness in found):
                return False
            if not all(self._is_where_code_came_from(witness, old, new) for witness in found):
                return False
        return True

    def _is_in_register(self, witness: Witness) -> bool:
        return witness.role is not None and witness.role[1] < self._old.architecture.arguments

    def _is_where_code_came_from(self, witness: Witness, *versions: Version) -> bool:
        """Say whether the line tables of both sides do not rule out that a number is a line."""
        file = posixpath.basename(witness.home.file or "")
        for table, (view, parts), number in zip(self._tables, versions, (witness.old, witness.new), strict=True):
            known = [line for part in parts for line in table.between(*_extent(view, part))]
            lines = [line.line for line in known if not file or posixpath.basename(line.file) == file]
            if lines and not min(lines) <= number <= max(lines):
                return False
        return True

    def _source(self, witness: Witness) -> Home:
        """Return the source of a line with both file and unit, as far as these are known."""
        file, unit = witness.home
        if file is None:
            around = self._witnesses.file_by_place(witness.function)
            if around is not None and unit in (NO_UNIT, self._unit(around)):
                file = around
        if file is not None:
            return Home(file, self._unit(file))
        return Home(None, unit)

    def _unit(self, file: str) -> int:
        """Return the source that is called as a file is, NO_UNIT where that is not certain."""
        if not self._witnesses.has_many_sources:
            return NO_UNIT
        names, base = self._old.canonical.sources.files, posixpath.basename(file)
        units = [number for number, name in enumerate(names) if name == base]
        return units[0] if len(units) == 1 else NO_UNIT

    def _lines_of(self, source: Home) -> frozenset[Witness]:
        """Return the arguments that are lines of one source."""
        if source not in self._lines:
            names = {Home(None, source.unit)} | ({Home(source.file)} if source.file is not None else set())
            functions = {user for name in names for user in self._witnesses.users(name)}
            if len(functions) > _MOST_FUNCTIONS:
                functions.clear()
            about = [
                witness
                for witness in self._witnesses.of_all(functions)
                if 0 < witness.old <= MOST_LINES and 0 < witness.new <= MOST_LINES and self._source(witness) == source
            ]
            is_header = source.file is not None and source.file.endswith(HEADERS)
            self._lines[source] = frozenset(_lines(about, {} if is_header else self._sections(functions)))
        return self._lines[source]

    def _sections(self, functions: Iterable[int]) -> dict[int, str]:
        """Return the section of each function; for one of -ffunction-sections, the section that it stands for."""
        view = self._old
        return {
            function: view.canonical.section_name(function).removesuffix(f".{view.part_name(function)}")
            for function in functions
        }


def _extent(view: ObjectView, part: int) -> tuple[int, int, int]:
    """Return section, start and end of a part."""
    section, start = view.place(part)
    return section, start, start + view.size(part)


def _is_in_code(number: Number) -> bool:
    return number.instruction is not None and any(min(values) > 0 for values in number.readings)


def _lines(about: list[Witness], sections: dict[int, str]) -> list[Witness]:
    """Return those witnesses about one source that are arguments and lines.

    ``sections`` are those of the functions; without them, places do not count.
    """
    known = [witness for witness in about if witness.role is None]
    roles: dict[object, dict[int, list[Witness]]] = defaultdict(lambda: defaultdict(list))
    for witness in about:
        if witness.role is not None:
            roles[witness.role[0]][witness.role[1]].append(witness)
    chosen: list[list[list[Witness]]] = []
    unclear: list[list[list[Witness]]] = []
    for arguments in roles.values():
        (chosen if len(arguments) == 1 else unclear).append(list(arguments.values()))
    known += (witness for choices in chosen for witness in choices[0])
    # The function with the most calls first: its lines are neighbours for the others.
    for choices in sorted(unclear, key=lambda choices: -max(map(len, choices))):
        best = _in_best_order(known, choices, sections)
        if best is not None:
            chosen.append([best])
            known += best
    in_order = set(_in_order(known, {}))
    by_place = {witness for own in _by_section(known, sections).values() for witness in _in_order(own, sections)}
    settled = [own for (own,) in chosen if _is_settled(own, known, sections)]
    by_place |= {witness for own in (settled if sections else [own for (own,) in chosen]) for witness in own}
    lines = in_order & by_place
    agreeing = {witness for witness in lines if witness.role is not None and _agrees(witness, known, lines)}
    for (own,) in chosen:
        others = [it for it in own if it not in agreeing and not _is_between(it, known, lines)]
        is_half_constant = 2 * len(others) == len(own) and any(it.old == it.new for it in others)
        if own not in settled and (2 * len(others) > len(own) or is_half_constant):
            agreeing.difference_update(own)
    return [*agreeing]


def _is_between(witness: Witness, known: list[Witness], lines: Collection[Witness]) -> bool:
    """Say whether a number, whatever its place, lies between lines and moved as these."""
    others = [each.old for each in (*known, *lines) if each.role is None or each in lines]
    return min(others, default=witness.old) < witness.old < max(others, default=0) and _agrees(witness, known, lines)


def _is_settled(witnesses: list[Witness], known: list[Witness], sections: dict[int, str]) -> bool:
    """Say whether the role of an argument is beyond doubt, so that its numbers need not be in order of place."""
    if all(witness.is_said for witness in witnesses) or _are_recorded(witnesses, known):
        return True
    first: dict[int, int] = {}
    for witness in witnesses:
        first[witness.function] = min(witness.old, first.get(witness.function, witness.old))
    most = 0
    for section in {sections.get(function) for function in first}:
        places = [function for function in first if sections.get(function) == section]
        lines = [first[function] for function in places]
        most += Ordered(places, lines, lines).most
    return most >= _ENOUGH and 2 * most >= len(first)


def _are_recorded(witnesses: list[Witness], known: list[Witness]) -> bool:
    """Say whether there are enough numbers, and each is the line of a record in its function, before and now."""
    if len({(each.function, each.old) for each in witnesses}) < _ENOUGH:
        return False
    old, new = (
        {(each.function, each.new if is_new else each.old) for each in known if each.role is None}
        for is_new in (False, True)
    )
    return all((each.function, each.old) in old and (each.function, each.new) in new for each in witnesses)


def _by_section(witnesses: Iterable[Witness], sections: dict[int, str]) -> dict[str | None, list[Witness]]:
    found: dict[str | None, list[Witness]] = defaultdict(list)
    for witness in witnesses:
        found[sections.get(witness.function)].append(witness)
    return found


def _in_best_order(
    known: list[Witness], choices: list[list[Witness]], sections: dict[int, str]
) -> list[Witness] | None:
    """Return which of several arguments of a function is the line, None when nothing tells."""
    recorded = [choice for choice in choices if _are_recorded(choice, known)]
    if len(recorded) == 1:
        return recorded[0]
    for choice in choices:
        if all(_is_in_better_order(known, choice, other, sections) for other in choices if other is not choice):
            return choice
    return None


def _is_in_better_order(
    known: list[Witness], choice: list[Witness], other: list[Witness], sections: dict[int, str]
) -> bool:
    """Say whether one argument is in better order than another, in the calls that have both."""
    common = {(each.function, each.call) for each in choice} & {(each.function, each.call) for each in other}
    (before, after), (was, is_) = (
        [
            _concordance([each for each in own if (each.function, each.call) in common], known, sections, is_new)
            for is_new in (False, True)
        ]
        for own in (choice, other)
    )
    return before >= was and after >= is_ and before + after > was + is_


def _concordance(own: list[Witness], known: list[Witness], sections: dict[int, str], is_new: bool) -> int:
    """Return by how much better than chance the numbers of one version rise together with known lines."""
    total, others = 0, _by_section(known, sections)
    for section, here in _by_section(own, sections).items():
        everything = [*here, *others.get(section, ())]
        places = [each.function if sections else 0 for each in everything]
        total += concordance(places, [each.new if is_new else each.old for each in everything], len(here))
    return total


def _in_order(witnesses: list[Witness], sections: dict[int, str]) -> list[Witness]:
    """Return the witnesses without which fewer lines would be in order."""
    places = [witness.function if sections else 0 for witness in witnesses]
    order = Ordered(places, [witness.old for witness in witnesses], [witness.new for witness in witnesses])
    return [witness for witness, is_certain in zip(witnesses, order.certain(), strict=True) if is_certain]


def _agrees(witness: Witness, known: Iterable[Witness], lines: Iterable[Witness]) -> bool:
    """Say whether a number moved as the records and lines next to it did."""
    others = {
        (each.old, each.new) for each in (*known, *lines) if each.role is None or (each in lines and each != witness)
    }
    here = {new for old, new in others if old == witness.old}
    if here and here != {witness.new}:
        return False
    below = max((old for old, _ in others if old < witness.old), default=0)
    above = min((old for old, _ in others if old > witness.old), default=None)
    before = [(old, new) for old, new in others if old == below] or [(0, 0)]
    after = [(old, new) for old, new in others if old == above]
    if not all(new < witness.new for _, new in before) or not all(new > witness.new for _, new in after):
        return False
    shifts = [new - old for old, new in (*before, *after)]
    return not after or min(shifts) <= witness.new - witness.old <= max(shifts)
