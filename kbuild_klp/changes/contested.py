# SPDX-License-Identifier: GPL-2.0-only
"""What of two checksum files is to be paired at all: lines that both have are, for the most part, paired already.

vmlinux.o has 80,000 entries of which a few hundred differ. A line that stands in both files is that of a pair without
a difference, unless its name may mean something else as well: then all of that name are in question. So nearly all
lines are never taken apart. What is left out is counted, for it tells which source of the old object is which of the
new one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from kbuild_klp.checksum.entry import KIND_SECTION, Entry
from kbuild_klp.checksum.sum_file import SumFile
from kbuild_klp.elf.symbol_names import canonical_name, maybe_numbered

# What may refer to something else by the same name, or go by another name, or is one of several in its source; and what
# is not written as it is called.
_SPEAKS = re.compile(r"\t(?:uses|aliases|copy)=|\\")
_SECTION = f"{KIND_SECTION}\t"
_HOME = re.compile(r"\tfile=([^\t\n]*)(?:\tsource=(\d+))?")


class Contested(NamedTuple):
    """The entries of both objects that are to be paired.

    ``settled`` counts those that are left out, by their source (its file, and the how manieth of that name).
    """

    old: list[Entry]
    new: list[Entry]
    settled: Mapping[tuple[str, int], int] = {}


def contested(old: SumFile, new: SumFile) -> Contested:
    """Leave out the entries of two files that are a pair whatever becomes of the others."""
    both = {*old.lines} & {*new.lines}
    # A section is known by its name alone, and is the same if nothing is that it refers to by a name of several.
    shared = [line for line in both if not line.startswith(_SECTION) or _SPEAKS.search(line)]
    names = [line.split("\t", 2)[1] for line in shared]
    asked = {*maybe_numbered(names), *(at for at, line in enumerate(shared) if _SPEAKS.search(line))}
    sides = [side.parse(line for line in side.lines if line not in both) for side in (old, new)]
    spoken = old.parse(shared[at] for at in asked)
    # Names that several have, that hold a number, that differ, and all that is called by them.
    in_question = {name for name, count in Counter(names).items() if count > 1}
    for entry in (*spoken, *sides[0], *sides[1]):
        in_question |= {canonical_name(symbol.name).text for symbol in (entry.symbol, *entry.uses, *entry.aliases)}
    settled = []
    for at, (line, name) in enumerate(zip(shared, names, strict=True)):
        if at in asked:
            continue
        if name in in_question:
            spoken += old.parse([line])
        else:
            settled.append(line)
    homes = Counter(_HOME.findall("\n".join(settled)))
    sources = {(file, int(source or 1)): count for (file, source), count in homes.items()}
    return Contested(sides[0] + spoken, sides[1] + spoken, sources)
