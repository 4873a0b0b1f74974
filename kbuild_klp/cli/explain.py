# SPDX-License-Identifier: GPL-2.0-only
"""``kbuild-klp explain``: show where functions and variables differ, instruction by instruction."""

from __future__ import annotations

import argparse
import sys

from kbuild_klp.builds.opening import open_sides
from kbuild_klp.cli.diff import text_style
from kbuild_klp.cli.exit_status import ExitStatus
from kbuild_klp.cli.messages import complain
from kbuild_klp.cli.options import add_jobs, add_json, add_kept
from kbuild_klp.cli.pager import add_pager_option, show
from kbuild_klp.cli.progress import ProgressLine
from kbuild_klp.compare.answer import answer
from kbuild_klp.compare.passes import compare
from kbuild_klp.report import json
from kbuild_klp.report.text import TextStyle

_SIDE_BY_SIDE = 130  # columns of `diff --side-by-side`


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "names",
        metavar="OLD NEW [SYMBOL...]",
        nargs="+",
        help="two builds as for diff, and what to explain (default: all)",
    )
    add_kept(parser, "TREE [SYMBOL...]")
    add_json(parser)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("-y", "--side-by-side", action="store_true", help="two columns (default on a wide terminal)")
    form.add_argument("-u", "--unified", action="store_true", help="old below new, as diff -u (default elsewhere)")
    parser.add_argument("-W", "--width", type=int, metavar="N", help="columns to use")
    parser.add_argument("-U", "--context", type=int, metavar="N", default=3, help="unchanged instructions to show (3)")
    add_jobs(parser)
    add_pager_option(parser)


def main(arguments: argparse.Namespace) -> int:
    """Run the command; raises KlpError."""
    builds = 1 if arguments.kept else 2
    old, new = open_sides(arguments.names[:builds], arguments.kept)
    with (
        ProgressLine("checksums") as progress,
        ProgressLine("objects that differ") as looking,
        ProgressLine("explained") as explaining,
    ):
        # Whether a livepatch can carry a change depends on others, so all objects that differ are read.
        report = compare(old, new, arguments.jobs, progress, looking=looking)
        looking.close()
        found = answer(arguments.names[builds:], old, new, report, max(arguments.context, 0), explaining)
        from kbuild_klp.report.explanation import WIDE, text_answer

        if arguments.json:
            lines = json.explanation(found, report)
        else:
            complain(report.warnings)
            here, is_terminal = text_style(True, True), sys.stdout.isatty()
            width = arguments.width or (here.width if is_terminal else _SIDE_BY_SIDE)
            is_wide = is_terminal and here.width >= WIDE and not arguments.unified
            style = TextStyle(max(width, 60), here.color, True, columns=arguments.side_by_side or is_wide)
            lines = text_answer(found, report, style)
        show(explaining.between(lines), arguments.pager, explaining.end)
    complain(f"not compared: {line}" for line in report.failed)
    return ExitStatus.FAILED if report.failed else ExitStatus.DIFFERS if found.differs else ExitStatus.SAME
