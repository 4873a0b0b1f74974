# SPDX-License-Identifier: GPL-2.0-only
"""What is compared beyond checksums: two versions of one function or variable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from kbuild_klp.changes.classification import Change
from kbuild_klp.object.view import ObjectView


class Version(NamedTuple):
    """A function or variable in one object: its parts there, the main one first; none where it is not there."""

    view: ObjectView
    parts: Sequence[int]


def versions_of(change: Change, old: ObjectView, new: ObjectView) -> tuple[Version, Version]:
    """Return both versions of what a change is of."""
    before, after = (
        Version(view, view.parts_of(entry.part_symbol) if entry else ())
        for view, entry in ((old, change.old), (new, change.new))
    )
    return before, after
