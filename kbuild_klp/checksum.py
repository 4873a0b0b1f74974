# SPDX-License-Identifier: GPL-2.0-only
"""From an object in canonical form to one entry with a checksum for each function, variable and section.

A checksum covers attributes (what the linker acts on), bytes with all references cleared, the references by
meaning, entries of special sections, and the same of all split-off parts. Each of these four has a short hash of its
own too, so that two checksum files alone can tell what kind of change they see.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterator

import numpy as np
from xxhash import xxh3_64_hexdigest, xxh3_128_hexdigest

from kbuild_klp.canonical import CanonicalObject
from kbuild_klp.canonical.parts import CONTENT, NAMED, PIECE, STRINGS
from kbuild_klp.digests import ROW_SIZE, Digests, as_bytes
from kbuild_klp.elf import constants as elf
from kbuild_klp.entry import KIND_DATA, KIND_FUNCTION, KIND_SECTION, Entry
from kbuild_klp.names import canonical_name
from kbuild_klp.reach import numbered_symbols, used_content

_BLOCK = 4096  # parts of which all columns are in memory at a time
_LENGTHS = struct.Struct("<5Q")
_SECTION_ATTRIBUTES = struct.Struct("<IQQ")
_SYMBOL_ATTRIBUTES = struct.Struct("<QQBB")

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


_Columns = tuple[bytes | memoryview, bytes | memoryview, bytes, bytes, bytes | None, list[int] | None]


class _Checksummer:
    """Makes the entries of one object; all tables are turned into lists and bytes once, before the loop over parts."""

    def __init__(self, canonical: CanonicalObject) -> None:
        self.canonical = canonical
        self.digests = Digests(canonical)
        self.families = self.digests.families
        self.start: list[int] = canonical.parts.start.tolist()
        self.end: list[int] = canonical.parts.end.tolist()
        self.section: list[int] = canonical.parts.section.tolist()
        self.chunk: list[int] = canonical.parts.chunk.tolist()
        self.first: list[int] = canonical.first_reference.tolist()
        self.rows = as_bytes(self.digests.rows)
        self.data = memoryview(self.digests.data)
        self.numbered = numbered_symbols(self.digests)
        self.many_files = self.families.files.many
        self.symbol_name = canonical.object.symbol_name
        self.section_names = canonical.section_names
        self.special, self.lines = self._special()
        obj, chunks = canonical.object, canonical.chunks
        self.info: list[int] = obj.symbols["info"].tolist()
        self.other: list[int] = obj.symbols["other"].tolist()
        self.size: list[int] = obj.symbols["size"].tolist()
        self.head: list[int] = chunks.symbols[chunks.first[:-1]].tolist()
        self.is_single: list[bool] = (chunks.first[1:] - chunks.first[:-1] == 1).tolist()
        self.is_code: list[bool] = (obj.sections["flags"] & elf.SHF_EXECINSTR != 0).tolist()
        self._attribute_hash: dict[bytes, str] = {}

    def _special(self) -> tuple[dict[int, bytes], dict[int, bytes]]:
        """Return, by part, the bytes of its special entries and the line numbers in them."""
        special: dict[int, bytes] = defaultdict(bytes)
        lines: dict[int, bytes] = defaultdict(bytes)
        digests = self.digests
        for table in digests.tables:
            name = self.canonical.object.section_names[table.section].encode("utf-8", "surrogateescape")
            rows = digests.table_rows(table)
            for owner in table.owners:
                own_rows = rows[owner.low * ROW_SIZE : owner.high * ROW_SIZE]
                special[owner.part] += table.special_bytes(name, owner, own_rows)
            if table.line_size:
                for owner in table.owners:
                    own_lines = table.lines[owner.start * table.line_size : owner.end * table.line_size]
                    lines[owner.part] += own_lines
        if digests.record_lines:
            self._add_record_lines(lines)
        return special, lines

    def _add_record_lines(self, lines: dict[int, bytes]) -> None:
        """Add the line numbers that stand in records (descriptors) to the parts that refer to these."""
        parts = self.canonical.parts
        references = np.array(sorted(self.digests.by_content), np.int64)
        if not len(references):
            return
        owner = parts.at(self.canonical.references.place[references]).tolist()
        for reference, part in zip(references.tolist(), owner, strict=True):
            target = self.digests.by_content[reference]
            taken = self.digests.record_lines.get(self.section[target])
            if taken is not None:
                base, size, rows = taken
                lines[part] += rows[(self.start[target] - base) // size].tobytes()

    def _attributes(self, part: int) -> bytes:
        """Return what the linker sees of a part's symbols: type, binding, visibility, size, aliases, inner labels."""
        chunk = self.chunk[part]
        head = self.head[chunk]
        text = bytes((self.info[head], self.other[head]))
        # The size of a symbol is that of its part, but for assembly that states none, or a wrong one.
        if self.size[head] != self.end[part] - self.start[part]:
            text += b"%d\n" % self.size[head]
        if self.is_single[chunk]:
            return text
        chunks, symbols = self.canonical.chunks, self.canonical.object.symbols
        low, high = chunks.first[chunk : chunk + 2].tolist()
        start = self.start[part] - int(self.canonical.image.base[self.section[part]])
        others = []
        for symbol in chunks.symbols[low + 1 : high].tolist():
            row = symbols[symbol]
            name = canonical_name(self.canonical.object.symbol_name(symbol)).text
            other = f"{int(row['value']) - start} {name} {row['info']} {row['other']} {row['size']}\n"
            others.append(other.encode("utf-8", "surrogateescape"))
        return text + b"".join(sorted(others))

    def _part_entries(self, parts: list[int]) -> Iterator[Entry]:
        """Make the entries of some parts, column by column: most of the work is in map() and not in our loops."""
        start, end, first = self.start, self.end, self.first
        sizes = [end[part] - start[part] for part in parts]
        data: list[bytes | memoryview] = [self.data[start[part] : end[part]] for part in parts]
        rows: list[bytes | memoryview] = [
            self.rows[first[part] * ROW_SIZE : first[part + 1] * ROW_SIZE] for part in parts
        ]
        special = [self.special.get(part, b"") for part in parts]
        attributes = list(map(self._attributes, parts))
        lines = [self.lines.get(part) for part in parts]
        numbered = [self.numbered.get(part) for part in parts]
        if self.families.children:
            for i, part in enumerate(parts):
                if part in self.families.children:
                    own = data[i], rows[i], special[i], attributes[i], lines[i], numbered[i]
                    data[i], rows[i], special[i], attributes[i], lines[i], numbered[i] = self._add_children(part, own)
        lengths = map(_LENGTHS.pack, sizes, map(len, attributes), map(len, data), map(len, rows), map(len, special))
        checksums = [
            xxh3_128_hexdigest(b"".join(pieces))
            for pieces in zip(lengths, attributes, data, rows, special, strict=True)
        ]
        components = self._components(sizes, attributes, data, rows, special)
        symbols = [self.head[self.chunk[part]] for part in parts]
        sections = [self.section[part] for part in parts]
        info, is_code = self.info, self.is_code
        kinds = [
            KIND_FUNCTION if is_code[section] or info[symbol] & 0xF == elf.STT_FUNC else KIND_DATA
            for section, symbol in zip(sections, symbols, strict=True)
        ]
        return map(
            Entry,
            kinds,
            map(self._display_name, symbols),
            [self.section_names[section] for section in sections],
            sizes,
            checksums,
            components,
            [_short(text) if text else "" for text in lines],
            [" ".join(map(self._display_name, names)) if names else "" for names in numbered],
        )

    def _components(
        self,
        sizes: list[int],
        attributes: list[bytes],
        data: list[bytes | memoryview],
        rows: list[bytes | memoryview],
        special: list[bytes],
    ) -> list[str]:
        """Return the short hashes of each entry."""
        known = self._attribute_hash
        for text in attributes:
            if text not in known:
                known[text] = _short(text)
        # A .bss variable has no bytes, but it has a size.
        return [
            f"{known[text]}.{xxh3_64_hexdigest(d)[8:] if d else f'{size:x}'}"
            f".{xxh3_64_hexdigest(r)[8:] if r else '-'}.{xxh3_64_hexdigest(s)[8:] if s else '-'}"
            for size, text, d, r, s in zip(sizes, attributes, data, rows, special, strict=True)
        ]

    def _add_children(self, part: int, columns: _Columns) -> _Columns:
        """Add to the columns of a function those of its split-off parts, most of which have bytes and nothing else."""
        data, rows, special, attributes, lines, numbered = columns
        for child in self.families.children[part]:
            data = b"".join((data, self.data[self.start[child] : self.end[child]]))
            low, high = self.first[child], self.first[child + 1]
            if high > low:
                rows = b"".join((rows, self.rows[low * ROW_SIZE : high * ROW_SIZE]))
            special += self.special.get(child, b"")
            attributes += self._attributes(child)
            if child in self.lines:
                lines = (lines or b"") + self.lines[child]
            if child in self.numbered:
                numbered = [*(numbered or ()), *self.numbered[child]]
        return data, rows, special, attributes, lines, numbered

    def _display_name(self, symbol: int) -> str:
        """Return the name under which a symbol is listed, with its source file where that is needed."""
        name = self.symbol_name(symbol)
        if self.many_files and not self.info[symbol] >> 4:  # STB_LOCAL
            return f"{name}@{self.families.files.name(symbol)}"
        return name

    def entries(self) -> list[Entry]:
        """Return all entries of the object, sorted."""
        kind = self.canonical.parts.kind
        used = used_content(self.digests)
        parent = self.families.parent
        parts = [part for part in (kind == NAMED).nonzero()[0].tolist() if part not in parent]
        parts += [part for part in (kind == CONTENT).nonzero()[0].tolist() if part not in used]
        result: list[Entry] = []
        for at in range(0, len(parts), _BLOCK):
            result += self._part_entries(parts[at : at + _BLOCK])
        result += self._symbol_entries()
        result += self._section_entries(used)
        result.sort()
        return result

    def _symbol_entries(self) -> list[Entry]:
        """Return entries of symbols that have no bytes: absolute global ones, and common ones."""
        obj = self.canonical.object
        absolute, common = elf.SHN_ABS - 0x10000, elf.SHN_COMMON - 0x10000
        is_global = obj.symbols["info"] >> 4 != elf.STB_LOCAL
        wanted = ((obj.shndx == absolute) & is_global) | (obj.shndx == common)
        result = []
        for symbol in wanted.nonzero()[0].tolist():
            row = obj.symbols[symbol]
            content = _SYMBOL_ATTRIBUTES.pack(row["value"], row["size"], row["info"], row["other"])
            section = "*ABS*" if obj.shndx[symbol] == absolute else "*COM*"
            checksum = xxh3_128_hexdigest(section.encode() + content)
            components = f"{_short(content)}.-.-.-"
            result.append(
                Entry(
                    KIND_DATA,
                    obj.symbol_name(symbol),
                    section,
                    int(row["size"]),
                    checksum,
                    components,
                    "",
                    "",
                )
            )
        return result

    def _section_entries(self, used: set[int]) -> list[Entry]:
        """Return one entry a section name: its attributes, and what in it belongs to nobody else."""
        parts, obj, digests = self.canonical.parts, self.canonical.object, self.digests
        content: dict[int, list[tuple[bytes, bytes, bytes]]] = defaultdict(list)
        for part in (parts.kind == PIECE).nonzero()[0].tolist():
            if part not in used:
                digests.content_digest(part)
                content[self.section[part]].append(digests.content(part))
        for section, text in self._unused_strings():
            content[section].append((text, b"", b""))
        for table, owner in digests.nobodys():
            content[table.section].append((b"", b"", digests.special_bytes(table, owner)))
        order = self._section_order()
        types, flags = obj.sections["type"].tolist(), obj.sections["flags"].tolist()
        entry_sizes, alignments = obj.sections["entsize"].tolist(), obj.sections["align"].tolist()
        by_name: dict[str, list[int]] = defaultdict(list)
        for section in self.canonical.image.order.tolist():
            by_name[self.section_names[section]].append(section)
        result = []
        for name, sections in by_name.items():
            # SHF_GROUP says how the linker chooses among copies, and goes away in a linked object.
            attributes = b"".join(
                _SECTION_ATTRIBUTES.pack(types[index], flags[index] & ~elf.SHF_GROUP, entry_sizes[index])
                for index in sections
            )
            pieces = [piece for index in sections for piece in content.get(index, ())]
            checksum, components, size = _section_checksum(attributes, pieces)
            position = _short(b"".join(order.get(index, b"") for index in sections))
            place = f"align={max(alignments[index] for index in sections)} order={position}"
            result.append(Entry(KIND_SECTION, name, place, size, checksum, components, "", ""))
        return result

    def _unused_strings(self) -> list[tuple[int, bytes]]:
        """Return, by section, the strings to which nothing refers (sorted: their order means nothing)."""
        parts, targets, image = self.canonical.parts, self.canonical.targets, self.canonical.image
        in_strings = (parts.kind == STRINGS).nonzero()[0]
        if not len(in_strings):
            return []
        addresses = self.canonical.references.target
        result = []
        for part in in_strings.tolist():
            start, end = self.start[part], self.end[part]
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
                result.append((self.section[part], b"".join(strings)))
        return result

    def _section_order(self) -> dict[int, bytes]:
        """Return the order of symbols in sections that are arrays made by the linker."""
        obj, chunks = self.canonical.object, self.canonical.chunks
        result: dict[int, bytes] = {}
        sections, counts = np.unique(chunks.section, return_counts=True)
        for section in sections[counts > 1].tolist():
            if self.is_code[section] or obj.section_names[section].startswith(_ORDINARY_SECTIONS):
                continue
            symbols = chunks.symbols[chunks.first[:-1][chunks.section == section]].tolist()
            names = "\0".join(canonical_name(obj.symbol_name(symbol)).text for symbol in symbols)
            result[section] = names.encode("utf-8", "surrogateescape")
        return result


def checksum_object(canonical: CanonicalObject) -> list[Entry]:
    """Return the sorted entries of an object in canonical form."""
    return _Checksummer(canonical).entries()
