# SPDX-License-Identifier: GPL-2.0-only
"""One object file as a side of a comparison."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from kbuild_klp.builds.linked_sources import LinkedSources
from kbuild_klp.builds.side import SINGLE_OBJECT, WORTH_A_PROCESS, Build
from kbuild_klp.checksum.batch import ObjectChecksums, compute, compute_read
from kbuild_klp.checksum.path import sum_path
from kbuild_klp.checksum.stale import find_stale
from kbuild_klp.containers.ar import object_path
from kbuild_klp.errors import KlpError
from kbuild_klp.kernel.linked_from import linked_from
from kbuild_klp.kernel.sources import SourceFiles
from kbuild_klp.kernel.tree import BuildTree, LinkUnit
from kbuild_klp.processes import side_by_side

if TYPE_CHECKING:
    from kbuild_klp.object.view import ObjectView


class _Read(NamedTuple):
    """An object that was read for its checksums; ``view`` is None when the file changed before they were made."""

    view: ObjectView | None
    sums: ObjectChecksums


class ObjectBuild(Build):
    """One object file; its checksum file is used when it is fresh, and not written."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = os.path.abspath(object_path(path))
        self._read: _Read | None = None

    def units(self) -> list[LinkUnit]:
        """Return one unit with one object, under a name that both sides share."""
        return [LinkUnit(SINGLE_OBJECT, (SINGLE_OBJECT,))]

    def sums(self, name: str) -> bytes | None:
        """Return the checksums of the object; raises BadObjectError."""
        if self._read is None:
            if not self._is_stale():
                return Path(sum_path(self.path)).read_bytes()
            self._take(self._read_it())
        assert self._read is not None
        return self._read.sums.data

    def _is_stale(self) -> bool:
        return any(find_stale("/", [self.path]))

    def _read_it(self) -> _Read:
        """Read the object, and compute its checksums; raises BadObjectError."""
        from kbuild_klp.object.view import ObjectView

        view = ObjectView(self.path)
        computed = compute_read(view.meanings)
        return _Read(None, compute(self.path)) if view.file.has_changed() else _Read(view, computed)

    def _take(self, read: _Read) -> None:
        self._read = read
        self.warnings += read.sums.warnings

    @staticmethod
    def read_both(old: ObjectBuild, new: ObjectBuild, jobs: int | None) -> None:
        """Read two large objects of which no checksums are there side by side; raises BadObjectError."""
        sides = old, new
        if all(side.bytes_to_read(SINGLE_OBJECT) >= WORTH_A_PROCESS and side._is_stale() for side in sides):
            for side, read in zip(sides, side_by_side(old._read_it, new._read_it, jobs), strict=True):
                side._take(read)

    def view(self, name: str) -> ObjectView | None:
        """Return the object to be read: as it was read for its checksums, if it was."""
        return self._read.view if self._read and self._read.view else super().view(name)

    def bytes_to_read(self, name: str) -> int:
        """Return the size of the object, 0 when it has been read."""
        return 0 if self._read and self._read.view else super().bytes_to_read(name)

    def object_file(self, name: str) -> str | None:
        """Return the path of the object."""
        return self.path

    def tree(self, name: str) -> BuildTree | None:
        """Return the build tree in which the object lies, None when it lies in none."""
        for parent in Path(self.path).parents:
            if (parent / "include/config/auto.conf").exists():
                try:
                    return BuildTree.open(parent)
                except KlpError:
                    return None
        return None

    def _name_in(self, tree: BuildTree) -> str:
        return os.path.relpath(os.path.realpath(self.path), tree.root)

    def sources(self, name: str, other: Build | None = None) -> SourceFiles | None:
        """Return the source files of the object, if it lies in a build tree."""
        tree = self.tree(name)
        if tree is None:
            return None
        return SourceFiles.compiled(tree, self._name_in(tree), os.stat(self.path).st_mtime_ns)

    def linked_sources(self, name: str, symbols: Collection[str]) -> LinkedSources | None:
        """Return the source files of the object, if it was linked in a build tree."""
        tree = self.tree(name)
        members = linked_from(tree, self._name_in(tree)) if tree is not None else []
        return LinkedSources(tree, self.path, members, symbols) if tree is not None and members else None
