# SPDX-License-Identifier: GPL-2.0-only
from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kbuild_klp.errors import BadTreeError
from kbuild_klp.kernel.tree import BuildTree, LinkUnit

if TYPE_CHECKING:
    from kernel.conftest import FakeTree

LATER = 2_000_000_000_000_000_000


def linked(tree: FakeTree) -> None:
    """A small kernel as 6.12 leaves it."""
    tree.archive("init/built-in.a", "init/main.o", "init/version.o")
    tree.archive("fs/ext4/built-in.a")
    tree.archive("fs/built-in.a", "fs/open.o", "fs/ext4/built-in.a")
    tree.archive("built-in.a", "./init/built-in.a", "./fs/built-in.a")
    tree.archive("lib/lib.a", "lib/string.o", flags="cDPrsT")
    tree.archive("vmlinux.a", "./built-in.a", "lib/lib.a")
    tree.write(".vmlinux.a.cmd", "savedcmd_vmlinux.a := ar cDPrST vmlinux.a ./built-in.a  lib/lib.a; ar mPiT\n")
    tree.write(
        ".vmlinux.o.cmd",
        "savedcmd_vmlinux.o := ld -r -o vmlinux.o --whole-archive vmlinux.a --no-whole-archive "
        "--start-group  --end-group\n",
    )
    tree.module("fs/ext4/ext4", "fs/ext4/inode.o", "fs/ext4/super.o")
    tree.module("lib/crc16", "lib/crc16.o")
    tree.write("fs/ext4/modules.order", "fs/ext4/ext4.o\n")
    tree.write("fs/modules.order", "fs/ext4/ext4.o\n")
    tree.write("lib/modules.order", "lib/crc16.o\n")
    tree.write("modules.order", "fs/ext4/ext4.o\nlib/crc16.o\n")
    tree.write(
        ".modules.order.cmd",
        "savedcmd_modules.order := {   cat fs/modules.order;   cat lib/modules.order; :; } > modules.order\n",
    )
    tree.objects("vmlinux.o", ".vmlinux.export.o", "init/version-timestamp.o", "fs/ext4/ext4.mod.o")
    os.utime(tree.root / "vmlinux.a", ns=(LATER, LATER))


WHOLE = {
    "vmlinux": ["init/main.o", "init/version.o", "fs/open.o", "lib/string.o"],
    "ext4": ["fs/ext4/inode.o", "fs/ext4/super.o"],
    "crc16": ["lib/crc16.o"],
}


def test_linked_tree(tree: FakeTree) -> None:
    linked(tree)
    assert tree.units() == WHOLE


def test_units_are_records(tree: FakeTree) -> None:
    linked(tree)
    assert tree.open().units()[2] == LinkUnit("crc16", ("lib/crc16.o",))


def test_libraries_linked_beside_the_archive(tree: FakeTree) -> None:
    # CONFIG_MODULES=n: KBUILD_VMLINUX_LIBS
    linked(tree)
    tree.archive("vmlinux.a", "./built-in.a")
    os.utime(tree.root / "vmlinux.a", ns=(LATER, LATER))
    tree.write(
        ".vmlinux.o.cmd",
        "savedcmd_vmlinux.o := ld -r --whole-archive vmlinux.a --no-whole-archive "
        "--start-group  lib/lib.a --end-group\n",
    )
    assert tree.units()["vmlinux"] == WHOLE["vmlinux"]


def test_object_in_two_modules_is_in_both(tree: FakeTree) -> None:
    linked(tree)
    tree.module("lib/both", "lib/crc16.o", "lib/more.o")
    tree.write("lib/modules.order", "lib/crc16.o\nlib/both.o\n")
    units = tree.units()
    assert units["crc16"] == ["lib/crc16.o"]
    assert units["both"] == ["lib/crc16.o", "lib/more.o"]


def test_lists_of_older_kernels(tree: FakeTree) -> None:
    linked(tree)
    tree.write("lib/modules.order", "lib/crc16.ko\n")
    tree.write("fs/modules.order", "fs/ext4/ext4.ko\nfs/ext4/ext4.ko\n")
    # Objects on one line, then undefined symbols.
    tree.write("fs/ext4/ext4.mod", "fs/ext4/inode.o fs/ext4/super.o fs/ext4/inode.o\nprintk __fentry__\n")
    assert tree.units() == WHOLE


def test_archive_older_than_its_parts(tree: FakeTree) -> None:
    # Interrupted between built-in.a and vmlinux.a.
    linked(tree)
    tree.archive("built-in.a", "./init/built-in.a", "./fs/built-in.a", "kernel/new.o")
    os.utime(tree.root / "vmlinux.a", ns=(1, 1))
    assert tree.units()["vmlinux"] == [*WHOLE["vmlinux"][:3], "kernel/new.o", "lib/string.o"]


def test_interrupted_before_anything_was_linked(tree: FakeTree) -> None:
    linked(tree)
    for name in ("vmlinux.a", ".vmlinux.a.cmd", ".vmlinux.o.cmd", "vmlinux.o", "built-in.a", "modules.order"):
        (tree.root / name).unlink()
    (tree.root / ".modules.order.cmd").unlink()
    tree.objects("kernel/half.o")
    tree.archive("tools/built-in.a", "tools/host.o")
    found = tree.units()
    assert {name: sorted(objects) for name, objects in found.items()} == {
        name: sorted(objects) for name, objects in WHOLE.items()
    }


def test_nothing_built_yet(tree: FakeTree) -> None:
    assert tree.units() == {}
    assert tree.built("fs/", "kernel/fork.o") == {}


def test_kernel_before_vmlinux_archives(fake_tree: Callable[..., FakeTree]) -> None:
    # 5.10: no top built-in.a, head objects that are in no archive, directories of arch/ linked one by one.
    tree = fake_tree(configuration="CONFIG_X86=y\nCONFIG_X86_64=y\n")
    tree.archive("arch/x86/kernel/built-in.a", "arch/x86/kernel/irq.o")
    tree.archive("arch/x86/built-in.a", "arch/x86/kernel/built-in.a")
    tree.archive("arch/x86/lib/built-in.a", "arch/x86/lib/delay.o")
    tree.archive("arch/x86/lib/lib.a", "arch/x86/lib/memcpy_64.o")
    tree.archive("arch/arm/built-in.a", "arch/arm/stray.o")
    tree.archive("init/built-in.a", "init/main.o")
    tree.archive("drivers/firmware/efi/libstub/lib.a", "drivers/firmware/efi/libstub/x.o")
    tree.module("arch/x86/kernel/msr", "arch/x86/kernel/msr.o")
    tree.write("arch/x86/kernel/modules.order", "arch/x86/kernel/msr.ko\n")
    tree.write("modules.order", "arch/x86/kernel/msr.ko\n")
    tree.objects("arch/x86/kernel/head_64.o", "arch/x86/kernel/msr.mod.o", "vmlinux")
    assert tree.units() == {
        "vmlinux": [
            "arch/x86/kernel/head_64.o",
            "arch/x86/kernel/irq.o",
            "arch/x86/lib/delay.o",
            "init/main.o",
            "arch/x86/lib/memcpy_64.o",
        ],
        "msr": ["arch/x86/kernel/msr.o"],
    }


def test_kernel_with_a_saved_link_of_archives(tree: FakeTree) -> None:
    # 5.19 and 6.0
    tree.archive("init/built-in.a", "init/main.o")
    tree.archive("lib/lib.a", "lib/string.o")
    tree.objects("arch/x86/kernel/head_64.o", "vmlinux.o")
    tree.write(
        ".vmlinux.o.cmd",
        "cmd_vmlinux.o := ld -r -o vmlinux.o --whole-archive arch/x86/kernel/head_64.o init/built-in.a "
        "--no-whole-archive --start-group lib/lib.a --end-group\n",
    )
    assert tree.units() == {"vmlinux": ["arch/x86/kernel/head_64.o", "init/main.o", "lib/string.o"]}


@pytest.mark.parametrize("magic", [b"BC\xc0\xde", b"\xde\xc0\x17\x0b"])
def test_link_time_optimisation(fake_tree: Callable[..., FakeTree], magic: bytes) -> None:
    tree = fake_tree(configuration="CONFIG_X86_64=y\nCONFIG_LTO_CLANG=y\n")
    linked(tree)
    # Assembly comes first and stays ELF.
    tree.objects("init/version.o", "fs/open.o", "fs/ext4/inode.o", magic=magic)
    assert tree.units() == {"vmlinux": ["vmlinux.o"], "ext4": ["fs/ext4/ext4.o"], "crc16": ["lib/crc16.o"]}
    assert tree.built("fs/ext4/inode.o") == {}
    assert tree.built("fs/ext4/") == {"ext4": ["fs/ext4/ext4.o"]}
    tree.objects("fs/ext4/ext4.prelink.o")
    assert tree.units()["ext4"] == ["fs/ext4/ext4.prelink.o"]


def test_objects_decide_about_lto(fake_tree: Callable[..., FakeTree]) -> None:
    tree = fake_tree(configuration="CONFIG_X86_64=y\nCONFIG_LTO_CLANG=y\n")
    linked(tree)
    assert tree.units() == WHOLE


def test_goals(tree: FakeTree) -> None:
    linked(tree)
    assert tree.built() == tree.built("all") == tree.built("vmlinux", "modules") == WHOLE
    assert tree.built("fs/", "bzImage") == WHOLE
    assert tree.built("fs/ext4/") == {"ext4": WHOLE["ext4"]}
    assert tree.built("./fs/") == {"vmlinux": ["fs/open.o"], "ext4": WHOLE["ext4"]}
    assert tree.built("lib/") == {"vmlinux": ["lib/string.o"], "crc16": ["lib/crc16.o"]}
    assert tree.built("fs/open.o", "init/main.o") == {"vmlinux": ["fs/open.o", "init/main.o"]}
    assert tree.built("fs/ext4/inode.o") == {"ext4": ["fs/ext4/inode.o"]}
    assert tree.built("fs/ext4/ext4.ko") == tree.built("fs/ext4/ext4.o") == {"ext4": WHOLE["ext4"]}
    assert tree.built("init/built-in.a") == {"vmlinux": WHOLE["vmlinux"][:2]}
    assert tree.built("fs/open.i", "fs/gone.o", "fs/gone/") == {}


def test_goals_in_a_tree_where_nothing_else_was_built(tree: FakeTree) -> None:
    tree.objects("kernel/fork.o", "lib/crc.o", "arch/x86/boot/main.o", "scripts/mod/empty.o")
    tree.write(
        "lib/.crc.o.cmd",
        "savedcmd_lib/crc.o := gcc -DMODULE -DKBUILD_MODNAME='\"crc16\"' -c -o lib/crc.o x.c\n",
    )
    goals = ("kernel/fork.o", "lib/crc.o", "arch/x86/boot/main.o", "scripts/mod/empty.o")
    assert tree.built(*goals) == {"vmlinux": ["kernel/fork.o"], "crc16": ["lib/crc.o"]}


def test_top_list_that_a_single_module_left(tree: FakeTree) -> None:
    # make fs/foo.ko overwrites modules.order, and removes it when it is done.
    linked(tree)
    (tree.root / "modules.order").unlink()
    assert tree.units() == WHOLE
    (tree.root / "lib/modules.order").unlink()
    tree.write("modules.order", "fs/ext4/ext4.o\nlib/crc16.o\n")
    assert tree.units() == WHOLE


def test_module_that_was_not_built(tree: FakeTree) -> None:
    linked(tree)
    tree.write("lib/modules.order", "lib/crc16.o\nlib/not_yet.o\n")
    assert tree.units() == WHOLE


def test_damaged_archive(tree: FakeTree) -> None:
    linked(tree)
    file = tree.write("vmlinux.a", "!<thin>\n" + "x" * 70)
    with pytest.raises(BadTreeError, match="damaged") as caught:
        tree.open().units()
    assert caught.value.file == str(file.resolve())


def test_archive_that_cannot_be_read(tree: FakeTree) -> None:
    linked(tree)
    (tree.root / "vmlinux.a").unlink()
    (tree.root / "vmlinux.a").mkdir()
    os.utime(tree.root / "vmlinux.a", ns=(LATER, LATER))
    with pytest.raises(BadTreeError, match="cannot be read"):
        tree.open().units()


def test_separate_object_tree(tmp_path: Path, tree: FakeTree) -> None:
    source = tmp_path / "linux"
    source.mkdir()
    assert tree.open().source == tree.root
    (tree.root / "source").symlink_to(source)
    assert tree.open().source == source
    (tree.root / "source").unlink()
    tree.write("Makefile", f"# Automatically generated by {source}/Makefile: don't edit\ninclude {source}/Makefile\n")
    assert tree.open().source == source


def test_tree_behind_a_symbolic_link(tmp_path: Path, tree: FakeTree) -> None:
    linked(tree)
    (tmp_path / "link").symlink_to(tree.root)
    opened = BuildTree.open(tmp_path / "link")
    assert opened.root == tree.root
    assert opened == tree.open()
    assert opened.units() == tree.open().units()


@pytest.mark.parametrize(
    ("configuration", "name", "directory"),
    [
        ("CONFIG_X86_64=y\nCONFIG_X86=y\n", "x86_64", "x86"),
        ("CONFIG_X86_32=y\n# CONFIG_X86_64 is not set\n", "i386", "x86"),
        ("CONFIG_ARM64=y\n", "arm64", "arm64"),
        ("CONFIG_PPC64=y\nCONFIG_PPC=y\nCONFIG_CPU_LITTLE_ENDIAN=y\n", "ppc64le", "powerpc"),
        ("CONFIG_PPC64=y\nCONFIG_PPC=y\n", "ppc64", "powerpc"),
        ("CONFIG_S390=y\n", "s390", "s390"),
        ("CONFIG_NIOS2=y\n", "unknown", "unknown"),
    ],
)
def test_architecture(fake_tree: Callable[..., FakeTree], configuration: str, name: str, directory: str) -> None:
    tree = fake_tree(configuration=configuration).open()
    assert (tree.architecture, tree.source_architecture) == (name, directory)


def test_settings_and_release(fake_tree: Callable[..., FakeTree]) -> None:
    tree = fake_tree(configuration='CONFIG_X86_64=y\nCONFIG_TEXT="a=b"')
    tree.write("include/config/kernel.release", "6.12.1-x\n")
    assert tree.open().release == "6.12.1-x"
    assert tree.open().setting("TEXT") == '"a=b"'
    assert tree.open().setting("TEX") is None


class TestExternalModules:
    @pytest.fixture
    def directory(self, tmp_path: Path) -> Path:
        directory = tmp_path / "ext"
        (directory / "sub").mkdir(parents=True)
        for name in ("one.o", "a.o", "b.o", "sub/three.o"):
            (directory / name).write_bytes(b"\x7fELF")
        return directory

    def lists(self, directory: Path, prefix: str) -> None:
        (directory / "modules.order").write_text(f"{prefix}one.o\n{prefix}two.o\n{prefix}sub/three.o\n")
        (directory / "one.mod").write_text(f"{prefix}one.o\n")
        (directory / "two.mod").write_text(f"{prefix}a.o\n{prefix}b.o\n")
        (directory / "sub/three.mod").write_text(f"{prefix}sub/three.o\n")

    expected = (
        LinkUnit("one", ("one.o",)),
        LinkUnit("two", ("a.o", "b.o")),
        LinkUnit("three", ("sub/three.o",)),
    )

    def test_absolute_paths(self, directory: Path) -> None:
        self.lists(directory, f"{directory}/")
        assert tuple(BuildTree.open(directory).units()) == self.expected

    @pytest.mark.parametrize("prefix", ["", "./"])
    def test_relative_to_the_module(self, directory: Path, prefix: str) -> None:
        # From 6.13, where make changes to the module's directory.
        self.lists(directory, prefix)
        assert tuple(BuildTree.open(directory).units()) == self.expected

    def test_absolute_paths_through_a_link(self, directory: Path, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to(directory)
        self.lists(directory, f"{tmp_path}/link/")
        assert tuple(BuildTree.open(tmp_path / "link").units()) == self.expected

    def test_object_outside(self, directory: Path, tmp_path: Path) -> None:
        self.lists(directory, f"{directory}/")
        (tmp_path / "shared.o").write_bytes(b"\x7fELF")
        (directory / "two.mod").write_text(f"{directory}/a.o\n{tmp_path}/shared.o\n")
        assert BuildTree.open(directory).units()[1].objects == ("a.o", f"{tmp_path}/shared.o")

    def test_part_of_a_kernel(self, tree: FakeTree) -> None:
        linked(tree)
        opened = BuildTree.open(tree.root / "fs/ext4")
        assert opened.kernel == tree.root
        assert opened.architecture == "x86_64"
        assert opened.units() == [LinkUnit("ext4", ("inode.o", "super.o"))]

    def test_part_of_a_kernel_with_more_than_modules(self, tree: FakeTree) -> None:
        """Only its modules would be compared, and of the rest nobody would hear."""
        linked(tree)
        tree.archive("fs/ext4/built-in.a", "fs/ext4/always.o")
        with pytest.raises(BadTreeError, match=r"has objects of vmlinux beside modules; give .* 'fs/ext4/\*'"):
            BuildTree.open(tree.root / "fs/ext4")

    def test_kernel_is_given(self, directory: Path, tree: FakeTree, tmp_path: Path) -> None:
        self.lists(directory, f"{directory}/")
        opened = BuildTree.open_external(directory, tree.root)
        assert (opened.architecture, opened.kernel, opened.is_external) == ("x86_64", tree.root, True)
        assert tuple(opened.units()) == self.expected
        with pytest.raises(BadTreeError, match="not a kernel build tree"):
            BuildTree.open_external(directory, tmp_path)

    def test_without_a_kernel(self, directory: Path) -> None:
        self.lists(directory, "")
        opened = BuildTree.open(directory)
        assert (opened.kernel, opened.architecture, opened.release) == (None, "unknown", None)

    def test_list_is_gone(self, directory: Path) -> None:
        self.lists(directory, "")
        (directory / "modules.order").unlink()
        assert tuple(BuildTree.open(directory).units()) == self.expected[:2]

    def test_goals(self, directory: Path) -> None:
        self.lists(directory, f"{directory}/")
        opened = BuildTree.open(directory)
        assert opened.built_units(["two.ko"]) == [self.expected[1]]
        assert tuple(opened.built_units(["modules"])) == self.expected

    def test_modules_in_subdirectories_only(self, tmp_path: Path) -> None:
        directory = tmp_path / "ext2"
        (directory / "sub").mkdir(parents=True)
        (directory / "modules.order").write_text("sub/x.o\n")
        (directory / "sub/x.mod").write_text("sub/x.o\n")
        assert BuildTree.open(directory).units() == [LinkUnit("x", ("sub/x.o",))]

    def test_nothing_built(self, tmp_path: Path) -> None:
        with pytest.raises(BadTreeError, match="holds no built module"):
            BuildTree.open_external(tmp_path)


class TestNoTree:
    def refused(self, path: Path) -> BadTreeError:
        with pytest.raises(BadTreeError) as caught:
            BuildTree.open(path)
        assert caught.value.file == str(path)
        assert caught.value.hint
        return caught.value

    def test_missing(self, tmp_path: Path) -> None:
        assert self.refused(tmp_path / "nowhere").message == "does not exist"

    def test_file(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        assert self.refused(tmp_path / "file").message == "is not a directory"

    def test_some_directory(self, tmp_path: Path) -> None:
        assert self.refused(tmp_path).message == "is not a kernel build tree"

    def test_source_without_a_build(self, tmp_path: Path) -> None:
        (tmp_path / "scripts").mkdir()
        (tmp_path / "Kbuild").write_text("")
        error = self.refused(tmp_path)
        assert "source tree" in error.message
        assert "O=" in (error.hint or "")

    def test_configured_only(self, tmp_path: Path) -> None:
        (tmp_path / ".config").write_text("CONFIG_X86_64=y\n")
        assert "never built" in self.refused(tmp_path).message

    def test_part_of_a_tree(self, tree: FakeTree) -> None:
        linked(tree)
        (tree.root / "init/modules.order").write_text("")
        error = self.refused(tree.root / "init")
        assert "part" in error.message
        assert error.hint == f"give {tree.root}"
