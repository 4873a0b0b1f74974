#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Make livepatches of what a newer release of a kernel fixes, and load them into the older one in a virtual machine.

Each C file that differs between the two sources, and that the configuration compiles, is compiled alone in the older
tree (with headers that differ, too, if it does not compile without), and `kbuild-klp patch` is asked for a livepatch
of that. What can be carried is loaded and unloaded, each by itself, then all of it as one. It takes hours:

    selftests/fixes.py linux-6.12.113.tar.xz linux-6.12.117.tar.xz

Nothing of it is an expectation: what cannot be carried is listed with its reasons, to be read beside the patch.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from klptest import TroubleError
from klptest.fixes import Fix, Fixes, unpacked
from klptest.kernel import Workshop, ask_klp
from klptest.machine import Output, run_in_machine, why_not
from klptest.tap import Report, Result, bail_out, failed, passed, skip_all, skipped
from klptest.vm_cases import complaints, new_taint

_BOOT_SECONDS, _FIX_SECONDS = 240, 90
_IN_ONE_BOOT = 20
_NO_HARDWARE = ("kvm-intel",)
_EMPTY = "for it in $(sed 's/ .*//' /proc/modules); do rmmod $it 2>/dev/null; done; rmmod kvm 2>/dev/null;"


@dataclass
class Answer:
    """What ``kbuild-klp patch`` said: exit status, document (none if there was trouble), messages, and the module."""

    status: int
    document: dict[str, Any] | None
    messages: str
    module: Path

    @classmethod
    def of(cls, status: int, text: str, messages: str, module: Path) -> Answer:
        """Read what was said."""
        return cls(status, json.loads(text) if text else None, messages, module)

    @property
    def codes(self) -> list[str]:
        """The codes of all refusals."""
        return sorted({it["code"] for it in self.document["refused"]}) if self.document else []

    @property
    def outcome(self) -> str:
        """One word: carried, nothing, refused, uncompiled; trouble for what must not be."""
        if self.document is None:
            return "trouble"
        names = {0: "carried", 1: "nothing", 2: "refused" if self.document["refused"] else "trouble"}
        return names.get(self.status, "trouble")

    @property
    def units(self) -> list[str]:
        """The modules of the kernel that are patched."""
        units = {it["unit"] for it in self.document["carried"]} if self.document else set()
        return sorted(units - {"vmlinux"})


class Session:
    """One run."""

    def __init__(self, fixes: Fixes, asked: Sequence[Fix], *, again: bool) -> None:
        self.fixes = fixes
        self.asked = asked
        self.again = again
        self.answers: dict[str, Answer] = {}
        self.modules = fixes.store / "livepatches"
        self.modules.mkdir(parents=True, exist_ok=True)

    def module(self, fix: Fix) -> Path:
        """Return where the livepatch of a fix is to be."""
        stem = re.sub(r"[^A-Za-z0-9]+", "-", fix.source[:-2])
        return self.modules / f"fix-{stem[-50:].strip('-')}.ko"

    def ask(self, fix: Fix) -> Answer:
        """Ask for the livepatch of a fix, or remember what was said."""
        module = self.module(fix)
        kept = module.with_suffix(".json")
        if self.again or not kept.exists():
            kept.write_text(json.dumps(self._patch([fix], module)))
        status, text, messages = json.loads(kept.read_text())
        return Answer.of(status, text, messages, module)

    def ask_together(self, fixes: Sequence[Fix]) -> Answer:
        """Ask for one livepatch of several fixes."""
        module = self.modules / "fix-together.ko"
        status, text, messages = self._patch(fixes, module)
        return Answer.of(status, text, messages, module)

    def _patch(self, fixes: Sequence[Fix], module: Path) -> tuple[int, str, str]:
        """Return exit status, document and messages."""
        for fix in fixes:
            self.fixes.install(fix)
        try:
            done = ask_klp("patch", "--json", self.fixes.old, self.fixes.work, "-o", module)
        finally:
            for fix in fixes:
                self.fixes.take_out(fix)
        return done.returncode, done.stdout, done.stderr

    # -- what came of it ----------------------------------------------------------------------------------------------

    def report_all(self, report: Report, *, is_machine: bool) -> None:
        """Report each fix, and all that can be carried as one."""
        waiting: list[tuple[Fix, Answer]] = []
        counts, codes = Counter[str](), Counter[str]()
        carried: list[Fix] = []
        for number, fix in enumerate(self.asked, 1):
            if not fix.objects:
                counts["uncompiled"] += 1
                report.add(fix.source, skipped("does not compile in the older tree"))
            else:
                answer = self.ask(fix)
                counts[answer.outcome] += 1
                codes.update(answer.codes)
                if answer.outcome == "carried":
                    waiting.append((fix, answer))
                    carried.append(fix)
                else:
                    report.add(f"{fix.source}: {answer.outcome}", _told(answer))
            if waiting and (len(waiting) == _IN_ONE_BOOT or number == len(self.asked)):
                self._load(waiting, report, is_machine=is_machine)
                waiting = []
        self._load_together(carried, report, is_machine=is_machine)
        print(f"# {', '.join(f'{word} {count}' for word, count in sorted(counts.items()))}")
        print(f"# files refused for: {', '.join(f'{word} {count}' for word, count in codes.most_common())}")

    def _load(self, waiting: Sequence[tuple[Fix, Answer]], report: Report, *, is_machine: bool) -> None:
        answers = [answer for _, answer in waiting]
        results = [] if is_machine else [passed()] * len(answers)
        while len(results) < len(answers):
            results += self.boot(answers[len(results) :], answers[len(results)].module.stem)
        for (fix, answer), result in zip(waiting, results, strict=True):
            more = "".join(f", with {name}" for name in fix.headers)
            report.add(f"{fix.source}: carried{more}: {_functions(answer)}", result)

    def _load_together(self, carried: Sequence[Fix], report: Report, *, is_machine: bool) -> None:
        """Load all in one livepatch; what others are compiled with, too, is left out."""
        taken: set[str] = set()
        chosen = []
        for fix in carried:
            if taken.isdisjoint({*fix.files, *fix.objects}):
                taken.update((*fix.files, *fix.objects))
                chosen.append(fix)
        if not chosen:
            report.add("all that can be carried", skipped("there is none"))
            return
        answer = self.ask_together(chosen)
        if answer.outcome == "carried":
            result = self.boot([answer], "together")[0] if is_machine else passed()
        else:
            result = failed([*_told(answer).details, answer.outcome])
        report.add(f"{len(chosen)} of {len(carried)} as one livepatch: {_functions(answer)}", result)

    # -- in the machine -----------------------------------------------------------------------------------------------

    def boot(self, answers: Sequence[Answer], name: str) -> list[Result]:
        """Load and unload livepatches in one machine; returns the results up to one that it does not survive."""
        files = {path.name: path for path in self.fixes.old.rglob("*.ko")}
        files.update({answer.module.name: answer.module for answer in answers})
        commands, places = ["dmesg -c >/dev/null; cat /proc/sys/kernel/tainted"], []
        for answer in answers:
            steps = _steps(answer)
            places.append((len(commands), len(commands) + len(steps)))
            commands += steps
        log = self.fixes.shop.log(f"console-{name}")
        log.unlink(missing_ok=True)
        timeout = _BOOT_SECONDS + _FIX_SECONDS * len(answers)
        outputs = run_in_machine(self.fixes.shop.image(), commands, files, timeout=timeout, log=log)
        ended = [high for _, high in places if outputs[high - 1].status is None]
        judged = [(low, high) for low, high in places if not ended or high <= ended[0]]
        return [_judge(commands[low:high], outputs[low:high]) for low, high in judged]


def _steps(answer: Answer) -> list[str]:
    """Return what is done with a livepatch: with its modules loaded after it, then with those there before it."""
    name = answer.module.stem
    # What libcrc32c, and xfs with it, ask for by another name.
    steps = [*(["module crc32c_generic"] if answer.units else []), f"load {name}"]
    steps += [f"module {unit.replace('-', '_')}" for unit in answer.units if unit not in _NO_HARDWARE]
    steps += [f"unload {name}"]
    if answer.units:
        steps += [f"load {name}", f"unload {name}"]
    return [*steps, f"{_EMPTY} lsmod", "dmesg -c", "cat /proc/sys/kernel/tainted"]


def _told(answer: Answer) -> Result:
    """Return what is said of a fix that becomes no livepatch."""
    if answer.outcome == "trouble":
        return failed([f"exit status {answer.status}", *answer.messages.splitlines()])
    refused = answer.document["refused"] if answer.document else []
    return passed([f"{it['object']}: {it['symbol']}: {it['code']}: {it['reason']}" for it in refused])


def _functions(answer: Answer) -> str:
    count = sum(it["kind"] == "function" for it in answer.document["carried"]) if answer.document else 0
    return f"{count} functions" if count != 1 else "1 function"


def _judge(commands: Sequence[str], outputs: Sequence[Output]) -> Result:
    wrong = []
    for command, output in zip(commands, outputs, strict=True):
        if output.status != 0:
            wrong += [f"{command}: exit status {output.status}", *output.text.splitlines()]
    wrong += complaints(outputs[-2].text)
    if outputs[-1].status == 0 and (more := new_taint(int(outputs[-1].text))):
        wrong.append(f"the kernel is tainted for {more:#x}")
    return failed(wrong) if wrong else passed()


def run_fixes(fixes: Fixes, patterns: Sequence[str], *, again: bool, is_machine: bool) -> int:
    """Compile, ask, load; returns kselftest's exit code."""
    asked = [it for it in fixes.find() if not patterns or any(fnmatchcase(it.source, pattern) for pattern in patterns)]
    session = Session(fixes, asked, again=again)
    report = Report(len(asked) + 1)
    fixes.compile(asked)
    fixes.restore()
    session.report_all(report, is_machine=is_machine)
    return report.finish()


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", metavar="OLD", help="source of the older release: a tarball, or a directory")
    parser.add_argument("new", metavar="NEW", help="source of the newer release")
    parser.add_argument("--only", metavar="PATTERN", action="append", help="only files that match, as the shell does")
    parser.add_argument("--again", action="store_true", help="ask again for what was asked in an earlier run")
    parser.add_argument("--no-machine", action="store_true", help="make the livepatches, and load none")
    arguments = parser.parse_args()
    is_machine = not arguments.no_machine
    if is_machine and (reason := why_not()):
        return skip_all(reason)
    os.environ["KSRC"] = arguments.old
    newer = Path(arguments.new).absolute()
    try:
        shop = Workshop.open()
        with shop.locked():
            shop.unpack()
            shop.configure()
            shop.build()
            shop.refresh_checksums(shop.orig)
            source = unpacked(shop, newer)
            fixes = Fixes(shop, source, shop.directory / f"fixes-{source.name}")
            return run_fixes(fixes, arguments.only or (), again=arguments.again, is_machine=is_machine)
    except TroubleError as error:
        return bail_out(error)


if __name__ == "__main__":
    sys.exit(main())
