# SPDX-License-Identifier: GPL-2.0-only
"""How many processes to use: what the user says, what make's jobserver lends, or one for each processor.

Protocol: GNU Make manual, "POSIX Jobserver Interaction". Every process started under make has one job slot of its
own; each further one is a byte read from the jobserver, which has to be written back.
"""

from __future__ import annotations

import os
import re
import signal
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from kbuild_klp.errors import KlpError

Task = TypeVar("Task")
Result = TypeVar("Result")

_AUTH = re.compile(r"--jobserver-(?:auth|fds)=(?:fifo:(\S+)|(\d+),(\d+))")


def processors() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def job_slots(wanted: int | None, most: int) -> Iterator[int]:
    """Give the number of processes to run, at most ``most``; job slots of make are returned at the end.

    ``wanted`` is what the user asked for, None to find out.
    """
    if wanted is not None:
        yield max(1, min(wanted, most))
        return
    most = max(1, min(most, processors()))
    flags = os.environ.get("MAKEFLAGS")
    if flags is None:
        yield most
        return
    auth = None
    for auth in _AUTH.finditer(flags):  # noqa: B007 - make appends; the last one is that of our make
        pass
    if auth is None:  # make without -j: one job
        yield 1
        return
    with _jobserver(auth) as server:
        tokens = _take(server[0], most - 1) if server else b""
        try:
            yield 1 + len(tokens)
        finally:
            if tokens and server:
                os.write(server[1], tokens)


def in_processes(work: Callable[[Task], Result], tasks: Sequence[Task], slots: int) -> Iterator[tuple[int, Result]]:
    """Do tasks in ``slots`` processes; yields the number of each and its result, as they are done.

    The processes are forked: they have what this one has, and only tasks and results are sent. Raises KlpError when
    one of them is killed, and whatever ``work`` raises.
    """
    # Not at the top: most runs need one process.
    from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, as_completed
    from multiprocessing import get_context

    pool = ProcessPoolExecutor(slots, get_context("fork"), initializer=_inherit, initargs=(work,))
    try:
        with _interrupts_held():  # for good in the processes, which start here
            numbers = {pool.submit(_work_on, task): number for number, task in enumerate(tasks)}
        for future in as_completed(numbers):
            yield numbers.pop(future), future.result()
    except BrokenExecutor:
        raise KlpError("a process that reads objects was killed", hint="if memory is short, try --jobs 1") from None
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C back. It goes to all processes, and only the parent is to speak."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


_inherited: Callable[[Any], Any] | None = None


def _inherit(work: Callable[[Any], Any]) -> None:
    global _inherited
    _inherited = work


def _work_on(task: Any) -> Any:
    assert _inherited is not None
    return _inherited(task)


@contextmanager
def _jobserver(auth: re.Match[str]) -> Iterator[tuple[int, int] | None]:
    """Open make's jobserver: gives descriptors to read from without waiting and to write to, None without one."""
    try:
        if auth[1]:
            opened = writer = _open_pipe(auth[1], os.O_RDWR)
        else:
            writer = int(auth[3])
            if not stat.S_ISFIFO(os.fstat(writer).st_mode):
                raise OSError
            # Opened again, because O_NONBLOCK on make's own descriptor would be make's too. Another process may
            # take a token between our look and our read.
            opened = _open_pipe(f"/proc/self/fd/{int(auth[2])}", os.O_RDONLY)
    except (OSError, OverflowError):  # make did not pass it on, and the number may be that of another file
        yield None
        return
    try:
        yield opened, writer
    finally:
        os.close(opened)


def _open_pipe(path: str, flags: int) -> int:
    """Open a pipe, without waiting; raises OSError for everything else."""
    if not Path(path).is_fifo():
        raise OSError
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)


def _take(reader: int, most: int) -> bytes:
    """Take up to ``most`` job slots without waiting for any."""
    tokens = b""
    with suppress(OSError):  # nothing left (EAGAIN)
        while len(tokens) < most and (token := os.read(reader, 1)):
            tokens += token
    return tokens
