# SPDX-License-Identifier: GPL-2.0-only
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kbuild_klp.kernel.sources import FileComparison, SourceFiles
from kbuild_klp.kernel.tree import BuildTree

if TYPE_CHECKING:
    from kernel.conftest import FakeTree

    Separate = Callable[[str], tuple[FakeTree, Path]]


def compiled(tree: FakeTree, source: str, prefix: str = "", target: str = "kernel/fork.o") -> None:
    """An object from fork.c, slab.h, a generated header and one of the compiler's."""
    directory, name = target.rsplit("/", 1)
    tree.objects(target)
    tree.write(
        f"{directory}/.{name}.cmd",
        f"savedcmd_{target} := gcc -c\n\nsource_{target} := {source}/kernel/fork.c\n\n"
        f"deps_{target} := \\\n  {source}/include/linux/slab.h \\\n"
        f"  {prefix}include/generated/bounds.h \\\n  /usr/lib/none/stdarg.h \\\n\n",
    )


@pytest.fixture
def separate(fake_tree: Callable[..., FakeTree], tmp_path: Path) -> Separate:
    """An object tree and its source, as make O= leaves them."""

    def make(name: str) -> tuple[FakeTree, Path]:
        tree = fake_tree(f"{name}-build")
        source = tmp_path / name
        (source / "kernel").mkdir(parents=True)
        (source / "include/linux").mkdir(parents=True)
        (source / "kernel/fork.c").write_text("int fork;\n")
        (source / "include/linux/slab.h").write_text("#define SLAB 1\n")
        tree.write("include/generated/bounds.h", "#define BOUNDS 1\n")
        (tree.root / "source").symlink_to(source)
        compiled(tree, str(source))
        return tree, source

    return make


NAMES = ["kernel/fork.c", "include/linux/slab.h", "include/generated/bounds.h", "/usr/lib/none/stdarg.h"]


def test_separate_object_tree(separate: Separate) -> None:
    tree, source = separate("linux")
    files = SourceFiles.of(tree.open(), "kernel/fork.o")
    assert files is not None
    assert files.main == "kernel/fork.c"
    assert list(files.files) == NAMES
    assert files.files["kernel/fork.c"] == str(source / "kernel/fork.c")
    assert files.files["include/generated/bounds.h"] == str(tree.root / "include/generated/bounds.h")


def test_built_in_the_source_tree(tree: FakeTree) -> None:
    compiled(tree, ".", prefix="./")
    files = SourceFiles.of(tree.open(), "kernel/fork.o")
    assert files is not None
    assert list(files.files) == NAMES
    assert files.files["kernel/fork.c"] == str(tree.root / "kernel/fork.c")


def test_object_tree_inside_the_source(fake_tree: Callable[..., FakeTree], tmp_path: Path) -> None:
    # make O=build: sources are named from there, as ../kernel/fork.c
    tree = fake_tree("linux/build")
    (tmp_path / "linux/kernel").mkdir()
    (tree.root / "source").symlink_to("..")
    compiled(tree, "..")
    files = SourceFiles.of(tree.open(), "kernel/fork.o")
    assert files is not None
    assert list(files.files) == NAMES
    assert files.files["kernel/fork.c"] == str(tmp_path / "linux/kernel/fork.c")


def test_external_module(fake_tree: Callable[..., FakeTree], separate: Separate, tmp_path: Path) -> None:
    kernel, source = separate("linux")
    module = fake_tree("module")
    for path in (".config", "include/config/auto.conf", "include/generated/autoconf.h"):
        (module.root / path).unlink()
    module.module("one", "one.o")
    module.write("modules.order", "one.o\n")
    module.write(
        ".one.o.cmd",
        f"savedcmd_one.o := gcc\n\nsource_one.o := {module.root}/one.c\n\ndeps_one.o := \\\n"
        f"  {source}/include/linux/slab.h \\\n  include/generated/bounds.h \\\n",
    )
    files = SourceFiles.of(BuildTree.open_external(module.root, kernel.root), "one.o")
    assert files is not None
    assert dict(files.files) == {
        "one.c": str(module.root / "one.c"),
        "include/linux/slab.h": str(source / "include/linux/slab.h"),
        "include/generated/bounds.h": str(kernel.root / "include/generated/bounds.h"),
    }


def test_linked_object_has_no_sources(tree: FakeTree) -> None:
    tree.write("fs/.ext4.o.cmd", "savedcmd_fs/ext4.o := ld -r -o fs/ext4.o @fs/ext4.mod\n")
    assert SourceFiles.of(tree.open(), "fs/ext4.o") is None
    assert SourceFiles.of(tree.open(), "fs/unknown.o") is None


def test_find_by_what_the_compiler_calls_it(separate: Separate) -> None:
    tree, source = separate("linux")
    files = SourceFiles.of(tree.open(), "kernel/fork.o")
    assert files is not None
    expected = str(source / "include/linux/slab.h")
    assert files.find("include/linux/slab.h") == expected
    assert files.find("kernel/../include/linux/slab.h") == expected
    assert files.find(expected) == expected
    assert files.find("slab.h") is None


def test_changed_files(separate: Separate) -> None:
    (old, _), (new, new_source) = separate("old"), separate("new")
    before = SourceFiles.of(old.open(), "kernel/fork.o")
    assert before is not None

    def changes() -> dict[str, tuple[str, str]]:
        after = SourceFiles.of(new.open(), "kernel/fork.o")
        assert after is not None
        return FileComparison().changed_files(before, after)

    assert changes() == {}
    (new_source / "kernel/fork.c").write_text("int Fork;\n")
    new.write("include/generated/bounds.h", "#define BOUNDS 10\n")
    expected = {
        name: (before.files[name], str(root / name))
        for name, root in (("include/generated/bounds.h", new.root), ("kernel/fork.c", new_source))
    }
    assert changes() == expected
    # A dependency that only one side has.
    text = (new.root / "kernel/.fork.o.cmd").read_text()
    new.write("kernel/.fork.o.cmd", text.replace("/usr/lib/none/stdarg.h", "/usr/lib/none/stddef.h"))
    assert changes() == expected


def test_missing_file_differs(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    comparison = FileComparison()
    assert not comparison.same(str(tmp_path / "a"), str(tmp_path / "missing"))
    (tmp_path / "hard").hardlink_to(tmp_path / "a")
    assert comparison.same(str(tmp_path / "a"), str(tmp_path / "hard"))


def test_sources_that_changed_since_the_object(separate: Separate) -> None:
    tree, source = separate("linux")
    files = SourceFiles.of(tree.open(), "kernel/fork.o")
    assert files is not None
    newest = max((source / "include/linux/slab.h").stat().st_mtime_ns, 1)
    names = files.changed_since(newest - 1)
    assert "include/linux/slab.h" in names
    assert files.changed_since(1 << 62) == ["/usr/lib/none/stdarg.h"]
