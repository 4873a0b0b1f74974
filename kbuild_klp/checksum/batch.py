# SPDX-License-Identifier: GPL-2.0-only
"""Checksum files for many objects: one process (or one for each job slot) for the whole batch."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kbuild_klp.checksum import sum_file
from kbuild_klp.checksum.path import sum_path
from kbuild_klp.errors import BadObjectError, KlpError
from kbuild_klp.processes import in_processes, job_slots

_CHUNK = 48  # objects that a worker takes at a time
_WORTH_A_PROCESS = 96  # objects below which a second process costs more than it saves

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
    # Not at the top: numpy takes longer to import than everything that a diff of two trees without changes does.
    from kbuild_klp.checksum.entries import checksum_object
    from kbuild_klp.elf.reader import ObjectFile
    from kbuild_klp.object.canonical import canonicalize
    from kbuild_klp.special.table import special_table

    for _ in range(3):
        try:
            before = os.stat(path)
            obj = ObjectFile.open(path)
            canonical = canonicalize(obj)
            columns = checksum_object(canonical)
            after = os.stat(path)
        except OSError as error:
            raise BadObjectError(error.strerror or str(error), file=path) from None
        if (before.st_mtime_ns, before.st_size, before.st_ino) == (
            after.st_mtime_ns,
            after.st_size,
            after.st_ino,
        ):
            name = canonical.image.architecture.name
            data = sum_file.dump(name, special_table(name).version, columns)
            return ObjectChecksums(data, before.st_mtime_ns, canonical.warnings)
    raise BadObjectError("changes while it is read", file=path, hint="wait for the build to end")


def _write_some(paths: Sequence[str]) -> BatchResult:
    result = BatchResult()
    # Entries by the ten thousand, and no cycles worth looking for: the collector would only walk over them.
    collecting = gc.isenabled()
    gc.disable()
    try:
        for path in paths:
            try:
                computed = compute(path)
            except KlpError as error:
                result.errors.append(str(error))
                continue
            except Exception as error:
                # A fault of ours costs one object, not a build.
                if os.environ.get("KLP_DEBUG"):
                    raise
                reason = f"internal error: {type(error).__name__}: {error}"
                result.errors.append(str(KlpError(reason, file=path, hint="please report it, with KLP_DEBUG=1 set")))
                continue
            result.warnings += computed.warnings
            try:
                sum_file.write(sum_path(path), computed.data, computed.mtime_ns)
                result.written += 1
            except OSError as error:
                result.unwritten[path] = computed.data
                result.obstacle = error.strerror or str(error)
    finally:
        if collecting:
            gc.enable()
    return result


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
    with job_slots(jobs, max(1, len(names) // _WORTH_A_PROCESS + 1)) as slots:
        if slots == 1:
            return _write_serially(names, progress)
        return _write_in_parallel(names, slots, progress)


def _write_serially(names: list[str], progress: Progress | None) -> BatchResult:
    total = BatchResult()
    for start in range(0, len(names), _CHUNK):
        total.add(_write_some(names[start : start + _CHUNK]))
        if progress is not None:
            progress(min(start + _CHUNK, len(names)), len(names))
    return total


def _write_in_parallel(names: list[str], slots: int, progress: Progress | None) -> BatchResult:
    # The largest first, so that no worker is left alone with one at the end.
    names = sorted(names, key=_size, reverse=True)
    count = (len(names) + _CHUNK - 1) // _CHUNK
    chunks = [names[start::count] for start in range(count)]
    total = BatchResult()
    done = 0
    _import_workers_modules()
    for number, result in in_processes(_write_some, chunks, slots):
        total.add(result)
        done += len(chunks[number])
        if progress is not None:
            progress(done, len(names))
    total.errors.sort()
    total.warnings.sort()
    return total


def _import_workers_modules() -> None:
    """Import before the fork what every worker needs, so that it is paid for once."""
    import kbuild_klp.checksum.entries  # noqa: F401


def _size(name: str) -> int:
    try:
        return Path(name).stat().st_size
    except OSError:
        return 0
