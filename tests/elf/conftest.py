# SPDX-License-Identifier: GPL-2.0-only
"""Objects that are compiled once for all tests of the reader."""

from __future__ import annotations

from pathlib import Path

import pytest
from samples import SAMPLE, compile_object


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_object(SAMPLE, tmp_path_factory.mktemp("sample") / "sample.o")
