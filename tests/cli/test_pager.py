# SPDX-License-Identifier: GPL-2.0-only
"""The pager: when an answer goes through it, what it gets, and that it changes nothing else."""

from __future__ import annotations

import fcntl
import os
import pty
import shutil
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from fake_build import DRIVER, MAIN, FakeBuild, clean_environment

from kbuild_klp.cli import pager
from kbuild_klp.errors import KlpError

DIFF = ("diff", "old", "new")
ROWS = 4  # of the terminal, which the answer to DIFF does not fit on

# Notes what it gets, and is seen on the terminal.
_PAGER = '#!/bin/sh\ncat >>"$SEEN"\necho "[${0##*/} $* $LESS]"\n'


class Shown(NamedTuple):
    """What a run on a terminal came to: what was seen there, and what went to standard error."""

    status: int
    screen: str
    errors: str


class Terminal:
    """The program on a terminal of its own, in a directory with two builds that differ."""

    def __init__(self, builds: Path, scratch: Path) -> None:
        self.builds = builds
        self.scratch = scratch
        self.seen = scratch / "seen"
        self.program = ["-m", "kbuild_klp"]
        self.has_errors = False  # whether standard error is the terminal too
        self.environment = {**clean_environment(), "TERM": "xterm", "SEEN": str(self.seen)}
        del self.environment["KLP_PAGER"]
        self.screen = b""

    def script(self, name: str, text: str = _PAGER) -> Path:
        """Make a program in a directory that is the first in PATH."""
        path = self.scratch / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
        self.environment["PATH"] = f"{path.parent}:{os.environ['PATH']}"
        return path

    def start(self, *arguments: str, rows: int = ROWS, **environment: str) -> None:
        self._leader, follower = pty.openpty()
        fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", rows, 80, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, *self.program, *arguments],
            cwd=self.builds, stdin=follower, stdout=follower,
            stderr=follower if self.has_errors else subprocess.PIPE,
            env={**self.environment, **environment},
            # The terminal is ours, so that Ctrl-C on it is a signal for all of us.
            start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(follower)

    def type(self, keys: bytes) -> None:
        os.write(self._leader, keys)

    def read_until(self, what: bytes) -> None:
        while what not in self.screen:
            self.screen += os.read(self._leader, 4096)

    def finish(self) -> Shown:
        while True:
            try:
                block = os.read(self._leader, 4096)
            except OSError:  # closed by all who had it
                break
            self.screen += block
        os.close(self._leader)
        _, errors = self.process.communicate(timeout=60)
        return Shown(self.process.returncode, self.screen.decode().replace("\r\n", "\n"), (errors or b"").decode())

    def run(self, *arguments: str, rows: int = ROWS, **environment: str) -> Shown:
        self.seen.unlink(missing_ok=True)
        self.screen = b""
        self.start(*arguments, rows=rows, **environment)
        return self.finish()

    @property
    def paged(self) -> str | None:
        """What the pager was given, None if it did not run."""
        return self.seen.read_text() if self.seen.exists() else None


@pytest.fixture(scope="module")
def builds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("builds")
    FakeBuild(root / "old")
    FakeBuild(root / "new", MAIN.replace("x + limit", "x - limit"), DRIVER.replace("+ 1", "+ 2"))
    return root


@pytest.fixture
def terminal(builds: Path, tmp_path: Path) -> Terminal:
    return Terminal(builds, tmp_path)


def _wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# -- when -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [DIFF, (*DIFF, "--json"), ("explain", *DIFF[1:])], ids=" ".join)
def test_an_answer_longer_than_the_screen(terminal: Terminal, arguments: tuple[str, ...]) -> None:
    """Its first lines would be out of sight, and its colours lost, were they decided by the pipe to the pager."""
    plain = terminal.run(*arguments, "--no-pager")
    paged = terminal.run(*arguments, KLP_PAGER=str(terminal.script("mine")))
    assert terminal.paged == plain.screen
    assert plain.screen.startswith("\x1b[1m") is ("--json" not in arguments)
    assert paged == (1, "[mine  FRX]\n", "")


def test_an_answer_that_fits_is_just_printed(terminal: Terminal) -> None:
    """Nobody wants to press a key, or to wait for a program to start, to see three lines."""
    terminal.environment["KLP_PAGER"] = str(terminal.script("mine"))
    plain = terminal.run(*DIFF, "--no-pager")
    lines = plain.screen.count("\n")
    assert terminal.run(*DIFF, rows=lines + 1) == plain and terminal.paged is None
    terminal.run(*DIFF, rows=lines)
    assert terminal.paged == plain.screen


def test_lines_that_the_terminal_breaks_count_as_it_shows_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "get_terminal_size", lambda: os.terminal_size((10, 4)))
    for lines, is_long in (
        (["a" * 10, "", "a"], False),
        (["a" * 10, "", "a", ""], True),
        (["a" * 11, "b"], False),
        (["a" * 11, "b", ""], True),
        (["\x1b[31m" + "a" * 10 + "\x1b[m"] * 3, False),
    ):
        taken: list[str] = []
        assert pager._fills_the_screen(iter(lines), taken) is is_long
        assert taken == lines


def test_which_pager(terminal: Terminal) -> None:
    """As git has it, with KLP_PAGER for GIT_PAGER: what is set decides, though it be empty."""
    mine, other = str(terminal.script("mine")), str(terminal.script("other"))
    terminal.script("less")
    assert terminal.run(*DIFF, KLP_PAGER=f"{mine} -a 'b c'", PAGER=other).screen == "[mine -a b c FRX]\n"
    assert terminal.run(*DIFF, PAGER=other, LESS="S").screen == "[other  S]\n"
    assert terminal.run(*DIFF).screen == "[less  FRX]\n"
    assert terminal.run(*DIFF, LESS="").screen == "[less  ]\n"
    assert terminal.run(*DIFF, KLP_PAGER="", PAGER=other).screen.startswith("\x1b[1mvmlinux")
    assert terminal.run(*DIFF, PAGER="cat").screen.startswith("\x1b[1mvmlinux")


@pytest.mark.parametrize("unwanted", ["--no-pager before", "--no-pager after", "dumb", "", " ", "cat"])
def test_no_pager_where_none_is_wanted(terminal: Terminal, unwanted: str) -> None:
    mine = str(terminal.script("mine"))
    option = {"--no-pager before": ("--no-pager", *DIFF), "--no-pager after": (*DIFF, "--no-pager")}
    environment = {"KLP_PAGER": mine if option.get(unwanted) or unwanted == "dumb" else unwanted, "PAGER": mine}
    terminal.environment |= {**environment, "TERM": "dumb" if unwanted == "dumb" else "xterm"}
    shown = terminal.run(*option.get(unwanted, DIFF))
    assert (shown.status, terminal.paged) == (1, None)
    assert "changed   " in shown.screen.replace("\x1b[33m", "").replace("\x1b[m", "")


def test_a_pipe_is_for_programs(terminal: Terminal) -> None:
    """A script that calls us from a terminal would wait for a key for ever."""
    done = subprocess.run(
        [sys.executable, "-m", "kbuild_klp", *DIFF], cwd=terminal.builds, capture_output=True, text=True,
        env={**terminal.environment, "KLP_PAGER": str(terminal.script("mine")), "LINES": "2"},
    )  # fmt: skip
    assert (done.returncode, terminal.paged) == (1, None)
    assert done.stdout.startswith("vmlinux\n")


# -- what it does not change ------------------------------------------------------------------------------------------


def test_what_is_not_the_answer_stays_out_of_it(terminal: Terminal, tmp_path: Path) -> None:
    for side in ("old", "new"):
        shutil.copytree(terminal.builds / side, tmp_path / side, symlinks=True)
    terminal.builds = tmp_path
    (tmp_path / "new/drivers/shared.o").write_bytes(b"broken")
    shown = terminal.run(*DIFF, KLP_PAGER=str(terminal.script("mine")), rows=5)
    assert shown.status == 2 and shown.errors.startswith("kbuild-klp: not compared: ")
    assert terminal.paged is not None and "kbuild-klp:" not in terminal.paged


@pytest.mark.parametrize("leave", ["exit 0", "head -n 1 >/dev/null; exit 3", "kill -TERM $$"])
def test_leaving_the_pager_early(terminal: Terminal, leave: str) -> None:
    """`q` is not an error, and there are changes, whether or not all of them were looked at."""
    assert terminal.run("explain", *DIFF[1:], KLP_PAGER=leave) == (1, "", "")


def test_lines_that_nobody_waits_for_are_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """After `q`, the rest of an explanation of a thousand functions would keep the user from the prompt."""
    asked: list[int] = []

    class Left:
        def __init__(self, *_: object) -> None: ...

        def write(self, text: str) -> None:
            raise BrokenPipeError

        def finish(self) -> int:
            return 0

    def lines() -> Iterator[str]:
        for number in range(10_000):
            asked.append(number)
            yield "line"

    monkeypatch.setattr(pager, "FedProgram", Left)
    monkeypatch.setattr(pager, "_command", lambda: "less")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    pager.show(lines(), paged=True)
    assert len(asked) < 1000


@pytest.mark.parametrize("missing", ["/no/such/pager", "no-such-pager -R", "/dev/null"])
def test_a_pager_that_cannot_be_run(terminal: Terminal, missing: str) -> None:
    """PAGER=most in the settings, and a machine without it: the answer must not be lost."""
    plain = terminal.run(*DIFF, "--no-pager")
    shown = terminal.run(*DIFF, KLP_PAGER=missing)
    assert (shown.status, shown.screen) == (1, plain.screen)
    assert missing.split()[0] in shown.errors  # from sh


def test_no_less_and_no_library_to_run_it(terminal: Terminal, tmp_path: Path) -> None:
    plain = terminal.run(*DIFF, "--no-pager")
    (tmp_path / "without").mkdir()
    assert terminal.run(*DIFF, PATH=str(tmp_path / "without")) == plain
    (tmp_path / "without/sh.py").write_text("raise ModuleNotFoundError(name='sh')\n")
    path = f"{tmp_path / 'without'}:{os.environ.get('PYTHONPATH', '')}"
    assert terminal.run(*DIFF, KLP_PAGER=str(terminal.script("mine")), PYTHONPATH=path) == plain


_PATIENT = """#!/bin/sh
trap 'echo interrupted >>"$SEEN"' INT
cat >>"$SEEN"
until [ -e "$SEEN.go" ]; do sleep 0.05; done
"""


def test_ctrl_c_is_for_the_pager(terminal: Terminal) -> None:
    """In less it stops a search. We would die of it, and leave less and the shell to fight for the keyboard."""
    terminal.start(*DIFF, KLP_PAGER=str(terminal.script("patient", _PATIENT)))
    _wait_for(lambda: "of 3 objects" in (terminal.paged or ""))
    terminal.type(b"\x03")
    _wait_for(lambda: (terminal.paged or "").endswith("interrupted\n"))
    assert terminal.process.poll() is None
    terminal.seen.with_suffix(".go").touch()
    shown = terminal.finish()
    assert (shown.status, shown.errors) == (1, "")


@pytest.mark.skipif(shutil.which("less") is None, reason="no less")
def test_less_itself(terminal: Terminal) -> None:
    terminal.start("explain", *DIFF[1:], rows=6)
    terminal.read_until(b"init/main.o")
    assert terminal.process.poll() is None
    terminal.type(b"q")
    shown = terminal.finish()
    assert (shown.status, shown.errors) == (1, "")


def test_an_error_half_way_comes_after_what_was_found_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lines that are held back until there is a screenful must not be lost with it."""

    def lines() -> Iterator[str]:
        yield "one"
        raise KlpError("broken")

    monkeypatch.setattr(pager, "_command", lambda: "less")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    with pytest.raises(KlpError):
        pager.show(lines(), paged=True)
    assert capsys.readouterr().out == "one\n"


_IMPATIENT = """
import sys
from kbuild_klp.cli import main, progress
progress._PATIENCE = -1
sys.exit(main.main(sys.argv[1:]))
"""


def test_progress_does_not_write_over_the_pager(terminal: Terminal) -> None:
    """The next object is explained while the first one is read."""
    terminal.program = ["-c", _IMPATIENT]
    terminal.has_errors = True
    shown = terminal.run("explain", *DIFF[1:], KLP_PAGER=str(terminal.script("mine")))
    assert "explained: 0/2" in shown.screen and "explained: 1/2" not in shown.screen
    assert shown.screen.endswith("\r\x1b[K[mine  FRX]\n")
    shown = terminal.run("explain", *DIFF[1:], "--no-pager")
    assert "\rexplained: 1/2\x1b[K\r\x1b[K\x1b[1mdrivers/driver.o" in shown.screen
