# SPDX-License-Identifier: GPL-2.0-only
"""The reader against two others: pyelftools and readelf."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import RelocationSection
from elftools.elf.sections import SymbolTableSection
from samples import SAMPLE, compile_object

from kbuild_klp.elf import constants as elf
from kbuild_klp.elf.objects import Objects
from kbuild_klp.elf.reader import ObjectFile
from kbuild_klp.errors import BadObjectError

MANY_SECTIONS = 66_000
SOURCES = {
    "sample": (SAMPLE, ()),
    "debug": (SAMPLE, ("-g",)),
    "sections": (SAMPLE, ("-ffunction-sections", "-fdata-sections")),
    "empty": ("", ()),
    "common": ('int a[3]; __attribute__((visibility("hidden"))) int b; extern int c; int *d = &c + 7;', ("-fcommon",)),
    "unicode": ('asm(".globl \\"f\\303\\274r\\"\\n\\"f\\303\\274r\\": ret\\n\\"bad\\377\\": ret"); ', ()),
    "groups": ('asm(".section .text.g,\\"axG\\",@progbits,g,comdat\\n.weak g\\ng: ret");', ()),
    "negative": ("extern char a[]; char *b = a - 9; int f(void) { return a[-5]; }", ()),
}


BIG_ENDIAN = "big-endian"


@pytest.fixture(scope="session", params=[*SOURCES, BIG_ENDIAN])
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == BIG_ENDIAN:
        if shutil.which("clang-19") is None:
            pytest.skip("no clang-19")
        source = "extern int a[]; static int b; int *c = a + 3; int f(int x) { return x ? a[x] : b++; }"
        path = tmp_path_factory.mktemp("elf") / "big.o"
        command = ["clang-19", "--target=s390x-linux-gnu", "-O2", "-g", "-x", "c", "-c", "-o", str(path), "-"]
        subprocess.run(command, input=source, text=True, check=True)
        return path
    source, flags = SOURCES[request.param]
    return compile_object(source, tmp_path_factory.mktemp("elf") / f"{request.param}.o", *flags)


def _all_relocations(obj: ObjectFile) -> list[tuple[int, ...]]:
    found = Objects.of(obj).relocations(np.arange(len(obj.sections)))
    columns = (found.section, found.offset, found.type, found.symbol, found.addend)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def test_sections_and_symbols_as_pyelftools_reads_them(path: Path) -> None:
    obj = ObjectFile.open(path)
    with path.open("rb") as file:
        peer = ELFFile(file)
        assert obj.machine == (elf.EM_S390 if path.name == "big.o" else elf.EM_X86_64)
        assert obj.byteorder == ("little" if peer.little_endian else "big")
        assert len(obj.sections) == peer.num_sections()
        for index, section in enumerate(peer.iter_sections()):
            ours = obj.sections[index]
            for field in ("offset", "size", "flags", "link", "info", "entsize", "addr"):
                assert int(ours[field]) == section[f"sh_{field}"], (index, field)
            assert int(ours["align"]) == section["sh_addralign"]
            name = obj.section_names[index].encode("utf-8", "surrogateescape")
            assert name.decode("utf-8", "replace") == section.name
            if section["sh_type"] not in ("SHT_NULL", "SHT_NOBITS"):
                assert obj.section_bytes(index) == section.data()
                assert obj.section_array(index).tobytes() == section.data()
        table = peer.get_section_by_name(".symtab")
        assert isinstance(table, SymbolTableSection)
        symbols = list(table.iter_symbols())
        assert len(obj.symbols) == len(symbols)
        for index, symbol in enumerate(symbols):
            ours = obj.symbols[index]
            assert (int(ours["value"]), int(ours["size"])) == (symbol["st_value"], symbol["st_size"])
            text = obj.symbol_name(index).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
            assert text == symbol.name or symbol["st_info"]["type"] == "STT_SECTION"
            special = {"SHN_UNDEF": 0, "SHN_ABS": 0xFFF1 - 0x10000, "SHN_COMMON": 0xFFF2 - 0x10000}
            assert int(obj.shndx[index]) == special.get(symbol["st_shndx"], symbol["st_shndx"])


def test_relocations_as_pyelftools_reads_them(path: Path) -> None:
    obj = ObjectFile.open(path)
    with path.open("rb") as file:
        expected = [
            (section["sh_info"], row["r_offset"], row["r_info_type"], row["r_info_sym"], row["r_addend"])
            for section in ELFFile(file).iter_sections()
            if isinstance(section, RelocationSection)
            for row in section.iter_relocations()
        ]
    assert sorted(_all_relocations(obj)) == sorted(expected)


def test_only_the_relocations_that_are_wanted(path: Path) -> None:
    obj = ObjectFile.open(path)
    everything = _all_relocations(obj)
    for index in {row[0] for row in everything}:
        assert len(Objects.of(obj).relocations(np.array([index])).offset) == sum(row[0] == index for row in everything)


@pytest.mark.skipif(shutil.which("readelf") is None, reason="no readelf")
def test_counts_and_places_as_readelf_prints_them(path: Path) -> None:
    obj = ObjectFile.open(path)
    text = subprocess.run(
        ["readelf", "-SrsW", str(path)], capture_output=True, text=True, errors="replace", check=True
    ).stdout
    assert f"There are {len(obj.sections)} section headers" in text
    symbols = re.search(r"Symbol table '.symtab' contains (\d+) entr", text)
    assert symbols is not None and int(symbols[1]) == len(obj.symbols)
    relocations = re.findall(r"^([0-9a-f]{16})  ([0-9a-f]{16}) R_(?:X86_64|390)_\w+", text, re.MULTILINE)
    ours = [(row[1], row[3] << 32 | row[2]) for row in _all_relocations(obj)]
    assert sorted(ours) == sorted((int(place, 16), int(info, 16)) for place, info in relocations)


def test_more_sections_than_the_header_can_count(tmp_path: Path) -> None:
    source = "".join(f'.section .text.{i},"ax"\nf{i}: ret\n' for i in range(MANY_SECTIONS))
    path = compile_object(source, tmp_path / "many.o", language="assembler")
    obj = ObjectFile.open(path)
    assert len(obj.sections) > MANY_SECTIONS
    last = next(i for i in range(len(obj.symbols)) if obj.symbol_name(i) == f"f{MANY_SECTIONS - 1}")
    assert obj.section_names[int(obj.shndx[last])] == f".text.{MANY_SECTIONS - 1}"


def test_bytes_and_memory_are_as_good_as_a_file(sample: Path) -> None:
    data = sample.read_bytes()
    for view in (data, memoryview(data)):
        obj = ObjectFile(view, "memory")
        assert obj.section_names == ObjectFile.open(sample).section_names


def test_bytecode_of_gcc_is_refused_unless_there_is_code_beside_it(tmp_path: Path) -> None:
    """Of -flto nothing is in the object that could differ; with -ffat-lto-objects the code is."""
    slim = compile_object(SAMPLE, tmp_path / "slim.o", "-flto", "-fno-fat-lto-objects")
    with pytest.raises(BadObjectError, match="GCC's LTO bytecode, not machine code; under LTO the linked"):
        ObjectFile.open(slim)
    fat = compile_object(SAMPLE, tmp_path / "fat.o", "-flto", "-ffat-lto-objects")
    assert ".text" in ObjectFile.open(fat).section_names
