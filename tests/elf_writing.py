# SPDX-License-Identifier: GPL-2.0-only
"""Relocatable ELF64 objects in either byte order, for machines of which there is no assembler at hand."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Literal, NamedTuple

from kbuild_klp.elf import constants as elf

_HEADER_SIZE = 64


class Relocation(NamedTuple):
    """A relocation of the section in whose list it stands."""

    place: int
    type: int
    symbol: Symbol
    addend: int = 0


@dataclass(eq=False)
class Section:
    """A section with content; ``relocations`` are written in the order of the list."""

    name: str
    flags: int
    entry_size: int = 0
    type: int = elf.SHT_PROGBITS
    align: int = 8
    data: bytearray = field(default_factory=bytearray)
    relocations: list[Relocation] = field(default_factory=list)


@dataclass(eq=False)
class Symbol:
    """A symbol; ``section`` is None for one that is undefined, and for that of a file."""

    name: str
    section: Section | None = None
    value: int = 0
    size: int = 0
    type: int = elf.STT_NOTYPE
    binding: int = elf.STB_LOCAL


class _Row(NamedTuple):
    """What stands in a section's header, but for its place and its size, and the content."""

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
        self.data = b"\0"

    def add(self, text: str) -> int:
        """Append a string, and return where it stands."""
        at = len(self.data) if text else 0
        self.data += text.encode() + b"\0" if text else b""
        return at


def write_object(
    machine: int, byteorder: Literal["little", "big"], sections: Sequence[Section], symbols: Iterable[Symbol]
) -> bytes:
    """Return an object with some sections, in this order, and symbols, the local ones first (gABI, "Symbol Table")."""
    order = "<" if byteorder == "little" else ">"
    ordered = sorted(symbols, key=lambda symbol: symbol.binding != elf.STB_LOCAL)
    count_local = sum(symbol.binding == elf.STB_LOCAL for symbol in ordered)
    symbol_number = {symbol: number for number, symbol in enumerate(ordered, 1)}
    section_number = {section: number for number, section in enumerate(sections, 1)}

    strings, table = _Strings(), bytes(24)
    for symbol in ordered:
        outside = elf.SHN_ABS if symbol.type == elf.STT_FILE else elf.SHN_UNDEF
        shndx = outside if symbol.section is None else section_number[symbol.section]
        fields = strings.add(symbol.name), symbol.binding << 4 | symbol.type, 0, shndx, symbol.value, symbol.size
        table += struct.pack(order + "IBBHQQ", *fields)

    relocated = [section for section in sections if section.relocations]
    symtab = 1 + len(sections) + len(relocated)
    rows = [_Row("")]
    for section in sections:
        align, data = section.align, bytes(section.data)
        rows.append(_Row(section.name, section.type, section.flags, 0, 0, align, section.entry_size, data))
    for section in relocated:
        data = b"".join(
            struct.pack(order + "QQq", row.place, symbol_number[row.symbol] << 32 | row.type, row.addend)
            for row in section.relocations
        )
        link, info = symtab, section_number[section]
        rows.append(_Row(f".rela{section.name}", elf.SHT_RELA, elf.SHF_INFO_LINK, link, info, 8, 24, data))
    rows.append(_Row(".symtab", elf.SHT_SYMTAB, 0, symtab + 1, count_local + 1, 8, 24, table))
    rows.append(_Row(".strtab", elf.SHT_STRTAB, data=strings.data))
    section_names = _Strings()
    names = [section_names.add(name) for name in (*(row.name for row in rows), ".shstrtab")]
    rows.append(_Row(".shstrtab", elf.SHT_STRTAB, data=section_names.data))

    *places, end = accumulate((len(row.data) for row in rows), initial=_HEADER_SIZE)
    headers = b"".join(
        struct.pack(
            order + "IIQQQQIIQQ",
            *(name, row.type, row.flags, 0, place, len(row.data), row.link, row.info, row.align, row.entry_size),
        )
        for name, place, row in zip(names, places, rows, strict=True)
    )
    ident = elf.ELF_MAGIC + bytes((elf.ELFCLASS64, elf.ELFDATA2LSB if byteorder == "little" else elf.ELFDATA2MSB, 1))
    sizes = _HEADER_SIZE, 0, 0, 64, len(rows), len(rows) - 1
    head = struct.pack(order + "16sHHIQQQIHHHHHH", ident, elf.ET_REL, machine, 1, 0, 0, end, 0, *sizes)
    return b"".join((head, *(row.data for row in rows), headers))
