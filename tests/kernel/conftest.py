# SPDX-License-Identifier: GPL-2.0-only
"""Small build trees made on the spot, and the real one named by KLP_TEST_TREE."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from kbuild_klp.kernel.tree import BuildTree

ELF = b"\x7fELF"


class FakeTree:
    """A directory that looks as if kbuild had worked in it."""

    def __init__(self, root: Path, configuration: str = "CONFIG_X86_64=y\nCONFIG_MODULES=y\n") -> None:
        self.root = root
        self.write("include/config/auto.conf", "# Linux\n" + configuration)
        self.write(".config", "# Linux\n" + configuration)
        self.write("include/generated/autoconf.h", "")

    def write(self, path: str, text: str | bytes) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return file

    def objects(self, *paths: str, magic: bytes = ELF) -> list[str]:
        for path in paths:
            self.write(path, magic + path.encode())
        return list(paths)

    def archive(self, path: str, *members: str, flags: str = "cDPrST") -> None:
        """Make an archive as kbuild does; members that do not exist are made."""
        for member in members:
            if not (self.root / member).exists():
                self.objects(member)
        (self.root / path).unlink(missing_ok=True)
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["ar", flags, path, *members], cwd=self.root, check=True)

    def module(self, path: str, *objects: str) -> None:
        self.objects(*objects, f"{path}.o")
        self.write(f"{path}.mod", "".join(f"{name}\n" for name in objects))

    def open(self) -> BuildTree:
        return BuildTree.open(self.root)

    def units(self) -> dict[str, list[str]]:
        return {unit.name: list(unit.objects) for unit in self.open().units()}

    def built(self, *goals: str) -> dict[str, list[str]]:
        return {unit.name: list(unit.objects) for unit in self.open().built_units(goals)}


@pytest.fixture
def fake_tree(tmp_path: Path) -> Callable[..., FakeTree]:
    return lambda name="tree", **options: FakeTree(tmp_path / name, **options)


@pytest.fixture
def tree(fake_tree: Callable[..., FakeTree]) -> FakeTree:
    return fake_tree()


@pytest.fixture(scope="session")
def real_tree() -> BuildTree:
    path = os.environ.get("KLP_TEST_TREE")
    if not path:
        pytest.skip("KLP_TEST_TREE names no built kernel tree")
    return BuildTree.open(path)
