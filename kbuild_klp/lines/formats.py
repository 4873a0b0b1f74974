# SPDX-License-Identifier: GPL-2.0-only
"""Whether what printk and its like are given is shown as the number of a line."""

from __future__ import annotations

import re

# printf(3) as lib/vsprintf.c reads it: flags, width, precision, length, and the kind of the argument.
_CONVERSION = re.compile(r"%(?:(%)|[-+ #0]*\d*(\*)?(?:\.\d*(\*)?)?(?:hh|h|ll|l|L|z|t|j)?([a-zA-Z]))")
# %s:%d, %s() line %d, %s, at line: %u
_BEHIND_NAME = re.compile(r"(?:\(\))?(?::|[\s,:;]*(?:at\s+)?line[\s:#]*)", re.IGNORECASE)
_NUMBERS = "diu"


def shows_line(text: str, index: int) -> bool:
    """Say whether argument ``index`` of those behind a format is shown as a line: right behind a name."""
    found = [match for match in _CONVERSION.finditer(text) if not match[1]]
    if not 0 < index < len(found) or any(match[2] or match[3] for match in found):
        return False
    before, own = found[index - 1], found[index]
    between = text[before.end() : own.start()]
    return before[4] == "s" and own[4] in _NUMBERS and _BEHIND_NAME.fullmatch(between) is not None
