# SPDX-License-Identifier: GPL-2.0-only
"""Where a panic of Rust came from: struct Location (library/core/src/panic/location.rs), which holds a line.

The compiler makes one for each call of a function that is marked #[track_caller], and passes it as the last argument.
Those of the crate core are known to take it. What is passed to other functions of Rust has nothing but its form, and
is believed where core is told of the same source: a pointer to a name that ends in .rs, exactly as long as is said
beside it, then two numbers and nothing else.
"""

from __future__ import annotations

import re

import numpy as np

from kbuild_klp.elf import rust_names
from kbuild_klp.lines.referring import called_next
from kbuild_klp.lines.remembered import kept_with_view
from kbuild_klp.object.parts import PIECE
from kbuild_klp.object.view import ObjectView

CORE = "4core"
"""How the crate core is called in the names of symbols."""

LINE, COLUMN = 16, 20
_LENGTH, _SIZE = 8, 24
_LONGEST_NAME = 4096  # PATH_MAX
_SOURCE = re.compile(r"[^\s%]+\.rs")
# A function of core that is no instance for somebody's types.
_OF_CORE = re.compile(rf"{rust_names.PREFIX}(?:N[a-z])+C(?:s[0-9A-Za-z]*_)?{CORE}[0-9]")


def is_passed(view: ObjectView, part: int, function: str) -> bool:
    """Say whether data that are passed to a function of a name are such a place."""
    if not function.startswith(rust_names.PREFIX):
        return False
    return _OF_CORE.match(function) is not None or source_of(view, part) in _known_sources(view)


def source_of(view: ObjectView, part: int) -> str | None:
    """Return the name of the source in data that have the form of such a place, None for others."""
    rows, data = view.reference_range(part), view.data(part)
    if len(data) < _SIZE or [view.reference_place(part, row) for row in rows] != [0]:
        return None
    length = int.from_bytes(data[_LENGTH:LINE], view.architecture.byteorder)
    source = view.text(rows[0], length) if length <= _LONGEST_NAME else None
    return source if source and _SOURCE.fullmatch(source) else None


@kept_with_view
def _known_sources(view: ObjectView) -> frozenset[str]:
    """Return the sources of which core is told."""
    parts = view.canonical.parts
    is_alone = (parts.kind == PIECE) & (np.diff(view.canonical.first_reference) == 1)
    maybe = (is_alone & (parts.end - parts.start >= _SIZE)).nonzero()[0].tolist()
    sources = ((part, source) for part in maybe if (source := source_of(view, part)))
    return frozenset(
        source
        for part, source in sources
        if any(_OF_CORE.match(called_next(view, row)) for row in view.references_to(part))
    )
