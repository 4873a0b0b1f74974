# SPDX-License-Identifier: GPL-2.0-only
"""Writes one relocatable ELF64 object, in either byte order (gABI chapters 4 and 5)."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from kbuild_klp.containers.replacing import replacing
from kbuild_klp.elf import constants as elf
from kbuild_klp.elf.reader import RELA_SIZE, SECTION_HEADER, SYMBOL, encoded
from kbuild_klp.errors import KlpError, system_errors

_HEADER_SIZE = 64
_WORD = (1 << 64) - 1
_HINT = "give another -o FILE"


class OutputRelocation(NamedTuple):
    """A relocation of the section in whose list it stands: ``place`` in it (bytes) and ``type`` of the psABI."""

    place: int
    type: int
    symbol: OutputSymbol
    addend: int = 0


@dataclass(eq=False)
class OutputSection:
    """A section; ``relocations`` are written in the order of the list.

    Of ``data`` of SHT_NOBITS nothing but the size is written; ``link`` is the section that SHF_LINK_ORDER binds it to.
    """

    name: str
    flags: int
    entry_size: int = 0
    type: int = elf.SHT_PROGBITS
    align: int = 8
    data: bytearray = field(default_factory=bytearray)
    relocations: list[OutputRelocation] = field(default_factory=list)
    link: OutputSection | None = None


@dataclass(eq=False)
class OutputSymbol:
    """A symbol; ``section`` is None for one that is undefined, that of a file, and one whose ``value`` is absolute.

    ``other`` is st_other: its visibility.
    """

    name: str
    section: OutputSection | None = None
    value: int = 0
    size: int = 0
    type: int = elf.STT_NOTYPE
    binding: int = elf.STB_LOCAL
    other: int = 0
    is_absolute: bool = False


class _Row(NamedTuple):
    """What stands in a section's header, but for its place, and the content."""

    name: str
    type: int = elf.SHT_NULL
    flags: int = 0
    link: int = 0
    info: int = 0
    align: int = 1
    entry_size: int = 0
    data: bytes = b""


class _Strings:
    """A string table that grows."""

    def __init__(self) -> None:
        self.data = bytearray(1)

    def add(self, text: str) -> int:
        """Append a string, and return where it stands."""
        at = len(self.data) if text else 0
        self.data += encoded(text) + b"\0" if text else b""
        return at


def _symbol_table(
    order: str, symbols: Sequence[OutputSymbol], numbers: dict[OutputSection, int], strings: _Strings
) -> bytes:
    table = bytearray(SYMBOL.itemsize)
    for symbol in symbols:
        shndx = elf.SHN_ABS if symbol.type == elf.STT_FILE or symbol.is_absolute else elf.SHN_UNDEF
        if symbol.section is not None:
            shndx = numbers[symbol.section]
        info = symbol.binding << 4 | symbol.type
        row = strings.add(symbol.name), info, symbol.other, shndx, symbol.value & _WORD, symbol.size
        table += struct.pack(order + "IBBHQQ", *row)
    return bytes(table)


def write_object(
    machine: int,
    byteorder: Literal["little", "big"],
    sections: Sequence[OutputSection],
    symbols: Iterable[OutputSymbol],
) -> bytes:
    """Return an object with some sections, in this order, and symbols, the local ones first (gABI, "Symbol Table").

    Raises KlpError for as many sections as only an extended index could number.
    """
    order = "<" if byteorder == "little" else ">"
    ordered = sorted(symbols, key=lambda symbol: symbol.binding != elf.STB_LOCAL)
    count_local = sum(symbol.binding == elf.STB_LOCAL for symbol in ordered)
    symbol_number = {symbol: number for number, symbol in enumerate(ordered, 1)}
    section_number = {section: number for number, section in enumerate(sections, 1)}
    strings = _Strings()
    table = _symbol_table(order, ordered, section_number, strings)

    relocated = [section for section in sections if section.relocations]
    symtab = 1 + len(sections) + len(relocated)
    if symtab + 3 >= elf.SHN_LORESERVE:
        raise KlpError(f"{symtab + 3} sections are more than an object can number", hint="take fewer functions")
    rows = [_Row("")]
    for section in sections:
        link = section_number[section.link] if section.link is not None else 0
        own = section.name, section.type, section.flags, link, 0, section.align, section.entry_size
        rows.append(_Row(*own, bytes(section.data)))
    for section in relocated:
        data = b"".join(
            struct.pack(order + "QQq", row.place, symbol_number[row.symbol] << 32 | row.type, row.addend)
            for row in section.relocations
        )
        heads = symtab, section_number[section], 8, RELA_SIZE
        rows.append(_Row(f".rela{section.name}", elf.SHT_RELA, elf.SHF_INFO_LINK, *heads, data))
    heads = symtab + 1, count_local + 1, 8, SYMBOL.itemsize
    rows.append(_Row(".symtab", elf.SHT_SYMTAB, 0, *heads, table))
    rows.append(_Row(".strtab", elf.SHT_STRTAB, data=bytes(strings.data)))
    return _joined(machine, byteorder, rows)


def _joined(machine: int, byteorder: Literal["little", "big"], rows: list[_Row]) -> bytes:
    """Return the file: header, contents each at its alignment, section headers."""
    order = "<" if byteorder == "little" else ">"
    names = _Strings()
    offsets = [names.add(name) for name in (*(row.name for row in rows), ".shstrtab")]
    rows = [*rows, _Row(".shstrtab", elf.SHT_STRTAB, data=bytes(names.data))]
    content = bytearray(_HEADER_SIZE)
    headers = bytearray()
    for name, row in zip(offsets, rows, strict=True):
        if row.type != elf.SHT_NULL:
            content += bytes(-len(content) % max(row.align, 1))
        place = 0 if row.type == elf.SHT_NULL else len(content)
        content += row.data if row.type != elf.SHT_NOBITS else b""
        align = 0 if row.type == elf.SHT_NULL else row.align
        fields = name, row.type, row.flags, 0, place, len(row.data), row.link, row.info, align, row.entry_size
        headers += struct.pack(order + "IIQQQQIIQQ", *fields)
    content += bytes(-len(content) % 8)
    data_encoding = elf.ELFDATA2LSB if byteorder == "little" else elf.ELFDATA2MSB
    ident = elf.ELF_MAGIC + bytes((elf.ELFCLASS64, data_encoding, 1))
    sizes = _HEADER_SIZE, 0, 0, SECTION_HEADER.itemsize, len(rows), len(rows) - 1
    head = struct.pack(order + "16sHHIQQQIHHHHHH", ident, elf.ET_REL, machine, 1, 0, 0, len(content), 0, *sizes)
    return head + bytes(content[_HEADER_SIZE:]) + bytes(headers)


def remove_old(output: str) -> None:
    """Remove what `write_whole` is to take the place of: what was made another time is no answer to this one.

    Raises KlpError for what is no file (/dev/null), and where none can be written: better before all work than after.
    """
    target = Path(output)
    with system_errors(output, _HINT):
        target.parent.stat()
        if target.exists() and not target.is_file():
            raise KlpError("not a regular file", file=output, hint=_HINT)
        target.unlink(missing_ok=True)


def write_whole(output: str, data: bytes) -> None:
    """Write a file whole or not at all, and leave nothing else behind whenever we are killed; raises KlpError.

    Until it is complete, the file has no name (O_TMPFILE); where the file system knows no such thing, a temporary one.
    """
    target = Path(output)
    with system_errors(output, _HINT):
        try:
            file = os.open(target.parent, os.O_TMPFILE | os.O_WRONLY, 0o666)
        except OSError:
            with replacing(target) as temporary:
                temporary.write_bytes(data)
            return
        with open(file, "wb") as stream:
            stream.write(data)
            stream.flush()
            target.unlink(missing_ok=True)
            # With a directory that does not matter: only linkat() follows the link (proc(5), open(2) on O_TMPFILE).
            os.link(f"/proc/self/fd/{file}", target, src_dir_fd=file, follow_symlinks=True)
