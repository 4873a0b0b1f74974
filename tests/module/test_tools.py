# SPDX-License-Identifier: GPL-2.0-only
"""The compiler of a tree: as its saved commands say, or as its configuration does, and never another one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kbuild_klp.errors import BadTreeError
from kbuild_klp.kernel.tree import BuildTree
from kbuild_klp.module.tools import tool_variables

if TYPE_CHECKING:
    from pathlib import Path

_GCC = "gcc (Debian 12.2.0-14+deb12u1) 12.2.0"
_CLANG = "Debian clang version 19.1.7 (3~deb12u1)"
_CROSS = "s390x-linux-gnu-gcc-12 (GCC) 12.3.0"


def _tree(root: Path, *settings: str, **saved: str) -> BuildTree:
    (root / "include/config").mkdir(parents=True)
    (root / "include/generated").mkdir()
    (root / "init").mkdir()
    (root / "include/config/auto.conf").write_text("".join(f"CONFIG_{it}\n" for it in ("X86_64=y", *settings)))
    (root / "include/generated/autoconf.h").write_text("")
    for name, command in saved.items():
        place = {"main": "init/.main.o.cmd", "vmlinux": ".vmlinux.o.cmd"}[name]
        (root / place).write_text(f"savedcmd_{name} := {command}\n")
    return BuildTree.open(root)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH with compilers that only say what they are."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", f"{directory}:/bin")
    for name, text in (
        ("gcc", "gcc (GCC) 14.1.0"),
        ("gcc-12", _GCC),
        ("clang", "clang version 20.1.0"),
        ("clang-19", _CLANG),
        ("s390x-linux-gnu-gcc-12", _CROSS),
    ):
        (directory / name).write_text(f"#!/bin/sh\necho '{text}'\necho more\n")
        (directory / name).chmod(0o755)
    return directory


def test_what_the_saved_commands_say(tmp_path: Path) -> None:
    tree = _tree(tmp_path / "tree", main="ccache gcc-12 -Wall -c x.c", vmlinux="ld.bfd -r -o vmlinux.o")
    assert tool_variables(tree, tree.root) == ["CC=ccache gcc-12", "LD=ld.bfd"]


@pytest.mark.parametrize(("text", "name"), [(_GCC, "gcc-12"), (_CLANG, "clang-19"), (_CROSS, _CROSS.split(" ")[0])])
def test_what_the_configuration_says(tmp_path: Path, programs: Path, text: str, name: str) -> None:
    lld = ["LD_IS_LLD=y"] if "clang" in name else []
    tree = _tree(tmp_path / "tree", f'CC_VERSION_TEXT="{text}"', *lld)
    assert tool_variables(tree, tree.root) == [f"CC={name}", *(["LD=ld.lld"] if lld else [])]


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ((), "the configuration does not say either"),
        (('CC_VERSION_TEXT=""',), "the configuration does not say either"),
        (('CC_VERSION_TEXT="gcc (GCC) 13.1.0"',), "no compiler here calls itself 'gcc (GCC) 13.1.0'"),
        (('CC_VERSION_TEXT="clang version 18.1.0"',), "no compiler here calls itself 'clang version 18.1.0'"),
    ],
)
def test_another_compiler_is_not_taken(tmp_path: Path, programs: Path, settings: tuple[str, ...], why: str) -> None:
    tree = _tree(tmp_path / "tree", *settings)
    with pytest.raises(BadTreeError, match=r"init/\.main\.o\.cmd") as error:
        tool_variables(tree, tree.root)
    assert why in str(error.value) and "\n" not in str(error.value)
