# SPDX-License-Identifier: GPL-2.0-only
"""Steps with their times, and commands whose output goes to a log."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from klptest import TroubleError

_TAIL_LINES = 25


def duration(seconds: float) -> str:
    """Return a time as people say it: 0.4 s, 12 s, 5 min 3 s."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _cpu_seconds() -> float:
    total = 0.0
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        usage = resource.getrusage(who)
        total += usage.ru_utime + usage.ru_stime
    return total


class Steps:
    """Numbers the steps of a run; ``with steps("Build"):`` prints the title before and the time after."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.number = 0
        self.started = time.monotonic()

    def __call__(self, title: str) -> Step:
        self.number += 1
        return Step(f"[{self.number}/{self.count}] {title}")

    def total(self) -> str:
        """Return the time since the first step."""
        return duration(time.monotonic() - self.started)


class Step:
    """One step of a run."""

    def __init__(self, title: str) -> None:
        self.title = title

    def __enter__(self) -> Step:
        print(self.title, flush=True)
        self._wall, self._cpu = time.monotonic(), _cpu_seconds()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            wall, cpu = time.monotonic() - self._wall, _cpu_seconds() - self._cpu
            self.say(f"done in {duration(wall)} ({duration(cpu)} of CPU)")

    def say(self, text: str) -> None:
        """Print a line that belongs to the step."""
        print(f"      {text}", flush=True)


def run(
    command: Sequence[str | Path],
    log: Path,
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    check: bool = True,
) -> int:
    """Run a command with its output in a log file, and return its exit status.

    ``env`` is added to the environment. Raises TroubleError with the log's last lines when the command fails and
    ``check`` is set.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    words = [str(word) for word in command]
    with log.open("ab") as output:
        output.write(f"+ {' '.join(words)}\n".encode())
        output.flush()
        process = subprocess.Popen(
            words,
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        status = _wait(process)
    if check and status != 0:
        raise TroubleError(f"{' '.join(words)}: exit status {status}\n{_tail(log)}\n(all of it: {log})")
    return status


def _wait(process: subprocess.Popen[bytes]) -> int:
    """Wait, with a running clock where somebody watches."""
    started = time.monotonic()
    watched = sys.stdout.isatty()
    try:
        while True:
            try:
                status = process.wait(timeout=1 if watched else None)
                break
            except subprocess.TimeoutExpired:
                print(f"\r      … {duration(time.monotonic() - started)} ", end="", flush=True)
    except BaseException:
        process.terminate()
        process.wait()
        raise
    if watched:
        print("\r\033[K", end="", flush=True)
    return status


def _tail(log: Path) -> str:
    with log.open(errors="replace") as lines:
        return "".join(deque(lines, _TAIL_LINES)).rstrip()
