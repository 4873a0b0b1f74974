# SPDX-License-Identifier: GPL-2.0-only
"""From what a user named to the sides of a comparison."""

from __future__ import annotations

import os

from kbuild_klp.builds.archive import ArchiveBuild, is_archive
from kbuild_klp.builds.built_tree import TreeBuild
from kbuild_klp.builds.kept import KeptBuild
from kbuild_klp.builds.members import MembersBuild
from kbuild_klp.builds.side import Build
from kbuild_klp.builds.single_object import ObjectBuild
from kbuild_klp.containers.ar import is_object_archive, split_path
from kbuild_klp.errors import KlpError


def open_build(path: str) -> Build:
    """Open one side of a comparison by what lies at ``path``; raises KlpError."""
    if os.path.isdir(path):
        return TreeBuild(path)
    if not os.path.exists(split_path(path)[0]):
        raise KlpError("no such file or directory", file=path, hint="give a build tree, an object or an archive")
    if is_object_archive(path):
        return MembersBuild(path)
    return ArchiveBuild(path) if is_archive(path) else ObjectBuild(path)


def open_sides(builds: list[str], kept: bool) -> tuple[Build, Build]:
    """Open the two builds to compare, or one tree and what was ``kept`` of it; raises KlpError."""
    if kept:
        if len(builds) != 1:
            raise KlpError("--kept takes one tree", hint="give the tree in which `make klp-base` ran")
        tree = TreeBuild(builds[0])
        return KeptBuild(tree.root), tree
    if len(builds) != 2:
        raise KlpError("two builds are compared", hint="give OLD and NEW, or --kept TREE")
    return open_build(builds[0]), open_build(builds[1])
