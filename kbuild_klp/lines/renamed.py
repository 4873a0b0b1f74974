# SPDX-License-Identifier: GPL-2.0-only
"""Symbols that have a line number in their name: ELFNOTE makes `_note_43` in line 43 (include/linux/elfnote.h).

When the lines move, `_note_43` is called `_note_44`, and there may have been another of that name.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence

from kbuild_klp.changes.classification import Change, ChangeType, Proof
from kbuild_klp.changes.reasons import Code, Reason
from kbuild_klp.checksum.entry import KIND_DATA, KIND_FUNCTION, Entry

_DIGITS = re.compile(r"(\d+)")

Prove = Callable[[Entry, Entry, int, int], bool]


def with_renamed(changes: Sequence[Change], proves: Prove) -> list[Change]:
    """Return ``changes`` with those taken out that are nothing but other line numbers in names.

    In their place stand changes of type LINE_ONLY. ``proves`` is asked of two entries whether a number in
    the name of the first was one line and is another now.
    """
    before = {at: change.old for at, change in enumerate(changes) if change.old and _can_be(change, change.old)}
    after = {at: change.new for at, change in enumerate(changes) if change.new and _can_be(change, change.new)}
    pairs: dict[int, int] = {}
    taken: set[int] = set()
    candidates: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for y, new in after.items():
        candidates[_but_for_numbers(new)].append(y)
    for x, old in before.items():
        for y in candidates.get(_but_for_numbers(old), ()):
            if x != y and y not in taken and _differ_in_lines(old, after[y], proves):
                pairs[x] = y
                taken.add(y)
                break
    # A change has two sides, and both have to be accounted for: take back what leaves one over.
    while True:
        lost = {
            x for x, y in pairs.items() if (x in after and x not in pairs.values()) or (y in before and y not in pairs)
        }
        if not lost:
            break
        for x in lost:
            del pairs[x]
    partners = {y: before[x] for x, y in pairs.items()}
    result = []
    for at, change in enumerate(changes):
        if at in partners:
            old, new = partners[at], after[at]
            why = (Reason.of(Code.LINE_IN_NAME, old.name, new.name),)
            line_only = Change(new.kind, ChangeType.LINE_ONLY, old, new, why, proof=Proof.SOURCES, label=new.name)
            result.append(line_only)
        elif at not in pairs:
            result.append(change)
    return result


def _can_be(change: Change, entry: Entry) -> bool:
    return (
        change.change in (ChangeType.CHANGED, ChangeType.ADDED, ChangeType.REMOVED)
        and change.kind in (KIND_FUNCTION, KIND_DATA)
        and bool(_DIGITS.search(entry.name))
    )


def _but_for_numbers(entry: Entry) -> tuple[str, ...]:
    return entry.kind, entry.section, entry.checksum, *_DIGITS.split(entry.name)[::2]


def _differ_in_lines(old: Entry, new: Entry, proves: Prove) -> bool:
    was, is_ = _DIGITS.findall(old.name), _DIGITS.findall(new.name)
    moved = [(int(x), int(y)) for x, y in zip(was, is_, strict=True) if x != y]
    return bool(moved) and all(proves(old, new, x, y) for x, y in moved)
