# SPDX-License-Identifier: GPL-2.0-only
"""The extracted object: where each carried piece goes, and its relocations written again.

Each function is a section of its own, aligned as it was, with the padding before it that belongs to it; what else is
carried stays in a section of the name that it had.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from kbuild_klp.elf import constants as elf
from kbuild_klp.elf.writer import OutputRelocation, OutputSection, OutputSymbol, write_object
from kbuild_klp.extract.needed import Needed
from kbuild_klp.extract.pieces import Goal, Piece, TakenEntry
from kbuild_klp.extract.relocated import WrittenReference
from kbuild_klp.extract.side_tables import SideEntry, header_section
from kbuild_klp.object.parts import NAMED

_DROPPED_FLAGS = elf.SHF_GROUP | elf.SHF_INFO_LINK | elf.SHF_LINK_ORDER


# Read once, while the module is loaded. objtool knows the name (validate_ibt in tools/objtool/check.c): a function that
# stands there need not begin with ENDBR, for ftrace comes to it by a return.
TABLE = ".init.klp_funcs"
# Callbacks are called by their address, so objtool shall see that somebody has it.
CALLBACKS = ".init.klp_callbacks"


class Spot(NamedTuple):
    """Where a piece went: its section, and the offset there of the piece's first byte."""

    section: OutputSection
    offset: int


class _Range(NamedTuple):
    low: int
    high: int


class LaidOut:
    """The object in the making; ``count`` is how many relocations it has.

    ``spelled`` says how undefined symbols are written that are not to be written as the old object has them. ``table``
    is the name of an array of the addresses of all functions that take the place of old ones (`Needed.patched`), for
    code that is compiled apart, and with `_callbacks` behind it of one of the callbacks; none where it is empty.
    ``named`` are special sections that such code looks at: each has a symbol, ``table`` and its own name.
    """

    def __init__(
        self,
        needed: Needed,
        side: Iterable[SideEntry],
        spelled: Mapping[str, str] | None = None,
        table: str = "",
        named: Sequence[str] = (),
    ) -> None:
        self._needed = needed
        self.spelled = spelled or {}
        self.tables: list[tuple[OutputSection, Sequence[int]]] = []
        self._view = needed.view
        self._parts = needed.parts
        self.sections: list[OutputSection] = []
        self.spots: dict[int, Spot] = {}
        self._shared: dict[tuple[str, OutputSection | None], OutputSection] = {}
        self.symbols: list[OutputSymbol] = []
        self.named: list[OutputSymbol] = []
        """Those of tables, the two of addresses and the ones that were to be named."""
        self._heads: dict[int, OutputSymbol] = {}
        self._outside: dict[str, OutputSymbol] = {}
        self._of_sections: dict[OutputSection, OutputSymbol] = {}
        self._place_code()
        self._place_data()
        entries = sorted(needed.entries, key=lambda entry: entry.low)
        for entry in entries:
            self._place_entry(entry)
        for piece in needed.pieces.values():
            self._relocate_piece(piece)
        for entry in entries:
            spot = self.spots[entry.low]
            for reference in needed.relocated.between(entry.low, entry.high):
                self._relocate(spot.section, spot.offset + reference.place - entry.low, reference)
        side = list(side)
        for note in side:
            self._add_side(note)
        self._add_header(side)
        if table:
            self._add_table(TABLE, table, [main for main, _ in needed.patched])
            self._add_table(CALLBACKS, f"{table}_callbacks", [callback.part for callback in needed.callbacks])
        self.named += (
            OutputSymbol(f"{table}_{name}", section, 0, len(section.data), elf.STT_OBJECT, elf.STB_GLOBAL)
            for (name, _), section in self._shared.items()
            if name in named
        )
        self.symbols += self.named
        self.count = sum(len(section.relocations) for section in self.sections)

    def file(self) -> bytes:
        """Return the object."""
        view = self._view
        files = (view.object.symbols["info"] & 0xF == elf.STT_FILE).nonzero()[0].tolist()
        names = {view.object.symbol_name(symbol) for symbol in files}
        source = [OutputSymbol(name, type=elf.STT_FILE) for name in names if len(names) == 1]
        symbols = [*source, *self._of_sections.values(), *self.symbols, *self._outside.values()]
        return write_object(view.object.machine, view.architecture.byteorder, self.sections, symbols)

    # -- places -----------------------------------------------------------------------------------------------------

    def _new_section(self, name: str, like: int, align: int = 0, link: OutputSection | None = None) -> OutputSection:
        """Return a new section as one of the object is, with other alignment or a link."""
        header = self._view.object.sections[like]
        flags = int(header["flags"]) & ~_DROPPED_FLAGS | (elf.SHF_LINK_ORDER if link else 0)
        section = OutputSection(
            name,
            flags,
            int(header["entsize"]),
            int(header["type"]),
            align or max(int(header["align"]), 1),
            link=link,
        )
        self.sections.append(section)
        return section

    def _shared_section(self, name: str, like: int, link: OutputSection | None = None) -> OutputSection:
        """Return the section of a name (and link), made when it is first asked for."""
        if (name, link) not in self._shared:
            self._shared[name, link] = self._new_section(name, like, link=link)
        return self._shared[name, link]

    def _alignment(self, low: int, section: int) -> int:
        """Return how a place is aligned: no better than its section, and as its offset says."""
        offset = low - int(self._view.canonical.image.base[section])
        align = max(int(self._view.object.sections["align"][section]), 1)
        return min(align, offset & -offset) if offset else align

    def _place_code(self) -> None:
        needed = self._needed
        code = [piece for piece in needed.pieces.values() if self._view.is_code(piece.part)]
        named = [piece for piece in code if self._parts.kind[piece.part] == NAMED]
        for chain in _chains(sorted(named)):
            section = self._code_section(chain)
            for piece in chain:
                self._append(section, piece, len(section.data))
            section.data += b"".join(it.code for it in needed.landings_of(chain[-1]))
        for piece in sorted(set(code) - set(named)):
            number = int(self._parts.section[piece.part])
            shared = self._shared_section(self._view.object.section_names[number], number)
            self._pad(shared, self._alignment(piece.low, number))
            self._append(shared, piece, len(shared.data))

    def _code_section(self, chain: list[Piece]) -> OutputSection:
        """Return a new section for a function and what stands before it, with padding that keeps it aligned."""
        piece = next((it for it in chain if it.part == it.need), chain[-1])
        number = int(self._parts.section[piece.part])
        old, name = self._view.object.section_names[number], self._view.part_name(piece.part)
        where = ".text.unlikely." if piece.part != piece.need or old.startswith(".text.unlikely") else ".text."
        start = int(self._parts.start[piece.part])
        align = self._alignment(start, number)
        section = self._new_section(where + name if old.startswith(".text") else old, number, align)
        section.data += self._view.architecture.filler * ((chain[0].low - start) % align)
        return section

    def _append(self, section: OutputSection, piece: Piece, offset: int) -> None:
        self.spots[piece.low] = Spot(section, offset)
        section.data += self._needed.original(int(self._parts.section[piece.part]), piece.low, piece.high)
        self._name(piece.part, section, offset - piece.low)

    def _pad(self, section: OutputSection, align: int, offset: int = 0) -> None:
        """Fill a section up to a place that is aligned as ``offset`` is."""
        is_code = section.flags & elf.SHF_EXECINSTR
        filler = self._view.architecture.filler if is_code else b"\0"
        section.data += filler * ((offset - len(section.data)) % align)

    def _place_data(self) -> None:
        """Place what is no code: what may be meant together stays together."""
        data = sorted(piece for piece in self._needed.pieces.values() if not self._view.is_code(piece.part))
        ranges = [_Range(piece.low, piece.high) for piece in data]
        for whole in _merged([*ranges, *(_Range(*joined) for joined in self._needed.joined)]):
            inside = [piece for piece in data if whole.low <= piece.low and piece.high <= whole.high]
            if not inside:
                continue
            number = int(self._parts.section[inside[0].part])
            section = self._shared_section(self._view.object.section_names[number], number)
            offset = whole.low - int(self._view.canonical.image.base[number])
            align = self._alignment(whole.low, number) if len(inside) == 1 else section.align
            self._pad(section, align, offset)
            offset = len(section.data)
            # Of .bss, zeros.
            section.data += self._needed.original(number, whole.low, whole.high) or bytes(whole.high - whole.low)
            for piece in inside:
                self.spots[piece.low] = Spot(section, offset + piece.low - whole.low)
                self._name(piece.part, section, offset - whole.low)

    # -- symbols ----------------------------------------------------------------------------------------------------

    def _name(self, part: int, section: OutputSection, moved: int) -> None:
        """Give a part its symbols again, local unless it is new: others of the patch may refer to it then."""
        needed, view = self._needed, self._view
        if part in self._heads:
            return
        is_new = needed.main(part) in needed.functions and needed.both.old_function(needed.main(part)) is None
        is_new |= not view.is_code(part)
        for symbol in view.canonical.part_symbols(part).tolist():
            row = view.object.symbols[symbol]
            address = int(view.canonical.image.base[view.object.shndx[symbol]]) + int(row["value"])
            binding = int(row["info"]) >> 4 if is_new else elf.STB_LOCAL
            kind, size = int(row["info"]) & 0xF, int(row["size"])
            name = view.object.symbol_name(symbol)
            own = OutputSymbol(name, section, address + moved, size, kind, binding, int(row["other"]) & 3)
            self.symbols.append(own)
            self._heads.setdefault(part, own)

    def _outer_symbol(self, goal: Goal) -> OutputSymbol:
        """Return the undefined (or absolute) symbol that a reference names."""
        if goal.name not in self._outside:
            symbol = OutputSymbol(self.spelled.get(goal.name, goal.name), binding=elf.STB_GLOBAL)
            shndx = int(self._view.object.shndx[goal.like]) if goal.like >= 0 else 1
            row = self._view.object.symbols[goal.like]
            if shndx in (elf.SHN_UNDEF, elf.ABSOLUTE):
                symbol.binding, symbol.other = int(row["info"]) >> 4, int(row["other"]) & 3
            if shndx == elf.ABSOLUTE:
                symbol.value, symbol.is_absolute = int(row["value"]), True
            self._outside[goal.name] = symbol
        return self._outside[goal.name]

    def _section_symbol(self, section: OutputSection) -> OutputSymbol:
        if section not in self._of_sections:
            self._of_sections[section] = OutputSymbol("", section, type=elf.STT_SECTION)
        return self._of_sections[section]

    # -- relocations ------------------------------------------------------------------------------------------------

    def _relocate_piece(self, piece: Piece) -> None:
        spot = self.spots[piece.low]
        for reference in self._needed.references_of(piece):
            place = spot.offset + reference.place - piece.low
            landing = self._needed.landings.get(reference.row)
            distance = landing.distance if landing else 0
            if reference.is_resolved:
                spot.section.data[place : place + reference.size] = distance.to_bytes(
                    reference.size, self._view.architecture.byteorder
                )
            if landing:
                reference, place = landing.jump, spot.offset + landing.jump.place - piece.low
            self._relocate(spot.section, place, reference)

    def _relocate(self, section: OutputSection, place: int, reference: WrittenReference) -> None:
        goal = self._needed.goals[reference.row]
        if goal.name:
            symbol, offset = self._outer_symbol(goal), goal.offset
        elif goal.piece < 0:
            symbol, offset = self._nothing(reference.row)
        else:
            symbol, offset = self._inner(goal.piece, goal.address)
        section.relocations.append(OutputRelocation(place, reference.type, symbol, offset - reference.bias))

    def _inner(self, low: int, address: int) -> tuple[OutputSymbol, int]:
        """Return the symbol of a carried piece (or entry), and how far behind it an address is.

        A place inside a function is one of its section: by the function's symbol, objtool takes any jump for a sibling
        call (add_jump_destinations in tools/objtool/check.c).
        """
        spot, piece = self.spots[low], self._needed.pieces.get(low)
        offset = spot.offset + address - low
        head = self._heads.get(piece.part) if piece else None
        if piece is None or head is None or head.section is not spot.section:
            return self._section_symbol(spot.section), offset
        if not self._view.is_code(piece.part) or offset <= head.value:
            return head, offset - head.value
        return self._section_symbol(spot.section), offset

    def _nothing(self, row: int) -> tuple[OutputSymbol, int]:
        """Return a place for what an entry refers to and uses nothing of: the end of such content."""
        number = int(self._view.canonical.references.section[row])
        section = self._shared_section(self._view.object.section_names[number], number)
        if not section.data:
            section.data += self._view.architecture.filler
        return self._section_symbol(section), len(section.data)

    # -- entries ----------------------------------------------------------------------------------------------------

    def _place_entry(self, entry: TakenEntry) -> None:
        objects, number = self._view.object, entry.section
        is_linked = bool(objects.sections["flags"][number] & elf.SHF_LINK_ORDER)
        link = self.spots[self._needed.piece_of(entry.owner).low].section if is_linked else None
        section = self._shared_section(objects.section_names[number], number, link)
        section.data += bytes(-len(section.data) % entry.size)
        self.spots[entry.low] = Spot(section, len(section.data))
        section.data += self._needed.original(number, entry.low, entry.high)

    def _add_side(self, entry: SideEntry) -> None:
        section = self._shared_section(self._view.object.section_names[entry.section], entry.section)
        place = len(section.data)
        section.data += entry.data
        spot = self.spots[entry.piece.low]
        for field, kind, address in entry.references:
            offset = spot.offset + address - entry.piece.low
            symbol = self._section_symbol(spot.section)
            section.relocations.append(OutputRelocation(place + field, kind, symbol, offset))

    def _add_header(self, side: list[SideEntry]) -> None:
        number = header_section(self._view)
        if number is not None and side:
            section = self._shared_section(self._view.object.section_names[number], number)
            section.data += bytes(self._view.object.content(number))

    def _add_table(self, section: str, name: str, functions: Sequence[int]) -> None:
        table = OutputSection(section, elf.SHF_ALLOC)
        self.tables.append((table, functions))
        self.sections.append(table)
        self.named.append(OutputSymbol(name, table, type=elf.STT_OBJECT, binding=elf.STB_GLOBAL))
        for number, main in enumerate(functions):
            own = OutputRelocation(8 * number, self._view.architecture.pointer, self._heads[main])
            table.relocations.append(own)
        table.data += bytes(8 * len(functions))


def _chains(pieces: Iterable[Piece]) -> list[list[Piece]]:
    """Return pieces of code, those of one function that follow upon each other together: __pfx_foo and foo."""
    chains: list[list[Piece]] = []
    for piece in pieces:
        if chains and (chains[-1][-1].high, chains[-1][-1].need) == (piece.low, piece.need):
            chains[-1].append(piece)
        else:
            chains.append([piece])
    return chains


def _merged(ranges: Iterable[_Range]) -> list[_Range]:
    """Return ranges without those that overlap: these are one; those that only touch are not."""
    found: list[_Range] = []
    for low, high in sorted(ranges):
        if found and low < found[-1].high:
            found[-1] = _Range(found[-1].low, max(found[-1].high, high))
        else:
            found.append(_Range(low, high))
    return found
