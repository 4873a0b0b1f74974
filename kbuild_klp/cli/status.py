# SPDX-License-Identifier: GPL-2.0-only
"""``kbuild-klp status``: what is installed in a kernel tree, and how fresh its checksums are."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from kbuild_klp.checksum.path import Freshness, freshness
from kbuild_klp.cli.exit_status import ExitStatus
from kbuild_klp.cli.options import add_source_tree
from kbuild_klp.errors import KlpError
from kbuild_klp.kbuild.blocks import BLOCK_VERSION
from kbuild_klp.kbuild.install import source_tree
from kbuild_klp.kbuild.state import InstallState, PartState, install_parts, summarize
from kbuild_klp.kernel.tree import BuildTree, objects_of

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
    is_source = (Path(arguments.tree) / "scripts" / "Kbuild.include").is_file()
    source = arguments.tree if build is None or is_source else build.source
    if build is None or not build.is_external:
        _print_install(source_tree(source))
    print(f"build          {trouble or (build and build.root)}")
    if build is not None:
        print(f"configuration  CONFIG_KLP_CHECKSUMS={build.setting('KLP_CHECKSUMS') or 'n'}")
        objects = objects_of(build.units())
        counts = Counter(freshness(build.root, objects))
        print(
            f"checksums      {counts[Freshness.FRESH]} fresh, {counts[Freshness.STALE]} stale,"
            f" {counts[Freshness.MISSING]} missing ({len(objects)} linked objects)"
        )
    return ExitStatus.SAME


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
