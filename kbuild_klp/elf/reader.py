# SPDX-License-Identifier: GPL-2.0-only
"""Tables of one relocatable ELF object as numpy arrays, and nothing about the kernel.

The file is mapped, not read: sections that nobody asks for (debug information above all) cost nothing.
Every table is checked against the size of the file before it is looked at, so that a truncated or hostile
file ends in one BadObjectError and never in an exception of numpy.
"""

from __future__ import annotations

import errno
import mmap
import os
import stat
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property, partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kbuild_klp.containers.ar import content, split_path
from kbuild_klp.containers.compression import unpacked
from kbuild_klp.elf import constants as elf
from kbuild_klp.errors import BadObjectError

SECTION_HEADER = np.dtype(
    [
        ("name", "u4"),
        ("type", "u4"),
        ("flags", "u8"),
        ("addr", "u8"),
        ("offset", "u8"),
        ("size", "u8"),
        ("link", "u4"),
        ("info", "u4"),
        ("align", "u8"),
        ("entsize", "u8"),
    ]
)
SYMBOL = np.dtype([("name", "u4"), ("info", "u1"), ("other", "u1"), ("shndx", "u2"), ("value", "u8"), ("size", "u8")])
_INDEX = np.dtype([("index", "u4")])
RELA = {
    "little": np.dtype([("offset", "<u8"), ("type", "<u4"), ("symbol", "<u4"), ("addend", "<i8")]),
    "big": np.dtype([("offset", ">u8"), ("symbol", ">u4"), ("type", ">u4"), ("addend", ">i8")]),
}
"""Rows of Elf64_Rela as they stand in an object, by its byte order: r_info is one number, the type its lower half."""
RELA_SIZE = 24

_ORDERS: dict[int, Literal["little", "big"]] = {elf.ELFDATA2LSB: "little", elf.ELFDATA2MSB: "big"}
_EHDR_SIZE = 64
_WORTH_MAPPING = 1 << 18
WORTH_READING_AHEAD = 1 << 18
"""Bytes of a mapped section from which on its pages are asked for at once."""
_MADV_POPULATE_READ = 22  # include/uapi/asm-generic/mman-common.h
# With -flto and without -ffat-lto-objects (gcc/toplev.cc: compile_file): nothing in it would ever differ.
_SLIM = b"\0__gnu_lto_slim\0"
_LTO = "under LTO the linked vmlinux.o and modules are compared"
REBUILD = "rebuild the object"
_NAME_ONE = "rebuild the object, or name one: .o, .ko (.xz, .zst, .gz), lib.a(member.o)"


def _content(name: str) -> tuple[bytes | mmap.mmap | memoryview, os.stat_result]:
    """Map a file, or read it, and unpack what it is packed in; raises KlpError."""
    path, member = split_path(name)
    data: bytes | mmap.mmap
    try:
        # A FIFO would wait for somebody to write into it without O_NONBLOCK.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            if stat.S_ISDIR(status.st_mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            if not stat.S_ISREG(status.st_mode):
                raise BadObjectError("not a regular file", file=name, hint="name an object file")
            # A small file is cheaper to read than to map (one system call against three and page faults).
            if status.st_size > _WORTH_MAPPING:
                data = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
            else:
                data = b"".join(iter(partial(os.read, descriptor, _WORTH_MAPPING + 1), b""))
        finally:
            os.close(descriptor)
    except OSError as error:
        hint = "name an object in it; diff and patch take trees" if isinstance(error, IsADirectoryError) else None
        raise BadObjectError(error.strerror or str(error), file=name, hint=hint) from None
    except (ValueError, OverflowError) as error:  # a name with a NUL in it, a sparse file of 2^63 bytes
        raise BadObjectError(str(error), file=name) from None
    if member:
        return content(data, path, member), status
    return data if data[:4] == elf.ELF_MAGIC else unpacked(data, name), status


def _identity(status: os.stat_result | None) -> tuple[int, ...]:
    return (status.st_mtime_ns, status.st_size, status.st_ino) if status else ()


class ObjectFile:
    """One ELF64 relocatable object.

    ``sections`` and ``symbols`` are structured arrays (SECTION_HEADER, SYMBOL) in file order, in the byte order of this
    machine; ``byteorder`` is that of the object. ``section_names`` has one name a section; ``shndx`` is the symbols'
    section index with SHN_XINDEX resolved. Raises BadObjectError for anything that is not such an object.
    """

    def __init__(
        self, data: bytes | mmap.mmap | memoryview, path: str, status: os.stat_result | None = None, tries: int = 1
    ) -> None:
        self.path = path
        self.tries = tries
        """How often the file was opened because it changed meanwhile."""
        self._status = status
        self._data = data
        self.size = len(data)
        self._check_header()
        self.sections = self._read_sections()
        self._symtab = self._find_symtab()
        self.symbols = self._read_symbols()
        if _SLIM in self.symbol_strings:
            raise self.error("GCC's LTO bytecode, not machine code", hint=_LTO)

    @classmethod
    def open(cls, path: str | os.PathLike[str], tries: int = 1) -> ObjectFile:
        """Map and parse the file at ``path``: an object, compressed or not, or ``lib.a(member.o)``."""
        name = os.fspath(path)
        data, status = _content(name)
        return cls(data, name, status, tries)

    def __getstate__(self) -> dict[str, Any]:
        """Return what is sent to another process, which maps the file by itself."""
        is_read = isinstance(self._data, bytes)
        return {name: value for name, value in self.__dict__.items() if is_read or name != "_data"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        if "_data" not in state:
            self._data, status = _content(self.path)
            if _identity(status) != _identity(self._status):
                raise self.error("changed while it was read", hint="try again")

    @property
    def mtime_ns(self) -> int:
        """When the file was made (0: it is none)."""
        return self._status.st_mtime_ns if self._status else 0

    def has_changed(self) -> bool:
        """Say whether the file is another one than when it was opened."""
        if self._status is None:
            return False
        try:
            now = os.stat(split_path(self.path)[0])
        except OSError:
            return True
        return _identity(now) != _identity(self._status)

    def release_pages(self) -> None:
        """Let the system have back the memory of what was read; it is read again should anybody look."""
        if isinstance(self._data, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            self._data.madvise(mmap.MADV_DONTNEED)

    def error(self, message: str, place: str | None = None, hint: str = REBUILD) -> BadObjectError:
        """Make the error that names this file."""
        return BadObjectError(message, file=self.path, place=place, hint=hint)

    def _check_header(self) -> None:
        head = bytes(self._data[: min(_EHDR_SIZE, self.size)])
        if head[:4] in elf.BITCODE_MAGICS:
            raise self.error("LLVM bitcode, not machine code", hint=_LTO)
        if not head:
            raise self.error("empty file")
        if head[:8] in elf.ARCHIVE_MAGICS:
            raise self.error("an archive, not an object", hint="name an object in it: lib.a(member.o)")
        if head[:4] != elf.ELF_MAGIC:
            raise self.error("not an ELF file", hint=_NAME_ONE)
        if len(head) < _EHDR_SIZE:
            raise self.error(f"truncated: {len(head)} bytes, an ELF header has {_EHDR_SIZE}")
        if head[4] != elf.ELFCLASS64:
            raise self.error("not a 64-bit object", hint="only 64-bit kernels are supported")
        if head[5] not in _ORDERS:
            raise self.error("neither a little-endian nor a big-endian object")
        self.byteorder = _ORDERS[head[5]]
        if int.from_bytes(head[16:18], self.byteorder) != elf.ET_REL:
            if int.from_bytes(head[17:15:-1], self.byteorder) == elf.ET_REL:
                raise self.error(f"not a {self.byteorder}-endian object, as its header says")
            raise self.error("not a relocatable object", hint="name the .o file, not the linked result")
        self.machine = int.from_bytes(head[18:20], self.byteorder)
        self._head = head

    def _table(self, dtype: np.dtype[np.void], offset: int, count: int, what: str) -> NDArray[np.void]:
        end = offset + count * dtype.itemsize
        if offset < 0 or count < 0 or end > self.size:
            raise self.error(f"{what} ends at {end:#x}, the file at {self.size:#x}", hint=REBUILD)
        return native(np.frombuffer(self._data, np.uint8, count * dtype.itemsize, offset), dtype, self.byteorder)

    def _read_sections(self) -> NDArray[np.void]:
        head = self._head
        offset = int.from_bytes(head[40:48], self.byteorder)
        entry_size = int.from_bytes(head[58:60], self.byteorder)
        count = int.from_bytes(head[60:62], self.byteorder)
        if offset == 0:
            raise self.error("no section header table")
        if entry_size != SECTION_HEADER.itemsize:
            raise self.error(f"section header entries of {entry_size} bytes, not {SECTION_HEADER.itemsize}")
        if count == 0:  # gABI: the number stands in sh_size of section 0 when it is SHN_LORESERVE or more
            count = int(self._table(SECTION_HEADER, offset, 1, "section header 0")[0]["size"])
        return self._table(SECTION_HEADER, offset, count, "section header table")

    @cached_property
    def section_strings(self) -> bytes:
        """The string table of the sections' names."""
        index = int.from_bytes(self._head[62:64], self.byteorder)
        if index == elf.SHN_XINDEX and len(self.sections):
            index = int(self.sections[0]["link"])
        if index >= len(self.sections):
            raise self.error(f"section name table {index} does not exist")
        return self.section_bytes(index)

    @cached_property
    def section_names(self) -> list[str]:
        """The name of each section."""
        offsets = self.sections["name"].astype(np.int64)
        return names_at(self.section_strings, offsets, partial(self.no_end, "section"))

    def no_end(self, what: str, index: int) -> BadObjectError:
        """Make the error about the name of a section or symbol (``what``) that has no end."""
        place = "symbol table" if what == "symbol" else "section header table"
        return self.error(f"name of {what} {index} has no end", place=place)

    def _extent(self, index: int) -> tuple[int, int]:
        """Return where in the file a section starts, and its size there."""
        header = self.sections[index]
        if header["type"] == elf.SHT_NOBITS:
            return 0, 0
        start, size = int(header["offset"]), int(header["size"])
        if start + size > self.size and size:
            raise self.error(f"ends at {start + size:#x}, the file at {self.size:#x}", place=f"section {index}")
        return (start, size) if size else (0, 0)

    @property
    def view(self) -> memoryview:
        """The whole file, not copied."""
        return memoryview(self._data)

    def section_bytes(self, index: int) -> bytes:
        """Return the content of one section (empty for SHT_NOBITS)."""
        start, size = self._extent(index)
        return bytes(self._data[start : start + size])

    def named_bytes(self, name: str) -> bytes:
        """Return the content of the first section of a name, empty where there is none."""
        return self.section_bytes(self.section_names.index(name)) if name in self.section_names else b""

    def section_array(self, index: int) -> NDArray[np.uint8]:
        """Return the content of one section without copying it (read-only)."""
        start, size = self._extent(index)
        if size >= WORTH_READING_AHEAD:
            self.read_ahead(start, size)
        return np.frombuffer(self._data, np.uint8, size, start) if size else np.zeros(0, np.uint8)

    def read_ahead(self, start: int, size: int) -> None:
        """Have the pages of a large piece of a mapped file put in their places at once, not at a fault each."""
        if isinstance(self._data, mmap.mmap):
            first = start // mmap.PAGESIZE * mmap.PAGESIZE
            with suppress(OSError):  # before Linux 5.14
                self._data.madvise(_MADV_POPULATE_READ, first, start + size - first)

    def _find_symtab(self) -> int:
        tables = np.flatnonzero(self.sections["type"] == elf.SHT_SYMTAB)
        if len(tables) > 1:
            raise self.error("more than one symbol table")
        return int(tables[0]) if len(tables) else 0

    def _read_symbols(self) -> NDArray[np.void]:
        if not self._symtab:
            return np.zeros(1, SYMBOL)
        header = self.sections[self._symtab]
        if header["entsize"] != SYMBOL.itemsize or header["size"] % SYMBOL.itemsize:
            raise self.error("entry size is not that of Elf64_Sym", place="section .symtab")
        if int(header["link"]) >= len(self.sections):
            raise self.error(f"string table {header['link']} does not exist", place="section .symtab")
        count = int(header["size"]) // SYMBOL.itemsize
        symbols = self._table(SYMBOL, int(header["offset"]), count, "symbol table")
        return symbols if count else np.zeros(1, SYMBOL)

    @cached_property
    def symbol_strings(self) -> bytes:
        """The symbol table's string table."""
        if not self._symtab:
            return b"\0"
        return self.section_bytes(int(self.sections[self._symtab]["link"]))

    def symbol_name(self, index: int) -> str:
        """Return the name of one symbol."""
        return self._symbol_names[index]

    @cached_property
    def _symbol_names(self) -> list[str]:
        offsets = self.symbols["name"].astype(np.int64)
        return names_at(self.symbol_strings, offsets, partial(self.no_end, "symbol"))

    def add_symbols(self, symbols: NDArray[np.void], shndx: NDArray[np.int64], names: bytes) -> None:
        """Add symbols that the file does not have, as if they stood at the end of its symbol table.

        ``symbols`` are rows of SYMBOL whose names stand in ``names``, as offsets behind the string table that there is.
        """
        strings = self.symbol_strings + names
        self.__dict__.pop("_symbol_names", None)
        indices = np.concatenate([self.shndx, shndx])
        self.symbols = np.concatenate([self.symbols.view(np.uint8), symbols.view(np.uint8)]).view(SYMBOL)
        self.symbols["shndx"][len(indices) - len(shndx) :] = (
            elf.SHN_XINDEX
        )  # it stands elsewhere: there may be many sections
        self.shndx = indices
        self.symbol_strings = strings

    @cached_property
    def shndx(self) -> NDArray[np.int64]:
        """The section of each symbol, SHN_XINDEX resolved; negative for reserved indices (elf.ABSOLUTE, elf.COMMON)."""
        shndx = section_indices(self.symbols["shndx"])
        extended = (shndx == EXTENDED).nonzero()[0]
        if len(extended):
            tables = np.flatnonzero(
                (self.sections["type"] == elf.SHT_SYMTAB_SHNDX) & (self.sections["link"] == self._symtab)
            )
            if not len(tables):
                raise self.error("symbols use SHN_XINDEX, but there is no SHT_SYMTAB_SHNDX", place="symbol table")
            header = self.sections[int(tables[0])]
            count = int(header["size"]) // _INDEX.itemsize
            if count < len(shndx):
                raise self.error("extended section indices are fewer than symbols", place="symbol table")
            table = self._table(_INDEX, int(header["offset"]), count, "extended section indices")
            shndx[extended] = table["index"][extended]
        if shndx.max() >= len(self.sections):
            raise self.no_section()
        return shndx

    def no_section(self) -> BadObjectError:
        """Make the error about a symbol whose section is none of this file."""
        return self.error("a symbol names a section that does not exist", place="symbol table")


EXTENDED = elf.SHN_XINDEX - 0x10000
"""What `section_indices` makes of an index that stands in SHT_SYMTAB_SHNDX."""


def section_indices(shndx: NDArray[np.uint16]) -> NDArray[np.int64]:
    """Return st_shndx of symbols, reserved indices negative so that they never collide with sections beyond 0xff00."""
    indices = shndx.astype(np.int64)
    indices[indices >= elf.SHN_LORESERVE] -= 0x10000
    return indices


def native(data: NDArray[np.uint8], dtype: np.dtype[np.void], byteorder: str) -> NDArray[np.void]:
    """Return rows of a table in the byte order of this machine; without copying them where they are in it."""
    if byteorder == sys.byteorder:
        return data.view(dtype)
    return data.view(dtype.newbyteorder()).astype(dtype)


def encoded(name: str) -> bytes:
    """Return a name as it stands in a string table, without its end."""
    return name.encode("utf-8", "surrogateescape")


def name_pieces(
    strings: bytes, offsets: NDArray[np.int64], no_end: Callable[[int], BadObjectError]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where the pieces of a string table end, and in which of them the name at each of ``offsets`` lies.

    ``no_end`` makes the error for one (by its index) without end.
    """
    ends = (np.frombuffer(strings or b"\0", np.uint8) == 0).nonzero()[0]
    piece = np.searchsorted(ends, offsets)
    is_lost = piece == len(ends)
    if is_lost.any():
        raise no_end(int(is_lost.nonzero()[0][0]))
    return ends, piece


def cut_names(
    strings: bytes, offsets: NDArray[np.int64], ends: NDArray[np.int64], piece: NDArray[np.int64]
) -> list[str]:
    """Return the names at ``offsets`` in a string table; ``ends`` and ``piece`` are what `name_pieces` says.

    One decoding and one cutting for the whole table: a kernel has 80,000 symbols. Linkers let names share their ends,
    so a name may start in the middle of a piece.
    """
    text = (strings or b"\0")[: int(ends[-1])].decode("latin-1")  # an encoding that keeps offsets
    pieces = text.split("\0")
    skipped = offsets - np.concatenate([[0], ends + 1])[piece]
    names = list(map(pieces.__getitem__, piece.tolist()))
    shared = skipped.nonzero()[0]
    for index, skip in zip(shared.tolist(), skipped[shared].tolist(), strict=True):
        names[index] = names[index][skip:]
    if not text.isascii():  # Rust; what is no UTF-8 either must survive being written and read again
        names = [name.encode("latin-1").decode("utf-8", "surrogateescape") for name in names]
    return names


def names_at(strings: bytes, offsets: NDArray[np.int64], no_end: Callable[[int], BadObjectError]) -> list[str]:
    """Return the names at ``offsets`` in a string table; ``no_end`` is as for `name_pieces`."""
    return cut_names(strings, offsets, *name_pieces(strings, offsets, no_end))
