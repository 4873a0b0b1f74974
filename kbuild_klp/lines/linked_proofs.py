# SPDX-License-Identifier: GPL-2.0-only
"""Proofs for objects that were linked from others, such as a module's .ko."""

from __future__ import annotations

from collections.abc import Iterable

from kbuild_klp.builds.linked_sources import LinkedSources
from kbuild_klp.builds.object_pair import ObjectPair
from kbuild_klp.changes.classification import Change
from kbuild_klp.checksum.entry import Entry
from kbuild_klp.errors import KlpError
from kbuild_klp.lines.proof import LineProver, ObjectProof


class LinkedProofs:
    """Proofs for an object that was linked from others: each symbol comes from one of these, and from its sources."""

    def __init__(self, prover: LineProver, name: str, old: LinkedSources, new: LinkedSources) -> None:
        self._prover = prover
        self._name = name
        self._old = old
        self._new = new
        self._known: dict[str, ObjectProof | None] = {}

    def of(self, old: Entry, new: Entry) -> ObjectProof | None:
        """Return the proof for an entry, None where what it was linked from, or the sources of that, are missing."""
        member = self._old.member(old.symbol)
        if member is None or member != self._new.member(new.symbol):
            return None
        if member not in self._known:
            self._known[member] = self._proof(member)
        return self._known[member]

    def _proof(self, member: str) -> ObjectProof | None:
        try:
            old, new = self._old.of_member(member), self._new.of_member(member)
        except (KlpError, OSError):
            return None
        return ObjectProof(self._prover, self._name, old, new) if old is not None and new is not None else None


def linked_proofs(prover: LineProver, pair: ObjectPair, changes: Iterable[Change]) -> LinkedProofs | None:
    """Return the proofs for the changes of an object, None if it was not linked from others on both sides."""
    sides = zip(*((change.old, change.new) for change in changes), strict=True)
    old, new = ({entry.symbol.name for entry in side if entry is not None} for side in sides)
    sources = pair.linked_sources(old, new)
    return LinkedProofs(prover, pair.name, *sources) if sources is not None else None
