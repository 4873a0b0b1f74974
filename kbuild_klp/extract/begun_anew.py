# SPDX-License-Identifier: GPL-2.0-only
"""New variables that may be old ones under another name.

By its name one is new, and begins with its initial value. Whether it is to go on with the value of the one that is
gone, nobody but the author of the patch can say.
"""

from __future__ import annotations

from collections.abc import Iterator

from kbuild_klp.extract.correlated import is_harmless
from kbuild_klp.extract.needed import Needed
from kbuild_klp.object.parts import NAMED


def begun_anew(needed: Needed) -> Iterator[str]:
    """Yield what is said of each carried variable where one like it is gone to which the same function referred."""
    both, parts = needed.both, needed.parts
    for piece in needed.pieces.values():
        is_variable = parts.kind[piece.part] == NAMED and not needed.view.is_code(piece.part)
        if not is_variable or both.new.is_read_only(piece.part):
            continue
        name, where = needed.name(piece.part), needed.canonical.section_name(piece.part)
        for old in both.gone_variables if not is_harmless(name) else ():
            entry = both.old.entries[old]
            if (entry.size, entry.section) == (piece.high - piece.low, where) and both.share_a_user(old, piece.part):
                yield f"{name} is new, and begins anew: if it is {old.name}, which is gone, the value of that is lost"
