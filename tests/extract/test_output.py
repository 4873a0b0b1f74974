# SPDX-License-Identifier: GPL-2.0-only
"""Where an extracted object is written: nothing is lost, and nothing half-made or out of date is left."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from snippets import Compiler

from kbuild_klp.errors import KlpError
from kbuild_klp.extract.extraction import extract

TRACED = ("-pg", "-mfentry", "-mrecord-mcount")
SOURCE = "int limit = %d; int user(int x) { return x + %d; }"


@pytest.fixture
def old(gcc: Compiler) -> str:
    return str(gcc.object(SOURCE % (1, 1), *TRACED))


@pytest.fixture
def new(gcc: Compiler) -> str:
    return str(gcc.object(SOURCE % (1, 2), *TRACED))


def test_an_input_is_not_written_over(old: str, new: str) -> None:
    for output in (old, new, str(Path(old).parent / f"../{Path(old).parent.name}/unit.o")):
        with pytest.raises(KlpError, match="would be written over"):
            extract(old, new, output)


def test_what_was_made_another_time_is_gone_when_something_is_refused(
    gcc: Compiler, old: str, new: str, tmp_path: Path
) -> None:
    output = tmp_path / "out.o"
    assert extract(old, new, str(output)).is_written
    assert output.exists()
    assert extract(old, str(gcc.object(SOURCE % (2, 1), *TRACED)), str(output)).refused
    assert not [*tmp_path.glob("out.o*")]


def test_nothing_is_left_where_it_cannot_be_written(old: str, new: str, tmp_path: Path) -> None:
    with pytest.raises(KlpError, match="No such file"):
        extract(old, new, str(tmp_path / "missing/out.o"))


def test_what_is_no_file_is_not_removed(old: str, new: str, tmp_path: Path) -> None:
    """-o /dev/null, by root."""
    device = tmp_path / "device"
    os.mkfifo(device)
    with pytest.raises(KlpError, match="not a regular file"):
        extract(old, new, str(device))
    assert device.is_fifo()
