# SPDX-License-Identifier: GPL-2.0-only
"""A directory to work in that nobody else sees, and that is gone afterwards whatever happens.

Who is killed cannot clean up. So each directory is locked as long as somebody works in it, and the next one who comes
removes those that nobody does.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

from kbuild_klp.errors import KlpError

_PREFIX = "kbuild-klp-"
_YOUNG = 60  # seconds in which somebody may be about to lock it
_ENDING = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def working_directory() -> Iterator[Path]:
    """Make a directory in that for temporary files, and remove it at the end, also when we are told to terminate."""
    _remove_left_ones()
    heard = [number for number in _ENDING if signal.getsignal(number) is not signal.SIG_IGN]  # not under nohup
    before = {number: signal.signal(number, _leave) for number in heard}
    directory = Path(tempfile.mkdtemp(prefix=_PREFIX))
    try:
        with _opened(directory) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield directory
    except OSError as error:
        if error.filename is not None:
            raise
        # Writing has no file's name in its errors: a full disk, above all.
        message = error.strerror or str(error)
        raise KlpError(message, file=directory, hint="name another directory in TMPDIR") from None
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    raise KlpError(f"ended by signal {number} ({signal.strsignal(number)})", hint="nothing was written")


@contextmanager
def _opened(directory: Path) -> Iterator[int]:
    file = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield file
    finally:
        os.close(file)


def _remove_left_ones() -> None:
    """Remove the directories of those that were killed."""
    for directory in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):
            status = directory.stat()
            if status.st_uid != os.getuid() or time.time() - status.st_mtime < _YOUNG:
                continue
            with _opened(directory) as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(directory, ignore_errors=True)
