# SPDX-License-Identifier: GPL-2.0-only
"""An assembler for the machine of made_up.py.

    name:  name::            a local and a global symbol, which reaches to the next one or to padding; .Lname: a label
    .section NAME            .text*, .data*, .rodata*, ...; a source begins in .text
    .balign N                padding: of NOPs in code
    .quad X   .word X - Y    a number or a symbol, a number or a difference of symbols (`.` is the place itself)
    .asciz TEXT              a string without blanks
    bl X   lea r3, X         a symbol or label, with an offset (X+8)
    lah r3, X   lal r3, .L   `.L` is the label of the lah
    ld r3, X                 X in an entry of .toc, which is made for it

As real ones do, it resolves what it can without a relocation, which is a reference to what is local and in the same
section; other references to what is local name its section.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from itertools import groupby
from typing import Literal

import made_up

from kbuild_klp.elf import constants as elf
from kbuild_klp.elf.writer import OutputRelocation, OutputSection, OutputSymbol, write_object

_KINDS = {  # what refers: the type of its relocation, and how far behind the instruction that stands
    "b": (made_up.WORDS26, 0),
    "bl": (made_up.WORDS26, 0),
    "bz": (made_up.HALFWORDS16, 2),
    "lea": (made_up.PIECES20, 0),
    "leap": (made_up.PIECES20, 0),
    "lah": (made_up.HIGH16, 0),
    "lal": (made_up.LOW16, 0),
    "ld": (made_up.ENTRY14, 2),
    "lw": (made_up.ENTRY14, 2),
}
_TOC = ".toc"
# The longer names first. Other sections are writable.
_STARTS = {
    ".text": (elf.SHF_EXECINSTR, 0),
    ".rodata.str": (elf.SHF_MERGE | elf.SHF_STRINGS, 1),
    ".rodata.cst8": (elf.SHF_MERGE, 8),
    ".rodata": (0, 0),
}
_LABEL = re.compile(r"([.\w]+)(::?)$")
_SYMBOL = re.compile(r"(?P<name>(?!\d)[.\w]+)(?P<offset>[+-]\w+)?$")


class _Assembler:
    """One source; what comes later in it may be referred to, so it is read twice."""

    def __init__(self, source: str) -> None:
        self.sections: dict[str, OutputSection] = {}
        self.symbols: dict[str, OutputSymbol] = {}
        self.of_sections: dict[OutputSection, OutputSymbol] = {}
        self._entries: dict[str, int] = {}
        self._fixups: list[tuple[OutputSection, int, str, list[str]]] = []
        self._open: dict[OutputSection, OutputSymbol] = {}
        self._section = self._enter(".text")
        for line in source.splitlines():
            words = line.partition("#")[0].split(None, 1)
            if words:
                self._line(words[0], words[1].strip() if len(words) > 1 else "")
        for section in list(self._open):
            self._close(section)
        for section, place, what, operands in self._fixups:
            self._fix(section, place, what, operands)

    def _enter(self, name: str) -> OutputSection:
        if name not in self.sections:
            known = (kind for start, kind in _STARTS.items() if name.startswith(start))
            flags, entry_size = next(known, (elf.SHF_WRITE, 0))
            self.sections[name] = section = OutputSection(name, elf.SHF_ALLOC | flags, entry_size)
            self.of_sections[section] = OutputSymbol("", section, type=elf.STT_SECTION)
        return self.sections[name]

    def _line(self, what: str, rest: str) -> None:
        section = self._section
        at = len(section.data)
        operands = [operand.strip() for operand in rest.split(",")] if rest else []
        label = _LABEL.match(what)
        if label:
            self._label(label[1], is_global=label[2] == "::")
        elif what == ".section":
            self._section = self._enter(rest)
        elif what == ".balign":
            self._close(section)
            unit = made_up.NOP.to_bytes(4, "big") if section.flags & elf.SHF_EXECINSTR else bytes(4)
            section.data += unit * (-at % int(rest) // 4)
        elif what == ".asciz":
            section.data += rest.encode() + b"\0"
        elif what == ".quad":
            section.data += bytes(8)
            self._fixups.append((section, at, what, operands))
        else:
            section.data += bytes(4)
            self._fixups.append((section, at, what, operands))

    def _label(self, name: str, is_global: bool) -> None:
        section = self._section
        is_inner = name.startswith(".L")
        kind = elf.STT_FUNC if section.flags & elf.SHF_EXECINSTR else elf.STT_OBJECT
        symbol = self.symbols[name] = OutputSymbol(
            name,
            section,
            len(section.data),
            type=elf.STT_NOTYPE if is_inner else kind,
            binding=elf.STB_GLOBAL if is_global else elf.STB_LOCAL,
        )
        if not is_inner:
            self._close(section)
            self._open[section] = symbol

    def _close(self, section: OutputSection) -> None:
        """End the function or variable that is open in a section."""
        symbol = self._open.pop(section, None)
        if symbol is not None:
            symbol.size = len(section.data) - symbol.value

    def _fix(self, section: OutputSection, place: int, what: str, operands: list[str]) -> None:
        """Fill in one instruction, or one number in data."""
        if what == ".quad":
            value = self._refer(section, place, made_up.ABS64, operands[0])
            section.data[place : place + 8] = value.to_bytes(8, "big", signed=True)
        elif what == ".word":
            added, _, subtracted = operands[0].partition(" - ")
            value = self._refer(section, place, made_up.SET32, added)
            if subtracted == ".":
                section.relocations.append(OutputRelocation(place, made_up.SUB32, self.of_sections[section], place))
            elif subtracted:
                self._refer(section, place, made_up.SUB32, subtracted)
            section.data[place : place + 4] = value.to_bytes(4, "big", signed=True)
        else:
            section.data[place : place + 4] = self._instruction(section, place, what, operands).to_bytes(4, "big")

    def _instruction(self, section: OutputSection, place: int, what: str, operands: list[str]) -> int:
        form = made_up.FORMS[what]
        word = form.opcode
        for bit, operand in zip(form.registers, operands, strict=False):
            word |= int(operand.removeprefix("r")) << bit
        if not form.field:
            return word
        operand = operands[len(form.registers)]
        if what not in _KINDS:
            return word | int(operand, 0) & form.field
        kind, behind = _KINDS[what]
        target = self.symbols.get(operand)
        is_here = target is not None and target.section is section and target.binding == elf.STB_LOCAL
        if target is not None and is_here and kind in (made_up.WORDS26, made_up.HALFWORDS16, made_up.PIECES20):
            distance = target.value - place
            if kind == made_up.PIECES20:
                return word | made_up.pieces(distance)
            return word | distance // (4 if kind == made_up.WORDS26 else 2) & form.field
        if kind == made_up.ENTRY14:
            entry = OutputRelocation(place + behind, kind, *self._entry(operand))
            section.relocations.append(entry)
        else:
            # What is counted from is the instruction, not the field.
            self._refer(section, place + behind, kind, operand, behind)
        return word

    def _entry(self, operand: str) -> tuple[OutputSymbol, int]:
        """Return where in .toc a symbol stands."""
        toc = self._enter(_TOC)
        if operand not in self._entries:
            self._entries[operand] = place = len(toc.data)
            toc.data += bytes(8)
            self._refer(toc, place, made_up.ABS64, operand)
        return self.of_sections[toc], self._entries[operand]

    def _refer(self, section: OutputSection, place: int, kind: int, operand: str, addend: int = 0) -> int:
        """Add the relocation for a symbol, or return the number that stands there instead."""
        match = _SYMBOL.match(operand)
        if match is None:
            return int(operand, 0)
        symbol = self.symbols.setdefault(match["name"], OutputSymbol(match["name"], binding=elf.STB_GLOBAL))
        addend += int(match["offset"] or "0", 0)
        if symbol.section is not None and symbol.binding == elf.STB_LOCAL and kind != made_up.LOW16:
            symbol, addend = self.of_sections[symbol.section], addend + symbol.value
        section.relocations.append(OutputRelocation(place, kind, symbol, addend))
        return 0


def assemble(
    source: str,
    label_name: Callable[[str], str] = str,
    order: Callable[[list[OutputSection]], list[OutputSection]] = list,
    pairs: Callable[[list[OutputRelocation]], Iterable[OutputRelocation]] = list,
    byteorder: Literal["little", "big"] = "big",
) -> bytes:
    """Return an object.

    ``label_name`` says how its labels are spelled, ``order`` in which order its sections stand, and ``pairs`` in which
    order relocations at one place do.
    """
    done = _Assembler(source)
    for section in done.sections.values():
        section.relocations.sort(key=lambda row: row.place)
        groups = groupby(section.relocations, lambda row: row.place)
        section.relocations = [row for _, group in groups for row in pairs(list(group))]
    used = {row.symbol for section in done.sections.values() for row in section.relocations}
    symbols = [OutputSymbol("made_up.s", type=elf.STT_FILE), *done.of_sections.values()]
    for name, symbol in done.symbols.items():
        is_label = name.startswith(".L")
        if is_label:
            symbol.name = label_name(name)
        if not is_label or symbol in used:
            symbols.append(symbol)
    return write_object(made_up.MACHINE, byteorder, order(list(done.sections.values())), symbols)
