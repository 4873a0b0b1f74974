# SPDX-License-Identifier: GPL-2.0-only
"""The command line itself: help, errors in one line, colour, pipes, interrupts."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_build import MAIN, FakeBuild, clean_environment, klp
from samples import compile_object

from kbuild_klp.cli import main as command_line
from kbuild_klp.errors import KlpError

COMMANDS = tuple(command_line._COMMANDS)


@pytest.fixture(scope="module")
def builds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("main")
    FakeBuild(root / "old")
    FakeBuild(root / "new", MAIN.replace("x + limit", "x - limit").replace("stop(int x)", "stop(long long x)"))
    assert klp("diff", "old", "new", cwd=root).status == 1
    return root


def test_help_lists_every_command() -> None:
    result = klp("--help")
    assert (result.status, result.err) == (0, "")
    for command in COMMANDS:
        assert re.search(rf"^    {command}\s", result.out, re.MULTILINE)
    assert "Exit status: 0 no change, 1 changes, 2 trouble." in result.out


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command(command: str) -> None:
    result = klp(command, "--help")
    assert (result.status, result.err) == (0, "")
    assert result.out.startswith(f"usage: kbuild-klp {command} ")
    assert all(len(line) <= 80 for line in result.out.splitlines())


@pytest.mark.parametrize("command", COMMANDS)
def test_options_that_do_not_exist(command: str) -> None:
    result = klp(command, "--nonsense", "x", "y", "z")
    assert (result.status, result.out) == (2, "")
    assert "usage: kbuild-klp" in result.err


def test_no_command_and_a_wrong_one() -> None:
    for arguments in ((), ("frobnicate",), ("difff", "a", "b")):
        result = klp(*arguments)
        assert (result.status, result.out) == (2, "")
        assert "usage: kbuild-klp" in result.err


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed(builds: Path, closed: str) -> None:
    """What is opened first would take their place, and what we print would go into it."""
    command = ["sh", "-c", f'"$@" {closed}', "sh", sys.executable, "-m", "kbuild_klp", "diff", "old", "new"]
    result = subprocess.run(command, cwd=builds, env=clean_environment(), capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (1, "")
    assert ("changed" in result.stdout) == (">&-" not in closed.split())


def test_version() -> None:
    result = klp("--version")
    assert result.status == 0 and re.fullmatch(r"kbuild-klp \d+\.\d+\.\d+\n", result.out)


@pytest.mark.parametrize(
    "arguments",
    [
        ("checksum", "nowhere"),
        ("checksum", "nowhere.o"),
        ("checksum", "."),
        ("diff", "nowhere", "nowhere"),
        ("diff", "nowhere"),
        ("diff", "--kept", "nowhere"),
        ("diff", "--kept", "a", "b"),
        ("diff", "a", "b", "c"),
        ("explain", "nowhere", "nowhere", "x"),
        ("export", "nowhere", "-o", "x"),
        ("base", "nowhere"),
        ("base", "--clean", "nowhere"),
        ("install", "nowhere"),
        ("uninstall", "nowhere"),
        ("status", "nowhere"),
        ("install", "."),
        ("uninstall", "."),
    ],
)
def test_wrong_paths_are_one_line(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    result = klp(*arguments, cwd=tmp_path)
    assert (result.status, result.out) == (2, "")
    (line,) = result.err.splitlines()
    assert line.startswith("kbuild-klp: ")
    assert list(tmp_path.iterdir()) == []


# -- checksum, export, base, status -----------------------------------------------------------------------------------


def test_checksum(tmp_path: Path) -> None:
    build = FakeBuild(tmp_path / "tree")
    assert klp("checksum", "tree", cwd=tmp_path) == (0, "3 checksum files written, 0 up to date\n", "")
    assert klp("checksum", "tree", cwd=tmp_path) == (0, "0 checksum files written, 3 up to date\n", "")
    assert klp("checksum", "--force", "-j2", "tree", cwd=tmp_path).out.startswith("3 checksum files written")
    assert klp("checksum", "--quiet", "tree", cwd=tmp_path) == (0, "", "")
    build.compile("init/main.o", MAIN)
    assert klp("checksum", "tree/init/main.o", cwd=tmp_path) == (0, "1 checksum files written, 0 up to date\n", "")
    (tmp_path / "tree/init/main.o").write_bytes(b"broken")
    result = klp("checksum", "tree", cwd=tmp_path)
    assert result.status == 2
    hint = "rebuild the object, or name one: .o, .ko (.xz, .zst, .gz), lib.a(member.o)"
    assert result.err == f"kbuild-klp: {tmp_path}/tree/init/main.o: not an ELF file; {hint}\n"
    (tmp_path / "tree/init/main.o").unlink()
    result = klp("checksum", "tree", cwd=tmp_path)
    assert result.status == 0 and "1 linked objects are not there any more" in result.err


def test_checksum_after_a_build_is_quiet_and_tolerant(tmp_path: Path) -> None:
    FakeBuild(tmp_path / "tree")
    assert klp("checksum", "--built", "tree", cwd=tmp_path) == (0, "", "")
    assert (tmp_path / "tree/init/.main.o.klp.cmd").exists()
    (tmp_path / "tree/drivers/driver.o").unlink()
    (tmp_path / "tree/vmlinux.a").unlink()
    assert klp("checksum", "--built", "tree", cwd=tmp_path) == (0, "", "")
    (tmp_path / "empty").mkdir()
    assert klp("checksum", "--built", "empty", cwd=tmp_path) == (0, "", "")


def test_export(builds: Path, tmp_path: Path) -> None:
    result = klp("export", builds / "old", "-o", "x.klp", cwd=tmp_path)
    assert result == (0, "x.klp: checksums of 3 objects in 3 link units\n", "")
    first = (tmp_path / "x.klp").read_bytes()
    assert klp("export", builds / "old", "-o", "x.klp", "-q", cwd=tmp_path) == (0, "", "")
    assert (tmp_path / "x.klp").read_bytes() == first
    result = klp("export", builds / "old", "-o", "no/where.klp", cwd=tmp_path)
    assert result.status == 2 and "no/where.klp: No such file or directory; give another -o FILE" in result.err
    assert klp("export", builds / "old", cwd=tmp_path).status == 2


def test_base(tmp_path: Path) -> None:
    FakeBuild(tmp_path / "tree")
    result = klp("base", "tree", cwd=tmp_path)
    assert result.status == 0 and "kept 3 objects" in result.out
    assert klp("base", "--clean", "tree", cwd=tmp_path).out.endswith("the base was removed\n")
    assert klp("base", "--clean", "tree", cwd=tmp_path).out.endswith("no base was kept\n")
    assert klp("base", "-q", "tree", cwd=tmp_path) == (0, "", "")


def test_status_knows_its_own_files() -> None:
    for option, name in (("--sidecar", "objtool"), ("--makefile", "Makefile.klp")):
        result = klp("status", option)
        assert (result.status, result.err) == (0, "")
        assert Path(result.out.strip()).name == name and Path(result.out.strip()).is_file()


# -- what goes wrong inside -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (IndexError("list index"), "internal error: IndexError: list index; please report it, with KLP_DEBUG=1 set"),
        (MemoryError(), "out of memory"),
        (RecursionError("deep"), "internal error: RecursionError"),
        (OSError(28, "No space left on device", "a/b"), "a/b: No space left on device"),
        (OSError("odd"), "odd"),
        (KlpError("wrong", file="f", place="line 3", hint="do this"), "f: line 3: wrong; do this"),
        (UnicodeEncodeError("utf-8", "\udcff", 0, 1, "no"), "internal error: UnicodeEncodeError"),
    ],
)
def test_no_exception_gets_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception, says: str
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("kbuild_klp.cli.diff.open_sides", fail)
    monkeypatch.delenv("KLP_DEBUG", raising=False)
    assert command_line.main(["diff", "a", "b"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"kbuild-klp: {says}") and captured.err.count("\n") == 1


def test_a_fault_in_explaining_costs_the_words_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], builds: Path
) -> None:
    def fail(*_: object) -> None:
        raise IndexError("oh")

    monkeypatch.setattr("kbuild_klp.compare.second_look.explain_changes", fail)
    monkeypatch.delenv("KLP_DEBUG", raising=False)
    monkeypatch.chdir(builds)
    assert command_line.main(["diff", "old", "new"]) == 1
    captured = capsys.readouterr()
    assert "changed   start" in captured.out
    assert captured.err == (
        "kbuild-klp: init/main.o: the reasons could not be told (internal error: IndexError: oh); please report it\n"
    )


def test_debugging_shows_where(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise IndexError

    monkeypatch.setattr("kbuild_klp.cli.diff.open_sides", fail)
    monkeypatch.setenv("KLP_DEBUG", "1")
    with pytest.raises(IndexError):
        command_line.main(["diff", "a", "b"])


@pytest.mark.parametrize("encoding", ["utf-8:strict", "ascii:strict"])
def test_names_that_are_no_text(tmp_path: Path, encoding: str) -> None:
    name = os.fsdecode(b"no\xfftext-\xc3\xbc")
    result = klp("diff", name, name, cwd=tmp_path, PYTHONIOENCODING=encoding)
    assert result.status == 2 and "no such file or directory" in result.err
    FakeBuild(tmp_path / name)
    FakeBuild(tmp_path / "new", MAIN.replace("start", "begin"))
    compile_object("int f(void) { return 5; }", tmp_path / name / "init/main.o")
    for options in ((), ("--json",)):
        assert klp("diff", "new", name, *options, cwd=tmp_path, PYTHONIOENCODING=encoding).status == 1
    result = klp("diff", "new/init/main.o", f"{name}/init/main.o", "--json", cwd=tmp_path, PYTHONIOENCODING=encoding)
    assert result.status == 1
    assert result.json["objects"][0]["object"] == f"{name}/init/main.o"


# -- terminals, pipes, interrupts -------------------------------------------------------------------------------------


def _in_terminal(arguments: list[str], cwd: Path, **environment: str) -> tuple[int, str]:
    """Run the program on a terminal of 80 columns; returns status and everything printed."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "kbuild_klp", *arguments],
        cwd=cwd,
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env={**clean_environment(), "TERM": "xterm", **environment},
    )
    os.close(follower)
    output = b""
    while True:
        try:
            data = os.read(leader, 65536)
        except OSError:
            break
        if not data:
            break
        output += data
    os.close(leader)
    return process.wait(30), output.decode()


def test_colour_on_a_terminal(builds: Path) -> None:
    status, output = _in_terminal(["diff", "old", "new"], builds)
    assert status == 1
    assert "\x1b[33mchanged  \x1b[m start" in output
    plain = re.sub(r"\x1b\[\d*m", "", output)
    assert all(len(line) <= 80 for line in plain.splitlines())


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_no_colour_where_none_is_wanted(builds: Path, environment: dict[str, str]) -> None:
    status, output = _in_terminal(["diff", "old", "new"], builds, **environment)
    assert status == 1 and "\x1b" not in output


def test_long_names_stay_within_80_columns(tmp_path: Path) -> None:
    long = "a_function_with_a_name_" + "x" * 50
    FakeBuild(tmp_path / "old", f"int {long}(int x) {{ return x; }} int f(int x) {{ return {long}(x + 1) * 77777; }}")
    FakeBuild(tmp_path / "new", f"int {long}(int x) {{ return x * 3; }} int f(int x) {{ return {long}(x + 2) * 77; }}")
    lines = klp("diff", "old", "new", cwd=tmp_path).out.splitlines()
    assert all(len(line) <= 80 or long in line for line in lines)
    assert any((len(line) > 60 and line.endswith(")")) or "..." in line for line in lines)


def test_a_reader_that_goes_away(builds: Path) -> None:
    command = f"{sys.executable} -m kbuild_klp diff -v --json old new | head -n 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], cwd=builds, capture_output=True, text=True, env=clean_environment())
    assert done.stderr == ""
    assert done.stdout == "{\n"


@pytest.mark.parametrize("arguments", [("diff", "old", "new"), ("--help",), ("diff", "--help"), ("--version",)])
def test_a_reader_that_was_never_there(builds: Path, arguments: tuple[str, ...]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "kbuild_klp", *arguments],
        cwd=builds, stdout=writer, stderr=subprocess.PIPE, text=True, env=clean_environment(),
    )  # fmt: skip
    os.close(writer)
    assert done.stderr == ""


def test_a_full_disk_behind_standard_output(builds: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "kbuild_klp", "diff", "old", "new"],
            cwd=builds, stdout=full, stderr=subprocess.PIPE, text=True, env=clean_environment(),
        )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == "kbuild-klp: standard output: No space left on device\n"


_SLOW = r"""
import os, sys, time
from kbuild_klp.checksum import batch
real = batch.compute_many
def slow(paths):
    for path in paths:
        os.write(2, b"working\n")
        time.sleep(0.3)
        yield from real([path])
batch.compute_many = slow
batch._WORTH_A_PROCESS = batch._BATCH = 1
from kbuild_klp.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("jobs", ["-j1", "-j2"])
def test_ctrl_c_is_answered_once(tmp_path: Path, jobs: str) -> None:
    FakeBuild(tmp_path / "tree")
    process = subprocess.Popen(
        [sys.executable, "-c", _SLOW, "checksum", jobs, "tree"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True, env=clean_environment(),
        # Started in the background of a script, we have inherited that SIGINT is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert process.stderr is not None
    assert process.stderr.readline() == "working\n"
    time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert [line for line in err.splitlines() if line != "working"] == ["kbuild-klp: interrupted"]
    assert out == ""
    assert not list(tmp_path.rglob("*.tmp"))


def test_progress_is_for_terminals(builds: Path, tmp_path: Path) -> None:
    from kbuild_klp.cli.progress import ProgressLine

    progress = ProgressLine("checksums")
    progress._terminal, progress._start = False, 0
    progress(1, 2)
    assert not progress._shown
    FakeBuild(tmp_path / "tree")
    assert klp("checksum", "tree", cwd=tmp_path).err == ""
