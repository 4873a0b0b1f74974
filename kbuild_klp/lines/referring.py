# SPDX-License-Identifier: GPL-2.0-only
"""Where references are, what they mean, the names of what they go to, and to whom that is passed."""

from __future__ import annotations

from collections.abc import Iterator

from kbuild_klp.object.function import goes_to_target
from kbuild_klp.object.view import ObjectView


def part_with(view: ObjectView, reference: int) -> int:
    """Return the part that a reference is in."""
    return int(view.canonical.parts.at(view.canonical.references.place[reference : reference + 1])[0])


def content(view: ObjectView, part: int) -> tuple[bytes, tuple[tuple[int, ...], ...]]:
    """Return all that is in a part: its bytes, and the meanings of its references, each with its place."""
    return view.data(part), tuple((reference.place, *reference.key) for reference in view.references(part))


def users(view: ObjectView, part: int) -> Iterator[tuple[int, int]]:
    """Yield the references to a part, each with the part that it is in."""
    rows = view.references_to(part)
    yield from zip(rows, view.canonical.parts.at(view.canonical.references.place[rows]).tolist(), strict=True)


def target_name(view: ObjectView, reference: int) -> str:
    """Return the name of the symbol that a reference is known by, empty if it is known by something else."""
    symbol = view.target_symbol(reference)
    return view.object.symbol_name(symbol) if symbol >= 0 else ""


def called_next(view: ObjectView, reference: int) -> str:
    """Return the name of the function that is called next after an instruction with a reference, empty for none.

    What the instruction loads is an argument of that function.
    """
    part = part_with(view, reference)
    if not view.is_code(part):
        return ""
    later = range(reference + 1, view.reference_range(part).stop)
    call = next((row for row in later if goes_to_target(view, part, view.reference_place(part, row))), None)
    return "" if call is None else target_name(view, call)
