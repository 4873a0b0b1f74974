# SPDX-License-Identifier: GPL-2.0-only
"""Which parts belong to which function, and which symbols share a name.

GCC splits what is rarely run into `foo.cold`; that is `foo`. Padding before a function has a symbol of its own in
some configurations (`__pfx_foo`, objtool --prefix) and so has Clang's type hash (`__cfi_foo`); both are `foo`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from kbuild_klp.canonical import CanonicalObject, PartKind
from kbuild_klp.elf import constants as elf
from kbuild_klp.names import canonical_name

_COLD = re.compile(r"(.+)\.cold(?:\.\d+)?$")
_PREFIX = re.compile(r"__(?:pfx|cfi)_(.+)$")


@dataclass(frozen=True)
class Families:
    """``parent`` and ``children`` by part; ``numbered``: canonical name of each local symbol that had a number.

    ``files`` is true for an object linked from several sources, whose local names are only unique by file.
    """

    canonical: CanonicalObject
    parent: dict[int, int]
    children: dict[int, list[int]]
    numbered: dict[int, str]
    files: dict[int, str]
    _file_index: list[int]

    def file_of(self, symbol: int) -> str:
        """Return the name in the STT_FILE symbol before ``symbol``."""
        at = int(np.searchsorted(self._file_index, symbol)) - 1
        return self.files[self._file_index[at]] if at >= 0 else ""

    def display_name(self, symbol: int) -> str:
        """Return the name under which a symbol is listed, with its source file where that is needed."""
        name = self.canonical.object.symbol_name(symbol)
        if self.files and int(self.canonical.object.symbols["info"][symbol]) >> 4 == elf.STB_LOCAL:
            return f"{name} ({self.file_of(symbol)})"
        return name


def find_families(canonical: CanonicalObject) -> Families:
    """Find split-off parts and numbered names of an object."""
    obj, parts = canonical.object, canonical.parts
    kind = obj.symbols["info"] & 0xF
    file_index = np.flatnonzero(kind == elf.STT_FILE).tolist()
    files = {index: obj.symbol_name(index) for index in file_index} if len(file_index) > 1 else {}

    def file_of(symbol: int) -> int:
        return int(np.searchsorted(file_index, symbol)) if files else 0

    named: dict[tuple[int, str], int] = {}
    split: list[tuple[int, int, str]] = []
    numbered: dict[int, str] = {}
    local = obj.symbols["info"] >> 4 == elf.STB_LOCAL
    is_code = parts.start < canonical.image.code_end
    for part in np.flatnonzero(parts.kind == PartKind.NAMED).tolist():
        for symbol in canonical.part_symbols(part).tolist():
            name = obj.symbol_name(symbol)
            if is_code[part]:
                named[file_of(symbol) if local[symbol] else 0, name] = part
                if ".cold" in name or name.startswith(("__pfx_", "__cfi_")):
                    split.append((part, file_of(symbol), name))
            if local[symbol]:
                canonical_form = canonical_name(name)
                if canonical_form.numbered:
                    numbered[symbol] = canonical_form.text
    parent: dict[int, int] = {}
    children: dict[int, list[int]] = {}
    for part, file, name in split:
        match = _COLD.match(name) or _PREFIX.match(name)
        if match is None:
            continue
        owner = named.get((file, match[1]), named.get((0, match[1])))
        if owner is not None and owner != part and part not in parent:
            parent[part] = owner
            children.setdefault(owner, []).append(part)
    return Families(canonical, parent, children, numbered, files, file_index)
