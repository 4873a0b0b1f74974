# SPDX-License-Identifier: GPL-2.0-only
"""Objects that are written: what is read again is what was given, and binutils take them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kbuild_klp.elf import constants as elf
from kbuild_klp.elf.objects import Objects
from kbuild_klp.elf.reader import ObjectFile
from kbuild_klp.elf.writer import OutputRelocation, OutputSection, OutputSymbol, write_object
from kbuild_klp.errors import KlpError

_NAMES = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=12)
_FLAGS = st.sampled_from([elf.SHF_ALLOC, elf.SHF_ALLOC | elf.SHF_WRITE, elf.SHF_ALLOC | elf.SHF_EXECINSTR])
_SECTIONS = st.lists(
    st.builds(
        OutputSection,
        name=_NAMES.map(lambda name: f".{name}"),
        flags=_FLAGS,
        type=st.sampled_from([elf.SHT_PROGBITS, elf.SHT_NOBITS]),
        align=st.sampled_from([1, 2, 8, 16, 64]),
        data=st.binary(min_size=16, max_size=64).map(bytearray),
    ),
    min_size=1,
    max_size=6,
)
_TYPES = st.sampled_from([1, 2, 4, 10, 11, 24])


@st.composite
def _objects(draw: st.DrawFn) -> tuple[list[OutputSection], list[OutputSymbol]]:
    sections = draw(_SECTIONS)
    symbols = draw(
        st.lists(
            st.builds(
                OutputSymbol,
                name=_NAMES,
                section=st.sampled_from([None, *sections]),
                value=st.integers(0, 15),
                size=st.integers(0, 1 << 40),
                type=st.sampled_from([elf.STT_NOTYPE, elf.STT_OBJECT, elf.STT_FUNC]),
                binding=st.sampled_from([elf.STB_LOCAL, elf.STB_GLOBAL, elf.STB_WEAK]),
                other=st.integers(0, 3),
            ),
            min_size=1,
            max_size=8,
        )
    )
    for section in sections:
        if section.type == elf.SHT_NOBITS:
            continue
        rows = st.builds(
            OutputRelocation,
            st.integers(0, 8),
            _TYPES,
            st.sampled_from(symbols),
            st.integers(-(1 << 63), (1 << 63) - 1),
        )
        section.relocations.extend(draw(st.lists(rows, max_size=5)))
    return sections, symbols


@given(_objects(), st.sampled_from(["little", "big"]))
@settings(max_examples=200, deadline=None)
def test_what_is_read_is_what_was_written(
    content: tuple[list[OutputSection], list[OutputSymbol]], byteorder: Literal["little", "big"]
) -> None:
    sections, symbols = content
    file = ObjectFile(write_object(0x4D55, byteorder, sections, symbols), "unit.o")
    assert (file.machine, file.byteorder) == (0x4D55, byteorder)
    ordered = sorted(symbols, key=lambda symbol: symbol.binding != elf.STB_LOCAL)
    for number, section in enumerate(sections, 1):
        header = file.sections[number]
        found = [int(header[field]) for field in ("type", "flags", "size", "align", "entsize")]
        assert found == [section.type, section.flags, len(section.data), section.align, section.entry_size]
        assert file.section_names[number] == section.name
        assert file.section_bytes(number) == (b"" if section.type == elf.SHT_NOBITS else bytes(section.data))
        assert header["offset"] % section.align == 0
        rows = Objects.of(file).relocations(np.array([number]))
        columns = (rows.offset, rows.type, rows.symbol - 1, rows.addend)
        given_rows = [(row.place, row.type, ordered.index(row.symbol), row.addend) for row in section.relocations]
        assert list(zip(*(column.tolist() for column in columns), strict=True)) == given_rows
    for number, symbol in enumerate(ordered, 1):
        row = file.symbols[number]
        assert file.symbol_name(number) == symbol.name
        assert int(file.shndx[number]) == (sections.index(symbol.section) + 1 if symbol.section else elf.SHN_UNDEF)
        found = [int(row[field]) for field in ("info", "other", "value", "size")]
        assert found == [symbol.binding << 4 | symbol.type, symbol.other, symbol.value, symbol.size]


def _an_object() -> bytes:
    text = OutputSection(".text.f", elf.SHF_ALLOC | elf.SHF_EXECINSTR, align=16, data=bytearray(b"\xe8\0\0\0\0\xc3"))
    table = OutputSection("__table", elf.SHF_ALLOC | elf.SHF_LINK_ORDER, align=8, data=bytearray(8), link=text)
    space = OutputSection(".bss", elf.SHF_ALLOC | elf.SHF_WRITE, type=elf.SHT_NOBITS, align=32, data=bytearray(100))
    function = OutputSymbol("f", text, 0, 6, elf.STT_FUNC)
    outside = OutputSymbol("callee", binding=elf.STB_GLOBAL)
    text.relocations.append(OutputRelocation(1, 4, outside, -4))
    table.relocations.append(OutputRelocation(0, 1, function))
    symbols = [
        outside,
        function,
        OutputSymbol("unit.c", type=elf.STT_FILE),
        OutputSymbol("", text, type=elf.STT_SECTION),
        OutputSymbol("number", value=-1, is_absolute=True, binding=elf.STB_GLOBAL),
        OutputSymbol("variable", space, 32, 4, elf.STT_OBJECT, elf.STB_GLOBAL),
    ]
    return write_object(elf.EM_X86_64, "little", [text, table, space], symbols)


def test_binutils_take_it(tmp_path: Path, binutils: Callable[..., str]) -> None:
    path, linked = tmp_path / "unit.o", tmp_path / "linked.o"
    path.write_bytes(_an_object())
    for what in ("-aW",):
        done = subprocess.run(["readelf", what, path], capture_output=True, text=True, check=True)
        assert not done.stderr
    assert "R_X86_64_PLT32\tcallee-0x4" in binutils("objdump", "-dr", path)
    binutils("ld", "-r", "-o", linked, path)
    assert "variable" in binutils("nm", linked)


@pytest.mark.parametrize("number", [0xFF00, 0x10000])
def test_more_sections_than_an_object_can_number_are_refused(number: int) -> None:
    sections = [OutputSection(".text", elf.SHF_ALLOC) for _ in range(number)]
    with pytest.raises(KlpError, match="more than an object can number"):
        write_object(elf.EM_X86_64, "little", sections, [])


@pytest.mark.parametrize("name", ["größe", "функция", "\udcff"])
def test_a_name_that_is_no_ascii(name: str) -> None:
    """GCC takes identifiers in UTF-8; what is none must be written as it was read."""
    section = OutputSection(f".text.{name}", elf.SHF_ALLOC | elf.SHF_EXECINSTR)
    data = write_object(elf.EM_X86_64, "little", [section], [OutputSymbol(name, section)])
    file = ObjectFile(data, "x")
    assert (file.symbol_name(1), file.section_names[1]) == (name, f".text.{name}")
