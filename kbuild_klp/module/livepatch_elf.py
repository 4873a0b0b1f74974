# SPDX-License-Identifier: GPL-2.0-only
"""What the ELF file of a livepatch has that other modules have not (Documentation/livepatch/module-elf-format.rst).

A livepatch symbol is called `.klp.sym.OBJECT.NAME,POSITION`, and kernel/livepatch/core.c (klp_resolve_symbols) looks it
up in kallsyms: OBJECT is vmlinux or a module, POSITION counts among the symbols of the name from 1, and 0 says that
there is one only. Its relocations stand in sections of their own, `.klp.rela.OBJECT.SECTION`, which are applied when
OBJECT is there.
"""

from __future__ import annotations

from typing import NamedTuple

from kbuild_klp.elf import constants as elf
from kbuild_klp.elf.reader import ObjectFile
from kbuild_klp.errors import BadObjectError

SHF_RELA_LIVEPATCH = 0x00100000  # include/uapi/linux/elf.h
SHN_LIVEPATCH = 0xFF20
RELOCATIONS = ".klp.rela."
RELOCATION_FLAGS = elf.SHF_ALLOC | elf.SHF_INFO_LINK | SHF_RELA_LIVEPATCH
_SYMBOL = ".klp.sym."
BELONGS = "@"
"""Stands before the unit with which a symbol of another one is resolved; `post_link` takes it away."""


def module_name(unit: str) -> str:
    """Return what the kernel calls a unit: dashes of a module are underscores (scripts/Makefile.lib, name-fix)."""
    return unit.replace("-", "_")


def livepatch_symbol(unit: str, name: str, position: int) -> str:
    """Return what the livepatch loader looks up: a symbol of a unit, and its position."""
    return f"{_SYMBOL}{module_name(unit)}.{name},{position}"


class LivepatchSymbol(NamedTuple):
    """A livepatch symbol taken apart; ``home`` is the object whose relocation section it belongs to."""

    object: str
    name: str
    position: int
    home: str

    @classmethod
    def parse(cls, text: str) -> LivepatchSymbol | None:
        """Read a symbol's name; None for one that is no livepatch symbol."""
        if not text.startswith(_SYMBOL):
            return None
        spelled, _, belongs = text.partition(BELONGS)
        known, _, rest = spelled.removeprefix(_SYMBOL).partition(".")
        name, _, position = rest.rpartition(",")
        if not (known and name and position.isdecimal() and position.isascii()):
            return None
        return cls(known, name, int(position), belongs or known)


def wrong_module(module: ObjectFile, what: str, place: str | None = None) -> BadObjectError:
    """Make the error about a finished module that is not what it has to be: the fault is ours."""
    return module.error(f"the module is wrong: {what}", place, hint="report it")
