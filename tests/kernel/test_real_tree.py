# SPDX-License-Identifier: GPL-2.0-only
"""Against the kernel tree that KLP_TEST_TREE names: ar, nm and the tree's own files are the judges."""

from __future__ import annotations

import subprocess
from pathlib import Path
from posixpath import normpath

from kbuild_klp.checksum.path import Freshness, freshness
from kbuild_klp.kernel.cmdfile import cmd_path, read_saved_command
from kbuild_klp.kernel.settings import Settings, compare_settings
from kbuild_klp.kernel.sources import SourceFiles
from kbuild_klp.kernel.tree import BuildTree
from kbuild_klp.source.macros import MacroIndex, line_sites


def test_vmlinux_as_ar_lists_it(real_tree: BuildTree) -> None:
    listed = subprocess.run(
        ["ar", "t", "vmlinux.a"], cwd=real_tree.root, check=True, capture_output=True, text=True
    ).stdout.split()
    vmlinux = real_tree.units()[0]
    assert vmlinux.name == "vmlinux"
    assert list(vmlinux.objects[: len(listed)]) == listed


def test_every_module(real_tree: BuildTree) -> None:
    units = {unit.name: unit.objects for unit in real_tree.units()[1:]}
    files = list(real_tree.root.rglob("*.ko"))
    assert sorted(units) == sorted(file.name.removesuffix(".ko") for file in files)
    for file in files:
        # KVM's own part is named by the way from arch/x86/kvm: one object is to have one name.
        listed = [normpath(name) for name in file.with_suffix(".mod").read_text().split()]
        assert list(units[file.name.removesuffix(".ko")]) == listed


def test_what_is_not_linked_is_not_listed(real_tree: BuildTree) -> None:
    listed = {name for unit in real_tree.units() for name in unit.objects}
    every = {str(file.relative_to(real_tree.root)) for file in real_tree.root.rglob("*.o")}
    assert listed <= every
    composite = {str(file.relative_to(real_tree.root).with_suffix(".o")) for file in real_tree.root.rglob("*.mod")}
    left = {
        name
        for name in every - listed - composite
        if not name.startswith(("scripts/", "tools/", "certs/", "arch/x86/tools/"))
        and not name.endswith(".mod.o")
        and not Path(name).name.startswith(".")
    }
    own = ("/boot/", "/realmode/rm/", "/vdso", "/purgatory/")
    assert {name for name in left if not any(part in name for part in own)} <= {
        "init/version-timestamp.o",
        "vmlinux.o",
    }


def test_every_object_has_a_readable_command(real_tree: BuildTree) -> None:
    for unit in real_tree.units():
        for name in unit.objects:
            saved = read_saved_command(real_tree.root / cmd_path(name))
            assert saved is not None
            assert normpath(saved.target) == name
            assert saved.source is not None


def test_goals_name_what_the_whole_does(real_tree: BuildTree) -> None:
    units = real_tree.units()
    whole = {unit.name: unit.objects for unit in units}
    (part,) = real_tree.built_units(["fs/proc/"])
    assert part.objects == tuple(name for name in whole["vmlinux"] if name.startswith("fs/proc/"))
    assert [unit.objects for unit in real_tree.built_units(["kernel/fork.o"])] == [("kernel/fork.o",)]
    module = units[-1]
    (found,) = real_tree.built_units([f"{module.objects[0].rpartition('/')[0]}/{module.name}.ko"])
    assert found == module


def test_same_settings(real_tree: BuildTree) -> None:
    assert compare_settings(Settings.of(real_tree), Settings.of(BuildTree.open(real_tree.root))) == []


def test_every_listed_object_is_there(real_tree: BuildTree) -> None:
    states = freshness(real_tree.root, [name for unit in real_tree.units() for name in unit.objects])
    assert Freshness.NO_OBJECT not in states


def test_sources_are_found(real_tree: BuildTree) -> None:
    files = SourceFiles.of(real_tree, "kernel/fork.o")
    assert files is not None
    assert files.main == "kernel/fork.c"
    assert [name for name, path in files.files.items() if not Path(path).exists()] == []
    macros = MacroIndex(real_tree.settings).line_macros(files.files.values())
    assert {"WARN_ON", "BUG_ON"} <= macros
    assert not {"if", "sizeof", "list_for_each_entry", "READ_ONCE"} & macros
    text = Path(files.files[files.main]).read_text()
    lines = text.split("\n")
    found = line_sites(text, macros).keys()
    assert {number for number, line in enumerate(lines, 1) if "\tBUG_ON(" in line} <= found
    assert len(found) < len(lines) / 20
