# SPDX-License-Identifier: GPL-2.0-only
"""Progress of long work: a counter on a terminal, wiped at the end; nothing in a pipe."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator

_PATIENCE = 0.25  # seconds before anything is shown


class ProgressLine:
    """Shows `what: done/total` on standard error if that is a terminal and it takes long."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._terminal = sys.stderr.isatty()
        self._start = time.monotonic()
        self._shown = False

    def __call__(self, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` is done."""
        if self._terminal and time.monotonic() - self._start > _PATIENCE:
            self.say(f"{done}/{total}")

    def say(self, stage: str) -> None:
        """Show what is being done."""
        if self._terminal:
            print(f"\r{self._what}: {stage}\x1b[K", end="", file=sys.stderr, flush=True)
            self._shown = True

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Wipe the line."""
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            self._shown = False

    def between(self, lines: Iterable[str]) -> Iterator[str]:
        """Yield lines that are printed while the work goes on, wiping the progress before each."""
        for line in lines:
            self.close()
            yield line
        self.close()

    def end(self) -> None:
        """Show nothing from now on: the terminal belongs to somebody else."""
        self.close()
        self._terminal = False
