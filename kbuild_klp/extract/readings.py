# SPDX-License-Identifier: GPL-2.0-only
"""What else a place in a section may mean than what lies there.

Objects are not built with -fdata-sections: a reference to a static variable is written as a place in its section, and
may be one past the end of what stands before, or the beginning of an array behind, counted from another element than
the first.
"""

from __future__ import annotations

from collections.abc import Iterator

from kbuild_klp.elf import constants as elf
from kbuild_klp.extract.correlated import Correlated
from kbuild_klp.extract.relocated import WrittenReference
from kbuild_klp.object.parts import PartKind

_NEAR = 64  # bytes before an array from which it may be counted
_SCALAR = 8  # bytes of what nobody walks through


def other_readings(
    both: Correlated, reference: WrittenReference, part: int, address: int, place: int, function: int
) -> Iterator[int]:
    """Yield the parts beside ``part`` that a reference to ``address`` in it may mean.

    The reference stands in part ``place``, which is carried because a function (its main part) needs it.
    """
    view = both.new.view
    canonical, parts, sections = view.canonical, view.canonical.parts, view.object.sections
    symbol = reference.symbol
    if symbol and view.object.symbols["info"][symbol] & 0xF != elf.STT_SECTION:
        return
    section = int(parts.section[part])
    # The linker itself reads these one by one (SHF_MERGE, gABI chapter 4).
    if sections["flags"][section] & elf.SHF_MERGE:
        return
    # Descriptors point to whole strings and types, and what reports gets whole descriptors.
    is_descriptor = canonical.section_name(place) == "__dyndbg" or any(map(both.new.is_of_ubsan, (part, place)))
    if is_descriptor or view.jump_table(part, view.family(function)) is not None:
        return
    start = int(parts.start[part])
    # Compilers emit nothing that nobody refers to: the only one who refers to it means it.
    if parts.chunk[part] >= 0 and _functions(both, part) == {function}:
        return
    before = part - 1
    ends_here = address == start and before >= 0 and int(parts.end[before]) == start
    if ends_here and _is_array(both, before, section) and function in _functions(both, before):
        yield before
    behind = part + 1
    while behind < len(parts.start) and int(parts.start[behind]) <= address + _NEAR:
        if _is_array(both, behind, section):
            yield behind
        behind += 1


def _functions(both: Correlated, part: int) -> set[int]:
    """Return the main parts of the functions that refer to a part."""
    parent = both.new.view.canonical.families.parent
    return {parent.get(user, user) for user in both.new.users(part)}


def _is_array(both: Correlated, part: int, section: int) -> bool:
    """Say whether a part lies in a section, and may be what is walked through."""
    parts = both.new.view.canonical.parts
    if int(parts.section[part]) != section or parts.kind[part] in (PartKind.FILLER, PartKind.OWNED):
        return False
    flags = int(both.new.view.object.sections["flags"][section])
    if (parts.kind[part] == PartKind.CONTENT and flags & elf.SHF_WRITE) or both.new.is_of_ubsan(part):
        return False  # one rate limit, one descriptor
    return both.new.view.size(part) > _SCALAR
