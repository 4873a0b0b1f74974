# SPDX-License-Identifier: GPL-2.0-only
"""Modules as distributions ship them: compressed (scripts/Makefile.modinst: gzip, xz, zstd).

The first bytes of a file say what it holds, not its name. Content is unpacked piece by piece, so that what becomes
longer than any kernel is refused before it fills the memory.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from contextlib import closing
from mmap import mmap
from typing import TYPE_CHECKING

from kbuild_klp.errors import BadObjectError, ProgramError
from kbuild_klp.processes import read_output

if TYPE_CHECKING:
    from lzma import LZMADecompressor

MOST = 1 << 30
"""Most bytes of an object: an allmodconfig vmlinux.o with debug information is of that order."""

_BLOCK = 1 << 20
_MOST_MEMORY = 1 << 28  # of a decoder: xz -9 needs 65 MiB
_LARGEST_WINDOW = 27  # zstd --ultra -22: 128 MiB
_LITTLE = 1 << 12  # bytes of zstd input at a time: they can become 128 MiB

_AGAIN = "copy or download it again"


_Bytes = bytes | memoryview | mmap
_Pieces = Generator[bytes, None, None]


def unpacked(data: _Bytes, path: str) -> _Bytes:
    """Return the unpacked content of the file at ``path``, whose bytes are ``data``; these if it is not compressed.

    Raises BadObjectError if it is damaged, cut short or too long, or if nothing can read zstd.
    """
    magic = bytes(data[:6])
    method = next((row for row in _METHODS if magic.startswith(row[0])), None)
    if method is None:
        return data
    _, name, pieces = method
    result = bytearray()
    too_long = BadObjectError(f"{name}: holds more than {MOST >> 20} MiB", file=path, hint="is it an object?")
    if len(data) > MOST:
        raise too_long
    try:
        with closing(pieces(data, path)) as stream:
            for piece in stream:
                result += piece
                if len(result) > MOST:
                    raise too_long
    except ProgramError as error:
        if error.hint:  # there is no such program
            raise BadObjectError(f"{name}: nothing here can read it", file=path, hint=_INSTALL) from None
        raise BadObjectError(f"{name}: {error}", file=path, hint=_AGAIN) from None
    except (OSError, ValueError, EOFError, MemoryError) as error:
        raise BadObjectError(f"{name}: {f'{error}'.rstrip('.') or 'damaged'}", file=path, hint=_AGAIN) from None
    return memoryview(result)


def _decoded(data: _Bytes, make: Callable[[], LZMADecompressor]) -> _Pieces:
    """Yield what a file of one or several streams holds; the decoder of zstd (Python 3.14) is used as that of xz is."""
    rest = bytes(data)
    while rest:
        decoder = make()
        while not decoder.eof:
            piece = decoder.decompress(rest, _BLOCK)
            rest = b""
            if not piece and not decoder.eof and decoder.needs_input:
                raise EOFError("cut short")
            yield piece
        rest = decoder.unused_data.lstrip(b"\0")  # xz pads its streams


def _xz(data: _Bytes, _path: str) -> _Pieces:
    import lzma

    try:
        yield from _decoded(data, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, _MOST_MEMORY))
    except lzma.LZMAError as error:
        raise ValueError(error) from None


def _gzip(data: _Bytes, _path: str) -> _Pieces:
    import gzip
    import io
    import zlib

    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            while piece := file.read(_BLOCK):
                yield piece
    except zlib.error as error:
        raise ValueError(error) from None


# -- zstd: in the standard library from Python 3.14 on ----------------------------------------------------------------

_INSTALL = "install the Python package zstandard, or the program zstd"


def _zstd(data: _Bytes, path: str) -> _Pieces:
    for read in (_zstd_of_python, _zstd_of_package):
        try:
            yield from read(data)
        except ImportError:
            continue
        return
    # zstd ignores symbolic links.
    command = ["zstd", "-dcq", f"--memory={_MOST_MEMORY >> 20}MB", "--", os.path.realpath(path)]
    yield from read_output(command, package="zstd")


def _zstd_of_python(data: _Bytes) -> _Pieces:
    from compression import zstd  # type: ignore[import-not-found, unused-ignore]

    options = {zstd.DecompressionParameter.window_log_max: _LARGEST_WINDOW}
    try:
        yield from _decoded(data, lambda: zstd.ZstdDecompressor(options=options))
    except zstd.ZstdError as error:
        raise ValueError(error) from None


def _zstd_of_package(data: _Bytes) -> _Pieces:
    import zstandard  # type: ignore[import-not-found, unused-ignore]

    decoder = None
    at = 0
    try:
        while at < len(data):
            decoder = zstandard.ZstdDecompressor(max_window_size=1 << _LARGEST_WINDOW).decompressobj()
            while at < len(data) and not decoder.eof:
                yield decoder.decompress(bytes(data[at : at + _LITTLE]))
                at += _LITTLE
            at = min(at, len(data)) - len(decoder.unused_data)
    except zstandard.ZstdError as error:
        raise ValueError(error) from None
    if decoder is None or not decoder.eof:
        raise EOFError("cut short")


_Method = tuple[bytes, str, Callable[[_Bytes, str], _Pieces]]

_METHODS: tuple[_Method, ...] = (
    (b"\xfd7zXZ\0", "xz", _xz),
    (b"\x1f\x8b", "gzip", _gzip),
    (b"\x28\xb5\x2f\xfd", "zstd", _zstd),
)
