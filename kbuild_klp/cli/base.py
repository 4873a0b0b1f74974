# SPDX-License-Identifier: GPL-2.0-only
"""``kbuild-klp base``: keep the present state of a tree to compare with later."""

from __future__ import annotations

import argparse
from pathlib import Path

from kbuild_klp.builds import kept
from kbuild_klp.cli.exit_status import ExitStatus
from kbuild_klp.cli.export import checksums
from kbuild_klp.cli.options import add_built_tree, add_jobs, add_quiet
from kbuild_klp.errors import KlpError, system_errors
from kbuild_klp.kernel.tree import BuildTree


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_built_tree(parser)
    parser.add_argument("--clean", action="store_true", help="remove what is kept")
    add_jobs(parser)
    add_quiet(parser)


def main(arguments: argparse.Namespace) -> int:
    """Run the command; raises KlpError."""
    if arguments.clean:
        # It need not be a build tree: what was kept can also be removed after make mrproper.
        root = Path(arguments.tree).resolve()
        if not root.is_dir():
            raise KlpError("is not a directory", file=arguments.tree, hint="give the tree in which `make klp-base` ran")
        removed = kept.remove(root)
        if not arguments.quiet:
            print(f"{root}: {'the base was removed' if removed else 'no base was kept'}")
        return ExitStatus.SAME
    tree = BuildTree.open(arguments.tree)
    content = checksums(arguments.tree, arguments.jobs)
    with system_errors(hint="is the tree writable?"):
        objects, sources = kept.keep(tree, content)
    if not arguments.quiet:
        print(f"{tree.root}: kept {objects} objects and {sources} source files; `make klp-diff` compares with them")
    return ExitStatus.SAME
