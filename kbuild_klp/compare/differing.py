# SPDX-License-Identifier: GPL-2.0-only
"""The first stage of a comparison: what differs, told from checksum files alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from kbuild_klp.builds.side import Build
from kbuild_klp.changes.classification import Change, classify
from kbuild_klp.changes.contested import Contested, contested
from kbuild_klp.changes.pairing import correlate
from kbuild_klp.errors import KlpError

Changes = Mapping[str, Sequence[Change]]
"""The changes of each object that has any, in the order of the report."""


class Differing(NamedTuple):
    """What differs: ``compared`` counts the objects, ``failed`` says which could not be, and why."""

    changes: Changes
    compared: int
    failed: tuple[str, ...]


def differing(old: Build, new: Build, names: Iterable[str]) -> Differing:
    """Compare the checksums of all objects in ``names``."""
    changes: dict[str, Sequence[Change]] = {}
    failed = []
    compared = 0
    for name in names:
        before, after = (side.sums(name) if name in side.names else b"" for side in (old, new))
        if before is None or after is None:
            continue  # the side has noted why
        try:
            found = _classified(old, new, name, before, after) if before != after else []
        except KlpError as error:
            failed.append(str(error))
            continue
        compared += 1
        if found:
            changes[name] = found
    return Differing(changes, compared, tuple(failed))


def _classified(old: Build, new: Build, name: str, before: bytes, after: bytes) -> list[Change]:
    """Return the differences of an object between two checksum files (empty: it has none); raises KlpError."""
    old_sums = old.load(name, before) if before else None
    new_sums = new.load(name, after) if after else None
    if old_sums is None or new_sums is None:
        # An object that came or went: all of it did.
        found = Contested(old_sums.entries if old_sums else [], new_sums.entries if new_sums else [])
        return classify(correlate(found))
    if old_sums.table != new_sums.table:
        old_sums, new_sums = old.up_to_date(name, old_sums), new.up_to_date(name, new_sums)
    if (old_sums.architecture, old_sums.table) != (new_sums.architecture, new_sums.table):
        what = "architecture" if old_sums.architecture != new_sums.architecture else "special section table"
        raise KlpError(f"checksums of another {what}; nothing of it can be compared", file=name)
    return classify(correlate(contested(old_sums, new_sums)))
