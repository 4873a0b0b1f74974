# SPDX-License-Identifier: GPL-2.0-only
"""Source lines and inlined functions, against what addr2line of binutils says of every instruction."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import made_up
import numpy as np
import pytest
from snippets import Compiler

from kbuild_klp.arch.registry import Field, RelocationType
from kbuild_klp.arch.sweep import instruction_starts
from kbuild_klp.dwarf import debug_info, relocated_stream
from kbuild_klp.dwarf.debug_info import DebugInfo
from kbuild_klp.dwarf.die_scan import DieScan, UnknownFormError
from kbuild_klp.dwarf.inlined import InlinedCode, InlinedFunction
from kbuild_klp.dwarf.source_lines import SourceLines
from kbuild_klp.elf import constants as elf
from kbuild_klp.elf.objects import Objects
from kbuild_klp.elf.reader import ObjectFile
from kbuild_klp.object.view import ObjectView

SOURCE = """\
int ext(int);
int limited(void);
# 12 "mm/x.h"
static inline int inner(int x)
{
	return ext(x) + 3;
}
static inline int middle(int x, int *p)
{
	for (int i = 0; i < x; i++) {
		int y = inner(i);
		*p += y ^ x;
	}
	return *p;
}
# 5 "unit.c"
static inline int twice(int x)
{
	return inner(x) * inner(x + 1);
}
struct row { int a, b; const char *name; };
struct row rows[4];
int first(int x)
{
	int y = 0;
	if (__builtin_expect(limited(), 0))
		return ext(twice(x));
	return middle(x, &y) + rows[x].a;
}
__attribute__((cold)) int second(int x)
{
	return twice(x) - 1;
}
__attribute__((noinline)) static int third(int x) { return inner(x) ^ 5; }
int fourth(int x) { return third(x) + third(-x); }
"""


class Debug:
    """What this package says of one object."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.object = ObjectFile.open(path)
        self.info = DebugInfo(self.object)
        self.lines = SourceLines(self.info)
        self.inlined = InlinedCode(self.info, self.lines)

    def code(self) -> list[tuple[int, int]]:
        """Return section and offset of every instruction of a function."""
        arch = ObjectView(str(self.path)).architecture
        places = []
        for index in (self.object.symbols["info"] & 0xF == elf.STT_FUNC).nonzero()[0].tolist():
            section, symbol = int(self.object.shndx[index]), self.object.symbols[index]
            begin, end = int(symbol["value"]), int(symbol["value"] + symbol["size"])
            lengths = arch.instruction_lengths(self.object.section_array(section))
            places += [(section, at) for at in instruction_starts(lengths.data, begin, end)[0]]
        return places


def _oracle(path: Path, section: str, offsets: list[int]) -> list[list[tuple[str, str]]]:
    """Return function and source line of each place, the innermost first, as addr2line tells them."""
    command = ["addr2line", "-i", "-f", "-a", "-e", str(path), "-j", section, *map(hex, offsets)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    found: list[list[tuple[str, str]]] = []
    names = iter(lines)
    for line in names:
        if line.startswith("0x"):
            found.append([])
        else:
            found[-1].append((line, next(names).partition(" (discriminator")[0]))
    return found


@pytest.mark.parametrize(
    "flags",
    [
        ("-gdwarf-5",),
        ("-gdwarf-4",),
        ("-gdwarf-5", "-ffunction-sections"),
        ("-gdwarf-5", "-gz"),
        ("-gdwarf-4", "-O1", "-gz"),
        ("-gdwarf-5", "-fno-omit-frame-pointer", "-O3"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("copied", [debug_info.MOST_COPIED, 0], ids=["whole", "in pieces"])
def test_every_instruction_is_what_addr2line_says(
    cc: Compiler,
    binutils: Callable[..., str],
    flags: tuple[str, ...],
    copied: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert binutils("addr2line", "--version")
    monkeypatch.setattr(debug_info, "MOST_COPIED", copied)
    monkeypatch.setattr(relocated_stream, "_SHIFT", 5)  # fields stand across the ends of pieces
    monkeypatch.setattr(relocated_stream, "_WINDOW", 1 << 5)
    path = cc.object(SOURCE, *flags)
    debug = Debug(path)
    by_section: dict[int, list[int]] = {}
    for section, offset in debug.code():
        by_section.setdefault(section, []).append(offset)
    known = deep = 0
    for section, offsets in by_section.items():
        answers = _oracle(path, debug.object.section_names[section], offsets)
        for offset, frames in zip(offsets, answers, strict=True):
            chain = debug.inlined.at(section, offset)
            if len(frames) == 1 and chain and "-gdwarf-4" in flags and cc.command == "gcc":
                # Ranges are relative there, and addr2line takes an empty one at 0 for the end of its list.
                called = debug.lines.at(section, offset)
                assert called is not None and frames[0][1].endswith(f"mm/x.h:{called.line}")
                continue
            assert [function.name for function in chain] == [name for name, _ in frames[:-1]], hex(offset)
            source = debug.lines.at(section, offset)
            file, _, line = frames[0][1].rpartition(":")
            assert (source is None) == (line in ("?", "0"))
            if source is not None:
                assert source.line == int(line) and file.endswith(source.file), hex(offset)
                known += 1
            deep += len(chain) > 1
    assert known > 60 and deep > 3


@pytest.fixture
def s390(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the relocations of debug information known: compilers can make objects, and nothing else is asked for."""
    types = {
        4: RelocationType("R_390_32", Field.whole(4), False, 4),
        22: RelocationType("R_390_64", Field.whole(8), False, 22),
    }
    machine = replace(made_up.ARCHITECTURE, machine=elf.EM_S390, relocation_types=types)
    monkeypatch.setattr(relocated_stream, "architecture", {elf.EM_S390: machine}.get)


@pytest.mark.parametrize("copied", [debug_info.MOST_COPIED, 0], ids=["whole", "in pieces"])
@pytest.mark.parametrize("flags", [("-gdwarf-5",), ("-gdwarf-4",), ("-gdwarf-5", "-gz")], ids=" ".join)
def test_big_endian(
    clang: Compiler, s390: None, flags: tuple[str, ...], copied: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(debug_info, "MOST_COPIED", copied)
    clang.flags = ("--target=s390x-linux-gnu", "-O2", "-w", "-fno-pic")
    path = clang.object(SOURCE, *flags)
    obj = ObjectFile.open(path)
    assert obj.byteorder == "big"
    info = DebugInfo(obj)
    lines = SourceLines(info)
    inlined = InlinedCode(info, lines)
    (text,) = (index for index, name in enumerate(obj.section_names) if name == ".text")
    found = Objects.of(obj).relocations(np.array([text]))
    calls = [
        (str(lines.at(text, place - 2)), [function.name for function in inlined.at(text, place - 2)])
        for place, symbol in zip(found.offset.tolist(), found.symbol.tolist(), strict=True)
        if obj.symbol_name(symbol) == "ext"
    ]
    in_header = [["inner"], ["inner", "middle"], ["inner", "twice"], ["inner", "twice"]]
    assert sorted(calls) == [*(("mm/x.h:14", chain) for chain in in_header), ("unit.c:15", [])]


def test_where_a_function_is_declared(cc: Compiler) -> None:
    debug = Debug(cc.object(SOURCE, "-g"))
    functions = {function for place in debug.code() for function in debug.inlined.functions(*place)}
    expected = {
        InlinedFunction("inner", "mm/x.h", 12),
        InlinedFunction("middle", "mm/x.h", 16),
        InlinedFunction("twice", "unit.c", 5),
    }
    assert functions == expected
    assert str(InlinedFunction("inner", "mm/x.h", 12)) == "inner() from mm/x.h:12"
    assert str(InlinedFunction("inner", "", 0)) == "inner()"


@pytest.mark.parametrize("copied", [debug_info.MOST_COPIED, 0], ids=["whole", "in pieces"])
def test_several_units_in_one_object(
    gcc: Compiler, tmp_path: Path, copied: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in vmlinux.o: units without a table of addresses are found too."""
    monkeypatch.setattr(debug_info, "MOST_COPIED", copied)
    other = "static inline int mine(int x)\n{\n\treturn x * x + 5;\n}\nint fifth(int x) { return mine(x) / 7; }\n"
    objects = [gcc.object(SOURCE, "-g"), gcc.object(other, "-g")]
    subprocess.run(["objcopy", "--remove-section", ".debug_aranges", objects[1]], check=True)
    path = tmp_path / "linked.o"
    subprocess.run(["ld", "-r", "-o", path, *objects], check=True)
    debug = Debug(path)
    names = {function.name for place in debug.code() for function in debug.inlined.functions(*place)}
    assert names == {"inner", "middle", "twice", "mine"}
    symbol = next(i for i in range(len(debug.object.symbols)) if debug.object.symbol_name(i) == "fifth")
    section, row = int(debug.object.shndx[symbol]), debug.object.symbols[symbol]
    start, end = int(row["value"]), int(row["value"] + row["size"])
    lines = {str(debug.lines.at(*place)) for place in debug.code() if place[0] == section and start <= place[1] < end}
    assert {"unit.c:3", "unit.c:5"} <= lines


def test_nothing_is_known_without_debug_information(gcc: Compiler) -> None:
    debug = Debug(gcc.object(SOURCE))
    assert debug.info.size == 0 and debug.info.dwarf is None
    assert {debug.lines.at(*place) for place in debug.code()} == {None}
    assert {debug.inlined.at(*place) for place in debug.code()} == {()}


def test_there_is_a_limit(gcc: Compiler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debug_info, "MOST_BYTES", 100)
    debug = Debug(gcc.object(SOURCE, "-g"))
    assert debug.info.is_too_large and debug.info.dwarf is None
    assert {debug.lines.at(*place) for place in debug.code()} == {None}


def test_a_compressed_section_may_not_grow_beyond_the_limit(gcc: Compiler, monkeypatch: pytest.MonkeyPatch) -> None:
    path = gcc.object(SOURCE, "-g", "-gz")
    data = bytearray(path.read_bytes())
    obj = ObjectFile(bytes(data), "unit.o")
    for index in (obj.sections["flags"] & elf.SHF_COMPRESSED != 0).nonzero()[0].tolist():
        at = int(obj.sections["offset"][index])
        data[at + 8 : at + 16] = (1 << 40).to_bytes(8, "little")
    path.write_bytes(data)
    debug = Debug(path)
    assert debug.info.size and debug.info.dwarf is None


@pytest.mark.parametrize("seed", range(40))
def test_damage_costs_the_words_only(cc: Compiler, seed: int) -> None:
    path = cc.object(SOURCE, "-g" if seed % 2 else "-gdwarf-4")
    chance = random.Random(seed)
    obj = ObjectFile.open(path)
    data = bytearray(path.read_bytes())
    wanted = [i for i, name in enumerate(obj.section_names) if name.startswith((".debug_", ".rela.debug_"))]
    for _ in range(chance.choice((1, 5, 200))):
        header = obj.sections[chance.choice(wanted)]
        if header["size"]:
            data[int(header["offset"]) + chance.randrange(int(header["size"]))] = chance.randrange(256)
    path.write_bytes(data)
    debug = Debug(path)
    for place in debug.code():
        debug.lines.at(*place)
        debug.inlined.at(*place)


def test_all_functions_with_code_are_found_as_pyelftools_finds_them(cc: Compiler) -> None:
    """DieScan steps over entries; pyelftools reads them all."""
    for flags in ("-gdwarf-5", "-gdwarf-4", "-gdwarf-3"):
        info = DebugInfo(ObjectFile.open(cc.object(SOURCE, flags)))
        assert info.dwarf is not None
        for unit in info.dwarf.iter_CUs():
            top = unit.get_top_DIE()
            scan = DieScan(unit, info._info)
            for tag in ("DW_TAG_subprogram", "DW_TAG_inlined_subroutine"):
                everything = cast("set[str]", {die.tag for die in unit.iter_DIEs()})
                found = [offset for offset, _ in scan.with_code(top.offset + top.size, tag, everything)]
                code = ("DW_AT_low_pc", "DW_AT_ranges")
                expected = [
                    die.offset
                    for die in unit.iter_DIEs()
                    if die.tag == tag and any(name in die.attributes for name in code)
                ]
                assert found == expected and found


def test_a_form_that_is_not_known_is_not_guessed(gcc: Compiler) -> None:
    info = DebugInfo(ObjectFile.open(gcc.object(SOURCE, "-gdwarf-5")))
    assert info.dwarf is not None
    (unit,) = info.dwarf.iter_CUs()
    scan = DieScan(unit, info._info)
    with pytest.raises(UnknownFormError):
        scan._skip(0, ("data1", "indirect"))


_BIG_ENDIAN_UNIT = """
    .section .debug_info,"",@progbits
    .long 2f - 1f
1:  .short 4
    .long .debug_abbrev
    .byte 8
3:  .byte 1                 # the unit
    .quad {name}
    .long 4
    .byte 2                 # a type, and what is in it
    .long 4f - 1b + 4
    .byte 3
    .short 3
    .byte 4, 4, 4
    .byte 0
4:  .byte 3                 # bytes that look like a function
    .short 2
    .byte 4, 4
    .byte 4                 # a function
    .string "{name}"
    .quad {name}
    .long 4
    .byte 0
2:  .text
{name}:
    br %r14
    nopr
"""
_ABBREVIATIONS = """
    .section .debug_abbrev,"",@progbits
    .byte 1, 0x11, 1, 0x11, 1, 0x12, 6, 0, 0
    .byte 2, 0x13, 1, 1, 0x13, 0, 0
    .byte 3, 0x0d, 0, 0x1c, 3, 0, 0
    .byte 4, 0x2e, 0, 3, 8, 0x11, 1, 0x12, 6, 0, 0, 0
"""


def test_what_is_stepped_over_in_big_endian(clang: Compiler, s390: None) -> None:
    """Two units, the reference to the next entry of a level, and blocks of bytes."""
    units = "".join(_BIG_ENDIAN_UNIT.format(name=name) for name in ("one", "two"))
    info = DebugInfo(ObjectFile.open(clang.assembly(units + _ABBREVIATIONS, "--target=s390x-linux-gnu")))
    names = [function.attributes["DW_AT_name"].value for function in info.functions()]
    assert names == [b"one", b"two"]
