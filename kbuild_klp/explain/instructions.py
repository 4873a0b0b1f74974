# SPDX-License-Identifier: GPL-2.0-only
"""A function as a list of instructions that can be compared: without places, with meanings."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from kbuild_klp.arch.registry import Instruction
from kbuild_klp.object.view import ObjectView, Reference

# What stands in a field while its instruction is disassembled, so that it can be found in the text: all its bytes,
# but for the lowest. The first that the code does not contain is taken.
_MARKS = (0x17, 0x19, 0x1B, 0x1D, 0x23, 0x25, 0x27)
_NUMBER = re.compile(r"0x[0-9a-f]+|[0-9]+")

Place = tuple[int, int]
"""A part and an offset in it."""

_INNER = 2  # elements of the meaning of a reference that stays in the function: where it goes is compared later
Token = tuple[bytes, tuple[tuple[object, ...], ...], int]


class Line:
    """One instruction of a function.

    ``token`` is equal for instructions that do the same: bytes with references and branches inside the function
    cleared, what each of the references means, and how many stay inside. ``targets`` are the instructions (by number)
    to which a branch inside the function goes, or a reference to a place in it; ``tables`` those of each jump table
    that the instruction uses.
    """

    __slots__ = ("instruction", "marks", "part", "references", "tables", "targets", "token", "view")

    def __init__(self, view: ObjectView, part: int, instruction: Instruction, references: tuple[Reference, ...]):
        self.view = view
        self.part = part
        self.instruction = instruction
        self.references = references
        self.marks: tuple[int, ...] = ()
        self.token: Token = (b"", (), 0)
        self.targets: tuple[int, ...] = ()
        self.tables: tuple[tuple[int, ...], ...] = ()

    @property
    def offset(self) -> int:
        """Where the instruction stands in its part, in bytes."""
        return self.instruction.offset

    @property
    def is_branch(self) -> bool:
        """Whether control goes to what the instruction refers to."""
        return self.instruction.is_branch

    @property
    def outer_references(self) -> list[Reference]:
        """The references that do not stay in the function."""
        pairs = zip(self.references, self.token[1], strict=True)
        return [reference for reference, meaning in pairs if len(meaning) > _INNER]

    @property
    def bytes(self) -> bytes:
        """The instruction as it stands in the object."""
        return self.view.raw_bytes(self.part, self.offset, self.instruction.size)

    @property
    def text(self) -> str:
        """The instruction in the assembler's syntax, with what it refers to in place of the fields."""
        text = " ".join(self.instruction.text.split())
        rest = list(self.references)
        mnemonic, _, operand = text.rpartition(" ")
        if self.is_branch and _NUMBER.fullmatch(operand):
            return f"{mnemonic} {self.operand(rest[0]) if rest else f'+{int(operand, 0):#x}'}"
        for mark, reference in zip(self.marks, self.references, strict=False):
            found = re.search(rf"(?<!\w){mark:#x}(?!\w)", text)
            if found:
                text = text[: found.start()] + self.operand(reference) + text[found.end() :]
                rest.remove(reference)
        return " ".join([text, *(f"<{self.view.describe(reference.row)}>" for reference in rest)])

    def operand(self, reference: Reference) -> str:
        """Return the target of a reference as it stands in an instruction; places in the own part are offsets."""
        inner = self.view.inner_target(reference.row, (self.part,))
        return f"+{inner[1]:#x}" if inner and inner[1] else self.view.operand(reference.row)

    @property
    def target(self) -> str:
        """What the instruction refers to, in words; empty when it refers to nothing."""
        names = [self.operand(reference) for reference in self.references]
        _, _, operand = self.instruction.text.rpartition(" ")
        if not names and self.is_branch and _NUMBER.fullmatch(operand):
            names = [f"+{int(operand, 0):#x}"]
        return ", ".join(name[1:-1] if name.startswith("<") else name for name in names)

    def where(self, parts: Sequence[int]) -> str:
        """Return the place of the instruction in the function whose parts are ``parts``."""
        name = "" if self.part == parts[0] else self.view.part_name(self.part)
        return f"{name}+{self.offset:#x}"


class _Code(NamedTuple):
    """One part: its bytes with references cleared, and its branches that stay inside, by place: width and target."""

    part: int
    data: bytes
    inside: dict[int, tuple[int, int]]


def function_lines(view: ObjectView, parts: Sequence[int]) -> list[Line]:
    """Return the instructions of a function and its split-off parts."""
    lines: list[Line] = []
    codes: list[_Code] = []
    for part in parts:
        code, own = _part_lines(view, part)
        lines += own
        codes += [code] * len(own)
    number = {(line.part, line.offset): i for i, line in enumerate(lines)}
    for line, code in zip(lines, codes, strict=True):
        _make_token(line, code, parts, number)
    return lines


def _part_lines(view: ObjectView, part: int) -> tuple[_Code, list[Line]]:
    """Return the instructions of one part."""
    data = view.data(part)
    arch = view.architecture
    references = view.references(part)
    code = np.frombuffer(data + bytes(16), np.uint8)
    fields = arch.pc_relative_fields(code, np.array([0]), np.array([len(data)]))
    places = {reference.place for reference in references}
    widths = {row.kind: row.size for row in arch.relocation_types.values()}
    inside = {}
    own_widths = {}
    for offset, width, end in zip(fields.offset.tolist(), fields.width.tolist(), fields.end.tolist(), strict=True):
        if offset in places:
            own_widths[offset] = width
            continue
        target = end + int.from_bytes(data[offset : offset + width], "little", signed=True)
        if 0 <= target < len(data):
            inside[offset] = (width, target)
    marked = bytearray(data)
    byte = next((byte for byte in _MARKS if bytes((byte, byte, byte)) not in data), _MARKS[0])
    marks = []
    for number, reference in enumerate(references):
        width = own_widths.get(reference.place) or widths.get(reference.key[0], 4)
        # Two fields of one instruction must differ.
        marks.append(int.from_bytes(bytes((0x10 + number % 8, *[byte] * (max(width, 1) - 1))), "little"))
        field = marks[-1].to_bytes(max(width, 1), "little")[: len(data) - reference.place]
        marked[reference.place : reference.place + width] = field
    lines = []
    at = 0
    for instruction in arch.disassemble(bytes(marked)):
        first, end = at, instruction.offset + instruction.size
        while at < len(references) and references[at].place < end:
            at += 1
        line = Line(view, part, instruction, tuple(references[first:at]))
        line.marks = tuple(marks[first:at])
        lines.append(line)
    return _Code(part, data, inside), lines


def _make_token(line: Line, code: _Code, parts: Sequence[int], number: dict[Place, int]) -> None:
    """Fill in what of an instruction can be compared."""
    start, size = line.offset, line.instruction.size
    data = code.data[start : start + size]
    targets: list[int] = []
    meanings: list[tuple[object, ...]] = []
    if code.inside:
        for place in range(start, start + size):
            if place in code.inside:
                width, target = code.inside[place]
                if (line.part, target) in number:
                    targets.append(number[line.part, target])
                    data = data[: place - start] + bytes(width) + data[place - start + width :]
    for reference in line.references:
        place = reference.place - start
        inner = line.view.inner_target(reference.row, parts)
        if inner is not None and inner in number:
            targets.append(number[inner])
            meanings.append((place, reference.key[0]))  # _INNER elements
            continue
        table = _table(line.view, reference, parts, number)
        if table is not None:
            line.tables += (table.entries,)
            offset = line.view.target_offset(reference.row)
            meanings.append((place, reference.key[0], "table", offset, *table.kinds))
        else:
            meanings.append((place, *reference.key))
    line.targets = tuple(targets)
    line.token = (data, tuple(meanings), len(targets))


class _Table(NamedTuple):
    """A jump table: the instructions to which its entries go, and the kinds of relocation in it."""

    entries: tuple[int, ...]
    kinds: list[int]


def _table(view: ObjectView, reference: Reference, parts: Sequence[int], number: dict[Place, int]) -> _Table | None:
    """Return the jump table that a reference is to, None when it is to something else."""
    part = view.content_part(reference.row)
    entries = None if part is None else view.jump_table(part, parts)
    if part is None or entries is None or not all(entry in number for entry in entries):
        return None
    kinds = {own.key[0] for own in view.references(part)}
    return _Table(tuple(number[entry] for entry in entries), sorted(kinds))
