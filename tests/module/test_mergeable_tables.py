# SPDX-License-Identifier: GPL-2.0-only
"""Special sections with SHF_MERGE, which say so how long their entries are (from Linux 6.19 on): nothing is merged."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from kbuild_klp.elf.reader import ObjectFile
from kbuild_klp.errors import BadObjectError
from kbuild_klp.module.finished import check_linked

_CODE = """
    .section .text.{name}, "ax"
    .type {name}, @function
{name}:
1:  call memcpy
2:  call memcpy
    ret
    .size {name}, . - {name}
    .section .altinstructions, {flags}
    .long {place} - ., 3f - .
    .long {kind}
    .section .altinstr_replacement, "ax"
3:  {replacement}
    .section .rodata.cst4, "aM", @progbits, 4
    .long 5
    .section .init.{name}, "a"
    .globl table_{name}
table_{name}: .quad {name}
"""
_SCRIPT = "SECTIONS { .text 0 : { *(.text.*) } .altinstructions 0 : ALIGN(8) { KEEP(*(.altinstructions)) } }"
_RIGHT = {"place": "1b", "kind": "7", "replacement": "lfence"}


def _made(directory: Path, name: str, flags: str, **damage: str) -> Path:
    path = directory / f"{name}{len(list(directory.iterdir()))}.o"
    text = _CODE.format(name=name, flags=flags, **_RIGHT | damage)
    subprocess.run(["gcc", "-c", "-x", "assembler", "-", "-o", str(path)], input=text, text=True, check=True)
    return path


def _check(directory: Path, made: list[Path], linked: list[Path]) -> int:
    (directory / "module.lds").write_text(_SCRIPT)
    module = directory / "module.ko"
    subprocess.run(["ld", "-r", "-T", str(directory / "module.lds"), "-o", module, *linked], check=True)
    return check_linked(ObjectFile.open(str(module)), [path.read_bytes() for path in made])


@pytest.mark.parametrize("flags", ['"a"', '"aM", @progbits, 12'])
@pytest.mark.parametrize(("replacement", "count"), [("lfence", 5), ("call rep_movs", 6)])
def test_all_of_it_is_seen(tmp_path: Path, flags: str, replacement: str, count: int) -> None:
    made = [_made(tmp_path, name, flags, replacement=replacement) for name in ("one", "two")]
    # Two calls, two places that an alternative names, what is called in its place, the address.
    assert _check(tmp_path, made, made) == 2 * count


@pytest.mark.parametrize("flags", ['"a"', '"aM", @progbits, 12'])
@pytest.mark.parametrize("damage", [{"place": "2b"}, {"kind": "8"}, {"replacement": "mfence"}], ids=str)
def test_an_entry_that_is_another_one(tmp_path: Path, flags: str, damage: dict[str, str]) -> None:
    made, other = _made(tmp_path, "one", flags), _made(tmp_path, "one", flags, **damage)
    with pytest.raises(BadObjectError):
        _check(tmp_path, [made], [other])
