# SPDX-License-Identifier: GPL-2.0-only
"""Other programs: what they are given, what is made of what they say, and how they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kbuild_klp import processes
from kbuild_klp.errors import ProgramError
from kbuild_klp.processes import FedProgram, read_output, run


def _error(*command: str, cwd: Path | None = None) -> str:
    """Return the error of a program, which is one line."""
    with pytest.raises(ProgramError) as caught:
        run(command, cwd=cwd)
    text = str(caught.value)
    assert text.isprintable()
    return text


def _wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# -- what it is given -------------------------------------------------------------------------------------------------


def test_arguments_are_seen_by_no_shell() -> None:
    """A tree called `a b` or `$x` would become other words."""
    words = ["a b", "", "*", "$HOME", "'\"", "--x=\n", "ü"]
    assert run(["printf", "%s|", *words]) == "".join(f"{word}|" for word in words)


def test_a_path_is_a_word_too(tmp_path: Path) -> None:
    (tmp_path / "x y").mkdir()
    assert run(["ls", tmp_path], cwd="/") == "x y\n"
    assert run(["pwd"], cwd=tmp_path) == f"{tmp_path.resolve()}\n"


def test_what_is_parsed_is_not_translated(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a German machine, "is up to date" would be looked for in vain."""
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    monkeypatch.setenv("SEEN", "1")
    assert run(["sh", "-c", "echo $LC_ALL $SEEN"]) == "C 1\n"
    assert run(["sh", "-c", "echo $LC_ALL $SEEN"], environment={"LC_ALL": "de_DE.UTF-8"}) == "C\n"


def test_standard_input_is_empty() -> None:
    """A program that asks would wait for an answer to a question that nobody sees."""
    assert run(["readlink", "/proc/self/fd/0"]) == "/dev/null\n"


def test_no_signal_is_kept_from_it() -> None:
    """Ctrl-C is held back while a program starts; it would be for good in the program, and in all that it starts."""
    assert run(["grep", "SigBlk", "/proc/self/status"]).split()[1].strip("0") == ""


# -- what it says -----------------------------------------------------------------------------------------------------


def test_output_that_is_no_text() -> None:
    """File names are bytes: what comes out has to name the same file again."""
    assert os.fsencode(run(["printf", r"a\377b\303\274\n"])) == b"a\xffb\xc3\xbc\n"


def test_megabytes_on_both_streams() -> None:
    """A pipe that nobody empties would stop the program for good."""
    count = 100_000
    text = run(["sh", "-c", f"seq {count}; seq {count} >&2; printf end"])
    assert text == "\n".join([*map(str, range(1, count + 1)), "end"])


def test_both_streams_in_one() -> None:
    """Who looks for the reason in what a build said has to find it, wherever it was printed, and also of a failure."""
    script = "echo one; echo two >&2; echo three; exit $0"
    assert run(["sh", "-c", script, "0"], merged=True) == "one\ntwo\nthree\n"
    with pytest.raises(ProgramError, match=r"exit status 3: one \| two \| three$") as caught:
        run(["sh", "-c", script, "3"], merged=True)
    assert caught.value.output == "one\ntwo\nthree\n"


# -- how it ends ------------------------------------------------------------------------------------------------------


def test_a_failure_says_what_was_run_and_what_that_said_last() -> None:
    script = "echo out; for n in 1 2 3 4; do echo no  rule $n >&2; done; exit 2"
    assert _error("sh", "-c", script).endswith("exit 2': exit status 2: no rule 2 | no rule 3 | no rule 4")
    assert _error("sh", "-c", "seq 9; exit 255") == "sh -c 'seq 9; exit 255': exit status 255: 7 | 8 | 9"
    assert _error("false") == "false: exit status 1"


def test_a_failure_stays_one_line_of_text() -> None:
    """Colours and broken text of a program would spoil the terminal, or the log."""
    assert _error("sh", "-c", r"printf '\033[31mbad\377\r\n\n\nworse\n' >&2; exit 1").endswith("?[31mbad? | worse")


@pytest.mark.parametrize(("name", "words"), [("HUP", "1 (Hangup)"), ("KILL", "9 (Killed)"), ("USR2", "12 (User def")])
def test_killed(name: str, words: str) -> None:
    """Which signals sh takes for an error depends on its version. For us half an output is never all of it."""
    assert f"killed by signal {words}" in _error("sh", "-c", f"echo half; kill -{name} $$")


def test_a_missing_program_says_what_to_install() -> None:
    with pytest.raises(ProgramError, match=r"^no-such-xz: no such program; install xz-utils$"):
        next(read_output(["no-such-xz", "-d"], "xz-utils"))
    assert _error("/no/such/xz") == "/no/such/xz: no such program; is it installed, and in PATH?"


def test_what_cannot_be_started(tmp_path: Path) -> None:
    """The traceback of the process that was to become the program is nothing for a user."""
    text = _error("true", cwd=tmp_path / "none")
    assert text.startswith("true: cannot be started: ") and text.endswith(
        f"No such file or directory: '{tmp_path}/none'"
    )
    assert _error("true", os.fsdecode(b"\xff")).startswith("true '?': cannot be started: ")
    (tmp_path / "broken").write_bytes(b"\0\1")
    (tmp_path / "broken").chmod(0o755)
    assert "Exec format error" in _error(str(tmp_path / "broken"))


_INTERRUPTED = """
import sys
from kbuild_klp.processes import run
try:
    run(["sh", "-c", "echo $$ >pid.new; mv pid.new pid; exec sleep 60"])
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize("send", [os.kill, os.killpg], ids=["to us", "to all, as Ctrl-C"])
def test_ctrl_c_ends_both(tmp_path: Path, send: Callable[[int, int], None]) -> None:
    """A program that goes on alone would write into the tree in which the user does the next thing."""
    process = subprocess.Popen(
        [sys.executable, "-c", _INTERRUPTED], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
        # Started in the background of a script, we have inherited that SIGINT is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    _wait_for((tmp_path / "pid").exists)
    program = int((tmp_path / "pid").read_text())
    assert os.getpgid(program) == process.pid
    send(process.pid, signal.SIGINT)
    assert process.communicate(timeout=30) == ("interrupted\n", "")
    assert not Path(f"/proc/{program}").exists()


def test_ctrl_c_while_a_program_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs already, and we do not know it yet."""
    started: list[Any] = []

    def start(*arguments: Any, **options: Any) -> Any:
        started.append(real(*arguments, **options))
        os.kill(os.getpid(), signal.SIGINT)
        return started[0]

    real = processes._start
    monkeypatch.setattr(processes, "_start", start)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            run(["sleep", "60"])
    finally:
        signal.signal(signal.SIGINT, before)
    assert not Path(f"/proc/{started[0].pid}").exists()


# -- a program that reads what we write -------------------------------------------------------------------------------


def test_a_program_reads_what_we_write(tmp_path: Path) -> None:
    program = FedProgram(["sh", "-c", 'cat >"$0"; exit 3', str(tmp_path / "out")], os.environ)
    program.write("one\n")
    _wait_for(lambda: (tmp_path / "out").exists() and (tmp_path / "out").read_text() == "one\n")
    program.write("two\n")
    assert program.finish() == 3
    assert (tmp_path / "out").read_text() == "one\ntwo\n"


def test_a_program_that_reads_no_more() -> None:
    program = FedProgram(["true"], os.environ)
    with pytest.raises(BrokenPipeError):
        for _ in range(100_000):
            program.write("line\n")
    assert program.finish() == 0


def test_a_program_to_write_to_that_is_missing() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(ProgramError, match="no such program"):
        FedProgram(["/no/such/pager"], os.environ)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
