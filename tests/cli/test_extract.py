# SPDX-License-Identifier: GPL-2.0-only
"""The command line of extract: exit statuses, what it prints, and what it leaves behind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from snippets import Compiler

_SOURCE = "static int count; int limit = %s; int user(int x) { return x * %s + count++; }"
_TRACED = ("-pg", "-mfentry", "-mrecord-mcount")


class Sides:
    """Both objects, and a place for the third."""

    def __init__(self, compiler: Compiler, old: str, new: str) -> None:
        self.old, self.new = (compiler.object(source, *_TRACED) for source in (old, new))
        self.output = compiler.directory / "out.o"

    def run(self, *options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "kbuild_klp", "extract", str(self.old), str(self.new), "-o", str(self.output)]
        return subprocess.run([*command, *options], capture_output=True, text=True, check=False)


def test_what_is_carried_is_listed(gcc: Compiler) -> None:
    sides = Sides(gcc, _SOURCE % (1, 3), _SOURCE % (1, 5))
    done = sides.run()
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("carried   function  user  ")
    assert "local     count  of the old object" in lines
    assert lines[-1].startswith(f"{sides.output}: 1 function, ")


def test_the_document_has_the_same(gcc: Compiler) -> None:
    sides = Sides(gcc, _SOURCE % (1, 3), _SOURCE % (1, 5))
    document = json.loads(sides.run("--json").stdout)
    assert (document["version"], document["output"]) == (1, str(sides.output))
    [carried] = document["carried"]
    assert (carried["symbol"], carried["kind"], carried["section"]) == ("user", "function", ".text.user")
    assert [it["symbol"] for it in document["undefined"] if it["is_local"]] == ["count"]
    assert document["relocations"] > 0
    assert document["refused"] == document["left_out"] == document["not_needed"] == []


def test_nothing_to_carry_is_1(gcc: Compiler) -> None:
    sides = Sides(gcc, _SOURCE % (1, 3), _SOURCE % (1, 3))
    done = sides.run("--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["output"] is None
    assert not sides.output.exists()


def test_what_is_refused_is_named_in_a_line_each(gcc: Compiler) -> None:
    sides = Sides(gcc, _SOURCE % (1, 3), _SOURCE % (2, 5))
    sides.output.write_text("of another time")
    done = sides.run()
    assert done.returncode == 2
    assert done.stderr == "kbuild-klp: cannot carry limit: data: content; a livepatch replaces functions only\n"
    assert not [*sides.output.parent.glob("out.o*")]
    [refused] = json.loads(sides.run("--json").stdout)["refused"]
    assert (refused["symbol"], refused["code"]) == ("limit", "verdict")


def test_what_is_left_out_is_named(gcc: Compiler) -> None:
    sides = Sides(gcc, _SOURCE % (1, 3), _SOURCE % (2, 5))
    done = sides.run("--without", "lim*")
    assert done.returncode == 0
    assert "left out  limit" in done.stdout.splitlines()


def test_what_is_left_out_may_be_named_with_its_object(gcc: Compiler) -> None:
    sides = Sides(gcc, _SOURCE % (1, 3), _SOURCE % (2, 5))
    assert sides.run("--without", "*.o:limit").returncode == 0
    done = sides.run("--without", "other.o:limit")
    assert done.returncode == 2
    assert "--without other.o:limit leaves out nothing: no change has such a name" in done.stderr


def test_a_tree_is_no_object(gcc: Compiler) -> None:
    sides = Sides(gcc, _SOURCE % (1, 3), _SOURCE % (1, 5))
    sides.old = sides.old.parent
    done = sides.run()
    assert (done.returncode, done.stderr) == (
        2,
        f"kbuild-klp: {sides.old}: Is a directory; name an object in it; diff and patch take trees\n",
    )


def test_a_misspelt_pattern_is_told(gcc: Compiler) -> None:
    sides = Sides(gcc, _SOURCE % (1, 3), _SOURCE % (1, 5))
    done = sides.run("--without", "usr")
    assert done.returncode == 0
    assert done.stderr == "kbuild-klp: --without usr leaves out nothing: no change has such a name\n"


@pytest.mark.parametrize("value", [3, 5])
def test_it_says_that_there_is_nothing_to_write(gcc: Compiler, value: int) -> None:
    sides = Sides(gcc, _SOURCE % (1, 3), _SOURCE % (1, value))
    done = sides.run(*(["--without", "user"] if value == 5 else []))
    assert (done.returncode, done.stdout.splitlines()[-1]) == (1, "nothing differs that could be carried")


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"no object at all", None])
def test_broken_input_is_one_line(gcc: Compiler, content: bytes | None) -> None:
    sides = Sides(gcc, _SOURCE % (1, 3), _SOURCE % (1, 5))
    for side in (sides.old, sides.new):
        whole = side.read_bytes()
        if content is None:
            side.unlink()
        else:
            side.write_bytes(content)
        done = sides.run()
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert str(side) in done.stderr
        assert not [*sides.output.parent.glob("out.o*")]
        side.write_bytes(whole)


def test_a_full_disk_is_one_line(gcc: Compiler) -> None:
    sides = Sides(gcc, _SOURCE % (1, 3), _SOURCE % (1, 5))
    sides.output = Path("/dev/full/out.o")
    done = sides.run()
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


def test_a_new_function_that_nobody_calls_is_nothing_to_write(gcc: Compiler) -> None:
    """A status of 1 says that there is no file."""
    old = _SOURCE % (1, 3)
    sides = Sides(gcc, old, f"{old}\nstatic __attribute__((used)) int alone(int x) {{ return x + 1; }}")
    done = sides.run()
    assert (done.returncode, done.stdout.splitlines()[-1]) == (1, "nothing differs that could be carried")
    assert not sides.output.exists()
