# SPDX-License-Identifier: GPL-2.0-only
"""ORC entries belong to the places beside them: right bytes at another place unwind a stack wrongly."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from kbuild_klp.elf.reader import ObjectFile
from kbuild_klp.errors import BadObjectError
from kbuild_klp.module.finished import check_linked

# Entries of 6 bytes (struct orc_entry, arch/x86/include/asm/orc_types.h), of which 2 are the stack's offset.
_CODE = """
	.section .text.{name}, "ax"
	.type {name}, @function
{name}:	push %rax
1:	pop %rax
	ret
	.size {name}, . - {name}
	.section .orc_unwind_ip, "a"
	.long {name} - ., 1b - .
	.section .orc_unwind, "a"
	.short {first}, 0, 0x1205
	.short {second}, 0, 0x1205
	.section .init.{name}, "a"
	.globl table_{name}
table_{name}:	.quad {name}
"""


def _made(directory: Path, name: str, first: int, second: int) -> Path:
    path = directory / f"{name}{first}{second}.o"
    text = _CODE.format(name=name, first=first, second=second)
    subprocess.run(["gcc", "-c", "-x", "assembler", "-", "-o", str(path)], input=text, text=True, check=True)
    return path


def _check(directory: Path, made: list[Path], linked: list[Path]) -> int:
    module = directory / "module.o"
    subprocess.run(["ld", "-r", "-o", str(module), *map(str, linked)], check=True)
    return check_linked(ObjectFile.open(module), [path.read_bytes() for path in made])


def test_each_object_has_its_own(tmp_path: Path) -> None:
    glue, one, two = (_made(tmp_path, name, 8, 16) for name in ("glue", "one", "two"))
    assert _check(tmp_path, [one, two], [glue, one, two]) == 6


@pytest.mark.parametrize("numbers", [(16, 8), (8, 8)])
def test_bytes_that_are_right_elsewhere(tmp_path: Path, numbers: tuple[int, int]) -> None:
    glue, one = _made(tmp_path, "glue", 8, 16), _made(tmp_path, "one", 8, 16)
    with pytest.raises(BadObjectError, match="its bytes differ"):
        _check(tmp_path, [one], [glue, _made(tmp_path, "one", *numbers)])
