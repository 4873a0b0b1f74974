#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Patch a kernel, make livepatches of the changes, and load them into that kernel in a virtual machine.

Each directory in vm_cases/ is a test; vm_cases/README says what is in it. All that are run are run in one boot.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from klptest import TroubleError
from klptest.bench import Bench, UnsuitableError, run_on_bench
from klptest.console import run
from klptest.kernel import apply_patch, ask_klp
from klptest.machine import Output, run_in_machine, why_not
from klptest.signing import sign, wants_signatures
from klptest.tap import Report, Result, failed, passed, skip_all, skipped
from klptest.vm_cases import CASES, Batch, VmCase, judge_batch, judge_case

# One that is compiled from source, without kbuild-klp: when it fails the fault is not in what is tested.
BY_HAND = "by-hand"
QUICK = (BY_HAND, "first", "refused")

# What stands before a function (objtool --prefix, kCFI) is carried with it.
PADDING = ("__pfx_", "__cfi_")
COLD = ".cold"

_BOOT_SECONDS, _BATCH_SECONDS = 240, 240


def make_by_hand(bench: Bench, case: VmCase, directory: Path, module: str) -> Path:
    """Build a livepatch from its source, and return its path."""
    shutil.copy(case.file("livepatch.c"), directory / f"{module}.c")
    (directory / "Makefile").write_text(f"obj-m := {module}.o\n")
    # Without BTF, as kbuild-klp makes it (module/build.py): pahole may be gone.
    run(["make", "-C", bench.old, f"M={directory}", "CONFIG_DEBUG_INFO_BTF_MODULES="], bench.log)
    return signed(bench, directory / f"{module}.ko", directory / "signed.ko")


def signed(bench: Bench, module: Path, target: Path) -> Path:
    """Return a module, or if the kernel wants signatures one with a signature."""
    if not wants_signatures(bench.old):
        return module
    sign(bench.old, module, target, bench.log)
    return target


def make_patched(bench: Bench, batch: Batch) -> None:
    """Bring the second tree to where all patches of a batch are applied and built."""
    bench.restore()
    for case in batch.cases:
        apply_patch(bench.new, case.patch)
    bench.build(sorted({goal for case in batch.cases for goal in case.goals()}))


def make_probe(bench: Bench, directory: Path) -> Path:
    """Compile the program that cases use in the guest, and return its path."""
    program = directory / "probe"
    run(["gcc", "-O", "-static", "-o", program, CASES / "probe.c"], bench.log)
    return program


def ask_for_livepatch(bench: Bench, batch: Batch, module: Path) -> tuple[int, dict[str, Any]]:
    """Ask kbuild-klp for a livepatch; returns its exit status and its answer, raises TroubleError without one."""
    options = [option for case in batch.cases for option in case.options]
    options += ["--sign"] * wants_signatures(bench.old)
    done = ask_klp("patch", "--json", *options, bench.old, bench.new, "-o", module)
    with bench.log.open("a") as log:
        log.write(f"+ {' '.join(done.args)}\n{done.stdout}{done.stderr}")
    try:
        document: dict[str, Any] = json.loads(done.stdout)
    except ValueError as error:
        raise TroubleError(f"kbuild-klp patch: exit status {done.returncode}\n{done.stderr.rstrip()}") from error
    return done.returncode, document


def judge_carried(bench: Bench, batch: Batch, status: int, document: Mapping[str, Any]) -> list[str]:
    """Say how the functions that are carried differ from those that the cases name."""
    wrong = [] if status == 0 else [f"exit status {status}"]
    wrong += [f"refused: {refusal}" for refusal in document["refused"]]
    expected = set[tuple[str, str]]().union(*(case.carried(bench.old) for case in batch.cases))
    found = {(item["object"], item["symbol"]) for item in document["carried"] if item["kind"] == "function"}
    found = {(name, symbol) for name, symbol in found if not symbol.startswith(PADDING)}
    # Whether a compiler moves a part of a function away is no matter of the case.
    parts = {(name, symbol) for name, symbol in found if (name, symbol.removesuffix(COLD)) in found and COLD in symbol}
    wrong += [f"not carried: {' '.join(row)}" for row in sorted(expected - found)]
    wrong += [f"carried needlessly: {' '.join(row)}" for row in sorted(found - parts - expected)]
    return wrong


def judge_refused(case: VmCase, document: Mapping[str, Any]) -> Result:
    """Say whether what cannot be carried was refused with the right reason."""
    found = {(refusal["symbol"], refusal["code"]) for refusal in document["refused"]}
    wrong = [f"not refused: {' '.join(row)}" for row in sorted(case.refused - found)]
    return failed([*wrong, "refused:", *(f"    {' '.join(row)}" for row in sorted(found))]) if wrong else passed()


def absent(bench: Bench, case: VmCase) -> list[str]:
    """Return what a case patches that this kernel does not have."""
    goals = case.goals() if case.patch.exists() else []
    return [goal for goal in goals if not (bench.old / goal).exists()]


class Session:
    """Everything of one run: makes the livepatches, boots, reports."""

    def __init__(self, bench: Bench, batches: Sequence[Batch], directory: Path) -> None:
        self.bench = bench
        self.absent = {
            case.name: objects for batch in batches for case in batch.cases if (objects := absent(bench, case))
        }
        built = [Batch(it.name, [case for case in it.cases if case.name not in self.absent]) for it in batches]
        self.batches = [batch for batch in built if batch.cases]
        self.directory = directory
        self.wrong: dict[str, list[str]] = {}
        modules = directory / "modules"
        modules.mkdir()
        self.files = {path.name: signed(bench, path, modules / path.name) for path in bench.old.rglob("*.ko")}
        self.files["probe"] = make_probe(bench, directory)
        self.report = Report(len(self.batches) + sum(len(batch.cases) for batch in batches))
        for batch in batches:
            for case in (case for case in batch.cases if case.name in self.absent):
                reason = f"{' '.join(self.absent[case.name])} is not built in this configuration"
                self.report.add(f"{batch.name}/{case.name}: {case.title}", skipped(reason))

    def run(self) -> int:
        """Run all; returns kselftest's exit code."""
        ready = [batch for batch in self.batches if self._make(batch)]
        if ready:
            self._boot(ready)
        return self.report.finish()

    def _make(self, batch: Batch) -> bool:
        """Make a batch's livepatch; returns whether it is to be loaded."""
        place = self.directory / batch.name
        place.mkdir()
        module = place / f"{batch.module}.ko"
        try:
            if batch.name == BY_HAND:
                module = make_by_hand(self.bench, batch.cases[0], place, batch.module)
            else:
                make_patched(self.bench, batch)
                status, document = ask_for_livepatch(self.bench, batch, module)
                if any(case.refused for case in batch.cases):
                    self._report_refused(batch, status, document, module)
                    return False
                self.wrong[batch.name] = judge_carried(self.bench, batch, status, document)
                if not module.exists():
                    raise TroubleError("\n".join(self.wrong[batch.name]))
        except TroubleError as error:
            self.report.add(f"{batch.name}: made, loaded and unloaded", failed(str(error).splitlines()))
            for case in batch.cases:
                self.report.add(f"{batch.name}/{case.name}: {case.title}", skipped("there is no livepatch to load"))
            return False
        self.files[f"{batch.module}.ko"] = module
        return True

    def _report_refused(self, batch: Batch, status: int, document: Mapping[str, Any], module: Path) -> None:
        wrong = [] if status == 2 else [f"exit status {status}, not 2"]
        wrong += ["a module was left behind"] * module.exists()
        known = {row for case in batch.cases for row in case.refused}
        found = {(refusal["symbol"], refusal["code"]) for refusal in document["refused"]}
        wrong += [f"refused needlessly: {' '.join(row)}" for row in sorted(found - known)]
        self.report.add(f"{batch.name}: no livepatch, and nothing left", failed(wrong) if wrong else passed())
        for case in batch.cases:
            self.report.add(f"{batch.name}/{case.name}: {case.title}", judge_refused(case, document))

    def _boot(self, batches: Sequence[Batch]) -> None:
        steps = [step for batch in batches for step in batch.steps()]
        commands = [step.command for step in steps]
        timeout = _BOOT_SECONDS + _BATCH_SECONDS * len(batches)
        log = self.bench.shop.log("console")
        log.unlink(missing_ok=True)
        found = run_in_machine(self.bench.shop.image(), commands, self.files, timeout=timeout, log=log)
        by_batch: dict[str, dict[tuple[str, str], Output]] = {batch.name: {} for batch in batches}
        for step, output in zip(steps, found, strict=True):
            by_batch[step.batch][step.case, step.phase] = output
        for batch in batches:
            outputs, wrong = by_batch[batch.name], self.wrong.get(batch.name, [])
            self.report.add(f"{batch.name}: made, loaded and unloaded", judge_batch(batch, outputs, wrong))
            for case in batch.cases:
                self.report.add(f"{batch.name}/{case.name}: {case.title}", judge_case(case, outputs))


def batches_of(kinds: tuple[str, ...], names: Sequence[str], *, everything: bool) -> list[Batch]:
    """Return the batches to run: of the named cases, of all cases, or those that are quick."""
    cases = [VmCase(path, kinds) for path in sorted(CASES.iterdir()) if (path / "why").exists()]
    usable = [case for case in cases if not {*case.text("not-for").split()} & {*kinds}]
    chosen = [case for case in usable if (case.name in names if names else everything or case.batch in QUICK)]
    order = {case.batch: None for case in sorted(chosen, key=lambda case: (case.batch not in QUICK, case.batch))}
    return [Batch(name, [case for case in chosen if case.batch == name]) for name in order]


def run_cases(bench: Bench, names: Sequence[str], *, everything: bool) -> int:
    """Run the named cases, all, or a quick selection; returns the exit code."""
    if bench.shop.source is None and not (bench.old / "arch/x86/boot/bzImage").exists():
        raise UnsuitableError("KDIR= has no arch/x86/boot/bzImage to boot")
    bench.shop.image()
    with tempfile.TemporaryDirectory(prefix="klptest-") as directory:
        batches = batches_of(bench.kinds, names, everything=everything)
        return Session(bench, batches, Path(directory)).run()


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="all cases, instead of a selection that is done in minutes")
    parser.add_argument("names", metavar="CASE", nargs="*", help="directories in vm_cases/")
    arguments = parser.parse_args()
    if reason := why_not():
        return skip_all(reason)
    return run_on_bench(lambda bench: run_cases(bench, arguments.names, everything=arguments.all))


if __name__ == "__main__":
    sys.exit(main())
