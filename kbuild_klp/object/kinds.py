# SPDX-License-Identifier: GPL-2.0-only
"""Kinds of relocation (RelocationType.kind, and what is added to it), by which references are told apart."""

from __future__ import annotations

from kbuild_klp.arch.registry import Architecture

UNKNOWN_KIND = 0x8000
"""Added to a relocation type that the architecture's table does not know."""

COUNTED_FROM_PLACE = 0x10000
"""Added to the kind of a relocation when the next one takes off the place of both (RelocationType.subtracts)."""


class Kinds:
    """What is known of the kinds of relocation of a machine; of a kind that several types share, the first counts."""

    def __init__(self, architecture: Architecture) -> None:
        self._types = {row.kind: row for row in reversed(list(architecture.relocation_types.values()))}

    def name(self, kind: int) -> str:
        """Return the name of the relocation type, with what is added to it."""
        if kind in self._types:
            return self._types[kind].name
        counted = self._types.get(kind & ~COUNTED_FROM_PLACE)
        return f"{counted.name} from its place" if counted else f"relocation type {kind - UNKNOWN_KIND}"

    def field_size(self, kind: int) -> int:
        """Return the bytes of the word in which the field is, 0 for an unknown kind."""
        row = self._types.get(kind & ~COUNTED_FROM_PLACE)
        return row.field.size if row else 0

    def subtracts(self, kind: int) -> bool:
        """Say whether the target is taken off what another relocation puts there."""
        return kind in self._types and self._types[kind].subtracts
