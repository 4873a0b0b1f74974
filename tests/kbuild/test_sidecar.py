# SPDX-License-Identifier: GPL-2.0-only
"""The stand-in for objtool: transparent, cheap, and every object reaches the collector."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import kbuild_klp.kbuild

SIDECAR = Path(kbuild_klp.kbuild.__file__).parent / "objtool"

# Stands for the interpreter: the real collector, with a writer that notes what it is given.
_COLLECTOR = """\
import os, sys, types
batch = types.ModuleType("kbuild_klp.checksum.batch")
class Result:
    errors = []
def write_checksums(paths, jobs):
    with open(os.environ["BATCHES"], "a") as file:
        file.write("".join(f"{os.getpid()} {path}\\n" for path in paths))
    return Result
batch.write_checksums = write_checksums
sys.modules["kbuild_klp.checksum.batch"] = batch
from kbuild_klp.kbuild.collector import run
sys.exit(run(sys.argv[1:]))
"""


class Objtree:
    """A directory with an objtool that notes its arguments, and a collector that notes its batches."""

    def __init__(self, root: Path) -> None:
        self.root = root / "objtree"
        self.batches = root / "batches"
        self.starts = root / "starts"
        (self.root / "tools" / "objtool").mkdir(parents=True)
        self.objtool = self.root / "tools" / "objtool" / "objtool"
        self.objtool.write_text('#!/bin/sh\necho "out $*"\necho "err $*" >&2\nexit ${STATUS:-0}\n')
        self.objtool.chmod(0o755)
        # The stand-in looks for kbuild_klp in the command line.
        script = root / "kbuild_klp_collector.py"
        script.write_text(_COLLECTOR)
        python = root / "python-kbuild_klp"
        python.write_text(
            f'#!/bin/sh\necho $$ >>{self.starts}\nexec {os.path.realpath(sys.executable)} {script} "$3"\n'
        )
        python.chmod(0o755)
        site = next(path for path in sys.path if path.endswith("site-packages"))
        self.environment = {
            "PATH": os.environ["PATH"],
            "KLP_PYTHON": str(python),
            "KLP_COLLECTOR_IDLE": "0.5",
            "BATCHES": str(self.batches),
            "PYTHONPATH": site,
        }

    def object(self, name: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\x7fELF")
        return path

    def run(self, *arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [SIDECAR, *arguments],
            cwd=cwd or self.root,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    def collected(self) -> list[str]:
        return [line.split()[1] for line in self.batches.read_text().splitlines()] if self.batches.exists() else []

    def processes(self) -> list[int]:
        return [int(line) for line in self.starts.read_text().split()] if self.starts.exists() else []

    def alive(self) -> list[int]:
        return [pid for pid in self.processes() if Path(f"/proc/{pid}").exists()]


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def objtree(tmp_path: Path) -> Iterator[Objtree]:
    tree = Objtree(tmp_path)
    yield tree
    wait_for(lambda: not tree.alive())


COMMAND_LINES = [
    ["--hacks=jump_label", "--mcount", "--orc", "--retpoline", "--prefix=16", "kernel/fork.o"],
    ["--ibt", "--link", "--noinstr", "--unret", "--prefix", "16", "--stackval", "kernel/fork.o"],
    ["--module", "--link", "--orc", "kernel/fork.o"],
    ["check", "--no-fp", "--retpoline", "kernel/fork.o"],
    ["orc", "generate", "--module", "--no-fp", "--retpoline", "--uaccess", "kernel/fork.o"],
    ["--orc", "-o", "kernel/fork.o", "kernel/in.o"],
    ["--orc", "--output", "kernel/fork.o", "kernel/in.o"],
    ["--orc", "--output=kernel/fork.o", "kernel/in.o"],
    ["--Werror", "--sec-address", "kernel/fork.o"],
]


@pytest.mark.parametrize("arguments", COMMAND_LINES, ids=" ".join)
def test_object_of_every_command_line(objtree: Objtree, arguments: list[str]) -> None:
    path = objtree.object("kernel/fork.o")
    done = objtree.run(*arguments)
    text = " ".join(arguments)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"out {text}\n", f"err {text}\n")
    wait_for(lambda: objtree.collected() == [str(path)])


@pytest.mark.parametrize("status", ["1", "255", "139"])
def test_failure_is_passed_on_and_not_queued(objtree: Objtree, status: str) -> None:
    objtree.object("a.o")
    assert objtree.run("--orc", "a.o", STATUS=status).returncode == int(status)
    assert sorted(path.name for path in objtree.root.iterdir()) == ["a.o", "tools"]


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        (["klp", "diff", "a.o", "b.o", "c.o"], {}),
        (["klp", "checksum", "a.o"], {}),
        (["--help"], {}),
        (["none.o"], {}),
        (["a.o"], {"KLP_CHECKSUMS": "0"}),
    ],
)
def test_not_queued(objtree: Objtree, arguments: list[str], environment: dict[str, str]) -> None:
    objtree.object("a.o")
    done = objtree.run(*arguments, cwd=None, **environment)
    assert (done.returncode, done.stdout) == (0, f"out {' '.join(arguments)}\n")
    assert objtree.processes() == []


def test_missing_objtool(objtree: Objtree) -> None:
    assert objtree.run("a.o", KLP_OBJTOOL="/nonexistent/objtool").returncode == 127


def test_pointing_at_itself(objtree: Objtree, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(SIDECAR)
    wrapper = tmp_path / "wrapper"
    wrapper.write_text(f'#!/bin/sh\nexec {SIDECAR} "$@"\n')
    wrapper.chmod(0o755)
    for real in (SIDECAR, link, wrapper):
        done = objtree.run("a.o", KLP_OBJTOOL=str(real))
        assert done.returncode == 127
        assert "not this stand-in" in done.stderr


def test_external_module_before_6_13(objtree: Objtree, tmp_path: Path) -> None:
    module = tmp_path / "module"
    module.mkdir()
    (module / "m.o").touch()
    objtree.run(f"{module}/m.o", KBUILD_EXTMOD=str(module), objtree=".")
    wait_for(lambda: objtree.collected() == [f"{module}/m.o"])
    assert (module / ".klp-queue.tmp").exists()
    assert not (objtree.root / ".klp-queue.tmp").exists()


def test_external_module_from_6_13(objtree: Objtree, tmp_path: Path) -> None:
    output = tmp_path / "output"
    output.mkdir()
    (output / "m.o").touch()
    done = objtree.run("--orc", "m.o", cwd=output, KBUILD_EXTMOD="../module", objtree=str(objtree.root))
    assert done.stdout == "out --orc m.o\n"
    wait_for(lambda: objtree.collected() == [f"{output}/m.o"])
    assert (output / ".klp-queue.tmp").exists()


def test_unwritable_directory_is_no_trouble(objtree: Objtree) -> None:
    objtree.object("a.o")
    (objtree.root / ".klp-queue.tmp").mkdir()
    done = objtree.run("a.o")
    assert (done.returncode, done.stdout, done.stderr) == (0, "out a.o\n", "err a.o\n")


def test_many_objects_few_interpreters_and_none_lost(objtree: Objtree) -> None:
    """Parallel jobs, in several waves with pauses about as long as the collector's patience."""
    paths = [objtree.object(f"d/{number}.o") for number in range(120)]
    command = f'printf "%s\\n" "$@" | xargs -P 8 -n 1 {SIDECAR} --orc'
    for wave in range(4):
        some = [str(path) for path in paths[wave::4]]
        subprocess.run(
            ["sh", "-c", command, "sh", *some],
            cwd=objtree.root,
            env=objtree.environment,
            check=True,
            capture_output=True,
            timeout=60,
        )
        time.sleep(0.45 + wave * 0.1)
    wait_for(lambda: len(set(objtree.collected())) == len(paths))
    assert sorted(objtree.collected()) == sorted(map(str, paths))
    # Four waves, and now and then a collector that ran out of patience on a busy machine.
    assert len(objtree.processes()) <= len(paths) // 4


def test_killed_collector_is_replaced_and_nothing_lost(objtree: Objtree) -> None:
    first, second = objtree.object("1.o"), objtree.object("2.o")
    objtree.run("1.o", KLP_COLLECTOR_IDLE="60")
    wait_for(lambda: objtree.collected() == [str(first)])
    os.kill(objtree.processes()[0], signal.SIGKILL)
    wait_for(lambda: not objtree.alive())
    assert (objtree.root / ".klp-collector.tmp").exists()
    objtree.run("2.o")
    wait_for(lambda: str(second) in objtree.collected())


def test_process_number_of_somebody_else(objtree: Objtree) -> None:
    """After a crash, a number in the file may belong to any process by now."""
    path = objtree.object("1.o")
    (objtree.root / ".klp-collector.tmp").write_text(f"{os.getppid()}\n")
    objtree.run("1.o")
    wait_for(lambda: objtree.collected() == [str(path)])


def test_does_not_hold_a_pipe_open(objtree: Objtree) -> None:
    objtree.object("1.o")
    # The collector stays for much longer than the pipe may: a reader that waits for it runs into the time limit.
    done = subprocess.run(
        ["sh", "-c", f"{SIDECAR} 1.o 2>&1 | cat"],
        cwd=objtree.root,
        timeout=10,
        env={**objtree.environment, "KLP_COLLECTOR_IDLE": "12"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert done.stdout == "out 1.o\nerr 1.o\n"
    wait_for(lambda: len(objtree.collected()) == 1)
    collector = objtree.processes()[0]
    files = Path(f"/proc/{collector}/fd")
    assert {(files / number).readlink() for number in "012"} == {Path("/dev/null")}
    assert os.getsid(collector) == collector


def test_make_clean_while_the_collector_runs(objtree: Objtree) -> None:
    objtree.object("1.o")
    path = objtree.object("2.o")
    objtree.run("1.o")
    wait_for(lambda: len(objtree.collected()) == 1)
    for file in objtree.root.glob(".klp-*.tmp"):
        file.unlink()
    objtree.run("2.o")
    wait_for(lambda: str(path) in objtree.collected())
