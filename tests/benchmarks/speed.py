#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""What checksums and comparisons cost, measured side by side on a tree that is built.

    tests/benchmarks/speed.py TREE [--against TREE] [--release TREE ...] [--objtool PATH] [--build-cpu SECONDS]
                              [--runs N]

CPU is user and system time of whole processes, interpreter start included, as the system accounts for it; of several
runs the median counts. Peers run in turn with us, so that a machine that slows down slows both: look at the ratios.
TREE's checksum files are written anew; nothing else in it changes. Memory is that of the largest process; of a
comparison with another release, which runs in several, that of all of them together, looked at every 50 ms in a run of
its own, for looking slows it down.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from kbuild_klp.checksum.path import sum_path
from kbuild_klp.kernel.tree import BuildTree

KLP = [sys.executable, "-m", "kbuild_klp"]


@dataclass(frozen=True)
class Cost:
    """Seconds of CPU and of wall time, and the largest process in MiB."""

    cpu: float
    wall: float
    peak: float


@dataclass(frozen=True)
class Row:
    """One line of the table.

    ``bound`` is in seconds, of CPU unless ``is_wall``, and ``memory`` in MB (0: none).
    """

    what: str
    cost: Cost
    bound: float = 0
    memory: float = 0
    peer: Cost | None = None
    is_wall: bool = False


def memory_of_all(process: int) -> float:
    """Return what a process and those that it started hold, shared pages counted once, in MiB."""
    total = 0.0
    waiting = [process]
    while waiting:
        pid = waiting.pop()
        try:
            waiting += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split())
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii").splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
    return total


def run_together(command: Sequence[str], expected: tuple[int, ...] = (0,)) -> Cost:
    """Run one command as `run` does, with the memory of all its processes."""
    peak = 0.0
    ended = threading.Event()

    def look() -> None:
        nonlocal peak
        while not ended.wait(0.05):
            peak = max(peak, *(memory_of_all(child) for child in _children()), 0)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        cost = run(command, expected)
    finally:
        ended.set()
        watcher.join()
    return Cost(cost.cpu, cost.wall, peak)


def _children() -> list[int]:
    return [int(pid) for file in Path("/proc/self/task").glob("*/children") for pid in file.read_text("ascii").split()]


def run(command: Sequence[str], expected: tuple[int, ...] = (0,)) -> Cost:
    """Run one command to its end, output thrown away."""
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stderr.close()
    if process.returncode not in expected:
        sys.exit(f"{' '.join(command)}: exit {process.returncode}: {errors.decode(errors='replace').strip()}")
    return Cost(usage.ru_utime + usage.ru_stime, time.monotonic() - start, usage.ru_maxrss / 1024)


def changes_of(command: Sequence[str]) -> int:
    """Return how many changes a comparison tells as JSON."""
    summary = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=False).stdout)["summary"]
    return sum(summary[kind] for kind in ("changed", "added", "removed", "moved", "line_only"))


def median(costs: list[Cost]) -> Cost:
    """Return the median of each figure."""
    return Cost(
        statistics.median(cost.cpu for cost in costs),
        statistics.median(cost.wall for cost in costs),
        max(cost.peak for cost in costs),
    )


def remove_checksums(tree: Path, objects: list[str]) -> None:
    """Make the tree one that was built without checksums: replacing a file costs more than making one."""
    for name in objects:
        Path(sum_path(str(tree / name))).unlink(missing_ok=True)


def checksum_all(tree: Path, runs: int, objtool: str | None, objects: list[str], scratch: Path) -> Row:
    """Write all checksum files of a tree in one process; the peer is one objtool process an object."""
    ours, theirs = [], []
    for _ in range(runs):
        remove_checksums(tree, objects)
        ours.append(run([*KLP, "checksum", "--jobs", "1", str(tree)]))
        if objtool:
            theirs.append(objtool_all(objtool, tree, objects, scratch))
    return Row(f"checksums of {len(objects)} objects", median(ours), 4, 250, median(theirs) if theirs else None)


def objtool_all(objtool: str, tree: Path, objects: list[str], scratch: Path) -> Cost:
    """Run `objtool klp checksum` on a copy of each object (it writes into the object)."""
    total = wall = peak = 0.0
    copy = scratch / "object.o"
    for name in objects:
        shutil.copyfile(tree / name, copy)
        cost = run([objtool, "klp", "checksum", str(copy)], expected=(0, 1))
        total, wall, peak = total + cost.cpu, wall + cost.wall, max(peak, cost.peak)
    return Cost(total, wall, peak)


def checksum_vmlinux(tree: Path, runs: int, objtool: str | None, scratch: Path) -> Row:
    """Write the checksum file of a copy of vmlinux.o."""
    ours, theirs = [], []
    copy = scratch / "vmlinux.o"
    for _ in range(runs):
        shutil.copyfile(tree / "vmlinux.o", copy)
        ours.append(run([*KLP, "checksum", "--jobs", "1", str(copy)]))
        if objtool:
            theirs.append(run([objtool, "klp", "checksum", "--link", str(copy)], expected=(0, 1)))
    size = (tree / "vmlinux.o").stat().st_size / 1e6
    return Row(f"vmlinux.o, {size:.0f} MB", median(ours), 0.8, 250, median(theirs) if theirs else None)


def print_table(rows: list[Row]) -> None:
    """Print costs and their ratios to bound and peer."""
    head = f"{'what':<34}{'CPU s':>8}{'wall s':>8}{'MiB':>7}{'most':>7}{'bound':>8}{'of it':>7}"
    print(f"{head}{'peer CPU':>10}{'ratio':>7}")
    for row in rows:
        cost = row.cost
        line = f"{row.what:<34}{cost.cpu:>8.2f}{cost.wall:>8.2f}{cost.peak:>7.0f}"
        line += f"{row.memory / 1.048576:>7.0f}" if row.memory else f"{'':>7}"
        taken = cost.wall if row.is_wall else cost.cpu
        line += f"{row.bound:>8.2f}{taken / row.bound:>7.2f}" if row.bound else f"{'':>15}"
        if row.peer:
            line += f"{row.peer.cpu:>10.2f}{cost.cpu / row.peer.cpu:>7.2f}"
        print(line)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("tree", type=Path, help="a built tree")
    parser.add_argument("--against", type=Path, help="another one, to be compared with it")
    parser.add_argument("--release", type=Path, nargs="+", default=[], help="some of which much differs")
    parser.add_argument("--objtool", help="objtool of a 7.x kernel, which has `klp checksum`")
    parser.add_argument("--build-cpu", type=float, help="CPU seconds that a full build of the tree takes")
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    tree = BuildTree.open(arguments.tree)
    objects = list(dict.fromkeys(name for unit in tree.units() for name in unit.objects))
    rows = []
    with tempfile.TemporaryDirectory() as directory:
        scratch = Path(directory)
        everything = checksum_all(tree.root, arguments.runs, arguments.objtool, objects, scratch)
        rows.append(everything)
        if (tree.root / "vmlinux.o").exists():
            rows.append(checksum_vmlinux(tree.root, arguments.runs, arguments.objtool, scratch))
    idle = [run([*KLP, "checksum", str(tree.root)]) for _ in range(arguments.runs)]
    rows.append(Row("nothing to do", median(idle), 0.3))
    if arguments.against:
        run([*KLP, "checksum", str(arguments.against)])
        command = [*KLP, "diff", str(arguments.against), str(tree.root)]
        costs = [run(command, expected=(0, 1)) for _ in range(arguments.runs)]
        rows.append(Row("diff of two trees, with reasons", median(costs), 0.5))
    for other in arguments.release:
        run([*KLP, "checksum", str(other)])
        command = [*KLP, "diff", "--json", str(other), str(tree.root)]
        memory = run_together(command, expected=(0, 1)).peak
        cost = replace(median([run(command, expected=(0, 1)) for _ in range(arguments.runs)]), peak=memory)
        rows.append(Row(f"diff with {changes_of(command)} changes, JSON", cost, 10, 500, is_wall=True))
    print_table(rows)
    if arguments.build_cpu:
        share = 100 * everything.cost.cpu / arguments.build_cpu
        print(f"all checksums are {share:.2f} % of the CPU time of a full build (bound: 1 %)")


if __name__ == "__main__":
    main()
