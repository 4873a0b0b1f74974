# SPDX-License-Identifier: GPL-2.0-only
"""``kbuild-klp diff``: say which functions and data differ between two builds."""

from __future__ import annotations

import argparse
import os
import shutil
import sys

from kbuild_klp.builds.built_tree import TreeBuild
from kbuild_klp.builds.kept import KeptBuild
from kbuild_klp.builds.opening import open_build
from kbuild_klp.builds.side import Build
from kbuild_klp.cli.exit_status import ExitStatus
from kbuild_klp.cli.pager import add_pager_option, show
from kbuild_klp.cli.progress import ProgressLine
from kbuild_klp.compare.passes import compare
from kbuild_klp.compare.selection import Selection
from kbuild_klp.errors import KlpError
from kbuild_klp.report import json, text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("builds", metavar="BUILD", nargs="+", help="OLD and NEW: build trees, objects or archives")
    parser.add_argument("--kept", action="store_true", help="compare a tree with what `make klp-base` kept of it")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("-v", "--verbose", action="store_true", help="print every reason, and line-only changes")
    parser.add_argument("--lines", action="store_true", help="list what differs in line numbers only too")
    parser.add_argument("-j", "--jobs", type=int, metavar="N", help="processes to read objects with")
    for what in ("function", "object", "unit"):
        text_of = f"only changes of {what}s that match PATTERN, as the shell does (may be repeated)"
        parser.add_argument(f"--{what}", metavar="PATTERN", action="append", default=[], help=text_of)
    parser.add_argument(
        "--ignore",
        metavar="PATTERN",
        action="append",
        default=[],
        help="leave out symbols that match, or OBJECT:SYMBOL; they are counted, and in JSON",
    )
    parser.add_argument("--no-explain", action="store_true", help="compare checksums only, do not read objects")
    add_pager_option(parser)


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


def text_style(verbose: bool, lines: bool) -> text.TextStyle:
    """Return how to print on the present standard output."""
    terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size((80, 24)).columns if terminal else 80
    color = terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return text.TextStyle(max(width, 60), color, verbose, lines)


def _selections(arguments: argparse.Namespace, new: Build) -> list[Selection]:
    """Return the filters of the command line and those of the tree; raises KlpError."""
    lists = (arguments.function, arguments.object, arguments.unit, arguments.ignore)
    functions, objects, units, ignores = map(tuple, lists)
    wanted = Selection(functions, objects, units, ignores)
    if not isinstance(new, TreeBuild):
        return [wanted]
    return [wanted, Selection.read(new.directories)]


def main(arguments: argparse.Namespace) -> int:
    """Run the command; raises KlpError."""
    old, new = open_sides(arguments.builds, arguments.kept)
    progress, looking = ProgressLine("checksums"), ProgressLine("objects that differ")
    try:
        selections = _selections(arguments, new)
        report = compare(old, new, arguments.jobs, progress, not arguments.no_explain, selections, looking)
    finally:
        progress.close()
        looking.close()
    if arguments.json:
        answer = json.render(report)
    else:
        for warning in report.warnings:
            print(f"kbuild-klp: {warning}", file=sys.stderr)
        answer = text.render(report, text_style(arguments.verbose, arguments.lines)).removesuffix("\n")
    show(answer.split("\n"), arguments.pager)
    for line in report.failed:
        print(f"kbuild-klp: not compared: {line}", file=sys.stderr)
    if report.failed:
        return ExitStatus.FAILED
    return ExitStatus.DIFFERS if report.summary.differs else ExitStatus.SAME
