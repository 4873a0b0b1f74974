# SPDX-License-Identifier: GPL-2.0-only
"""What is tried in the virtual machine: cases, batches that become one livepatch each, and their steps in the guest."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from klptest.cases import CaseDirectory
from klptest.machine import Output
from klptest.tap import Result, failed, passed

CASES = Path(__file__).resolve().parents[1] / "vm_cases"

# include/linux/panic.h: TAINT_WARN is one too many where nobody asked for a warning.
_TAINT_WARN, _TAINT_OOT_MODULE, _TAINT_LIVEPATCH = 1 << 9, 1 << 12, 1 << 15

# What the kernel complains with: about itself, the livepatch, a module, a stack.
_COMPLAINT = re.compile(
    r"WARNING:|BUG:|Oops|general protection|page fault|unreliable|[Ff]ailed|[Uu]nknown|[Ii]nvalid|not found|"
    r"disagrees|[Uu]nable|[Cc]annot|[Uu]nexpected|stuck|stall"
)


def _functions(path: Path) -> set[str]:
    """Return the names in an object."""
    done = subprocess.run(["nm", "--format=just-symbols", path], capture_output=True, text=True, check=True)
    return {*done.stdout.splitlines()}


@dataclass(frozen=True)
class VmCase(CaseDirectory):
    """One directory in vm_cases/."""

    @property
    def batch(self) -> str:
        """Which livepatch it is a part of."""
        return self.text("batch").strip() or "first"

    def carried(self, tree: Path) -> set[tuple[str, str]]:
        """Object and name of each function that is carried for it, in the kernel that was built in a tree."""
        rows = [line.split() for line in self.text("carried").splitlines()]
        known = {name: _functions(tree / name) for name, _, *rest in rows if rest == ["?"]}
        return {(words[0], words[1]) for words in rows if len(words) == 2 or words[1] in known[words[0]]}

    @property
    def refused(self) -> set[tuple[str, str]]:
        """Name and code of each refusal; a case with refusals has nothing to see in a machine."""
        rows = (line.split() for line in self.text("refused").splitlines())
        return {(words[0], words[1]) for words in rows}

    @property
    def options(self) -> list[str]:
        """Options for kbuild-klp patch."""
        return self.text("options").split()

    @property
    def log(self) -> list[str]:
        """What kernel messages hold while it is patched."""
        return self.text("log").splitlines()

    @property
    def unsaid(self) -> list[str]:
        """What kernel messages must not hold while it is patched."""
        return self.text("unsaid").splitlines()


@dataclass(frozen=True)
class Step:
    """A command for the guest; ``case`` is empty for those that are for the batch."""

    batch: str
    case: str
    phase: str
    command: str


@dataclass(frozen=True)
class Batch:
    """Cases that become one livepatch."""

    name: str
    cases: Sequence[VmCase]

    @property
    def module(self) -> str:
        """The livepatch's name."""
        return f"klptest-{self.name}"

    def steps(self) -> Iterator[Step]:
        """Yield what is done in the guest: see, load, see, unload, see, and once more."""
        yield self._step("tainted", "cat /proc/sys/kernel/tainted")
        yield from self._each("setup")
        yield from self._each("see", "before")
        yield self._step("before", "dmesg -c >/dev/null")
        for turn in ("", " again"):
            yield from self._each("loading", f"loading{turn}")
            yield self._step(f"load{turn}", f"load {self.module}")
            yield from self._each("loaded", f"loaded{turn}")
            yield from self._each("see", f"during{turn}")
            yield self._step(f"log{turn}", "dmesg -c")
            yield self._step(f"unload{turn}", f"unload {self.module}")
            yield from self._each("see", f"after{turn}")
        yield self._step("last log", "dmesg -c")
        yield self._step("taint", "cat /proc/sys/kernel/tainted")

    def _step(self, phase: str, command: str) -> Step:
        return Step(self.name, "", phase, command)

    def _each(self, name: str, phase: str = "") -> Iterator[Step]:
        for case in self.cases:
            if command := case.text(name):
                yield Step(self.name, case.name, phase or name, command)


def complaints(messages: str) -> list[str]:
    """Return the lines of kernel messages in which the kernel complains."""
    return [line for line in messages.splitlines() if _COMPLAINT.search(line)]


def new_taint(taint: int) -> int:
    """Return the taint flags of a kernel but those that every livepatch sets."""
    return taint & ~(_TAINT_OOT_MODULE | _TAINT_LIVEPATCH)


def judge_case(case: VmCase, outputs: Mapping[tuple[str, str], Output]) -> Result:
    """Hold what was seen of a case against what it says; ``outputs`` are by case and phase."""
    wrong: list[str] = []
    for (name, phase), output in outputs.items():
        if name != case.name:
            continue
        if phase.partition(" ")[0] in ("setup", "loading", "loaded"):
            if output.status != 0:
                wrong += [f"{phase}: {_ended(output)}", *_indented(output.text)]
            continue
        expected = case.text("during" if phase.startswith("during") else "before").strip("\n")
        if output.status is None or output.text != expected:
            wrong += [f"{phase}: {_ended(output)}; expected", *_indented(expected), "seen", *_indented(output.text)]
    for turn in ("log", "log again"):
        seen = outputs["", turn].text
        wrong += [f"{turn}: no message with: {text}" for text in case.log if text not in seen]
        wrong += [f"{turn}: {text}" for text in case.unsaid if text in seen]
    return failed(wrong) if wrong else passed()


def judge_batch(batch: Batch, outputs: Mapping[tuple[str, str], Output], wrong: list[str]) -> Result:
    """Say what the kernel thought of loading and unloading a batch's livepatch, after what was ``wrong`` before."""
    wrong = [*wrong]
    said = [text for case in batch.cases for text in case.log]
    for (case, phase), output in outputs.items():
        if case:
            continue
        if output.status != 0:
            wrong += [f"{phase}: {_ended(output)}", *_indented(output.text)]
        if phase in ("log", "log again", "last log"):
            lines = [line for line in complaints(output.text) if not any(text in line for text in said)]
            wrong += [f"{phase}: {line}" for line in lines]
    before, after = outputs["", "tainted"], outputs["", "taint"]
    if before.status == after.status == 0:
        allowed = int(before.text) | (_TAINT_WARN if said else 0)
        if more := new_taint(int(after.text)) & ~allowed:
            wrong.append(f"the kernel is tainted for {more:#x}")
    return failed(wrong) if wrong else passed()


def _ended(output: Output) -> str:
    return "did not end" if output.status is None else f"exit status {output.status}"


def _indented(text: str) -> list[str]:
    return [f"    {line}" for line in text.splitlines()]
