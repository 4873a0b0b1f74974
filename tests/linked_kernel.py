# SPDX-License-Identifier: GPL-2.0-only
"""Two small builds of a kernel with livepatch: objects in vmlinux and in a module, linked as kbuild links them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from fake_build import FakeBuild
from snippets import KERNEL_FLAGS

from kbuild_klp.builds.built_tree import TreeBuild
from kbuild_klp.compare.passes import compare
from kbuild_klp.report.model import Report

TRACED = ("-pg", "-mfentry", "-mrecord-mcount")
CONFIGURATION = "CONFIG_X86_64=y\nCONFIG_MODULES=y\nCONFIG_LIVEPATCH=y\n"

Verdicts = dict[str, list[str]]


class KernelBuild(FakeBuild):
    """A build tree; ``sources`` are C files, or assembly, by object. Those in drivers/ are module ``mod``."""

    def __init__(self, root: Path, sources: dict[str, str], flags: tuple[str, ...]) -> None:
        self.root = root
        self.write("include/config/auto.conf", CONFIGURATION)
        self.write("include/generated/autoconf.h", "")
        for name, source in sources.items():
            self.build(name, source, *flags)
        self.builtin = [name for name in sources if not name.startswith("drivers/")] or ["init/nothing.o"]
        modules = [name for name in sources if name.startswith("drivers/")] or ["drivers/nothing.o"]
        for name in ("init/nothing.o", "drivers/nothing.o"):
            if not (root / name).exists():
                self.build(name, "int nothing;", *flags)
        self.link(*self.builtin)
        self.module("drivers/mod", *modules)
        self.order("drivers/mod")
        # The linker's own output: symbols keep the order of the objects, addresses need not.
        self.run("ld", "-r", "-o", "drivers/mod.ko", *modules)
        self.run("ld", "-o", "vmlinux", "-e", "0", "-Ttext=0x1000000", "--unresolved-symbols=ignore-all", *self.builtin)

    def build(self, name: str, source: str, *flags: str) -> None:
        """Compile from a file, so that the object names its source as the kernel's do."""
        file = self.write(name.removesuffix(".o") + (".s" if source.startswith("#asm") else ".c"), source)
        options = [*KERNEL_FLAGS, *flags] if file.suffix == ".c" else []
        command = ["gcc", *options, "-c", file.name, "-o", Path(name).name]
        done = subprocess.run(command, cwd=file.parent, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def run(self, *command: str) -> str:
        return subprocess.run(command, cwd=self.root, check=True, capture_output=True, text=True).stdout

    def age(self, name: str) -> None:
        """Make a file older than everything else."""
        os.utime(self.root / name, (1, 1))


class Kernels:
    """Builds two trees and says what a livepatch can carry from one to the other."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.old: KernelBuild
        self.new: KernelBuild

    def build(
        self, old: dict[str, str], new: dict[str, str], flags: tuple[str, ...] = TRACED, new_flags: tuple[str, ...] = ()
    ) -> None:
        """Build both trees; an object that stands in ``old`` only is the same in both."""
        self.old = KernelBuild(self.root / "old", old, flags)
        self.new = KernelBuild(self.root / "new", {**old, **new}, new_flags or flags)

    def compare(self, explain: bool = True) -> Report:
        return compare(TreeBuild(str(self.root / "old")), TreeBuild(str(self.root / "new")), explain=explain)

    def verdicts(self, warnings: int = 0) -> Verdicts:
        """Return the verdicts; the comparison has to say so many warnings."""
        report = self.compare()
        assert not report.failed and len(report.warnings) == warnings, report
        return verdicts_of(report)

    def of(self, old: str, new: str, *flags: str, name: str = "kernel/unit.o") -> Verdicts:
        """Return the verdicts of two versions of one object."""
        self.build({name: old}, {name: new}, (*TRACED, *flags))
        return self.verdicts()


def verdicts_of(report: Report) -> Verdicts:
    """Return the reasons by symbol; those of a change that is possible all the same are in brackets."""
    result: Verdicts = {}
    for group in report.objects:
        for change in group.changes:
            verdict = change.livepatch
            for reason in verdict.reasons:
                assert reason.text.startswith(reason.obstacle.word)
            texts = [reason.text for reason in verdict.reasons]
            assert change.symbol not in result or result[change.symbol] == texts
            result[change.symbol] = [f"({text})" for text in texts] if verdict.possible else texts
    return result
