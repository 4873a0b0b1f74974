# SPDX-License-Identifier: GPL-2.0-only
"""The checksum file beside each object: text, one line an entry, sorted, fields separated by tabs.

    # kbuild-klp 3 x86_64 table=1 digest=0f6894626d81a076baecc2a3d65d0e6c
    function  cmdline_proc_show  .text  24  d96e50c0...  b32ecdad.fb38e39a.dfe71663.-

The digest covers all other lines and the header up to itself. Nothing in the file says when, where or by whom it was
made: the same object gives the same file. That it belongs to the object beside it is said by its modification time,
which is that of the object.
"""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from xxhash import xxh3_128_hexdigest

from kbuild_klp.entry import Columns, Entry
from kbuild_klp.errors import BadSumFileError

FORMAT_VERSION = 4
"""To be raised whenever the same object gives other checksums than before, or is written in another way."""

_VERSION = re.compile(rb"# kbuild-klp (\d{1,9}) ")
_HEADER = re.compile(rb"# kbuild-klp (\d{1,9}) ([!-~]+) table=(\d{1,9}) digest=([0-9a-f]{32})\n")
_REMAKE = "remove it, and `make klp-checksums` writes it again"
_ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}
_ESCAPED = re.compile(r"[\\\t\n\r]")
_UNESCAPES = {value: key for key, value in _ESCAPES.items()}
_UNESCAPED = re.compile(r"\\[\\tnr]")


@dataclass(frozen=True)
class SumFile:
    """The content of a checksum file; ``table`` is the version of special.toml it was made with."""

    architecture: str
    table: int
    entries: list[Entry]


def _escape(text: str) -> str:
    return _ESCAPED.sub(lambda match: _ESCAPES[match[0]], text)


def _unescape(text: str) -> str:
    return _UNESCAPED.sub(lambda match: _UNESCAPES[match[0]], text)


def _text(columns: Columns) -> str:
    """Return the lines of some entries, sorted; names stand in them as they are."""
    tails = [
        ""
        if not (lines or numbered or aliases)
        else f"\t{lines}\t{numbered}\t{aliases}"
        if aliases
        else f"\t{lines}\t{numbered}"
        if numbered
        else f"\t{lines}"
        for lines, numbered, aliases in zip(columns.lines, columns.numbered, columns.aliases, strict=True)
    ]
    lines = [
        f"{kind}\t{name}\t{section}\t{size}\t{checksum}\t{components}{tail}\n"
        for kind, name, section, size, checksum, components, tail in zip(*columns[:6], tails, strict=True)
    ]
    lines.sort()
    return "".join(lines)


def _is_plain(text: str, columns: Columns) -> bool:
    """Say whether lines are ready to be written: all tabs in them separate fields, and nothing needs an escape."""
    count = len(columns.kind)
    tabs = 5 * count + sum(
        3 if aliases else 2 if numbered else 1
        for lines, numbered, aliases in zip(columns.lines, columns.numbered, columns.aliases, strict=True)
        if lines or numbered or aliases
    )
    return "\\" not in text and "\r" not in text and text.count("\n") == count and text.count("\t") == tabs


def dump(architecture: str, table: int, columns: Columns) -> bytes:
    """Return the bytes of a checksum file; ``table`` is the version of special.toml."""
    text = _text(columns)
    if not _is_plain(text, columns):
        name, section, numbered, aliases = (
            [_escape(field) for field in column]
            for column in (columns.name, columns.section, columns.numbered, columns.aliases)
        )
        text = _text(columns._replace(name=name, section=section, numbered=numbered, aliases=aliases))
    body = text.encode("utf-8", "surrogateescape")
    head = f"# kbuild-klp {FORMAT_VERSION} {architecture} table={table} ".encode()
    return head + b"digest=" + xxh3_128_hexdigest(head + body).encode() + b"\n" + body


def load(data: bytes, path: str) -> SumFile:
    """Parse a checksum file; raises BadSumFileError, naming ``path``, when it is damaged or of another version."""
    version = _VERSION.match(data)
    # The version first: nothing else is known of a file of another one.
    if version and int(version[1]) != FORMAT_VERSION:
        raise BadSumFileError(
            f"format version {int(version[1])}, this program reads {FORMAT_VERSION}",
            file=path,
            place="line 1",
            hint=_REMAKE,
        )
    header = _HEADER.match(data)
    if header is None:
        raise BadSumFileError("not a checksum file, or a truncated one", file=path, place="line 1", hint=_REMAKE)
    head = data[: data.index(b"digest=")]
    body = data[header.end() :]
    if xxh3_128_hexdigest(head + body).encode() != header[4]:
        raise BadSumFileError("content does not match its digest", file=path, place="line 1", hint=_REMAKE)
    entries = []
    lines_of_file = body.decode("utf-8", "surrogateescape").split("\n")
    if lines_of_file.pop():
        raise BadSumFileError("not an entry", file=path, place=f"line {len(lines_of_file) + 2}", hint=_REMAKE)
    for number, line in enumerate(lines_of_file, 2):
        fields = line.split("\t")
        if "\\" in line:
            fields = [_unescape(field) for field in fields]
        fields += [""] * (9 - len(fields))
        try:
            kind, name, section, size, checksum, components, lines, numbered, aliases = fields
            entries.append(Entry(kind, name, section, int(size), checksum, components, lines, numbered, aliases))
        except ValueError:
            raise BadSumFileError("not an entry", file=path, place=f"line {number}", hint=_REMAKE) from None
    return SumFile(header[2].decode(), int(header[3]), entries)


@cache
def table_version() -> int:
    """Return the version of special.toml, without reading the rest of it."""
    with Path(__file__).with_name("special.toml").open(encoding="utf-8") as file:
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
    temporary = f"{path.removesuffix('.cmd')}.{os.getpid()}.tmp"  # .*.tmp goes with make clean, should we die here
    try:
        with Path(temporary).open("wb") as file:
            file.write(data)
        os.utime(temporary, ns=(mtime_ns, mtime_ns))
        os.replace(temporary, path)  # noqa: PTH105 - Path.replace makes two Path objects an object for nothing
    except BaseException:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise
