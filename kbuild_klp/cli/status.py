# SPDX-License-Identifier: GPL-2.0-only
"""``kbuild-klp status``: what is installed in a kernel tree, and how fresh its checksums are."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from kbuild_klp.cli.exit_status import ExitStatus
from kbuild_klp.cli.options import add_source_tree
from kbuild_klp.errors import KlpError
from kbuild_klp.kbuild.blocks import BLOCK_VERSION
from kbuild_klp.kbuild.install import source_tree
from kbuild_klp.kbuild.state import InstallState, PartState, count_checksums, install_parts, summarize
from kbuild_klp.kernel.tree import BuildTree

_DATA = Path(__file__).resolve().parents[1] / "kbuild"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_source_tree(parser, "kernel source or build tree")
    parser.add_argument(
        "--sidecar",
        action="store_true",
        help="print the path of the objtool stand-in (make objtool=...) only",
    )
    parser.add_argument(
        "--makefile", action="store_true", help="print the path of Makefile.klp (make MAKEFILES=...) only"
    )


def main(arguments: argparse.Namespace) -> int:
    """Run the command; raises KlpError."""
    if arguments.sidecar:
        print(_DATA / "objtool")
        return ExitStatus.SAME
    if arguments.makefile:
        print((_DATA / "Makefile.klp").resolve())
        return ExitStatus.SAME
    build: BuildTree | None = None
    trouble = ""
    try:
        build = BuildTree.open(arguments.tree)
    except KlpError as error:
        trouble = error.message
    source = arguments.tree if build is None or _is_source(arguments.tree) else build.source
    if build is None or not build.is_external:
        _print_install(source_tree(source))
    print(f"build          {trouble or (build and build.root)}")
    if build is not None:
        print(f"configuration  CONFIG_KLP_CHECKSUMS={build.setting('KLP_CHECKSUMS') or 'n'}")
        counts = count_checksums(build)
        print(
            f"checksums      {counts.fresh} fresh, {counts.stale} stale, {counts.missing} missing"
            f" ({counts.linked} linked objects)"
        )
    return ExitStatus.SAME


def _is_source(tree: str | os.PathLike[str]) -> bool:
    return (Path(tree) / "scripts" / "Kbuild.include").is_file()


def _print_install(tree: Path) -> None:
    parts = install_parts(tree)
    state = summarize(parts)
    version = f" (version {BLOCK_VERSION})" if state is InstallState.INSTALLED else ""
    print(f"source         {tree}")
    print(f"include points {state.value}{version}")
    if state in (InstallState.PARTLY, InstallState.OTHER):
        for part in parts:
            note = f": {part.note}" if part.state is PartState.DAMAGED else ""
            print(f"  {part.path}: {part.state.value}{note}")
        print("  kbuild-klp install repairs this, kbuild-klp uninstall undoes it")
