# SPDX-License-Identifier: GPL-2.0-only
"""That the benchmark measures what it says, on a tiny tree and beside an objtool that is a script. No time is asked."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from costs import Cost, FailedError, Row, best, lines_of, run
from fake_build import FakeBuild, clean_environment
from peer import NoPeerError, Objtool, find_objtool

SPEED = Path(__file__).with_name("speed.py")

# Fails on what has "shared" in its name, and warns of the rest, as objtool does.
OBJTOOL = """#!/bin/sh
[ "$3" = --help ] && { echo "Usage: objtool klp checksum [<options>] file.o" >&2; exit 129; }
echo "$1 $2 $3 $4 $#" >>"$0.calls"
case $4 in *shared*)
	echo "$4: warning: objtool: run+0x1: something else"
	echo "$4: error: objtool: run+0x2: unannotated intra-function call" >&2
	exit 255
esac
echo "$4: warning: objtool: run+0x3: unreachable instruction" >&2
"""


@pytest.fixture
def objtool(tmp_path: Path) -> Path:
    return _script(tmp_path / "objtool", OBJTOOL)


def _script(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


def _speed(*arguments: str | Path) -> str:
    command = [sys.executable, SPEED, *arguments, "--runs", "1"]
    environment = {name: value for name, value in clean_environment().items() if name != "KSRC"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _rows(output: str) -> dict[str, str]:
    """Return the lines of the table, by their beginning, each with what stands below it."""
    rows = re.split(r"\n(?=\S|  \S)", output[output.index("of it\n") :])[1:]
    return {re.split(r"  +", row.strip())[0]: row for row in rows}


def test_a_failure_of_the_peer_is_noticed_and_a_warning_is_none(tmp_path: Path, objtool: Path) -> None:
    for name in ("one.o", "shared.o", "two.o"):
        (tmp_path / name).write_bytes(b"")
    calls = Objtool(str(objtool)).call_each(tmp_path, ["one.o", "shared.o", "two.o"])
    message = "exit status 255: error: objtool: run+0x2: unannotated intra-function call"
    assert calls.failures == {"shared.o": message}
    # The object alone, once each, and without writing to it.
    lines = (tmp_path / "objtool.calls").read_text().splitlines()
    assert lines == [f"klp checksum --dry-run {tmp_path / name} 4" for name in ("one.o", "shared.o", "two.o")]


def test_an_objtool_without_checksums_is_refused(tmp_path: Path) -> None:
    old = _script(tmp_path / "old", "#!/bin/sh\necho 'error: objtool: klp not implemented' >&2; exit 38\n")
    with pytest.raises(NoPeerError, match="libxxhash-dev"):
        Objtool(str(old))


def test_without_objtool_it_is_said_how_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KSRC", raising=False)
    with pytest.raises(NoPeerError, match=r"--objtool.*KSRC="):
        find_objtool(None)
    with pytest.raises(NoPeerError, match="no such program"):
        find_objtool(str(tmp_path / "none"))
    monkeypatch.setenv("KSRC", str(tmp_path / "none"))
    with pytest.raises(NoPeerError, match="no such kernel source"):
        find_objtool(None)


def test_the_whole_table_of_a_tiny_tree(tmp_path: Path, objtool: Path) -> None:
    tree = FakeBuild(tmp_path / "orig").root
    FakeBuild(tmp_path / "demo", driver="extern int start(int); int probe(int x) { return start(x) + 2; }\n")
    (tree / "vmlinux.o").write_bytes((tree / "init/main.o").read_bytes())
    module = tree / "drivers/driver.o"
    output = _speed(tree, "--objtool", objtool, "--modules", module, module, "--modules", module, module)
    rows = _rows(output)
    objects = rows["checksums of 2 objects, CPU to objtool's"]
    assert "left out of both: 1 on which objtool fails, the first drivers/shared.o, exit status 255" in objects
    assert "are 2 process starts of" in objects
    assert "not measured" not in rows["checksums of vmlinux.o, CPU to objtool's"]
    assert "\n    1 changed; " in rows["diff of two trees, three functions changed"]
    unmeasured = [row.splitlines()[-1].strip() for row in rows.values() if "not measured" in row]
    assert [text.split(",")[0] for text in unmeasured] == [
        "give --lto",
        "give --vmlinux",
        "give --lines",
        "give --build-cpu",
    ]
    assert output.count("diff of two modules, some hundred functions changed (driver.o)") == 2
    assert output.startswith(f"Python {sys.version.split()[0]}, ")


def test_where_the_peer_fails_there_is_no_ratio(tmp_path: Path) -> None:
    tree = FakeBuild(tmp_path / "orig").root
    (tree / "vmlinux.o").write_bytes((tree / "init/main.o").read_bytes())
    objtool = _script(tmp_path / "objtool", OBJTOOL.replace("*shared*", "*vmlinux.o"))
    rows = _rows(_speed(tree, "--objtool", objtool))
    assert "objtool failed on none of them" in rows["checksums of 3 objects, CPU to objtool's"]
    row = rows["checksums of vmlinux.o, CPU to objtool's"]
    assert "not measured" in row.splitlines()[0]
    assert "objtool fails on it, exit status 255: error: objtool: run+0x2" in row
    assert "not measured" not in rows["its memory"]


def test_a_row_says_what_part_of_its_bound_is_used() -> None:
    assert lines_of(Row("it", 0.5, 2, "s", "why")).split() == ["it", "0.500", "s", "2", "s", "0.25", "why"]
    assert lines_of(Row("it", 3, 2)).endswith("1.50  missed")
    assert lines_of(Row("it", None, 2, detail="no input")).split("\n")[1] == "    no input"


def test_a_command_that_fails_is_not_measured() -> None:
    with pytest.raises(FailedError, match="exit status 3: why"):
        run(["sh", "-c", "echo why >&2; exit 3"])
    assert run(["sh", "-c", "exit 3"], expected=(3,)).wall > 0
    assert best([Cost(1, 4, 9), Cost(2, 3, 8)]) == Cost(1, 3, 9)
