# SPDX-License-Identifier: GPL-2.0-only
"""Fixtures: fake kernel trees of each generation of top Makefiles."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fake_kernel import GENERATIONS, FakeKernel, make_fake_kernel


@pytest.fixture(params=GENERATIONS)
def kernel(request: pytest.FixtureRequest, tmp_path: Path) -> FakeKernel:
    """A fake kernel of each generation."""
    return make_fake_kernel(tmp_path, request.param)
