# SPDX-License-Identifier: GPL-2.0-only
"""``kbuild-klp export``: join the checksums of a tree into one archive."""

from __future__ import annotations

import argparse

from kbuild_klp.builds import archive
from kbuild_klp.builds.built_tree import TreeBuild
from kbuild_klp.cli.exit_status import ExitStatus
from kbuild_klp.cli.messages import complain
from kbuild_klp.cli.options import add_built_tree, add_jobs, add_quiet
from kbuild_klp.cli.progress import ProgressLine
from kbuild_klp.errors import system_errors


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_built_tree(parser)
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help="the archive to write")
    add_jobs(parser)
    add_quiet(parser)


def checksums(path: str, jobs: int | None) -> archive.Archive:
    """Return the checksums of a tree, those that it lacks made first; raises KlpError."""
    tree = TreeBuild(path)
    with ProgressLine("checksums") as progress:
        tree.prepare(jobs, progress)
    content = tree.archive()
    complain(tree.warnings)
    return content


def main(arguments: argparse.Namespace) -> int:
    """Run the command; raises KlpError."""
    content = checksums(arguments.tree, arguments.jobs)
    with system_errors(arguments.output, "give another -o FILE"):
        archive.save(arguments.output, content)
    if not arguments.quiet:
        print(f"{arguments.output}: checksums of {len(content.sums)} objects in {len(content.units)} link units")
    return ExitStatus.SAME
