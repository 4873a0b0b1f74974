# SPDX-License-Identifier: GPL-2.0-only
"""Two large objects are read in two processes: the answer is that of one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from snippets import THREE, Compiler

from kbuild_klp.builds import object_pair, single_object
from kbuild_klp.builds.single_object import ObjectBuild
from kbuild_klp.checksum.batch import write_checksums
from kbuild_klp.compare import second_look
from kbuild_klp.compare.passes import compare
from kbuild_klp.errors import BadObjectError
from kbuild_klp.processes import in_processes
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


@pytest.mark.parametrize("flags", [(), ("-g",)])
def test_many_changes_of_one_object_have_the_reasons_that_one_process_tells(
    gcc: Compiler, flags: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what a user reads would hang on how many processors the machine has."""
    divided: list[int] = []

    def watched(work: Callable[[object], object], tasks: Sequence[object], slots: int) -> Iterator[tuple[int, object]]:
        divided.append(slots)
        return in_processes(work, tasks, slots)

    monkeypatch.setattr(second_look, "in_processes", watched)
    functions = "".join(f"int f{n}(int x) {{ return x * {n + 3} + CHANGED; }}\n" for n in range(70))
    old, new = (gcc.object(functions.replace("CHANGED", value), *flags) for value in ("1000", "2000"))
    found = _compared((old, new), 2, monkeypatch)
    assert divided == [2]
    assert found == _compared((old, new), 1, monkeypatch)
    assert divided == [2]
    reasons = {change.symbol: change.why for entry in found.objects for change in entry.changes}
    assert len(reasons) == 70
    assert all(why and not any(reason.is_hash for reason in why) for why in reasons.values())
