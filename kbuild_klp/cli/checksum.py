# SPDX-License-Identifier: GPL-2.0-only
"""``kbuild-klp checksum``: write the checksum files of objects that have none or an old one."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from kbuild_klp.checksum.batch import BatchResult, write_checksums
from kbuild_klp.checksum.stale import find_stale
from kbuild_klp.cli.exit_status import ExitStatus
from kbuild_klp.cli.messages import complain
from kbuild_klp.cli.options import add_jobs, add_quiet
from kbuild_klp.cli.progress import ProgressLine
from kbuild_klp.containers.ar import is_object_archive, member_files, object_path, split_path
from kbuild_klp.errors import KlpError
from kbuild_klp.kernel.tree import BuildTree, LinkUnit, objects_of

_MOST_LINES = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("paths", metavar="PATH", nargs="+", help="a build tree, a module directory (M=), or an object")
    add_jobs(parser)
    parser.add_argument("-f", "--force", action="store_true", help="write those that are fresh too")
    add_quiet(parser)
    parser.add_argument("--built", action="store_true", help=argparse.SUPPRESS)  # what the makefile calls
    parser.add_argument("--extmod", metavar="DIR", help=argparse.SUPPRESS)
    parser.add_argument("--goals", metavar="GOALS", default="", help=argparse.SUPPRESS)


def _objects(units: list[LinkUnit], root: Path) -> list[str]:
    """Return the paths of all objects of the units, each once."""
    prefix = f"{root}/"
    return [name if name.startswith("/") else prefix + name for name in objects_of(units)]


def _tree_objects(path: str, arguments: argparse.Namespace) -> list[str]:
    goals = arguments.goals.split()
    if arguments.built and arguments.extmod:
        tree = BuildTree.open_external(arguments.extmod, path)
        return _objects(tree.built_units(goals), tree.root)
    tree = BuildTree.open(path)
    return _objects(tree.built_units(goals) if arguments.built else tree.units(), tree.root)


def _members(path: str) -> list[str]:
    """Return the files that a thin archive names; raises KlpError for one that has its members in it."""
    files = [*member_files(os.path.abspath(path)).values()]
    if any(split_path(file)[1] for file in files):
        raise KlpError(
            "members of an archive have no checksum files", file=path, hint="diff and explain compute what they need"
        )
    return files


def report(result: BatchResult) -> None:
    """Print what went wrong, not more than fits a screen."""
    if result.unwritten:
        first = next(iter(result.unwritten))
        result.errors.insert(
            0, f"{first}: {len(result.unwritten)} checksum files could not be written: {result.obstacle}"
        )
    for lines, what in ((result.warnings, "warnings"), (result.errors, "errors")):
        complain(lines[:_MOST_LINES])
        if len(lines) > _MOST_LINES:
            complain([f"and {len(lines) - _MOST_LINES} more {what}"])


def main(arguments: argparse.Namespace) -> int:
    """Run the command; raises KlpError."""
    objects: list[str] = []
    for path in arguments.paths:
        if os.path.isdir(path):
            try:
                objects += _tree_objects(path, arguments)
            except KlpError:
                if not arguments.built:  # the build may have stopped before there was anything to look at
                    raise
        elif is_object_archive(path):
            objects += _members(path)
        else:
            objects.append(os.path.abspath(object_path(path)))
    stale, absent = find_stale("/", objects)
    if arguments.force:
        gone = set(absent)
        stale = [name for name in objects if name not in gone]
    if absent and not arguments.built:
        named = [path for path in arguments.paths if not os.path.exists(path)]
        if named:
            raise KlpError("no such file", file=named[0])
        complain([f"warning: {len(absent)} linked objects are not there any more"])
    with ProgressLine("checksums") as progress:
        result = write_checksums(stale, arguments.jobs, progress)
    report(result)
    if not (arguments.quiet or arguments.built):
        print(f"{result.written} checksum files written, {len(objects) - len(absent) - len(stale)} up to date")
    return ExitStatus.FAILED if result.errors else ExitStatus.SAME
