# SPDX-License-Identifier: GPL-2.0-only
"""Module.symvers: what a kernel and its modules export, and the CRC of each export under CONFIG_MODVERSIONS.

A line is CRC, symbol, module (its path without suffix, or vmlinux), kind of export and namespace, separated by tabs
(scripts/mod/modpost.c, write_dump). Without CONFIG_MODVERSIONS all CRCs are zero. modpost takes the CRCs from the .cmd
files of the objects (extract_crcs_for_object), and so does this where an object is newer: `make mm/` does not run it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from kbuild_klp.errors import KlpError
from kbuild_klp.kernel.cmdfile import cmd_path
from kbuild_klp.kernel.modules import read_text
from kbuild_klp.kernel.tree import BuildTree

_FILE = "Module.symvers"
_CRC = re.compile(r"^#SYMVER (\S+) 0x([0-9a-f]{1,8})$", re.MULTILINE)


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
    texts = [text for root in roots if (text := read_text(f"{root}/{_FILE}")) is not None]
    for text in texts:
        for line in text.splitlines():
            fields = line.split("\t")
            if len(fields) >= 3 and fields[0].startswith("0x"):
                try:
                    crc = int(fields[0], 16)
                except ValueError:
                    continue
                exports[fields[1]] = Export(fields[2].rpartition("/")[2].removesuffix(".ko"), crc)
    if any(export.crc for export in exports.values()):
        for symbol, crc in _newer_crcs(tree):
            if symbol in exports:
                exports[symbol] = exports[symbol]._replace(crc=crc)
    return exports if texts else None


def _newer_crcs(tree: BuildTree) -> Iterator[tuple[str, int]]:
    """Yield the CRCs of exports of objects that are newer than the file."""
    try:
        time = (Path(tree.root) / _FILE).stat().st_mtime_ns
        names = dict.fromkeys(name for unit in tree.units() for name in unit.objects)
    except (OSError, KlpError):
        return
    for name in names:
        path = Path(tree.root) / cmd_path(name)
        try:
            if path.stat().st_mtime_ns > time:
                found = _CRC.findall(read_text(str(path)) or "")
                yield from ((symbol, int(crc, 16)) for symbol, crc in found)
        except OSError:
            continue  # an object that was copied in


def changed_crcs(old: Mapping[str, Export], new: Mapping[str, Export]) -> dict[str, tuple[int, int]]:
    """Return old and new CRC of the symbols that both export with different ones."""
    return {
        name: (before.crc, after.crc)
        for name, after in new.items()
        if (before := old.get(name)) is not None and before.crc != after.crc and before.crc and after.crc
    }
