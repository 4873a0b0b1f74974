# SPDX-License-Identifier: GPL-2.0-only
"""Which symbol of an object is meant. A spelling does not say: the name that a person reads is made at the very end."""

from __future__ import annotations

from typing import NamedTuple


class SymbolId(NamedTuple):
    """Which symbol of an object is meant: no two of them have the same four.

    ``name`` is what ELF calls it. In an object of several sources, ``file`` is the STT_FILE symbol before a local one
    (empty: it is global, or there is one source only), and ``source`` the how manieth of that name. ``copy`` is the
    how manieth symbol of that name there. Both count from 1, in the order of the symbol table.
    """

    name: str
    file: str = ""
    source: int = 1
    copy: int = 1
