# SPDX-License-Identifier: GPL-2.0-only
"""One object file as a side of a comparison."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from kbuild_klp.builds.side import SINGLE_OBJECT, Build
from kbuild_klp.checksum.batch import compute, compute_read
from kbuild_klp.checksum.path import sum_path
from kbuild_klp.checksum.stale import find_stale
from kbuild_klp.containers.ar import object_path
from kbuild_klp.errors import KlpError
from kbuild_klp.kernel.sources import SourceFiles
from kbuild_klp.kernel.tree import BuildTree, LinkUnit

if TYPE_CHECKING:
    from kbuild_klp.object.view import ObjectView


class ObjectBuild(Build):
    """One object file; its checksum file is used when it is fresh, and not written."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = os.path.abspath(object_path(path))
        self._view: ObjectView | None = None

    def units(self) -> list[LinkUnit]:
        """Return one unit with one object, under a name that both sides share."""
        return [LinkUnit(SINGLE_OBJECT, (SINGLE_OBJECT,))]

    def sums(self, name: str) -> bytes | None:
        """Return the checksums of the object; raises BadObjectError."""
        del name
        if not any(find_stale("/", [self.path])):
            return Path(sum_path(self.path)).read_bytes()
        from kbuild_klp.object.view import ObjectView

        self._view = ObjectView(self.path)
        computed = compute_read(self._view.meanings)
        if self._view.file.has_changed():
            self._view = None
            computed = compute(self.path)
        self.warnings += computed.warnings
        return computed.data

    def view(self, name: str) -> ObjectView | None:
        """Return the object to be read: as it was read for its checksums, if it was."""
        return self._view or super().view(name)

    def object_file(self, name: str) -> str | None:
        """Return the path of the object."""
        del name
        return self.path

    def tree(self, name: str) -> BuildTree | None:
        """Return the build tree in which the object lies, None when it lies in none."""
        del name
        for parent in Path(self.path).parents:
            if (parent / "include/config/auto.conf").exists():
                try:
                    return BuildTree.open(parent)
                except KlpError:
                    return None
        return None

    def sources(self, name: str, other: Build | None = None) -> SourceFiles | None:
        """Return the source files of the object, if it lies in a build tree."""
        del other
        tree = self.tree(name)
        if tree is None:
            return None
        sources = SourceFiles.of(tree, os.path.relpath(os.path.realpath(self.path), tree.root))
        if sources is None or sources.changed_since(os.stat(self.path).st_mtime_ns):
            return None
        return sources
