# SPDX-License-Identifier: GPL-2.0-only
"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Give a path beside ``target`` to write to; at the end that file takes its place, and after an error it is gone.

    `make clean` removes what is left of it when we are killed (.*.tmp).
    """
    temporary = Path(_temporary(os.fspath(target)))
    try:
        yield temporary
        temporary.replace(target)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def replace_small(target: str, data: bytes, mtime_ns: int) -> None:
    """Write a small file in the same way, with as few system calls as it takes: a build writes one for each object.

    ``mtime_ns`` is its modification time.
    """
    temporary = _temporary(target)
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        try:
            left = memoryview(data)
            while left := left[os.write(descriptor, left) :]:
                pass
            os.utime(descriptor, ns=(mtime_ns, mtime_ns))
        finally:
            os.close(descriptor)
        os.replace(temporary, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def _temporary(target: str) -> str:
    directory, slash, name = target.rpartition("/")
    return f"{directory}{slash}.{name.removeprefix('.')}.{os.getpid()}.tmp"
