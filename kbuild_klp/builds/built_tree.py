# SPDX-License-Identifier: GPL-2.0-only
"""A build tree, or the directory of an external module, as a side of a comparison."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from kbuild_klp.builds import archive
from kbuild_klp.builds.side import Build
from kbuild_klp.checksum import sum_file
from kbuild_klp.checksum.batch import Progress, write_checksums
from kbuild_klp.checksum.path import sum_path
from kbuild_klp.checksum.stale import find_stale
from kbuild_klp.errors import BadTreeError, KlpError
from kbuild_klp.kernel.settings import Settings
from kbuild_klp.kernel.sources import SourceFiles
from kbuild_klp.kernel.tree import BuildTree, LinkUnit, objects_of


class TreeBuild(Build):
    """A build tree, or the directory of an external module."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._tree = BuildTree.open(path)
        self._units: list[LinkUnit] | None = None
        self._memory: dict[str, bytes] = {}
        self._source_times: dict[str, int] = {}

    def units(self) -> list[LinkUnit]:
        """Return the link units of the tree."""
        if self._units is None:
            self._units = self._tree.units()
            if not self._units:
                raise BadTreeError("nothing was built here", file=self.label, hint="run make there first")
        return self._units

    @property
    def root(self) -> Path:
        """The object tree, without symbolic links."""
        return self._tree.root

    @property
    def directories(self) -> list[Path]:
        """The object tree and the source tree."""
        return list(dict.fromkeys((self._tree.root, self._tree.source)))

    def objects(self) -> list[str]:
        """Return all objects, each once."""
        return objects_of(self.units())

    def _path(self, name: str) -> str:
        return name if name.startswith("/") else f"{self._tree.root}/{name}"

    def prepare(self, jobs: int | None, progress: Progress | None) -> None:
        """Write checksum files that are missing or stale, or compute them in memory."""
        stale, absent = find_stale(self._tree.root, self.objects())
        for name in absent:
            self.failed[name] = f"{self._path(name)}: the object is not there any more; run make"
        if not stale:
            return
        result = write_checksums([self._path(name) for name in stale], jobs, progress)
        self.warnings += result.warnings
        if result.unwritten:
            prefix = f"{self._tree.root}/"
            self._memory = {path.removeprefix(prefix): data for path, data in result.unwritten.items()}
            count = len(self._memory)
            self.warnings.append(
                f"{self.label}: cannot be written ({result.obstacle}); {count} checksums were computed in memory"
            )
        if result.errors:
            self._find_failed(stale, result.errors)

    def _find_failed(self, stale: list[str], errors: list[str]) -> None:
        for name in find_stale(self._tree.root, stale).objects:
            if name in self._memory:
                continue
            path = self._path(name)
            reason = next((error for error in errors if error.startswith(f"{path}:")), f"{path}: no checksums")
            self.failed[name] = reason

    def sums(self, name: str) -> bytes | None:
        """Return the checksum file of an object."""
        if name in self.failed:
            return None
        known = self._memory.get(name)
        if known is not None:
            return known
        return self.read_sums(name, self._path(name))

    def sum_file(self, name: str) -> str:
        """Return the path of an object's checksum file, for messages."""
        return sum_path(self._path(name))

    def object_file(self, name: str) -> str | None:
        """Return the path of an object."""
        return self._path(name)

    def sources(self, name: str, other: Build | None = None) -> SourceFiles | None:
        """Return the source files of an object, unless they changed since it was compiled."""
        time = os.stat(self._path(name)).st_mtime_ns
        return SourceFiles.compiled(self._tree, name, time, self._source_times)

    def not_built(self) -> list[str]:
        """Return a warning where sources are newer than their objects: what is new in them is not compared."""
        found = [source for name in self.objects() for source in self._newer_sources(name)]
        if not found:
            return []
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        are = "are newer than their objects" if more else "is newer than its object"
        return [f"{self.label}: {found[0]}{more} {are}; run make there, for objects are what is compared"]

    def _newer_sources(self, name: str) -> Iterator[str]:
        """Yield the source of an object if it was changed after it was compiled; headers are not looked at."""
        stem = name.removesuffix(".o")
        for source in (f"{stem}.c", f"{stem}.S", f"{stem}.rs"):  # the first is what make takes
            with suppress(OSError):
                time = os.stat(os.path.join(self._tree.source, source)).st_mtime_ns
                if time > os.stat(self._path(name)).st_mtime_ns:
                    yield source
                return

    def settings(self) -> Settings | None:
        """Return what the tree was built with."""
        return Settings.of(self._tree)

    def tree(self, name: str) -> BuildTree | None:
        """Return the tree."""
        return self._tree

    def archive(self) -> archive.Archive:
        """Return the checksums of the whole tree; raises KlpError when an object has none."""
        sums: dict[str, bytes] = {}
        for name in self.objects():
            data = self.sums(name)
            if data is None:
                raise KlpError(f"has no checksums: {self.failed[name]}", file=name, hint="run make, then try again")
            content = self.load(name, data)  # not a damaged one
            sums[name] = sum_file.dump(content.architecture, content.table, (f"{line}\n" for line in content.lines))
        return archive.Archive(self.units(), Settings.of(self._tree), sums)
