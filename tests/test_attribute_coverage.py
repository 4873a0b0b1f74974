# SPDX-License-Identifier: GPL-2.0-only
"""Each attribute of each symbol and section belongs to an entry, or to a row that says why it need not.

tests/attribute_coverage.py does the same to all objects of a kernel.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from attribute_coverage import Count, Row, cover
from kernel_like import source
from snippets import Compiler, data_changed
from test_invariants import C_SOURCE

from kbuild_klp.elf.objects import Objects
from kbuild_klp.elf.reader import ObjectFile
from kbuild_klp.kernel.tree import BuildTree

LARGEST = 40_000


def test_every_attribute_of_a_compiled_object_is_covered(cc: Compiler) -> None:
    count = cover(cc.object(C_SOURCE).read_bytes(), "unit.o")
    assert count.missed == []
    assert count.covered["symbol visibility"] >= 15 and count.covered["section flags"] >= 20


def test_every_attribute_of_an_object_with_special_sections_is_covered(gcc: Compiler) -> None:
    assert cover(gcc.assembly(source()).read_bytes(), "unit.o").missed == []


def test_an_attribute_that_is_not_hashed_is_missed(gcc: Compiler, monkeypatch: pytest.MonkeyPatch) -> None:
    """The count can fail: without visibility in the checksums it does."""

    class WithoutVisibility(Objects):
        def __init__(self, files: Sequence[ObjectFile]) -> None:
            super().__init__(files)
            self.symbols = self.symbols.copy()
            self.symbols["other"] = 0

    monkeypatch.setattr("kbuild_klp.object.canonical.Objects", WithoutVisibility)
    missed = cover(gcc.object(C_SOURCE).read_bytes(), "unit.o").missed
    assert len(missed) >= 15 and all(line.endswith(": visibility") for line in missed)


def test_every_attribute_of_real_objects_is_covered() -> None:
    tree = os.environ.get("KLP_TEST_TREE")
    if not tree:
        pytest.skip("KLP_TEST_TREE names no built kernel tree")
    names = sorted({name for unit in BuildTree.open(tree).units() for name in unit.objects})
    names = [name for name in names if (Path(tree) / name).stat().st_size <= LARGEST]
    total = Count()
    for name in random.Random(1).sample(names, 12):
        total.add(cover((Path(tree) / name).read_bytes(), name))
    print(*total.report(), sep="\n")
    assert total.missed == []
    assert total.total > 3000 and not {row for _, row in total.excused} - set(Row)


def test_a_string_that_moves_to_init_memory_changes_who_uses_it(gcc: Compiler) -> None:
    """Init memory is given back after boot: who uses the string later reads something else."""
    text = "\t.text\n\t.globl f\n\t.type f, @function\nf:\tmov $1f, %rdi\n\tret\n\t.size f, .-f\n"
    old, new = (f'{text}\t.section {name},"a"\n1:\t.string "text"\n' for name in (".rodata.text", ".init.rodata"))
    assert gcc.diff_assembly(old, new) == {("f", "function", "changed")}


def test_a_variable_that_loses_its_alignment_is_changed(gcc: Compiler) -> None:
    """Another variable has the same alignment, so that the section keeps it: the places of all tell."""
    text = "int first, a __attribute__((aligned({}))), b __attribute__((aligned(64)));{}"
    old, new = text.format(64, ""), text.format(4, "")
    assert gcc.diff(old, new) == {(".bss", "section", "changed")}
    # Where one comes or goes, the others move: that is no change of theirs.
    assert gcc.diff(old, text.format(64, " int fresh;")) == {("fresh", "data", "added")}
    assert gcc.diff(text.format(64, " char grown[3];"), text.format(64, " char grown[70];")) == data_changed("grown")
