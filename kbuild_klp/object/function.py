# SPDX-License-Identifier: GPL-2.0-only
"""A function as a list of instructions that can be compared: without places, with meanings."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import islice, pairwise
from typing import NamedTuple

import numpy as np

from kbuild_klp.arch.registry import Architecture, Flow, Instruction, Operand
from kbuild_klp.arch.sweep import instruction_starts
from kbuild_klp.object.code import PartCode
from kbuild_klp.object.place import Place
from kbuild_klp.object.reference_text import operand_text
from kbuild_klp.object.symbol_id import SymbolId
from kbuild_klp.object.view import ObjectView, Reference

Spot = tuple[int, int]
"""An instruction: part, and offset in it."""

Token = tuple[bytes, tuple[tuple[object, ...], ...], int]

_GOES_TO_TARGET = (Flow.CALL, Flow.BRANCH, Flow.JUMP)
_INNER = 2  # elements of the meaning of a reference that stays in the function: where it goes is compared later
_GUARD = bytes(16)  # what the decoder may look at behind the end
_TOGETHER = 64  # parts that are taken apart at a time
_DEFAULT_SIZE = 4  # bytes of a field of which nothing is known


class Line:
    """One instruction of a function.

    ``token`` is equal for instructions that do the same: bytes with references and branches inside the function
    cleared, what each of the references means, and how many stay inside. ``targets`` are the instructions (by number)
    to which a branch inside the function goes, or a reference to a place in it; ``tables`` those of each jump table
    that the instruction uses.
    """

    __slots__ = (
        "__dict__",
        "code",
        "inside",
        "offset",
        "part",
        "references",
        "size",
        "tables",
        "targets",
        "token",
        "view",
    )

    def __init__(
        self,
        view: ObjectView,
        part: int,
        code: PartCode,
        place: tuple[int, int],
        references: Sequence[Reference],
        inside: Sequence[int],
    ) -> None:
        self.view = view
        self.part = part
        self.code = code
        self.offset, end = place
        self.size = end - self.offset
        self.references = references
        self.inside = inside
        """The places of its branches that stay in the part."""
        self.token: Token = (code.data[self.offset : end], (), 0)
        self.targets: tuple[int, ...] = ()
        self.tables: tuple[tuple[int, ...], ...] = ()

    @property
    def outer_references(self) -> list[Reference]:
        """The references that do not stay in the function."""
        pairs = zip(self.references, self.token[1], strict=True)
        return [reference for reference, meaning in pairs if len(meaning) > _INNER]

    @property
    def bytes(self) -> bytes:
        """The instruction as it stands in the object."""
        return self.view.raw_bytes(self.part, self.offset, self.size)

    @cached_property
    def instruction(self) -> Instruction:
        """The instruction decoded, with what it refers to in place of the fields."""
        arch = self.view.architecture
        operands = [
            Operand(reference.place - self.offset, self._field_size(arch, reference), self.operand(reference))
            for reference in self.references
        ]
        return arch.disassemble(self.code.data[self.offset : self.offset + self.size], self.offset, operands)

    def _field_size(self, arch: Architecture, reference: Reference) -> int:
        form = self.code.forms.get(reference.place)
        if form is not None:
            return arch.pc_fields[form].field.size
        return self.view.kinds.field_size(reference.key[0]) or _DEFAULT_SIZE

    @property
    def text(self) -> str:
        """The instruction in the assembler's syntax."""
        return self.instruction.text

    @property
    def is_branch(self) -> bool:
        """Whether control goes to what the instruction refers to."""
        return self.instruction.is_branch

    def operand(self, reference: Reference) -> str:
        """Return the target of a reference as it stands in an instruction; places in the own part are offsets."""
        inner = self.view.inner_target(reference.row, (self.part,))
        return f"+{inner[1]:#x}" if inner and inner[1] else operand_text(self.view, reference.row)

    @property
    def target(self) -> str:
        """What the instruction refers to, in words; empty when it refers to nothing."""
        names = [self.operand(reference) for reference in self.references]
        if not names and self.is_branch and self.text.rpartition(" ")[2].startswith("+"):
            names = [self.text.rpartition(" ")[2]]
        return ", ".join(name[1:-1] if name.startswith("<") else name for name in names)

    def where(self, parts: Sequence[int]) -> Place:
        """Return the place of the instruction in the function whose parts are ``parts``."""
        return Place("" if self.part == parts[0] else self.view.part_name(self.part), self.offset)


# -- decoding ---------------------------------------------------------------------------------------------------------


def part_code(view: ObjectView, part: int) -> PartCode:
    """Return the instructions of one part."""
    if part not in view.code:
        # With the next of those that are expected: nearly all of the work is that of a call.
        first = view.expected_parts.get(part, len(view.expected_parts))
        decode_parts(view, [part, *islice(view.expected_parts, first, first + _TOGETHER)])
    return view.code[part]


def goes_to_target(view: ObjectView, part: int, place: int) -> bool:
    """Say whether the instruction at a place of a part, counted from its start, calls or jumps."""
    code = part_code(view, part)
    at = bisect_right(code.starts, place) - 1
    return at >= 0 and code.flows[at] in _GOES_TO_TARGET


def decode_parts(view: ObjectView, parts: Iterable[int]) -> None:
    """Take parts apart into instructions; a call for many costs little more than one for one."""
    wanted = [part for part in dict.fromkeys(parts) if part not in view.code]
    if not wanted:
        return
    arch = view.architecture
    contents = [view.data(part) for part in wanted]
    code = np.frombuffer(b"".join(piece for data in contents for piece in (data, _GUARD)), np.uint8)
    lengths = arch.instruction_lengths(code)
    known, first, starts = lengths.data, 0, []
    bounds = []
    for data in contents:
        starts.append(_all_starts(known, first, first + len(data)))
        bounds.append(first)
        first += len(data) + len(_GUARD)
    every = np.array([start for own in starts for start in own], np.int64)
    flows, first_flow = arch.flows(code, every).tobytes(), 0
    fields = arch.pc_relative_fields(code, lengths, every)
    target = fields.base + arch.displacements(code, fields.offset, fields.form)
    cuts = np.searchsorted(fields.offset, [*bounds, first]).tolist()
    rows = list(zip(fields.offset.tolist(), fields.form.tolist(), target.tolist(), strict=True))
    for part, data, base, own, low, high in zip(wanted, contents, bounds, starts, cuts, cuts[1:], strict=False):
        places = {reference.place for reference in view.references(part)}
        mine = [(offset - base, form, goal - base) for offset, form, goal in rows[low:high]]
        view.code[part] = PartCode(
            data,
            [start - base for start in own],
            flows[first_flow : first_flow + len(own)],
            {offset: (form, goal) for offset, form, goal in mine if offset not in places and 0 <= goal < len(data)},
            {offset: form for offset, form, _ in mine},
        )
        first_flow += len(own)


def decode_functions(view: ObjectView, symbols: Iterable[SymbolId]) -> None:
    """Take functions apart that will be asked for."""
    decode_parts(view, _parts_of(view, symbols))


def expect_functions(view: ObjectView, symbols: Iterable[SymbolId]) -> None:
    """Note functions of which many may be asked for, one after the other in this order."""
    view.expected_parts = {part: at for at, part in enumerate(dict.fromkeys(_parts_of(view, symbols)))}


def _parts_of(view: ObjectView, symbols: Iterable[SymbolId]) -> Iterator[int]:
    return (part for symbol in symbols for part in view.parts_of(symbol))


def _all_starts(lengths: memoryview, start: int, end: int) -> list[int]:
    """Return where instructions begin; a byte that is none is one by itself."""
    starts: list[int] = []
    while start < end:
        found, start = instruction_starts(lengths, start, end)
        starts += found
        if start < end:
            starts.append(start)
            start += 1
    return starts


# -- comparing --------------------------------------------------------------------------------------------------------


def function_lines(view: ObjectView, parts: Sequence[int]) -> list[Line]:
    """Return the instructions of a function and its split-off parts."""
    decode_parts(view, parts)
    lines: list[Line] = []
    for part in parts:
        code = view.code[part]
        references, inside = defaultdict[int, list[Reference]](list), defaultdict[int, list[int]](list)
        for reference in view.references(part):
            references[bisect_right(code.starts, reference.place) - 1].append(reference)
        for place in sorted(code.inside):
            inside[bisect_right(code.starts, place) - 1].append(place)
        lines += (
            Line(view, part, code, place, references.get(at, ()), inside.get(at, ()))
            for at, place in enumerate(pairwise([*code.starts, len(code.data)]))
        )
    number = {(line.part, line.offset): i for i, line in enumerate(lines)}
    family = frozenset(parts)
    inner = set[int]().union(*(view.rows_into(part, family) for part in parts))
    for line in lines:
        if line.references or line.inside:  # as few have
            _make_token(line, family, inner, number)
    return lines


def _make_token(line: Line, parts: frozenset[int], inner_rows: set[int], number: dict[Spot, int]) -> None:
    """Fill in what of an instruction can be compared; ``inner_rows`` are the references that may stay inside."""
    view, code, start = line.view, line.code, line.offset
    data = line.token[0]
    targets: list[int] = []
    for place in line.inside:
        form, target = code.inside[place]
        if (line.part, target) in number:
            targets.append(number[line.part, target])
            data = view.architecture.pc_fields[form].field.cleared(data, place - start, view.architecture.byteorder)
    meanings: list[tuple[object, ...]] = []
    for reference in line.references:
        place = reference.place - start
        inner = view.inner_target(reference.row, parts) if reference.row in inner_rows else None
        if inner is not None and inner in number:
            targets.append(number[inner])
            meanings.append((place, reference.key[0]))  # _INNER elements
            continue
        table = jump_table(view, reference.row, parts, number)
        if table is not None:
            line.tables += (table.entries,)
            offset = view.target_offset(reference.row)
            meanings.append((place, reference.key[0], "table", offset, *table.kinds))
        else:
            meanings.append((place, *reference.key))
    line.targets = tuple(targets)
    line.token = (data, tuple(meanings), len(targets))


class JumpTable(NamedTuple):
    """A jump table: the instructions to which its entries go, and the kinds of relocation in it."""

    entries: tuple[int, ...]
    kinds: list[int]


def jump_table(view: ObjectView, row: int, parts: frozenset[int], number: dict[Spot, int]) -> JumpTable | None:
    """Return the jump table that a reference is to, None when it is to something else."""
    part = view.content_part(row)
    entries = None if part is None else view.jump_table(part, parts)
    if part is None or entries is None or not all(entry in number for entry in entries):
        return None
    kinds = {own.key[0] for own in view.references(part)}
    return JumpTable(tuple(number[entry] for entry in entries), sorted(kinds))
