# SPDX-License-Identifier: GPL-2.0-only
"""What people are shown as the name of a symbol if others of its object have the same name."""

from __future__ import annotations

from collections.abc import Iterable

from kbuild_klp.checksum.entry import KIND_SECTION, Entry
from kbuild_klp.object.symbol_id import SymbolId


def labels_of(symbols: Iterable[SymbolId], entries: Iterable[Entry]) -> dict[SymbolId, str]:
    """Return the labels of ``symbols``: the name, and if others among ``entries`` have it, which one it is.

    `run@core.c` is the one of core.c, `run@core.c[2]` that of the second core.c, `run[2]` the second one in its source.
    """
    homes: dict[str, set[tuple[str, int]]] = {symbol.name: set() for symbol in symbols}
    for entry in entries:
        if entry.kind != KIND_SECTION and entry.name in homes:
            homes[entry.name].add((entry.symbol.file, entry.symbol.source))
    return {symbol: label_of(symbol, with_file=len(homes[symbol.name]) > 1) for symbol in symbols}


def label_of(symbol: SymbolId, *, with_file: bool = True) -> str:
    """Return what a symbol is called for people, with the file in which it is where that is known."""
    name, file, source, copy = symbol
    label = name if copy == 1 else f"{name}[{copy}]"
    if with_file and file:
        label += f"@{file}" if source == 1 else f"@{file}[{source}]"
    return label
