# SPDX-License-Identifier: GPL-2.0-only
"""The reasons why the instructions or the data of two versions differ."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from posixpath import commonprefix

from kbuild_klp.changes.wording import Code, Reason, ReasonKind
from kbuild_klp.explain.attributes import named_part_reasons
from kbuild_klp.explain.comparison import LENGTH, OPERAND, Comparison, Hunk, Retarget
from kbuild_klp.lines.immediates import differing_immediates
from kbuild_klp.object.function import Line
from kbuild_klp.object.place import Place
from kbuild_klp.object.reference_text import describe, describe_with_section, how, quote
from kbuild_klp.object.view import ObjectView, Reference

_WORD = 8  # bytes of data that are shown as one
_ALL = 1 << 20  # characters of a string, where it is not cut


class Contents:
    """Finds the reasons for differences between two versions of one object."""

    def __init__(self, old: ObjectView, new: ObjectView) -> None:
        self.old = old
        self.new = new
        self._open: list[tuple[int, int]] = []

    # -- instructions ---------------------------------------------------------------------------------------------

    def code(self, comparison: Comparison, most: int) -> tuple[list[Reason], int]:
        """Return reasons for what differs in the instructions, ``most`` or a few more, and how many are left out."""
        reasons: list[Reason] = []
        left = 0
        retargets = {(target.a, target.b): target for target in reversed(comparison.retargets)}
        hunks = set(comparison.hunks)
        for hunk in comparison.stretches:
            if len(reasons) >= most:
                left += _weight(hunk)
            elif hunk in hunks:
                reasons += self._hunk(hunk, comparison)
            else:
                reasons.append(_retarget(retargets[hunk.a0, hunk.b0], comparison))
        return reasons, left

    def _hunk(self, hunk: Hunk, comparison: Comparison) -> list[Reason]:
        removed, added = comparison.old[hunk.a0 : hunk.a1], comparison.new[hunk.b0 : hunk.b1]
        if len(removed) == len(added):
            pairs = ((a, b) for a, b in zip(removed, added, strict=True) if a.token != b.token)
            return [reason for a, b in pairs for reason in self._line(a, b, comparison.place(1, b))]
        where = comparison.place(1, added[0]) if added else comparison.place(0, removed[0])
        old, new = (_summary(lines) for lines in (removed, added))
        counts = {"removed": len(removed), "added": len(added)}
        reasons = [Reason.of(Code.INSTRUCTION_COUNT, old, new, where, **counts)]
        gone, come = set(_mentions(removed)), set(_mentions(added))
        reasons += [Reason.of(code, "", name) for code, name in _in_order(come - gone)]
        reasons += [Reason.of(code, name, "") for code, name in _in_order(gone - come)]
        return reasons

    def _line(self, a: Line, b: Line, where: Place) -> list[Reason]:
        """Say how one instruction became another."""
        if a.token[0] == b.token[0] and len(a.references) == len(b.references):
            reasons = []
            for x, y, meant, means in zip(a.references, b.references, a.token[1], b.token[1], strict=True):
                if meant != means:
                    reasons += self._reference(x, y, b.is_branch, where)
            if reasons:
                return reasons
        old, new = a.text, b.text
        if old == new:
            old, new = (f"{line.text} ({line.bytes.hex(' ')})" for line in (a, b))
        if old == new and bool(a.targets) != bool(b.targets):
            old, new = (line.text if line.targets else f"{line.text}, into an instruction" for line in (a, b))
        return [_line_reason(a, b, old, new, where)]

    def _reference(self, old: Reference, new: Reference, is_branch: bool, where: Place) -> list[Reason]:
        if old.key[0] != new.key[0]:
            was, is_ = (f"{how(side, x.row)} {describe(side, x.row)}" for side, x in ((self.old, old), (self.new, new)))
            return [Reason.of(Code.RELOCATION, was, is_, where)]
        memories = self.old.memory(old.row), self.new.memory(new.row)
        if None not in memories and memories[0] != memories[1]:
            was, is_ = describe_with_section(self.old, old.row), describe_with_section(self.new, new.row)
            return [Reason.of(Code.TARGET_SECTION, was, is_, where)]
        before, after = self.old.string(old.row), self.new.string(new.row)
        if before is not None and after is not None:
            if before == after:  # the middle of a string means all of it
                was, is_ = quote(after), f"{quote(after)} in another string"
                return [Reason.of(Code.OTHER_STRING, was, is_, where)]
            quoted = quote(before, _ALL), quote(after, _ALL)
            return [
                Reason.of(Code.STRING, *quoted, where, excerpt=" -> ".join(shown_strings(before, after, _LEAD + 1)))
            ]
        was, is_ = describe(self.old, old.row), describe(self.new, new.row)
        old_part, new_part = self.old.content_part(old.row), self.new.content_part(new.row)
        if old_part is not None and new_part is not None:
            return self._nameless(old_part, new_part, was, is_, where)
        if was == is_:
            was, is_ = (f"{how(side, x.row)} {was}" for side, x in ((self.old, old), (self.new, new)))
            if was != is_:
                return [Reason.of(Code.RELOCATION, was, is_, where)]
            name = describe(self.new, new.row)
            code = Code.CALLS_OTHER_SYMBOL if is_branch else Code.OTHER_SYMBOL
            return [Reason.of(code, name, f"another {name}", where)]
        return [Reason.of(Code.CALL_TARGET if is_branch else Code.DATA_REFERENCE, was, is_, where)]

    def _nameless(self, old_part: int, new_part: int, was: str, is_: str, where: Place) -> list[Reason]:
        """Say how the nameless data differ that are referred to at a place."""
        inner: list[Reason] = []
        if (old_part, new_part) not in self._open:  # nameless data may refer to itself
            self._open.append((old_part, new_part))
            inner = named_part_reasons(self.old, self.new, old_part, new_part) + self.data(old_part, new_part)
            self._open.pop()
        if was != is_ and is_.startswith("constant "):  # its content is its name
            return [Reason.of(Code.CONSTANT, was, is_, where)]
        is_table = is_.startswith("jump table")
        reasons = []
        for reason in inner:
            is_own = reason.kind in (ReasonKind.CONTENT, ReasonKind.SIZE)
            kind = ReasonKind.JUMP_TABLE if is_table else ReasonKind.CONSTANT if is_own else reason.kind
            reasons.append(reason._replace(kind=kind, within=(str(where), is_, *reason.within)))
        kind = ReasonKind.JUMP_TABLE if is_table else ReasonKind.CONSTANT
        if was == is_:
            is_ = f"another {is_}"
        return reasons or [Reason.of(Code.NAMELESS, was, is_, where)._replace(kind=kind)]

    def pieces(self, old_part: int | None, new_part: int | None) -> list[Reason]:
        """Return how two pieces that no symbol covers differ; one of them may be missing."""
        if old_part is not None and new_part is not None:
            return self.data(old_part, new_part)
        view, part = (self.new, new_part) if new_part is not None else (self.old, old_part)
        if part is None:
            return []
        _, start = view.place(part)
        data = view.data(part)[:_WORD].hex()
        words = f"{view.size(part)} bytes at +{start:#x}: {data}"
        return [Reason.of(Code.UNCOVERED_PIECE, *((words, "") if new_part is None else ("", words)))]

    # -- data -----------------------------------------------------------------------------------------------------

    def data(self, old_part: int, new_part: int) -> list[Reason]:
        """Return how the bytes and references of two parts differ."""
        reasons: list[Reason] = []
        before, after = self.old.data(old_part), self.new.data(new_part)
        both = min(len(before), len(after))
        at = next((i for i in range(both) if before[i] != after[i]), both) if before != after else both
        if at < both:
            start = at // _WORD * _WORD
            was, is_ = before[start : start + _WORD].hex(), after[start : start + _WORD].hex()
            reasons.append(Reason.of(Code.BYTES, was, is_, Place("", start)))
        elif len(before) != len(after):
            longer = before if len(before) > both else after
            rest = longer[both : both + _WORD].hex()
            was, is_ = (rest if side is longer else "" for side in (before, after))
            reasons.append(Reason.of(Code.BYTES_AT_END, was, is_, Place("", both)))
        for place, x, y in _at_one_place(self.old.references(old_part), self.new.references(new_part)):
            if x is not None and y is not None:
                if x.key != y.key:
                    reasons += self._reference(x, y, False, Place("", place))
                continue
            view, only = (self.new, y) if y is not None else (self.old, x)
            assert only is not None
            name = describe(view, only.row)
            code = Code.REFERENCE if view.string(only.row) is None else Code.REFERENCE_TO_STRING
            sides = ("", name) if x is None else (name, "")
            reasons.append(Reason.of(code, *sides, Place("", place)))
        return reasons


def _at_one_place(
    old: list[Reference], new: list[Reference]
) -> Iterator[tuple[int, Reference | None, Reference | None]]:
    """Yield the references of two parts in pairs that stand at one place; there may be several at each."""
    sides: tuple[dict[int, list[Reference]], dict[int, list[Reference]]] = {}, {}
    for side, references in zip(sides, (old, new), strict=True):
        for reference in references:
            side.setdefault(reference.place, []).append(reference)
    for place in sorted(sides[0].keys() | sides[1].keys()):
        for x, y in zip_longest(sides[0].get(place, ()), sides[1].get(place, ())):
            yield place, x, y


_LONG, _LEAD = 32, 8  # characters of a string, and of what is the same before a difference in it


def shown_strings(before: str, after: str, least: int = _LONG - _LEAD) -> tuple[str, str]:
    """Return two strings in quotes; of long ones that share ``least`` characters at the start, from there on."""
    shared = len(commonprefix((before, after)))
    if max(len(before), len(after)) <= _LONG or shared < least:
        return quote(before), quote(after)
    at = shared - _LEAD
    return f"...{quote(before[at:])}", f"...{quote(after[at:])}"


_MENTIONS = (Code.CALLS, Code.REFERS, Code.REFERS_TO_STRING)


def _mentions(lines: list[Line]) -> Iterator[tuple[Code, str]]:
    """Yield what some instructions refer to outside the function."""
    for line in lines:
        for reference in line.outer_references:
            if line.is_branch:
                yield Code.CALLS, describe(line.view, reference.row)
            elif line.view.string(reference.row) is not None:
                yield Code.REFERS_TO_STRING, describe(line.view, reference.row)
            elif line.view.target_symbol(reference.row) >= 0:
                yield Code.REFERS, describe(line.view, reference.row)


def _in_order(mentions: set[tuple[Code, str]]) -> list[tuple[Code, str]]:
    return sorted(mentions, key=lambda mention: (_MENTIONS.index(mention[0]), mention[1]))


def _summary(lines: list[Line]) -> str:
    """Return the first of some instructions, and how many more there are."""
    if not lines:
        return ""
    return lines[0].text if len(lines) == 1 else f"{lines[0].text} and {len(lines) - 1} more"


def _weight(hunk: Hunk) -> int:
    """Return how many reasons a stretch is worth."""
    return hunk.a1 - hunk.a0 if hunk.a1 - hunk.a0 == hunk.b1 - hunk.b0 else 1


def _line_reason(a: Line, b: Line, old: str, new: str, where: Place) -> Reason:
    """Say how an instruction differs whose references do not; ``old`` and ``new`` are both versions in words."""
    if a.is_branch and b.is_branch and a.targets and b.targets:
        return Reason.of(Code.BRANCH, old, new, where)
    values = differing_immediates(b.view.architecture, a.bytes, b.bytes)
    if values and not (a.is_branch or b.is_branch):
        was, is_ = values[0]  # with a sign
        return Reason.of(Code.IMMEDIATE, old, new, where, old_value=was, new_value=is_)
    return Reason.of(Code.INSTRUCTION, old, new, where)


def _retarget(target: Retarget, comparison: Comparison) -> Reason:
    """Say where in the function an instruction goes now."""
    where = comparison.place(1, comparison.new[target.b])
    if target.entry == LENGTH:
        was, is_ = f"{target.old} entries", f"{target.new} entries"
        counts = {"old_count": target.old, "new_count": target.new}
        return Reason.of(Code.JUMP_TABLE_LENGTH, was, is_, where, **counts)
    was, is_ = (_place(side[line]) for side, line in ((comparison.old, target.old), (comparison.new, target.new)))
    if target.entry == OPERAND:
        return Reason.of(Code.BRANCH_TARGET, was, is_, where)
    return Reason.of(Code.JUMP_TABLE_ENTRY, was, is_, where, entry=target.entry)


def _place(line: Line) -> str:
    return f"+{line.offset:#x} ({line.text})"
