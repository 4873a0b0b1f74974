#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Patch a kernel, rebuild, and compare all that ``kbuild-klp diff --json`` says with what the patch did.

Each directory in cases/ is a test; cases/README says what is in it.
"""

from __future__ import annotations

import argparse
import difflib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from klptest.bench import Bench, run_on_bench
from klptest.cases import CaseDirectory
from klptest.kernel import apply_patch
from klptest.tap import Report, Result, failed, passed, result_of, skipped

CASES = Path(__file__).resolve().parent / "cases"

# Stands in expected.json for the number of all linked objects, which is a matter of the kernel.
ALL_OBJECTS = "all"


@dataclass(frozen=True)
class Case(CaseDirectory):
    """One directory in cases/."""

    @property
    def expected(self) -> Path:
        """The answer for this kernel."""
        return self.file("expected.json")


def _pretty(document: object) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _build(bench: Bench, case: Case) -> Result | None:
    """Patch and build; returns a result if the case is not for this kernel."""
    goals = case.goals()
    absent = [goal for goal in goals if not (bench.old / goal).exists()]
    if absent:
        return skipped(f"{' '.join(absent)} is not built in this configuration")
    apply_patch(bench.new, case.patch)
    bench.build(goals)
    return None


def _update(case: Case, document: dict[str, Any], update: str) -> Result:
    """Write the answer as the expected one, for all kernels or for this one if it is not that of all."""
    general = case.directory / "expected.json"
    special = case.directory / f"expected-{case.kinds[0]}.json"
    path = general if update == "all" else special
    if update != "all" and general.exists() and json.loads(general.read_text()) == document:
        special.unlink(missing_ok=True)
        return passed(["as on other kernels"])
    path.write_text(_pretty(document))
    return passed([f"{path.name} written: hold it against the patch, line by line"])


def run_case(bench: Bench, case: Case, objects: int, update: str) -> Result:
    """Run one case; leaves the work tree as it comes out."""
    result = _build(bench, case)
    if result:
        return result
    answer = bench.diff()
    document = answer.document
    if document["summary"].get("objects_compared") == objects:
        document["summary"]["objects_compared"] = ALL_OBJECTS
    if update:
        return _update(case, document, update)
    if not case.expected.exists():
        return failed([f"there is no {case.expected.name}"])
    expected: dict[str, Any] = json.loads(case.expected.read_text())
    changes = sum(expected["summary"][kind] for kind in ("changed", "added", "removed", "moved"))
    status = 1 if changes else 0
    details = [] if answer.status == status else [f"exit status {answer.status}, not {status}"]
    if document != expected:
        details += difflib.unified_diff(
            _pretty(expected).splitlines(), _pretty(document).splitlines(), "expected", "reported", lineterm=""
        )
    return failed(details) if details else passed()


def run_cases(bench: Bench, names: Sequence[str], update: str) -> int:
    """Run the named cases, or all; returns the exit code."""
    kinds = bench.kinds
    cases = [Case(path, kinds) for path in sorted(CASES.iterdir()) if (path / "why").exists()]
    chosen = [case for case in cases if not names or case.name in names]
    report = Report(len(chosen))
    objects = bench.count_objects()
    for case in chosen:
        result = result_of(partial(run_case, bench, case, objects, update))
        bench.restore()
        report.add(f"{case.name}: {case.title}", result)
    return report.finish()


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--update",
        choices=("all", "kernel"),
        default="",
        help="write expected.json (all) or expected-KIND.json (kernel) instead of comparing with it",
    )
    parser.add_argument("names", metavar="CASE", nargs="*", help="directories in cases/ (default: all)")
    arguments = parser.parse_args()
    return run_on_bench(lambda bench: run_cases(bench, arguments.names, arguments.update))


if __name__ == "__main__":
    sys.exit(main())
