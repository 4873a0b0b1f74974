# SPDX-License-Identifier: GPL-2.0-only
"""The exit statuses, as diff has them: a contract with scripts."""

from __future__ import annotations

from enum import IntEnum


class ExitStatus(IntEnum):
    """The exit statuses of all commands."""

    SAME = 0
    """Done; for `diff` and `explain`: nothing differs, or nothing but line numbers."""
    DIFFERS = 1
    """Something differs."""
    FAILED = 2
    """An argument cannot be used, or some objects could not be compared."""
    INTERRUPTED = 130
    """Ctrl-C, as shells say it: 128 and SIGINT."""
