# SPDX-License-Identifier: GPL-2.0-only
"""Archives of objects (``built-in.a``, ``vmlinux.a``, ``lib.a``): which files are their members.

Kbuild makes them thin: a member is a header that names a file, relative to the archive's directory. The
layout is that of ar(5) with GNU's ``//`` table of long names; ``ar t`` is the independent check in the
tests.
"""

from __future__ import annotations

import os
import posixpath

from kbuild_klp.errors import BadTreeError

THIN_MAGIC = b"!<thin>\n"
FULL_MAGIC = b"!<arch>\n"

_HEADER = 60
_HEADER_END = b"`\n"
_SYMBOL_TABLES = (b"/", b"/SYM64/")


def members(archive: str) -> list[str]:
    """The member files of ``archive``, in link order, as paths that start with the archive's directory.

    Members of an archive that is not thin have no file of their own; they are taken to be beside it, where
    kbuild compiled them. Raises BadTreeError for a file that is no archive or is cut short, OSError if it
    cannot be read.
    """
    with open(archive, "rb") as file:  # noqa: PTH123 - pathlib costs more than the read
        data = file.read()
    return [_joined(posixpath.dirname(archive), name) for name in _names(data, archive)]


def _joined(directory: str, name: str) -> str:
    path = posixpath.join(directory, name)
    # `ar` records "./init/main.o" when it was asked for "./init/main.o".
    return posixpath.normpath(path) if "./" in path or "//" in path else path


def _names(data: bytes, archive: str) -> list[str]:
    magic = data[:8]
    if magic not in (THIN_MAGIC, FULL_MAGIC):
        raise BadTreeError("is not an archive", file=archive, hint="build the tree again")
    thin = magic == THIN_MAGIC
    names: list[str] = []
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
            names.append(_member_name(field, long_names, archive, offset - _HEADER))
            if thin:
                continue  # no content follows, whatever the size says
        if offset + size > end:
            raise _cut_short(archive, offset)
        offset += size + (size & 1)
    return names


def _name_field(data: bytes, offset: int) -> bytes:
    field = data[offset : offset + 16].rstrip(b" ")
    # GNU ar may leave the slash of an earlier, shorter name at the end: "/12            /".
    return field.partition(b" ")[0] if field.startswith(b"/") else field


def _member_name(field: bytes, long_names: bytes, archive: str, offset: int) -> str:
    """The name in a header: ``name/``, or ``/123``, the place of the name in the long-name table."""
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
    # "/123:456" is the member at 456 of the ordinary archive that is named at 123.
    return _nested_name(archive, name, nested)


def _nested_name(archive: str, inner: str, place: bytes) -> str:
    path = posixpath.join(posixpath.dirname(archive), inner)
    try:
        with open(path, "rb") as file:  # noqa: PTH123
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
    # One level only: what is inside an ordinary archive has no archive of its own.
    return posixpath.join(posixpath.dirname(inner), _member_name(field.partition(b":")[0], table, path, at))


def _cut_short(archive: str, offset: int) -> BadTreeError:
    return BadTreeError("is damaged", file=archive, place=f"offset {offset}", hint="remove it and build again")
