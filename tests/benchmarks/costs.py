# SPDX-License-Identifier: GPL-2.0-only
"""What one process costs, as the system accounts for it; and the table in which that is printed beside bounds."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


class FailedError(Exception):
    """A command failed; the message says which, and what it said."""


@dataclass(frozen=True)
class Cost:
    """Seconds of CPU and of wall time, and the memory of the largest process in MB."""

    cpu: float
    wall: float
    peak: float = 0


@dataclass(frozen=True)
class Attempt:
    """A command that ran to its end: what it cost, its exit status, and what it printed (all of it, or errors)."""

    cost: Cost
    status: int
    text: str


def attempt(command: Sequence[str], env: Mapping[str, str] | None = None, *, all_output: bool = False) -> Attempt:
    """Run one command; ``env`` is added to the environment, standard output is thrown away unless ``all_output``."""
    start = time.monotonic()
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if all_output else subprocess.DEVNULL,
        stderr=subprocess.STDOUT if all_output else subprocess.PIPE,
        env={**os.environ, **(env or {})},
    )
    pipe = process.stdout or process.stderr
    assert pipe is not None
    with pipe:
        text = pipe.read().decode(errors="replace").strip()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    cost = Cost(usage.ru_utime + usage.ru_stime, time.monotonic() - start, usage.ru_maxrss * 1024 / 1e6)
    return Attempt(cost, process.returncode, text)


def run(command: Sequence[str], expected: tuple[int, ...] = (0,), env: Mapping[str, str] | None = None) -> Cost:
    """Run one command to its end, output thrown away; raises FailedError."""
    done = attempt(command, env)
    if done.status not in expected:
        raise FailedError(f"{' '.join(command)}: exit status {done.status}: {done.text}")
    return done.cost


def run_together(command: Sequence[str], expected: tuple[int, ...] = (0,)) -> Cost:
    """Run one command as `run` does, with the memory of all its processes, looked at every 50 ms."""
    peak = 0.0
    ended = threading.Event()

    def look() -> None:
        nonlocal peak
        while not ended.wait(0.05):
            peak = max(peak, *(_memory_of_all(child) for child in _children()), 0)

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


def _memory_of_all(process: int) -> float:
    """Return what a process and those that it started hold, shared pages counted once, in MB."""
    total = 0
    waiting = [process]
    while waiting:
        pid = waiting.pop()
        try:
            waiting += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split())
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii").splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total * 1024 / 1e6


def best(costs: Iterable[Cost]) -> Cost:
    """Return the least of each figure, but the most memory: what others do on the machine only adds time."""
    taken = list(costs)
    return Cost(min(c.cpu for c in taken), min(c.wall for c in taken), max(c.peak for c in taken))


def spread(seconds: Sequence[float]) -> str:
    """Say how far several measurements of the same lie apart."""
    return f"best of {len(seconds)}, worst {max(seconds):.2f} s" if len(seconds) > 1 else "measured once"


@dataclass(frozen=True)
class Row:
    """One line of the table: what, the figure, the bound for it, and how it came about.

    ``unit`` is of both: s, MB, %; a ratio has none. ``figure`` None: it was not measured, and ``detail`` says why.
    """

    what: str
    figure: float | None
    bound: float
    unit: str = ""
    detail: str = ""


HEAD = f"{'what':<72}{'measured':>12}{'bound':>10}{'of it':>8}"
"""Of `lines_of`; what is measured takes up the part ``of it`` of the bound, and above 1 misses it."""


def lines_of(row: Row) -> str:
    """Return a line of the table, and below it how the figure came about."""
    bound = f"{row.bound:g} {row.unit}".rstrip()
    if row.figure is None:
        line = f"{row.what:<72}{'not measured':>12}{bound:>10}"
    else:
        figure = f"{row.figure:.{0 if row.unit == 'MB' else 3}f} {row.unit}".rstrip()
        missed = "  missed" if row.figure > row.bound else ""
        line = f"{row.what:<72}{figure:>12}{bound:>10}{row.figure / row.bound:>8.2f}{missed}"
    return "\n".join([line, *(f"    {text}" for text in row.detail.splitlines())])
