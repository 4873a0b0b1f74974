# SPDX-License-Identifier: GPL-2.0-only
"""Whether a function can still be called by pointers to its old version when its type changed (Clang's kCFI).

A pointer stays that of the old version, which has the hash of its type before its entry. Who calls it compares that
with the hash of the type of the pointer (-fsanitize=kcfi), which is the new one in new code: the kernel traps.
"""

from __future__ import annotations

from kbuild_klp.changes.verdict import Finding, Obstacle
from kbuild_klp.checksum.entry import Entry
from kbuild_klp.livepatch.sides import ObjectSide
from kbuild_klp.object.view import ObjectView

_HASH = "__cfi_"  # Clang's symbol for what stands before a function


def retyped(old: Entry, new: Entry, before: ObjectSide, after: ObjectSide) -> Finding | None:
    """Return what the hashes of both versions of a function mean for a livepatch, None if they are one or none."""
    was, is_ = _type_hash(before.view, old), _type_hash(after.view, new)
    if not was or not is_ or was == is_:
        return None
    if not all(before.callers_of(old.symbol).values()):
        return Finding(
            Obstacle.TYPE, "kCFI: its type changed, and pointers to the old one are called as one of the new"
        )
    symbol = before.symbol(old)
    if symbol is None or symbol.is_local:
        return None
    return Finding(
        Obstacle.UNCHECKED, "not checked: whether other objects call it, of another type now, by pointers (kCFI)"
    )


def _type_hash(view: ObjectView, entry: Entry) -> bytes:
    """Return what stands before a function, empty where that is no hash."""
    own = (part for part in view.parts_of(entry.part_symbol) if view.part_name(part).startswith(_HASH))
    data = next(map(view.data, own), b"")
    return b"" if view.architecture.is_filler(data) else data
