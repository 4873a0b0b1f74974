# SPDX-License-Identifier: GPL-2.0-only
"""Functions about which a table says something that is read at boot: what it says now comes too late."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from snippets import Compiler

from kbuild_klp.builds.single_object import ObjectBuild
from kbuild_klp.compare.passes import compare
from kbuild_klp.extract.extraction import extract

if TYPE_CHECKING:
    from pathlib import Path

    from linked_kernel import Kernels

# struct pci_fixup, include/linux/pci.h
_FIXUP = 'asm(".pushsection .pci_fixup_final, \\"a\\"\\n.short %s, 2\\n.long 3, 4, hook - .\\n.popsection");'
_HOOK = "int outside(int); %s hook(void *device) { outside(%s); } int other(int x) { return x; }"
LINKED = "table: .pci_fixup_final is put together when the kernel is linked"
DIFFERS = f"{LINKED}; what it says of the function differs"


def _hook(number: int = 7, fixup: str = "", kind: str = "void") -> str:
    return _HOOK % (kind, number) + fixup


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (_hook(), _hook(fixup=_FIXUP % 1)),
        (_hook(), _hook(8, _FIXUP % 1)),
        (_hook(fixup=_FIXUP % 1), _hook()),
        (_hook(fixup=_FIXUP % 1), _hook(fixup=_FIXUP % 9)),
        (_hook(fixup=_FIXUP % 1), _hook(fixup=_FIXUP % 1 + _FIXUP % 5)),
        ("int other(int x) { return x; }", _hook(fixup=_FIXUP % 1)),
        ("int other(int x) { return x; }", _hook(fixup=_FIXUP % 1, kind="static __attribute__((used)) void")),
    ],
    ids=["first", "first and code", "no more", "other device", "second", "new", "new, static"],
)
def test_what_a_table_says_differs(kernels: Kernels, old: str, new: str) -> None:
    found = kernels.of(old, new)
    assert found["hook"] == [DIFFERS]
    assert found.keys() <= {"hook", ".pci_fixup_final"}


def test_what_a_table_says_is_the_same(kernels: Kernels) -> None:
    assert kernels.of(_hook(fixup=_FIXUP % 1), _hook(8, _FIXUP % 1)) == {"hook": []}


def test_another_function_s_entry_is_no_matter(kernels: Kernels) -> None:
    fixup = (_FIXUP % 1).replace("hook - .", "other - .")
    assert kernels.of(_hook(), _hook(8, fixup)) == {"hook": [], "other": [DIFFERS]}


def test_what_the_loader_reads_in_the_livepatch_is_no_matter(kernels: Kernels) -> None:
    """NOKPROBE_SYMBOL(): the loader looks for it in each module (add_module_kprobe_blacklist in kernel/kprobes.c)."""
    blacklist = 'asm(".pushsection _kprobe_blacklist, \\"aw\\"\\n.quad hook\\n.popsection");'
    assert kernels.of(_hook(), _hook(fixup=blacklist)) == {"hook": []}


@pytest.mark.parametrize("section", [".init_array", ".ctors.65435", ".fini_array"])
def test_a_constructor_has_been_called(kernels: Kernels, section: str) -> None:
    table = f'asm(".pushsection {section}, \\"aw\\"\\n.quad hook\\n.popsection");'
    reason = f"table: {section} names it, which is called at boot, or with its module"
    assert kernels.of(_hook(fixup=table), _hook(8, table)) == {"hook": [reason]}


def test_a_table_that_nobody_knows(kernels: Kernels) -> None:
    """What it is for, and whether the livepatch needs an entry, is not for us to guess."""
    table = 'asm(".pushsection .vendor_sites, \\"a\\"\\n.long hook - .\\n.popsection");'
    kernels.build({"kernel/unit.o": _hook(fixup=table)}, {"kernel/unit.o": _hook(8, table)})
    reason = "table: .vendor_sites names it, and no row of special.toml is about that"
    assert kernels.verdicts(warnings=2) == {"hook": [reason]}


def test_extraction_says_the_same(gcc: Compiler, tmp_path: Path) -> None:
    traced, output = ("-pg", "-mfentry", "-mrecord-mcount"), tmp_path / "out.o"
    old, same, other = (
        str(gcc.object(source, *traced))
        for source in (_hook(fixup=_FIXUP % 1), _hook(8, _FIXUP % 1), _hook(8, _FIXUP % 2))
    )
    assert {item.symbol for item in extract(old, same, str(output)).carried if item.kind == "function"} == {"hook"}
    [refusal] = extract(old, other, str(output)).refused
    assert (refusal.symbol, refusal.reason) == ("hook", DIFFERS)
    [group] = compare(ObjectBuild(old), ObjectBuild(other)).objects
    assert [change.livepatch.possible for change in group.changes] == [False]
