# SPDX-License-Identifier: GPL-2.0-only
"""Two small builds of a kernel with livepatch."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from linked_kernel import Kernels, Verdicts, verdicts_of

from kbuild_klp.report.model import Report


@pytest.fixture
def kernels(tmp_path: Path) -> Kernels:
    for tool in ("gcc", "ld", "ar"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    return Kernels(tmp_path)


@pytest.fixture
def verdicts() -> Callable[[Report], Verdicts]:
    return verdicts_of
