#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Make the inputs of speed.py from what selftests/demo.py has built, and print the options that name them.

    selftests/demo.py
    KLP_CONFIGS=lto LLVM=-19 selftests/demo.py
    tests/benchmarks/inputs.py --lto

The tree with other line numbers is a copy of the demo's, with its patch and a comment at the top of all C files of
net/core and of the files that selftests/lines.py takes. With --lto, the two ThinLTO trees are the demo's of that
configuration (LLVM= as in the example, or -19). Two releases of a module are a distribution's: take any, and name them
with --modules. KSRC and KLP_CACHE are as for the demo.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "selftests"))

from demo import PATCH
from klptest import TroubleError
from klptest.kernel import Workshop, make
from lines import FILES, shift

_DIRECTORY = "net/core"
_BUILT = "built-lines"


def with_other_lines(shop: Workshop) -> Path:
    """Return the tree with other line numbers; it is made if it is not there."""
    tree = shop.copy("line", PATCH)
    if shop.has(tree, _BUILT):
        return tree
    found = {tree / name for goal, name in FILES.items() if (tree / goal).exists()}
    found |= {path for path in (tree / _DIRECTORY).glob("*.c") if path.with_suffix(".o").exists()}
    for path in sorted(found):
        shift(path)
    make(tree, ["vmlinux", "modules"], shop.log("lines"))
    shop.refresh_checksums(tree)
    shop.mark(tree, _BUILT)
    return tree


def lto_trees() -> tuple[Path, Path]:
    """Return the demo's two trees of the ThinLTO configuration."""
    os.environ |= {"KLP_CONFIGS": "lto", "LLVM": os.environ.get("LLVM") or "-19"}
    shop = Workshop.open()
    return built(shop, shop.orig), built(shop, shop.directory / "demo")


def built(shop: Workshop, tree: Path) -> Path:
    """Return a tree that the demo has built; raises TroubleError if it has not."""
    if not (shop.has(shop.orig, "built") and (tree / "vmlinux").exists()):
        raise TroubleError(f"{tree} is not built: run selftests/demo.py with this KSRC, KLP_CONFIGS and LLVM")
    return tree


def options(lto: bool) -> list[str]:
    """Return speed.py's arguments."""
    shop = Workshop.open()
    orig = built(shop, shop.orig)
    with shop.locked():
        line = with_other_lines(shop)
    words = [orig, "--lines", orig, line, "--vmlinux", orig / "vmlinux.o", line / "vmlinux.o"]
    return list(map(str, [*words, *(["--lto", *lto_trees()] if lto else [])]))


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lto", action="store_true", help="the ThinLTO trees, too")
    try:
        print(shlex.join(options(parser.parse_args().lto)))
    except TroubleError as error:
        print(f"inputs: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
