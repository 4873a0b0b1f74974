# SPDX-License-Identifier: GPL-2.0-only
"""One entry a section: its attributes, and what in it belongs to nobody else."""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterator

import numpy as np
from xxhash import xxh3_128_hexdigest

from kbuild_klp.checksum.entry import KIND_SECTION, Entry, short_hash
from kbuild_klp.checksum.layout import Layout, section_layouts, section_orders
from kbuild_klp.checksum.sum_file import entry_line
from kbuild_klp.elf import constants as elf
from kbuild_klp.object.canonical import Canonical
from kbuild_klp.object.meanings import Meanings, nobodys_part
from kbuild_klp.object.parts import PIECE, STRINGS
from kbuild_klp.object.runs import run_rows, sorted_unique
from kbuild_klp.object.symbol_id import SymbolId

_ATTRIBUTES = struct.Struct("<IQQ")

Content = tuple[bytes, bytes, bytes]
"""Bytes, reference rows and special entries."""


def section_lines(meanings: Meanings, used: set[int], uses: dict[int, list[int]]) -> Iterator[tuple[int, str]]:
    """Yield the entries of all sections, as lines, with the number of the object; those of one name share an entry.

    ``used`` are the parts known by content that are in the checksum of who refers to them, ``uses`` the symbols that
    look alike to which parts lead.
    """
    sections = _Sections(meanings, used, uses)
    canonical = meanings.canonical
    numbers = canonical.objects.section_object.tolist()
    by_name: dict[tuple[int, str], list[int]] = defaultdict(list)
    for section in canonical.image.order.tolist():
        by_name[numbers[section], canonical.section_names[section]].append(section)
    known: dict[tuple[object, ...], str] = {}
    for (number, name), own in by_name.items():
        if len(own) == 1 and own[0] not in sections.special:
            # Nothing but its header: most are the same in all objects.
            key = (name, *sections.headers[own[0]])
            line = known.get(key) or known.setdefault(key, entry_line(sections.entry(name, own)))
        else:
            line = entry_line(sections.entry(name, own))
        yield number, line


class _Sections:
    """What is known of all sections of a batch."""

    def __init__(self, meanings: Meanings, used: set[int], uses: dict[int, list[int]]) -> None:
        canonical = self._canonical = meanings.canonical
        self._content, self._uses = _nobodys_content(meanings, used, uses)
        self._orders = section_orders(meanings, used)
        self._layouts: dict[int, Layout] = section_layouts(canonical)
        self._renumbered = canonical.renumbered_sections.keys()
        table = canonical.objects.sections
        # SHF_GROUP says how the linker chooses among copies, and goes away in a linked object.
        columns = (table["type"], table["flags"] & np.uint64(~elf.SHF_GROUP & (1 << 64) - 1), table["entsize"])
        self.headers = list(zip(*(column.tolist() for column in (*columns, table["align"])), strict=True))
        """Type, flags, entry size and alignment of each section."""
        self.special = {*self._content, *self._orders, *self._layouts, *self._renumbered}
        """The sections of which more is to be said than their headers do."""

    def entry(self, name: str, sections: list[int]) -> Entry:
        """Make the entry of the sections of an object that have one name."""
        rows = [_ATTRIBUTES.pack(*self.headers[index][:3]) for index in sections]
        # Where they are alike, how many there are is known by what is in them; else, which one is different.
        rows = rows[:1] if len({*rows}) == 1 else rows
        aligns = [self.headers[index][3] for index in sections]
        align = str(max(aligns))
        if not self._renumbered.isdisjoint(sections):
            align = str(aligns[0]) if len({*aligns}) == 1 else ",".join(map(str, aligns))
        elif all(self.headers[index][1] & elf.SHF_LINK_ORDER for index in sections):
            # LLVM makes one for each function (__patchable_function_entries); what is in them is said of the functions.
            rows = sorted({*rows})
        attributes = b"".join(rows)
        pieces = [piece for index in sections for piece in self._content.get(index, ())]
        data, _, special = inner = [b"\0".join(column) for column in zip(*pieces, strict=True)] or [b"", b"", b""]
        checksum = xxh3_128_hexdigest(b"\0".join((attributes, *inner)))
        components = ".".join(map(short_hash, (attributes, *inner)))
        place = f"align={align} order={short_hash(b''.join(self._orders.get(index, b'') for index in sections))}"
        layout = [self._layouts[index] for index in sections if index in self._layouts]
        if len(layout) == len(sections):
            sizes, places = (b"".join(column) for column in zip(*layout, strict=True))
            place += f" layout={short_hash(sizes)}.{short_hash(places)}"
        own = dict.fromkeys(symbol for index in sections for symbol in self._uses.get(index, ()))
        used = tuple(self._canonical.sources.ids(np.array([*own], np.int64))) if own else ()
        return Entry(KIND_SECTION, SymbolId(name), place, len(data) + len(special), checksum, components, "", used)


def _nobodys_content(
    meanings: Meanings, used: set[int], uses: dict[int, list[int]]
) -> tuple[dict[int, list[Content]], dict[int, list[int]]]:
    """Return what belongs to no symbol, and the symbols that look alike to which that refers, by section."""
    parts = meanings.canonical.parts
    content: dict[int, list[Content]] = defaultdict(list)
    led_to: dict[int, list[int]] = defaultdict(list)
    pieces = (parts.kind == PIECE).nonzero()[0]
    for part, section in zip(pieces.tolist(), parts.section[pieces].tolist(), strict=True):
        if part not in used:
            content[section].append(meanings.content.of(part))
            led_to[section] += uses.get(part, ())
    for section, texts in unused_strings(meanings.canonical):
        content[section].append((b"".join(texts), b"", b""))
    for section, special in meanings.special.nobodys().items():
        content[section].append((b"", b"", special))
        led_to[section] += uses.get(nobodys_part(section), ())
    return content, led_to


def unused_strings(canonical: Canonical) -> list[tuple[int, list[bytes]]]:
    """Return, by section, the strings to which nothing refers (sorted: their order means nothing)."""
    parts, image = canonical.parts, canonical.image
    in_strings = (parts.kind == STRINGS).nonzero()[0]
    if not len(in_strings):
        return []
    start, end = parts.start[in_strings], parts.end[in_strings]
    rows = run_rows(start, end - start)
    # What lacks its end ends with its part.
    ends = sorted_unique(np.concatenate([rows[image.data[rows] == 0], end.astype(rows.dtype) - 1]))
    part = np.searchsorted(start, ends, "right") - 1
    starts = np.maximum(np.concatenate([[0], ends[:-1] + 1]), start[part])
    target = canonical.targets.part
    users = ((target >= 0) & (parts.kind[target] == STRINGS)).nonzero()[0]
    last = np.searchsorted(ends, end - 1)[np.searchsorted(in_strings, target[users])]
    is_used = np.zeros(len(ends), bool)
    is_used[np.minimum(np.searchsorted(ends, canonical.references.target[users]), last)] = True
    # Strings are aligned with zeros (.rodata.str1.8), which look like empty strings.
    free = (~is_used & (ends > starts)).nonzero()[0]
    found: dict[int, list[bytes]] = defaultdict(list)
    for at, low, high in zip(part[free].tolist(), starts[free].tolist(), ends[free].tolist(), strict=True):
        found[at].append(bytes(image.buffer[low : high + 1]))
    return [(int(parts.section[in_strings[at]]), sorted(strings)) for at, strings in found.items()]
