# SPDX-License-Identifier: GPL-2.0-only
"""Checksum files for many objects: whole, the same under any number of processes, and one bad object is one error."""

from __future__ import annotations

import os
import shutil
import signal
import struct
from pathlib import Path

import pytest
from samples import NOBODYS_ENTRIES, SAMPLE, compile_object

from kbuild_klp.checksum import batch, sum_file
from kbuild_klp.checksum.batch import compute, compute_many, write_checksums
from kbuild_klp.checksum.entries import Checksums, checksum_objects
from kbuild_klp.checksum.path import Freshness, freshness, sum_path
from kbuild_klp.elf.reader import ObjectFile
from kbuild_klp.errors import BadObjectError, KlpError
from kbuild_klp.object import image


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


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few small objects are worth a second process, and several batches."""
    monkeypatch.setattr(batch, "_WORTH_A_PROCESS", 1)
    monkeypatch.setattr(batch, "_BATCH", 40_000)


@pytest.mark.usefixtures("small_batches")
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


def test_a_broken_object_costs_itself_only(sample: Path, tmp_path: Path) -> None:
    """Objects are read many at a time; one whose tables contradict each other is found out in the middle of them."""
    paths = _copies(sample, tmp_path, 9)
    file = ObjectFile.open(sample)
    relocations = file.section_names.index(".rela.text")
    data = bytearray(sample.read_bytes())
    struct.pack_into("<I", data, int.from_bytes(data[40:48], "little") + 64 * relocations + 44, 0xFFFFFF)
    paths[4].write_bytes(data)
    result = write_checksums(paths, 1)
    assert (result.written, result.errors) == (8, [str(_error(paths[4]))])
    assert "applies to section 16777215" in result.errors[0]
    paths.remove(paths[4])
    assert _sums(paths) == [compute(str(sample)).data] * 8


def test_what_else_is_read_does_not_matter(sample: Path, tmp_path: Path) -> None:
    """An object has the same checksums alone and among others, also where entries are about functions of other objects.

    A tree is compared with one of which some objects were made again: these are read in another batch.
    """
    made = compile_object(NOBODYS_ENTRIES, tmp_path / "a.o", language="assembler")
    alone = compute(str(made)).data
    for paths in ([sample, made], [made, sample], [sample, sample, made]):
        found = {path: result for path, result in compute_many(map(str, paths)) if not isinstance(result, Exception)}
        assert found[str(made)].data == alone


# What early code makes of a physical address, in each kind of place: by a symbol, by a section, in a table without a
# name, of a string; farther down than the first section begins, and farther up than the last ends.
FAR_ADDENDS = """
    .text
    .globl early
early:
    mov $table - 0x80000000, %rax
    lea kept - 0x7fffffff(%rip), %rbx
    mov $early + 0x7ffffff0, %ecx
    mov $.Lbare, %edx
    ret
    .size early, . - early
    .type early, @function
    .section .rodata
.Lbare:
    .quad kept - 0x80000000, .Ltext + 0x123456789, .Lbare - 0x100000000, early - 0x80000000
    .section .rodata.str1.1, "aMS", @progbits, 1
.Ltext:
    .string "text"
    .data
    .type table, @object
table:
    .quad kept + 0x80000067, table - 0x80000000, outside - 0x80000000, __func__.5 + 0x90000000
    .size table, . - table
    .section .rodata.numbered, "a"
    .type __func__.5, @object
__func__.5:
    .string "early"
    .size __func__.5, . - __func__.5
    .local kept
    .comm kept, 8, 8
"""


@pytest.mark.parametrize("source", [SAMPLE, FAR_ADDENDS], ids=["usual", "far"])
def test_addresses_of_any_width(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Objects of gigabytes (or whose .bss is) have the same checksums, if not at the same cost."""
    made = compile_object(source, tmp_path / "a.o", language="assembler" if source is FAR_ADDENDS else "c")
    narrow = compute(str(made)).data
    monkeypatch.setattr(image, "NARROW", 0)
    assert compute(str(made)).data == narrow


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

    def touched(files: list[object]) -> Checksums:
        os.utime(path, ns=(next(times),) * 2)
        return Checksums("x86_64", [[] for _ in files], [])

    monkeypatch.setattr("kbuild_klp.checksum.entries.checksum_objects", touched)
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
    real = checksum_objects

    def faulty(files: list[ObjectFile]) -> Checksums:
        if any(file.path == str(paths[1]) for file in files):
            raise IndexError("oh")
        return real(files)

    monkeypatch.setattr("kbuild_klp.checksum.entries.checksum_objects", faulty)
    result = write_checksums(paths, 1)
    assert result.written == 2
    assert result.errors == [f"{paths[1]}: internal error: IndexError: oh; please report it, with KLP_DEBUG=1 set"]
    monkeypatch.setenv("KLP_DEBUG", "1")
    with pytest.raises(IndexError):
        write_checksums(paths, 1)


@pytest.mark.usefixtures("small_batches")
def test_a_process_that_is_killed(sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = _copies(sample, tmp_path, 100)
    ours = os.getpid()

    def killed(paths: list[str]) -> None:
        assert os.getpid() != ours
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(batch, "compute_many", killed)
    with pytest.raises(KlpError, match="was killed; if memory is short, try --jobs 1"):
        write_checksums(paths, 2)


def test_nothing_to_do() -> None:
    assert write_checksums([]).written == 0
