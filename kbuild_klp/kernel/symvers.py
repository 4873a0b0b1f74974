# SPDX-License-Identifier: GPL-2.0-only
"""Module.symvers: what a kernel and its modules export, and the CRC of each export under CONFIG_MODVERSIONS.

A line is CRC, symbol, module (its path without suffix, or vmlinux), kind of export and namespace, separated by tabs
(scripts/mod/modpost.c, write_dump). Without CONFIG_MODVERSIONS all CRCs are zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from kbuild_klp.kernel.modules import read_text
from kbuild_klp.kernel.tree import BuildTree


class Export(NamedTuple):
    """One exported symbol: the unit that has it, and its CRC (0: none)."""

    unit: str
    crc: int


def read_exports(tree: BuildTree) -> dict[str, Export] | None:
    """Return what is exported in ``tree`` and the kernel below it, by symbol; None if no file says.

    A line that is none is passed over: an external module's file may have been written by anybody.
    """
    exports: dict[str, Export] = {}
    roots = dict.fromkeys(root for root in (tree.kernel, tree.root) if root is not None)
    texts = [text for root in roots if (text := read_text(f"{root}/Module.symvers")) is not None]
    for text in texts:
        for line in text.splitlines():
            fields = line.split("\t")
            if len(fields) >= 3 and fields[0].startswith("0x"):
                try:
                    crc = int(fields[0], 16)
                except ValueError:
                    continue
                exports[fields[1]] = Export(fields[2].rpartition("/")[2].removesuffix(".ko"), crc)
    return exports if texts else None


def changed_crcs(old: Mapping[str, Export], new: Mapping[str, Export]) -> dict[str, tuple[int, int]]:
    """Return old and new CRC of the symbols that both export with different ones."""
    return {
        name: (before.crc, after.crc)
        for name, after in new.items()
        if (before := old.get(name)) is not None and before.crc != after.crc and before.crc and after.crc
    }
