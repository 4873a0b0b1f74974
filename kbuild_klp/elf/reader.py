# SPDX-License-Identifier: GPL-2.0-only
"""Tables of one relocatable ELF object as numpy arrays, and nothing about the kernel.

The file is mapped, not read: sections that nobody asks for (debug information above all) cost nothing.
Every table is checked against the size of the file before it is looked at, so that a truncated or hostile
file ends in one BadObjectError and never in an exception of numpy.
"""

from __future__ import annotations

import mmap
import os
import stat
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

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
RELA = np.dtype([("offset", "u8"), ("type", "u4"), ("symbol", "u4"), ("addend", "i8")])

_EHDR_SIZE = 64
_WORTH_MAPPING = 1 << 18
_REBUILD = "rebuild the object"


class Relocations(NamedTuple):
    """The relocations that apply to the sections asked for, one array per column, those of a section in file order.

    ``section`` is the index of the section they apply to, ``offset`` the place in it in bytes.
    """

    section: NDArray[np.int32]
    offset: NDArray[np.int64]
    type: NDArray[np.int32]
    symbol: NDArray[np.int64]
    addend: NDArray[np.int64]

    def take(self, rows: NDArray[np.int64]) -> Relocations:
        """Return some of the rows, in the order given."""
        return Relocations(self.section[rows], self.offset[rows], self.type[rows], self.symbol[rows], self.addend[rows])


def _open(path: str, flags: int) -> int:
    """Open a file; a FIFO would wait for somebody to write into it without O_NONBLOCK."""
    return os.open(path, flags | os.O_NONBLOCK)


class ObjectFile:
    """One ELF64 relocatable object.

    ``sections`` and ``symbols`` are structured arrays (SECTION_HEADER, SYMBOL) in file order;
    ``section_names`` has one name a section; ``shndx`` is the symbols' section index with SHN_XINDEX resolved.
    Raises BadObjectError for anything that is not such an object.
    """

    def __init__(self, data: bytes | mmap.mmap | memoryview, path: str) -> None:
        self.path = path
        self._data = data
        self.size = len(data)
        self._check_header()
        self.sections = self._read_sections()
        self.section_names = self._read_section_names()
        self._symtab = self._find_symtab()
        self.symbols = self._read_symbols()
        self.shndx = self._read_section_indices()

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> ObjectFile:
        """Map and parse the file at ``path``."""
        name = os.fspath(path)
        try:
            with open(name, "rb", buffering=0, opener=_open) as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode):
                    raise BadObjectError("not a regular file", file=name, hint="name an object file")
                data: bytes | mmap.mmap
                # A small file is cheaper to read than to map (one system call against three and page faults).
                if status.st_size > _WORTH_MAPPING:
                    data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
                else:
                    data = file.read()
        except OSError as error:
            raise BadObjectError(error.strerror or str(error), file=name) from None
        except (ValueError, OverflowError) as error:  # a name with a NUL in it, a sparse file of 2^63 bytes
            raise BadObjectError(str(error), file=name) from None
        return cls(data, name)

    def release_pages(self) -> None:
        """Let the system have back the memory of what was read; it is read again should anybody look."""
        if isinstance(self._data, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            self._data.madvise(mmap.MADV_DONTNEED)

    def error(self, message: str, place: str | None = None, hint: str = _REBUILD) -> BadObjectError:
        """Make the error that names this file."""
        return BadObjectError(message, file=self.path, place=place, hint=hint)

    def _check_header(self) -> None:
        head = bytes(self._data[: min(_EHDR_SIZE, self.size)])
        if head[:4] in elf.BITCODE_MAGICS:
            raise self.error(
                "LLVM bitcode, not machine code",
                hint="under LTO the linked vmlinux.o and modules are compared",
            )
        if not head:
            raise self.error("empty file")
        if head[:8] in elf.ARCHIVE_MAGICS:
            raise self.error("an archive, not an object", hint="name the objects in it, or the build tree")
        if head[:4] != elf.ELF_MAGIC:
            raise self.error("not an ELF file")
        if len(head) < _EHDR_SIZE:
            raise self.error(f"truncated: {len(head)} bytes, an ELF header has {_EHDR_SIZE}")
        if head[4] != elf.ELFCLASS64:
            raise self.error("not a 64-bit object", hint="only 64-bit kernels are supported")
        if head[5] != elf.ELFDATA2LSB:
            raise self.error("not a little-endian object", hint="this architecture is not supported yet")
        if int.from_bytes(head[16:18], "little") != elf.ET_REL:
            raise self.error("not a relocatable object", hint="name the .o file, not the linked result")
        self.machine = int.from_bytes(head[18:20], "little")

    def _table(self, dtype: np.dtype[np.void], offset: int, count: int, what: str) -> NDArray[np.void]:
        end = offset + count * dtype.itemsize
        if offset < 0 or count < 0 or end > self.size:
            raise self.error(f"{what} ends at {end:#x}, the file at {self.size:#x}", hint=_REBUILD)
        return np.frombuffer(self._data, dtype, count, offset)

    def _read_sections(self) -> NDArray[np.void]:
        head = bytes(self._data[:_EHDR_SIZE])
        offset = int.from_bytes(head[40:48], "little")
        entry_size = int.from_bytes(head[58:60], "little")
        count = int.from_bytes(head[60:62], "little")
        if offset == 0:
            raise self.error("no section header table")
        if entry_size != SECTION_HEADER.itemsize:
            raise self.error(f"section header entries of {entry_size} bytes, not {SECTION_HEADER.itemsize}")
        if count == 0:  # gABI: the number stands in sh_size of section 0 when it is SHN_LORESERVE or more
            count = int(self._table(SECTION_HEADER, offset, 1, "section header 0")[0]["size"])
        return self._table(SECTION_HEADER, offset, count, "section header table")

    def _read_section_names(self) -> list[str]:
        head = bytes(self._data[:_EHDR_SIZE])
        index = int.from_bytes(head[62:64], "little")
        if index == elf.SHN_XINDEX and len(self.sections):
            index = int(self.sections[0]["link"])
        if index >= len(self.sections):
            raise self.error(f"section name table {index} does not exist")
        strings = self.section_bytes(index)
        names = []
        for start in self.sections["name"].tolist():
            end = strings.find(b"\0", start)
            if end < 0:
                raise self.error(f"section name at {start:#x} has no end", place="section header table")
            names.append(strings[start:end].decode("utf-8", "surrogateescape"))
        return names

    def section_bytes(self, index: int) -> bytes:
        """Return the content of one section (empty for SHT_NOBITS)."""
        header = self.sections[index]
        if header["type"] == elf.SHT_NOBITS:
            return b""
        start, size = int(header["offset"]), int(header["size"])
        if start + size > self.size:
            raise self.error(
                f"ends at {start + size:#x}, the file at {self.size:#x}",
                place=f"section {index}",
                hint=_REBUILD,
            )
        return bytes(self._data[start : start + size])

    def section_array(self, index: int) -> NDArray[np.uint8]:
        """Return the content of one section without copying it (read-only)."""
        header = self.sections[index]
        if header["type"] == elf.SHT_NOBITS:
            return np.empty(0, np.uint8)
        start, size = int(header["offset"]), int(header["size"])
        if start + size > self.size:
            raise self.error(
                f"ends at {start + size:#x}, the file at {self.size:#x}",
                place=f"section {self.section_names[index]}",
            )
        return np.frombuffer(self._data, np.uint8, size, start)

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

    def symbol_names_of(self, indices: list[int]) -> list[str]:
        """Return the names of some symbols."""
        return list(map(self._symbol_names.__getitem__, indices))

    @cached_property
    def _symbol_names(self) -> list[str]:
        """The names of all symbols.

        One decoding and one cutting for the whole string table: a kernel has 80,000 symbols. Linkers let names share
        their ends, so a name may start in the middle of a piece.
        """
        strings = self.symbol_strings or b"\0"
        offset = self.symbols["name"].astype(np.int64)
        ends = (np.frombuffer(strings, np.uint8) == 0).nonzero()[0]
        piece = np.searchsorted(ends, offset)
        if bool(np.any(piece == len(ends))):
            index = int((piece == len(ends)).nonzero()[0][0])
            raise self.error(f"name of symbol {index} has no end", place="symbol table")
        text = strings[: int(ends[-1])].decode("latin-1")  # an encoding that keeps offsets
        pieces = text.split("\0")
        skipped = offset.copy()
        skipped[piece > 0] -= ends[piece[piece > 0] - 1] + 1
        names = list(map(pieces.__getitem__, piece.tolist()))
        for index in skipped.nonzero()[0].tolist():
            names[index] = names[index][skipped[index] :]
        if not text.isascii():  # Rust; what is no UTF-8 either must survive being written and read again
            names = [name.encode("latin-1").decode("utf-8", "surrogateescape") for name in names]
        return names

    def _read_section_indices(self) -> NDArray[np.int64]:
        shndx = self.symbols["shndx"].astype(np.int64)
        extended = np.flatnonzero(shndx == elf.SHN_XINDEX)
        if len(extended):
            tables = np.flatnonzero(
                (self.sections["type"] == elf.SHT_SYMTAB_SHNDX) & (self.sections["link"] == self._symtab)
            )
            if not len(tables):
                raise self.error("symbols use SHN_XINDEX, but there is no SHT_SYMTAB_SHNDX", place="symbol table")
            header = self.sections[int(tables[0])]
            dtype = np.dtype([("index", "u4")])
            count = int(header["size"]) // 4
            if count < len(shndx):
                raise self.error("extended section indices are fewer than symbols", place="symbol table")
            table = self._table(dtype, int(header["offset"]), count, "extended section indices")
            shndx[extended] = table["index"][extended]
        real = (shndx < elf.SHN_LORESERVE) | np.isin(np.arange(len(shndx)), extended)
        if bool(np.any(shndx[real] >= len(self.sections))):
            raise self.error("a symbol names a section that does not exist", place="symbol table")
        # Reserved indices become negative so that they never collide with real sections beyond 0xff00.
        shndx[~real] -= 0x10000
        return shndx

    def relocations(self, sections: NDArray[np.int64]) -> Relocations:
        """Return the relocations that apply to ``sections``, in the order of these."""
        position = np.full(len(self.sections), -1, np.int64)
        position[sections] = np.arange(len(sections))
        pieces: list[NDArray[np.uint8]] = []
        targets: list[int] = []
        counts: list[int] = []
        types = self.sections["type"]
        chosen = ((types == elf.SHT_RELA) | (types == elf.SHT_REL)).nonzero()[0]
        applies_to = np.minimum(self.sections["info"][chosen], len(position) - 1)
        chosen = chosen[np.argsort(position[applies_to], kind="stable")]
        headers = self.sections[chosen]
        for index, kind, target, size, entry_size in zip(
            chosen.tolist(),
            headers["type"].tolist(),
            headers["info"].tolist(),
            headers["size"].tolist(),
            headers["entsize"].tolist(),
            strict=True,
        ):
            if target >= len(self.sections):
                raise self.error(f"applies to section {target}, which does not exist", self._place(index))
            if position[target] < 0:
                continue
            if kind == elf.SHT_REL:
                raise self.error("SHT_REL relocations", self._place(index), "this architecture is not supported")
            if entry_size != RELA.itemsize or size % RELA.itemsize:
                raise self.error("entry size is not that of Elf64_Rela", self._place(index))
            pieces.append(self.section_array(index))
            targets.append(target)
            counts.append(size // RELA.itemsize)
        # Joined as bytes: joining structured arrays makes numpy compare their fields one by one.
        rows = (np.concatenate(pieces) if pieces else np.empty(0, np.uint8)).view(RELA)
        section = np.repeat(np.array(targets, np.int32), counts)
        symbol = rows["symbol"].astype(np.int64)
        offset = rows["offset"].astype(np.int64)
        if bool(np.any(symbol >= len(self.symbols))):
            raise self.error("a relocation names a symbol that does not exist", place="relocations")
        if bool(np.any(offset >= self.sections["size"][section].astype(np.int64))) or bool(np.any(offset < 0)):
            raise self.error("a relocation lies outside its section", place="relocations")
        return Relocations(section, offset, rows["type"].astype(np.int32), symbol, rows["addend"].astype(np.int64))

    def _place(self, index: int) -> str:
        return f"section {self.section_names[index]}"
