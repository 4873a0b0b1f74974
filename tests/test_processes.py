# SPDX-License-Identifier: GPL-2.0-only
"""Job slots: what the user says, what make lends and gets back, or all processors."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from kbuild_klp import processes
from kbuild_klp.errors import KlpError
from kbuild_klp.processes import job_slots, side_by_side

MANY = 1000


@pytest.fixture(autouse=True)
def no_make(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MAKEFLAGS", raising=False)
    monkeypatch.setattr(processes, "processors", lambda: 8)


def _slots(wanted: int | None, most: int = MANY) -> int:
    with job_slots(wanted, most) as slots:
        return slots


@pytest.mark.parametrize(
    ("wanted", "most", "slots"),
    [(3, MANY, 3), (3, 2, 2), (0, MANY, 1), (-5, MANY, 1), (None, MANY, 8), (None, 5, 5), (None, 0, 1), (7, 0, 1)],
)
def test_without_make(wanted: int | None, most: int, slots: int) -> None:
    assert _slots(wanted, most) == slots


@pytest.mark.parametrize(
    "flags", ["", "k", " -- KLP_CHECKSUMS=1", "-j", " -j4", " --jobserver-auth=", "w --jobserver-auth=x"]
)
def test_make_without_a_jobserver_is_one_job(monkeypatch: pytest.MonkeyPatch, flags: str) -> None:
    monkeypatch.setenv("MAKEFLAGS", flags)
    assert _slots(None) == 1


class Server:
    """A jobserver with some tokens in it."""

    def __init__(self, reader: int, writer: int, auth: str) -> None:
        self.reader, self.writer, self.auth = reader, writer, auth

    def left(self) -> bytes:
        os.set_blocking(self.reader, False)
        with suppress(BlockingIOError):
            return os.read(self.reader, 1000)
        return b""


@pytest.fixture(params=["auth", "fds", "fifo"])
def server(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The styles of make up to 4.1 (fds), 4.2 (auth) and 4.4 (fifo)."""
    if request.param == "fifo":
        path = tmp_path / "jobs"
        os.mkfifo(path)
        reader = writer = os.open(path, os.O_RDWR)
        auth = f"--jobserver-auth=fifo:{path}"
    else:
        reader, writer = os.pipe()
        auth = f"--jobserver-{request.param}={reader},{writer}"
    monkeypatch.setenv("MAKEFLAGS", f"w -j5 {auth} -- V=1")
    yield Server(reader, writer, auth)
    for descriptor in {reader, writer}:
        os.close(descriptor)


def test_tokens_are_taken_and_given_back_as_they_were(server: Server) -> None:
    os.write(server.writer, b"+a-z")
    with job_slots(None, MANY) as slots:
        assert slots == 5
        assert server.left() == b""
    assert sorted(server.left()) == sorted(b"+a-z")


def test_no_more_than_are_of_use(server: Server) -> None:
    os.write(server.writer, b"++++")
    with job_slots(None, 3) as slots:
        assert slots == 3
        assert server.left() == b"++"


def test_nobody_waits_for_tokens(server: Server) -> None:
    assert _slots(None) == 1


def test_what_the_user_says_takes_no_tokens(server: Server) -> None:
    os.write(server.writer, b"++")
    with job_slots(4, MANY) as slots:
        assert slots == 4
        assert server.left() == b"++"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_tokens_are_given_back_on_errors(server: Server, error: type[BaseException]) -> None:
    os.write(server.writer, b"++")
    with pytest.raises(error), job_slots(None, MANY):
        raise error
    assert server.left() == b"++"


def test_descriptors_that_make_did_not_pass_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A recipe without `+`."""
    for auth in ("3977,3978", "-2,-2", "99999999999,5", "fifo:/nonexistent/jobs"):
        monkeypatch.setenv("MAKEFLAGS", f" -j4 --jobserver-auth={auth}")
        assert _slots(None) == 1


def test_descriptors_that_are_something_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Up to 4.3 make does not close them for recipes without `+`; others may have opened a file at that number."""
    file = (tmp_path / "log").open("wb+")
    file.write(b"precious")
    file.flush()
    file.seek(0)
    monkeypatch.setenv("MAKEFLAGS", f" -j4 --jobserver-auth={file.fileno()},{file.fileno()}")
    assert _slots(None) == 1
    assert (tmp_path / "log").read_bytes() == b"precious"
    assert file.tell() == 0
    file.close()


def test_the_last_auth_counts(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    """Make appends; the manual says that the last one is the one."""
    monkeypatch.setenv("MAKEFLAGS", f" -j --jobserver-auth=3977,3978 {server.auth}")
    os.write(server.writer, b"+")
    assert _slots(None) == 2


_SCRIPT = """
import sys, time
from kbuild_klp.processes import job_slots
import kbuild_klp.processes
kbuild_klp.processes.processors = lambda: 64
with job_slots(None, 64) as slots:
    print("slots", slots, flush=True)
    if "fail" in sys.argv:
        raise SystemExit(1)
"""


@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
@pytest.mark.parametrize(("plus", "slots"), [("+", 4), ("", 1)])
def test_under_a_real_make(tmp_path: Path, plus: str, slots: int) -> None:
    """Make itself complains when a token is missing or is one too many at its end."""
    (tmp_path / "script.py").write_text(_SCRIPT)
    (tmp_path / "Makefile").write_text(
        f"all: two\none:\n\t{plus}@{sys.executable} script.py\n"
        f"fails: one\n\t-{plus}@{sys.executable} script.py fail\ntwo: fails\n\t{plus}@{sys.executable} script.py\n"
    )
    environment = {name: value for name, value in os.environ.items() if "MAKE" not in name and name != "MFLAGS"}
    done = subprocess.run(["make", "-j4"], cwd=tmp_path, capture_output=True, text=True, env=environment, timeout=60)
    found = [line for line in done.stdout.splitlines() if line.startswith("slots")]
    assert done.returncode == 0, done.stderr
    assert "token" not in done.stderr.lower()
    # Without `+` make 4.3 leaves the descriptors open, but does not promise them; 4.4's fifo works for everybody.
    expected = {f"slots {slots}"} if plus else {"slots 1", "slots 4"}
    assert len(found) == 3 and set(found) <= expected


# -- two things at a time ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", [1, 2])
def test_two_things_are_done_wherever(wanted: int) -> None:
    numbers = np.arange(1000)
    first, (second, made, process) = side_by_side(os.getpid, lambda: ("second", {1: numbers * 2}, os.getpid()), wanted)
    assert (first, second) == (os.getpid(), "second")
    assert (made[1] == numbers * 2).all()
    assert (process == first) == (wanted == 1)


def test_what_fails_in_the_other_process_fails_here() -> None:
    here = os.getpid()

    def fail() -> str:
        raise KlpError("not an object", file=str(os.getpid()))

    with pytest.raises(KlpError) as raised:
        side_by_side(lambda: 1, fail, 2)
    assert raised.value.file == str(here)


def test_what_the_other_process_cannot_do_is_done_here() -> None:
    """It may be killed where memory is short, or make something that cannot be sent."""
    here = os.getpid()

    def die() -> int:
        if os.getpid() != here:
            os.kill(os.getpid(), signal.SIGKILL)
        return os.getpid()

    assert side_by_side(lambda: 1, die, 2) == (1, here)
    _, file = side_by_side(lambda: 1, lambda: os.fdopen(os.open(os.devnull, os.O_RDONLY)), 2)
    file.close()


def _children() -> set[str]:
    """Return our processes; other tests may have left one."""
    return {number for path in Path("/proc/self/task").glob("*/children") for number in path.read_text().split()}


def test_an_error_here_leaves_no_process() -> None:
    before = _children()

    def fail() -> None:
        raise KlpError("gone", file="x")

    with pytest.raises(KlpError):
        side_by_side(fail, signal.pause, 2)
    assert _children() == before
