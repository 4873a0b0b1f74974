# SPDX-License-Identifier: GPL-2.0-only
"""Whether a format of printk and its like shows an argument as a line number."""

from __future__ import annotations

import re
from enum import Enum

# printf(3) as lib/vsprintf.c reads it: flags, width, precision, length, and the kind of the argument.
_CONVERSION = re.compile(r"%(?:(%)|[-+ #0]*\d*(\*)?(?:\.\d*(\*)?)?(?:hh|h|ll|l|L|z|t|j)?([a-zA-Z]))")
# %s line %d, %s(): at line: %u
_LINE = re.compile(r"(?:\(\))?[\s,:;(\[]*(?:at\s+)?line[\s:#]*", re.IGNORECASE)
_COLON = re.compile(r"(?:\(\))?:")  # %s:%d, %s():%d
_BRACKET = re.compile(r"\s?[:(\[@]")  # %s:%d, %s (%d)
_NUMBERS = "diu"


class Shown(Enum):
    """What a format shows a number as."""

    LINE = "the line of a file, or what the format calls a line"
    MAYBE = "something behind the name of a function"
    OTHER = "anything else"


def shown(text: str, index: int, is_file: bool) -> Shown:
    """Say what argument ``index`` of those behind a format is shown as.

    The argument before it is the name of a file (``is_file``), or of a function.
    """
    found = [match for match in _CONVERSION.finditer(text) if not match[1]]
    if not 0 < index < len(found) or any(match[2] or match[3] for match in found):
        return Shown.OTHER
    name, number = found[index - 1], found[index]
    between = text[name.end() : number.start()]
    if name[4] != "s" or number[4] not in _NUMBERS:
        return Shown.OTHER
    if _LINE.fullmatch(between) or (is_file and _BRACKET.fullmatch(between)):
        return Shown.LINE
    return Shown.MAYBE if _COLON.fullmatch(between) else Shown.OTHER
