# SPDX-License-Identifier: GPL-2.0-only
"""What an extracted object is put together from."""

from __future__ import annotations

from typing import NamedTuple


class Piece(NamedTuple):
    """Bytes that are carried: linear addresses ``low`` to ``high``, those of the part ``part`` among them.

    ``need`` is the function for which they are, ``why`` is for people.
    """

    low: int
    high: int
    part: int
    need: int
    why: str


class Goal(NamedTuple):
    """What a reference becomes: ``offset`` bytes from the symbol ``name``, or the place ``address`` of a piece.

    ``name`` is empty for what is carried, in the piece that begins at ``piece``. ``like`` is the symbol of the new
    object of which binding and visibility are taken, -1 where there is none.
    """

    name: str
    offset: int
    piece: int = -1
    address: int = -1
    like: int = -1


class TakenEntry(NamedTuple):
    """An entry of a special section: what that is called, its number, where the entry lies (linear), and whose it is.

    It takes ``size`` bytes, of which the last one of a section may lack its padding. ``owner`` is the part that it is
    about.
    """

    table: str
    section: int
    low: int
    high: int
    owner: int
    size: int
