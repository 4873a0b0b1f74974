# SPDX-License-Identifier: GPL-2.0-only
"""Compilers for all tests; a new architecture adds its own here."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import made_up
import pytest
from snippets import Compiler

from kbuild_klp.arch import registry

# Whoever runs the tests in the background has them ignore these, and so do all programs that they start and end.
for _number, _action in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _action)


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


@pytest.fixture(scope="module")
def made_up_machine() -> Iterator[None]:
    """Make the program know the machine of tests/arch/made_up.py; its assembler is beside it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry._MODULES, made_up.MACHINE, made_up.__name__)
        registry.architecture.cache_clear()
        yield
    registry.architecture.cache_clear()
