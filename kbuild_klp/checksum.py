# SPDX-License-Identifier: GPL-2.0-only
"""From an object in canonical form to one entry with a checksum for each function, variable and section.

A checksum covers, in this order: attributes (what the linker acts on), bytes with all references cleared, the
references by meaning, entries of special sections, and the same of all split-off parts. Each of these has a short
hash of its own too, so that two checksum files alone can tell what kind of change they see.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest, xxh3_128_digest, xxh3_128_hexdigest

from kbuild_klp.canonical import CanonicalObject, PartKind
from kbuild_klp.canonical.families import Families, find_families
from kbuild_klp.canonical.owned import OwnedEntries, owned_entries, take_lines
from kbuild_klp.elf import constants as elf
from kbuild_klp.names import canonical_name

KIND_FUNCTION = "function"
KIND_DATA = "data"
KIND_SECTION = "section"

REFERENCE_ROW = np.dtype(
    [("place", "<i8"), ("kind", "<i4"), ("ordinal", "<u4"), ("offset", "<i8"), ("high", "<u8"), ("low", "<u8")]
)
_SECTION_ATTRIBUTES = struct.Struct("<IQQ")
_CYCLE = xxh3_128_digest(b"\0cycle")


class Entry(NamedTuple):
    """One line of a checksum file.

    ``kind`` function, data or section; ``name`` the symbol as it stands in the object; ``section`` where it lies;
    ``size`` in bytes; ``checksum`` 32 hexadecimal digits; ``components`` four short hashes, of attributes, bytes,
    references and special sections; ``lines`` a short hash of the line numbers in special sections (empty: none);
    ``numbered`` the symbols with a compiler's number to which it refers, in the order of first use.
    """

    kind: str
    name: str
    section: str
    size: int
    checksum: str
    components: str
    lines: str
    numbered: tuple[str, ...]


@dataclass
class _Stream:
    """What is hashed of one entry, by component."""

    attributes: list[bytes] = field(default_factory=list)
    data: list[bytes] = field(default_factory=list)
    references: list[bytes] = field(default_factory=list)
    special: list[bytes] = field(default_factory=list)
    lines: list[bytes] = field(default_factory=list)


def _short(pieces: list[bytes]) -> str:
    data = b"".join(pieces)
    return f"{xxh3_64_intdigest(data) & 0xFFFFFFFF:08x}" if data else "-"


class Checksummer:
    """Computes the entries of one object; ``symbol_digests`` and the rest are kept for one run over it."""

    def __init__(self, canonical: CanonicalObject) -> None:
        self.canonical = canonical
        self.object = canonical.object
        self.image = canonical.image
        self.parts = canonical.parts
        self.record_lines = self._take_record_lines()
        self.families: Families = find_families(canonical)
        self.data = self.image.data.tobytes()
        self.rows = np.zeros(len(canonical.references.place), REFERENCE_ROW)
        self.first = canonical.first_reference.tolist()
        self.owned: dict[int, list[OwnedEntries]] = defaultdict(list)
        for section in sorted(self.image.owned):
            for entries in owned_entries(canonical, self.image.owned[section]):
                self.owned[entries.part].append(entries)
        self.numbered: dict[int, list[int]] = {}
        self._content: dict[int, bytes] = {}
        self._fill_rows()

    # -- references -----------------------------------------------------------------------------------------------

    def _take_record_lines(self) -> dict[int, tuple[int, int, NDArray[np.uint8]]]:
        """Clear line numbers in record sections; by section: base, entry size and the lines of each record."""
        taken = {}
        for section, table in self.image.records.items():
            if not table.row.lines:
                continue
            base, size = int(self.image.base[section]), table.entry_size
            count = int(self.object.sections["size"][section]) // size
            view = self.image.data[base : base + count * size].reshape(count, size)
            taken[section] = (base, size, take_lines(view, table.row.lines))
        return taken

    def _symbol_digest(self, symbol: int) -> bytes:
        """Return the digest that stands for a symbol in references to it."""
        obj = self.object
        name = obj.symbol_name(symbol)
        section = int(obj.shndx[symbol])
        binding = int(obj.symbols["info"][symbol]) >> 4
        kind = int(obj.symbols["info"][symbol]) & 0xF
        if kind == elf.STT_SECTION or (not name and section > 0):
            text = f"\0section {obj.section_names[section] if section > 0 else section}"
        elif section == elf.SHN_UNDEF:
            text = f"{name}\0weak" if binding == elf.STB_WEAK else name
        elif section == elf.SHN_ABS - 0x10000:
            text = f"{name}\0absolute {int(obj.symbols['value'][symbol])}"
        else:
            canonical = canonical_name(name)
            text = canonical.text
            if binding == elf.STB_LOCAL and self.families.files:
                text = f"{self.families.file_of(symbol)}\0{text}"
        return xxh3_128_digest(text.encode("utf-8", "surrogateescape"))

    def _fill_rows(self) -> None:
        references, targets, rows = self.canonical.references, self.canonical.targets, self.rows
        part_of = np.clip(self.parts.at(references.place), 0, None) if len(self.parts.start) else references.place
        rows["place"] = references.place - (self.parts.start[part_of] if len(self.parts.start) else 0)
        rows["kind"] = references.kind
        rows["offset"] = targets.offset
        self._set_digests(np.flatnonzero(targets.symbol >= 0), targets.symbol, self._symbol_digest)
        self._set_digests(np.flatnonzero(targets.section >= 0), targets.section, self._section_digest)
        by_content = (targets.symbol < 0) & (targets.section < 0)
        strings = by_content & (self.parts.kind[targets.part] == PartKind.STRINGS)
        self._set_digests(np.flatnonzero(strings), references.target, self._string_digest)
        rows["offset"][strings] = 0
        self._number_ordinals(part_of)
        content = np.flatnonzero(by_content & ~strings)
        self._pending = dict(zip(content.tolist(), targets.part[content].tolist(), strict=True))
        self._trim_alternatives()
        for reference, part in list(self._pending.items()):
            self._resolve(reference, part)

    def _set_digests(self, index: NDArray[np.int64], keys: NDArray[np.int64], digest) -> None:  # type: ignore[no-untyped-def]
        if not len(index):
            return
        unique, inverse = np.unique(keys[index], return_inverse=True)
        table = np.frombuffer(b"".join([digest(key) for key in unique.tolist()]), "<u8").reshape(-1, 2)
        self.rows["high"][index] = table[inverse, 0]
        self.rows["low"][index] = table[inverse, 1]

    def _section_digest(self, section: int) -> bytes:
        return xxh3_128_digest(f"\0section {self.object.section_names[section]}".encode())

    def _string_digest(self, address: int) -> bytes:
        end = self.data.find(b"\0", address)
        return xxh3_128_digest(self.data[address : end + 1])

    def _number_ordinals(self, part_of: NDArray[np.int64]) -> None:
        """Tell numbered symbols of one name apart by the order in which a part first refers to them."""
        numbered = self.families.numbered
        if not numbered:
            return
        symbols = self.canonical.targets.symbol
        hits = np.flatnonzero(np.isin(symbols, np.fromiter(numbered, np.int64, len(numbered))))
        owner = part_of.copy()
        for part, tables in self.owned.items():
            for table in tables:
                owner[table.references] = part
        seen: dict[int, dict[str, dict[int, int]]] = defaultdict(lambda: defaultdict(dict))
        ordinals = []
        for part, symbol in zip(owner[hits].tolist(), symbols[hits].tolist(), strict=True):
            same_name = seen[part][numbered[symbol]]
            ordinals.append(same_name.setdefault(symbol, len(same_name)))
        self.rows["ordinal"][hits] = ordinals
        for part, names in seen.items():
            self.numbered[part] = [symbol for same in names.values() for symbol in same]

    def _trim_alternatives(self) -> None:
        """Give references with a length of their own exactly that many bytes (an empty replacement: none)."""
        for tables in self.owned.values():
            for table in tables:
                row = self.image.owned[table.section].row
                if row.content is None:
                    continue
                size = self.image.owned[table.section].entry_size
                record, place = np.divmod(table.places, size)
                for i in np.flatnonzero(place == row.content.reference).tolist():
                    reference = int(table.references[i])
                    length = table.data[int(record[i]) * size + row.content.length % size]
                    if length == 0 and self._pending.pop(reference, None) is not None:
                        self.rows["offset"][reference] = 0

    def _resolve(self, reference: int, part: int) -> None:
        digest = self._content_digest(part)
        self.rows["high"][reference] = int.from_bytes(digest[:8], "little")
        self.rows["low"][reference] = int.from_bytes(digest[8:], "little")

    # -- content --------------------------------------------------------------------------------------------------

    def _content_digest(self, part: int) -> bytes:
        """Return the digest of a part that is known by content, its own references included."""
        known = self._content.get(part)
        if known is not None:
            return known
        self._content[part] = _CYCLE  # a part that refers back to itself is known by everything else in it
        stream = _Stream()
        low, high = self.first[part], self.first[part + 1]
        nested = [i for i in range(low, high) if i in self._pending]
        for table in self.owned.get(part, ()):
            nested += [i for i in table.references.tolist() if i in self._pending]
        for reference in nested:
            self._resolve(reference, self._pending[reference])
        self._add_part(stream, part, trim=self.parts.kind[part] == PartKind.PIECE)
        digest = xxh3_128_digest(b"".join(stream.data + stream.references + stream.special))
        self._content[part] = digest
        return digest

    def _add_part(self, stream: _Stream, part: int, trim: bool = False) -> None:
        start, end = int(self.parts.start[part]), int(self.parts.end[part])
        content = self.data[start:end] if end <= len(self.data) else b""
        low, high = self.first[part], self.first[part + 1]
        if trim:
            # The zeros behind anonymous data are alignment of what comes next; relocated fields are zeros too.
            keep = int(self.rows["place"][high - 1]) + 8 if high > low else 0
            content = content[:keep] + content[keep:].rstrip(b"\0")
        else:
            stream.data.append((end - start).to_bytes(8, "little"))
        stream.data.append(content)
        if high > low:
            stream.references.append(self.rows[low:high].tobytes())
        for table in self.owned.get(part, ()):
            self._add_owned(stream, table)

    def _add_owned(self, stream: _Stream, table: OwnedEntries) -> None:
        rows = self.rows[table.references].copy()
        rows["place"] = table.places
        rows["high"][table.owner_references] = 0
        rows["low"][table.owner_references] = 0
        name = self.object.section_names[table.section].encode()
        stream.special += [name, b"\0", table.count.to_bytes(8, "little"), table.data, rows.tobytes()]
        if table.lines:
            stream.lines += [name, table.lines]

    # -- entries --------------------------------------------------------------------------------------------------

    def _attributes(self, part: int) -> bytes:
        """Return what the linker sees of a part's symbols: type, binding, visibility, size, aliases, inner labels."""
        symbols = self.object.symbols
        members = self.canonical.part_symbols(part)
        head = symbols[members[0]]
        text = bytes((int(head["info"]), int(head["other"])))
        if len(members) == 1:
            return text
        start = int(self.parts.start[part] - self.image.base[self.parts.section[part]])
        others = []
        for symbol in members[1:].tolist():
            row = symbols[symbol]
            name = canonical_name(self.object.symbol_name(symbol)).text
            others.append(
                f"{int(row['value']) - start} {name} {row['info']} {row['other']} {row['size']}\n".encode(
                    "utf-8", "surrogateescape"
                )
            )
        return text + b"".join(sorted(others))

    def _content_lines(self, part: int) -> bytes:
        """Return line numbers that stand in records (descriptors) to which a part refers."""
        lines = []
        for reference in range(self.first[part], self.first[part + 1]):
            target = self._pending.get(reference)
            if target is None:
                continue
            taken = self.record_lines.get(int(self.parts.section[target]))
            if taken is not None:
                base, size, rows = taken
                lines.append(rows[(int(self.parts.start[target]) - base) // size].tobytes())
        return b"".join(lines)

    def _entry(self, part: int) -> Entry:
        stream = _Stream()
        members = [part, *self.families.children.get(part, ())]
        numbered: list[int] = []
        for member in members:
            stream.attributes.append(self._attributes(member))
            self._add_part(stream, member)
            numbered += self.numbered.get(member, ())
            if self.record_lines:
                lines = self._content_lines(member)
                if lines:
                    stream.lines.append(lines)
        section = int(self.parts.section[part])
        symbol = int(self.canonical.part_symbols(part)[0])
        is_code = int(self.object.sections["flags"][section]) & elf.SHF_EXECINSTR
        is_function = is_code or int(self.object.symbols["info"][symbol]) & 0xF == elf.STT_FUNC
        everything = [*stream.attributes, *stream.data, b"\0refs", *stream.references, b"\0special", *stream.special]
        return Entry(
            KIND_FUNCTION if is_function else KIND_DATA,
            self.families.display_name(symbol),
            self.object.section_names[section],
            int(self.parts.end[part] - self.parts.start[part]),
            xxh3_128_hexdigest(b"".join(everything)),
            ".".join(
                (
                    _short(stream.attributes),
                    _short(stream.data),
                    _short(stream.references),
                    _short(stream.special),
                )
            ),
            _short(stream.lines).strip("-"),
            tuple(self.object.symbol_name(symbol) for symbol in numbered),
        )

    def entries(self) -> list[Entry]:
        """Return all entries of the object, sorted."""
        kind = self.parts.kind
        result = [
            self._entry(part)
            for part in np.flatnonzero(kind == PartKind.NAMED).tolist()
            if part not in self.families.parent
        ]
        used = {int(part) for part in self._pending.values()}
        result += [
            self._entry(part) for part in np.flatnonzero(kind == PartKind.CONTENT).tolist() if part not in used
        ]
        result += self._symbol_entries()
        result += self._section_entries(used)
        result.sort()
        return result

    def _symbol_entries(self) -> list[Entry]:
        """Return entries of symbols that have no bytes: absolute global ones, and common ones."""
        obj = self.object
        absolute, common = elf.SHN_ABS - 0x10000, elf.SHN_COMMON - 0x10000
        info = obj.symbols["info"]
        wanted = ((obj.shndx == absolute) & (info >> 4 != elf.STB_LOCAL)) | (obj.shndx == common)
        result = []
        for symbol in np.flatnonzero(wanted).tolist():
            row = obj.symbols[symbol]
            content = struct.pack("<QQBB", int(row["value"]), int(row["size"]), int(row["info"]), int(row["other"]))
            section = "*ABS*" if obj.shndx[symbol] == absolute else "*COM*"
            checksum = xxh3_128_hexdigest(section.encode() + content)
            components = f"{_short([content])}.-.-.-"
            size = int(row["size"])
            result.append(Entry(KIND_DATA, obj.symbol_name(symbol), section, size, checksum, components, "", ()))
        return result

    def _section_entries(self, used: set[int]) -> list[Entry]:
        """Return one entry a section: its attributes, and what in it belongs to nobody else."""
        parts, obj = self.parts, self.object
        streams: dict[int, _Stream] = defaultdict(_Stream)
        for part in np.flatnonzero(parts.kind == PartKind.PIECE).tolist():
            if part not in used:
                self._content_digest(part)
                self._add_part(streams[int(parts.section[part])], part, trim=True)
        for section, strings in self._unused_strings():
            streams[section].data += strings
        for table in self.owned.get(-1, ()):
            self._add_owned(streams[table.section], table)
        order = self._section_order()
        by_name: dict[str, list[tuple[bytes, _Stream, int, list[bytes]]]] = defaultdict(list)
        for section in self.image.order.tolist():
            header = obj.sections[section]
            attributes = _SECTION_ATTRIBUTES.pack(
                int(header["type"]), int(header["flags"]) & ~elf.SHF_GROUP, int(header["entsize"])
            )
            by_name[obj.section_names[section]].append(
                (attributes, streams[section], int(header["align"]), order.get(section, []))
            )
        return [self._section_entry(name, group) for name, group in by_name.items()]

    def _section_entry(self, name: str, group: list[tuple[bytes, _Stream, int, list[bytes]]]) -> Entry:
        attributes = [row[0] for row in group]
        data = [piece for row in group for piece in row[1].data]
        references = [piece for row in group for piece in row[1].references]
        special = [piece for row in group for piece in row[1].special]
        size = sum(len(piece) for piece in data + special)
        checksum = xxh3_128_hexdigest(b"".join([*attributes, b"\0", *data, b"\0refs", *references, *special]))
        components = ".".join((_short(attributes), _short(data), _short(references), _short(special)))
        alignment = max(row[2] for row in group)
        order = _short([piece for row in group for piece in row[3]])
        return Entry(KIND_SECTION, name, f"align={alignment} order={order}", size, checksum, components, "", ())

    def _unused_strings(self) -> list[tuple[int, list[bytes]]]:
        """Return, by section, the strings to which nothing refers (sorted: their order means nothing)."""
        parts, targets = self.parts, self.canonical.targets
        result = []
        for part in np.flatnonzero(parts.kind == PartKind.STRINGS).tolist():
            start, end = int(parts.start[part]), int(parts.end[part])
            ends = start + np.flatnonzero(self.image.data[start:end] == 0)
            if not len(ends) or ends[-1] != end - 1:
                ends = np.append(ends, end - 1)
            used = np.zeros(len(ends), bool)
            addresses = self.canonical.references.target[(targets.part == part)]
            used[np.minimum(np.searchsorted(ends, addresses), len(ends) - 1)] = True
            starts = np.append(start, ends[:-1] + 1)
            free = np.flatnonzero(~used)
            strings = sorted(self.data[starts[i] : ends[i] + 1] for i in free.tolist())
            # Strings are aligned with zeros (.rodata.str1.8), which look like empty strings.
            result.append((int(parts.section[part]), [text for text in strings if text != b"\0"]))
        return result

    def _section_order(self) -> dict[int, list[bytes]]:
        """Return the order of symbols in sections that are arrays made by the linker (initcalls, parameters)."""
        obj, chunks = self.object, self.canonical.chunks
        ordinary = (".text", ".data", ".rodata", ".bss", ".init.data", ".init.rodata", ".ref.data", ".export_symbol")
        result: dict[int, list[bytes]] = {}
        sections, counts = np.unique(chunks.section, return_counts=True)
        for section in sections[counts > 1].tolist():
            name = obj.section_names[section]
            if int(obj.sections["flags"][section]) & elf.SHF_EXECINSTR or name.startswith(ordinary):
                continue
            symbols = chunks.symbols[chunks.first[:-1][chunks.section == section]].tolist()
            result[section] = [
                canonical_name(obj.symbol_name(symbol)).text.encode("utf-8", "surrogateescape") + b"\0"
                for symbol in symbols
            ]
        return result


def checksum_object(canonical: CanonicalObject) -> list[Entry]:
    """Return the sorted entries of an object in canonical form."""
    return Checksummer(canonical).entries()
