# SPDX-License-Identifier: GPL-2.0-only
"""What every side of a comparison can be asked: a build tree, an object, an archive, or what a tree kept of itself.

Each says which objects there are, and gives the bytes of their checksum files; checksums that are missing or stale
are made first, in the tree where it may be written and in memory where not.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from kbuild_klp.checksum import sum_file
from kbuild_klp.checksum.batch import Progress, compute
from kbuild_klp.checksum.path import sum_path
from kbuild_klp.checksum.sum_file import SumFile
from kbuild_klp.errors import BadSumFileError, KlpError
from kbuild_klp.kernel.settings import Settings
from kbuild_klp.kernel.sources import SourceFiles
from kbuild_klp.kernel.symvers import Exports, read_exports
from kbuild_klp.kernel.tree import BuildTree, LinkUnit

if TYPE_CHECKING:
    from kbuild_klp.builds.linked_sources import LinkedSources
    from kbuild_klp.object.view import ObjectView

SINGLE_OBJECT = "object"
"""The name of the only unit, and key of the only object, when two objects are compared."""


WORTH_A_PROCESS = 4 << 20
"""Objects of this many bytes are read side by side; sending what was read takes longer than reading smaller ones."""


class Build(ABC):
    """One side of a comparison. ``label`` names it for people; ``warnings`` is filled by ``prepare``."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.warnings: list[str] = []
        self.failed: dict[str, str] = {}
        """Objects that have no checksums, and why."""

    @cached_property
    def names(self) -> frozenset[str]:
        """All objects of this side."""
        return frozenset(name for unit in self.units() for name in unit.objects)

    def prepare(self, jobs: int | None, progress: Progress | None) -> None:  # noqa: B027
        """Make checksums that are missing or stale."""

    @abstractmethod
    def units(self) -> list[LinkUnit]:
        """Return the link units of this side."""

    @abstractmethod
    def sums(self, name: str) -> bytes | None:
        """Return the checksum file of an object, None when there is none (see ``failed``)."""

    def read_sums(self, name: str, object_path: str) -> bytes | None:
        """Read the checksum file beside an object; one that cannot be read goes to ``failed``."""
        try:
            with open(sum_path(object_path), "rb", buffering=0) as file:
                return file.read()
        except OSError as error:
            self.failed[name] = f"{error.filename}: {error.strerror}"
            return None

    def sum_file(self, name: str) -> str:
        """Return where the checksums of an object stand, for messages."""
        return f"{self.label}: {name}"

    def load(self, name: str, data: bytes) -> SumFile:
        """Parse the checksum file of an object; one that is damaged is made again in memory if the object is at hand.

        Raises KlpError.
        """
        try:
            return sum_file.load(data, self.sum_file(name))
        except BadSumFileError as error:
            path = self.object_file(name)
            if path is None:
                raise
            return self._compute_again(path, f"{error.file}: {error.message}")

    def up_to_date(self, name: str, content: SumFile) -> SumFile:
        """Return ``content``, or what takes its place: of today's special section table, if the object is at hand."""
        path = self.object_file(name)
        if content.table == sum_file.table_version() or path is None:
            return content
        return self._compute_again(path, f"{self.sum_file(name)}: made with version {content.table} of special.toml")

    def _compute_again(self, path: str, reason: str) -> SumFile:
        computed = compute(path)
        self.warnings += [f"{reason}; its checksums were computed in memory", *computed.warnings]
        return sum_file.load(computed.data, path)

    def object_file(self, name: str) -> str | None:
        """Return the path of the object from which the checksums were made, None when it is not at hand."""
        return None

    def view(self, name: str) -> ObjectView | None:
        """Return an object to be read, None when it is not at hand or cannot be read."""
        path = self.object_file(name) if name in self.names else None
        if path is None:
            return None
        # Not at the top: most objects of most comparisons are not read.
        from kbuild_klp.object.view import ObjectView

        try:
            return ObjectView(path)
        except KlpError:
            return None

    def bytes_to_read(self, name: str) -> int:
        """Return the size of the file that `view` would read, 0 when there is nothing to be read."""
        path = self.object_file(name) if name in self.names else None
        with suppress(OSError):
            return Path(path).stat().st_size if path else 0
        return 0

    def sources(self, name: str, other: Build | None = None) -> SourceFiles | None:
        """Return the source files of an object, None when they are not at hand.

        ``other`` is the other side of the comparison.
        """
        return None

    def linked_sources(self, name: str, symbols: Collection[str]) -> LinkedSources | None:
        """Return the source files of an object that was linked from several, None for any other.

        ``symbols`` are the names of those whose sources will be asked for.
        """
        return None

    def not_built(self) -> list[str]:
        """Return a warning where sources are newer than their objects: what is new in them is not compared."""
        return []

    def settings(self) -> Settings | None:
        """Return what this side was built with, None when that is not known."""
        return None

    def tree(self, name: str) -> BuildTree | None:
        """Return the build tree of an object, None when there is none."""
        return None

    def image(self, unit: str) -> Path | None:
        """Return what a unit was linked to, None when it is not at hand."""
        tree = self.tree(SINGLE_OBJECT)
        return tree.image(unit) if tree is not None else None

    def exports(self) -> Exports | None:
        """Return what this side exports, None when that is not known."""
        tree = self.tree(SINGLE_OBJECT)
        return read_exports(tree) if tree is not None else None


def objects_by_name(units: list[LinkUnit]) -> Mapping[str, list[str]]:
    """Return, for each object in order, the names of the units that it is linked into."""
    result: dict[str, list[str]] = {}
    for unit in units:
        for name in unit.objects:
            result.setdefault(name, []).append(unit.name)
    return result
