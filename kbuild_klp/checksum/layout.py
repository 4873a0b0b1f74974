# SPDX-License-Identifier: GPL-2.0-only
"""What the order and the places of the symbols in a section say, which is in no checksum of a symbol."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from kbuild_klp.elf import constants as elf
from kbuild_klp.elf.symbol_names import canonical_name
from kbuild_klp.object.canonical import CanonicalObject
from kbuild_klp.object.meanings import Digests
from kbuild_klp.object.parts import CONTENT

# Sections in which the order of symbols means nothing. In others (initcalls, parameters, ...) it is the order of an
# array that the linker makes.
_ORDINARY_SECTIONS = (
    ".text",
    ".data",
    ".rodata",
    ".bss",
    ".init.data",
    ".init.rodata",
    ".ref.data",
    ".export_symbol",
)


def section_orders(digests: Digests, used: set[int]) -> dict[int, bytes]:
    """Return the order of symbols in sections that are arrays made by the linker.

    A record of special.toml that is in the checksum of who uses it (``used``) does not count, so that it comes and
    goes with its user. One that looks like another user's does: two users of one record are no users of one each.
    """
    canonical = digests.canonical
    obj, chunks = canonical.object, canonical.chunks
    is_code = obj.sections["flags"] & elf.SHF_EXECINSTR != 0
    result: dict[int, bytes] = {}
    sections, counts = np.unique(chunks.section, return_counts=True)
    for section in sections[counts > 1].tolist():
        if is_code[section] or obj.section_names[section].startswith(_ORDINARY_SECTIONS):
            continue
        wanted = chunks.section == section
        if section in canonical.image.records:
            wanted[_users_records(digests, section, used)] = False
        symbols = chunks.symbols[chunks.first[:-1][wanted]].tolist()
        names = "\0".join(canonical_name(obj.symbol_name(symbol)).text for symbol in symbols)
        result[section] = names.encode("utf-8", "surrogateescape")
    return result


def _users_records(digests: Digests, section: int, used: set[int]) -> list[int]:
    """Return the chunks of records that are in their users' checksums.

    Of those that look alike, one is; the others are if one part uses several of them, which it tells apart.
    """
    parts = digests.canonical.parts
    users_of: dict[int, set[int]] = defaultdict(set)
    for _, user, record in digests.record_references:
        users_of[record].add(user)
    known: dict[bytes, set[int]] = {}
    chunks = []
    for part in ((parts.section == section) & (parts.kind == CONTENT)).nonzero()[0].tolist():
        if part not in used:
            continue
        others = known.get(digests.content_digest(part))
        if others is None or not others.isdisjoint(users_of[part]):
            chunks.append(int(parts.chunk[part]))
        known.setdefault(digests.content_digest(part), set()).update(users_of[part])
    return chunks


class Layout(NamedTuple):
    """What lies in a section in which everything has a name: the ``sizes`` of all, and the ``places`` where they are.

    The same in other places has another alignment.
    """

    sizes: bytes
    places: bytes


def section_layouts(canonical: CanonicalObject) -> dict[int, Layout]:
    """Return the layout of sections of several variables; not where parts without a name can move them."""
    chunks, parts = canonical.chunks, canonical.parts
    barred = set(parts.section[parts.kind > CONTENT].tolist())
    barred.update((canonical.object.sections["flags"] & elf.SHF_EXECINSTR).nonzero()[0].tolist())
    edges = np.diff(chunks.section, prepend=-1, append=-1).nonzero()[0].tolist()
    sizes = memoryview((chunks.end - chunks.start).tobytes())
    places = memoryview((chunks.start - canonical.image.base[chunks.section]).tobytes())
    result = {}
    for (low, high), section in zip(pairwise(edges), chunks.section[edges[:-1]].tolist(), strict=True):
        if high - low > 1 and section not in barred:
            result[section] = Layout(bytes(sizes[8 * low : 8 * high]), bytes(places[8 * low : 8 * high]))
    return result
