# SPDX-License-Identifier: GPL-2.0-only
"""``kbuild-klp export``: join the checksums of a tree into one archive."""

from __future__ import annotations

import argparse
import sys

from kbuild_klp.builds import archive
from kbuild_klp.builds.built_tree import TreeBuild
from kbuild_klp.cli.exit_status import ExitStatus
from kbuild_klp.cli.progress import ProgressLine
from kbuild_klp.errors import KlpError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("tree", metavar="TREE", help="a build tree, or the directory of an external module")
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help="the archive to write")
    parser.add_argument("-j", "--jobs", type=int, metavar="N", help="processes for checksums that are missing")
    parser.add_argument("-q", "--quiet", action="store_true", help="say nothing unless something is wrong")


def checksums(path: str, jobs: int | None) -> archive.Archive:
    """Return the checksums of a tree, those that it lacks made first; raises KlpError."""
    tree = TreeBuild(path)
    progress = ProgressLine("checksums")
    try:
        tree.prepare(jobs, progress)
    finally:
        progress.close()
    content = tree.archive()
    for warning in tree.warnings:
        print(f"kbuild-klp: {warning}", file=sys.stderr)
    return content


def main(arguments: argparse.Namespace) -> int:
    """Run the command; raises KlpError."""
    content = checksums(arguments.tree, arguments.jobs)
    try:
        archive.save(arguments.output, content)
    except OSError as error:
        raise KlpError(error.strerror or str(error), file=arguments.output, hint="give another -o FILE") from None
    if not arguments.quiet:
        print(f"{arguments.output}: checksums of {len(content.sums)} objects in {len(content.units)} link units")
    return ExitStatus.SAME
