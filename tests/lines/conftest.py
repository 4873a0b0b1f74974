# SPDX-License-Identifier: GPL-2.0-only
from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from line_trees import Pairs


def _pairs(command: str, directory: Path) -> Pairs:
    if shutil.which(command) is None:
        pytest.skip(f"{command} is not installed")
    return Pairs(directory, command)


@pytest.fixture
def gcc(tmp_path: Path) -> Pairs:
    return _pairs("gcc", tmp_path)


@pytest.fixture(params=["gcc", "clang-19"])
def cc(request: pytest.FixtureRequest, tmp_path: Path) -> Pairs:
    return _pairs(request.param, tmp_path)
