# SPDX-License-Identifier: GPL-2.0-only
"""``kbuild-klp install``: add the include points to a kernel source tree, or print them as a patch."""

from __future__ import annotations

import argparse
import sys

from kbuild_klp.cli.exit_status import ExitStatus
from kbuild_klp.cli.options import add_source_tree
from kbuild_klp.kbuild.install import apply_edits, own_command, plan_install, plan_patch, source_tree


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_source_tree(parser)
    parser.add_argument(
        "--print-patch",
        action="store_true",
        help="print the change as a patch for `patch -p1`; change nothing",
    )


def main(arguments: argparse.Namespace) -> int:
    """Run the command; raises KlpError."""
    tree = source_tree(arguments.tree)
    if arguments.print_patch:
        # Imported here: difflib is for this alone.
        from kbuild_klp.kbuild.patch import render_patch

        sys.stdout.flush()
        sys.stdout.buffer.write(render_patch(tree, plan_patch(tree)))
        sys.stdout.buffer.flush()
        return ExitStatus.SAME
    edits = plan_install(tree, own_command())
    if not edits:
        print(f"{arguments.tree}: already installed, nothing changed")
        return ExitStatus.SAME
    apply_edits(edits)
    for edit in edits:
        print(f"{'changed' if edit.old is not None else 'added'}  {edit.path.relative_to(tree)}")
    print("Now: make KLP_CHECKSUMS=1, or switch CONFIG_KLP_CHECKSUMS on (a configured tree asks for it once).")
    return ExitStatus.SAME
