# SPDX-License-Identifier: GPL-2.0-only
"""Branches of two bytes to another function, which is not close by any more when a function is carried."""

from __future__ import annotations

import random
import re
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from extracted_mutations import Made, functions, make, survivors
from snippets import Compiler

from kbuild_klp.elf.reader import ObjectFile
from kbuild_klp.errors import KlpError
from kbuild_klp.extract.correlated import Correlated
from kbuild_klp.extract.extraction import extract
from kbuild_klp.extract.relocated import RelocatedObject
from kbuild_klp.object.view import ObjectView

SOURCE = """
    .text
    .type before, @function
before: mov %edi, %eax
    ret
    .size before, . - before
    .globl user
    .type user, @function
user: call __fentry__
    add ${number}, %edi
    push %rbx
    {body}
    pop %rbx
.Llast: jmp behind
    .size user, . - user
    .type behind, @function
behind: mov %esi, %eax
    ret
    .size behind, . - behind
    .section __mcount_loc, "a"
    .quad user
"""
UNWIND = """
    .section .orc_unwind, "a"
    .ascii "begin!", "pushed", "popped"
    .fill 6, 1, 0
    .section .orc_unwind_ip, "a"
    .long user - ., user + 9 - ., .Llast - ., behind - .
"""


def made_of(path: Path) -> Made:
    view = ObjectView(str(path))
    return make(
        Correlated(view, view), RelocatedObject(view), [it for it in functions(view) if view.part_name(it) == "user"]
    )


def listing(path: Path, data: bytes) -> list[str]:
    """Return the instructions that follow the one that changed, with what their relocations go to."""
    path.write_bytes(data)
    command = ["objdump", "-dr", "--no-show-raw-insn", "-j", ".text.user", str(path)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.findall(r"^\s+[0-9a-f]+:\s+(.*\S)", text, re.MULTILINE)
    return [" ".join(line.split()) for line in found][3:]


def test_a_short_branch_lands_at_a_jump(gcc: Compiler, tmp_path: Path) -> None:
    olds, news = (gcc.assembly(SOURCE.format(number=number, body="")) for number in (1, 2))
    found = extract(str(olds), str(news), str(tmp_path / "out.o"))
    assert not found.refused
    assert [(item.symbol, item.size) for item in found.carried] == [("user", 12)]
    assert listing(tmp_path / "copy.o", (tmp_path / "out.o").read_bytes()) == [
        *("push %rbx", "pop %rbx", "jmp c <user+0xc>"),
        *("jmp 11 <user+0x11>", "R_X86_64_PLT32 behind-0x4"),
    ]


def test_each_of_several_goes_where_it_went(gcc: Compiler, tmp_path: Path) -> None:
    made = made_of(gcc.assembly(SOURCE.format(number=1, body="je before\n    jne behind")))
    assert made.check() == 1
    assert listing(tmp_path / "copy.o", made.data) == [
        *("push %rbx", "je 10 <user+0x10>", "jne 15 <user+0x15>", "pop %rbx", "jmp 1a <user+0x1a>"),
        *("jmp 15 <user+0x15>", "R_X86_64_PLT32 before-0x4"),
        *("jmp 1a <user+0x1a>", "R_X86_64_PLT32 behind-0x4"),
        *("jmp 1f <user+0x1f>", "R_X86_64_PLT32 behind-0x4"),
    ]


def test_what_is_too_far_from_the_end_is_refused(gcc: Compiler, tmp_path: Path) -> None:
    body = "je before\n    .rept {}\n    nop\n    .endr"
    near = made_of(gcc.assembly(SOURCE.format(number=1, body=body.format(124))))
    assert not near.needed.refused
    assert near.check() == 1
    far = made_of(gcc.assembly(SOURCE.format(number=1, body=body.format(125))))
    assert [refusal.reason for refusal in far.needed.refused] == [
        "the branch at +0xa to before is too short to reach another section"
    ]


def test_the_unwinder_is_told_of_the_jump(gcc: Compiler, tmp_path: Path) -> None:
    made = made_of(gcc.assembly(SOURCE.format(number=1, body="jne behind") + UNWIND))
    assert made.check() == 1
    file = ObjectFile(made.data, "out.o")
    rows = ObjectView(file).object.relocations(np.array([file.section_names.index(".orc_unwind_ip")]))
    content = file.section_bytes(file.section_names.index(".orc_unwind"))
    entries = [bytes(content[at : at + 6]) for at in range(0, len(content), 6)]
    assert list(zip(rows.addend.tolist(), entries, strict=True)) == [
        *((0, b"begin!"), (9, b"pushed"), (12, b"popped")),
        *((14, b"pushed"), (19, b"popped"), (24, bytes(6))),
    ]


@pytest.mark.parametrize("seed", range(3))
def test_no_damage_stays_unnoticed(gcc: Compiler, seed: int) -> None:
    made = made_of(gcc.assembly(SOURCE.format(number=1, body="je before\n    jne behind") + UNWIND))
    tried = Counter[str]()
    assert [*survivors(made, 100, random.Random(seed), tried)] == []
    assert sum(tried.values()) > 100


def test_the_checks_name_the_jump(gcc: Compiler) -> None:
    made = made_of(gcc.assembly(SOURCE.format(number=1, body="")))
    at = made.data.index(b"\xe9\0\0\0\0")
    with pytest.raises(KlpError, match="the jump behind it differs"):
        made.check(made.data[:at] + b"\xe8" + made.data[at + 1 :])
