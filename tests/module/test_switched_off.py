# SPDX-License-Identifier: GPL-2.0-only
"""What objtool switches off in a module's code is the same code, and nothing else is."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from kbuild_klp.elf.reader import ObjectFile
from kbuild_klp.errors import BadObjectError
from kbuild_klp.module.finished import check_linked

CODE = """
	.section .text.f, "ax"
	.type f, @function
f:	nopl 8(%rax)
1:	{first}
	incl %eax
2:	{second}
	ret
3:	decl %eax
	ret
	.size f, . - f
	.section __jump_table, "aw"
	.balign 8
	.long 1b - ., 3b - .
	.quad key + {flag} - .
	.long 2b - ., elsewhere - .
	.quad key + {flag} - .
	.section .data.table, "aw"
	.globl table
table:	.quad f
"""
SHORT, LONG = ".byte 0xeb, 3f - . - 1", "jmp elsewhere"
NOP2, NOP5 = ".byte 0x66, 0x90", ".byte 0x0f, 0x1f, 0x44, 0, 0\n\t.reloc . - 4, R_X86_64_NONE"
# The loader would write into it.
HALF = NOP5.replace("R_X86_64_NONE", "R_X86_64_PLT32, elsewhere - 4")


def _object(path: Path, first: str, second: str, flag: int) -> Path:
    text = CODE.format(first=first, second=second, flag=flag)
    subprocess.run(["gcc", "-c", "-x", "assembler", "-", "-o", str(path)], input=text, text=True, check=True)
    return path


def _check(directory: Path, first: str, second: str, flag: int) -> int:
    made = _object(directory / "made.o", SHORT, LONG, flag)
    module = _object(directory / "module.o", first, second, flag)
    return check_linked(ObjectFile.open(module), [made.read_bytes()])


@pytest.mark.parametrize(("first", "second"), [(SHORT, LONG), (NOP2, LONG), (SHORT, NOP5), (NOP2, NOP5)])
def test_jumps_that_begin_as_nops(tmp_path: Path, first: str, second: str) -> None:
    assert _check(tmp_path, first, second, 2) == 8


@pytest.mark.parametrize(
    ("first", "second", "flag", "what"),
    [
        (NOP2, LONG, 0, "its bytes differ"),
        (SHORT, NOP5, 0, "leads elsewhere"),
        (SHORT, HALF, 2, "leads elsewhere"),
        (SHORT, NOP5.replace("0, 0", "0, 1"), 2, "leads elsewhere"),
        (".byte 0xeb, 3f - . - 2", LONG, 2, "its bytes differ"),
        (SHORT, "jmp other", 2, "leads elsewhere"),
    ],
)
def test_other_jumps(tmp_path: Path, first: str, second: str, flag: int, what: str) -> None:
    with pytest.raises(BadObjectError, match=what):
        _check(tmp_path, first, second, flag)
