# SPDX-License-Identifier: GPL-2.0-only
"""install, uninstall, print-patch and status on fake trees, and on the files of a real one."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Protocol

import pytest
from fake_kernel import FakeKernel, make_fake_kernel
from samples import without_privileges

from kbuild_klp.cli import install as install_command
from kbuild_klp.cli import status as status_command
from kbuild_klp.cli import uninstall as uninstall_command
from kbuild_klp.errors import BadTreeError, KlpError
from kbuild_klp.kbuild import blocks, install
from kbuild_klp.kbuild.install import apply_edits, plan_install, plan_uninstall
from kbuild_klp.kbuild.state import InstallState, install_parts, summarize


class Command(Protocol):
    """A module of kbuild_klp.cli."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def main(self, arguments: argparse.Namespace) -> int: ...


EDITED = ("Makefile", "lib/Kconfig.debug", "scripts/Makefile.klp")


def snapshot(tree: Path) -> dict[str, tuple[bytes, int]]:
    """Content and mode of every file below ``tree``."""
    return {
        str(path.relative_to(tree)): (path.read_bytes(), path.stat().st_mode)
        for path in tree.rglob("*")
        if path.is_file()
    }


def run(command: Command, tree: Path, *options: str) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.main(parser.parse_args([*options, str(tree)]))


def state(tree: Path) -> InstallState:
    return summarize(install_parts(tree))


@pytest.fixture(params=["fake", "real"])
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A fake source tree, and a copy of what install looks at in the one that KSRC= names."""
    if request.param == "fake":
        return make_fake_kernel(tmp_path, "new").source
    source = os.environ.get("KSRC")
    if not source:
        pytest.skip("KSRC names no kernel source tree")
    copy = tmp_path / "linux"
    for name in ("Makefile", "scripts/Kbuild.include", "lib/Kconfig.debug"):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(Path(source) / name, copy / name)
    return copy


def test_uninstall_is_the_exact_inverse(tree: Path) -> None:
    (tree / "Makefile").chmod(0o640)
    before = snapshot(tree)
    assert run(install_command, tree) == 0
    assert state(tree) is InstallState.INSTALLED
    assert set(snapshot(tree)) == {*before, "scripts/Makefile.klp"}
    assert (tree / "Makefile").stat().st_mode & 0o777 == 0o640
    assert run(uninstall_command, tree) == 0
    assert snapshot(tree) == before
    assert state(tree) is InstallState.NOT


def test_twice_changes_nothing(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(install_command, tree)
    inodes = [(tree / name).stat().st_ino for name in EDITED]
    once = snapshot(tree)
    run(install_command, tree)
    assert snapshot(tree) == once
    assert [(tree / name).stat().st_ino for name in EDITED] == inodes
    run(uninstall_command, tree)
    run(uninstall_command, tree)
    output = capsys.readouterr().out
    assert "already installed, nothing changed" in output
    assert "not installed, nothing changed" in output


def test_edits_made_meanwhile_stay(tree: Path) -> None:
    makefile = tree / "Makefile"
    original = makefile.read_bytes()
    run(install_command, tree)
    makefile.write_bytes(b"# first\r\n" + makefile.read_bytes() + b"# last, no newline")
    run(uninstall_command, tree)
    assert makefile.read_bytes() == b"# first\r\n" + original + b"# last, no newline"


@pytest.mark.parametrize("apply", [["patch", "-p1", "-s"], ["git", "apply"]])
def test_patch_is_what_install_does_without_paths(
    tree: Path, capfdbinary: pytest.CaptureFixture[bytes], apply: list[str]
) -> None:
    before = snapshot(tree)
    assert run(install_command, tree, "--print-patch") == 0
    patch = capfdbinary.readouterr().out
    assert snapshot(tree) == before
    assert str(Path.home()).encode() not in patch
    assert str(tree).encode() not in patch
    assert os.fsencode(Path(blocks.__file__).parents[2]) not in patch
    environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(tree.parent)}
    subprocess.run(apply, cwd=tree, input=patch, check=True, env=environment)
    assert state(tree) is InstallState.INSTALLED
    # A tree that carries the patch is installed, and stays free of paths; and it prints the same patch.
    assert plan_install(tree, "/usr/bin/python3 -m kbuild_klp") == []
    run(install_command, tree, "--print-patch")
    assert capfdbinary.readouterr().out == patch
    run(uninstall_command, tree)
    assert snapshot(tree) == before


@pytest.mark.parametrize("missing", EDITED)
def test_half_installed_tree_is_repaired_and_undone(tree: Path, missing: str) -> None:
    before = snapshot(tree)
    run(install_command, tree)
    whole = snapshot(tree)
    for command, expected in ((install_command, whole), (uninstall_command, before)):
        if missing in before:
            (tree / missing).write_bytes(before[missing][0])
        else:
            (tree / missing).unlink(missing_ok=True)
        assert state(tree) is InstallState.PARTLY
        run(command, tree)
        assert snapshot(tree) == expected


def test_other_version_is_replaced(tree: Path) -> None:
    before = snapshot(tree)
    run(install_command, tree)
    whole = snapshot(tree)
    makefile = tree / "Makefile"
    makefile.write_bytes(
        makefile.read_bytes().replace(b"begin 1", b"begin 77").replace(b"-include $(abs", b"# more\n-include $(abs")
    )
    copy = tree / "scripts" / "Makefile.klp"
    copy.write_bytes(copy.read_bytes() + b"# an older one\n")
    assert state(tree) is InstallState.OTHER
    run(install_command, tree)
    assert snapshot(tree) == whole
    makefile.write_bytes(makefile.read_bytes().replace(b"begin 1", b"begin 77"))
    run(uninstall_command, tree)
    assert snapshot(tree) == before


def test_command_of_another_place_is_replaced(tree: Path) -> None:
    apply_edits(plan_install(tree, "/old/python -m kbuild_klp"))
    apply_edits(plan_install(tree, "/new/python -m kbuild_klp"))
    text = (tree / "Makefile").read_text()
    assert "KBUILD_KLP ?= /new/python -m kbuild_klp\n" in text
    assert "/old/" not in text
    assert state(tree) is InstallState.INSTALLED


def refusal(tree: Path) -> str:
    """The message with which install refuses ``tree``, which it leaves as it was."""
    before = snapshot(tree)
    with pytest.raises(BadTreeError) as caught:
        run(install_command, tree)
    assert snapshot(tree) == before
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("Makefile", "ifeq ($(need-sub-make),1)"),
        ("Makefile", "export sub_make_done := 1"),
        ("Makefile", "__sub-make:"),
        ("lib/Kconfig.debug", 'endmenu # "Compiler options"'),
    ],
)
def test_file_that_looks_different_is_refused(tree: Path, name: str, line: str) -> None:
    path = tree / name
    path.write_text(path.read_text().replace(f"\n{line}", "\n# gone"))
    message = refusal(tree)
    assert str(path) in message
    assert f"no line '{line}'" in message


def test_other_refusals(tree: Path, tmp_path: Path) -> None:
    makefile = tree / "Makefile"
    text = makefile.read_bytes()
    makefile.write_bytes(text + b"ifeq ($(need-sub-make),1)\nendif\n")
    assert "2 lines 'ifeq ($(need-sub-make),1)'" in refusal(tree)
    makefile.write_bytes(text.replace(b"\n", b"\r\n"))
    assert "CR LF" in refusal(tree)
    makefile.write_bytes(text + b"# kbuild-klp begin 1\n")
    assert f"line {len(text.splitlines()) + 1}" in refusal(tree)
    makefile.rename(tmp_path / "elsewhere")
    makefile.symlink_to(tmp_path / "elsewhere")
    assert "symbolic link" in refusal(tree)
    makefile.unlink()
    assert "no such file" in refusal(tree)
    makefile.write_bytes(text)
    (tree / "scripts" / "Makefile.klp").write_text("all: ;\n")
    assert "is not ours" in refusal(tree)
    assert plan_uninstall(tree) == []
    assert state(tree) is InstallState.PARTLY


def test_directory_that_is_no_source_tree(tmp_path: Path) -> None:
    for path, word in ((tmp_path, "not a kernel source tree"), (tmp_path / "none", "does not exist")):
        with pytest.raises(BadTreeError, match=word):
            run(install_command, path)
    kernel = make_fake_kernel(tmp_path / "k", "new")
    (tmp_path / "source").symlink_to(kernel.source)
    with pytest.raises(BadTreeError, match=f"build directory; give {kernel.source}"):
        run(install_command, tmp_path)


def test_failure_half_way_is_taken_back(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = snapshot(tree)
    write = install._write

    def full_disk(path: Path, content: bytes | None) -> None:
        if path.name == "Kconfig.debug":
            raise OSError(28, "No space left on device")
        write(path, content)

    monkeypatch.setattr(install, "_write", full_disk)
    with pytest.raises(KlpError, match=r"Kconfig\.debug: No space left on device; nothing was changed"):
        run(install_command, tree)
    assert snapshot(tree) == before


def test_no_permission(tree: Path) -> None:
    before = snapshot(tree)
    (tree / "lib").chmod(0o555)
    command = [*without_privileges(), sys.executable, "-m", "kbuild_klp", "install", str(tree)]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    finally:
        (tree / "lib").chmod(0o755)
    assert (done.returncode, done.stdout) == (2, "")
    assert "no permission to write here; nothing was changed" in done.stderr
    assert snapshot(tree) == before


def test_hard_linked_copy_of_a_tree_is_not_changed_with_it(tree: Path, tmp_path: Path) -> None:
    other = tmp_path / "other-Makefile"
    other.hardlink_to(tree / "Makefile")
    content = other.read_bytes()
    run(install_command, tree)
    assert other.read_bytes() == content


def test_installed_command_runs_from_anywhere(tmp_path: Path) -> None:
    command = install.own_command().replace("-m kbuild_klp", "-c 'import kbuild_klp; print(kbuild_klp.__path__[0])'")
    done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()).resolve() == Path(install.__file__).resolve().parents[1]


# status


def status_text(tree: Path, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    capsys.readouterr()
    assert run(status_command, tree, *options) == 0
    return capsys.readouterr().out


def test_status_of_a_source_tree(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "include points not installed" in status_text(tree, capsys)
    run(install_command, tree)
    assert "include points installed (version 1)" in status_text(tree, capsys)
    (tree / "scripts" / "Makefile.klp").unlink()
    text = status_text(tree, capsys)
    assert "include points partly installed" in text
    assert "scripts/Makefile.klp: absent" in text
    makefile = tree / "Makefile"
    makefile.write_bytes(makefile.read_bytes().replace(b"# kbuild-klp end\n", b""))
    assert "Makefile: damaged: " in status_text(tree, capsys)


@pytest.mark.parametrize("kernel", ["new"], indirect=True)
def test_status_of_a_build(kernel: FakeKernel, capsys: pytest.CaptureFixture[str]) -> None:
    objtree = kernel.source.parent / "out"
    for name in ("include/config", "include/generated", "lib"):
        (objtree / name).mkdir(parents=True)
    (objtree / "source").symlink_to(kernel.source)
    (objtree / "include" / "config" / "auto.conf").write_text("CONFIG_X86_64=y\nCONFIG_KLP_CHECKSUMS=y\n")
    (objtree / "include" / "generated" / "autoconf.h").touch()
    (objtree / "modules.order").write_text("lib/crc7.o\n")
    (objtree / "lib" / "crc7.mod").write_text("lib/crc7.o\n")
    (objtree / "lib" / "crc7.o").write_bytes(b"\x7fELF")
    text = status_text(objtree, capsys)
    assert str(kernel.source) in text
    assert "CONFIG_KLP_CHECKSUMS=y" in text
    assert "0 fresh, 0 stale, 1 missing (1 linked objects)" in text


def test_status_prints_paths(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    sidecar = Path(status_text(tmp_path, capsys, "--sidecar").strip())
    assert os.access(sidecar, os.X_OK)
    assert sidecar.name == "objtool"
    makefile = Path(status_text(tmp_path, capsys, "--makefile").strip())
    assert makefile.read_bytes() == blocks.makefile_copy()
