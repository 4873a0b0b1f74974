# SPDX-License-Identifier: GPL-2.0-only
"""From objects in canonical form to one entry with a checksum for each function, variable and section.

A checksum covers attributes (what the linker acts on), bytes with all references cleared, the references by
meaning, entries of special sections, and the same of all split-off parts. Each of these four has a digest of its own,
and the checksum is that of the four: so two checksum files alone can tell what kind of change they see.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_128_digest, xxh3_128_hexdigest

from kbuild_klp.checksum.entry import KIND_DATA, KIND_FUNCTION, Entry, short_hash
from kbuild_klp.checksum.section_entries import section_lines
from kbuild_klp.checksum.sum_file import entry_line, format_lines, more_fields
from kbuild_klp.elf import constants as elf
from kbuild_klp.elf.objects import Objects
from kbuild_klp.elf.reader import ObjectFile
from kbuild_klp.elf.symbol_names import canonical_name
from kbuild_klp.object.canonical import Canonical, canonicalize
from kbuild_klp.object.meanings import ROW_SIZE, Meanings, find_meanings
from kbuild_klp.object.parts import CONTENT, NAMED
from kbuild_klp.object.reach import ambiguous_symbols, used_content
from kbuild_klp.object.runs import blocks, ranked
from kbuild_klp.object.symbol_id import SymbolId
from kbuild_klp.object.symbol_sources import Sources
from kbuild_klp.object.target_digests import Digests, as_digests

_SYMBOL_ATTRIBUTES = struct.Struct("<QQBB")
_CODE_MEMORY = b".text"
_CHILD_FACTOR = np.uint64(0x9FB21C651E98DF25)


class Checksums(NamedTuple):
    """The entries of a batch: for each object its lines; ``warnings`` say what was not understood of which object."""

    architecture: str
    lines: list[list[str]]
    warnings: list[tuple[int, str]]


def checksum_objects(files: Sequence[ObjectFile]) -> Checksums:
    """Make the entries of objects of one machine; raises BadObjectError for one that is broken."""
    return checksum_meanings(find_meanings(canonicalize(files)))


def checksum_meanings(meanings: Meanings) -> Checksums:
    """Make the entries of objects that have been read."""
    canonical = meanings.canonical
    lines: list[list[str]] = [[] for _ in canonical.objects.files]
    result = Checksums(canonical.image.architecture.name, lines, canonical.image.warnings)
    used = used_content(meanings)
    uses = ambiguous_symbols(meanings)
    others = (
        section_lines(meanings, used, uses),
        _label_lines(meanings),
        _symbol_lines(canonical),
    )
    for number, line in chain(*others):
        result.lines[number].append(line)
    digested = _digest_parts(meanings, _listed_parts(canonical, used), dict(uses))
    # Of a large object they take more than all that follows.
    del canonical, meanings, others
    for number, line in _part_lines(digested):
        result.lines[number].append(line)
    return result


def _listed_parts(canonical: Canonical, used: set[int]) -> NDArray[np.int64]:
    """Return the parts that have an entry: those with a name, and content that nobody uses."""
    parts = canonical.parts
    is_listed = parts.kind == NAMED
    is_listed[list(canonical.families.parent)] = False
    for part in (is_listed & (parts.start == parts.end)).nonzero()[0].tolist():
        # Nothing is to be compared of it, and beside another variable it would be none of its own.
        is_listed[part] = int(canonical.part_symbols(part)[0]) not in canonical.image.empty_variables
    is_unused = parts.kind == CONTENT
    is_unused[list(used)] = False
    return np.concatenate([is_listed.nonzero()[0], is_unused.nonzero()[0]])


# -- digests of parts -------------------------------------------------------------------------------------------------


def _as_bytes(rows: NDArray[np.uint64]) -> memoryview:
    """Return rows as bytes to be cut into slices, without copying them."""
    return memoryview(rows.view(np.uint8).reshape(-1))  # type: ignore[arg-type]


def _digests_of(texts: Iterable[bytes | memoryview]) -> Digests:
    """Return the digest of each text. Few of them are alive at a time: that costs more than hashing."""
    return as_digests(b"".join(map(xxh3_128_digest, texts)))


def _slice_digests(data: memoryview, low: NDArray[np.int64], high: NDArray[np.int64]) -> Digests:
    """Return the digest of each slice of ``data`` from ``low`` to ``high``, zero for empty ones."""
    result = np.zeros((len(low), 2), "<u8")
    for filled in blocks((high > low).nonzero()[0]):
        slices = map(slice, low[filled].tolist(), high[filled].tolist())
        result[filled] = _digests_of(map(data.__getitem__, slices))
    return result


def _attributes(canonical: Canonical, parts: NDArray[np.int64]) -> Digests:
    """Return digests of what the linker sees of parts' symbols: type, binding, visibility, size, aliases, labels."""
    chunks, symbols = canonical.chunks, canonical.objects.symbols
    chunk = canonical.parts.chunk[parts]
    head = symbols[chunks.heads[chunk]]
    packed = head["info"].astype(np.uint16) | head["other"].astype(np.uint16) << np.uint16(8)
    # The size of a symbol is that of its part, but for assembly that states none, or a wrong one.
    size = head["size"].astype(np.int64)
    is_odd = size != canonical.parts.end[parts] - canonical.parts.start[parts]
    is_many = chunks.first[chunk + 1] - chunks.first[chunk] > 1
    kinds = sorted({*packed.tolist()})
    result = _digests_of(b"%d" % kind for kind in kinds)[np.searchsorted(kinds, packed)]
    odd = is_odd.nonzero()[0]
    pairs = zip(packed[odd].tolist(), size[odd].tolist(), strict=True)
    result[odd] = _digests_of(b"%d %d" % pair for pair in pairs)
    others = {at: _other_symbols(canonical, int(parts[at])) for at in is_many.nonzero()[0].tolist()}
    many = [at for at, text in others.items() if text]
    result[many] = _digests_of([b"%d %d %b" % (packed[at], size[at], others[at]) for at in many])
    return result


def _other_symbols(canonical: Canonical, part: int) -> bytes:
    """Return the aliases of a part and the labels in it."""
    symbols, parts = canonical.objects.symbols, canonical.parts
    start = int(parts.start[part] - canonical.image.base[parts.section[part]])
    head, *rest = canonical.part_symbols(part).tolist()
    head_size = symbols["size"][head]
    others = []
    for symbol in rest:
        row = symbols[symbol]
        offset = int(row["value"]) - start
        if not offset and symbol in canonical.image.empty_variables:
            continue
        name = canonical_name(canonical.objects.symbol_name(symbol)).text
        # An alias of a whole function is as long as that is.
        size = "whole" if not offset and row["size"] == head_size else row["size"]
        other = f"{offset} {name} {row['info']} {row['other']} {size}\n"
        others.append(other.encode("utf-8", "surrogateescape"))
    return b"".join(sorted(others))


def _data(canonical: Canonical, parts: NDArray[np.int64]) -> Digests:
    """Return digests of parts' bytes; what has no bytes (.bss) has a size."""
    start, end = canonical.parts.start[parts], canonical.parts.end[parts]
    limit = len(canonical.image.buffer)
    result = _slice_digests(memoryview(canonical.image.buffer), np.minimum(start, limit), np.minimum(end, limit))
    beyond = start >= limit
    result[beyond, 0] = (end - start)[beyond]
    return result


def _special(meanings: Meanings, parts: NDArray[np.int64]) -> Digests:
    """Return digests of the special entries that belong to parts."""
    owned = meanings.canonical.owned
    low, high = np.searchsorted(owned.owner, parts, "left"), np.searchsorted(owned.owner, parts, "right")
    result = np.zeros((len(parts), 2), "<u8")
    some = (high > low).nonzero()[0]
    for block in blocks(some[np.argsort(low[some], kind="stable")]):
        first, end = low[block], high[block]
        rows = _as_bytes(meanings.special.rows(int(first[0]), int(end[-1])))
        bounds = (owned.reference_at[[first, end]].astype(np.int64) - owned.reference_at[first[0]]) * ROW_SIZE
        slices = zip(*owned.data_at[[first, end]].tolist(), *bounds.tolist(), strict=True)
        result[block] = _digests_of(owned.data[a:b] + rows[c:d] for a, b, c, d in slices)
    return result


def _lines(meanings: Meanings) -> dict[int, bytes]:
    """Return, by part, the line numbers in its special entries and in the records to which it refers."""
    canonical, by_content = meanings.canonical, meanings.by_content
    lines = dict(canonical.owned.lines)
    if not canonical.record_lines and not canonical.pointed_lines:
        return lines
    parts = canonical.parts
    references = np.array(sorted(by_content), np.int64)
    records, users = canonical.targets.part[references], meanings.owner[references]
    # Of one that is known by its name it is its own.
    named = (canonical.image.is_record[parts.section] & (parts.kind == NAMED)).nonzero()[0]
    named = np.concatenate([named, [part for part in canonical.pointed_lines if parts.kind[part] == NAMED]])
    records, users = np.concatenate([records, named]).astype(np.int64), np.concatenate([users, named])
    hits = (canonical.image.is_record[parts.section[records]] | np.isin(records, [*canonical.pointed_lines])).nonzero()[
        0
    ]
    rows = zip(parts.section[records[hits]].tolist(), users[hits].tolist(), records[hits].tolist(), strict=True)
    for _, user, record in sorted(rows, key=lambda row: row[0]):
        text = canonical.lines_of_record(record)
        if text:
            lines[int(user)] = lines.get(int(user), b"") + text
    return lines


# -- entries of parts -------------------------------------------------------------------------------------------------


class _DigestedParts(NamedTuple):
    """What the entries of parts say: ``symbol``, ``section`` and ``size`` of each, and ``digests`` (shape n, 9).

    By row, where there is something: ``lines`` are short hashes, ``uses`` and ``aliases`` symbols.
    """

    objects: Objects
    sources: Sources
    section_names: list[str]
    symbol: NDArray[np.int64]
    section: NDArray[np.int64]
    size: NDArray[np.int64]
    digests: NDArray[np.uint64]
    lines: dict[int, str]
    uses: dict[int, list[int]]
    aliases: dict[int, list[int]]


def _digest_parts(meanings: Meanings, parts: NDArray[np.int64], uses: dict[int, list[int]]) -> _DigestedParts:
    """Find the digests of parts, what was split off from them included."""
    canonical = meanings.canonical
    family = canonical.families.parent
    everything = np.concatenate([parts, np.array(list(family), np.int64)])
    first = canonical.first_reference * ROW_SIZE
    columns = [
        _attributes(canonical, everything),
        _data(canonical, everything),
        _slice_digests(_as_bytes(meanings.rows), first[everything], first[everything + 1]),
        _special(meanings, everything),
    ]
    lines = _lines(meanings)
    if family:
        _add_children(canonical, everything, columns)
        _join_children(family, lines, uses)
    size = (canonical.parts.end[parts] - canonical.parts.start[parts]).astype(np.int64)
    row = np.full(len(canonical.parts.start), -1, np.int64)
    row[parts] = np.arange(len(parts))
    aliases = _aliases(canonical, parts)
    return _DigestedParts(
        canonical.objects,
        canonical.sources,
        canonical.section_names,
        canonical.chunks.heads[canonical.parts.chunk[parts]],
        canonical.parts.section[parts],
        size,
        np.concatenate([size[:, None].view(np.uint64), *(column[: len(parts)] for column in columns)], axis=1),
        {int(row[part]): short_hash(text) for part, text in lines.items() if part >= 0 and row[part] >= 0},
        {int(row[part]): symbols for part, symbols in uses.items() if part >= 0 and row[part] >= 0},
        aliases,
    )


def _part_lines(parts: _DigestedParts) -> Iterator[tuple[int, str]]:
    """Yield the lines of parts, with the number of the object of each."""
    objects = parts.objects
    step = 8 * parts.digests.shape[1]
    view = memoryview(parts.digests.tobytes())
    checksums = (xxh3_128_hexdigest(view[at : at + step]) for at in range(0, len(view), step))
    is_code = objects.sections["flags"][parts.section] & elf.SHF_EXECINSTR != 0
    is_function = is_code | (objects.symbols["info"][parts.symbol] & 0xF == elf.STT_FUNC)
    lines = format_lines(
        map((KIND_DATA, KIND_FUNCTION).__getitem__, is_function.tolist()),
        objects.names_of(parts.symbol.tolist()),
        list(map(parts.section_names.__getitem__, parts.section.tolist())),
        parts.size.tolist(),
        checksums,
        _components(parts.digests),
        _more(parts),
    )
    return zip(objects.section_object[parts.section].tolist(), lines, strict=True)


def _more(parts: _DigestedParts) -> list[str]:
    """Return the fields that only some entries have."""
    sources, copies = parts.sources, parts.sources.copies
    # Most have nothing but the source that they are of.
    of_home = [more_fields(symbol=SymbolId("", *home)) for home in sources.homes]
    home = sources.home(parts.symbol)
    more = list(map(of_home.__getitem__, home.tolist()))
    is_copy = np.zeros(len(parts.objects.symbols), bool)
    is_copy[[*copies]] = True
    lists = [[*parts.uses.values()], [*parts.aliases.values()]]
    used, others = (iter(sources.ids(np.array([*chain(*symbols)], np.int64))) for symbols in lists)
    # From the last of these fields to the first.
    for row in is_copy[parts.symbol].nonzero()[0].tolist():
        more[row] += more_fields(symbol=SymbolId("", copy=copies[int(parts.symbol[row])]))
    for row, symbols in parts.aliases.items():
        more[row] = more_fields(aliases=sorted(islice(others, len(symbols)))) + more[row]
    for row, symbols in parts.uses.items():
        more[row] = more_fields(uses=[*islice(used, len(symbols))]) + more[row]
    for row, lines in parts.lines.items():
        more[row] = more_fields(lines) + more[row]
    return more


def _aliases(canonical: Canonical, parts: NDArray[np.int64]) -> dict[int, list[int]]:
    """Return the other names of those parts that have some, by row: any may be the first when bindings change."""
    chunks, value = canonical.chunks, canonical.objects.symbols["value"]
    chunk = canonical.parts.chunk[parts]
    result = {}
    for row in (chunks.first[chunk + 1] - chunks.first[chunk] > 1).nonzero()[0].tolist():
        head, *others = canonical.part_symbols(int(parts[row])).tolist()
        empty = canonical.image.empty_variables
        same = [symbol for symbol in others if value[symbol] == value[head] and symbol not in empty]
        if same:
            result[row] = same
    return result


def _add_children(canonical: Canonical, parts: NDArray[np.int64], columns: list[Digests]) -> None:
    """Add the digests of split-off parts, the last rows of all, to those of their parents, in order."""
    parents = np.array(list(canonical.families.parent.values()), np.int64)
    row = np.zeros(len(canonical.parts.start), np.int64)
    row[parts] = np.arange(len(parts))
    order = np.argsort(parents, kind="stable")
    parents = parents[order]
    child_rows = len(parts) - len(parents) + order
    rank = np.arange(len(parents)) - np.searchsorted(parents, parents)
    # Where a part of its own lies, no entry says. That foo.cold is in .text.unlikely is the rule.
    sections, which = ranked(canonical.parts.section[parts[child_rows]])
    memories = list(map(canonical.memories.__getitem__, sections.tolist()))
    elsewhere = np.array([memory != _CODE_MEMORY for memory in memories])[which].nonzero()[0]
    columns[0][child_rows[elsewhere]] += _digests_of(memories)[which[elsewhere]]
    for turn in range(int(rank.max()) + 1):
        at = rank == turn
        to, of = row[parents[at]], child_rows[at]
        for column in columns:
            column[to] = column[to] * _CHILD_FACTOR + column[of]


def _join_children(family: dict[int, int], lines: dict[int, bytes], uses: dict[int, list[int]]) -> None:
    """Add line numbers and ambiguous symbols of split-off parts to those of their parents."""
    for child in sorted(family.keys() & (lines.keys() | uses.keys())):
        parent = family[child]
        if child in lines:
            lines[parent] = lines.get(parent, b"") + lines[child]
        if child in uses:
            uses[parent] = [*uses.get(parent, ()), *uses[child]]


def _components(digests: NDArray[np.uint64]) -> list[str]:
    """Return the short hashes of each entry: the first four bytes of its digests, "-" for what is not there."""
    short = np.ascontiguousarray(digests[:, 1::2].astype("<u4"))
    # Four times eight digits and a separator: one line an entry.
    text = bytearray(short.tobytes().hex(".", 4), "ascii")
    text[35::36] = b"\n" * (len(short) - 1)
    return text.decode().replace("00000000", "-").split("\n") if len(short) else []


# -- entries of symbols that have no part -----------------------------------------------------------------------------


def _symbol_lines(canonical: Canonical) -> Iterator[tuple[int, str]]:
    """Yield the lines of symbols that have no bytes: absolute global ones, and common ones."""
    objects = canonical.objects
    is_global = objects.symbols["info"] >> 4 != elf.STB_LOCAL
    symbols = (((objects.shndx == elf.ABSOLUTE) & is_global) | (objects.shndx == elf.COMMON)).nonzero()[0]
    numbers, ids = objects.object_of_symbols(symbols).tolist(), canonical.sources.ids(symbols)
    for symbol, number, found in zip(symbols.tolist(), numbers, ids, strict=True):
        row = objects.symbols[symbol]
        content = _SYMBOL_ATTRIBUTES.pack(row["value"], row["size"], row["info"], row["other"])
        section = "*ABS*" if objects.shndx[symbol] == elf.ABSOLUTE else "*COM*"
        checksum = xxh3_128_hexdigest(section.encode() + content)
        entry = Entry(KIND_DATA, found, section, int(row["size"]), checksum, f"{short_hash(content)}.-.-.-")
        yield number, entry_line(entry)


def _label_lines(meanings: Meanings) -> Iterator[tuple[int, str]]:
    """Yield the lines of names for what is known by its content: an end label where such a table begins."""
    canonical, objects = meanings.canonical, meanings.canonical.objects
    shared = (canonical.parts.kind == CONTENT).nonzero()[0]
    if len(shared):
        first, chunk = canonical.chunks.first, canonical.parts.chunk[shared]
        shared = shared[first[chunk + 1] - first[chunk] > 1]
    for part in shared.tolist():
        head, *others = canonical.part_symbols(part).tolist()
        for symbol in others:
            name, row = objects.symbol_name(symbol), objects.symbols[symbol]
            if canonical_name(name).numbered:
                continue
            offset = int(row["value"] - objects.symbols["value"][head])
            # As one that ends its section, and has a part of its own: what starts behind is somebody else's.
            kind, size = int(row["info"]) | int(row["other"]) << 8, int(row["size"])
            digests = np.zeros((1, 9), "<u8")
            digests[:, 0] = size
            digests[:, 1:3] = _digests_of([b"%d %d %d" % (kind, size, offset) if size or offset else b"%d" % kind])
            if size:
                digests[:, 3:5] = as_digests(meanings.content.digest(part))
            found, [short] = canonical.sources.id_of(symbol), _components(digests)
            section = int(canonical.parts.section[part])
            where, checksum = canonical.section_names[section], xxh3_128_hexdigest(digests.tobytes())
            yield (
                int(objects.section_object[section]),
                entry_line(Entry(KIND_DATA, found, where, size, checksum, short)),
            )
