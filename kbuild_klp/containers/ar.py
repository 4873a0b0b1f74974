# SPDX-License-Identifier: GPL-2.0-only
"""Archives of objects (``lib.a``, ``vmlinux.a``) in the format of ar(5), with GNU's ``//`` table of long names.

A thin archive, as kbuild makes them, has only headers, each of which names a file. The tests compare with ``ar t``.
"""

from __future__ import annotations

import mmap
import os
import posixpath
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from kbuild_klp.errors import BadTreeError, KlpError, system_errors

THIN_MAGIC = b"!<thin>\n"
FULL_MAGIC = b"!<arch>\n"

_HEADER = 60
_HEADER_END = b"`\n"
_SYMBOL_TABLES = (b"/", b"/SYM64/")


class Member(NamedTuple):
    """One member: its name, and where its content lies in the archive, in bytes; ``size`` is -1 in a thin archive."""

    name: str
    offset: int
    size: int


def members_of(data: bytes | mmap.mmap, archive: str) -> Iterator[Member]:
    """Yield the members of an archive whose bytes are ``data``, in link order; raises BadTreeError for a broken one."""
    magic = data[:8]
    if magic not in (THIN_MAGIC, FULL_MAGIC):
        raise BadTreeError("is not an archive", file=archive, hint="build the tree again")
    thin = magic == THIN_MAGIC
    long_names = b""
    offset, end = 8, len(data)
    while offset < end:
        if offset + _HEADER > end or data[offset + 58 : offset + _HEADER] != _HEADER_END:
            raise _cut_short(archive, offset)
        field = _name_field(data, offset)
        size_field = data[offset + 48 : offset + 58].strip()
        if not size_field.isdigit():
            raise _cut_short(archive, offset)
        size = int(size_field)
        offset += _HEADER
        if field == b"//":
            long_names = data[offset : offset + size]
        elif field not in _SYMBOL_TABLES:
            name = _member_name(field, long_names, archive, offset - _HEADER)
            if thin:
                yield Member(name, offset, -1)
                continue  # no content follows, whatever the size says
            if offset + size <= end:
                yield Member(name, offset, size)
        if offset + size > end:
            raise _cut_short(archive, offset)
        offset += size + (size & 1)


def with_keys(members: Iterable[Member]) -> Iterator[tuple[str, Member]]:
    """Yield each member with a unique key: its name, or ``name[2]`` for the second one of a name."""
    counts: Counter[str] = Counter()
    for member in members:
        counts[member.name] += 1
        count = counts[member.name]
        yield (member.name if count == 1 else f"{member.name}[{count}]"), member


def split_path(path: str) -> tuple[str, str]:
    """Return archive and member of ``lib.a(member.o)``, as binutils write it; the path and "" of any other file."""
    if path.endswith(")") and not os.path.lexists(path):
        archive, _, member = path[:-1].rpartition("(")
        if member and os.path.isfile(archive):
            return archive, member
    return path, ""


def content(data: bytes | mmap.mmap, archive: str, wanted: str) -> memoryview:
    """Return the bytes of one member of an archive that is not thin; raises KlpError when it is not there."""
    for key, member in with_keys(members_of(data, archive)):
        if key == wanted and member.size >= 0:
            return memoryview(data)[member.offset : member.offset + member.size]
    raise KlpError(f"has no member {wanted}", file=archive, hint=f"ar t {archive} lists them")


def is_object_archive(path: str) -> bool:
    """Return True when the file at ``path`` begins as an archive of objects does."""
    try:
        if not Path(path).is_file():  # a FIFO would wait for somebody to write into it
            return False
        with Path(path).open("rb") as file:
            return file.read(8) in (FULL_MAGIC, THIN_MAGIC)
    except OSError:
        return False


def member_files(path: str) -> dict[str, str]:
    """Return the members of an archive, and under which path each can be opened; raises KlpError."""
    with system_errors(path):
        data = Path(path).read_bytes()
    directory = posixpath.dirname(path)
    return {
        key: f"{path}({key})" if member.size >= 0 else posixpath.normpath(posixpath.join(directory, member.name))
        for key, member in with_keys(members_of(data, path))
    }


def object_path(path: str) -> str:
    """Return the file that ``thin.a(member.o)`` names; any other path as it is. Raises KlpError."""
    archive, member = split_path(path)
    if not member or not is_object_archive(archive):
        return path
    files = member_files(archive)
    if member not in files:
        raise KlpError(f"has no member {member}", file=archive, hint=f"ar t {archive} lists them")
    return files[member]


def _name_field(data: bytes | mmap.mmap, offset: int) -> bytes:
    field = data[offset : offset + 16].rstrip(b" ")
    # GNU ar may leave the slash of an earlier, shorter name at the end: "/12            /".
    return field.partition(b" ")[0] if field.startswith(b"/") else field


def _member_name(field: bytes, long_names: bytes, archive: str, offset: int) -> str:
    """Return the name in a header: ``name/``, or ``/123``, the place of the name in the table of long names."""
    if not field.startswith(b"/"):
        return os.fsdecode(field.removesuffix(b"/"))
    place, _, nested = field[1:].partition(b":")
    if not place.isdigit() or int(place) >= len(long_names):
        raise _cut_short(archive, offset)
    start = int(place)
    end = long_names.find(b"/\n", start)
    name = os.fsdecode(long_names[start : end if end >= 0 else None])
    if not nested:
        return name
    # "/123:456" is the member at offset 456 of the ordinary archive whose name is at 123.
    return _nested_name(archive, name, nested)


def _nested_name(archive: str, inner: str, place: bytes) -> str:
    path = posixpath.join(posixpath.dirname(archive), inner)
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise BadTreeError(f"names {inner}, which cannot be read ({error.strerror})", file=archive) from error
    at = int(place) if place.isdigit() else len(data)
    field = _name_field(data, at)
    table = b""
    if data[8:10] == b"//":
        size = data[8 + 48 : 8 + 58].strip()
        table = data[8 + _HEADER : 8 + _HEADER + int(size)] if size.isdigit() else b""
    if not field or field == b"/":
        raise _cut_short(archive, at)
    # One level only: members of an ordinary archive are no archives.
    return posixpath.join(posixpath.dirname(inner), _member_name(field.partition(b":")[0], table, path, at))


def _cut_short(archive: str, offset: int) -> BadTreeError:
    return BadTreeError("is damaged", file=archive, place=f"offset {offset}", hint="remove it and build again")
