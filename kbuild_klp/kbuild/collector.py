# SPDX-License-Identifier: GPL-2.0-only
"""The process behind the objtool stand-in: writes checksums for queued objects, until no more come.

Files in the directory that it is given, all removed by ``make clean``:

``.klp-queue.tmp``
    One absolute path a line, appended by the stand-in, never cut short while anybody may append.
``.klp-done.tmp``
    How many bytes of which queue (its inode) are dealt with. A crash repeats a batch, and loses none.
``.klp-collector.tmp``
    The process number of the collector, for the stand-in to look at.
``.klp-lock.tmp``
    Only the holder of the lock on it works. The system releases the lock of a process that was killed.
``.klp-errors.tmp``
    What went wrong, a line each, of the last collector that had trouble: nobody is there to hear it.

On its way out a collector removes its number first and looks at the queue once more then. So a line either
was appended before that look, or its writer finds no number and starts the next collector, which waits for
the lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from kbuild_klp.containers.replacing import replacing

QUEUE = ".klp-queue.tmp"
DONE = ".klp-done.tmp"
PID = ".klp-collector.tmp"
LOCK = ".klp-lock.tmp"
ERRORS = ".klp-errors.tmp"

_IDLE = 2.0  # seconds without a new line after which the collector goes
_POLL = 0.2  # seconds; long enough that a parallel build fills a batch
_LOCK_WAIT = 10.0  # seconds that a successor waits for a predecessor that is leaving

Writer = Callable[[Sequence[Path]], list[str]]


def write_batch(objects: Sequence[Path]) -> list[str]:
    """Write the checksum files of ``objects``, as ``kbuild-klp checksum`` does.

    On one processor: the build has the others. Returns what went wrong; klp-diff tries those objects again.
    """
    # Not at the top: the process that finds the lock taken is to leave at once.
    from kbuild_klp.checksum.batch import write_checksums

    return write_checksums(objects, jobs=1).errors


class Queue:
    """The reading end of the queue in ``directory``."""

    def __init__(self, directory: Path) -> None:
        self._queue = directory / QUEUE
        self._done = directory / DONE
        self._inode = self._offset = 0
        with contextlib.suppress(OSError, ValueError):
            self._inode, self._offset = (int(word) for word in self._done.read_text().split())

    def take(self) -> list[Path]:
        """The objects that were queued since the last call: each once, in order, and only whole lines."""
        try:
            with self._queue.open("rb") as file:
                status = os.fstat(file.fileno())
                # Removed by make clean, and made anew since.
                if status.st_ino != self._inode or status.st_size < self._offset:
                    self._inode, self._offset = status.st_ino, 0
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return []
        data = data[: data.rfind(b"\n") + 1]
        self._offset += len(data)
        return [Path(os.fsdecode(line)) for line in dict.fromkeys(data.split(b"\n")) if line]

    def finish(self) -> None:
        """Record that everything taken is dealt with."""
        with replacing(self._done) as temporary:
            temporary.write_text(f"{self._inode} {self._offset}\n")


class Claim:
    """Being the one collector of ``directory``."""

    def __init__(self, directory: Path) -> None:
        self._pid = directory / PID
        self._file = (directory / LOCK).open("wb")

    def acquire(self) -> bool:
        """Whether this process is to work now. The named successor of one that is leaving waits."""
        deadline = time.monotonic() + _LOCK_WAIT
        while not self._try_lock():
            if self._holder() not in (None, os.getpid()) or time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        self.announce()
        return True

    def announce(self) -> None:
        """Write this process's number where the stand-in looks."""
        with replacing(self._pid) as temporary:
            temporary.write_text(f"{os.getpid()}\n")

    def withdraw(self) -> None:
        """Remove this process's number, unless it is another's by now."""
        if self._holder() == os.getpid():
            self._pid.unlink(missing_ok=True)

    def close(self) -> None:
        """Release the lock, as the end of the process does."""
        self._file.close()

    def _try_lock(self) -> bool:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def _holder(self) -> int | None:
        """The process number on record, ``None`` if there is none or that process is gone."""
        try:
            number = int(self._pid.read_text())
            os.kill(number, 0)
        except PermissionError:
            return number
        except (OSError, ValueError):
            return None
        return number


def collect(directory: Path, write: Writer = write_batch, idle: float = _IDLE, poll: float = _POLL) -> None:
    """Serve the queue of ``directory`` until nothing new came for ``idle`` seconds.

    Returns at once when another collector does already. An error of ``write`` costs its batch the checksum
    files, nothing more.
    """
    claim = Claim(directory)
    try:
        if claim.acquire():
            _serve(Queue(directory), claim, write, directory / ERRORS, idle, poll)
    finally:
        claim.close()


def _tried(write: Writer, objects: Sequence[Path]) -> list[str]:
    """Call ``write``; returns what went wrong, and never raises."""
    try:
        return write(objects)
    except Exception as error:
        return [f"{type(error).__name__}: {error}"]


def _serve(queue: Queue, claim: Claim, write: Writer, log: Path, idle: float, poll: float) -> None:
    errors: list[str] = []
    last = time.monotonic()
    leaving = False
    while True:
        objects = [path for path in queue.take() if path.is_file()]
        if objects:
            if leaving:
                claim.announce()
                leaving = False
            if new := _tried(write, objects):
                errors += new
                with contextlib.suppress(OSError):
                    log.write_text("".join(f"{line}\n" for line in errors))
            queue.finish()
            last = time.monotonic()
        elif leaving:
            return
        elif time.monotonic() - last >= idle:
            claim.withdraw()
            leaving = True
            continue
        time.sleep(poll)


def detach() -> None:
    """Leave make's process group and files: its jobserver, a pipe to `tee`, a terminal that closes."""
    with contextlib.suppress(PermissionError):
        os.setsid()
    # Not closerange() up to the limit, which is a thousand million in some containers.
    try:
        descriptors = [int(path.name) for path in Path("/proc/self/fd").iterdir()]
    except OSError:
        descriptors = list(range(256))
    for descriptor in descriptors:
        if descriptor > 2:
            with contextlib.suppress(OSError):
                os.close(descriptor)
    os.environ.pop("MAKEFLAGS", None)
    os.nice(5)


def run(arguments: Sequence[str]) -> int:
    """``python -m kbuild_klp.kbuild.collector DIRECTORY``."""
    directory = Path(arguments[0])
    detach()
    # The directory may go while we run (rm -rf): then there is nothing to do.
    with contextlib.suppress(OSError):
        collect(directory, idle=float(os.environ.get("KLP_COLLECTOR_IDLE", _IDLE)))
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
