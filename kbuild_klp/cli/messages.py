# SPDX-License-Identifier: GPL-2.0-only
"""Messages beside the answer: one line each on standard error, after the program's name."""

from __future__ import annotations

import sys
from collections.abc import Iterable


def complain(lines: Iterable[str]) -> None:
    """Print warnings, and errors after which the command goes on."""
    for line in lines:
        print(f"kbuild-klp: {line}", file=sys.stderr)
