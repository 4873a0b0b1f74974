# SPDX-License-Identifier: GPL-2.0-only
"""The checksum file beside each object: text, one line an entry, sorted, fields separated by tabs.

    # kbuild-klp 13 x86_64 table=2 digest=0f6894626d81a076baecc2a3d65d0e6c
    function  cmdline_proc_show  .text  24  d96e50c0...  b32ecdad.fb38e39a.dfe71663.-

After these six fields come those of an entry that has them, as `key=value`: ``lines``, ``uses``, ``aliases``, and what
tells its symbol from others of that name, ``file``, ``source`` and ``copy`` (entry.py says what they are). A symbol in
a list is its name and the same three, separated by commas, as many as are needed.

The digest covers all other lines and the header up to itself. Nothing in the file says when, where or by whom it was
made: the same object gives the same file. That it belongs to the object beside it is said by its modification time,
which is that of the object.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from itertools import repeat
from pathlib import Path

from xxhash import xxh3_128

from kbuild_klp.checksum.entry import Entry
from kbuild_klp.containers.replacing import replace_small
from kbuild_klp.errors import BadSumFileError
from kbuild_klp.object.symbol_id import SymbolId

FORMAT_VERSION = 13
"""To be raised whenever the same object gives other checksums than before, or is written in another way."""

_VERSION = re.compile(rb"# kbuild-klp (\d{1,9}) ")
_HEADER = re.compile(rb"# kbuild-klp (\d{1,9}) ([!-~]+) table=(\d{1,9}) digest=([0-9a-f]{32})\n")
_REMAKE = "remove it, and `make klp-checksums` writes it again"
_ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}
_LIST_ESCAPES = _ESCAPES | {" ": "\\s", ",": "\\c"}
_ESCAPED = re.compile(r"[\\\t\n\r]")
_LIST_ESCAPED = re.compile(r"[\\\t\n\r ,]")
_UNESCAPES = {value: key for key, value in _LIST_ESCAPES.items()}
_UNESCAPED = re.compile(r"\\[\\tnrsc]")
_FIELDS = 6


@dataclass(frozen=True)
class SumFile:
    """The content of a checksum file: ``lines`` are those of the entries, ``path`` is for messages.

    ``table`` is the version of special.toml it was made with.
    """

    architecture: str
    table: int
    lines: list[str]
    path: str

    @property
    def entries(self) -> list[Entry]:
        """All entries; raises BadSumFileError."""
        return self.parse(self.lines)

    def parse(self, lines: Iterable[str]) -> list[Entry]:
        """Return the entries of some of the lines; raises BadSumFileError."""
        entries = []
        for line in lines:
            try:
                entries.append(_parse_line(line))
            except ValueError:
                raise _damaged("not an entry", self.path, self.lines.index(line) + 2) from None
        return entries


def _damaged(message: str, path: str, line: int = 1) -> BadSumFileError:
    return BadSumFileError(message, file=path, place=f"line {line}", hint=_REMAKE)


_NO_SYMBOL = SymbolId("")


def more_fields(
    lines: str = "", uses: Iterable[SymbolId] = (), aliases: Iterable[SymbolId] = (), symbol: SymbolId = _NO_SYMBOL
) -> str:
    """Return the fields that only some entries have, each with a tab before it."""
    _, file, source, copy = symbol
    text = f"\tlines={lines}" if lines else ""
    text += f"\tuses={_list(uses)}" if uses else ""
    text += f"\taliases={_list(aliases)}" if aliases else ""
    text += f"\tfile={_escape(file)}" if file else ""
    text += f"\tsource={source}" if source != 1 else ""
    return f"{text}\tcopy={copy}" if copy != 1 else text


def _escape(text: str) -> str:
    return _ESCAPED.sub(lambda match: _ESCAPES[match[0]], text)


def _unescape(text: str) -> str:
    return _UNESCAPED.sub(lambda match: _UNESCAPES[match[0]], text) if "\\" in text else text


def _list(symbols: Iterable[SymbolId]) -> str:
    """Return symbols as they stand in a list."""
    return " ".join(map(_listed, symbols))


def _listed(symbol: SymbolId) -> str:
    name, file, source, copy = symbol
    if _LIST_ESCAPED.search(name + file):
        name, file = (_LIST_ESCAPED.sub(lambda match: _LIST_ESCAPES[match[0]], text) for text in (name, file))
    if copy != 1:
        return f"{name},{file},{source},{copy}"
    if source != 1:
        return f"{name},{file},{source}"
    return f"{name},{file}" if file else name


_PLAIN = ("", "", "1", "1")
"""What is left out at the end of a symbol in a list."""


def _unlist(text: str) -> tuple[SymbolId, ...]:
    """Parse a list of symbols; raises ValueError."""
    symbols = []
    for word in text.split(" "):
        name, *rest = word.split(",")
        file, source, copy = (*rest, *_PLAIN[1 + len(rest) :])
        symbols.append(SymbolId(_unescape(name), _unescape(file), int(source), int(copy)))
    return tuple(symbols)


def _parse_line(line: str) -> Entry:
    """Parse the line of an entry; raises ValueError."""
    fields = line.split("\t")
    if len(fields) < _FIELDS:
        raise ValueError
    kind, name, section, size, checksum, components = fields[:_FIELDS]
    more = dict[str, str](field.split("=", 1) for field in fields[_FIELDS:])
    uses, aliases = (_unlist(more[key]) if key in more else () for key in ("uses", "aliases"))
    source, copy = int(more.get("source", 1)), int(more.get("copy", 1))
    symbol = SymbolId(_unescape(name), _unescape(more.get("file", "")), source, copy)
    return Entry(
        kind, symbol, _unescape(section), int(size), checksum, components, more.get("lines", ""), uses, aliases
    )


def format_lines(
    kinds: Iterable[str],
    names: list[str],
    sections: list[str],
    sizes: Iterable[int],
    checksums: Iterable[str],
    components: Iterable[str],
    more: Iterable[str],
) -> list[str]:
    """Return one line an entry, from columns of their fields; ``more`` is what `more_fields` makes."""
    if _ESCAPED.search("\0".join(names)) or _ESCAPED.search("\0".join(dict.fromkeys(sections))):
        names, sections = list(map(_escape, names)), list(map(_escape, sections))
    return [
        f"{kind}\t{name}\t{section}\t{size}\t{checksum}\t{component}{rest}\n"
        for kind, name, section, size, checksum, component, rest in zip(
            kinds, names, sections, sizes, checksums, components, more, strict=True
        )
    ]


def entry_line(entry: Entry) -> str:
    """Return the line of one entry."""
    more = more_fields(entry.lines, entry.uses, entry.aliases, entry.symbol)
    fields = ([entry.name], [entry.section], [entry.size], [entry.checksum], [entry.components], [more])
    return format_lines([entry.kind], *fields)[0]


def dump(architecture: str, table: int, lines: Iterable[str]) -> bytes:
    """Return the bytes of a checksum file; ``table`` is the version of special.toml, ``lines`` are in any order."""
    head = f"# kbuild-klp {FORMAT_VERSION} {architecture} table={table} ".encode()
    body = "".join(sorted(lines)).encode("utf-8", "surrogateescape")
    digest = xxh3_128(head)
    digest.update(body)
    return b"".join((head, b"digest=", digest.hexdigest().encode(), b"\n", body))


def load(data: bytes, path: str) -> SumFile:
    """Parse a checksum file; raises BadSumFileError, naming ``path``, when it is damaged or of another version."""
    version = _VERSION.match(data)
    # The version first: nothing else is known of a file of another one.
    if version and int(version[1]) != FORMAT_VERSION:
        raise _damaged(f"format version {int(version[1])}, this program reads {FORMAT_VERSION}", path)
    header = _HEADER.match(data)
    if header is None:
        raise _damaged("not a checksum file, or a truncated one", path)
    digest = xxh3_128(data[: data.index(b"digest=")])
    digest.update(memoryview(data)[header.end() :])
    if digest.hexdigest().encode() != header[4]:
        raise _damaged("content does not match its digest", path)
    lines = data[header.end() :].decode("utf-8", "surrogateescape").split("\n")
    last = lines.pop()
    tabs = list(map(str.count, lines, repeat("\t")))
    if min(tabs, default=_FIELDS) < _FIELDS - 1:
        raise _damaged("not an entry", path, next(at for at, count in enumerate(tabs, 2) if count < _FIELDS - 1))
    if last:
        raise _damaged("not an entry", path, len(lines) + 2)
    return SumFile(header[2].decode(), int(header[3]), lines, path)


@cache
def table_version() -> int:
    """Return the version of special.toml, without reading the rest of it."""
    with Path(__file__).parents[1].joinpath("special", "special.toml").open(encoding="utf-8") as file:
        return next((int(line.partition("=")[2]) for line in file if line.startswith("version =")), 0)


def is_current(path: str) -> bool:
    """Say whether the checksum file at ``path`` has the present format and table version, by its first line."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        header = _HEADER.match(os.read(descriptor, 128))
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return header is not None and (int(header[1]), int(header[3])) == (FORMAT_VERSION, table_version())


def write(path: str, data: bytes, mtime_ns: int) -> None:
    """Write a checksum file whole or not at all, with the modification time of its object."""
    replace_small(path, data, mtime_ns)
