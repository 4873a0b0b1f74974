# SPDX-License-Identifier: GPL-2.0-only
"""Tables of places in code into which the kernel writes a constant while it boots, and only then.

`runtime_KIND_VARIABLE` lists them (arch/x86/include/asm/runtime-const.h, 6.11). They come along with the code that
they are about; somebody has to write the constants there.
"""

from __future__ import annotations

import re

from kbuild_klp.extract.needed import Needed

_NAME = re.compile(r"runtime_[a-z]+_.+")


def runtime_tables(needed: Needed) -> dict[str, list[int]]:
    """Return, for each such table, the functions that its entries are about."""
    found: dict[str, list[int]] = {}
    for entry in needed.entries:
        if _NAME.fullmatch(entry.table):
            found.setdefault(entry.table, []).append(needed.main(entry.owner))
    return found
