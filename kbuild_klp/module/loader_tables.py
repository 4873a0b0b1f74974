# SPDX-License-Identifier: GPL-2.0-only
"""The tables of a finished module that the livepatch loader applies, read back as the kernel reads them.

Their names say when: `.klp.rela.OBJECT.SECTION` when OBJECT is there. The rules are those of klp_write_section_relocs
and klp_resolve_symbols in kernel/livepatch/core.c: only livepatch symbols, and in a table of a module none of vmlinux.
Everything else is the module loader's, which knows no livepatch symbol.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kbuild_klp.elf import constants as elf
from kbuild_klp.elf.reader import RELA, RELA_SIZE, ObjectFile
from kbuild_klp.errors import BadObjectError
from kbuild_klp.kernel.tree import VMLINUX
from kbuild_klp.module.livepatch_elf import (
    RELOCATION_FLAGS,
    RELOCATIONS,
    SHF_RELA_LIVEPATCH,
    SHN_LIVEPATCH,
    LivepatchSymbol,
    wrong_module,
)


class LoaderTable(NamedTuple):
    """The places in ``section`` that are relocated when ``home`` (vmlinux or a module) is there."""

    home: str
    section: int
    places: list[int]


def loader_tables(module: ObjectFile) -> list[LoaderTable]:
    """Return the tables of the livepatch loader; raises BadObjectError where the kernel would not apply one.

    None for an object that is not finished: its livepatch symbols are not marked yet.
    """
    found = []
    for table in np.flatnonzero(module.sections["type"] == elf.SHT_RELA).tolist():
        rows = np.frombuffer(module.section_bytes(table), RELA[module.byteorder])
        if len(rows) and int(rows["symbol"].max()) >= len(module.symbols):
            raise _wrong(module, table, "a relocation names a symbol that does not exist")
        is_livepatch = module.symbols["shndx"][rows["symbol"]] == SHN_LIVEPATCH
        name, section = module.section_names[table], int(module.sections["info"][table])
        if not name.startswith(RELOCATIONS) and not int(module.sections["flags"][table]) & SHF_RELA_LIVEPATCH:
            if is_livepatch.any():
                raise _wrong(module, table, "it has a relocation for the livepatch loader")
            continue
        home = name.removeprefix(RELOCATIONS).partition(".")[0]
        if not is_livepatch.all():
            raise _wrong(module, table, "it has a relocation that is not for the livepatch loader")
        if not _is_whole(module, table) or name != f"{RELOCATIONS}{home}.{module.section_names[section]}":
            raise _wrong(module, table, "its header is not one of the livepatch loader")
        if any(symbol.object == VMLINUX != home for symbol in _symbols(module, table, rows["symbol"])):
            raise _wrong(module, table, "it needs a symbol of vmlinux")
        found.append(LoaderTable(home, section, rows["offset"].tolist()))
    return found


def _is_whole(module: ObjectFile, table: int) -> bool:
    """Say whether the header is as module-elf-format.rst wants it."""
    header = module.sections[table]
    is_table = header["flags"] == RELOCATION_FLAGS and header["entsize"] == RELA_SIZE and header["size"] > 0
    symtab = int(header["link"])
    is_linked = symtab < len(module.sections) and module.sections["type"][symtab] == elf.SHT_SYMTAB
    section = int(header["info"])
    has_target = 0 < section < len(module.sections) and bool(module.sections["flags"][section] & elf.SHF_ALLOC)
    return bool(is_table and is_linked and has_target)


def _symbols(module: ObjectFile, table: int, numbers: NDArray[np.uint32]) -> list[LivepatchSymbol]:
    found = [LivepatchSymbol.parse(module.symbol_name(number)) for number in np.unique(numbers).tolist()]
    if None in found:
        raise _wrong(module, table, "it has a symbol whose name the livepatch loader cannot read")
    return [symbol for symbol in found if symbol is not None]


def _wrong(module: ObjectFile, table: int, what: str) -> BadObjectError:
    return wrong_module(module, what, module.section_names[table])
