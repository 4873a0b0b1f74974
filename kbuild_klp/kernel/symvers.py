# SPDX-License-Identifier: GPL-2.0-only
"""Module.symvers: what a kernel and its modules export, and the CRC of each export under CONFIG_MODVERSIONS.

A line is CRC, symbol, module (its path without suffix, or vmlinux), kind of export and namespace, separated by tabs
(scripts/mod/modpost.c, write_dump). Without CONFIG_MODVERSIONS all CRCs are zero. modpost takes the CRCs from the .cmd
files of the objects (extract_crcs_for_object), and so does this where an object is newer: `make mm/` does not run it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from kbuild_klp.errors import KlpError
from kbuild_klp.kernel.cmdfile import cmd_path
from kbuild_klp.kernel.files import read_text
from kbuild_klp.kernel.tree import BuildTree, objects_of

_FILE = "Module.symvers"
_REAL_CRC = re.compile(r"^0x0*[1-9a-f]", re.MULTILINE)
_CRC = re.compile(r"^#SYMVER (\S+) 0x([0-9a-f]{1,8})$", re.MULTILINE)


class Export(NamedTuple):
    """One exported symbol: the unit that has it, its CRC (0: none) and namespace."""

    unit: str
    crc: int
    namespace: str = ""


class Exports:
    """What is exported in a tree and the kernel below it.

    ``lines`` are those of their files, which are only taken apart for a symbol that is asked for: a kernel exports
    10,000. ``newer`` are CRCs that are not in the files yet, by symbol.
    """

    def __init__(self, lines: list[str], newer: Mapping[str, int]) -> None:
        self.lines = lines
        self.newer = newer

    @cached_property
    def _exports(self) -> dict[str, Export]:
        return self.parse(self.lines)

    def parse(self, lines: Iterable[str]) -> dict[str, Export]:
        """Return what some of the lines say, by symbol.

        A line that is none is passed over: an external module's file may have been written by anybody.
        """
        exports = {}
        for line in lines:
            fields = line.split("\t")
            if len(fields) >= 3 and fields[0].startswith("0x"):
                with suppress(ValueError):
                    crc = self.newer.get(fields[1], int(fields[0], 16))
                    unit = fields[2].rpartition("/")[2].removesuffix(".ko")
                    exports[fields[1]] = Export(unit, crc, "".join(fields[4:5]))
        return exports

    def get(self, symbol: str) -> Export | None:
        """Return the export of a symbol."""
        return self._exports.get(symbol)


def export_files(tree: BuildTree) -> list[str]:
    """Return the files that may say what is exported in ``tree``, the kernel's first."""
    return [f"{root}/{_FILE}" for root in dict.fromkeys((tree.kernel, tree.root)) if root is not None]


def read_exports(tree: BuildTree) -> Exports | None:
    """Return what is exported in ``tree``; None if no file says."""
    return exports_in(export_files(tree), tree)


def exports_in(files: Iterable[str], tree: BuildTree | None = None) -> Exports | None:
    """Return what some files say is exported, None if there is none; ``tree`` may have objects that are newer."""
    texts = [text for path in files if (text := read_text(path)) is not None]
    newer: dict[str, int] = {}
    if tree is not None and any(map(_REAL_CRC.search, texts)):
        newer.update(_newer_crcs(tree))
    return Exports([line for text in texts for line in text.splitlines()], newer) if texts else None


def _newer_crcs(tree: BuildTree) -> Iterator[tuple[str, int]]:
    """Yield the CRCs of exports of objects that are newer than the file."""
    try:
        time = (Path(tree.root) / _FILE).stat().st_mtime_ns
        names = objects_of(tree.units())
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


def changed_crcs(old: Exports, new: Exports) -> dict[str, tuple[int, int]]:
    """Return old and new CRC of the symbols that both export with different ones."""
    same = set() if old.newer or new.newer else {*old.lines} & {*new.lines}
    before, after = (side.parse(line for line in side.lines if line not in same) for side in (old, new))
    return {
        name: (before[name].crc, now.crc)
        for name, now in after.items()
        if name in before and before[name].crc != now.crc and before[name].crc and now.crc
    }
