# SPDX-License-Identifier: GPL-2.0-only
"""The second look at many objects, in as many processes as there are job slots."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from kbuild_klp.builds import Build
from kbuild_klp.classify import Change
from kbuild_klp.errors import KlpError
from kbuild_klp.jobs import job_slots
from kbuild_klp.lineproof import LineProver
from kbuild_klp.lines import is_of_interest, settle

_WORTH_A_PROCESS = 48  # objects below which a second process costs more than it saves
_CHUNKS = 8  # for each process, so that none waits long for another at the end


@dataclass
class Settlement:
    """The changes of objects after the second look, if any is another one now, and what went wrong on the way."""

    changes: dict[str, list[Change]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def settle_all(old: Build, new: Build, changes: Mapping[str, list[Change]], jobs: int | None = None) -> Settlement:
    """Look at all objects again of which a change can be one of line numbers only.

    ``changes`` are those of each object; the result has the same objects in the same order. ``jobs`` None takes what
    make's jobserver lends, or all processors.
    """
    names = [name for name, found in changes.items() if any(map(is_of_interest, found))]
    prover = LineProver(old, new)
    with job_slots(jobs, len(names) // _WORTH_A_PROCESS + 1) as slots:
        settled = _settle_some(prover, changes, names) if slots == 1 else _in_parallel(prover, changes, names, slots)
    return Settlement({**changes, **settled.changes}, settled.warnings)


def _settle_some(prover: LineProver, changes: Mapping[str, list[Change]], names: Sequence[str]) -> Settlement:
    result = Settlement()
    for name in names:
        before = [change.proof for change in changes[name]]
        try:
            settled = settle(prover, name, changes[name])
            # Most are as they were, and need not be sent from process to process.
            if before != [change.proof for change in settled]:
                result.changes[name] = settled
        except Exception as error:
            # A fault of ours makes lines into changes, and nothing else.
            if os.environ.get("KLP_DEBUG"):
                raise
            reason = f"internal error: {type(error).__name__}: {error}"
            result.warnings.append(f"{name}: line numbers could not be told from changes ({reason}); please report it")
    return result


# What a worker inherits: builds and changes are too large to be sent.
_inherited: tuple[LineProver, Mapping[str, list[Change]]] | None = None


def _work(names: Sequence[str]) -> Settlement:
    assert _inherited is not None
    return _settle_some(*_inherited, names)


def _in_parallel(prover: LineProver, changes: Mapping[str, list[Change]], names: list[str], slots: int) -> Settlement:
    from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
    from multiprocessing import get_context

    global _inherited
    _inherited = prover, changes
    count = min(len(names), slots * _CHUNKS)
    pool = ProcessPoolExecutor(slots, mp_context=get_context("fork"))
    # Ctrl-C goes to all processes, and only the parent is to speak.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    result = Settlement()
    try:
        try:
            # Neighbours have the same headers, so that each process reads fewer of them.
            size = -(-len(names) // count)
            futures = [pool.submit(_work, names[at : at + size]) for at in range(0, len(names), size)]
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for future in futures:
            done = future.result()
            result.changes |= done.changes
            result.warnings += done.warnings
    except BrokenExecutor:
        raise KlpError("a process that looks at objects was killed", hint="if memory is short, try --jobs 1") from None
    finally:
        pool.shutdown(cancel_futures=True)
        _inherited = None
    return result
