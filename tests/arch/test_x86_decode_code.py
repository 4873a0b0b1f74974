# SPDX-License-Identifier: GPL-2.0-only
"""The x86-64 decoder on real code: a compiler's, an assembler's, and the kernel's when one has been built."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection
from numpy.typing import NDArray
from x86_peers import capstone_length, objdump

from kbuild_klp.arch.sweep import instruction_starts
from kbuild_klp.arch.x86_decode import WIDTHS, instruction_lengths, relative_fields


def gcc(source: str, directory: Path, *flags: str) -> Path:
    if not shutil.which("gcc") or not shutil.which("objdump"):
        pytest.skip("needs gcc and binutils")
    target = directory / "code.o"
    command: list[str | Path] = [
        "gcc",
        "-c",
        "-fno-pic",
        "-mcmodel=kernel",
        *flags,
        Path(__file__).with_name(source),
        "-o",
        target,
    ]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.fail(made.stderr)
    return target


class Section(NamedTuple):
    name: str
    data: bytes
    bounds: list[int]  # where symbols begin and end, and the section
    relative: set[int]  # where there is a relocation for a 32-bit PC-relative field


def executable_sections(path: Path) -> Iterator[Section]:
    with path.open("rb") as file:
        elf = ELFFile(file)
        sections = list(elf.iter_sections())
        table = elf.get_section_by_name(".symtab")
        assert isinstance(table, SymbolTableSection)
        symbols = list(table.iter_symbols())
        for number, section in enumerate(sections):
            if not section["sh_flags"] & 4 or section["sh_type"] != "SHT_PROGBITS" or not section["sh_size"]:
                continue
            mine = [symbol for symbol in symbols if symbol["st_shndx"] == number]
            bounds = {symbol["st_value"] for symbol in mine}
            bounds |= {symbol["st_value"] + symbol["st_size"] for symbol in mine}
            rows = {
                offset
                for table in sections
                if table["sh_type"] == "SHT_RELA" and table["sh_info"] == number
                for offset, info, _ in struct.iter_unpack("<QQq", table.data())
                if info & 0xFFFFFFFF in (2, 4, 9, 41, 42)  # PC32, PLT32, GOTPCREL and its relaxable forms
            }
            yield Section(section.name, section.data(), sorted(bounds | {0, section["sh_size"]}), rows)


def check_object(path: Path) -> int:
    return check_sections(path, list(executable_sections(path)))


def check_sections(path: Path, sections: list[Section], overlapping: frozenset[str] = frozenset()) -> int:
    """Compare every instruction with capstone and objdump; returns how many there were."""
    listing = objdump(path, [section.name for section in sections])
    count = 0
    for section in sections:
        code = np.frombuffer(section.data, np.uint8)
        lengths = instruction_lengths(code)
        starts: list[int] = []
        for start, end in zip(section.bounds, section.bounds[1:], strict=False):
            found, stopped = instruction_starts(lengths.data, start, end)
            assert stopped == end or section.name in overlapping, f"{section.name}+{stopped:#x}"
            starts += found
        lost = False  # objdump, after something it does not know
        for start in starts:
            ours, data = lengths[start], section.data[start : start + 15]
            theirs = capstone_length(data)
            assert theirs in (ours, 0, None), f"{section.name}+{start:#x} {data.hex()}: {ours}, capstone {theirs}"
            length, text = listing[section.name].get(start, (0, ""))
            # It joins fwait with the floating-point instruction behind.
            lost = length != ours and (lost or "(bad)" in text or data[0] == 0x9B)
            assert lost or length == ours, f"{section.name}+{start:#x} {data.hex()}: objdump {length} {text}"
        if section.name not in overlapping:
            check_fields(section, code, lengths, starts)
        count += len(starts)
    return count


def check_fields(section: Section, code: NDArray[np.uint8], lengths: NDArray[np.uint8], starts: list[int]) -> None:
    """Every PC-relative relocation has its field; every branch without one goes to an instruction."""
    fields = relative_fields(code, lengths, np.array(starts, np.int64))
    assert section.relative <= set(fields.offset[np.array(WIDTHS)[fields.form] == 4].tolist())
    boundaries = {*starts, len(code)}
    for field, form, end, branch in zip(*(column.tolist() for column in fields), strict=True):
        if branch and field not in section.relative:
            displacement = int.from_bytes(section.data[field : field + WIDTHS[form]], "little", signed=True)
            assert end + displacement in boundaries, f"{section.name}+{field:#x}"


@pytest.mark.parametrize(
    "flags",
    [
        "-O0",
        "-O2",
        "-Os",
        "-O2 -fcf-protection=full -mindirect-branch=thunk-extern",
        "-O3 -mavx2 -mfma -mbmi2",
        "-O3 -march=skylake-avx512 -mprefer-vector-width=512",
        "-O3 -march=icelake-server",
        "-O2 -fpic -mcmodel=small",
    ],
)
def test_compiled_code(tmp_path: Path, flags: str) -> None:
    assert check_object(gcc("x86_code.c", tmp_path, *flags.split())) > 100


def test_assembled_code(tmp_path: Path) -> None:
    assert check_object(gcc("x86_code.S", tmp_path)) > 300


def test_kernel_code() -> None:
    """All but .text, which has the same in twenty times the amount (set KLP_TEST_ALL for it)."""
    tree = os.environ.get("KLP_TEST_TREE")
    if not tree:
        pytest.skip("KLP_TEST_TREE names no built kernel tree")
    path = Path(tree, "vmlinux.o")
    # The return thunk's untraining sequences hide an instruction in the middle of another, on purpose.
    sections = [
        section for section in executable_sections(path) if section.name != ".text" or "KLP_TEST_ALL" in os.environ
    ]
    assert check_sections(path, sections, frozenset([".text..__x86.return_thunk"])) > 50_000
