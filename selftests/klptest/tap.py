# SPDX-License-Identifier: GPL-2.0-only
"""Results in the kernel's TAP form, and kselftest's exit codes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum

from klptest import TroubleError

_MOST_LINES = 100

PASS, FAIL, SKIP = 0, 1, 4  # tools/testing/selftests/kselftest.h


class Outcome(Enum):
    """What became of one test."""

    PASSED = "ok"
    FAILED = "not ok"
    SKIPPED = "ok # SKIP"


@dataclass(frozen=True)
class Result:
    """One test's outcome, with lines that say more (why it was skipped, how it failed)."""

    outcome: Outcome
    details: tuple[str, ...] = ()


class Report:
    """Prints TAP version 13 as results come in."""

    def __init__(self, count: int) -> None:
        self.number = 0
        self.outcomes: list[Outcome] = []
        print(f"TAP version 13\n1..{count}", flush=True)

    def add(self, name: str, result: Result) -> None:
        """Print one result."""
        self.number += 1
        self.outcomes.append(result.outcome)
        skipped = result.outcome is Outcome.SKIPPED
        status = "not ok" if result.outcome is Outcome.FAILED else "ok"
        reason = f" # SKIP {' '.join(result.details)}" if skipped else ""
        print(f"{status} {self.number} {name}{reason}")
        if not skipped:
            for line in result.details[:_MOST_LINES]:
                print(f"# {line}")
            if len(result.details) > _MOST_LINES:
                print(f"# and {len(result.details) - _MOST_LINES} more lines")
        print(end="", flush=True)

    def finish(self) -> int:
        """Print the totals and return the exit code."""
        count = {outcome: self.outcomes.count(outcome) for outcome in Outcome}
        print(
            f"# Totals: pass:{count[Outcome.PASSED]} fail:{count[Outcome.FAILED]} xfail:0 xpass:0 "
            f"skip:{count[Outcome.SKIPPED]} error:0",
            flush=True,
        )
        if count[Outcome.FAILED]:
            return FAIL
        return PASS if count[Outcome.PASSED] else SKIP


def skip_all(reason: str) -> int:
    """Print a plan that says why nothing can be tested; returns the exit code."""
    print("TAP version 13")
    print(f"1..0 # SKIP {reason}", flush=True)
    return SKIP


def bail_out(error: TroubleError) -> int:
    """Say that no test can go on; returns the exit code."""
    for line in str(error).splitlines():
        print(f"# {line}")
    print("Bail out! the trees could not be prepared", flush=True)
    return FAIL


def result_of(test: Callable[[], Result]) -> Result:
    """Run a test; trouble is a failure."""
    try:
        return test()
    except TroubleError as error:
        return failed(str(error).splitlines())


def passed(details: Iterable[str] = ()) -> Result:
    """Return a pass."""
    return Result(Outcome.PASSED, tuple(details))


def failed(details: Iterable[str]) -> Result:
    """Return a failure with what to look at."""
    return Result(Outcome.FAILED, tuple(details))


def skipped(reason: str) -> Result:
    """Return a skip with its reason."""
    return Result(Outcome.SKIPPED, (reason,))
