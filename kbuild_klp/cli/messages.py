# SPDX-License-Identifier: GPL-2.0-only
"""What is said beside the answer: a line each on standard error, under the program's name."""

from __future__ import annotations

import sys
from collections.abc import Iterable


def complain(lines: Iterable[str]) -> None:
    """Print warnings, or errors that end nothing."""
    for line in lines:
        print(f"kbuild-klp: {line}", file=sys.stderr)
