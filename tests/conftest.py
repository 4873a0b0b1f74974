# SPDX-License-Identifier: GPL-2.0-only
"""Compilers for all tests; a new architecture adds its own here."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from snippets import Compiler


def _command(name: str) -> str:
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    return name


@pytest.fixture
def gcc(tmp_path: Path) -> Compiler:
    return Compiler(_command("gcc"), tmp_path)


@pytest.fixture
def clang(tmp_path: Path) -> Compiler:
    return Compiler(_command("clang-19"), tmp_path)


@pytest.fixture(params=["gcc", "clang-19"])
def cc(request: pytest.FixtureRequest, tmp_path: Path) -> Compiler:
    return Compiler(_command(request.param), tmp_path)


@pytest.fixture(scope="session")
def binutils() -> Callable[..., str]:
    """Run a tool of binutils and return what it says."""

    def run(tool: str, *arguments: str | Path) -> str:
        command = [_command(tool), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    return run
