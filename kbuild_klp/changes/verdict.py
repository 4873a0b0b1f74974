# SPDX-License-Identifier: GPL-2.0-only
"""Whether a livepatch can carry a change, and what stands in its way."""

from __future__ import annotations

import enum
from typing import NamedTuple


class Obstacle(enum.Enum):
    """What stands in the way of a livepatch. The ``word`` is what its reasons begin with, and does not change.

    With one that ``is_note``, a livepatch is possible.
    """

    NO_LIVEPATCH = "no livepatch"
    INIT = "init or exit code"
    NOT_TRACEABLE = "not traceable"
    NO_SYMBOL = "no symbol"
    DATA = "data"
    TABLE = "table"
    VDSO = "vdso"
    STATIC_KEY = "static key"
    CRC = "CRC"
    TYPE = "kCFI"
    REFERENCED = "still referenced"
    UNKNOWN = "not known"
    # These do not forbid it; who makes the livepatch has to know of them.
    SYMPOS = "sympos", True
    TRACEPOINT = "tracepoint", True
    STATIC_CALL = "static call", True
    READ_ONLY = "read-only data", True
    CALLERS = "by its callers", True
    PRINTK_INDEX = "printk index", True
    THREAD = "thread", True
    MOVED = "moved", True
    UNCHECKED = "not checked", True

    def __init__(self, word: str, is_note: bool = False) -> None:
        self.word = word
        self.is_note = is_note


class Finding(NamedTuple):
    """One obstacle in words; ``text`` begins with the word of ``obstacle``.

    ``users`` are those, by name, that use the old version and stand in the way by that, or have to be replaced, too.
    """

    obstacle: Obstacle
    text: str
    users: tuple[str, ...] = ()


class Verdict(NamedTuple):
    """What a livepatch's author has to know of one change; no reasons: it can be carried, or needs nothing at all."""

    reasons: tuple[Finding, ...] = ()

    @property
    def possible(self) -> bool:
        """Whether it is known that nothing forbids it.

        What is not known counts as impossible: that costs a look, the other error a kernel that is patched wrongly.
        """
        return all(reason.obstacle.is_note for reason in self.reasons)


NOT_JUDGED = Verdict((Finding(Obstacle.UNKNOWN, "not known: nobody looked"),))
