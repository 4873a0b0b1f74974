# SPDX-License-Identifier: GPL-2.0-only
"""What was seen of objects and functions that differ, kept until all of them have been."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from kbuild_klp.changes.classification import Change, ChangeType
from kbuild_klp.livepatch.rules import Facts, Readers
from kbuild_klp.livepatch.sides import FunctionSymbol, Key
from kbuild_klp.object.symbol_id import SymbolId


@dataclass(frozen=True)
class SeenFunction:
    """What was seen of one changed function: ``facts`` are those that its object tells.

    ``old`` is its old symbol, ``new`` the new one of a function that was added; ``keys`` are the static keys and calls
    that the new version uses. None where nothing could be seen.
    """

    facts: Facts
    old: FunctionSymbol | None
    new: FunctionSymbol | None
    keys: tuple[Key, ...] | None


@dataclass(frozen=True)
class SeenObject:
    """What was seen of one object that differs, and its ``changes``.

    ``name`` is its place in the tree; ``functions`` is by the index of the change. ``users`` says who in the old object
    refers to what was removed from it, by name; ``gone`` the same for what other objects defined, and nothing in the
    new object mentions any more; ``readers`` who refers to read-only data that changed, by the index of the change.
    ``realigned`` are the sections (index of the change) that are aligned otherwise because content came or went.
    ``time`` is that of the old object (ns, 0: there is none). ``imports`` are the symbols that a linked module uses
    with another CRC (None: that is not known, or none of what differs depends on it).
    """

    name: str
    units: list[str]
    changes: Sequence[Change] = ()
    time: int = 0
    functions: Mapping[int, SeenFunction] = field(default_factory=dict)
    users: Mapping[SymbolId, set[SymbolId]] | None = None
    gone: Mapping[str, set[SymbolId]] = field(default_factory=dict)
    readers: Mapping[int, Readers] = field(default_factory=dict)
    imports: tuple[str, ...] | None = None
    realigned: frozenset[int] = frozenset()

    @cached_property
    def added(self) -> frozenset[SymbolId]:
        """The symbols that were added to the object."""
        return frozenset(change.id for change in self.changes if change.change is ChangeType.ADDED)

    def removed_functions(self) -> Iterator[tuple[int, SymbolId]]:
        """Yield index and symbol of the removed functions that were looked at."""
        for at in self.functions:
            if self.changes[at].change is ChangeType.REMOVED:
                yield at, self.changes[at].id
