# SPDX-License-Identifier: GPL-2.0-only
"""What `make klp-base` keeps: incremental, whole or not at all, and gone when asked to."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from pathlib import Path

import pytest

from kbuild_klp.builds import archive, kept
from kbuild_klp.builds.built_tree import TreeBuild
from kbuild_klp.builds.kept import KeptBuild
from kbuild_klp.errors import BadSumFileError, BadTreeError
from kbuild_klp.kernel.settings import Settings
from kbuild_klp.kernel.tree import BuildTree, LinkUnit

OBJECTS = ("init/main.o", "fs/open.o")


@pytest.fixture
def tree(tmp_path: Path) -> BuildTree:
    root = tmp_path / "tree"
    for name, content in {
        "include/config/auto.conf": "CONFIG_X86_64=y\n",
        "include/generated/autoconf.h": "",
        "init/main.c": "int main;\n",
        "fs/open.c": "int open;\n",
        "include/shared.h": "extern int shared;\n",
        "init/main.o": "one",
        "fs/open.o": "two",
        "fs/twin.o": "two",
        "init/.main.o.cmd": "savedcmd_init/main.o := gcc -c -o init/main.o init/main.c\n\n"
        "source_init/main.o := init/main.c\n\ndeps_init/main.o := \\\n  include/shared.h \\\n",
        "fs/.open.o.cmd": "savedcmd_fs/open.o := gcc -c -o fs/open.o fs/open.c\n\n"
        "source_fs/open.o := fs/open.c\n\ndeps_fs/open.o := \\\n  include/shared.h \\\n",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return BuildTree.open(root)


def _content(*names: str) -> archive.Archive:
    return archive.Archive(
        [LinkUnit("vmlinux", names)], Settings("x86_64", "", None, None), {name: name.encode() for name in names}
    )


def _keep(tree: BuildTree, *names: str) -> tuple[int, int]:
    return kept.keep(tree, _content(*names))


def _sums(build: KeptBuild) -> dict[str, bytes | None]:
    return {name: build.sums(name) for name in sorted(build.names)}


def _stored(tree: BuildTree) -> set[Path]:
    return set((tree.root / ".klp-base/files").iterdir())


def test_kept_objects_and_sources_are_those_of_then(tree: BuildTree) -> None:
    assert _keep(tree, *OBJECTS) == (2, 3)
    (tree.root / "init/main.o").write_text("another")
    (tree.root / "include/shared.h").write_text("extern long shared;\n")
    build = KeptBuild(tree.root)
    assert build.units() == [LinkUnit("vmlinux", OBJECTS)]
    assert _sums(build) == _content(*OBJECTS).sums
    assert Path(build.object_file("init/main.o") or "").read_text() == "one"
    assert build.object_file("absent.o") is None
    sources = build.sources("fs/open.o", TreeBuild(str(tree.root)))
    assert sources is None, "the other side's were edited after it was compiled"
    (tree.root / "fs/open.o").write_text("compiled again")
    sources = build.sources("fs/open.o", TreeBuild(str(tree.root)))
    assert sources is not None
    assert {name: Path(path).read_text() for name, path in sources.files.items()} == {
        "fs/open.c": "int open;\n",
        "include/shared.h": "extern int shared;\n",
    }


@pytest.mark.parametrize(("compiled", "proves"), [(1, {"fs/open.c"}), (-1, set())])
def test_a_source_edited_between_build_and_klp_base_proves_nothing(
    tree: BuildTree, compiled: int, proves: set[str]
) -> None:
    os.utime(tree.root / "fs/open.c", ns=(1000, 1000))
    os.utime(tree.root / "fs/open.o", ns=(1000 + compiled, 1000 + compiled))
    _keep(tree, *OBJECTS)
    os.utime(tree.root / "fs/open.o")
    sources = KeptBuild(tree.root).sources("fs/open.o", TreeBuild(str(tree.root)))
    assert sources is not None
    assert sources.files.keys() == proves


def test_an_object_that_was_not_kept_has_no_kept_sources(tree: BuildTree) -> None:
    _keep(tree, "init/main.o")
    assert KeptBuild(tree.root).sources("fs/open.o", TreeBuild(str(tree.root))) is None


def test_equal_files_are_stored_once(tree: BuildTree) -> None:
    assert _keep(tree, "fs/open.o", "fs/twin.o") == (2, 2)
    assert len(_stored(tree)) == 3


def test_a_second_time_copies_nothing(tree: BuildTree, monkeypatch: pytest.MonkeyPatch) -> None:
    first = _keep(tree, *OBJECTS)
    before = {path: path.stat().st_mtime_ns for path in _stored(tree)}

    digest = kept._digest

    def fail(path: str, *_: object) -> str:
        if path.endswith(".klp-base/checksums"):
            return digest(path)
        raise AssertionError("nothing changed, so nothing is to be read or copied")

    monkeypatch.setattr(kept, "_digest", fail)
    monkeypatch.setattr(kept, "_copy", fail)
    assert _keep(tree, *OBJECTS) == first
    assert {path: path.stat().st_mtime_ns for path in _stored(tree)} == before


def test_what_changed_is_copied_and_what_is_not_needed_vanishes(tree: BuildTree) -> None:
    _keep(tree, *OBJECTS)
    (tree.root / "init/main.o").write_text("another")
    _keep(tree, "init/main.o")
    kept = KeptBuild(tree.root)
    assert Path(kept.object_file("init/main.o") or "").read_text() == "another"
    assert kept.object_file("fs/open.o") is None
    assert sorted(path.read_text() for path in _stored(tree)) == ["another", "extern int shared;\n", "int main;\n"]


def test_a_file_that_was_removed_from_the_store_is_copied_again(tree: BuildTree) -> None:
    _keep(tree, *OBJECTS)
    for path in _stored(tree):
        path.unlink()
    _keep(tree, *OBJECTS)
    assert len(_stored(tree)) == 5


def test_an_object_that_is_gone_is_left_out(tree: BuildTree) -> None:
    (tree.root / "fs/open.o").unlink()
    assert _keep(tree, *OBJECTS)[0] == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_interrupted_the_old_base_stays_whole(
    tree: BuildTree, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    _keep(tree, *OBJECTS)
    before = KeptBuild(tree.root)
    (tree.root / "init/main.o").write_text("another")

    def fail(*_: object, **__: object) -> None:
        raise error

    def no_clone(*_: object) -> None:
        raise OSError

    for module, function in ((shutil, "copyfileobj"), (Path, "write_text"), (archive, "save")):
        with monkeypatch.context() as patch:
            patch.setattr(module, function, fail)
            patch.setattr(fcntl, "ioctl", no_clone)
            with pytest.raises((KeyboardInterrupt, OSError)):
                _keep(tree, *OBJECTS)
        now = KeptBuild(tree.root)
        assert _sums(now) == _sums(before)
        assert Path(now.object_file("init/main.o") or "").read_text() == "one"
    assert _keep(tree, *OBJECTS) == (2, 3)
    assert Path(KeptBuild(tree.root).object_file("init/main.o") or "").read_text() == "another"
    assert len(_stored(tree)) == 5
    assert len(list((tree.root / ".klp-base").iterdir())) == 3


def test_names_that_no_pattern_of_make_clean_matches(tree: BuildTree) -> None:
    _keep(tree, *OBJECTS)
    for _, _, files in os.walk(tree.root / ".klp-base"):
        assert all("." not in name and name != "core" for name in files)


def test_remove(tree: BuildTree) -> None:
    assert kept.remove(tree.root) is False
    _keep(tree, *OBJECTS)
    assert kept.remove(tree.root) is True
    assert not (tree.root / ".klp-base").exists()
    with pytest.raises(BadTreeError, match="make klp-base"):
        KeptBuild(tree.root)


@pytest.mark.parametrize("index", ["", "{", "[]", "5", '{"version": 9}', '{"version": 1, "objects": 5, "sources": {}}'])
def test_a_damaged_index_is_named(tree: BuildTree, index: str) -> None:
    _keep(tree, *OBJECTS)
    (tree.root / ".klp-base/index").write_text(index)
    with pytest.raises(BadSumFileError, match=r"\.klp-base/index: is damaged.*make klp-base"):
        KeptBuild(tree.root)
    assert _keep(tree, *OBJECTS) == (2, 3)
    KeptBuild(tree.root)


@pytest.mark.parametrize("row", [5, {}, {"file": 5, "mtime": 0, "size": 0}, {"file": "../../x", "mtime": 0, "size": 0}])
def test_a_damaged_row_is_made_again(tree: BuildTree, row: object) -> None:
    _keep(tree, *OBJECTS)
    file = tree.root / ".klp-base/index"
    index = json.loads(file.read_text())
    index["objects"]["init/main.o"] = row
    file.write_text(json.dumps(index))
    with pytest.raises(BadSumFileError, match="is damaged"):
        KeptBuild(tree.root)
    assert _keep(tree, *OBJECTS) == (2, 3)
    assert KeptBuild(tree.root).object_file("init/main.o")


def test_checksums_that_are_damaged_are_named(tree: BuildTree) -> None:
    _keep(tree, *OBJECTS)
    next((tree.root / ".klp-base").glob("checksums-*")).write_bytes(b"PK\3\4 and no more")
    with pytest.raises(BadSumFileError, match=r"\.klp-base/checksums"):
        KeptBuild(tree.root)
