# SPDX-License-Identifier: GPL-2.0-only
"""Whether a section is aligned otherwise because of what is known by its content, such as a table of a switch.

Such data come and go with who refers to them, which is told of these, and may be all that wanted the alignment.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable

from kbuild_klp.changes.classification import Change
from kbuild_klp.changes.wording import Code
from kbuild_klp.elf.symbol_names import canonical_name
from kbuild_klp.lines.referring import content
from kbuild_klp.object.parts import CONTENT, NAMED, PIECE
from kbuild_klp.object.view import ObjectView


def is_realigned(change: Change) -> bool:
    """Say whether nothing but its alignment changed of a section."""
    return [reason.code for reason in change.why] == [Code.ALIGNMENT]


def follows_from_content(old: ObjectView, new: ObjectView, change: Change) -> bool:
    """Say whether data without a name that came or went explain how a section is aligned.

    Some came, or went, that lie at a multiple of the larger alignment; and nothing that is in both lost it.
    """
    assert change.old is not None and change.new is not None
    aligns = [entry.place["align"] for entry in (change.old, change.new)]
    if not all(map(str.isdecimal, aligns)):
        return False  # of several sections
    was, is_ = map(int, aligns)
    larger = max(was, is_)
    sides = [_aligned(view, change.symbol, larger) for view in (old, new)]
    less, more = sides if was < is_ else sides[::-1]
    if not any(key not in less and any(places) for key, places in more.items() if not isinstance(key, str)):
        return False
    return was < is_ or all(sum(less[key]) >= sum(places) for key, places in more.items() if key in less)


def _aligned(view: ObjectView, section: str, alignment: int) -> dict[Hashable, list[bool]]:
    """Return for all that is in the sections of a name, by name or content, whether it lies at a multiple."""
    parts = view.canonical.parts
    found: defaultdict[Hashable, list[bool]] = defaultdict(list)
    for number in view.sections_called(section):
        for part in (parts.section == number).nonzero()[0].tolist():
            key: Hashable
            if parts.kind[part] == NAMED:
                key = canonical_name(view.part_name(part)).text
            elif parts.kind[part] in (CONTENT, PIECE):
                key = content(view, part)
            else:
                continue
            found[key].append(view.place(part)[1] % alignment == 0)
    return dict(found)
