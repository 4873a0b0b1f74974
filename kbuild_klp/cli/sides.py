# SPDX-License-Identifier: GPL-2.0-only
"""The two builds that a command is given."""

from __future__ import annotations

from kbuild_klp.builds.built_tree import TreeBuild
from kbuild_klp.builds.kept import KeptBuild
from kbuild_klp.builds.opening import open_build
from kbuild_klp.builds.side import Build
from kbuild_klp.errors import KlpError


def open_sides(builds: list[str], kept: bool) -> tuple[Build, Build]:
    """Open what the user named; raises KlpError."""
    if kept:
        if len(builds) != 1:
            raise KlpError("--kept takes one tree", hint="give the tree in which `make klp-base` ran")
        tree = TreeBuild(builds[0])
        return KeptBuild(tree.root), tree
    if len(builds) != 2:
        raise KlpError("two builds are compared", hint="give OLD and NEW, or --kept TREE")
    return open_build(builds[0]), open_build(builds[1])
