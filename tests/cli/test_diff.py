# SPDX-License-Identifier: GPL-2.0-only
"""`kbuild-klp diff` as a user runs it: two trees, an archive, two objects; what is printed, and the exit status."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_build import DRIVER, MAIN, SHARED, FakeBuild, Result, clean_environment, klp
from samples import without_privileges

CHANGED = MAIN.replace("x + limit", "x - limit")
NO_CHANGE = "no change in 3 objects\n"


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two builds, compiled once; each test has copies."""
    root = tmp_path_factory.mktemp("builds")
    FakeBuild(root / "old")
    FakeBuild(root / "new", CHANGED)
    return root


class Pair:
    """The two builds of one test."""

    def __init__(self, root: Path, templates: Path) -> None:
        self.root = root
        for side in ("old", "new"):
            shutil.copytree(templates / side, root / side, symlinks=True)
        self.old, self.new = (object.__new__(FakeBuild) for _ in range(2))
        self.old.root, self.new.root = root / "old", root / "new"

    def diff(self, *options: str, **environment: str) -> Result:
        return klp("diff", "old", "new", *options, cwd=self.root, timeout=60, **environment)


@pytest.fixture
def pair(tmp_path: Path, templates: Path) -> Pair:
    return Pair(tmp_path, templates)


def _changes(document: Any) -> set[tuple[str, str, str, str]]:
    return {
        (row["unit"], row["object"], change["symbol"], change["change"])
        for row in document["objects"]
        for change in row["changes"]
    }


def test_one_function(pair: Pair) -> None:
    result = pair.diff()
    assert (result.status, result.err) == (1, "")
    lines = result.out.splitlines()
    assert lines[:2] == ["vmlinux", "  init/main.o"]
    assert lines[2].split()[:2] == ["changed", "start"]
    assert lines[-1] == "1 changed; 1 of 3 objects"
    assert all(len(line) <= 80 for line in lines)
    # The checksums are there now, and say the same.
    assert pair.old.sum_file("init/main.o").exists()
    assert pair.diff() == result


def test_nothing(pair: Pair) -> None:
    result = klp("diff", "old", "old", cwd=pair.root)
    assert result == (0, NO_CHANGE, "")


def test_a_source_that_was_not_compiled_is_the_first_thing_to_ask_for(pair: Pair) -> None:
    """Who forgets to run make after a patch hears that nothing differs."""
    source = pair.old.write("init/main.c", MAIN)
    compiled = (pair.old.root / "init/main.o").stat().st_mtime_ns
    os.utime(source, ns=(compiled, compiled))
    assert klp("diff", "old", "old", cwd=pair.root) == (0, NO_CHANGE, "")
    os.utime(source, ns=(compiled, compiled + 1))
    done = klp("diff", "old", "old", cwd=pair.root)
    warning = "old: init/main.c is newer than its object; run make there, for objects are what is compared"
    assert done == (0, NO_CHANGE, f"kbuild-klp: {warning}\n")
    assert warning not in pair.diff().err, "there is an answer"


def test_a_tree_that_was_copied_is_the_same(pair: Pair) -> None:
    shutil.copytree(pair.old.root, pair.root / "copy", symlinks=True)
    assert klp("diff", "old", "copy", cwd=pair.root) == (0, NO_CHANGE, "")


def test_the_json_document_is_that_of_the_contract(pair: Pair) -> None:
    document = pair.diff("--json").json
    assert set(document) >= {"version", "summary", "objects", "warnings"}
    assert document["version"] == 1
    numbers = {"changed": 1, "added": 0, "removed": 0, "line_only": 0, "moved": 0}
    numbers |= {"objects_compared": 3, "objects_changed": 1}
    assert {name: document["summary"][name] for name in numbers} == numbers
    assert document["warnings"] == []
    (row,) = document["objects"]
    assert (row["object"], row["unit"]) == ("init/main.o", "vmlinux")
    (change,) = row["changes"]
    assert (change["symbol"], change["kind"], change["change"]) == ("start", "function", "changed")
    assert change["reasons"] and all(isinstance(reason, str) for reason in change["reasons"])


def test_every_kind_and_change_is_one_of_the_contract(pair: Pair) -> None:
    pair.new.compile(
        "init/main.o",
        CHANGED.replace("limit = 10", "limit = 11").replace("stop", "halt")
        + '__attribute__((section(".init.text"))) int moved; asm(".section .extra,\\"a\\"; .quad 5");',
    )
    document = pair.diff("--json").json
    changes = [change for row in document["objects"] for change in row["changes"]]
    assert {change["kind"] for change in changes} == {"function", "data", "section"}
    assert {change["change"] for change in changes} <= {"changed", "added", "removed", "moved", "line-only"}
    counted = {name: document["summary"][name] for name in ("changed", "added", "removed")}
    assert counted == {name: sum(change["change"] == name for change in changes) for name in counted}


def test_an_object_in_two_modules_is_shown_in_both_and_counted_once(pair: Pair) -> None:
    pair.new.compile("init/main.o", MAIN)
    pair.new.compile("drivers/shared.o", SHARED.replace("3", "5"))
    document = pair.diff("--json").json
    assert _changes(document) == {(unit, "drivers/shared.o", "shared", "changed") for unit in ("one", "two")}
    assert (document["summary"]["changed"], document["summary"]["objects_changed"]) == (1, 1)
    text = pair.diff().out
    assert "module one\n  drivers/shared.o\n" in text and "module two\n  drivers/shared.o\n" in text
    assert text.endswith("1 changed; 1 of 3 objects\n")


def test_an_object_that_only_one_tree_has(pair: Pair) -> None:
    pair.new.compile("init/main.o", MAIN)
    pair.new.compile("init/extra.o", "int extra(void) { return 5; }")
    pair.new.link("init/main.o", "init/extra.o")
    result = pair.diff("--json")
    assert (result.status, result.err) == (1, "")
    assert _changes(result.json) == {("vmlinux", "init/extra.o", "extra", "added")}
    back = klp("diff", "new", "old", "--json", cwd=pair.root)
    assert (back.status, back.err) == (1, "")
    assert _changes(back.json) == {("vmlinux", "init/extra.o", "extra", "removed")}


def test_a_module_that_only_one_tree_has(pair: Pair) -> None:
    pair.new.compile("init/main.o", MAIN)
    pair.new.order("drivers/one")
    pair.new.module("drivers/one", "drivers/driver.o")
    result = pair.diff("--json")
    assert (result.status, result.err) == (1, "")
    assert _changes(result.json) == {(unit, "drivers/shared.o", "shared", "removed") for unit in ("one", "two")}


def test_an_archive_and_a_tree(pair: Pair) -> None:
    expected = _changes(pair.diff("--json").json)
    assert klp("export", "old", "-o", "old.klp", cwd=pair.root).status == 0
    shutil.rmtree(pair.old.root)
    result = klp("diff", "old.klp", "new", "--json", cwd=pair.root)
    assert (result.status, result.err) == (1, "")
    assert _changes(result.json) == expected
    pair.new.compile("init/extra.o", "int extra(void) { return 5; }")
    pair.new.link("init/main.o", "init/extra.o")
    more = klp("diff", "old.klp", "new", "--json", cwd=pair.root)
    assert (more.status, more.err) == (1, "")
    assert _changes(more.json) == expected | {("vmlinux", "init/extra.o", "extra", "added")}
    assert klp("diff", "new", "old.klp", cwd=pair.root).status == 1
    assert klp("diff", "old.klp", "old.klp", cwd=pair.root) == (0, NO_CHANGE, "")


def test_two_objects(pair: Pair) -> None:
    result = klp("diff", "old/init/main.o", "new/init/main.o", "--json", cwd=pair.root)
    assert result.status == 1
    assert [change["symbol"] for change in result.json["objects"][0]["changes"]] == ["start"]
    assert klp("diff", "old/init/main.o", "old/init/main.o", cwd=pair.root) == (0, "no change in 1 object\n", "")
    assert not pair.old.sum_file("init/main.o").exists(), "single objects are compared without writing"


def test_what_was_kept_and_the_tree(pair: Pair) -> None:
    assert klp("base", "old", cwd=pair.root).status == 0
    assert klp("diff", "--kept", "old", cwd=pair.root) == (0, NO_CHANGE, "")
    pair.old.compile("init/main.o", CHANGED)
    result = klp("diff", "--kept", "old", "--json", cwd=pair.root)
    assert (result.status, result.err) == (1, "")
    assert _changes(result.json) == {("vmlinux", "init/main.o", "start", "changed")}
    assert klp("base", "--clean", "old", cwd=pair.root).status == 0
    result = klp("diff", "--kept", "old", cwd=pair.root)
    assert result.status == 2 and "keeps no base; run `make klp-base` first" in result.err


# -- checksums that are not as they should be -------------------------------------------------------------------------


def test_checksums_that_are_stale_are_made_again(pair: Pair) -> None:
    assert pair.diff().status == 1
    pair.new.compile("init/main.o", MAIN)
    assert pair.diff() == (0, NO_CHANGE, "")


def _damage(path: Path, data: bytes) -> None:
    """Change a checksum file, but not its time."""
    status = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("side", ["old", "new"])
def test_a_damaged_checksum_file_is_made_again_in_memory(pair: Pair, side: str) -> None:
    expected = pair.diff("--json").json
    path = pair.root / side / "init/.main.o.klp.cmd"
    _damage(path, path.read_bytes().replace(b"start", b"stark"))
    result = pair.diff("--json")
    assert result.status == 1
    assert result.json["objects"] == expected["objects"]
    (warning,) = result.json["warnings"]
    assert warning.endswith(
        f"{side}/init/.main.o.klp.cmd: content does not match its digest; its checksums were computed in memory"
    )
    text = pair.diff()
    assert text.status == 1 and text.err == f"kbuild-klp: {warning}\n"


@pytest.mark.parametrize("data", [b"", b"garbage", b"# kbuild-klp 99 x86_64 table=1 digest=\n"])
def test_checksum_files_of_another_format_are_made_again(pair: Pair, data: bytes) -> None:
    expected = pair.diff()
    path = pair.new.sum_file("init/main.o")
    good = path.read_bytes()
    _damage(path, data)
    assert pair.diff() == expected
    assert path.read_bytes() == good


def test_a_damaged_checksum_file_in_an_archive(pair: Pair) -> None:
    assert pair.diff().status == 1
    path = pair.old.sum_file("init/main.o")
    _damage(path, path.read_bytes().replace(b"start", b"stark"))
    exported = klp("export", "old", "-o", "old.klp", cwd=pair.root)
    assert exported.status == 0 and "computed in memory" in exported.err
    assert klp("diff", "old.klp", "old", cwd=pair.root).out == NO_CHANGE


@pytest.mark.parametrize("data", [b"", b"broken", b"BC\xc0\xde"])
def test_a_broken_object_is_named_and_the_others_are_compared(pair: Pair, data: bytes) -> None:
    (pair.new.root / "drivers/driver.o").write_bytes(data)
    result = pair.diff()
    assert result.status == 2
    assert "changed   start" in result.out
    (line,) = result.err.splitlines()
    assert line.startswith("kbuild-klp: not compared: ") and "drivers/driver.o: " in line
    document = pair.diff("--json").json
    assert document["summary"]["objects_compared"] == 2 and "drivers/driver.o" in document["warnings"][0]


def test_an_object_that_is_gone(pair: Pair) -> None:
    (pair.new.root / "drivers/driver.o").unlink()
    result = pair.diff()
    assert result.status == 2
    assert "drivers/driver.o: the object is not there any more; run make" in result.err


def test_a_tree_that_may_not_be_written(pair: Pair) -> None:
    command = [*without_privileges(), sys.executable, "-m", "kbuild_klp", "diff", "old", "new"]
    everything = (pair.root, *pair.root.rglob("*"))
    for path in everything:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        done = subprocess.run(command, cwd=pair.root, capture_output=True, text=True, env=clean_environment())
    finally:
        for path in everything:
            path.chmod(0o755)
    assert done.returncode == 1, done.stderr
    assert "1 changed; 1 of 3 objects" in done.stdout
    assert done.stderr.splitlines() == [
        f"kbuild-klp: {side}: cannot be written (Permission denied); 3 checksums were computed in memory"
        for side in ("old", "new")
    ]
    assert not list(pair.root.rglob(".*.klp.cmd"))


# -- what is no build, and what two builds do not share ---------------------------------------------------------------


def test_settings_that_differ_come_first(pair: Pair) -> None:
    pair.new.write("include/config/auto.conf", "CONFIG_X86_64=y\nCONFIG_MODULES=y\nCONFIG_KASAN=y\n")
    result = pair.diff()
    assert result.status == 1
    assert result.err == "kbuild-klp: configuration differs: CONFIG_KASAN: not set -> y\n"
    assert pair.diff("--json").json["warnings"] == ["configuration differs: CONFIG_KASAN: not set -> y"]


def test_many_settings_are_counted(pair: Pair) -> None:
    pair.new.write("include/config/auto.conf", "CONFIG_X86_64=y\n" + "".join(f"CONFIG_A{i}=y\n" for i in range(50)))
    lines = pair.diff().err.splitlines()
    assert len(lines) < 12 and lines[-1].endswith("more settings differ")


def _not_there(root: Path) -> Path:
    return root / "nowhere"


def _empty(root: Path) -> Path:
    (root / "empty").mkdir()
    return root / "empty"


def _source(root: Path) -> Path:
    (root / "source/scripts").mkdir(parents=True)
    (root / "source/Kbuild").touch()
    return root / "source"


def _configured(root: Path) -> Path:
    (root / "configured").mkdir()
    (root / "configured/.config").write_text("CONFIG_X86_64=y\n")
    return root / "configured"


def _nothing_built(root: Path) -> Path:
    path = _configured(root)
    (path / "include/generated").mkdir(parents=True)
    (path / "include/generated/autoconf.h").touch()
    return path


def _text(root: Path) -> Path:
    (root / "text").write_text("int main;\n")
    return root / "text"


def _zip(root: Path) -> Path:
    (root / "zip").write_bytes(b"PK\3\4")
    return root / "zip"


def _fifo(root: Path) -> Path:
    os.mkfifo(root / "fifo")
    return root / "fifo"


@pytest.mark.parametrize(
    ("make", "says", "hint"),
    [
        (_not_there, "no such file or directory", "give a build tree"),
        (_empty, "is not a kernel build tree", "give the directory in which make ran"),
        (_source, "is a kernel source tree in which nothing was built", "give the O= directory"),
        (_configured, "was configured but never built", "run make there first"),
        (_nothing_built, "nothing was built here", "run make there first"),
        (_text, "one is an object, the other is not", "compare like with like"),
        (_zip, "not an archive of kbuild-klp", "export it again"),
        (_fifo, "one is an object, the other is not", "compare like with like"),
    ],
)
def test_what_is_no_build(pair: Pair, make: Callable[[Path], Path], says: str, hint: str) -> None:
    path = make(pair.root)
    for builds in ((path, "old"), ("old", path)):
        result = klp("diff", *builds, cwd=pair.root)
        assert (result.status, result.out) == (2, "")
        (line,) = result.err.splitlines()
        assert line.startswith("kbuild-klp: ") and str(path) in line
        assert says in line and hint in line


def test_two_files_that_are_no_objects(pair: Pair) -> None:
    for path in (_text(pair.root), _fifo(pair.root), _zip(pair.root)):
        result = klp("diff", path, pair.root / "old/init/main.o")
        assert (result.status, result.out, len(result.err.splitlines())) == (2, "", 1)
        assert str(path) in result.err


def test_a_half_built_tree_is_compared_as_far_as_it_goes(pair: Pair) -> None:
    for name in ("vmlinux.a", "vmlinux.o", "modules.order", ".modules.order.cmd", "built-in.a"):
        (pair.new.root / name).unlink()
    subprocess.run(["ar", "cDPrST", "init/built-in.a", "init/main.o"], cwd=pair.new.root, check=True)
    result = pair.diff("--json")
    assert result.status in (1, 2)
    assert ("vmlinux", "init/main.o", "start", "changed") in _changes(result.json)


def test_the_driver_alone(pair: Pair) -> None:
    """One module's directory, as for M=."""
    for side in (pair.old, pair.new):
        (side.root / "ext").mkdir()
        side.compile("ext/driver.o", DRIVER if side is pair.old else DRIVER.replace("+ 1", "+ 2"))
        side.write("ext/driver.mod", "driver.o\n")
        side.write("ext/modules.order", "driver.o\n")
    result = klp("diff", "old/ext", "new/ext", "--json", cwd=pair.root)
    assert result.status == 1
    assert _changes(result.json) == {("driver", "driver.o", "probe", "changed")}
