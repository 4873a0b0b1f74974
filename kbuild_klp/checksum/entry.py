# SPDX-License-Identifier: GPL-2.0-only
"""What a checksum is of: one function, one variable, or what is left of a section."""

from __future__ import annotations

from typing import NamedTuple

from xxhash import xxh3_64_hexdigest

from kbuild_klp.elf.symbol_names import canonical_name
from kbuild_klp.object.symbol_id import SymbolId

KIND_FUNCTION = "function"
KIND_DATA = "data"
KIND_SECTION = "section"

_OWN_SECTIONS = (".text.", ".data.", ".rodata.", ".bss.")


def short_hash(data: bytes) -> str:
    """Return the short hash by which a component is compared, "-" for nothing."""
    return xxh3_64_hexdigest(data)[8:] if data else "-"


class Components(NamedTuple):
    """The short hashes of an entry ("-": there is none), which say what kind of change a change is."""

    attributes: str
    data: str
    references: str
    special: str


class Entry(NamedTuple):
    """One line of a checksum file.

    ``kind`` function, data or section; ``symbol`` which one of the object (for a section: its name); ``section`` where
    it lies (for a section: see `place`); ``size`` in
    bytes; ``checksum`` 32 hexadecimal digits; ``components`` four short hashes joined by dots; ``lines`` a short hash
    of the line numbers in special sections (empty: none); ``uses`` the symbols to which it refers whose names do not
    say which one is meant (a compiler's number was in it, or several have it), in the order of first use; ``aliases``
    its other names, sorted.
    """

    kind: str
    symbol: SymbolId
    section: str
    size: int
    checksum: str
    components: str
    lines: str = ""
    uses: tuple[SymbolId, ...] = ()
    aliases: tuple[SymbolId, ...] = ()

    @property
    def name(self) -> str:
        """What ELF calls it: for people, and for what goes by names. It may not be the only one of that name."""
        return self.symbol.name

    @property
    def part_symbol(self) -> SymbolId | None:
        """The symbol whose part it is; None for a section, which has a name only."""
        return None if self.kind == KIND_SECTION else self.symbol

    @property
    def home(self) -> str:
        """The section, without the name of the symbol that -ffunction-sections and -fdata-sections append.

        The linker puts .text.foo where it puts .text (TEXT_MAIN, DATA_MAIN and so on in
        include/asm-generic/vmlinux.lds.h).
        """
        if self.kind != KIND_SECTION and self.section.startswith(_OWN_SECTIONS) and ".." not in self.section:
            for name in (self.name, canonical_name(self.name).text, *(alias.name for alias in self.aliases)):
                if self.section.endswith(f".{name}"):
                    return self.section.removesuffix(f".{name}")
        return self.section

    @property
    def place(self) -> dict[str, str]:
        """What is known of a section itself: ``align`` in bytes, and short hashes of ``order`` and ``layout``.

        ``order`` is that of the symbols where it means something; ``layout`` has the sizes of all variables and, behind
        a dot, where they lie. It is not there where parts without a name can move them.
        """
        return dict(word.split("=", 1) for word in self.section.split(" ") if "=" in word)

    def split_components(self) -> Components:
        """Return the short hashes one by one."""
        return Components(*self.components.split("."))
