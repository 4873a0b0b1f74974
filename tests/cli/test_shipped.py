# SPDX-License-Identifier: GPL-2.0-only
"""Modules and archives as distributions and kbuild leave them, given to the commands."""

from __future__ import annotations

import lzma
import shutil
import subprocess
from pathlib import Path

import pytest
from fake_build import Result, klp
from samples import compile_object

ONE = 'int printk(const char *, ...); int one(int x) { return printk("one\\n") + x * %d; }\n'
TWO = "int two(int x) { return x * %d; }\n"


def _answer(result: Result) -> list[tuple[str, str, str]]:
    return [
        (group["object"], change["symbol"], change["change"])
        for group in result.json["objects"]
        for change in group["changes"]
    ]


@pytest.fixture
def both(tmp_path: Path) -> Path:
    """Two directories with one.o, which differs, and two.o, which does not."""
    for side, factor in (("old", 3), ("new", 5)):
        (tmp_path / side).mkdir()
        compile_object(ONE % factor, tmp_path / side / "one.o")
        compile_object(TWO % 7, tmp_path / side / "two.o")
    return tmp_path


def _ar(both: Path, flags: str, *names: str) -> None:
    for side in ("old", "new"):
        subprocess.run(["ar", flags, "lib.a", *names], cwd=both / side, check=True)


def test_compressed_module(both: Path) -> None:
    for side in ("old", "new"):
        data = (both / side / "one.o").read_bytes()
        (both / side / "one.ko.xz").write_bytes(lzma.compress(data, check=lzma.CHECK_CRC32))
    result = klp("diff", "old/one.ko.xz", "new/one.ko.xz", "--json", cwd=both)
    assert (result.status, _answer(result)) == (1, [("new/one.ko.xz", "one", "changed")])
    assert result.json["objects"][0]["changes"][0]["reasons"]
    assert klp("diff", "old/one.o", "old/one.ko.xz", cwd=both).status == 0
    explained = klp("explain", "old/one.ko.xz", "new/one.ko.xz", "one", cwd=both)
    assert explained.status == 1 and "one" in explained.out
    written = klp("checksum", "new/one.ko.xz", cwd=both)
    assert (written.status, written.out) == (0, "1 checksum files written, 0 up to date\n")
    assert klp("checksum", "new/one.ko.xz", cwd=both).out == "0 checksum files written, 1 up to date\n"
    assert _answer(klp("diff", "old/one.ko.xz", "new/one.ko.xz", "--json", cwd=both)) == _answer(result)


def test_damaged_module(both: Path) -> None:
    data = lzma.compress((both / "old/one.o").read_bytes())
    (both / "cut.ko.xz").write_bytes(data[:-20])
    for builds in (("cut.ko.xz", "new/one.o"), ("new/one.o", "cut.ko.xz")):
        result = klp("diff", *builds, cwd=both)
        assert (result.status, result.out) == (2, "")
        assert result.err == f"kbuild-klp: {both}/cut.ko.xz: xz: cut short; copy or download it again\n"


@pytest.mark.parametrize("flags", ["rcs", "rcsT"])
def test_archives_member_by_member(both: Path, flags: str) -> None:
    _ar(both, flags, "one.o", "two.o")
    result = klp("diff", "old/lib.a", "new/lib.a", "--json", cwd=both)
    assert (result.status, _answer(result)) == (1, [("one.o", "one", "changed")])
    assert result.json["summary"]["objects_compared"] == 2
    assert result.json["objects"][0]["changes"][0]["reasons"]
    assert klp("diff", "old/lib.a", "old/lib.a", cwd=both).status == 0
    explained = klp("explain", "old/lib.a", "new/lib.a", "one", cwd=both)
    assert explained.status == 1 and "one" in explained.out


@pytest.mark.parametrize("flags", ["rcs", "rcsT"])
def test_member_of_an_archive(both: Path, flags: str) -> None:
    _ar(both, flags, "one.o", "two.o")
    result = klp("diff", "old/lib.a(one.o)", "new/lib.a(one.o)", "--json", cwd=both)
    assert (result.status, [answer[1:] for answer in _answer(result)]) == (1, [("one", "changed")])
    assert klp("diff", "old/lib.a(two.o)", "new/two.o", cwd=both).status == 0
    assert klp("explain", "old/lib.a(one.o)", "new/one.o", "one", cwd=both).status == 1
    result = klp("diff", "old/lib.a(three.o)", "new/lib.a(one.o)", cwd=both)
    assert (result.status, result.out) == (2, "")
    assert "old/lib.a: has no member three.o; ar t" in result.err


def test_members_that_come_and_go(both: Path) -> None:
    _ar(both, "rcs", "one.o")
    shutil.copy(both / "new/two.o", both / "new/three.o")
    subprocess.run(["ar", "rcs", "lib.a", "three.o"], cwd=both / "new", check=True)
    answer = _answer(klp("diff", "old/lib.a", "new/lib.a", "--json", cwd=both))
    found = sorted(each for each in answer if each[1] != ".text")
    assert found == [("one.o", "one", "changed"), ("three.o", "two", "added")]


def test_members_of_one_name(both: Path) -> None:
    """ar keeps several of one name (q: appended without a look): they are told apart by their order."""
    for side, factor in (("old", 3), ("new", 5)):
        (both / side / "sub").mkdir()
        compile_object(ONE % factor, both / side / "sub/two.o")
    _ar(both, "qcs", "two.o", "sub/two.o")
    answer = _answer(klp("diff", "old/lib.a", "new/lib.a", "--json", cwd=both))
    assert answer == [("two.o[2]", "one", "changed")]
    assert klp("diff", "old/lib.a(two.o[2])", "new/lib.a(two.o[2])", cwd=both).status == 1
    assert klp("diff", "old/lib.a(two.o)", "new/lib.a(two.o)", cwd=both).status == 0


def test_member_that_is_no_object(both: Path) -> None:
    for side in ("old", "new"):
        (both / side / "notes").write_text("nothing\n")
    _ar(both, "rcs", "one.o", "notes")
    result = klp("diff", "old/lib.a", "new/lib.a", cwd=both)
    assert result.status == 2
    assert "lib.a(notes): not an ELF file" in result.err


def test_archive_and_something_else(both: Path) -> None:
    _ar(both, "rcs", "one.o")
    result = klp("diff", "old/lib.a", "new/one.o", cwd=both)
    assert (result.status, result.out, len(result.err.splitlines())) == (2, "", 1)
    assert "compare like with like" in result.err


def test_damaged_archive(both: Path) -> None:
    _ar(both, "rcs", "one.o")
    data = (both / "new/lib.a").read_bytes()
    (both / "cut.a").write_bytes(data[:-100])
    for name in ("cut.a", "cut.a(one.o)"):
        result = klp("diff", "old/lib.a" if name == "cut.a" else "old/one.o", name, cwd=both)
        assert (result.status, result.out, len(result.err.splitlines())) == (2, "", 1)
        assert "cut.a" in result.err


def test_checksums_of_members(both: Path) -> None:
    """Those of a thin archive are files; others have no place for a checksum file."""
    _ar(both, "rcsT", "one.o", "two.o")
    result = klp("checksum", "new/lib.a", cwd=both)
    assert (result.status, result.out) == (0, "2 checksum files written, 0 up to date\n")
    assert (both / "new/.one.o.klp.cmd").exists()
    assert klp("diff", "old/lib.a", "new/lib.a", cwd=both).status == 1
    for side in ("old", "new"):
        (both / side / "lib.a").unlink()
    _ar(both, "rcs", "one.o")
    result = klp("checksum", "new/lib.a", cwd=both)
    assert (result.status, len(result.err.splitlines())) == (2, 1)
    assert "members of an archive have no checksum files" in result.err
