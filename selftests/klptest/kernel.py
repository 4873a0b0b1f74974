# SPDX-License-Identifier: GPL-2.0-only
"""Kernel trees in the cache: where they come from, how they are built, what may be reused."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from klptest import TroubleError
from klptest.console import run
from klptest.host import CHECKOUT, VENV, kernel_source
from klptest.mirror import PRUNED, mirror
from klptest.variant import CONFIG, compiler, fragments, missing_options

MAKEFILE = CHECKOUT / "Makefile.klp"

# To be changed when something that no digest covers makes the trees of old caches unusable.
_LAYOUT = "1"


def cache_directory() -> Path:
    """Return where trees are kept; nothing there is needed for more than speed."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    path = Path(os.environ.get("KLP_CACHE") or Path(home, "kbuild-klp")).absolute()
    path.mkdir(parents=True, exist_ok=True)
    return path


def _source() -> Path:
    path, _ = kernel_source()
    if not path.exists():
        raise TroubleError(f"{path}: no such kernel source; KSRC= takes a directory, a tarball or a Debian package")
    if path.is_dir() and not (path / "Kbuild").exists():
        raise TroubleError(f"{path}: not the top directory of a kernel's source")
    return path


def _source_digest(source: Path) -> str:
    digest = hashlib.sha256()
    if source.is_dir():
        # Names, sizes and times: reading a gigabyte to find that nothing changed would take longer.
        command = ["find", ".", "-name", ".git", "-prune", "-o", "-type", "f", "-printf", r"%p %s %T@\n"]
        listing = subprocess.run(command, cwd=source, capture_output=True, check=True).stdout
        digest.update(b"\n".join(sorted(listing.splitlines())))
    else:
        with source.open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()


def checksum_code() -> str:
    """Return a digest of the code that writes checksums: files written by other code are not comparable."""
    digest = hashlib.sha256()
    for path in sorted((CHECKOUT / "kbuild_klp").rglob("*")):
        if path.suffix in (".py", ".toml"):
            digest.update(path.read_bytes())
    return digest.hexdigest()


class Workshop:
    """The trees of one kernel source, one configuration and one compiler: ``orig`` and copies of it.

    Copies have names as long as ``orig``, so that nothing differs that holds a path.
    A file NAME.STATE beside tree NAME says how far it has come. It is written last.
    """

    def __init__(self, directory: Path, source: Path | None) -> None:
        self.directory = directory
        self.source = source
        self.orig = directory / "orig"
        self.logs = directory / "logs"
        self.logs.mkdir(parents=True, exist_ok=True)

    @classmethod
    def open(cls) -> Workshop:
        """Return the one for what the environment says (KSRC, KLP_CONFIGS, LLVM, KLP_CACHE)."""
        source = _source()
        added = fragments()
        texts = [path.read_text() for path in added]
        key = json.dumps([_LAYOUT, _source_digest(source), compiler(), CONFIG.read_text(), PRUNED, *texts])
        short = hashlib.sha256(key.encode()).hexdigest()[:10]
        name = "-".join([source.name.split(".tar")[0], *(path.stem for path in added)])
        return cls(cache_directory() / "trees" / f"{name}-{short}", source)

    @classmethod
    def open_built(cls, tree: Path) -> Workshop:
        """Return the one for copies of a tree that somebody built."""
        short = hashlib.sha256(str(tree).encode()).hexdigest()[:10]
        return cls(cache_directory() / "trees" / f"built-{short}", None)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep others out of the trees; waits for them first."""
        with (self.directory / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"      waiting for another run that uses {self.directory}", flush=True)
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _state(self, tree: Path, state: str) -> Path:
        return tree.with_name(f"{tree.name}.{state}")

    def has(self, tree: Path, state: str) -> bool:
        """Whether the tree has come to that state."""
        return self._state(tree, state).exists()

    def mark(self, tree: Path, state: str, text: str = "") -> None:
        """Remember that the tree has come to that state."""
        part = self._state(tree, f"{state}.part")
        part.write_text(text)
        part.replace(self._state(tree, state))

    def forget(self, tree: Path, state: str) -> None:
        """Take back what mark() said."""
        self._state(tree, state).unlink(missing_ok=True)

    def log(self, name: str) -> Path:
        """Return the path of a log."""
        return self.logs / f"{name}.log"

    def unpack(self) -> bool:
        """Bring the source into ``orig``; False if it is there."""
        assert self.source is not None
        if self.orig.exists():
            return False
        part = self.directory / "orig.part"
        shutil.rmtree(part, ignore_errors=True)
        if self.source.is_dir():
            mirror(self.source, part)
            if (part / ".config").exists():
                run(["make", "mrproper"], self.log("source"), cwd=part)
        else:
            part.mkdir()
            untar(self.source, part, self.log("source"))
        part.rename(self.orig)
        return True

    def configure(self) -> bool:
        """Make the configuration of ``orig``: tinyconfig, selftests/config and fragments. False if it is there.

        Raises TroubleError if an option of a fragment was not taken.
        """
        if self.has(self.orig, "configured"):
            return False
        log = self.log("config")
        run(["make", "tinyconfig"], log, cwd=self.orig)
        run(["scripts/kconfig/merge_config.sh", "-m", ".config", CONFIG, *fragments()], log, cwd=self.orig)
        run(["make", "olddefconfig"], log, cwd=self.orig)
        missing_options(self.orig / ".config")
        self.mark(self.orig, "configured")
        return True

    def build(self) -> bool:
        """Build ``orig`` with checksums; False if it is built."""
        if self.has(self.orig, "built"):
            return False
        # A build that was interrupted may be continued by other code than began it.
        if not self.has(self.orig, "begun"):
            self.mark(self.orig, "begun", checksum_code())
        make(self.orig, ["vmlinux", "modules"], self.log("build"))
        if self._state(self.orig, "begun").read_text() == checksum_code():
            self.mark(self.orig, "checksums", checksum_code())
        self.mark(self.orig, "built")
        return True

    def image(self) -> Path:
        """Return the bootable image of ``orig``; it is built if it is not there, except for a tree that somebody built.

        One make for this and what is there already: with the image as its only goal it would link vmlinux again.
        """
        image = self.orig / "arch/x86/boot/bzImage"
        if self.source is not None and not (self.has(self.orig, "image") and image.exists()):
            make(self.orig, ["vmlinux", "modules", "bzImage"], self.log("image"))
            self.mark(self.orig, "image")
        if not image.exists():
            raise TroubleError(f"{image} does not exist: make bzImage")
        return image

    def copy(self, name: str, patch: Path | None = None) -> Path:
        """Return a copy of ``orig``, with a patch if one is given; it is made if it is not there."""
        tree = self.directory / name
        wanted = patch.read_text() if patch else ""
        if tree.exists() and (not self.has(tree, "patch") or self._state(tree, "patch").read_text() != wanted):
            shutil.rmtree(tree)
        if not tree.exists():
            part = self.directory / f"{name}.part"
            mirror(self.orig, part, final=tree)
            if patch:
                apply_patch(part, patch)
            self.mark(tree, "patch", wanted)
            part.rename(tree)
            if self.has(self.orig, "checksums"):
                self.mark(tree, "checksums", self._state(self.orig, "checksums").read_text())
        return tree

    def bare(self) -> Path:
        """Return a copy of the source in which nothing was built; it is made if it is not there."""
        tree = self.directory / "bare"
        if not tree.exists():
            part = self.directory / "bare.part"
            mirror(self.orig, part, final=tree)
            run(["make", "mrproper"], self.log("source"), cwd=part)
            part.rename(tree)
        return tree

    def objtool(self) -> Path:
        """Return the objtool of the kernel; it is built, beside its source, if it is not there.

        It has `klp checksum` from 7.x on, and only if libxxhash-dev is installed: one that lacks it is built again.
        """
        directory = self.directory / "objtool"
        program = directory / "objtool"
        if program.exists() and not _has_klp(program):
            shutil.rmtree(directory)
        if not program.exists():
            self.unpack()
            directory.mkdir(exist_ok=True)
            run(["make", "-C", self.orig / "tools/objtool", f"O={directory}"], self.log("objtool"))
        return program

    def refresh_checksums(self, tree: Path) -> bool:
        """Write the checksum files of a tree again if other code wrote them; False if there is nothing to do."""
        stamp = self._state(tree, "checksums")
        code = checksum_code()
        if stamp.exists() and stamp.read_text() == code:
            return False
        run([*klp_command(), "checksum", "--force", tree], self.log("checksums"))
        self.mark(tree, "checksums", code)
        return True


def _has_klp(objtool: Path) -> bool:
    done = subprocess.run([objtool, "klp", "checksum", "--help"], capture_output=True, text=True, check=False)
    return "klp checksum" in done.stdout + done.stderr


def untar(tarball: Path, target: Path, log: Path) -> None:
    """Unpack what a build reads."""
    with tarfile.open(tarball) as archive:
        first = archive.next()
    if first is None:
        raise TroubleError(f"{tarball}: an empty archive")
    top = first.name.split("/")[0]
    excludes = [f"--exclude={top}/{pattern}" for pattern in PRUNED]
    run(["tar", "-C", target, "--strip-components=1", "--anchored", *excludes, "-xf", tarball], log)


def apply_patch(tree: Path, patch: Path) -> None:
    """Apply a patch; raises TroubleError if it does not fit."""
    # The cache may lie inside a git repository of somebody's, which is not what the patch is about.
    environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(tree.parent)}
    command = ["git", "apply", "--whitespace=nowarn", str(patch)]
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise TroubleError(f"{patch}: does not apply to {tree}:\n{done.stderr.rstrip()}")


def make(tree: Path, goals: Sequence[str], log: Path, *, checksums: bool = True) -> None:
    """Run make in a tree, as a user of Makefile.klp would in a tree that was never touched."""
    # Kbuild comes to some directories of arch/x86 in two ways at once, and with it to an object that is a goal by name.
    single = any(goal.endswith(".o") for goal in goals)
    jobs = 1 if single else len(os.sched_getaffinity(0))
    command = ["make", f"-j{jobs}", f"MAKEFILES={MAKEFILE}"]
    run([*command, f"KLP_CHECKSUMS={int(checksums)}", *goals], log, cwd=tree)


def klp_command() -> list[str]:
    """Return the command line that starts kbuild-klp: KBUILD_KLP, or the environment in the checkout."""
    if os.environ.get("KBUILD_KLP"):
        return os.environ["KBUILD_KLP"].split()
    program = VENV / "bin/kbuild-klp"
    found = str(program) if program.exists() else shutil.which("kbuild-klp")
    if found is None:
        raise TroubleError("kbuild-klp is not installed: no .venv in the checkout, not in PATH; see selftests/demo.py")
    return [found]


def ask_klp(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run kbuild-klp, and return what it said, whatever its exit status."""
    command = [*klp_command(), *map(str, arguments)]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
