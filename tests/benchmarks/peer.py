# SPDX-License-Identifier: GPL-2.0-only
"""The peer: `objtool klp checksum` of a 7.x kernel, called once an object as kbuild does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from costs import Cost, attempt

sys.path.append(str(Path(__file__).resolve().parents[2] / "selftests"))

from klptest import TroubleError
from klptest.kernel import Workshop

_STARTS = 100  # of a process that does nothing worth measuring


class NoPeerError(Exception):
    """There is no objtool to measure; the message says what to do about it."""


@dataclass(frozen=True)
class Calls:
    """A call for each of some objects: what all of those cost on which it succeeded, and why it failed on others."""

    cost: Cost
    failures: dict[str, str]


class Objtool:
    """An objtool that has `klp checksum`. It is called with --dry-run, so that it leaves the objects as they are."""

    def __init__(self, path: str) -> None:
        self.path = path
        answer = attempt([path, "klp", "checksum", "--help"], all_output=True)
        if "klp checksum" not in answer.text:
            hint = "a kernel before 7 has none; in 7.x it is left out where libxxhash-dev is not installed"
            raise NoPeerError(f"{path} has no `klp checksum`: {hint}")

    def command(self, path: Path) -> list[str]:
        """Return the command line for one object."""
        return [self.path, "klp", "checksum", "--dry-run", str(path)]

    def call(self, path: Path) -> tuple[Cost, str]:
        """Call it once; returns with the cost why it failed, empty if it did not. A warning is no failure."""
        done = attempt(self.command(path), all_output=True)
        if done.status == 0:
            return done.cost, ""
        lines = done.text.splitlines()
        message = next((line for line in lines if "error" in line), lines[0] if lines else "")
        return done.cost, f"exit status {done.status}: {message.removeprefix(str(path)).lstrip(': ')}"

    def call_each(self, tree: Path, objects: Sequence[str]) -> Calls:
        """Call it for each object of a tree."""
        cpu = wall = peak = 0.0
        failures: dict[str, str] = {}
        for name in objects:
            cost, failure = self.call(tree / name)
            if failure:
                failures[name] = failure
            else:
                cpu, wall, peak = cpu + cost.cpu, wall + cost.wall, max(peak, cost.peak)
        return Calls(Cost(cpu, wall, peak), failures)

    def start_cost(self, scratch: Path) -> float:
        """Return the CPU seconds that one start of it costs: what it takes for an object in which there is nothing."""
        path = scratch / "empty.o"
        command = ["cc", "-c", "-x", "c", os.devnull, "-o", str(path)]
        subprocess.run(command, stdin=subprocess.DEVNULL, check=True, capture_output=True)
        return sum(self.call(path)[0].cpu for _ in range(_STARTS)) / _STARTS


def find_objtool(path: str | None) -> Objtool:
    """Return the one that is named, or build that of the kernel source that KSRC names; raises NoPeerError."""
    if path is not None:
        if not os.access(path, os.X_OK):
            raise NoPeerError(f"{path}: no such program")
        return Objtool(path)
    if not os.environ.get("KSRC"):
        raise NoPeerError("no --objtool, and no KSRC= of a 7.x kernel to build it from")
    try:
        shop = Workshop.open()
        with shop.locked():
            return Objtool(str(shop.objtool()))
    except TroubleError as error:
        raise NoPeerError(str(error)) from error


def name_failures(failures: dict[str, str]) -> str:
    """Say how many objects were left out, and why the first was."""
    if not failures:
        return "objtool failed on none of them"
    name, message = next(iter(failures.items()))
    return f"left out of both: {len(failures)} on which objtool fails, the first {name}, {message}"


def share_of_starts(theirs: float, start: float, count: int) -> str:
    """Say how much of objtool's CPU is that a process was started for each object.

    What is left is a small difference of two large figures, so no ratio is made of it.
    """
    starts = start * count
    text = f"about {starts:.1f} s of these are {count} process starts of {1000 * start:.1f} ms"
    return f"{text}, which leaves some {max(theirs - starts, 0):.1f} s for the work"
