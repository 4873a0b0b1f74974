# SPDX-License-Identifier: GPL-2.0-only
"""A build tree with one object and its sources, as kbuild leaves it, and what a comparison of two of them says."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from snippets import KERNEL_FLAGS

from kbuild_klp.builds.single_object import ObjectBuild
from kbuild_klp.compare.passes import compare
from kbuild_klp.lines.proof import symbol_word
from kbuild_klp.report.model import Report

Files = Mapping[str, str]
COMMENT = "/* one more line */\n"


class Answer(NamedTuple):
    """What was said of one symbol: kind of change, and how it is known that it is one of lines (empty: not said)."""

    change: str
    proof: str


CHANGED = Answer("changed", "")
PROVED = Answer("line-only", "sources")
INFERRED = Answer("line-only", "inferred")
RECORDS = Answer("line-only", "records")


class SourceTree:
    """A directory with sources, the object unit.o made from unit.c in it, and its saved command."""

    def __init__(self, root: Path, files: Files, *flags: str, command: str = "gcc") -> None:
        self.root = root
        self.write("include/config/auto.conf", "CONFIG_X86_64=y\n")
        self.write("include/generated/autoconf.h", "")
        for name, text in files.items():
            self.write(name, text)
        words = [command, *KERNEL_FLAGS, *flags, "-I.", "-MMD", "-MF", "deps", "-c", "-o", "unit.o", "unit.c"]
        done = subprocess.run(words, cwd=root, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        names = (root / "deps").read_text().replace("\\\n", " ").split()[2:]
        listed = " \\\n".join(f"  {name}" for name in names)
        self.write(
            ".unit.o.cmd",
            f"savedcmd_unit.o := {' '.join(words)}\n\nsource_unit.o := unit.c\n\ndeps_unit.o := \\\n{listed} \\\n\n",
        )
        for path in (root / name for name in files):
            os.utime(path, ns=(1, 1))

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def without_sources(self) -> SourceTree:
        """Take the sources away, as in a tree of which only the objects were kept."""
        (self.root / "unit.c").unlink()
        return self

    @property
    def object(self) -> Path:
        return self.root / "unit.o"


def report_of(old: SourceTree, new: SourceTree) -> Report:
    report = compare(ObjectBuild(str(old.object)), ObjectBuild(str(new.object)))
    assert not report.failed
    return report


def answers(old: SourceTree, new: SourceTree) -> dict[str, Answer]:
    """Return what is said of each symbol; what the compiler added to names is taken off."""
    return {
        symbol_word(change.symbol): Answer(change.change.value, change.proof.value if change.proof else "")
        for group in report_of(old, new).objects
        for change in group.changes
    }


class Pairs:
    """Makes pairs of trees in a directory and compares them."""

    def __init__(self, directory: Path, command: str = "gcc") -> None:
        self.directory = directory
        self.command = command
        self._count = 0

    def tree(self, files: Files | str, *flags: str) -> SourceTree:
        self._count += 1
        files = {"unit.c": files} if isinstance(files, str) else files
        return SourceTree(self.directory / f"tree{self._count}", files, *flags, command=self.command)

    def diff(self, old: Files | str, new: Files | str, *flags: str) -> dict[str, Answer]:
        return answers(self.tree(old, *flags), self.tree(new, *flags))

    def diff_without_sources(self, old: Files | str, new: Files | str, *flags: str) -> dict[str, Answer]:
        return answers(self.tree(old, *flags).without_sources(), self.tree(new, *flags).without_sources())


def shifted(text: str, lines: int = 1) -> str:
    """Return a file with comment lines at its top."""
    return COMMENT * lines + text


def at_line(line: int, text: str) -> str:
    """Return a text that starts at a line number, with empty lines above."""
    return "\n" * (line - 1) + text


# BUG_ENTRY is what WARN_ON leaves in the bug table.
HEAD = """
#define FILE "kernel/unit.c"
#define BUG_ENTRY asm volatile("1: ud2\\n.pushsection __bug_table,\\"aw\\"\\n.long 1b - ., %c0 - .\\n.word %c1, 3\\n" \\
	".popsection" :: "i"(FILE), "i"(__LINE__))
int pass(int, int), other(int), open_it(const char *, int);
void note(const char *, int), complain(const char *, const char *, int, int), first(int, const char *);
void deep(int, int, long, long, const char *, int, int), say(const char *, ...), (*hook)(const char *, int);
void asked(const char *, int), tagged(const char *, int, int);
"""


def file_with(body: str, moved: int = 0) -> str:
    """Return a file with f on line 111, among functions that pass lines 91, 101, 121 and 131; all lines ``moved``."""
    rest = [
        f"#line {line + moved}\nint at{line}(int x) {{ note(FILE, __LINE__); return x + {line}; }}\n"
        for line in (91, 101, 121, 131)
    ]
    own = f"#line {111 + moved}\nint f(int x) {{ {body} }}\n"
    return HEAD + "".join([*rest[:2], own, *rest[2:]])


def answer(pairs: Pairs, body: str, before: int, after: int, *flags: str, moved: int = 2) -> Answer:
    """Return what is said of f, of which NUMBER goes from ``before`` to ``after``; those around it are of lines."""
    old = pairs.tree(file_with(body), *flags, f"-DNUMBER={before}").without_sources()
    new = pairs.tree(file_with(body, moved), *flags, f"-DNUMBER={after}").without_sources()
    found = answers(old, new)
    own = found.pop("f")
    assert set(found.values()) == {INFERRED}
    return own
