# SPDX-License-Identifier: GPL-2.0-only
"""``kbuild-klp patch``: make a livepatch module of what differs between two builds."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from kbuild_klp.builds.opening import open_sides
from kbuild_klp.cli.exit_status import ExitStatus
from kbuild_klp.cli.messages import complain
from kbuild_klp.cli.options import add_jobs, add_json, add_kept, add_without
from kbuild_klp.cli.progress import ProgressLine
from kbuild_klp.compare.passes import compare
from kbuild_klp.errors import KlpError

if TYPE_CHECKING:
    from kbuild_klp.builds.side import Build
    from kbuild_klp.report.model import Report

_PREFIX = "livepatch-"
_HEADER = "kbuild/livepatch_helpers.h"
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_-]*[A-Za-z0-9_])?")
_LONGEST = 55  # MODULE_NAME_LEN of include/linux/moduleparam.h, on 64 bits

_ABOUT = """
The functions that differ are taken from the objects of NEW as they are, with the new functions and data that they need;
what OLD has is the running kernel's. Only the code that registers the patch is compiled, by OLD's own module build.
Neither tree is written to, except for missing checksums. What differs and cannot be carried is named with the reason,
and then no module is made. Exit status: 0 made, and all checks hold; 1 nothing differs that a livepatch could carry; 2
trouble, or something cannot be carried.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.epilog = _ABOUT
    parser.add_argument("builds", metavar="TREE", nargs="*", help="OLD, as it runs, and NEW, with the fix; both built")
    add_kept(parser)
    parser.add_argument("-o", "--output", metavar="FILE", help="the module to write (default: livepatch-NAME.ko)")
    parser.add_argument("--name", metavar="NAME", help="name of the patch (default: that of NEW's directory)")
    add_without(parser)
    parser.add_argument("--replace", action="store_true", help="take the place of all livepatches that are loaded")
    header = "print the macros with which a patch names its callbacks, include/linux/livepatch_helpers.h of 6.19"
    parser.add_argument("--print-header", action="store_true", help=header)
    parser.add_argument("--sign", action="store_true", help="sign the module with OLD's program and key (MODULE_SIG)")
    add_json(parser)
    add_jobs(parser)


def _names(arguments: argparse.Namespace) -> tuple[str, str]:
    """Return the module's name and the file to write; raises KlpError."""
    output = arguments.output
    if output is not None:
        if not output.endswith(".ko"):
            raise KlpError("a module's name ends with .ko", file=output, hint="give another -o FILE")
        name = Path(output).name.removesuffix(".ko")
        if arguments.name is not None and name not in (arguments.name, _PREFIX + arguments.name):
            raise KlpError(f"is not the file of {_PREFIX}{arguments.name}", file=output, hint="give -o or --name")
    else:
        last = Path(arguments.builds[-1]).resolve().name
        own = re.sub(r"[^A-Za-z0-9_-]+", "-", last).strip("-")
        name = _PREFIX + (own if arguments.name is None else arguments.name)
    if not _NAME.fullmatch(name) or len(name) > _LONGEST:
        raise KlpError(
            f"{name} cannot be the name of a module", hint="give --name or -o: letters, digits, dashes, at most 55"
        )
    return name, output or f"{name}.ko"


def main(arguments: argparse.Namespace) -> int:
    """Run the command; raises KlpError."""
    if arguments.print_header:
        print((Path(__file__).parents[1] / _HEADER).read_text(), end="")
        return ExitStatus.SAME
    from kbuild_klp.module import told
    from kbuild_klp.module.making import Options, make_livepatch

    if not arguments.builds:
        raise KlpError("two builds are needed", hint="give OLD and NEW, or --kept TREE")
    name, output = _names(arguments)
    old, new = open_sides(arguments.builds, arguments.kept)

    def compared(before: Build, after: Build) -> Report:
        with ProgressLine("checksums") as progress, ProgressLine("objects that differ") as looking:
            return compare(before, after, arguments.jobs, progress, looking=looking)

    options = Options(name, arguments.without, arguments.replace, arguments.sign)
    with ProgressLine("livepatch") as stages:
        made = make_livepatch(old, new, output, options, compared, stages.say)
    if arguments.json:
        print(json.dumps(told.document(made), indent=1))
    else:
        complain(made.warnings)
        for line in told.text(made):
            print(line)
    complain(map(told.refusal, made.refused))
    if made.refused:
        return ExitStatus.FAILED
    return ExitStatus.SAME if made.module else ExitStatus.DIFFERS
