# SPDX-License-Identifier: GPL-2.0-only
"""What the author of a patch wants to be called before and after it takes effect.

KLP_PRE_PATCH_CALLBACK(function) and its like (include/linux/livepatch_helpers.h, 6.19; a header of ours for kernels
before) leave a pointer in a section that the linker throws away, under a name that says when it is to be called
(include/linux/livepatch_external.h).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from kbuild_klp.errors import BadObjectError
from kbuild_klp.extract.relocated import relocations_of
from kbuild_klp.object.view import ObjectView

SECTION = ".discard.klp_callback_ptrs"
KINDS = ("pre_patch", "post_patch", "pre_unpatch", "post_unpatch")
"""The members of struct klp_callbacks (include/linux/livepatch.h)."""


class Callback(NamedTuple):
    """A callback: which member of struct klp_callbacks it is, and the function's part."""

    kind: str
    part: int


def callbacks(view: ObjectView) -> Iterator[Callback]:
    """Yield the callbacks of an object, in the order of KINDS; raises BadObjectError for what is none."""
    if SECTION not in view.object.section_names:
        return
    section = view.object.section_names.index(SECTION)
    rows, addresses = relocations_of(view, section)
    pointers = dict(zip(rows.offset.tolist(), addresses.tolist(), strict=True))
    found: dict[str, int] = {}
    for symbol in np.flatnonzero(view.object.shndx == section).tolist():
        name, place = view.object.symbol_name(symbol), int(view.object.symbols["value"][symbol])
        kind = next((it for it in KINDS if name.startswith(f"__klp_{it}_callback_")), None)
        if kind is None or place not in pointers:
            continue
        address = pointers.pop(place)
        part = int(view.canonical.parts.at(np.array([address]))[0])
        if address < 0 or kind in found or not view.is_code(part):
            raise BadObjectError(f"{name} is no callback", file=view.file.path, place=SECTION)
        found[kind] = part
    if pointers:
        raise BadObjectError("a pointer in it belongs to no callback", file=view.file.path, place=SECTION)
    yield from (Callback(kind, found[kind]) for kind in KINDS if kind in found)
