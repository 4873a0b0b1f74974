# SPDX-License-Identifier: GPL-2.0-only
"""Programs made by chance for the made-up machine: what must never be reported of them, and what always."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import made_up
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_assembler import assemble

from kbuild_klp.checksum import sum_file
from kbuild_klp.checksum.batch import compute
from kbuild_klp.checksum.entry import Entry
from kbuild_klp.elf import constants as elf
from kbuild_klp.elf.objects import Objects
from kbuild_klp.elf.reader import ObjectFile

pytestmark = pytest.mark.usefixtures("made_up_machine")

_COUNT = 4
_TARGETS = ("f0", "f1", "f2", "f3", "variable", "outside", "elsewhere")
_DATA = ".section .data\nvariable::\n    .quad f0\n    .word f1 - variable\n    .word f2 - .\n"


class Program(NamedTuple):
    """The bodies of functions f0, f1 and so on, and which of them are global."""

    bodies: list[list[str]]
    is_global: list[bool]

    def source(self, order: list[int] | None = None, padding: int = 4) -> str:
        """Return the source with the functions in some order."""
        lines = []
        for number in order or range(len(self.bodies)):
            lines.append(f"f{number}:{':' * self.is_global[number]}")
            for at, line in enumerate(self.bodies[number]):
                lines.append(line.format(label=f".L{number}_{at}", end=f".Lend{number}"))
            lines += [f".Lend{number}:", "    ret", f"    .balign {padding}"]
        return "\n".join(lines) + "\n" + _DATA


_target = st.sampled_from(_TARGETS)
_instructions = st.one_of(
    st.integers(-0x8000, 0x7FFF).map("    li r3, {}".format),
    st.builds("    {} {}".format, st.sampled_from(("b", "bl")), _target),
    st.builds("    {} r4, {}".format, st.sampled_from(("lea", "leap", "ld", "lw")), _target),
    _target.map("{{label}}:\n    lah r5, {}\n    add r3, r3, r3\n    lal r5, {{label}}".format),
    st.just("    bz r3, {end}"),
)
_programs = st.builds(
    Program,
    st.lists(st.lists(_instructions, max_size=6), min_size=_COUNT, max_size=_COUNT),
    st.lists(st.booleans(), min_size=_COUNT, max_size=_COUNT),
)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("program") / "program.o"


def _entries(path: Path, data: bytes) -> set[Entry]:
    path.write_bytes(data)
    computed = compute(str(path))
    assert computed.warnings == []
    return {*sum_file.load(computed.data, "x").entries}


@settings(max_examples=60, deadline=None)
@given(_programs, st.permutations(range(_COUNT)), st.sampled_from((4, 16, 64)))
def test_functions_may_move(path: Path, program: Program, order: list[int], padding: int) -> None:
    data = assemble(program.source())
    before = _entries(path, data)
    assert _entries(path, assemble(program.source(order, padding), label_name=lambda _: ".L0 ")) == before


def _filled_in(file: ObjectFile, section: int) -> set[tuple[int, int]]:
    """Return which bits (byte, mask) of a section relocations will fill in."""
    bits = set()
    found = Objects.of(file).relocations(np.array([section]))
    for place, kind in zip(found.offset.tolist(), found.type.tolist(), strict=True):
        size, mask = made_up.RELOCATION_TYPES[kind].field
        for byte in range(size):
            own = mask >> 8 * (size - 1 - byte) & 0xFF
            bits |= {(place + byte, 1 << bit) for bit in range(8) if own >> bit & 1}
    return bits


@settings(max_examples=150, deadline=None)
@given(_programs, st.data())
def test_each_bit_of_an_instruction_counts_but_for_those_filled_in_later(
    path: Path, program: Program, chance: st.DataObject
) -> None:
    data = assemble(program.source())
    before = _entries(path, data)
    file = ObjectFile.open(path)
    functions = (file.symbols["info"] & 0xF == elf.STT_FUNC).nonzero()[0].tolist()
    symbol = chance.draw(st.sampled_from(functions))
    row, section = file.symbols[symbol], int(file.shndx[symbol])
    byte = int(row["value"]) + chance.draw(st.integers(0, int(row["size"]) - 1))
    mask = 1 << chance.draw(st.integers(0, 7))
    flipped = bytearray(data)
    flipped[int(file.sections["offset"][section]) + byte] ^= mask
    changed = {file.symbol_name(symbol)} if (byte, mask) not in _filled_in(file, section) else set()
    assert {entry.name for entry in _entries(path, bytes(flipped)) - before} == changed
