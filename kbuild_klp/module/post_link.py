# SPDX-License-Identifier: GPL-2.0-only
"""Relocations that the livepatch loader is to apply, moved to where it looks for them.

A relocation to a livepatch symbol goes from `.rela.SECTION` to `.klp.rela.OBJECT.SECTION`, where OBJECT is vmlinux or
the module that is to be there first, and the symbol says so by its section index
(Documentation/livepatch/module-elf-format.rst). Nothing that the linker wrote is moved: tables shrink where they are,
and what is new stands at the end.
"""

from __future__ import annotations

import struct
from collections import defaultdict

import numpy as np

from kbuild_klp.elf import constants as elf
from kbuild_klp.elf.reader import RELA, RELA_SIZE, SYMBOL, ObjectFile, encoded
from kbuild_klp.errors import BadObjectError
from kbuild_klp.kernel.tree import VMLINUX
from kbuild_klp.module.livepatch_elf import (
    BELONGS,
    RELOCATION_FLAGS,
    RELOCATIONS,
    SHN_LIVEPATCH,
    LivepatchSymbol,
    livepatch_symbol,
)

_SHDR = "IIQQQQIIQQ"  # Elf64_Shdr


class _File:
    """The module as it grows: bytes, and its section headers."""

    def __init__(self, file: ObjectFile, data: bytes) -> None:
        self.order = "<" if file.byteorder == "little" else ">"
        self.data = bytearray(data)
        self.headers = [[int(value) for value in row] for row in file.sections.tolist()]
        self.string_section = struct.unpack_from(f"{self.order}H", self.data, 62)[0]

    def add(self, data: bytes) -> int:
        """Append bytes at a place that is aligned to 8; returns where."""
        self.data += bytes(-len(self.data) % 8)
        self.data += data
        return len(self.data) - len(data)

    def grow(self, section: int, extra: bytes) -> int:
        """Write a section anew at the end, with more behind it; returns its old size."""
        offset, size = self.headers[section][4:6]
        self.headers[section][4] = self.add(bytes(self.data[offset : offset + size]) + extra)
        self.headers[section][5] = size + len(extra)
        return size

    def finish(self) -> bytes:
        """Return the file, with the section headers at its end."""
        at = self.add(b"".join(struct.pack(self.order + _SHDR, *row) for row in self.headers))
        struct.pack_into(f"{self.order}Q", self.data, 40, at)
        struct.pack_into(f"{self.order}H", self.data, 60, len(self.headers))
        return bytes(self.data)


def post_link(data: bytes, path: str) -> bytes:
    """Return a module with its livepatch relocations in place; raises BadObjectError, which names ``path``."""
    file = ObjectFile(data, path)
    out = _File(file, data)
    symtab = int(np.flatnonzero(file.sections["type"] == elf.SHT_SYMTAB)[0])
    symbols = {
        index: found
        for index in range(1, len(file.symbols))
        if (found := LivepatchSymbol.parse(file.symbol_name(index))) is not None
    }
    _mark_symbols(out, file, symtab, symbols)
    tables = _split_tables(out, file, symbols)
    if len(out.headers) + len(tables) >= elf.SHN_LORESERVE:
        raise BadObjectError("more sections than an object can number", file=file.path, hint="take fewer functions")
    texts = (f"{RELOCATIONS}{home}.{file.section_names[section]}" for home, section in tables)
    names = [encoded(text) + b"\0" for text in texts]
    name = out.grow(out.string_section, b"".join(names))
    for (_, section), rows, text in zip(tables, tables.values(), names, strict=True):
        at = out.add(rows)
        out.headers.append([name, elf.SHT_RELA, RELOCATION_FLAGS, 0, at, len(rows), symtab, section, 8, RELA_SIZE])
        name += len(text)
    return out.finish()


def _mark_symbols(out: _File, file: ObjectFile, symtab: int, symbols: dict[int, LivepatchSymbol]) -> None:
    """Say of each livepatch symbol that it is one; what its name was lengthened by goes."""
    extra = bytearray()
    strings = int(file.sections["link"][symtab])
    size = int(file.sections["size"][strings])
    for index, symbol in symbols.items():
        at = int(file.sections["offset"][symtab]) + index * SYMBOL.itemsize
        if BELONGS in file.symbol_name(index):
            struct.pack_into(f"{out.order}I", out.data, at, size + len(extra))
            text = livepatch_symbol(symbol.object, symbol.name, symbol.position)
            extra += encoded(text) + b"\0"
        struct.pack_into(f"{out.order}H", out.data, at + 6, SHN_LIVEPATCH)
    if extra:
        out.grow(strings, bytes(extra))


def _split_tables(out: _File, file: ObjectFile, symbols: dict[int, LivepatchSymbol]) -> dict[tuple[str, int], bytes]:
    """Take livepatch relocations out of their tables; returns them by object and the section that they are for."""
    found: dict[tuple[str, int], bytes] = defaultdict(bytes)
    for table in np.flatnonzero(file.sections["type"] == elf.SHT_RELA).tolist():
        header = file.sections[table]
        rows = np.frombuffer(file.section_bytes(table), RELA[file.byteorder])
        is_livepatch = np.isin(rows["symbol"], list(symbols))
        section = int(header["info"])
        if not is_livepatch.any() or not file.sections["flags"][section] & elf.SHF_ALLOC:
            continue
        homes = np.array([symbols[symbol].home if symbol in symbols else "" for symbol in rows["symbol"].tolist()])
        for home in dict.fromkeys(homes[is_livepatch].tolist()):
            found[home, section] += rows[homes == home].tobytes()
        kept = rows[~is_livepatch].tobytes()
        offset, size = int(header["offset"]), int(header["size"])
        out.data[offset : offset + size] = kept + bytes(size - len(kept))
        out.headers[table][5] = len(kept)
    # Those of vmlinux first: the order in which they are applied.
    return dict(sorted(found.items(), key=lambda it: (it[0][0] != VMLINUX, it[0])))
