# SPDX-License-Identifier: GPL-2.0-only
"""A pair of trees to test with: ``orig``, which stays as it is, and ``work``, which tests change and restore."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from klptest import TroubleError
from klptest.kernel import Workshop, ask_klp, make
from klptest.mirror import mirror
from klptest.tap import bail_out, skip_all


class UnsuitableError(Exception):
    """There is no tree to test with; the message says what to do about it."""


HEAD_OBJECTS = tuple(f"arch/x86/kernel/{name}.o" for name in ("head_64", "head64", "ebda", "platform-quirks"))
"""head-y of arch/x86/Makefile, as it was before 6.1: what is linked first, and is in no archive."""


@dataclass(frozen=True)
class Answer:
    """What ``kbuild-klp diff --json`` said: its exit status, and its document with the trees called OLD and NEW."""

    status: int
    document: dict[str, Any]


def diff_trees(old: Path, new: Path) -> Answer:
    """Compare two trees; raises TroubleError if the program fails."""
    done = ask_klp("diff", "--json", old, new)
    if done.returncode not in (0, 1) or done.stderr:
        raise TroubleError(f"{' '.join(done.args)}: exit status {done.returncode}\n{done.stderr.rstrip()}")
    text = done.stdout.replace(str(old), "OLD").replace(str(new), "NEW")
    return Answer(done.returncode, json.loads(text))


class Bench:
    """Where a test patches, builds and compares."""

    def __init__(self, shop: Workshop) -> None:
        self.shop = shop
        self.old = shop.orig
        self.new = shop.directory / "work"
        self.log = shop.log("selftests")

    @property
    def kinds(self) -> tuple[str, ...]:
        """Words for the kernel, the most particular first: -Os, its version and patchlevel, and the compiler.

        What is inlined depends on all of these.
        """
        lines = (self.old / "Makefile").read_text().splitlines()
        values = dict(line.split(" = ", 1) for line in lines[:8] if " = " in line)
        version = f"{values['VERSION']}.{values['PATCHLEVEL']}"
        options = (self.old / ".config").read_text().splitlines()
        is_clang = "CONFIG_CC_IS_CLANG=y" in options
        kinds = (f"{version}-clang", "clang", version) if is_clang else (version,)
        return ("size", *kinds) if "CONFIG_CC_OPTIMIZE_FOR_SIZE=y" in options else kinds

    def restore(self) -> None:
        """Make the work tree equal to the original again: sources, objects, checksums and all."""
        if not self.new.exists():
            self.shop.copy(self.new.name)
        mirror(self.old, self.new)
        self.shop.refresh_checksums(self.new)

    def build(self, goals: list[str], *, checksums: bool = True) -> None:
        """Build goals in the work tree, with checksums."""
        make(self.new, goals, self.log, checksums=checksums)

    def diff(self) -> Answer:
        """Compare the two trees; raises TroubleError if the program fails."""
        return diff_trees(self.old, self.new)

    def count_objects(self) -> int:
        """Count the linked objects without the program under test: what is in vmlinux.a, and in each module.

        Before 6.1 there was no such archive: then it is what is in the archives of all directories, and head-y.
        """
        modules = [line for path in self.old.rglob("*.mod") for line in path.read_text().split()]
        if (self.old / "vmlinux.a").exists():
            return len({*self._members("vmlinux.a"), *modules})
        found = [*self.old.rglob("built-in.a"), *self.old.rglob("lib.a")]
        archives = [str(path.relative_to(self.old)) for path in found if (self.old / "tools") not in path.parents]
        members = {str(Path(name)) for archive in archives for name in self._members(archive)}
        return len({*members, *HEAD_OBJECTS, *modules})

    def _members(self, archive: str) -> list[str]:
        done = subprocess.run(["ar", "t", archive], cwd=self.old, capture_output=True, text=True, check=True)
        return done.stdout.split()


def _of_kdir(kdir: Path) -> Workshop:
    """Copy a tree that somebody built; it is not written to."""
    if not (kdir / "vmlinux").exists() or not (kdir / ".config").exists():
        raise UnsuitableError(f"KDIR={kdir} is not a built kernel tree")
    if not (kdir / "Kbuild").exists() or (kdir / "source").is_symlink():
        raise UnsuitableError(f"KDIR={kdir} was built with O=, and holds absolute paths: a copy of it would build all")
    return Workshop.open_built(kdir)


def _prepared() -> Workshop:
    """Return the trees of the demo."""
    try:
        shop = Workshop.open()
    except TroubleError as error:
        raise UnsuitableError(f"no KDIR=, and {error}") from error
    if not shop.has(shop.orig, "built"):
        raise UnsuitableError("no KDIR=, and selftests/demo.py has not built a tree")
    return shop


@contextmanager
def open_bench() -> Iterator[Bench]:
    """Set up the trees that KDIR= names, or the demo made; raises UnsuitableError."""
    kdir = os.environ.get("KDIR")
    shop = _of_kdir(Path(kdir).resolve()) if kdir else _prepared()
    with shop.locked():
        if kdir and mirror(Path(kdir).resolve(), shop.orig):
            shop.forget(shop.orig, "checksums")
        shop.refresh_checksums(shop.orig)
        bench = Bench(shop)
        bench.restore()
        try:
            yield bench
        finally:
            bench.restore()


def run_on_bench(tests: Callable[[Bench], int]) -> int:
    """Run tests on a bench, or say why there is none; returns kselftest's exit code."""
    try:
        with open_bench() as bench:
            return tests(bench)
    except UnsuitableError as error:
        return skip_all(str(error))
    except TroubleError as error:
        return bail_out(error)
