# SPDX-License-Identifier: GPL-2.0-only
"""An extracted object, read again and held beside the object that it was made of.

Two checks that know nothing of how it was written. First, every byte, relocation and table entry of the new file is
accounted for: it is that of the new object, or padding. A relocation has to go to what the same one went to there, or
to the symbol that was found for it. Second, the canonical form of both says the same of each carried function: bytes,
references, special entries. What may differ there is what a symbol of the running kernel is called (`count.7` is
`count.5` in it), and that it is not in the object any more.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from kbuild_klp.elf import constants as elf
from kbuild_klp.elf.reader import ObjectFile
from kbuild_klp.elf.writer import OutputSection
from kbuild_klp.errors import BadObjectError
from kbuild_klp.extract.laid_out import LaidOut, Spot
from kbuild_klp.extract.needed import Needed
from kbuild_klp.extract.pieces import Goal, Piece
from kbuild_klp.extract.relocated import WrittenReference
from kbuild_klp.extract.same_meaning import check_meaning
from kbuild_klp.extract.side_tables import SideEntry, header_section
from kbuild_klp.object.view import ObjectView


class _Found(NamedTuple):
    """A relocation of the file, as it stands there; ``section`` 0 is that of an undefined symbol."""

    type: int
    name: str
    info: int
    section: int
    target: int


class _Beside:
    """The walk through both; ``view`` is the file that was made."""

    def __init__(self, needed: Needed, laid: LaidOut, view: ObjectView) -> None:
        self.needed, self.laid, self.view = needed, laid, view
        self.path = view.file.path
        self.numbers = {section: at for at, section in enumerate(laid.sections, 1)}
        self.covered = {at: bytearray(int(view.object.sections["size"][at])) for at in self.numbers.values()}
        self.left = dict(self._relocations())
        self.origins: dict[int, int] = {}

    def _relocations(self) -> Iterator[tuple[tuple[int, int], _Found]]:
        objects = self.view.object
        rows = objects.relocations(np.array([*self.numbers.values()], np.int64))
        columns = (rows.section, rows.offset, rows.type, rows.symbol, rows.addend)
        for section, place, kind, symbol, addend in zip(*(column.tolist() for column in columns), strict=True):
            row, shndx = objects.symbols[symbol], int(objects.shndx[symbol])
            target = addend + (int(row["value"]) if shndx > 0 else 0)
            yield (section, place), _Found(kind, objects.symbol_name(symbol), int(row["info"]), shndx, target)

    def fail(self, what: str, part: int | None = None) -> BadObjectError:
        """Make the error that names the file, and the function."""
        place = None if part is None else self.needed.name(part)
        return BadObjectError(f"the extracted object is wrong: {what}", file=self.path, place=place, hint="report it")

    def check(self, side: Iterable[SideEntry]) -> None:
        """Hold everything beside its original; raises BadObjectError."""
        objects = self.view.object
        names = ["", *(section.name for section in self.laid.sections)]
        count = int(np.isin(objects.sections["type"], (elf.SHT_RELA, elf.SHT_REL)).sum())
        if objects.section_names[: len(names)] != names or len(objects.sections) != len(names) + count + 3:
            raise self.fail("it has other sections")
        if len(self.left) != int((objects.sections["size"][objects.sections["type"] == elf.SHT_RELA] // 24).sum()):
            raise self.fail("two relocations are of one place")
        for piece in self.needed.pieces.values():
            self._piece(piece)
        self._entries()
        self._side(side)
        self._tables()
        self._headers()
        self._rest()
        self._symbols()

    def _content(self, section: OutputSection, offset: int, size: int, origin: int) -> bytes:
        """Return bytes of the file, and note that they were looked at; ``origin`` is the section they are from."""
        number = self.numbers[section]
        self.origins[number] = origin
        self.covered[number][offset : offset + size] = b"\1" * size
        return bytes(self.view.object.content(number)[offset : offset + size])

    # -- pieces -----------------------------------------------------------------------------------------------------

    def _piece(self, piece: Piece) -> None:
        needed = self.needed
        spot, part = self.laid.spots[piece.low], piece.part
        section, base = int(needed.parts.section[part]), int(needed.canonical.image.base[needed.parts.section[part]])
        original = bytearray(needed.original(section, piece.low, piece.high))
        references = needed.references_of(piece)
        for reference in references:
            if reference.is_resolved:
                at, landing = reference.place - piece.low, needed.landings.get(reference.row)
                distance = landing.address - piece.low - at - reference.bias if landing else 0
                original[at : at + reference.size] = distance.to_bytes(
                    reference.size, needed.view.architecture.byteorder
                )
        if self._content(spot.section, spot.offset, piece.high - piece.low, section) != bytes(original):
            raise self.fail("its bytes differ", part)
        for reference in references:
            landing = needed.landings.get(reference.row)
            if landing is None:
                self._reference(spot, reference.place - piece.low, reference, part)
                continue
            offset = spot.offset + landing.address - piece.low
            if self._content(spot.section, offset, len(landing.code), section) != landing.code:
                raise self.fail("the jump behind it differs", part)
            self._reference(spot, landing.jump.place - piece.low, landing.jump, part)
        header = needed.view.object.sections[section]
        start = int(needed.parts.start[part]) if needed.view.is_code(part) else piece.low
        offset = start - base
        align = min(max(int(header["align"]), 1), offset & -offset or 1 << 62)
        found = self.view.object.sections[self.numbers[spot.section]]
        behind = needed.pieces.get(piece.high)
        if behind is not None and behind.need == piece.need and needed.view.is_code(part):
            return  # __pfx_foo is aligned with foo
        if (spot.offset + start - piece.low) % align or found["align"] < align:
            raise self.fail("its alignment is lost", part)

    def _reference(self, spot: Spot, offset: int, reference: WrittenReference, part: int) -> None:
        found = self.left.pop((self.numbers[spot.section], spot.offset + offset), None)
        if found is None:
            raise self.fail(f"a relocation is missing at {spot.section.name}+{spot.offset + offset:#x}", part)
        goal = self.needed.goals[reference.row]
        if found.type != reference.type or not self._goes_to(found, goal, found.target + reference.bias):
            raise self.fail(f"the relocation at {spot.section.name}+{spot.offset + offset:#x} differs", part)

    def _takes(self, section: OutputSection, place: int, kind: int, piece: Piece, address: int) -> bool:
        """Say whether a relocation of the file, which is looked at by that, goes to an address (linear) of a piece."""
        found, spot = self.left.pop((self.numbers[section], place), None), self.laid.spots[piece.low]
        wanted = kind, self.numbers[spot.section], spot.offset + address - piece.low
        return found is not None and (found.type, found.section, found.target) == wanted

    def _goes_to(self, found: _Found, goal: Goal, target: int) -> bool:
        if goal.name:
            symbols = self.needed.view.object
            binding, shndx = elf.STB_GLOBAL, elf.SHN_UNDEF
            if goal.like >= 0 and int(symbols.shndx[goal.like]) in (elf.SHN_UNDEF, elf.ABSOLUTE):
                binding = int(symbols.symbols["info"][goal.like]) >> 4
                shndx = int(symbols.shndx[goal.like])
            name = self.laid.spelled.get(goal.name, goal.name)
            return (found.name, found.info >> 4, found.section, target) == (name, binding, shndx, goal.offset)
        if goal.piece < 0:  # of an entry that uses nothing of it
            return found.section > 0 and target == int(self.view.object.sections["size"][found.section])
        spot = self.laid.spots[goal.piece]
        return (found.section, target) == (self.numbers[spot.section], spot.offset + goal.address - goal.piece)

    # -- tables -----------------------------------------------------------------------------------------------------

    def _entries(self) -> None:
        """Check the entries of special sections: all of them, in their order."""
        needed, ends = self.needed, defaultdict[OutputSection, int](int)
        for entry in sorted(needed.entries, key=lambda entry: entry.low):
            name = needed.view.object.section_names[entry.section]
            owner = self.laid.spots[needed.piece_of(entry.owner).low].section
            section = next(it for it in self.laid.sections if it.name == name and it.link in (None, owner))
            spot = Spot(section, ends[section])
            ends[section] += entry.size
            original = needed.original(entry.section, entry.low, entry.high)
            if self._content(section, spot.offset, len(original), entry.section) != original:
                raise self.fail(f"an entry of {name} differs", entry.owner)
            for reference in needed.relocated.between(entry.low, entry.high):
                self._reference(spot, reference.place - entry.low, reference, entry.owner)

    def _side(self, side: Iterable[SideEntry]) -> None:
        ends = defaultdict[OutputSection, int](int)
        names, is_any = self.needed.view.object.section_names, False
        for entry in side:
            is_any = True
            name = names[entry.section]
            section = next(it for it in self.laid.sections if it.name == name)
            place = ends[section]
            ends[section] += len(entry.data)
            if self._content(section, place, len(entry.data), entry.section) != entry.data:
                raise self.fail(f"an entry of {name} differs", entry.piece.part)
            for field, kind, address in entry.references:
                if not self._takes(section, place + field, kind, entry.piece, address):
                    raise self.fail(f"an entry of {name} differs", entry.piece.part)
        header = header_section(self.needed.view)
        if header is not None and is_any:
            section = next(it for it in self.laid.sections if it.name == names[header])
            original = bytes(self.needed.view.object.content(header))
            if self._content(section, 0, len(original), header) != original:
                raise self.fail(f"{names[header]} differs")

    def _tables(self) -> None:
        """Check the addresses of the functions that take the place of old ones, and of callbacks."""
        needed = self.needed
        for table, functions in self.laid.tables:
            if self._content(table, 0, len(table.data), -1) != bytes(8 * len(functions)):
                raise self.fail(f"{table.name} differs")
            for number, main in enumerate(functions):
                pointer, address = needed.view.architecture.pointer, int(needed.parts.start[main])
                if not self._takes(table, 8 * number, pointer, needed.piece_of(main), address):
                    raise self.fail(f"{table.name} names another function", main)

    # -- what is left -----------------------------------------------------------------------------------------------

    def _rest(self) -> None:
        """See to it that nothing was added: what is left is padding, and no relocation is."""
        if self.left:
            section, place = next(iter(self.left))
            name = self.view.object.section_names[section]
            raise self.fail(f"a relocation at {name}+{place:#x} belongs to nothing")
        filler = self.needed.view.architecture.filler
        for number, covered in self.covered.items():
            header, content = self.view.object.sections[number], self.view.object.content(number).tolist()
            if header["type"] == elf.SHT_NOBITS:
                continue
            padding = filler[0] if header["flags"] & elf.SHF_EXECINSTR else 0
            joined = self._joined_filler(number)
            for at, (byte, seen) in enumerate(zip(content, covered, strict=True)):
                if not seen and byte != joined.get(at, padding):
                    name = self.view.object.section_names[number]
                    raise self.fail(f"{name}+{at:#x} belongs to nothing")

    def _headers(self) -> None:
        """Check that each section is of the kind that it was."""
        new, made = self.needed.view.object, self.view.object.sections
        for section, number in self.numbers.items():
            if any(section is table for table, _ in self.laid.tables):
                continue
            origin = self.origins.get(number)
            if origin is None:  # of which only the end is referred to
                origin = new.section_names.index(section.name)
            header, old = made[number], new.sections[origin]
            flags = int(old["flags"]) & ~(elf.SHF_GROUP | elf.SHF_INFO_LINK)
            link = self.numbers[section.link] if section.link is not None else 0
            if (header["type"], header["flags"], header["entsize"]) != (old["type"], flags, old["entsize"]):
                raise self.fail(f"{section.name} is of another kind")
            if header["link"] != link:
                raise self.fail(f"{section.name} is bound to another section")

    def _joined_filler(self, number: int) -> dict[int, int]:
        """Return what lay between pieces that are kept together, by offset in a section of the file."""
        needed, found = self.needed, dict[int, int]()
        for low, high in needed.joined:
            spot = self.laid.spots.get(low)
            if spot is None or self.numbers[spot.section] != number:
                continue
            section = int(needed.parts.section[needed.pieces[low].part])
            found.update(enumerate(needed.original(section, low, high), spot.offset))
        return found

    def _symbols(self) -> None:
        """Check that each carried part has its names again, and nothing else has one."""
        needed, objects = self.needed, self.view.object
        wanted: set[tuple[str, int, int, int, int]] = set()
        for piece in needed.pieces.values():
            spot = self.laid.spots[piece.low]
            for symbol in needed.canonical.part_symbols(piece.part).tolist():
                row = needed.view.object.symbols[symbol]
                base = int(needed.canonical.image.base[needed.parts.section[piece.part]])
                at = spot.offset + base + int(row["value"]) - piece.low
                name, kind = needed.view.object.symbol_name(symbol), int(row["info"]) & 0xF
                wanted.add((name, self.numbers[spot.section], at, int(row["size"]), kind))
        for named in self.laid.named:
            assert named.section is not None
            wanted.add((named.name, self.numbers[named.section], 0, named.size, elf.STT_OBJECT))
        found = set()
        for symbol in (objects.shndx > 0).nonzero()[0].tolist():
            row = objects.symbols[symbol]
            if row["info"] & 0xF != elf.STT_SECTION:
                own = int(objects.shndx[symbol]), int(row["value"]), int(row["size"]), int(row["info"]) & 0xF
                found.add((objects.symbol_name(symbol), *own))
        if found != wanted:
            raise self.fail(f"its symbols differ: {', '.join(sorted({name for name, *_ in found ^ wanted}))}")


def check(needed: Needed, laid: LaidOut, side: Iterable[SideEntry], file: ObjectFile) -> int:
    """Check an extracted object; returns how many functions it has, raises BadObjectError."""
    view = ObjectView(file)
    _Beside(needed, laid, view).check(side)
    return check_meaning(needed, laid, view)
