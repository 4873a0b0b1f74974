# SPDX-License-Identifier: GPL-2.0-only
"""The two versions of one object."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property, partial

from kbuild_klp.builds.linked_sources import LinkedSources
from kbuild_klp.builds.side import WORTH_A_PROCESS, Build
from kbuild_klp.errors import KlpError
from kbuild_klp.kernel.sources import SourceFiles
from kbuild_klp.object.view import ObjectView, views_of
from kbuild_klp.processes import side_by_side


class ObjectPair:
    """Both versions of an object, read when one is first asked for, and once.

    Large ones are read side by side if there are job slots for it (``jobs`` as in job_slots). A side is None where the
    object is not linked, not at hand, or cannot be read: its checksums stand, only what the object would have told is
    missing.
    """

    def __init__(self, old: Build, new: Build, name: str, jobs: int | None = 1) -> None:
        self.name = name
        self._builds = old, new
        self._jobs = jobs

    @cached_property
    def files(self) -> tuple[str | None, str | None]:
        """The paths of both sides, None where the object is not linked or not at hand."""
        before, after = (side.object_file(self.name) if self.name in side.names else None for side in self._builds)
        return before, after

    @property
    def _are_large(self) -> bool:
        with suppress(OSError):
            return all(file is not None and os.stat(file).st_size >= WORTH_A_PROCESS for file in self.files)
        return False

    @cached_property
    def _views(self) -> tuple[ObjectView | None, ObjectView | None]:
        old, new = self._builds
        is_large = min(old.bytes_to_read(self.name), new.bytes_to_read(self.name)) >= WORTH_A_PROCESS
        return side_by_side(lambda: old.view(self.name), lambda: new.view(self.name), self._jobs if is_large else 1)

    @property
    def bytes_to_read(self) -> int:
        """The size of both files, 0 where one is not at hand, or all is read."""
        if "_views" in self.__dict__ or None in self.files:
            return 0
        sizes = [side.bytes_to_read(self.name) for side in self._builds]
        return sum(sizes) if all(sizes) else 0

    def take(self, old: ObjectView, new: ObjectView) -> None:
        """Take both versions as somebody else has read them."""
        self._views = old, new

    @property
    def old(self) -> ObjectView | None:
        """The old version."""
        return self._views[0]

    @property
    def new(self) -> ObjectView | None:
        """The new version."""
        return self._views[1]

    def linked_sources(
        self, old_names: Collection[str], new_names: Collection[str]
    ) -> tuple[LinkedSources, LinkedSources] | None:
        """Return the sources of an object that was linked from several, and which of them symbols of some names are of.

        None where one of the versions was not linked, or what it was linked from cannot be read.
        """
        old, new = self._builds
        first, second = (
            partial(side.linked_sources, self.name, names) for side, names in ((old, old_names), (new, new_names))
        )
        try:
            before, after = side_by_side(first, second, self._jobs if self._are_large else 1)
        except (KlpError, OSError):
            return None
        return (before, after) if before is not None and after is not None else None

    def sources(self) -> tuple[SourceFiles | None, SourceFiles | None]:
        """Return the source files of both sides, None where they are not those that were compiled."""
        old, new = self._builds
        try:
            return old.sources(self.name, new), new.sources(self.name, old)
        except (KlpError, OSError):
            return None, None


_TOGETHER = 4 << 20  # bytes of objects that are read at a time


def read_together(pairs: Iterable[ObjectPair]) -> Iterator[ObjectPair]:
    """Yield pairs of objects, as many small ones read at a time as have some megabytes: that costs a third."""
    some: list[ObjectPair] = []
    small: list[ObjectPair] = []
    left = _TOGETHER
    for pair in pairs:
        size = pair.bytes_to_read
        if size > left:
            _read(small)
            yield from some
            some, small, left = [], [], _TOGETHER
        some.append(pair)
        if 0 < size <= left:
            small.append(pair)
            left -= size
    _read(small)
    yield from some


def _read(pairs: Sequence[ObjectPair]) -> None:
    if len(pairs) < 2:
        return
    try:
        views = iter(views_of([file for pair in pairs for file in pair.files if file is not None]))
    except Exception as error:
        # One that is broken takes the others with it: then each is read, and complained of, when somebody asks for it.
        if os.environ.get("KLP_DEBUG") and not isinstance(error, KlpError):
            raise
        return
    for pair, old, new in zip(pairs, views, views, strict=True):
        pair.take(old, new)
