# SPDX-License-Identifier: GPL-2.0-only
"""What another release of a kernel changes, file by file, compiled for the tree of this one."""

from __future__ import annotations

import filecmp
import os
import re
import shutil
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from klptest import TroubleError
from klptest.console import run
from klptest.kernel import MAKEFILE, Workshop, untar
from klptest.mirror import mirror

# Compiled for the machine that builds, or into what boots the kernel.
_NO_KERNEL = re.compile(r"(Documentation|samples|scripts|tools|usr|arch/x86/(boot|realmode|tools))/")
# What the compiler says of a name that it does not know, in error messages of gcc and clang.
_MISSED = re.compile(r"error: .*?['‘](?:struct \w+' has no member named ')?(\w+)")
_INCLUDED = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)', re.MULTILINE)
# A header of more objects is no part of one fix.
_MOST_OBJECTS, _MOST_TURNS = 60, 3


@dataclass
class Fix:
    """The difference of one C file between two releases, with the headers that it does not compile without.

    ``objects`` are what is compiled of it, relative to the tree; none if it does not compile.
    """

    source: str
    headers: list[str] = field(default_factory=list)
    objects: list[str] = field(default_factory=list)

    @property
    def files(self) -> list[str]:
        """The files that differ."""
        return [self.source, *self.headers]


def command_file(path: str) -> str:
    """Return the file in which kbuild keeps how something was made."""
    directory, slash, name = path.rpartition("/")
    return f"{directory}{slash}.{name}.cmd"


class Fixes:
    """The tree ``old`` of the older release, a copy ``work`` to compile in, and what was compiled in ``store``."""

    def __init__(self, shop: Workshop, newer: Path, store: Path) -> None:
        self.shop = shop
        self.old = shop.orig
        self.work = shop.directory / "work"
        self.newer = newer
        self.store = store
        self.log = shop.log("fixes")
        self.users = self._users()

    def _users(self) -> dict[str, list[str]]:
        """Return the objects of the kernel that each source file is compiled into."""
        found: dict[str, list[str]] = defaultdict(list)
        for path in self.old.rglob(".*.o.cmd"):
            text = path.read_text(errors="replace")
            made = re.search(r"^source_(\S+) := (\S+)$", text, re.MULTILINE)
            if made is None or _NO_KERNEL.match(made[1]) or not (self.old / made[1]).exists():
                continue
            _, _, rest = text.partition(f"deps_{made[1]} := \\\n")
            names = rest.partition("\n\n")[0].replace("\\\n", " ").split()
            for name in {made[2], *names}:
                found[os.path.normpath(name)].append(made[1])
        return found

    def find(self) -> list[Fix]:
        """Return what differs and is compiled: C files only."""
        names = sorted(name for name in self.users if name.endswith(".c") and self._differs(name))
        return [Fix(name) for name in names]

    def _differs(self, name: str) -> bool:
        one, other = self.old / name, self.newer / name
        return one.is_file() and other.is_file() and not filecmp.cmp(one, other, shallow=False)

    # -- compiling ----------------------------------------------------------------------------------------------------

    def compile(self, fixes: Sequence[Fix]) -> None:
        """Compile each of some fixes as if it were the only one, into the store; what is there is not made again."""
        missing = [fix for fix in fixes if not self._recall(fix)]
        if not missing:
            return
        self.restore()
        alone = [fix for fix in missing if self._is_alone(fix)]
        for fix in alone:
            self._bring(fix.files)
        self._make(["vmlinux", "modules"])
        made = [fix for fix in alone if self._made(self.users[fix.source])]
        for fix in made:
            self._remember(fix)
        self.restore()
        for fix in missing:
            if fix not in made:
                self._compile_with_headers(fix)

    def _is_alone(self, fix: Fix) -> bool:
        """Say whether nothing else that differs goes into the objects of a fix."""
        return len(self.users[fix.source]) == 1 and self.users[fix.source][0] == f"{fix.source[:-2]}.o"

    def _compile_with_headers(self, fix: Fix) -> None:
        """Compile a fix with the headers that have what the compiler misses, and theirs."""
        is_made = False
        for _ in range(_MOST_TURNS):
            goals = sorted({it for name in fix.files for it in self.users.get(name, ())})
            if len(goals) > _MOST_OBJECTS:
                break
            self._bring(fix.files)
            said = self._make(goals, jobs=1)
            is_made = self._made(goals)
            if is_made:
                self._remember(fix)
            self.restore()
            more = [] if is_made else self._headers_with(fix, set(_MISSED.findall(said)))
            if not more:
                break
            fix.headers = sorted({*fix.headers, *more})
        if not is_made:
            fix.headers = []
            self._remember(fix)

    def _headers_with(self, fix: Fix, names: set[str]) -> list[str]:
        """Return the headers of which the newer version alone has one of some names."""
        found = []
        included = tuple(
            f"/{name}" for name in _INCLUDED.findall((self.newer / fix.source).read_text(errors="replace"))
        )
        for header in self.users:
            if not header.endswith(".h") or header in fix.headers or not self._differs(header):
                continue
            if not set(self.users[header]) & set(self.users[fix.source]) and not header.endswith(included):
                continue
            before, after = ((tree / header).read_text(errors="replace") for tree in (self.old, self.newer))
            if names & (set(re.findall(r"\w+", after)) - set(re.findall(r"\w+", before))):
                found.append(header)
        return found

    def _bring(self, files: Iterable[str]) -> None:
        for name in files:
            (self.work / name).write_bytes((self.newer / name).read_bytes())

    def _make(self, goals: Sequence[str], *, jobs: int | None = None) -> str:
        """Make what can be made, and return what make said."""
        count = jobs or len(os.sched_getaffinity(0))
        command = ["make", "-k", f"-j{count}", f"MAKEFILES={MAKEFILE}", "KLP_CHECKSUMS=1", *goals]
        before = self.log.stat().st_size if self.log.exists() else 0
        run(command, self.log, cwd=self.work, env={"LC_ALL": "C"}, check=False)
        return self.log.read_bytes()[before:].decode(errors="replace")

    def _made(self, objects: Iterable[str]) -> bool:
        """Say whether all of some objects were made again."""
        times = [(self.old / name, self.work / name) for name in objects]
        return all(new.exists() and new.stat().st_mtime_ns != old.stat().st_mtime_ns for old, new in times)

    # -- the store ----------------------------------------------------------------------------------------------------

    def _place(self, fix: Fix) -> Path:
        return self.store / fix.source.replace("/", ":")

    def _remember(self, fix: Fix) -> None:
        place = self._place(fix)
        part = place.with_name(f"{place.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        if self._made(self.users[fix.source]):
            fix.objects = sorted(
                name for name in {it for file in fix.files for it in self.users[file]} if self._made([name])
            )
            for name in (*fix.files, *fix.objects, *(command_file(it) for it in fix.objects)):
                target = part / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(self.work / name, target)
        part.rename(place)

    def _recall(self, fix: Fix) -> bool:
        place = self._place(fix)
        if not place.exists():
            return False
        names = [str(path.relative_to(place)) for path in place.rglob("*") if path.is_file()]
        fix.headers = sorted(name for name in names if name.endswith((".h", ".c")) and name != fix.source)
        fix.objects = sorted(name for name in names if name.endswith(".o"))
        return True

    # -- the tree with a fix ------------------------------------------------------------------------------------------

    def restore(self) -> None:
        """Make the work tree equal to the old one."""
        if not self.work.exists():
            self.shop.copy(self.work.name)
        mirror(self.old, self.work)

    def install(self, fix: Fix) -> None:
        """Put the files and objects of a fix into the work tree, with their times."""
        place = self._place(fix)
        for path in place.rglob("*"):
            if path.is_file():
                self._put(path, self.work / path.relative_to(place))

    def take_out(self, fix: Fix) -> None:
        """Put the old files and objects back, with their checksums."""
        place = self._place(fix)
        names = [str(path.relative_to(place)) for path in place.rglob("*") if path.is_file()]
        for name in names:
            self._put(self.old / name, self.work / name)
            if name.endswith(".o"):
                sums = command_file(name).removesuffix(".cmd") + ".klp.cmd"
                self._put(self.old / sums, self.work / sums)

    def _put(self, source: Path, target: Path) -> None:
        if target.exists():
            target.unlink()
        if source.exists():
            shutil.copy2(source, target)


def unpacked(shop: Workshop, source: Path) -> Path:
    """Return the source of another release, unpacked beside the trees; it is made if it is not there."""
    if source.is_dir():
        return source
    name = source.name.split(".tar")[0]
    target = shop.directory / name
    if not target.exists():
        part = shop.directory / f"{name}.part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        untar(source, part, shop.log("source"))
        part.rename(target)
    if not (target / "Kbuild").exists():
        raise TroubleError(f"{source}: no kernel source")
    return target
