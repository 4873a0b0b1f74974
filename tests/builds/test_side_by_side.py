# SPDX-License-Identifier: GPL-2.0-only
"""Two large objects are read in two processes: the answer is that of one."""

from __future__ import annotations

from pathlib import Path

import pytest
from snippets import THREE, Compiler

from kbuild_klp.builds import object_pair, single_object
from kbuild_klp.builds.single_object import ObjectBuild
from kbuild_klp.checksum.batch import write_checksums
from kbuild_klp.compare.passes import compare
from kbuild_klp.errors import BadObjectError
from kbuild_klp.report.model import Report

_REST = """
static const char *const names[] = { "one", "two" };
const char *name(int x) { static int count; count++; switch (x) { case 0: return names[1]; case 1: return "%s";
case 2: return "c"; case 3: return "d"; case 4: return __func__; case 5: return names[x]; default: return 0; } }
"""


@pytest.fixture
def objects(gcc: Compiler) -> tuple[Path, Path]:
    old = gcc.object(THREE % "" + _REST % "b")
    return old, gcc.object(THREE % "x ^= 5;" + _REST % "B")


def _compared(objects: tuple[Path, Path], jobs: int, monkeypatch: pytest.MonkeyPatch) -> Report:
    for module in (object_pair, single_object):
        monkeypatch.setattr(module, "WORTH_A_PROCESS", 1)
    return compare(ObjectBuild(str(objects[0])), ObjectBuild(str(objects[1])), jobs)


@pytest.mark.parametrize("has_checksums", [False, True])
def test_the_answer_is_that_of_one_process(
    objects: tuple[Path, Path], has_checksums: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if has_checksums:
        write_checksums(objects)
    found = _compared(objects, 2, monkeypatch)
    assert found == _compared(objects, 1, monkeypatch)
    assert found.objects


def test_the_error_is_that_of_one_process(objects: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    objects[1].write_bytes(objects[1].read_bytes()[:100])
    with pytest.raises(BadObjectError) as raised:
        _compared(objects, 2, monkeypatch)
    assert raised.value.file == str(objects[1])
