# SPDX-License-Identifier: GPL-2.0-only
"""Small objects compiled on the spot, as the kernel would compile them, and what changed between two of them."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from kbuild_klp.builds.single_object import ObjectBuild
from kbuild_klp.compare.passes import compare
from kbuild_klp.elf.symbol_names import canonical_name
from kbuild_klp.report.model import Report

KERNEL_FLAGS = (
    "-O2",
    "-std=gnu11",
    "-ffreestanding",
    "-fno-pic",
    "-mcmodel=kernel",
    "-mno-red-zone",
    "-mno-sse",
    "-mno-mmx",
    "-fno-asynchronous-unwind-tables",
    "-fno-strict-aliasing",
    "-fno-common",
    "-fno-stack-protector",
    "-fcf-protection=none",
    "-w",
)

THREE = """
int outside(int);
int table[64];
static __attribute__((noinline)) int first(int x) { %s return x * 3 + table[x]; }
__attribute__((noinline)) int second(int x) { int s = 0; while (x--) s += first(x) ^ outside(s); return s; }
int third(int x) { if (x > 10) return second(x + 1) ^ x; return first(x) - 1; }
"""
"""Three functions that call each other; %s goes into the first."""

Changes = set[tuple[str, str, str]]


def changed(*symbols: str) -> Changes:
    return {(symbol, "function", "changed") for symbol in symbols}


def data_changed(*symbols: str) -> Changes:
    return {(symbol, "data", "changed") for symbol in symbols}


def changes_of(report: Report) -> Changes:
    """Return the whole answer; the compiler's numbers are taken out of names, for they vary with its version."""
    assert not report.failed
    return {
        (
            change.symbol if change.kind == "section" else canonical_name(change.symbol).text,
            change.kind,
            change.change.value,
        )
        for group in report.objects
        for change in group.changes
    }


def diff_objects(old: Path, new: Path, *, unknown: str = "") -> Changes:
    """Compare two objects; every change must carry a reason, and nothing must have been unknown but one section."""
    report = compare(ObjectBuild(str(old)), ObjectBuild(str(new)))
    assert all(f"section {unknown}: " in warning for warning in report.warnings)
    assert len(report.warnings) <= (2 if unknown else 0), report.warnings
    for group in report.objects:
        for change in group.changes:
            assert change.reasons or change.change.value in ("added", "removed"), change
    return changes_of(report)


class Compiler:
    """One C compiler and a directory for what it makes; flags given here come after those of the kernel."""

    def __init__(self, command: str, directory: Path, flags: Sequence[str] = KERNEL_FLAGS) -> None:
        self.command = command
        self.directory = directory
        self.flags = tuple(flags)
        self._count = 0

    def object(self, source: str, *flags: str, suffix: str = ".c", place: str | None = None) -> Path:
        """Compile ``source``, each time in a directory of its own (``place`` names it), always as unit.c or unit.s."""
        self._count += 1
        directory = self.directory / (place or f"build{self._count}")
        directory.mkdir()
        (directory / f"unit{suffix}").write_text(source)
        options = [*self.flags, *flags] if suffix == ".c" else list(flags)
        command = [self.command, *options, "-c", f"unit{suffix}", "-o", "unit.o"]
        done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return directory / "unit.o"

    def diff(self, old: str, new: str, *flags: str) -> Changes:
        """Compile two versions of a C file and return what changed."""
        return diff_objects(self.object(old, *flags), self.object(new, *flags))

    def assembly(self, source: str, *flags: str) -> Path:
        """Assemble ``source``."""
        return self.object(source, *flags, suffix=".s")

    def diff_assembly(self, old: str, new: str, *flags: str) -> Changes:
        """Assemble two versions and return what changed."""
        return diff_objects(self.assembly(old, *flags), self.assembly(new, *flags))
