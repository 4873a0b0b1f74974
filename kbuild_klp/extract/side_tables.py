# SPDX-License-Identifier: GPL-2.0-only
"""Tables about code that no checksum holds, because they follow from it, and that carried code cannot do without.

ORC unwind tables are there when objtool has seen the object; `.discard.*` are notes for objtool that it has yet to see.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from kbuild_klp.elf import constants as elf
from kbuild_klp.extract import callbacks
from kbuild_klp.extract.needed import Needed
from kbuild_klp.extract.pieces import Piece
from kbuild_klp.extract.relocated import relocations_of
from kbuild_klp.extract.why_not import Bar, CannotCarryError
from kbuild_klp.object.view import ObjectView

_ORC, _ORC_PLACE, _ORC_HEADER = ".orc_unwind", ".orc_unwind_ip", ".orc_header"
_DISCARD = ".discard."
# What keeps symbols from the compiler's hands (include/linux/compiler.h), and what is for us.
_UNTOLD = (".discard.addressable", callbacks.SECTION)


class SideReference(NamedTuple):
    """A relocation of an entry: ``field`` in it, and where it goes (linear)."""

    field: int
    type: int
    address: int


class SideEntry(NamedTuple):
    """An entry of a table about the code of ``piece``: the section of the new object, its bytes and relocations."""

    section: int
    piece: Piece
    data: bytes
    references: tuple[SideReference, ...]


class _Rows(NamedTuple):
    """The relocations of a section: place in it, type, and linear address of the target (-1: not in the image)."""

    place: list[int]
    type: list[int]
    address: list[int]


def side_entries(needed: Needed) -> Iterator[SideEntry]:
    """Yield the entries about the code that is carried; raises CannotCarryError for a table that cannot be cut."""
    view = needed.view
    code = sorted((piece for piece in needed.pieces.values() if view.is_code(piece.part)), key=lambda piece: piece.low)
    names = view.object.section_names
    for section, name in enumerate(names):
        has_content = (
            view.object.sections["type"][section] == elf.SHT_PROGBITS and view.object.sections["size"][section]
        )
        if name.startswith(_DISCARD) and name not in _UNTOLD and has_content:
            yield from _notes(view, section, code)
    if _ORC_PLACE in names and _ORC in names:
        yield from _unwind(needed, names.index(_ORC), names.index(_ORC_PLACE), code)


def header_section(view: ObjectView) -> int | None:
    """Return the section that says of which layout the unwind tables are, None where there is none."""
    names = view.object.section_names
    return names.index(_ORC_HEADER) if _ORC_HEADER in names else None


def _rows(view: ObjectView, section: int) -> _Rows:
    rows, address = relocations_of(view, section)
    order = np.argsort(rows.offset, kind="stable")
    return _Rows(*(column[order].tolist() for column in (rows.offset, rows.type, address)))


def _notes(view: ObjectView, section: int, code: list[Piece]) -> Iterator[SideEntry]:
    """Yield the entries of a table of which each names a place in the code first."""
    rows = _rows(view, section)
    data = bytes(view.object.content(section))
    lows = [piece.low for piece in code]
    size = len(data) // max(len(rows.place), 1)
    is_even = rows.place == list(range(0, len(data), size)) if size else False
    for at, place in enumerate(rows.place):
        which = bisect_right(lows, rows.address[at]) - 1
        if which < 0 or rows.address[at] >= code[which].high:
            continue
        if not is_even:
            raise CannotCarryError(Bar.UNEVEN_TABLE, name=view.object.section_names[section])
        reference = SideReference(0, rows.type[at], rows.address[at])
        yield SideEntry(section, code[which], data[place : place + size], (reference,))


def _unwind(needed: Needed, orc: int, places: int, code: list[Piece]) -> Iterator[SideEntry]:
    """Yield the ORC entries of each piece: what holds where it begins, what changes in it, and an end.

    objtool writes an entry where the state changes, and one of zeros at the end of a section (tools/objtool/orc_gen.c).
    At a jump behind the piece holds what holds at the branch to it.
    """
    view = needed.view
    rows = _rows(view, places)
    content = bytes(view.object.content(orc))
    size = len(content) // max(len(rows.place), 1)
    by_address = sorted(zip(rows.address, rows.type, range(len(rows.place)), strict=True))
    addresses = [address for address, _, _ in by_address]
    image = view.canonical.image
    for piece in code:
        start = int(image.base[view.canonical.parts.section[piece.part]])
        first, end = bisect_right(addresses, piece.low) - 1, bisect_left(addresses, piece.high)
        if first < 0 or addresses[first] < start:
            first += 1  # nothing is said of where it begins
        if first >= end:
            continue
        where = [(at, max(addresses[at], piece.low)) for at in range(first, end)]
        landings = needed.landings_of(piece)
        where += [(max(bisect_right(addresses, it.branch.place) - 1, first), it.address) for it in landings]
        kind = by_address[first][1]
        for at, address in where:
            row = by_address[at][2]
            entry = content[row * size : (row + 1) * size]
            yield from _orc_entry(orc, places, piece, entry, SideReference(0, kind, address))
        behind = landings[-1].end if landings else piece.high
        yield from _orc_entry(orc, places, piece, bytes(size), SideReference(0, kind, behind))


def _orc_entry(orc: int, places: int, piece: Piece, entry: bytes, reference: SideReference) -> Iterator[SideEntry]:
    yield SideEntry(orc, piece, entry, ())
    yield SideEntry(places, piece, bytes(4), (reference,))
