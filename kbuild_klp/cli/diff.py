# SPDX-License-Identifier: GPL-2.0-only
"""``kbuild-klp diff``: say which functions and data differ between two builds."""

from __future__ import annotations

import argparse
import os
import shutil
import sys

from kbuild_klp.builds.built_tree import TreeBuild
from kbuild_klp.builds.opening import open_sides
from kbuild_klp.builds.side import Build
from kbuild_klp.cli.exit_status import ExitStatus
from kbuild_klp.cli.messages import complain
from kbuild_klp.cli.options import add_jobs, add_json, add_kept, add_patterns
from kbuild_klp.cli.pager import add_pager_option, show
from kbuild_klp.cli.progress import ProgressLine
from kbuild_klp.compare.passes import compare
from kbuild_klp.compare.selection import Selection
from kbuild_klp.report import json, text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("builds", metavar="BUILD", nargs="+", help="OLD and NEW: build trees, objects or archives")
    add_kept(parser)
    add_json(parser)
    parser.add_argument("-v", "--verbose", action="store_true", help="print every reason, and line-only changes")
    parser.add_argument("--lines", action="store_true", help="list what differs in line numbers only too")
    add_jobs(parser)
    for what in ("function", "object", "unit"):
        add_patterns(parser, f"--{what}", f"only changes of {what}s that match")
    add_patterns(parser, "--ignore", "leave out symbols that match, or OBJECT:SYMBOL, but count them")
    parser.add_argument("--no-explain", action="store_true", help="compare checksums only, do not read objects")
    add_pager_option(parser)


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


_read: list[object] = []
"""What was read of objects: it stays until the process ends, which is soon and takes it away in one go."""


def main(arguments: argparse.Namespace) -> int:
    """Run the command; raises KlpError."""
    _read.clear()
    old, new = open_sides(arguments.builds, arguments.kept)
    selections = _selections(arguments, new)
    with ProgressLine("checksums") as progress, ProgressLine("objects that differ") as looking:
        report = compare(old, new, arguments.jobs, progress, not arguments.no_explain, selections, looking, _read)
    if arguments.json:
        answer = json.render(report)
    else:
        complain(report.warnings)
        answer = text.render(report, text_style(arguments.verbose, arguments.lines)).removesuffix("\n")
    show(answer.split("\n"), arguments.pager)
    complain(f"not compared: {line}" for line in report.failed)
    if report.failed:
        return ExitStatus.FAILED
    return ExitStatus.DIFFERS if report.summary.differs else ExitStatus.SAME
