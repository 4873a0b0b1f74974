# SPDX-License-Identifier: GPL-2.0-only
"""What the kernel does for its own code while it boots, and for the code of a module too early or not at all."""

from __future__ import annotations

import pytest
from extracted_mutations import functions
from snippets import Compiler

from kbuild_klp.extract.correlated import Correlated
from kbuild_klp.extract.needed import Needed
from kbuild_klp.extract.relocated import RelocatedObject
from kbuild_klp.extract.wanted import Taken
from kbuild_klp.module.loading import refuse_what_comes_too_early
from kbuild_klp.module.running import CarriedObject
from kbuild_klp.object.view import ObjectView

_TWO = """
    .text
    .globl hash, plain
    .type hash, @function
hash:
    movabs $0x0123456789abcdef, %rax
1:
    .pushsection runtime_ptr_table, "a"
    .long 1b - 8 - .
    .popsection
    ret
    .size hash, . - hash
    .type plain, @function
plain:
661: nop; nop; nop
662:
    .pushsection .altinstructions, "a"
    .long 661b - ., 663f - .
    .short 11, 0
    .byte 662b - 661b, 664f - 663f
    .popsection
    .pushsection .altinstr_replacement, "ax"
663: lfence
664:
    .popsection
    ret
    .size plain, . - plain
"""


@pytest.mark.parametrize(
    ("name", "refused"), [("plain", []), ("hash", [("hash", "runtime-constant")])], ids=["alternative", "runtime"]
)
def test_a_runtime_constant_is_never_written_into_a_module(
    gcc: Compiler, name: str, refused: list[tuple[str, str]]
) -> None:
    view = ObjectView(str(gcc.assembly(_TWO)))
    mains = [part for part in functions(view) if view.part_name(part) == name]
    needed = Needed(Correlated(view, view), RelocatedObject(view), [(part, "changed") for part in mains])
    refuse_what_comes_too_early(CarriedObject("x.o", "vmlinux", Taken(needed, [], [])), {})
    assert [(it.symbol, it.bar.word) for it in needed.refused] == refused
