# SPDX-License-Identifier: GPL-2.0-only
"""Branches that are too short to leave their section, and the jumps behind the function at which they land.

A tail call to a function close by has two bytes (`jmp near`), and the assembler resolved it. A carried function is in a
section of its own, with no function close by: there is a jump of full reach behind its end then, and the short branch
goes to that. Nothing in the function moves.
"""

from __future__ import annotations

from typing import NamedTuple

from kbuild_klp.arch.registry import FarJump
from kbuild_klp.extract.relocated import WrittenReference


class Landing(NamedTuple):
    """A jump at ``address`` (linear, as if the piece that begins at ``piece`` went on behind its end).

    ``branch`` is the reference of the short branch, ``jump`` that of the jump, which goes where the branch went.
    """

    address: int
    piece: int
    branch: WrittenReference
    jump: WrittenReference
    code: bytes

    @property
    def end(self) -> int:
        """The address behind the jump."""
        return self.address + len(self.code)

    @property
    def distance(self) -> int:
        """What the field of the short branch holds."""
        return self.address - self.branch.place - self.branch.bias


def landing(jump: FarJump, branch: WrittenReference, piece: int, address: int) -> Landing | None:
    """Return the jump at an address at which a short branch lands, None if that is too far away."""
    place, bias = address + jump.place, len(jump.code) - jump.place
    far = WrittenReference(place, branch.row, jump.type, 0, bias, is_branch=True, is_resolved=False, size=bias)
    found = Landing(address, piece, branch, far, jump.code)
    return found if 0 <= found.distance < 1 << (8 * branch.size - 1) else None
