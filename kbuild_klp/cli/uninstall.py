# SPDX-License-Identifier: GPL-2.0-only
"""``kbuild-klp uninstall``: take the include points out of a kernel source tree again."""

from __future__ import annotations

import argparse

from kbuild_klp.cli.exit_status import ExitStatus
from kbuild_klp.cli.options import add_source_tree
from kbuild_klp.kbuild.install import apply_edits, plan_uninstall, source_tree


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_source_tree(parser)


def main(arguments: argparse.Namespace) -> int:
    """Run the command; raises KlpError."""
    tree = source_tree(arguments.tree)
    edits = plan_uninstall(tree)
    if not edits:
        print(f"{arguments.tree}: not installed, nothing changed")
        return ExitStatus.SAME
    apply_edits(edits)
    for edit in edits:
        print(f"{'restored' if edit.new is not None else 'removed'}  {edit.path.relative_to(tree)}")
    return ExitStatus.SAME
