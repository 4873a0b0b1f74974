# SPDX-License-Identifier: GPL-2.0-only
"""Checksum files for many objects: one process (or one for each job slot) for the whole batch."""

from __future__ import annotations

import gc
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kbuild_klp.checksum import sum_file
from kbuild_klp.checksum.path import sum_path
from kbuild_klp.errors import BadObjectError, KlpError
from kbuild_klp.processes import in_processes, job_slots

if TYPE_CHECKING:
    from kbuild_klp.checksum.entries import Checksums
    from kbuild_klp.elf.reader import ObjectFile
    from kbuild_klp.object.meanings import Meanings

_BATCH = 4 << 20  # bytes of objects that are read at a time: what numpy costs by call is little then, and memory too
_WORTH_A_PROCESS = 8 << 20  # bytes below which a second process costs more than it saves
_MOST_TRIES = 3  # for an object that changes while it is read

Progress = Callable[[int, int], None]


@dataclass
class BatchResult:
    """What became of a batch.

    ``written`` counts checksum files; ``unwritten`` holds the content of those that could not be written, by object,
    and ``obstacle`` why; ``errors`` cost one object each; ``warnings`` cost nothing.
    """

    written: int = 0
    unwritten: dict[str, bytes] = field(default_factory=dict)
    obstacle: str = ""
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def add(self, other: BatchResult) -> None:
        """Add the result of a part of the batch."""
        self.written += other.written
        self.unwritten |= other.unwritten
        self.obstacle = self.obstacle or other.obstacle
        self.errors += other.errors
        self.warnings += other.warnings


@dataclass(frozen=True)
class ObjectChecksums:
    """The checksum file of one object (``data``), when the object was made, and what was not understood in it."""

    data: bytes
    mtime_ns: int
    warnings: list[str]


def compute(path: str) -> ObjectChecksums:
    """Compute the checksums of the object at ``path``; raises BadObjectError."""
    [(_, result)] = compute_many([path])
    if isinstance(result, Exception):
        raise result
    return result


def compute_read(meanings: Meanings) -> ObjectChecksums:
    """Compute the checksums of an object that has been read by itself."""
    from kbuild_klp.checksum.entries import checksum_meanings

    [file] = meanings.canonical.objects.files
    [(_, computed)] = _dumped([file], checksum_meanings(meanings))
    return computed


def compute_many(paths: Iterable[str]) -> Iterator[tuple[str, ObjectChecksums | Exception]]:
    """Compute the checksums of objects; yields each with them or with what went wrong, in any order."""
    # Not at the top: numpy takes longer to import than everything that a diff of two trees without changes does.
    from kbuild_klp.elf.reader import ObjectFile

    groups: dict[tuple[int, str], list[ObjectFile]] = defaultdict(list)
    for path in paths:
        try:
            file = ObjectFile.open(path)
        except KlpError as error:
            yield path, error
        else:
            groups[file.machine, file.byteorder].append(file)
    for files in groups.values():
        yield from _compute_files(files)


def _compute_files(files: list[ObjectFile]) -> Iterator[tuple[str, ObjectChecksums | Exception]]:
    """Compute the checksums of objects that are of one machine.

    One that is broken makes its batch fail, and costs itself only: both halves are tried again.
    """
    from kbuild_klp.checksum.entries import checksum_objects

    try:
        found = checksum_objects(files)
    except Exception as error:
        if len(files) == 1:
            yield files[0].path, error
            return
        half = len(files) // 2
        yield from _compute_files(files[:half])
        yield from _compute_files(files[half:])
        return
    for file, computed in _dumped(files, found):
        yield file.path, _checked(file, computed)


def _dumped(files: list[ObjectFile], found: Checksums) -> Iterator[tuple[ObjectFile, ObjectChecksums]]:
    """Put entries into the form in which they are written."""
    warnings: dict[int, list[str]] = defaultdict(list)
    for number, text in found.warnings:
        warnings[number].append(text)
    for number, (file, lines) in enumerate(zip(files, found.lines, strict=True)):
        data = sum_file.dump(found.architecture, sum_file.table_version(), lines)
        yield file, ObjectChecksums(data, file.mtime_ns, warnings[number])


def _checked(file: ObjectFile, computed: ObjectChecksums) -> ObjectChecksums | Exception:
    """Return what was computed, unless the object changed meanwhile: then what it is now."""
    if not file.has_changed():
        return computed
    from kbuild_klp.elf.reader import ObjectFile

    if file.tries < _MOST_TRIES:
        try:
            again = ObjectFile.open(file.path, file.tries + 1)
        except KlpError as error:
            return error
        [(_, result)] = _compute_files([again])
        return result
    return BadObjectError("changes while it is read", file=file.path, hint="wait for the build to end")


def _write_some(paths: Sequence[str]) -> BatchResult:
    result = BatchResult()
    # Entries by the ten thousand, and no cycles worth looking for: the collector would only walk over them.
    collecting = gc.isenabled()
    gc.disable()
    try:
        for path, computed in compute_many(paths):
            if not isinstance(computed, Exception):
                _write(path, computed, result)
            elif isinstance(computed, KlpError):
                result.errors.append(str(computed))
            elif os.environ.get("KLP_DEBUG"):
                raise computed
            else:
                # A fault of ours costs one object, not a build.
                reason = f"internal error: {type(computed).__name__}: {computed}"
                result.errors.append(str(KlpError(reason, file=path, hint="please report it, with KLP_DEBUG=1 set")))
    finally:
        if collecting:
            gc.enable()
    return result


def _write(path: str, computed: ObjectChecksums, result: BatchResult) -> None:
    result.warnings += computed.warnings
    try:
        sum_file.write(sum_path(path), computed.data, computed.mtime_ns)
        result.written += 1
    except OSError as error:
        result.unwritten[path] = computed.data
        result.obstacle = error.strerror or str(error)


def write_checksums(
    paths: Sequence[str | os.PathLike[str]], jobs: int | None = None, progress: Progress | None = None
) -> BatchResult:
    """Write the checksum file of each object in ``paths``.

    An object that cannot be read costs itself its checksum file and nothing else: it is among the ``errors``. Where a
    file cannot be written, its content is in the result.
    ``jobs`` None takes what make's jobserver lends, or all processors. ``progress`` is called with the number of
    objects done and their total.
    """
    names = [os.fspath(path) for path in paths]
    sizes = {name: _size(name) for name in names}
    with job_slots(jobs, sum(sizes.values()) // _WORTH_A_PROCESS + 1) as slots:
        if slots > 1:
            # The largest first, so that no worker is left alone with one at the end.
            names.sort(key=lambda name: -sizes[name])
            import kbuild_klp.checksum.entries  # noqa: F401 - before the fork: what every worker needs is paid for once
        batches = list(_batches(names, sizes))
        results = enumerate(map(_write_some, batches)) if slots == 1 else in_processes(_write_some, batches, slots)
        total = BatchResult()
        done = 0
        for number, result in results:
            total.add(result)
            done += len(batches[number])
            if progress is not None:
                progress(done, len(names))
    total.errors.sort()
    total.warnings.sort()
    return total


def _batches(names: list[str], sizes: Mapping[str, int]) -> Iterator[list[str]]:
    """Cut a list of objects into batches of some megabytes."""
    batch: list[str] = []
    size = 0
    for name in names:
        if batch and size + sizes[name] > _BATCH:
            yield batch
            batch, size = [], 0
        batch.append(name)
        size += sizes[name]
    if batch:
        yield batch


def _size(name: str) -> int:
    try:
        return os.stat(name).st_size
    except OSError:
        return 0
