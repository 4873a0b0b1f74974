# SPDX-License-Identifier: GPL-2.0-only
"""The two sides of a comparison: a build tree, one object, an archive, or what a tree kept of itself.

Each says which objects there are, and gives the bytes of their checksum files; checksums that are missing or stale
are made first, in the tree where it may be written and in memory where not.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from kbuild_klp import archive, sumfile
from kbuild_klp.base import KeptBase
from kbuild_klp.batch import Progress, compute, write_checksums
from kbuild_klp.entry import Columns
from kbuild_klp.errors import BadSumFileError, BadTreeError, KlpError
from kbuild_klp.kernel.settings import Settings
from kbuild_klp.kernel.sources import SourceFiles
from kbuild_klp.kernel.sumpath import sum_path
from kbuild_klp.kernel.tree import BuildTree, LinkUnit
from kbuild_klp.stale import find_stale

SINGLE_OBJECT = "object"
"""The name of the only unit, and key of the only object, when two objects are compared."""


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

    def sum_file(self, name: str) -> str:
        """Return where the checksums of an object stand, for messages."""
        return f"{self.label}: {name}"

    def load(self, name: str, data: bytes) -> sumfile.SumFile:
        """Parse the checksum file of an object; one that is damaged is made again in memory if the object is at hand.

        Raises KlpError.
        """
        try:
            return sumfile.load(data, self.sum_file(name))
        except BadSumFileError as error:
            path = self.object_file(name)
            if path is None:
                raise
            return self._compute_again(path, f"{error.file}: {error.message}")

    def up_to_date(self, name: str, content: sumfile.SumFile) -> sumfile.SumFile:
        """Return ``content``, or what takes its place: of today's special section table, if the object is at hand."""
        path = self.object_file(name)
        if content.table == sumfile.table_version() or path is None:
            return content
        return self._compute_again(path, f"{self.sum_file(name)}: made with version {content.table} of special.toml")

    def _compute_again(self, path: str, reason: str) -> sumfile.SumFile:
        computed = compute(path)
        self.warnings += [f"{reason}; its checksums were computed in memory", *computed.warnings]
        return sumfile.load(computed.data, path)

    @abstractmethod
    def object_file(self, name: str) -> str | None:
        """Return the path of the object from which the checksums were made, None when it is not at hand."""

    @abstractmethod
    def sources(self, name: str, other: Build | None = None) -> SourceFiles | None:
        """Return the source files of an object, None when they are not at hand."""

    def settings(self) -> Settings | None:
        """Return what this side was built with, None when that is not known."""
        return None

    def tree(self, name: str) -> BuildTree | None:
        """Return the build tree of an object, None when there is none."""
        del name
        return None


class TreeBuild(Build):
    """A build tree, or the directory of an external module."""

    def __init__(self, path: str, tree: BuildTree | None = None) -> None:
        super().__init__(path)
        self._tree = tree or BuildTree.open(path)
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
        return list(dict.fromkeys(name for unit in self.units() for name in unit.objects))

    def _path(self, name: str) -> str:
        return os.path.join(self._tree.root, name)

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
        try:
            with open(sum_path(self._path(name)), "rb", buffering=0) as file:
                return file.read()
        except OSError as error:
            self.failed[name] = f"{error.filename}: {error.strerror}"
            return None

    def sum_file(self, name: str) -> str:
        """Return the path of an object's checksum file, for messages."""
        return sum_path(self._path(name))

    def object_file(self, name: str) -> str | None:
        """Return the path of an object."""
        return self._path(name)

    def sources(self, name: str, other: Build | None = None) -> SourceFiles | None:
        """Return the source files of an object, unless they changed since it was compiled."""
        del other
        sources = SourceFiles.of(self._tree, name)
        if sources is None or sources.changed_since(os.stat(self._path(name)).st_mtime_ns, self._source_times):
            return None
        return sources

    def settings(self) -> Settings | None:
        """Return what the tree was built with."""
        return Settings.of(self._tree)

    def tree(self, name: str) -> BuildTree | None:
        """Return the tree."""
        del name
        return self._tree

    def archive(self) -> archive.Archive:
        """Return the checksums of the whole tree; raises KlpError when an object has none."""
        sums: dict[str, bytes] = {}
        for name in self.objects():
            data = self.sums(name)
            if data is None:
                raise KlpError(f"has no checksums: {self.failed[name]}", file=name, hint="run make, then try again")
            content = self.load(name, data)  # not a damaged one
            sums[name] = sumfile.dump(content.architecture, content.table, Columns.of(content.entries))
        return archive.Archive(self.units(), Settings.of(self._tree), sums)


class ObjectBuild(Build):
    """One object file; its checksum file is used when it is fresh, and not written."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = os.path.abspath(path)

    def units(self) -> list[LinkUnit]:
        """Return one unit with one object, under a name that both sides share."""
        return [LinkUnit(SINGLE_OBJECT, (SINGLE_OBJECT,))]

    def sums(self, name: str) -> bytes | None:
        """Return the checksums of the object; raises BadObjectError."""
        del name
        if not any(find_stale("/", [self.path])):
            return Path(sum_path(self.path)).read_bytes()
        computed = compute(self.path)
        self.warnings += computed.warnings
        return computed.data

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


class ArchiveBuild(Build):
    """An archive from `kbuild-klp export`: checksums only."""

    def __init__(self, path: str, content: archive.Archive | None = None) -> None:
        super().__init__(path)
        self._content = content or archive.load(path)

    def units(self) -> list[LinkUnit]:
        """Return the link units of the archived tree."""
        return self._content.units

    def sums(self, name: str) -> bytes | None:
        """Return the checksum file of an object."""
        data = self._content.sums.get(name)
        if data is None:
            self.failed[name] = f"{self.label}: {name}: is listed, but has no checksums"
        return data

    def object_file(self, name: str) -> str | None:
        """Return None: an archive holds no objects."""
        del name
        return None

    def sources(self, name: str, other: Build | None = None) -> SourceFiles | None:
        """Return None: an archive holds no sources."""
        del name, other
        return None

    def settings(self) -> Settings | None:
        """Return what the archived tree was built with."""
        return self._content.settings


class KeptBuild(ArchiveBuild):
    """What `make klp-base` kept: checksums, objects and sources."""

    def __init__(self, root: Path) -> None:
        self._base = KeptBase.open(root)
        super().__init__(f"{root} as kept", self._base.archive)

    def object_file(self, name: str) -> str | None:
        """Return the path of the kept object."""
        return self._base.object_file(name)

    def sources(self, name: str, other: Build | None = None) -> SourceFiles | None:
        """Return the kept versions of the files that the other side has for this object."""
        theirs = other.sources(name) if other is not None else None
        return None if theirs is None else self._base.sources(name, theirs)


def open_build(path: str) -> Build:
    """Open one side of a comparison by what lies at ``path``; raises KlpError."""
    if os.path.isdir(path):
        return TreeBuild(path)
    if not os.path.exists(path):
        raise KlpError("no such file or directory", file=path, hint="give a build tree, an object or an archive")
    return ArchiveBuild(path) if archive.is_archive(path) else ObjectBuild(path)


def objects_by_name(units: list[LinkUnit]) -> Mapping[str, list[str]]:
    """Return, for each object in order, the names of the units that it is linked into."""
    result: dict[str, list[str]] = {}
    for unit in units:
        for name in unit.objects:
            result.setdefault(name, []).append(unit.name)
    return result
