# SPDX-License-Identifier: GPL-2.0-only
"""A batch in canonical form, taken apart into its objects again.

What is read together costs a fraction of what it costs one by one, but whoever explains a difference asks one object,
and must not hear of its neighbours. So each gets tables of its own, the same that it would have had alone. In the line
of addresses of a batch an object has three runs of sections (machine code, other content, none), which are moved
together; everything else is a row of a table, and stays in its order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from kbuild_klp.elf.objects import Objects
from kbuild_klp.object.canonical import Canonical
from kbuild_klp.object.chunks import Chunks
from kbuild_klp.object.families import Families
from kbuild_klp.object.image import CODE, DATA, Image, section_ranks
from kbuild_klp.object.owned import OwnedEntries, RecordLines
from kbuild_klp.object.parts import Parts
from kbuild_klp.object.references import References
from kbuild_klp.object.runs import Numbers, narrow, run_starts, sorted_unique
from kbuild_klp.object.special_groups import GUARD, SpecialGroup
from kbuild_klp.object.symbol_sources import Sources
from kbuild_klp.object.targets import Targets

Value = TypeVar("Value")


class _Rows(NamedTuple):
    """The rows of a table, those of an object behind each other.

    ``order`` are the old rows, ``first`` says where those of each object start (one element more than objects),
    ``of`` is the object of each old row, and ``rank`` its new place among those of that object.
    """

    order: NDArray[np.int64]
    first: NDArray[np.int64]
    of: Numbers
    rank: NDArray[np.int64]

    @classmethod
    def by_object(cls, of: Numbers, count: int) -> _Rows:
        order = np.argsort(of, kind="stable")
        first = run_starts(np.bincount(of, minlength=count))
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        return cls(order, first, of, rank - first[of])

    def cut(self, column: NDArray[Any]) -> list[NDArray[Any]]:
        """Return what each object has of a column."""
        ordered, first = column[self.order], self.first.tolist()
        return [ordered[low:high] for low, high in pairwise(first)]

    def divided(self, values: Iterable[tuple[int, Value]]) -> list[dict[int, Value]]:
        """Return what each object has of values that are known by row."""
        found: list[dict[int, Value]] = [{} for _ in self.first[1:]]
        listed = list(values)
        rows = np.array([row for row, _ in listed], np.int64)
        for (_, value), of, rank in zip(listed, self.of[rows].tolist(), self.rank[rows].tolist(), strict=True):
            found[of][rank] = value
        return found


def take_apart(batch: Canonical) -> list[Canonical]:
    """Return each object of a batch as if it had been read alone."""
    return [batch] if len(batch.objects.files) == 1 else _Batch(batch).objects()


class _Batch:
    """The tables of a batch, by object."""

    def __init__(self, batch: Canonical) -> None:
        self._batch = batch
        count = len(batch.objects.files)
        image, of_section = batch.image, batch.objects.section_object
        self._sections = _Rows.by_object(of_section, count)
        self._symbols = _Rows.by_object(np.repeat(np.arange(count), np.diff(batch.objects.first_symbol)), count)
        self._order = _Rows.by_object(of_section[image.order], count)
        self._chunks = _Rows.by_object(of_section[batch.chunks.section], count)
        self._members = _Rows.by_object(np.repeat(self._chunks.of, np.diff(batch.chunks.first)), count)
        self._parts = _Rows.by_object(of_section[batch.parts.section], count)
        self._places = _Rows.by_object(of_section[self._section_at(image.places)], count)
        self._references = _Rows.by_object(of_section[self._section_at(batch.references.place)], count)

        begin = run_starts(image.sizes[self._order.order].astype(np.int64) + GUARD)
        own = begin[:-1] - np.repeat(begin[self._order.first[:-1]], np.diff(self._order.first))
        base = np.full(len(image.base), -1, image.base.dtype)
        base[image.order[self._order.order]] = own
        self._ahead = image.base - base
        """By section: how much farther it lies in the batch than in its object."""
        self._owned_groups = self._groups(image.owned)

    def _section_at(self, address: Numbers) -> Numbers:
        image = self._batch.image
        return image.order[np.searchsorted(image.starts, address, "right") - 1]

    def objects(self) -> list[Canonical]:
        """Return the objects."""
        batch = self._batch
        rows = zip(
            self._images(),
            self._chunks_of(),
            self._parts_of(),
            self._references_of(),
            self._targets_of(),
            self._families_of(),
            self._owned_of(),
            self._record_lines_of(),
            self._parts.divided(batch.pointed_lines.items()),
            self._members.divided(batch.numbered),
            strict=True,
        )
        found = []
        for image, chunks, parts, references, targets, families, owned, lines, pointed, numbered in rows:
            sources = Sources(image.objects)
            tables = chunks, parts, references, targets, sources, families, owned, lines, pointed
            found.append(Canonical(image, *tables, [*numbered.items()]))
        return found

    def _images(self) -> Iterator[Image]:
        image = self._batch.image
        places = self._places.cut(image.places - self._ahead[self._section_at(image.places)])
        owned, records = self._owned_groups, self._groups(image.records)
        derived = self._sections.divided((section, None) for section in image.derived)
        warnings = self._warnings()
        for number, (base, order, starts, sizes, buffer, code_end) in enumerate(self._layouts()):
            data = np.frombuffer(buffer, np.uint8)
            data.flags.writeable = False
            layout = base, order, starts, sizes, buffer, data, code_end
            special = owned[number], records[number], [*derived[number]], warnings[number]
            objects = Objects.of(image.objects.files[number])
            yield Image(objects, image.architecture, *layout, places[number], *special)

    def _layouts(self) -> Iterator[tuple[Numbers, NDArray[np.int64], Numbers, Numbers, bytearray, int]]:
        """Yield the line of addresses of each object: where sections begin, their order, starts and sizes in it, the
        bytes, and where machine code ends.
        """
        image = self._batch.image
        ranks = section_ranks(image.objects.sections[image.order])
        columns = self._sections.rank[image.order], image.starts - self._ahead[image.order], image.starts, image.sizes
        rows = zip(self._sections.cut(image.base - self._ahead), *map(self._order.cut, (*columns, ranks)), strict=True)
        for base, order, starts, in_batch, sizes, rank in rows:
            runs = [(rank == which).nonzero()[0][[0, -1]] for which in (CODE, DATA) if which in rank]
            pieces = [image.buffer[in_batch[first] : in_batch[last] + sizes[last] + GUARD] for first, last in runs]
            buffer = bytearray().join(pieces) or bytearray(GUARD)
            yield base, order, starts, sizes, buffer, len(pieces[0]) - GUARD if CODE in rank else 0

    def _groups(self, groups: list[SpecialGroup]) -> list[list[SpecialGroup]]:
        """Return which special tables each object has."""
        found: list[list[SpecialGroup]] = [[] for _ in self._batch.objects.files]
        for group in groups:
            of, rank = self._sections.of[group.sections], self._sections.rank[group.sections]
            for number in sorted_unique(of).tolist():
                found[number].append(replace(group, sections=rank[of == number]))
        return found

    def _warnings(self) -> list[list[tuple[int, str]]]:
        said: list[list[tuple[int, str]]] = [[] for _ in self._batch.objects.files]
        for number, text in self._batch.image.warnings:
            said[number].append((0, text))
        return said

    def _chunks_of(self) -> Iterator[Chunks]:
        chunks = self._batch.chunks
        ahead, counts = self._ahead[chunks.section], np.diff(chunks.first)
        columns = (chunks.start - ahead, chunks.end - ahead, self._sections.rank[chunks.section])
        symbols = self._members.cut(self._symbols.rank[chunks.symbols])
        firsts = map(run_starts, self._chunks.cut(counts))
        for start, end, section, own, first in zip(*map(self._chunks.cut, columns), symbols, firsts, strict=True):
            yield Chunks(start, end, narrow(section), narrow(own), narrow(first))

    def _parts_of(self) -> Iterator[Parts]:
        parts = self._batch.parts
        ahead = self._ahead[parts.section]
        chunk = _renumbered(self._chunks.rank, parts.chunk)
        columns = (parts.start - ahead, parts.end - ahead, self._sections.rank[parts.section], parts.kind, chunk)
        for start, end, section, kind, chunk in zip(*map(self._parts.cut, columns), strict=True):
            yield Parts(start, end, narrow(section), kind, narrow(chunk))

    def _references_of(self) -> Iterator[References]:
        references = self._batch.references
        place = references.place - self._ahead[self._section_at(references.place)]
        is_inner = references.section >= 0
        target = references.target - np.where(is_inner, self._ahead[references.section], 0)
        section = _renumbered(self._sections.rank, references.section)
        symbol = self._symbols.rank[references.symbol]
        columns = (place, references.kind, narrow(symbol), references.addend, target, narrow(section))
        return map(References, *map(self._references.cut, columns))

    def _targets_of(self) -> Iterator[Targets]:
        targets = self._batch.targets
        rows = ((self._parts, targets.part), (self._symbols, targets.symbol), (self._sections, targets.section))
        columns = [_renumbered(table.rank, column).astype(np.int32) for table, column in rows]
        return map(Targets, *map(self._references.cut, (*columns, targets.offset)))

    def _families_of(self) -> Iterator[Families]:
        families = self._batch.families
        parents = self._parts.divided(families.parent.items())
        alike = self._symbols.divided(families.ambiguous.items())
        for parent, ambiguous in zip(parents, alike, strict=True):
            owners = self._parts.rank[list(parent.values())].tolist()
            yield Families(dict(zip(parent, owners, strict=True)), ambiguous)

    def _owned_of(self) -> Iterator[OwnedEntries]:
        owned, references, count = self._batch.owned, self._references, len(self._batch.objects.files)
        # Each entry has a reference that names its owner.
        of = references.of[owned.references[owned.reference_at[:-1]]]
        entries = _Rows.by_object(of, count)
        sizes, counts = np.diff(owned.data_at), np.diff(owned.reference_at)
        content, fields = (_Rows.by_object(np.repeat(of, each), count) for each in (sizes, counts))
        has = np.zeros((len(owned.groups), count), bool)
        for row, group in zip(has, owned.groups, strict=True):
            row[self._sections.of[group.sections]] = True
        number = np.cumsum(has, axis=0) - 1  # of a group, among those that an object has
        tables = zip(
            self._owned_groups,
            entries.cut(_renumbered(self._parts.rank, owned.owner)),
            entries.cut(number[owned.group, of]),
            content.cut(np.frombuffer(owned.data, np.uint8)),
            map(run_starts, entries.cut(sizes)),
            fields.cut(references.rank[owned.references]),
            map(run_starts, entries.cut(counts)),
            fields.cut(owned.field),
            fields.cut(owned.is_owner),
            self._parts.divided(owned.lines.items()),
            _Rows.by_object(references.of[owned.unused], count).cut(references.rank[owned.unused]),
            strict=True,
        )
        for groups, owner, group, data, data_at, rows, reference_at, *rest in tables:
            own = narrow(owner), narrow(group), data.tobytes(), narrow(data_at), narrow(rows), narrow(reference_at)
            yield OwnedEntries(groups, *own, *rest)

    def _record_lines_of(self) -> list[dict[int, RecordLines]]:
        taken = self._batch.record_lines.items()
        moved = ((at, lines._replace(base=lines.base - int(self._ahead[at]))) for at, lines in taken)
        return self._sections.divided(moved)


def _renumbered(rank: NDArray[np.int64], column: Numbers) -> NDArray[np.int64]:
    """Return the new numbers of rows, -1 for none."""
    return np.where(column < 0, -1, rank[column])
