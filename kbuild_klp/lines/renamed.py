# SPDX-License-Identifier: GPL-2.0-only
"""Symbols with a line number in their name: ELFNOTE makes `_note_43` in line 43 (include/linux/elfnote.h).

When the lines move, `_note_43` becomes `_note_44`, and another one may have had that name.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence

from kbuild_klp.changes.classification import Change, ChangeType, Proof
from kbuild_klp.changes.wording import Code, Reason
from kbuild_klp.checksum.entry import KIND_DATA, KIND_FUNCTION, Entry

_DIGITS = re.compile(r"(\d+)")

Prove = Callable[[Entry, Entry, int, int], bool]


def with_renamed(changes: Sequence[Change], proves: Prove) -> list[Change]:
    """Return ``changes`` with LINE_ONLY ones in place of those where only line numbers in names differ.

    ``proves`` says of two entries whether a number in the name of the first was one line and is another now.
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
    # Both sides of a change have to find a partner: take back pairs that use only one of them.
    while True:
        partners = set(pairs.values())
        kept = {x: y for x, y in pairs.items() if (x in partners or x not in after) and (y in pairs or y not in before)}
        if kept == pairs:
            break
        pairs = kept
    renamed = {y: _renamed(before[x], after[y]) for x, y in pairs.items()}
    return [renamed.get(at, change) for at, change in enumerate(changes) if at in renamed or at not in pairs]


def _renamed(old: Entry, new: Entry) -> Change:
    why = (Reason.of(Code.LINE_IN_NAME, old.name, new.name),)
    return Change(new.kind, ChangeType.LINE_ONLY, old, new, why, proof=Proof.SOURCES, label=new.name)


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
