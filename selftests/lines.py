#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""A comment line at the top of C files and headers, all compiled again: nothing but line numbers differs.

Without an argument, a few files of the tree to test with; what the sources prove, and what is said without them. With
a tree as argument (built in its source directory), every C file and every header of it, in a copy that is compiled
whole (minutes to hours) and removed at the end:

    selftests/lines.py ~/linux
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from klptest import TroubleError
from klptest.bench import Answer, Bench, diff_trees, run_on_bench
from klptest.console import Step, Steps
from klptest.kernel import Workshop, make
from klptest.mirror import mirror
from klptest.tap import Outcome, Report, Result, failed, passed, result_of

COMMENT = b"/* One more line. */\n"

# For the short test: lines in code (ACPI_ERROR, ext4_warning), in records (WARN), in a name (ELFNOTE); and a header
# with a macro and inline functions. By the object that is compiled; what is not in a configuration is left out.
FILES = {
    "drivers/acpi/acpica/hwregs.o": "drivers/acpi/acpica/hwregs.c",
    "fs/ext4/extents.o": "fs/ext4/ext4_extents.h",
    "fs/ext4/mmp.o": "fs/ext4/mmp.c",
    "init/version.o": "init/version.c",
    "kernel/params.o": "kernel/params.c",
    "lib/idr.o": "lib/idr.c",
    "net/core/dev_addr_lists.o": "net/core/dev_addr_lists.c",
}

# Not compiled into the kernel.
_NO_KERNEL = ("Documentation", "samples", "scripts", "tools")
# The last line of these headers has a checksum of the rest, which the build checks (scripts/atomic/check-atomics.sh).
_CHECKED = ("atomic-arch-fallback.h", "atomic-instrumented.h", "atomic-long.h")


def shift(path: Path) -> None:
    """Put a comment at the top of a source file."""
    text = COMMENT + path.read_bytes()
    if path.name in _CHECKED and path.parent.name == "atomic":
        body, mark, _ = text.rstrip(b"\n").rpartition(b"\n// ")
        if mark:
            text = body + b"\n// " + hashlib.sha1(body + b"\n", usedforsecurity=False).hexdigest().encode() + b"\n"
    path.write_bytes(text)


def sources(tree: Path) -> Iterator[Path]:
    """Yield the C files and headers of a tree, except those that the build makes."""
    for place, directories, files in os.walk(tree):
        if Path(place) == tree:
            directories[:] = [name for name in directories if name not in _NO_KERNEL]
        if place.endswith("/include"):
            directories[:] = [name for name in directories if name not in ("generated", "config")]
        for name in files:
            path = Path(place, name)
            is_made = name.endswith(".mod.c") or Path(place, f".{name}.cmd").exists() or name.startswith(".")
            if name.endswith((".c", ".h")) and not is_made and not path.is_symlink():
                yield path


def changes(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield all changes with their objects, each once however many units it is in."""
    seen = set()
    for part in document["objects"]:
        if part["object"] not in seen:
            seen.add(part["object"])
            yield from ((part["object"], change) for change in part["changes"])


def counts(document: dict[str, Any]) -> list[str]:
    """Return what there is to count in an answer, in lines."""
    summary = document["summary"]
    proofs = Counter(change.get("proof", "") for _, change in changes(document) if change["change"] == "line-only")
    return [
        f"{summary['objects_compared']} objects compared",
        f"{proofs['sources']} line-only, proved from the sources",
        f"{proofs['records']} line-only, in fields that are line numbers by definition",
        f"{proofs['inferred']} line-only, inferred",
        *(f"{summary[kind]} {kind}" for kind in ("changed", "added", "removed", "moved")),
    ]


def unproved(answer: Answer) -> list[str]:
    """Return what is wrong with an answer in which there is to be nothing but line numbers, all proved."""
    wrong = [] if answer.status == 0 else [f"exit status {answer.status}, not 0"]
    wrong += [
        f"{name}: {change['symbol']}: {change['change']} {change.get('proof', '')} {change['reasons'][:2]}"
        for name, change in changes(answer.document)
        if change.get("proof") != "sources"
    ]
    return wrong + [f"warning: {line}" for line in answer.document["warnings"]]


# -- a few files ------------------------------------------------------------------------------------------------------


def built_files(bench: Bench) -> dict[str, str]:
    """Return those of FILES that are compiled in this configuration."""
    return {goal: name for goal, name in FILES.items() if (bench.old / goal).exists()}


def _shift_some(bench: Bench) -> Result:
    files = built_files(bench)
    for name in files.values():
        shift(bench.new / name)
    bench.build(list(files))
    return passed()


def _came_out_the_same(bench: Bench, goal: str) -> bool:
    """Say whether an object was compiled again and has no line in it: from 7.x on ELFNOTE() counts (elfnote.h)."""
    old, new = bench.old / goal, bench.new / goal
    return old.stat().st_mtime_ns < new.stat().st_mtime_ns and old.read_bytes() == new.read_bytes()


def proved(bench: Bench) -> Result:
    """With both sources: everything is a line number, and proved."""
    answer = bench.diff()
    wrong = unproved(answer)
    found = {name for name, _ in changes(answer.document)}
    missing = [goal for goal in built_files(bench) if goal not in found]
    same = [goal for goal in missing if _came_out_the_same(bench, goal)]
    wrong += [f"{goal}: no difference" for goal in missing if goal not in same]
    notes = [f"{goal} came out the same" for goal in same]
    return failed(wrong) if wrong else passed([*counts(answer.document), *notes])


def told_from_objects(bench: Bench) -> Result:
    """Without the sources: what is inferred is said to be, and what is not is a change."""
    for name in built_files(bench).values():
        path = bench.new / name
        path.write_bytes(path.read_bytes() + b"/* edited after the build */\n")
    answer = bench.diff()
    proofs = {change.get("proof", "") for _, change in changes(answer.document)}
    wrong = [
        f"proved from sources that were edited: {change}"
        for _, change in changes(answer.document)
        if change.get("proof") == "sources"
    ]
    wrong += [f"nothing is {proof}" for proof in ("records", "inferred") if proof not in proofs]
    return failed(wrong) if wrong else passed(counts(answer.document))


TESTS: dict[str, Callable[[Bench], Result]] = {
    "a comment at the top of C files and a header: nothing but line numbers, all proved": proved,
    "the same without the sources: inferred where the objects say so, and said to be": told_from_objects,
}


def run_tests(bench: Bench) -> int:
    """Run the short tests; returns the exit code."""
    report = Report(len(TESTS))
    shifted = result_of(partial(_shift_some, bench))
    for title, test in TESTS.items():
        report.add(title, shifted if shifted.outcome is Outcome.FAILED else result_of(partial(test, bench)))
    bench.restore()
    return report.finish()


# -- a whole kernel ---------------------------------------------------------------------------------------------------


def _say(step: Step, lines: Iterable[str]) -> None:
    for line in lines:
        step.say(line)


def whole_kernel(source: Path) -> int:
    """Shift every line of a kernel, compile it, and print what differs; returns the exit code."""
    if not (source / "vmlinux").exists() or (source / "source").is_symlink():
        raise TroubleError(f"{source} is not a kernel tree that was built in its source directory")
    shop = Workshop.open_built(source)
    steps = Steps(5)
    old, new = shop.orig, shop.directory / "line"  # a name as long as `orig`
    with shop.locked():
        try:
            with steps(f"Copy {source} to {shop.directory}, twice"):
                if mirror(source, old):
                    shop.forget(old, "checksums")
                shop.refresh_checksums(old)
                shutil.rmtree(new, ignore_errors=True)
                mirror(old, new)
            with steps("A comment at the top of every C file and every header") as step:
                paths = list(sources(new))
                for path in paths:
                    shift(path)
                step.say(f"{len(paths)} files")
            with steps("Compile it"):
                make(new, ["vmlinux", "modules"], shop.log("lines"))
            with steps("Compare") as step:
                started = time.monotonic()
                answer = diff_trees(old, new)
                step.say(f"kbuild-klp diff took {time.monotonic() - started:.1f} s")
                wrong = unproved(answer)
                _say(step, [*counts(answer.document), *wrong])
            with steps("Compare without the sources") as step:
                now = time.time()
                for path in paths:
                    os.utime(path, (now, now))
                _say(step, counts(diff_trees(old, new).document))
        finally:
            shutil.rmtree(new, ignore_errors=True)
    print(f"All of it took {steps.total()}.")
    return 1 if wrong else 0


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tree", metavar="TREE", nargs="?", type=Path, help="shift all lines of a copy of this kernel")
    arguments = parser.parse_args()
    if arguments.tree is None:
        return run_on_bench(run_tests)
    try:
        return whole_kernel(arguments.tree.resolve())
    except (TroubleError, subprocess.SubprocessError) as error:
        print(f"lines: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
