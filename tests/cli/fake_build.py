# SPDX-License-Identifier: GPL-2.0-only
"""Small build trees with real objects, and the program as a user starts it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from samples import compile_object

MAIN = """
extern int printk(const char *, ...);
int limit = 10;
int start(int x) { return printk("start %d\\n", x + limit); }
int stop(int x) { return printk("stop\\n") - x; }
"""
DRIVER = "extern int start(int); int probe(int x) { return start(x) + 1; }\n"
SHARED = "int shared(int x) { return x * 3; }\n"


class Result(NamedTuple):
    """What a run of the program came to."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def klp(*arguments: str | Path, cwd: Path | None = None, timeout: float = 60, **environment: str) -> Result:
    """Run the program in a pipe; whatever happens, there is no traceback and no more than one line for an error."""
    done = subprocess.run(
        [sys.executable, "-m", "kbuild_klp", *map(str, arguments)],
        capture_output=True,
        text=True,
        errors="surrogateescape",
        cwd=cwd,
        timeout=timeout,
        env={**clean_environment(), **environment},
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    return Result(done.returncode, done.stdout, done.stderr)


def clean_environment() -> dict[str, str]:
    """The environment without what make or a user's settings put there, and without a pager, which waits for a key."""
    # Without a buffer there is nothing to be written at exit that could fail once more.
    drop = ("MAKEFLAGS", "MFLAGS", "NO_COLOR", "KLP_DEBUG", "COLUMNS", "LINES", "PAGER", "LESS", "PYTHONUNBUFFERED")
    return {**{name: value for name, value in os.environ.items() if name not in drop}, "KLP_PAGER": "cat"}


class FakeBuild:
    """A directory that looks as if kbuild had linked a vmlinux and two modules in it."""

    def __init__(self, root: Path, main: str = MAIN, driver: str = DRIVER, shared: str = SHARED) -> None:
        self.root = root
        self.write("include/config/auto.conf", "CONFIG_X86_64=y\nCONFIG_MODULES=y\n")
        self.write("include/generated/autoconf.h", "")
        self.compile("init/main.o", main)
        self.compile("drivers/driver.o", driver)
        self.compile("drivers/shared.o", shared)
        self.link("init/main.o")
        self.module("drivers/one", "drivers/driver.o", "drivers/shared.o")
        self.module("drivers/two", "drivers/shared.o")
        self.order("drivers/one", "drivers/two")

    def write(self, name: str, text: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def compile(self, name: str, source: str, *flags: str) -> Path:
        return compile_object(source, self.root / name, *flags)

    def link(self, *objects: str) -> None:
        (self.root / "vmlinux.a").unlink(missing_ok=True)
        subprocess.run(["ar", "cDPrST", "vmlinux.a", *objects], cwd=self.root, check=True)
        subprocess.run(["ar", "cDPrST", "built-in.a", *objects], cwd=self.root, check=True)
        self.write("vmlinux.o", "")
        os.utime(self.root / "vmlinux.a", ns=(2 * 10**18,) * 2)

    def module(self, path: str, *objects: str) -> None:
        self.write(f"{path}.mod", "".join(f"{name}\n" for name in objects))

    def order(self, *modules: str) -> None:
        self.write("drivers/modules.order", "".join(f"{name}.o\n" for name in modules))
        self.write("modules.order", "".join(f"{name}.o\n" for name in modules))
        self.write(
            ".modules.order.cmd", "savedcmd_modules.order := {   cat drivers/modules.order; :; } > modules.order\n"
        )

    def sum_file(self, name: str) -> Path:
        directory, _, file = name.rpartition("/")
        return self.root / directory / f".{file}.klp.cmd"
