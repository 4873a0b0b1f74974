# SPDX-License-Identifier: GPL-2.0-only
"""What the order and the places of the symbols in a section say, which is in no checksum of a symbol."""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

import numpy as np

from kbuild_klp.elf import constants as elf
from kbuild_klp.elf.symbol_names import canonical_name
from kbuild_klp.object.canonical import Canonical
from kbuild_klp.object.meanings import Meanings
from kbuild_klp.object.parts import CONTENT
from kbuild_klp.object.runs import run_bounds

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


def section_orders(meanings: Meanings, used: set[int]) -> dict[int, bytes]:
    """Return the order of symbols in sections that are arrays made by the linker.

    Of tables in which the order of the entries counts between their owners, it is that of the owners, unless these lie
    in the same order themselves.

    A record of special.toml that is in the checksum of who uses it (``used``) does not count, so that it comes and
    goes with its user. One that looks like another user's does: two users of one record are no users of one each.
    """
    canonical = meanings.canonical
    objects, chunks, image = canonical.objects, canonical.chunks, canonical.image
    is_code = objects.sections["flags"] & elf.SHF_EXECINSTR != 0
    result: dict[int, bytes] = {}
    records = _records_of_users(meanings, used)
    starts, ends = run_bounds(chunks.section)
    several = ((ends - starts > 1) & ~is_code[chunks.section[starts]]).nonzero()[0]
    heads = chunks.heads
    for low, high in zip(starts[several].tolist(), ends[several].tolist(), strict=True):
        section = int(chunks.section[low])
        if objects.section_names[section].startswith(_ORDINARY_SECTIONS):
            continue
        wanted = np.ones(high - low, bool)
        if image.is_record[section]:
            wanted[np.array(records.get(section, ()), np.int64) - low] = False
        names = objects.names_of(heads[low:high][wanted].tolist())
        order = "\0".join(canonical_name(name).text for name in names)
        result[section] = order.encode("utf-8", "surrogateescape")
    for group in image.owned:
        for section in group.sections.tolist() if group.row.ordered else ():
            order = "\0".join(canonical.owners_out_of_order(group, section))
            result[section] = order.encode("utf-8", "surrogateescape")
    return result


def _records_of_users(meanings: Meanings, used: set[int]) -> dict[int, list[int]]:
    """Return the chunks of records that are in their users' checksums, by section.

    Of those that look alike, one is; the others are if one part uses several of them, which it tells apart.
    """
    parts, image = meanings.canonical.parts, meanings.canonical.image
    users_of: dict[int, set[int]] = defaultdict(set)
    for _, user, record in meanings.record_references:
        users_of[record].add(user)
    known: dict[tuple[int, bytes], set[int]] = {}
    chunks: dict[int, list[int]] = defaultdict(list)
    found = (image.is_record[parts.section] & (parts.kind == CONTENT)).nonzero()[0]
    for part, section in zip(found.tolist(), parts.section[found].tolist(), strict=True):
        if part not in used:
            continue
        key, users = (section, meanings.content.digest(part)), users_of.get(part, set())
        others = known.get(key)
        if others is None or not others.isdisjoint(users):
            chunks[section].append(int(parts.chunk[part]))
        known.setdefault(key, set()).update(users)
    return chunks


class Layout(NamedTuple):
    """What lies in a section in which everything has a name: the ``sizes`` of all, and the ``places`` where they are.

    The same in other places has another alignment.
    """

    sizes: bytes
    places: bytes


def section_layouts(canonical: Canonical) -> dict[int, Layout]:
    """Return the layout of sections of several variables; not where parts without a name can move them."""
    chunks, parts = canonical.chunks, canonical.parts
    is_barred = canonical.objects.sections["flags"] & elf.SHF_EXECINSTR != 0
    is_barred[parts.section[parts.kind > CONTENT]] = True
    starts, ends = run_bounds(chunks.section)
    wanted = ((ends - starts > 1) & ~is_barred[chunks.section[starts]]).nonzero()[0]
    sizes = memoryview((chunks.end - chunks.start).astype("<i8").tobytes())
    places = memoryview((chunks.start - canonical.image.base[chunks.section]).astype("<i8").tobytes())
    sections = chunks.section[starts[wanted]].tolist()
    return {
        section: Layout(bytes(sizes[8 * low : 8 * high]), bytes(places[8 * low : 8 * high]))
        for section, low, high in zip(sections, starts[wanted].tolist(), ends[wanted].tolist(), strict=True)
    }
