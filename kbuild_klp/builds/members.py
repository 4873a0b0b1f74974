# SPDX-License-Identifier: GPL-2.0-only
"""An archive of objects (lib.a, vmlinux.a) as a side of a comparison: member by member, by their names."""

from __future__ import annotations

import os
from functools import cached_property

from kbuild_klp.builds.side import Build
from kbuild_klp.builds.single_object import ObjectBuild
from kbuild_klp.checksum.batch import Progress, compute_many
from kbuild_klp.checksum.stale import find_stale
from kbuild_klp.containers.ar import member_files
from kbuild_klp.errors import KlpError
from kbuild_klp.kernel.sources import SourceFiles
from kbuild_klp.kernel.tree import BuildTree, LinkUnit

_UNIT = "archive"


class MembersBuild(Build):
    """All objects of an archive; checksum files of the members of a thin one are used when they are fresh."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._files = member_files(os.path.abspath(path))
        self._sums: dict[str, bytes] = {}

    def units(self) -> list[LinkUnit]:
        """Return one unit with all members."""
        return [LinkUnit(_UNIT, tuple(self._files))]

    def prepare(self, jobs: int | None, progress: Progress | None) -> None:
        """Compute what there is no fresh checksum file of."""
        names = {path: name for name, path in self._files.items()}
        stale = find_stale("/", list(names))
        without = [*stale.objects, *stale.absent]
        for done, (path, computed) in enumerate(compute_many(without), 1):
            if isinstance(computed, KlpError):
                self.failed[names[path]] = str(computed)
            elif isinstance(computed, Exception):
                raise computed
            else:
                self._sums[names[path]] = computed.data
                self.warnings += computed.warnings
            if progress is not None:
                progress(done, len(without))

    def sums(self, name: str) -> bytes | None:
        """Return the checksums of a member."""
        if name in self.failed or name in self._sums:
            return self._sums.get(name)
        return self.read_sums(name, self._files[name])

    def object_file(self, name: str) -> str | None:
        """Return the path of a member."""
        return self._files[name]

    @cached_property
    def _members(self) -> dict[str, ObjectBuild]:
        return {name: ObjectBuild(path) for name, path in self._files.items()}

    def tree(self, name: str) -> BuildTree | None:
        """Return the build tree in which a member lies, None when it lies in none."""
        return self._members[name].tree(name) if name in self._members else None

    def sources(self, name: str, other: Build | None = None) -> SourceFiles | None:
        """Return the source files of a member that is a file of its own and lies in a build tree."""
        return self._members[name].sources(name, other)
