# SPDX-License-Identifier: GPL-2.0-only
"""Checksum files for many objects: whole, the same under any number of processes, and one bad object is one error."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest
from samples import SAMPLE, compile_object

from kbuild_klp.checksum import batch, sum_file
from kbuild_klp.checksum.batch import compute, write_checksums
from kbuild_klp.checksum.entry import Columns
from kbuild_klp.checksum.path import Freshness, freshness, sum_path
from kbuild_klp.errors import BadObjectError, KlpError


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_object(SAMPLE, tmp_path_factory.mktemp("batch") / "sample.o")


def _copies(sample: Path, directory: Path, count: int) -> list[Path]:
    paths = [directory / f"{number}.o" for number in range(count)]
    for path in paths:
        shutil.copy(sample, path)
    return paths


def _sums(paths: list[Path]) -> list[bytes]:
    return [Path(sum_path(str(path))).read_bytes() for path in paths]


def test_each_object_gets_a_fresh_file(sample: Path, tmp_path: Path) -> None:
    paths = _copies(sample, tmp_path, 3)
    result = write_checksums(paths, 1)
    assert (result.written, result.errors, result.warnings, result.unwritten) == (3, [], [], {})
    assert freshness(tmp_path, [path.name for path in paths]) == [Freshness.FRESH] * 3
    assert len(list(tmp_path.iterdir())) == 6


def test_the_same_under_any_number_of_processes(sample: Path, tmp_path: Path) -> None:
    paths = _copies(sample, tmp_path, 120)
    paths[7].write_bytes(b"broken")
    seen = []
    one = write_checksums(paths, 1)
    good = [path for path in paths if path != paths[7]]
    first = _sums(good)
    two = write_checksums(paths, 2, lambda done, total: seen.append((done, total)))
    assert _sums(good) == first
    assert (one.written, one.errors) == (two.written, two.errors) == (119, [str(_error(paths[7]))])
    assert sorted(seen) == seen and seen[-1] == (120, 120)


def _error(path: Path) -> KlpError:
    with pytest.raises(BadObjectError) as caught:
        compute(str(path))
    return caught.value


def test_place_and_time_mean_nothing(sample: Path, tmp_path: Path) -> None:
    other = tmp_path / "deep" / "down"
    other.mkdir(parents=True)
    copy = Path(shutil.copy(sample, other / "name.o"))
    os.utime(copy, ns=(5, 5))
    assert compute(str(copy)).data == compute(str(sample)).data


def test_an_object_that_changes_while_it_is_read(sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(shutil.copy(sample, tmp_path / "a.o"))
    times = iter(range(1, 100))

    def touched(canonical: object) -> Columns:
        os.utime(path, ns=(next(times),) * 2)
        return Columns.empty()

    monkeypatch.setattr("kbuild_klp.checksum.entries.checksum_object", touched)
    with pytest.raises(BadObjectError, match="changes while it is read; wait for the build"):
        compute(str(path))


def test_where_nothing_can_be_written_the_content_comes_back(
    sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = _copies(sample, tmp_path, 2)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sum_file, "write", full)
    result = write_checksums(paths, 1)
    assert (result.written, result.errors, result.obstacle) == (0, [], "No space left on device")
    assert result.unwritten == {str(path): compute(str(sample)).data for path in paths}
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["0.o", "1.o"]


def test_a_fault_of_ours_costs_one_object(sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = _copies(sample, tmp_path, 3)
    real = batch.compute

    def faulty(path: str) -> batch.ObjectChecksums:
        if path == str(paths[1]):
            raise IndexError("oh")
        return real(path)

    monkeypatch.setattr(batch, "compute", faulty)
    result = write_checksums(paths, 1)
    assert result.written == 2
    assert result.errors == [f"{paths[1]}: internal error: IndexError: oh; please report it, with KLP_DEBUG=1 set"]
    monkeypatch.setenv("KLP_DEBUG", "1")
    with pytest.raises(IndexError):
        write_checksums(paths, 1)


def test_a_process_that_is_killed(sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = _copies(sample, tmp_path, 100)

    def killed(path: str) -> batch.ObjectChecksums:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    monkeypatch.setattr(batch, "compute", killed)
    with pytest.raises(KlpError, match="was killed; if memory is short, try --jobs 1"):
        write_checksums(paths, 2)


def test_nothing_to_do() -> None:
    assert write_checksums([]).written == 0
