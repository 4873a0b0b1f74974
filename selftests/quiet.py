#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""What must not be reported: the same source, compiled again, elsewhere, at another time, with other debug info.

And what must not happen: that switching checksums on or off compiles anything.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from klptest.bench import Bench, run_on_bench
from klptest.console import run
from klptest.tap import Report, Result, failed, passed, result_of

# A few of each sort: an assembly directory, one with many statics, one with bug tables and tracepoints, a module's.
# Those of which this configuration has nothing are left out.
DIRECTORIES = ("arch/x86/lib/", "fs/jbd2/", "fs/proc/", "kernel/irq/", "net/unix/")

_COMPILES = re.compile(r"^  (CC|AS|HOSTCC)\b.*", re.MULTILINE)


def _built(bench: Bench, goals: list[str], *, checksums: bool = True) -> list[str]:
    """Build, and return the lines of make's output that say that something was compiled."""
    start = bench.log.stat().st_size if bench.log.exists() else 0
    bench.build(goals, checksums=checksums)
    with bench.log.open("rb") as log:
        log.seek(start)
        return [match.group().strip() for match in _COMPILES.finditer(log.read().decode())]


def _expect_nothing(bench: Bench, option: str = "") -> list[str]:
    """Compare the trees; returns what is wrong with the answer.

    Differences in configuration are to be reported where there are some: in options that start with ``option``.
    """
    answer = bench.diff()
    wrong = [] if answer.status == 0 else [f"exit status {answer.status}, not 0"]
    for part in answer.document["objects"]:
        wrong += [f"{part['object']}: {change}" for change in part["changes"]]
    warnings = answer.document["warnings"]
    named = [line for line in warnings if option and line.startswith(f"configuration differs: {option}")]
    if warnings != named or (option and not named):
        wrong.append(f"warnings: {warnings}")
    return wrong


def _verdict(wrong: list[str], compiled: list[str]) -> Result:
    return failed(wrong) if wrong else passed([f"{len(compiled)} compilations"])


def built_directories(bench: Bench) -> list[str]:
    """Return those of DIRECTORIES in which there are objects."""
    return [name for name in DIRECTORIES if any((bench.old / name).glob("*.o"))]


def compiled_again(bench: Bench) -> Result:
    """Compile some directories again, in a tree with another path."""
    directories = built_directories(bench)
    objects = [path for directory in directories for path in (bench.new / directory).rglob("*.o")]
    for path in objects:
        path.unlink()
    compiled = _built(bench, directories)
    # To make of 5.10, a directory is only what is built in; what modpost adds to a module is linked nowhere else.
    left = [str(path.relative_to(bench.new)) for path in objects if not path.exists()]
    left = [path for path in left if not path.endswith(".mod.o")]
    if left:
        compiled += _built(bench, left)
    wrong = _expect_nothing(bench)
    if len(compiled) < len(directories):
        wrong.append(f"only {len(compiled)} compilations")
    return _verdict(wrong, compiled)


def compiled_with_debug_info(bench: Bench) -> Result:
    """Compile the same directories with DWARF."""
    # DEBUG_INFO is an option of its own before 5.18.
    option = ["scripts/config", "-d", "DEBUG_INFO_NONE", "-e", "DEBUG_INFO", "-e", "DEBUG_INFO_DWARF5"]
    run(option, bench.log, cwd=bench.new)
    run(["make", "olddefconfig"], bench.log, cwd=bench.new)
    if "CONFIG_DEBUG_INFO=y" not in (bench.new / ".config").read_text().splitlines():
        return failed(["CONFIG_DEBUG_INFO cannot be switched on"])
    directories = built_directories(bench)
    compiled = _built(bench, directories)
    some = next((bench.new / directories[-1]).glob("*.o"))
    wrong = [] if b".debug_info" in some.read_bytes() else [f"{some} has no debug info"]
    return _verdict(wrong + _expect_nothing(bench, "CONFIG_DEBUG_INFO"), compiled)


def switched_off_and_on(bench: Bench) -> Result:
    """Build all without checksums, then with them: nothing is to be compiled, and nothing to be linked."""
    # The first make in a copy may link once more: what is counted has to come from the switch alone.
    _built(bench, ["vmlinux", "modules"])
    before = _digest(bench.new / "vmlinux")
    compiled = _built(bench, ["vmlinux", "modules"], checksums=False)
    compiled += _built(bench, ["vmlinux", "modules"], checksums=True)
    wrong = list(compiled)
    if _digest(bench.new / "vmlinux") != before:
        wrong.append("vmlinux was linked again")
    return _verdict(wrong + _expect_nothing(bench), compiled)


def _digest(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size


TESTS: dict[str, Callable[[Bench], Result]] = {
    "compiled again in another directory, nothing differs": compiled_again,
    "compiled with debug info, nothing differs": compiled_with_debug_info,
    "switching checksums off and on compiles and links nothing": switched_off_and_on,
}


def run_tests(bench: Bench) -> int:
    """Run all tests; returns the exit code."""
    report = Report(len(TESTS))
    for title, test in TESTS.items():
        result = result_of(partial(test, bench))
        bench.restore()
        report.add(title, result)
    return report.finish()


def main() -> int:
    """Run from the command line."""
    # There are no arguments, but somebody who asks for help, or for what there is not, does not want kernels built.
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    return run_on_bench(run_tests)


if __name__ == "__main__":
    sys.exit(main())
