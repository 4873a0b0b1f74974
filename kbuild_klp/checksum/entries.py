# SPDX-License-Identifier: GPL-2.0-only
"""From an object in canonical form to one entry with a checksum for each function, variable and section.

A checksum covers attributes (what the linker acts on), bytes with all references cleared, the references by
meaning, entries of special sections, and the same of all split-off parts. Each of these four has a digest of its own,
and the checksum is that of the four: so two checksum files alone can tell what kind of change they see.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_hexdigest, xxh3_128_digest, xxh3_128_hexdigest

from kbuild_klp.checksum.entry import KIND_DATA, KIND_FUNCTION, KIND_SECTION, Columns, Entry
from kbuild_klp.checksum.layout import section_layouts, section_orders
from kbuild_klp.elf import constants as elf
from kbuild_klp.elf.symbol_names import canonical_name
from kbuild_klp.object.canonical import CanonicalObject
from kbuild_klp.object.meanings import ROW_SIZE, Digests, nobodys_part
from kbuild_klp.object.parts import CONTENT, NAMED, PIECE, STRINGS
from kbuild_klp.object.reach import ambiguous_symbols, used_content
from kbuild_klp.object.symbol_id import SymbolId

_SECTION_ATTRIBUTES = struct.Struct("<IQQ")
_SYMBOL_ATTRIBUTES = struct.Struct("<QQBB")
_CODE_MEMORY = b".text"
_CHILD_FACTOR = np.uint64(0x9FB21C651E98DF25)


def _short(data: bytes) -> str:
    return xxh3_64_hexdigest(data)[8:] if data else "-"


_plain_sections: dict[bytes, tuple[str, str, int]] = {}


def _section_checksum(attributes: bytes, pieces: list[tuple[bytes, bytes, bytes]]) -> tuple[str, str, int]:
    """Return checksum, components and number of bytes of what a section has beyond its symbols."""
    if not pieces:
        known = _plain_sections.get(attributes)
        if known is None:
            checksum = xxh3_128_hexdigest(attributes + b"\0\0\0")
            known = _plain_sections[attributes] = (checksum, f"{_short(attributes)}.-.-.-", 0)
        return known
    data, rows, special = (b"\0".join(column) for column in zip(*pieces, strict=True))
    checksum = xxh3_128_hexdigest(b"\0".join((attributes, data, rows, special)))
    components = f"{_short(attributes)}.{_short(data)}.{_short(rows)}.{_short(special)}"
    return checksum, components, len(data) + len(special)


_Digests = NDArray[np.uint64]  # shape (n, 2)


def _as_bytes(rows: NDArray[np.uint64]) -> memoryview:
    """Return rows as bytes to be cut into slices, without copying them."""
    return memoryview(rows.view(np.uint8).reshape(-1))  # type: ignore[arg-type]


def _digests_of(texts: Sequence[bytes | memoryview]) -> _Digests:
    """Return the digest of each text."""
    return np.frombuffer(b"".join(map(xxh3_128_digest, texts)), "<u8").reshape(-1, 2)


def _slice_digests(data: memoryview, low: NDArray[np.int64], high: NDArray[np.int64]) -> _Digests:
    """Return the digest of each slice of ``data`` from ``low`` to ``high``, zero for empty ones."""
    result = np.zeros((len(low), 2), "<u8")
    filled = (high > low).nonzero()[0]
    if len(filled):
        slices = zip(low[filled].tolist(), high[filled].tolist(), strict=True)
        result[filled] = _digests_of([data[start:end] for start, end in slices])
    return result


class _Checksummer:
    """Makes the entries of one object, each step for all parts at once."""

    def __init__(self, canonical: CanonicalObject) -> None:
        self.canonical = canonical
        self.digests = Digests(canonical)
        self.families = self.digests.families
        self.section_names = canonical.section_names
        self.is_code = canonical.object.sections["flags"] & elf.SHF_EXECINSTR != 0
        chunks = canonical.chunks
        self.head = chunks.symbols[chunks.first[:-1]]

    # -- digests of parts -----------------------------------------------------------------------------------------

    def _attributes(self, parts: NDArray[np.int64]) -> _Digests:
        """Return digests of what the linker sees of parts' symbols.

        That is type, binding, visibility, size, aliases and inner labels.
        """
        canonical, chunks = self.canonical, self.canonical.chunks
        symbols = canonical.object.symbols
        chunk = canonical.parts.chunk[parts]
        head = symbols[self.head[chunk]]
        packed = head["info"].astype(np.uint16) | head["other"].astype(np.uint16) << np.uint16(8)
        # The size of a symbol is that of its part, but for assembly that states none, or a wrong one.
        size = head["size"].astype(np.int64)
        is_odd = size != canonical.parts.end[parts] - canonical.parts.start[parts]
        is_many = chunks.first[chunk + 1] - chunks.first[chunk] > 1
        kinds, inverse = np.unique(packed, return_inverse=True)
        result = _digests_of([b"%d" % kind for kind in kinds.tolist()])[inverse]
        odd = is_odd.nonzero()[0]
        pairs = zip(packed[odd].tolist(), size[odd].tolist(), strict=True)
        result[odd] = _digests_of([b"%d %d" % pair for pair in pairs])
        others = {at: self._other_symbols(int(parts[at])) for at in is_many.nonzero()[0].tolist()}
        many = [at for at, text in others.items() if text]
        result[many] = _digests_of([b"%d %d %b" % (packed[at], size[at], others[at]) for at in many])
        return result

    def _other_symbols(self, part: int) -> bytes:
        """Return the aliases of a part and the labels in it."""
        canonical = self.canonical
        symbols, parts = canonical.object.symbols, canonical.parts
        start = int(parts.start[part] - canonical.image.base[parts.section[part]])
        others = []
        for symbol in canonical.part_symbols(part)[1:].tolist():
            row = symbols[symbol]
            offset = int(row["value"]) - start
            if not offset and symbol in canonical.image.empty_variables:
                continue
            name = canonical_name(canonical.object.symbol_name(symbol)).text
            other = f"{offset} {name} {row['info']} {row['other']} {row['size']}\n"
            others.append(other.encode("utf-8", "surrogateescape"))
        return b"".join(sorted(others))

    def _data(self, parts: NDArray[np.int64]) -> _Digests:
        """Return digests of parts' bytes; what has no bytes (.bss) has a size."""
        start, end = self.canonical.parts.start[parts], self.canonical.parts.end[parts]
        limit = len(self.digests.data)
        result = _slice_digests(memoryview(self.digests.data), np.minimum(start, limit), np.minimum(end, limit))
        beyond = start >= limit
        result[beyond, 0] = (end - start)[beyond]
        return result

    def _references(self, parts: NDArray[np.int64]) -> _Digests:
        """Return digests of parts' references."""
        first = self.canonical.first_reference
        return _slice_digests(_as_bytes(self.digests.rows), first[parts] * ROW_SIZE, first[parts + 1] * ROW_SIZE)

    def _special(self, parts: NDArray[np.int64]) -> _Digests:
        """Return digests of the special entries that belong to parts."""
        owned = self.digests.owned
        low, high = np.searchsorted(owned.owner, parts, "left"), np.searchsorted(owned.owner, parts, "right")
        rows = self.digests.special_rows(0, len(owned.owner))
        data, meaning = owned.data, _as_bytes(rows)
        result = np.zeros((len(parts), 2), "<u8")
        some = (high > low).nonzero()[0]
        low, high = low[some], high[some]
        cuts = [owned.data_at[low], owned.data_at[high]]
        cuts += [owned.reference_at[low] * ROW_SIZE, owned.reference_at[high] * ROW_SIZE]
        slices = zip(*(cut.tolist() for cut in cuts), strict=True)
        result[some] = _digests_of([b"".join((data[a:b], meaning[c:d])) for a, b, c, d in slices])
        return result

    def _lines(self) -> dict[int, bytes]:
        """Return, by part, the line numbers in its special entries and in the records to which it refers."""
        lines = dict(self.digests.owned.lines)
        if not self.digests.record_lines:
            return lines
        parts, by_content = self.canonical.parts, self.digests.by_content
        references = np.array(sorted(by_content), np.int64)
        targets = np.array([by_content[reference] for reference in references.tolist()], np.int64)
        for section, (base, size, rows) in self.digests.record_lines.items():
            hits = (parts.section[targets] == section).nonzero()[0]
            record = (parts.start[targets[hits]] - base) // size
            for part, at in zip(self.digests.owner[references[hits]].tolist(), record.tolist(), strict=True):
                lines[part] = lines.get(part, b"") + rows[at].tobytes()
        return lines

    # -- entries --------------------------------------------------------------------------------------------------

    def _part_entries(self, parts: NDArray[np.int64]) -> Columns:
        """Make the entries of parts, what was split off from them included."""
        if not len(parts):
            return Columns.empty()
        everything = np.concatenate([parts, np.array(list(self.families.parent), np.int64)])
        columns = [self._attributes(everything), self._data(everything)]
        columns += [self._references(everything), self._special(everything)]
        lines, uses = self._lines(), dict(ambiguous_symbols(self.digests))
        if self.families.parent:
            self._add_children(everything, columns)
            self._join_children(lines, uses)
        count = len(parts)
        size = self.canonical.parts.end[parts] - self.canonical.parts.start[parts]
        joined = np.concatenate([size[:, None].view(np.uint64), *(column[:count] for column in columns)], axis=1)
        step = 8 * joined.shape[1]
        view = memoryview(joined.tobytes())
        checksums = [xxh3_128_hexdigest(view[at : at + step]) for at in range(0, len(view), step)]

        section = self.canonical.parts.section[parts]
        symbols = self.head[self.canonical.parts.chunk[parts]]
        info = self.canonical.object.symbols["info"][symbols]
        is_function = self.is_code[section] | (info & 0xF == elf.STT_FUNC)
        listed = parts.tolist()
        used = [symbol for part in listed for symbol in uses.get(part, ())]
        used_ids = iter(self._ids(used))
        return Columns(
            [KIND_FUNCTION if function else KIND_DATA for function in is_function.tolist()],
            self.families.files.ids(symbols),
            list(map(self.section_names.__getitem__, section.tolist())),
            size.tolist(),
            checksums,
            _components([column[:count] for column in columns]),
            [_short(lines[part]) if part in lines else "" for part in listed],
            [tuple(islice(used_ids, len(uses[part]))) if part in uses else () for part in listed],
            self._aliases(parts),
        )

    def _ids(self, symbols: list[int]) -> list[SymbolId]:
        return self.families.files.ids(np.array(symbols, np.int64))

    def _aliases(self, parts: NDArray[np.int64]) -> list[tuple[SymbolId, ...]]:
        """Return the other names of each part: any of them may name it when bindings change."""
        canonical, chunks = self.canonical, self.canonical.chunks
        value = canonical.object.symbols["value"]
        chunk = canonical.parts.chunk[parts]
        result: list[tuple[SymbolId, ...]] = [()] * len(parts)
        for at in (chunks.first[chunk + 1] - chunks.first[chunk] > 1).nonzero()[0].tolist():
            head, *others = canonical.part_symbols(int(parts[at])).tolist()
            same = [
                symbol
                for symbol in others
                if value[symbol] == value[head] and symbol not in canonical.image.empty_variables
            ]
            if same:
                result[at] = tuple(sorted(self._ids(same)))
        return result

    def _add_children(self, parts: NDArray[np.int64], columns: list[_Digests]) -> None:
        """Add the digests of split-off parts, the last rows of all, to those of their parents, in order."""
        parents = np.array(list(self.families.parent.values()), np.int64)
        row = np.zeros(len(self.canonical.parts.start), np.int64)
        row[parts] = np.arange(len(parts))
        order = np.argsort(parents, kind="stable")
        parents = parents[order]
        child_rows = len(parts) - len(parents) + order
        rank = np.arange(len(parents)) - np.searchsorted(parents, parents)
        # Where a part of its own lies, no entry says. That foo.cold is in .text.unlikely is the rule.
        sections = self.canonical.parts.section[parts[child_rows]].tolist()
        for at, section in zip(child_rows.tolist(), sections, strict=True):
            memory = self.digests.memories[section]
            if memory != _CODE_MEMORY:
                columns[0][at] += _digests_of([memory])[0]
        for turn in range(int(rank.max()) + 1):
            at = rank == turn
            to, of = row[parents[at]], child_rows[at]
            for column in columns:
                column[to] = column[to] * _CHILD_FACTOR + column[of]

    def _join_children(self, lines: dict[int, bytes], uses: dict[int, list[int]]) -> None:
        """Add line numbers and ambiguous symbols of split-off parts to those of their parents."""
        for child, parent in self.families.parent.items():
            if child in lines:
                lines[parent] = lines.get(parent, b"") + lines[child]
            if child in uses:
                uses[parent] = [*uses.get(parent, ()), *uses[child]]

    def entries(self) -> Columns:
        """Return all entries of the object."""
        kind = self.canonical.parts.kind
        used = used_content(self.digests)
        is_listed = kind == NAMED
        is_listed[list(self.families.parent)] = False
        for part in (is_listed & (self.canonical.parts.start == self.canonical.parts.end)).nonzero()[0].tolist():
            # Nothing is to be compared of it, and beside another variable it would be none of its own.
            is_listed[part] = (
                int(self.head[self.canonical.parts.chunk[part]]) not in self.canonical.image.empty_variables
            )
        is_unused = kind == CONTENT
        is_unused[list(used)] = False
        result = self._part_entries(np.concatenate([is_listed.nonzero()[0], is_unused.nonzero()[0]]))
        result.extend(Columns.of([*self._symbol_entries(), *self._label_entries()]))
        result.extend(self._section_entries(used))
        return result

    def _symbol_entries(self) -> Iterator[Entry]:
        """Yield entries of symbols that have no bytes: absolute global ones, and common ones."""
        obj = self.canonical.object
        absolute, common = elf.SHN_ABS - 0x10000, elf.SHN_COMMON - 0x10000
        is_global = obj.symbols["info"] >> 4 != elf.STB_LOCAL
        wanted = ((obj.shndx == absolute) & is_global) | (obj.shndx == common)
        for symbol in wanted.nonzero()[0].tolist():
            row = obj.symbols[symbol]
            content = _SYMBOL_ATTRIBUTES.pack(row["value"], row["size"], row["info"], row["other"])
            section = "*ABS*" if obj.shndx[symbol] == absolute else "*COM*"
            checksum = xxh3_128_hexdigest(section.encode() + content)
            components = f"{_short(content)}.-.-.-"
            size = int(row["size"])
            [found] = self._ids([symbol])
            yield Entry(KIND_DATA, found, section, size, checksum, components)

    def _label_entries(self) -> Iterator[Entry]:
        """Yield entries of names for what is known by its content: an end label where such a table begins."""
        canonical, parts = self.canonical, self.canonical.parts
        shared = (parts.kind == CONTENT).nonzero()[0]
        if len(shared):
            first, chunk = canonical.chunks.first, parts.chunk[shared]
            shared = shared[first[chunk + 1] - first[chunk] > 1]
        for part in shared.tolist():
            for symbol in canonical.part_symbols(part)[1:].tolist():
                name, row = canonical.object.symbol_name(symbol), canonical.object.symbols[symbol]
                if canonical_name(name).numbered:
                    continue
                offset = int(row["value"] - canonical.object.symbols["value"][canonical.part_symbols(part)[0]])
                # As one that ends its section, and has a part of its own: what starts behind is somebody else's.
                kind, size = int(row["info"]) | int(row["other"]) << 8, int(row["size"])
                columns = np.zeros((4, 1, 2), "<u8")
                columns[0] = _digests_of([b"%d %d %d" % (kind, size, offset) if size or offset else b"%d" % kind])
                if size:
                    columns[1] = _digests_of([self.digests.content_digest(part)])
                checksum = xxh3_128_hexdigest(struct.pack("<Q", size) + columns.tobytes())
                [components] = _components(list(columns))
                [label] = self._ids([symbol])
                yield Entry(KIND_DATA, label, canonical.section_name(part), size, checksum, components)

    def _section_entries(self, used: set[int]) -> Columns:
        """Return one entry a section name: its attributes, and what in it belongs to nobody else."""
        parts, obj, digests = self.canonical.parts, self.canonical.object, self.digests
        content: dict[int, list[tuple[bytes, bytes, bytes]]] = defaultdict(list)
        uses: dict[int, list[int]] = defaultdict(list)
        led_to = ambiguous_symbols(digests)
        for part in (parts.kind == PIECE).nonzero()[0].tolist():
            if part not in used:
                digests.content_digest(part)
                content[int(parts.section[part])].append(digests.content(part))
                uses[int(parts.section[part])] += led_to.get(part, ())
        for section, text in self._unused_strings():
            content[section].append((text, b"", b""))
        for section, special in digests.nobodys().items():
            content[section].append((b"", b"", special))
            uses[section] += led_to.get(nobodys_part(section), ())
        orders, layouts = section_orders(digests, used), section_layouts(self.canonical)
        renumbered = self.canonical.renumbered_sections.keys()
        types, flags = obj.sections["type"].tolist(), obj.sections["flags"].tolist()
        entry_sizes, alignments = obj.sections["entsize"].tolist(), obj.sections["align"].tolist()
        by_name: dict[str, list[int]] = defaultdict(list)
        for section in self.canonical.image.order.tolist():
            by_name[self.section_names[section]].append(section)
        result = []
        for name, sections in by_name.items():
            # SHF_GROUP says how the linker chooses among copies, and goes away in a linked object.
            rows = [
                _SECTION_ATTRIBUTES.pack(types[index], flags[index] & ~elf.SHF_GROUP, entry_sizes[index])
                for index in sections
            ]
            align = str(max(alignments[index] for index in sections))
            if not renumbered.isdisjoint(sections):
                # How many there are is known by the symbols; where they are not all alike, which one is different.
                rows = rows[:1] if len({*rows}) == 1 else rows
                aligns = [str(alignments[index]) for index in sections]
                align = aligns[0] if len({*aligns}) == 1 else ",".join(aligns)
            attributes = b"".join(rows)
            pieces = [piece for index in sections for piece in content.get(index, ())]
            checksum, components, size = _section_checksum(attributes, pieces)
            order = _short(b"".join(orders.get(index, b"") for index in sections))
            place = f"align={align} order={order}"
            layout = [layouts[index] for index in sections if index in layouts]
            if len(layout) == len(sections):
                place += f" layout={_short(b''.join(row.sizes for row in layout))}"
                place += f".{_short(b''.join(row.places for row in layout))}"
            own = dict.fromkeys(symbol for index in sections for symbol in uses.get(index, ()))
            used_ids = tuple(self._ids(list(own)))
            result.append(Entry(KIND_SECTION, SymbolId(name), place, size, checksum, components, "", used_ids))
        return Columns.of(result)

    def _unused_strings(self) -> list[tuple[int, bytes]]:
        """Return, by section, the strings to which nothing refers (sorted: their order means nothing)."""
        parts, targets, image = self.canonical.parts, self.canonical.targets, self.canonical.image
        in_strings = (parts.kind == STRINGS).nonzero()[0]
        if not len(in_strings):
            return []
        addresses = self.canonical.references.target
        result = []
        for part in in_strings.tolist():
            start, end = int(parts.start[part]), int(parts.end[part])
            ends = start + (image.data[start:end] == 0).nonzero()[0]
            if not len(ends) or ends[-1] != end - 1:
                ends = np.concatenate([ends, [end - 1]])
            used = np.zeros(len(ends), bool)
            mine = addresses[targets.part == part]
            used[np.minimum(np.searchsorted(ends, mine), len(ends) - 1)] = True
            starts = np.concatenate([[start], ends[:-1] + 1])
            # Strings are aligned with zeros (.rodata.str1.8), which look like empty strings.
            free = (~used & (ends > starts)).nonzero()[0]
            strings = sorted(self.digests.data[starts[i] : ends[i] + 1] for i in free.tolist())
            if strings:
                result.append((int(parts.section[part]), b"".join(strings)))
        return result


def _components(columns: list[_Digests]) -> list[str]:
    """Return the short hashes of each entry: the first four bytes of its digests, "-" for what is not there."""
    short = np.stack([column.view(np.uint32)[:, 0] for column in columns], axis=1)
    # Four times eight digits and a separator: one line an entry.
    text = bytearray(short.tobytes().hex(".", 4), "ascii")
    text[35::36] = b"\n" * (len(short) - 1)
    return text.decode().replace("00000000", "-").split("\n")


def checksum_object(canonical: CanonicalObject) -> Columns:
    """Return the entries of an object in canonical form."""
    return _Checksummer(canonical).entries()
