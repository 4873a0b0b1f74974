#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""What checksums and comparisons cost, beside the bounds that were set for them and beside objtool.

    tests/benchmarks/speed.py TREE [--objtool PATH] [--against TREE] [--lto OLD NEW] [--vmlinux OLD NEW]
                              [--lines OLD NEW] [--modules OLD NEW]... [--release TREE ...]
                              [--build-cpu SECONDS] [--runs N]

All of it in one run; what has no input is listed as not measured. Without --objtool, KSRC= names the source of a 7.x
kernel (directory, tarball or Debian package) of which objtool is built into the cache. Without --against, the second
tree is TREE's neighbour `demo`, which selftests/demo.py makes.

CPU is user and system time of whole processes, interpreter start included, as the system accounts for it. Of several
runs the best counts, for what else the machine does only adds time; peers run in turn with us, so that a machine that
slows down slows both: look at the ratios. Checksum files are brought up to date first, in all trees, and TREE's are
written anew; nothing else is written. Memory is that of the largest process; of a comparison with another release,
which runs in several, that of all of them together, looked at every 50 ms in a run of its own, for looking slows it
down.
"""

from __future__ import annotations

import argparse
import compileall
import gc
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from costs import HEAD, Cost, FailedError, Row, best, lines_of, run, run_together, spread
from peer import NoPeerError, Objtool, find_objtool, name_failures, share_of_starts

import kbuild_klp
from kbuild_klp.changes.contested import contested
from kbuild_klp.changes.pairing import correlate
from kbuild_klp.checksum import sum_file
from kbuild_klp.checksum.entry import Entry
from kbuild_klp.checksum.path import sum_path
from kbuild_klp.kernel.tree import BuildTree
from kbuild_klp.object.symbol_id import SymbolId

KLP = [sys.executable, "-m", "kbuild_klp"]
PYTHON_OF_MAKE = Path(__file__).resolve().parents[2] / "kbuild_klp/kbuild/python"
ENTRIES = 16_000


@dataclass(frozen=True)
class Subject:
    """A tree with its linked objects, what it is held against, and how often."""

    tree: Path
    objects: list[str]
    runs: int
    scratch: Path
    objtool: Objtool | None
    no_objtool: str  # why there is none

    def remove_checksums(self, objects: Sequence[str]) -> None:
        """Make the tree one that was built without checksums: replacing a file costs more than making one."""
        for name in objects:
            Path(sum_path(str(self.tree / name))).unlink(missing_ok=True)


@dataclass(frozen=True)
class Comparison:
    """Two inputs that are compared, the option that names them, and what is asked of it: seconds of wall time."""

    what: str
    option: str
    bound: float
    sides: Sequence[Path] | None


def about_python() -> str:
    """Say which Python this is, and how fast: the same version, built otherwise, may take much longer."""
    arguments = sysconfig.get_config_var("CONFIG_ARGS") or ""
    if "--enable-optimizations" in arguments:
        pgo = "built with PGO (--enable-optimizations)"
    elif sys.base_prefix == "/usr":
        pgo = "the distribution's, and CONFIG_ARGS does not say whether with PGO (no --enable-optimizations)"
    else:
        pgo = "built without PGO (no --enable-optimizations)"
    import numpy

    version = sys.version.split()[0]
    loop = 1000 * least(_loop, 20)[0]
    return f"Python {version}, {pgo}; numpy {numpy.__version__}; a fixed loop takes it {loop:.0f} ms"


def _loop() -> None:
    counts: dict[int, int] = {}
    for number in range(300_000):
        counts[number & 1023] = counts.get(number & 1023, 0) + number


def least(work: Callable[[], object], runs: int) -> list[float]:
    """Return the CPU seconds of something in this process, the least first."""
    taken = []
    gc.disable()  # as the command does
    for _ in range(runs):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    gc.enable()
    return sorted(taken)


def checksum_all(subject: Subject) -> tuple[Row, Cost, int]:
    """Write all checksum files of a tree in one process; the peer is one objtool process an object.

    Returns what ours cost as well, and for how many objects. Objects on which objtool fails count on neither side.
    """
    objtool, tree = subject.objtool, subject.tree
    objects = subject.objects
    failures: dict[str, str] = {}
    ours, theirs, starts = [], [], []
    for number in range(subject.runs):
        if objtool:
            calls = objtool.call_each(tree, objects)
            if calls.failures and number:
                raise FailedError(f"objtool fails now and then: {name_failures(calls.failures)}")
            failures |= calls.failures
            objects = [name for name in objects if name not in failures]
            theirs.append(calls.cost)
            starts.append(objtool.start_cost(subject.scratch))
        subject.remove_checksums(objects)
        ours.append(run([*KLP, "checksum", "--jobs", "1", str(tree)]))
    cost = best(ours)
    detail = f"ours {cost.cpu:.2f} s in one process on one core ({spread([c.cpu for c in ours])}), {cost.peak:.0f} MB"
    what = f"checksums of {len(objects)} objects, CPU to objtool's"
    if objtool is None:
        return Row(what, None, 0.2, detail=f"{detail}\n{subject.no_objtool}"), cost, len(objects)
    peer = best(theirs)
    detail += f"\nobjtool's {peer.cpu:.2f} s in a process an object ({spread([c.cpu for c in theirs])}), "
    detail += f"and it writes nothing\n{share_of_starts(peer.cpu, min(starts), len(objects))}"
    detail += f"\n{name_failures(failures)}"
    return Row(what, cost.cpu / peer.cpu, 0.2, detail=detail), cost, len(objects)


def checksum_vmlinux(subject: Subject) -> Iterator[Row]:
    """Write the checksum file of a copy of vmlinux.o."""
    what, memory = "checksums of vmlinux.o, CPU to objtool's", "  its memory"
    if not (subject.tree / "vmlinux.o").exists():
        yield Row(what, None, 0.5, detail="TREE has no vmlinux.o")
        yield Row(memory, None, 150, "MB")
        return
    copy = subject.scratch / "vmlinux.o"
    shutil.copyfile(subject.tree / "vmlinux.o", copy)
    ours, theirs, failure = [], [], ""
    for _ in range(subject.runs):
        Path(sum_path(str(copy))).unlink(missing_ok=True)
        ours.append(run([*KLP, "checksum", "--jobs", "1", str(copy)]))
        if subject.objtool and not failure:
            cost, failure = subject.objtool.call(copy)
            theirs.append(cost)
    cost = best(ours)
    detail = f"{copy.stat().st_size / 1e6:.0f} MB: ours {cost.cpu:.2f} s ({spread([c.cpu for c in ours])})"
    if failure or not theirs:
        why = f"objtool fails on it, {failure}" if failure else subject.no_objtool
        yield Row(what, None, 0.5, detail=f"{detail}\n{why}")
    else:
        peer = best(theirs)
        detail += f", objtool's {peer.cpu:.2f} s ({spread([c.cpu for c in theirs])}), {peer.peak:.0f} MB"
        yield Row(what, cost.cpu / peer.cpu, 0.5, detail=detail)
    yield Row(memory, cost.peak, 150, "MB")


def summary_of(command: Sequence[str]) -> dict[str, int]:
    """Return how many changes of each kind a comparison tells as JSON; raises FailedError."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        raise FailedError(f"{' '.join(command)}: exit status {done.returncode}: {done.stderr.strip()}")
    summary: dict[str, int] = json.loads(done.stdout)["summary"]
    return summary


def diff(comparison: Comparison, runs: int) -> Row:
    """Compare, from the start of the process to its end; trees have their checksums, objects need not have."""
    if comparison.sides is None:
        return Row(comparison.what, None, comparison.bound, "s", f"give {comparison.option}")
    sides = list(map(str, comparison.sides))
    for side in comparison.sides:
        if side.is_dir():
            run([*KLP, "checksum", str(side)])
    summary = summary_of([*KLP, "diff", "--json", *sides])
    costs = [run([*KLP, "diff", *sides], expected=(0, 1)) for _ in range(runs)]
    cost = best(costs)
    told = ("changed", "added", "removed", "moved", "line_only", "line_only_proved")
    detail = ", ".join(f"{summary[kind]} {kind}" for kind in told if summary[kind])
    detail += f"; {spread([c.wall for c in costs])}; CPU {cost.cpu:.2f} s, {cost.peak:.0f} MB"
    return Row(comparison.what, cost.wall, comparison.bound, "s", detail)


def diff_release(other: Path, subject: Subject) -> Iterator[Row]:
    """Compare with a release in which much differs, as JSON."""
    run([*KLP, "checksum", str(other)])
    command = [*KLP, "diff", "--json", str(other), str(subject.tree)]
    counts = summary_of(command)
    changes = sum(counts[kind] for kind in ("changed", "added", "removed", "moved", "line_only"))
    memory = run_together(command, expected=(0, 1)).peak
    walls = [run(command, expected=(0, 1)).wall for _ in range(subject.runs)]
    yield Row(f"diff with {changes} changes, JSON", min(walls), 10, "s", spread(walls))
    yield Row("  its memory, all processes", memory, 500, "MB")


def incremental(subject: Subject) -> Row:
    """Run what make runs at the end of a build in which one object was compiled: one of middling size."""
    by_size = sorted(subject.objects, key=lambda name: (subject.tree / name).stat().st_size)
    name = by_size[len(by_size) // 2]
    command = [str(PYTHON_OF_MAKE), "-m", "kbuild_klp", "checksum", "--built", str(subject.tree)]
    walls = []
    for _ in range(2 * subject.runs):
        subject.remove_checksums([name])
        walls.append(run(command, env={"KLP_PYTHON": sys.executable}).wall)
    detail = f"what make runs at its end, {name} without checksums; {spread(walls)}"
    return Row("incremental build, one object changed: checksums add", min(walls), 0.3, "s", detail)


def nothing_to_do(subject: Subject) -> Row:
    """Look at a tree that has all its checksums."""
    costs = [run([*KLP, "checksum", str(subject.tree)]).cpu for _ in range(2 * subject.runs)]
    return Row("checksums that are up to date, CPU", min(costs), 0.3, "s", spread(costs))


def pairing(runs: int) -> Row:
    """Pair entries of one name and one file: static variables of a macro, of which one came in front."""

    def side(first: int) -> sum_file.SumFile:
        symbols = (SymbolId(f"__already_done.{number}", "core.c", 1) for number in range(first, first + ENTRIES))
        entries = (Entry("data", symbol, ".data.once", 1, "0" * 32, "a.b.c.-") for symbol in symbols)
        return sum_file.load(sum_file.dump("x86_64", 1, map(sum_file.entry_line, entries)), "x")

    old, new = side(0), side(1)
    found = contested(old, new)
    taken = least(lambda: correlate(found), runs)
    reading = least(lambda: contested(old, new), runs)[0]
    detail = f"none of the same number; {spread(taken)}; before it {reading:.2f} s to find and read them"
    return Row(f"pairing of {ENTRIES:,} entries of one name, CPU", taken[0], 0.1, "s", detail)


def share_of_build(cost: Cost, count: int, seconds: float | None) -> Row:
    """Hold all checksums against the build of which they are a part."""
    what = "build with checksums to build without: more CPU"
    if seconds is None:
        return Row(what, None, 0.4, "%", "give --build-cpu, the CPU seconds that a full build of TREE takes")
    detail = f"{cost.cpu:.2f} s for {count} objects, of a build of {seconds:.0f} s"
    return Row(what, 100 * cost.cpu / seconds, 0.4, "%", detail)


def comparisons(arguments: argparse.Namespace, tree: Path) -> Iterator[Comparison]:
    """Name all comparisons, also those without input."""
    demo = tree.parent / "demo"
    against = arguments.against or (demo if demo.is_dir() else None)
    yield Comparison(
        "diff of two trees, three functions changed", "--against", 0.4, (tree, against) if against else None
    )
    yield Comparison("diff of two ThinLTO trees, two functions changed", "--lto", 1, arguments.lto)
    what = "diff of two vmlinux.o, some changed, 120 and more with other lines"
    yield Comparison(what, "--vmlinux", 2, arguments.vmlinux)
    what = "diff of two trees, 4 changed, 150 and more proved line-only"
    yield Comparison(what, "--lines", 1, arguments.lines)
    for sides in arguments.modules or [None]:
        name = f" ({sides[0].name})" if sides else ""
        what = f"diff of two modules, some hundred functions changed{name}"
        yield Comparison(what, "--modules", 1, sides)


def measure(arguments: argparse.Namespace, subject: Subject) -> Iterator[Row]:
    """Measure all rows."""
    run([*KLP, "checksum", str(subject.tree)])
    everything, cost, count = checksum_all(subject)
    yield everything
    yield from checksum_vmlinux(subject)
    run([*KLP, "checksum", str(subject.tree)])
    for comparison in comparisons(arguments, subject.tree):
        yield diff(comparison, 2 * subject.runs)
    for other in arguments.release:
        yield from diff_release(other, subject)
    yield share_of_build(cost, count, arguments.build_cpu)
    yield incremental(subject)
    yield nothing_to_do(subject)
    yield pairing(subject.runs)


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])

    def pair(option: str, text: str, action: str = "store") -> None:
        parser.add_argument(option, type=Path, nargs=2, metavar=("OLD", "NEW"), action=action, help=text)

    parser.add_argument("tree", type=Path, help="a built tree")
    parser.add_argument("--objtool", metavar="PATH", help="objtool of a 7.x kernel (default: built from KSRC=)")
    parser.add_argument("--against", type=Path, metavar="TREE", help="another one, three functions patched")
    pair("--lto", "two ThinLTO trees")
    pair("--vmlinux", "two vmlinux.o with other line numbers")
    pair("--lines", "two trees with other line numbers")
    pair("--modules", "two releases of a module; may be repeated", "append")
    parser.add_argument("--release", type=Path, nargs="+", default=[], help="trees of which much differs from TREE")
    parser.add_argument("--build-cpu", type=float, metavar="SECONDS", help="CPU that a full build of TREE takes")
    parser.add_argument("--runs", type=int, default=3, metavar="N", help="repetitions; of short commands twice as many")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    """Measure and print."""
    arguments = parse(words)
    tree = BuildTree.open(arguments.tree)
    objects = list(dict.fromkeys(name for unit in tree.units() for name in unit.objects))
    objtool, reason = None, ""
    try:
        objtool = find_objtool(arguments.objtool)
    except NoPeerError as error:
        reason = str(error)
        if arguments.objtool or os.environ.get("KSRC"):
            sys.exit(f"speed.py: {reason}")
    # As pip leaves it: a checkout whose bytecode is stale, and may not be written, is compiled anew at each start.
    compileall.compile_dir(Path(kbuild_klp.__file__).parent, quiet=2)
    print(about_python())
    print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}; {tree.root}")
    print(HEAD, flush=True)
    with tempfile.TemporaryDirectory() as directory:
        subject = Subject(tree.root, objects, arguments.runs, Path(directory), objtool, reason)
        try:
            for row in measure(arguments, subject):
                print(lines_of(row), flush=True)
        except FailedError as error:
            sys.exit(f"speed.py: {error}")


if __name__ == "__main__":
    main()
