# SPDX-License-Identifier: GPL-2.0-only
"""How many processes to use: what the user says, what make's jobserver lends, or one for each processor.

Protocol: GNU Make manual, "POSIX Jobserver Interaction". Every process started under make has one job slot of its
own; each further one is a byte read from the jobserver, which has to be written back.
"""

from __future__ import annotations

import os
import re
import select
from collections.abc import Iterator
from contextlib import contextmanager, suppress

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
    auth = _AUTH.search(flags)
    if auth is None:  # make without -j: one job
        yield 1
        return
    with _jobserver(auth) as (reader, writer):
        tokens = _take(reader, most - 1)
        try:
            yield 1 + len(tokens)
        finally:
            if tokens:
                os.write(writer, tokens)


@contextmanager
def _jobserver(auth: re.Match[str]) -> Iterator[tuple[int, int]]:
    if auth[1]:
        try:
            descriptor = os.open(auth[1], os.O_RDWR | os.O_NONBLOCK)
        except OSError:
            yield -1, -1
            return
        try:
            yield descriptor, descriptor
        finally:
            os.close(descriptor)
    else:
        yield int(auth[2]), int(auth[3])


def _take(reader: int, most: int) -> bytes:
    """Take up to ``most`` job slots without waiting for any."""
    tokens = b""
    with suppress(OSError, ValueError):  # descriptors that make did not pass on
        while len(tokens) < most and select.select([reader], [], [], 0)[0]:
            token = os.read(reader, 1)
            if not token:
                break
            tokens += token
    return tokens
