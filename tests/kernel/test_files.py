# SPDX-License-Identifier: GPL-2.0-only
from __future__ import annotations

import subprocess
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbuild_klp.containers import ar as archive
from kbuild_klp.errors import BadTreeError
from kbuild_klp.kernel.files import archive_members

if TYPE_CHECKING:
    from kernel.conftest import FakeTree


def ar_t(root: Path, path: str) -> list[str]:
    return subprocess.run(["ar", "t", path], cwd=root, check=True, capture_output=True, text=True).stdout.split()


def relative(root: Path, path: str) -> list[str]:
    return [name.removeprefix(f"{root}/") for name in archive_members(f"{root}/{path}")]


def test_thin_archive_as_ar_lists_it(tree: FakeTree) -> None:
    names = ["init/main.o", "init/a_rather_long_file_name_for_an_object.o", "init/x.o"]
    tree.archive("init/built-in.a", *names)
    assert relative(tree.root, "init/built-in.a") == names == ar_t(tree.root, "init/built-in.a")


def test_many_members(tree: FakeTree) -> None:
    # ar leaves the end of an earlier name in some headers: "/12            /".
    names = [f"fs/{'n' * (i % 20)}{i}.o" for i in range(60)]
    tree.archive("fs/built-in.a", *names)
    assert relative(tree.root, "fs/built-in.a") == names == ar_t(tree.root, "fs/built-in.a")


def test_thin_archive_of_thin_archives_is_flat(tree: FakeTree) -> None:
    tree.archive("fs/ext4/built-in.a", "fs/ext4/inode.o", "fs/ext4/super.o")
    tree.archive("fs/empty/built-in.a")
    tree.archive("fs/built-in.a", "fs/open.o", "fs/ext4/built-in.a", "fs/empty/built-in.a")
    tree.archive("vmlinux.a", "./fs/built-in.a")
    expected = ["fs/open.o", "fs/ext4/inode.o", "fs/ext4/super.o"]
    assert relative(tree.root, "vmlinux.a") == expected == ar_t(tree.root, "vmlinux.a")


def test_members_above_the_archive(tree: FakeTree) -> None:
    tree.archive("fs/xfs/built-in.a", "lib/crc.o", "fs/open.o")
    assert relative(tree.root, "fs/xfs/built-in.a") == ["lib/crc.o", "fs/open.o"]


def test_symbol_table_is_no_member(tree: FakeTree) -> None:
    (tree.root / "a.c").write_text("int a;")
    subprocess.run(["gcc", "-c", "a.c", "-o", "a.o"], cwd=tree.root, check=True)
    tree.archive("lib.a", "a.o", flags="cDPrsT")
    assert relative(tree.root, "lib.a") == ["a.o"]


def test_archive_that_is_not_thin(tree: FakeTree) -> None:
    names = ["lib/a.o", "lib/odd_length_name_of_an_object_file.o", "lib/c.o"]
    tree.objects(*names)
    tree.write("lib/a.o", "odd")
    tree.archive("lib/lib.a", *names, flags="cDrS")
    assert relative(tree.root, "lib/lib.a") == names


def test_ordinary_archive_inside_a_thin_one(tree: FakeTree) -> None:
    tree.archive("lib/lib.a", "lib/a.o", "lib/odd_length_name_of_an_object_file.o", flags="cDrS")
    tree.archive("built-in.a", "init/main.o", "lib/lib.a")
    assert relative(tree.root, "built-in.a") == [
        "init/main.o",
        "lib/a.o",
        "lib/odd_length_name_of_an_object_file.o",
    ]


def test_empty_archive(tree: FakeTree) -> None:
    tree.archive("built-in.a")
    assert archive_members(f"{tree.root}/built-in.a") == []


def test_no_archive(tree: FakeTree) -> None:
    file = tree.write("vmlinux.a", "nothing of the kind")
    with pytest.raises(BadTreeError, match="is not an archive"):
        archive_members(str(file))


def test_every_cut_is_refused_or_shorter(tree: FakeTree) -> None:
    tree.archive("built-in.a", "init/main.o", "init/a_rather_long_file_name_for_an_object.o")
    data = (tree.root / "built-in.a").read_bytes()
    whole = archive_members(f"{tree.root}/built-in.a")
    for length in range(len(data)):
        file = tree.write("cut.a", data[:length])
        try:
            assert archive_members(str(file)) == whole[: len(archive_members(str(file)))]
        except BadTreeError as error:
            assert error.file == str(file)


@given(st.binary(max_size=400), st.booleans())
def test_garbage_raises_only_our_error(data: bytes, thin: bool) -> None:
    magic = archive.THIN_MAGIC if thin else archive.FULL_MAGIC
    with suppress(BadTreeError):
        list(archive.members_of(magic + data, "x.a"))


@given(st.data())
def test_mutated_archive_raises_only_our_error(data: st.DataObject) -> None:
    header = b"%-16s%-12d%-6d%-6d%-8o%-10d`\n"
    table = b"main.o/\nversion.o/\n"
    text = archive.THIN_MAGIC + header % (b"//", 0, 0, 0, 0, len(table)) + table + b"\n"
    text += header % (b"/0", 0, 0, 0, 0o644, 99) + header % (b"/8", 0, 0, 0, 0o644, 4711)
    assert [member.name for member in archive.members_of(text, "x.a")] == ["main.o", "version.o"]
    mutated = bytearray(text)
    for place in data.draw(st.lists(st.integers(0, len(text) - 1), max_size=4)):
        mutated[place] = data.draw(st.integers(0, 255))
    with suppress(BadTreeError):
        list(archive.members_of(bytes(mutated), "x.a"))
