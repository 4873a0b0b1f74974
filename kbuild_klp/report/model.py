# SPDX-License-Identifier: GPL-2.0-only
"""The result of a comparison as data; presenters (text, JSON) are functions over it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from kbuild_klp.changes.classification import Change, ChangeType, Proof

if TYPE_CHECKING:
    from kbuild_klp.explain.listing import Listing


class ObjectChanges(NamedTuple):
    """What changed in one object of one link unit."""

    object: str
    unit: str
    changes: Sequence[Change]


@dataclass(frozen=True)
class Summary:
    """Counts over all objects, each counted once however many units it is linked into.

    Of ``line_only``, ``line_only_proved`` are proved from the sources and ``line_only_inferred`` inferred from the
    objects; the rest are fields that are line numbers by definition. Two counts are of what is not listed:
    ``reencoded`` functions have the same instructions in other lengths or beside other neighbours, ``identity_only`` is
    what differs only in what builds say of themselves (release, builder, time).
    """

    changed: int = 0
    added: int = 0
    removed: int = 0
    line_only: int = 0
    line_only_proved: int = 0
    line_only_inferred: int = 0
    moved: int = 0
    objects_compared: int = 0
    objects_changed: int = 0
    ignored: int = 0
    reencoded: int = 0
    identity_only: int = 0

    @classmethod
    def of(
        cls, objects: Iterable[Sequence[Change]], compared: int = 0, reencoded: int = 0, identity_only: int = 0
    ) -> Summary:
        """Count the changes of all objects."""
        listed = list(objects)
        heard = [[change for change in changes if change.ignored is None] for changes in listed]
        kinds = Counter((change.change, change.proof) for changes in heard for change in changes)
        by_type = {
            kind.value.replace("-", "_"): sum(count for (own, _), count in kinds.items() if own is kind)
            for kind in ChangeType
        }
        return cls(
            **by_type,
            line_only_proved=kinds[ChangeType.LINE_ONLY, Proof.SOURCES],
            line_only_inferred=kinds[ChangeType.LINE_ONLY, Proof.INFERRED],
            objects_compared=compared,
            objects_changed=sum(any(it.change is not ChangeType.LINE_ONLY for it in changes) for changes in heard),
            ignored=sum(map(len, listed)) - sum(map(len, heard)),
            reencoded=reencoded,
            identity_only=identity_only,
        )

    @property
    def differs(self) -> bool:
        """Whether there is any change but in line numbers."""
        return bool(self.changed or self.added or self.removed or self.moved)


@dataclass(frozen=True)
class Report:
    """A whole comparison; ``failed`` are the objects that could not be compared, with the reasons."""

    old: str
    new: str
    objects: Sequence[ObjectChanges] = ()
    summary: Summary = Summary()
    warnings: Sequence[str] = ()
    failed: Sequence[str] = ()


class ExplainedObject(NamedTuple):
    """What there is to say about the changes of one object.

    ``listings`` is None if the objects are not at hand; ``inlined`` maps inlined functions without code of their own,
    in words, to the functions that differ because of them.
    """

    object: str
    units: list[str]
    changes: list[Change]
    listings: list[Listing] | None
    inlined: dict[str, list[str]]


class InlinedEverywhere(NamedTuple):
    """A function that was inlined: in words, and the objects and functions in which it differs.

    ``is_only`` says that it has no code of its own.
    """

    function: str
    into: list[tuple[str, str]]
    is_only: bool


class Explanation(NamedTuple):
    """The answer to a question about some symbols, or about everything (``symbols`` is empty).

    ``aliases`` are symbols that are other names, each with the name that is listed; ``unchanged`` those that do not
    differ, with their objects; ``objects`` are explained one by one as they are iterated over. ``differs`` says whether
    anything but line numbers does.
    """

    symbols: list[str]
    aliases: list[tuple[str, str]]
    inlined: list[InlinedEverywhere]
    unchanged: list[tuple[str, list[str]]]
    objects: Iterator[ExplainedObject]
    differs: bool
