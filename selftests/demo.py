#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Set up everything, then do the main job on a real kernel: build, patch, rebuild, ask which functions changed, make
a livepatch of them, and load it into that kernel in a virtual machine.

Needs Debian 12 with git, gcc, make and python3, and root or sudo for the packages that are missing. What does not
belong into the checkout's .venv goes into a cache, $KLP_CACHE or ~/.cache/kbuild-klp; an interrupted run goes on where
it was. KSRC= is the kernel's source, a directory, a tarball or a Debian package; default: linux-source-6.12.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from pathlib import Path

if sys.version_info < (3, 10):  # noqa: UP036 - whoever has an older one shall be told
    sys.exit(f"kbuild-klp needs Python 3.10 or newer; {sys.executable} is {sys.version.split()[0]}")

from klptest import TroubleError
from klptest.bench import diff_trees
from klptest.console import Step, Steps
from klptest.host import CHECKOUT, install_packages, make_venv
from klptest.kernel import MAKEFILE, Workshop, cache_directory, make
from klptest.machine import run_in_machine, why_not
from klptest.variant import CONFIG, fragments, missing_options

PATCH = CHECKOUT / "selftests/demo.patch"

# What demo.patch changes: all of these that are compiled are to be reported, and nothing else.
EXPECTED = {
    ("fs/ext4/file.o", "ext4_llseek", "changed"),
    ("fs/proc/cmdline.o", "cmdline_proc_show", "changed"),
    ("net/packet/af_packet.o", "packet_getname_spkt", "changed"),
}
_NUMBERS = ("zero", "one", "two", "three")


def prepare(steps: Steps, extra: str = "") -> None:
    """Install packages and the Python environment, with an optional group of dependencies."""
    logs = cache_directory() / "logs"
    with steps("Packages that a kernel build needs") as step:
        install_packages(step, logs / "apt.log")
    with steps(f"Python environment in {CHECKOUT / '.venv'}") as step:
        make_venv(step, logs / "pip.log", extra=extra)


def build_original(steps: Steps, shop: Workshop) -> None:
    """Bring the first tree to where it is built, with checksums."""
    with steps(f"Source: {shop.source} to {shop.orig}") as step:
        step.say("unpacked" if shop.unpack() else "is there")
    names = ", ".join(path.name for path in (CONFIG, *fragments()))
    with steps(f"Configuration: tinyconfig and {names}") as step:
        step.say("made" if shop.configure() else "is there")
        lost = missing_options(shop.orig / ".config")
        if lost:
            step.say(f"not in this kernel: {' '.join(lost)}")
    with steps("Build it: make MAKEFILES=…/Makefile.klp KLP_CHECKSUMS=1 vmlinux modules") as step:
        if not shop.build():
            step.say("is built")
        if shop.refresh_checksums(shop.orig):
            step.say("checksums written again: another version of kbuild-klp wrote them")


def build_patched(steps: Steps, shop: Workshop) -> Path:
    """Make the second tree, and build what the patch touches."""
    with steps(f"Second tree, with a patch to three functions: {shop.directory / 'demo'}") as step:
        tree = shop.copy("demo", PATCH)
        step.say("\n      ".join(line for line in PATCH.read_text().splitlines() if line[0] in "+-"))
    with steps("Build what the patch touches, the same way"):
        make(tree, ["vmlinux", "modules"], shop.log("rebuild"))
        shop.refresh_checksums(tree)
    return tree


def compare(shop: Workshop, tree: Path, step: Step) -> None:
    """Ask the way a user does, and compare the answer with what the patch says; raises TroubleError."""
    ask_make(shop, tree, step, "klp-diff")
    found = {
        (part["object"], change["symbol"], change["change"])
        for part in diff_trees(shop.orig, tree).document["objects"]
        for change in part["changes"]
        if change["change"] != "line-only"
    }
    expected = {row for row in EXPECTED if (shop.orig / row[0]).exists()}
    # Under LTO the objects that are compared are linked ones: modules, and vmlinux.o.
    compared = 1 if "\nCONFIG_LTO_CLANG=y\n" in (tree / ".config").read_text() else 0
    if {row[compared:] for row in found} != {row[compared:] for row in expected}:
        lists = (("expected", expected), ("reported", found))
        text = "\n".join(f"{title}:\n" + "\n".join(f"  {row}" for row in sorted(rows)) for title, rows in lists)
        raise TroubleError(f"these are not the functions that were patched\n{text}")
    for name, symbol, _ in sorted(EXPECTED - expected):
        step.say(f"{symbol} is not there: {name} is not built in this configuration")
    step.say(f"these are the {_NUMBERS[len(expected)]} functions that were patched, and nothing else")


def ask_make(shop: Workshop, tree: Path, step: Step, *goals: str) -> None:
    """Run make as a user does, and show what it says; raises TroubleError."""
    command = ["make", "-C", str(tree), f"MAKEFILES={MAKEFILE}", "--no-print-directory", *goals, f"BASE={shop.orig}"]
    step.say(f"{' '.join(command)}\n")
    environment = {**os.environ, "KLP_PAGER": "cat"}  # no question to the user in the middle of the demo
    if subprocess.run(command, stdin=subprocess.DEVNULL, env=environment, check=False).returncode:
        raise TroubleError(f"make {goals[0]} failed")
    print(flush=True)


def load(shop: Workshop, module: Path, step: Step) -> None:
    """Boot the original kernel, load the livepatch and unload it, and look at /proc/cmdline; raises TroubleError."""
    look = "cat /proc/cmdline"
    commands = [look, f"load {module.stem}", look, f"unload {module.stem}", look]
    log = shop.log("demo-console")
    outputs = run_in_machine(shop.image(), commands, {module.name: module}, timeout=240, log=log)
    before, during, after = (outputs[at].text for at in (0, 2, 4))
    for title, text in (("before", before), ("loaded", during), ("unloaded", after)):
        step.say(f"{title:<9} {text}")
    if any(output.status for output in outputs) or (during, after) != (f"{before} klp_demo=1", before):
        raise TroubleError(f"the livepatch does not do what the patch does; see {log}")


def build_only() -> None:
    """Build the first tree, for tests with a kernel that the demo's patch is not for."""
    steps = Steps(5)
    prepare(steps)
    shop = Workshop.open()
    with shop.locked():
        build_original(steps, shop)


def demo() -> None:
    """Run all steps."""
    steps = Steps(10)
    prepare(steps)
    shop = Workshop.open()
    with shop.locked():
        build_original(steps, shop)
        tree = build_patched(steps, shop)
        with steps("Which functions differ?") as step:
            compare(shop, tree, step)
        with steps("Make a livepatch of them") as step:
            ask_make(shop, tree, step, "klp-patch", "NAME=demo")
        with steps("Load it into the original kernel, in a virtual machine, and unload it") as step:
            if reason := why_not():
                step.say(f"skipped: {reason}")
            else:
                load(shop, tree / "livepatch-demo.ko", step)
    print(f"All of it took {steps.total()}. The trees stay in {shop.directory} for the next run.")


def print_trees() -> None:
    """Print shell assignments for tests that want a real kernel: one that is built, and one that is not."""
    shop = Workshop.open()
    if not shop.has(shop.orig, "built"):
        raise TroubleError("no tree is built yet")
    with shop.locked():
        print(f"KLP_TEST_TREE={shlex.quote(str(shop.orig))} KSRC={shlex.quote(str(shop.bare()))}")


def main() -> int:
    """Run the demo; 0 if the answer is right, 1 if it is not or something failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--setup", metavar="EXTRA", help="install packages and Python modules only; EXTRA: test")
    parser.add_argument("--build", action="store_true", help="build the kernel only, for the other tests")
    parser.add_argument("--print-trees", action="store_true", help="print the trees that the demo built, for tests")
    arguments = parser.parse_args()
    try:
        if arguments.setup is not None:
            prepare(Steps(2), arguments.setup)
        elif arguments.build:
            build_only()
        elif arguments.print_trees:
            print_trees()
        else:
            demo()
    except TroubleError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ndemo: interrupted; run it again to go on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
