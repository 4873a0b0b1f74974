# SPDX-License-Identifier: GPL-2.0-only
"""The symbols of a linked image in either byte order."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

from kbuild_klp.elf import constants as elf
from kbuild_klp.elf.writer import OutputSection, OutputSymbol, write_object
from kbuild_klp.livepatch.linked_symbols import LinkedSymbols
from kbuild_klp.livepatch.rules import Position
from kbuild_klp.livepatch.sides import FunctionSymbol

_EM_OTHER = 0x4D55
_PLACES = (0x100, 0x204)


@pytest.mark.parametrize("byteorder", ["little", "big"])
def test_functions_that_ftrace_knows(tmp_path: Path, byteorder: Literal["little", "big"]) -> None:
    text = OutputSection(".text", elf.SHF_ALLOC | elf.SHF_EXECINSTR, data=bytearray(64))
    listed = OutputSection(".init.data", elf.SHF_ALLOC, data=bytearray(8 * len(_PLACES)))
    for number, place in enumerate(_PLACES):
        listed.data[8 * number : 8 * number + 8] = place.to_bytes(8, byteorder)
    names = {"traced": 0x100, "patched": 0x200, "untraced": 0x300, "__start_mcount_loc": 0, "__stop_mcount_loc": 16}
    symbols = [OutputSymbol(name, text, value, 0x40, elf.STT_FUNC, elf.STB_GLOBAL) for name, value in names.items()]
    path = tmp_path / "vmlinux"
    # The list lies at address 0, where it is found first.
    path.write_bytes(write_object(_EM_OTHER, byteorder, [listed, text], symbols))
    linked = LinkedSymbols(path, "vmlinux", {*names})
    found = {
        name: linked.position(FunctionSymbol(name, 0x40, False, False, ""), "", None)
        for name in ("traced", "patched", "untraced")
    }
    assert found == {
        "traced": Position("vmlinux", 1, 1, False, True),
        "patched": Position("vmlinux", 1, 1, False, True),
        "untraced": Position("vmlinux", 1, 1, False, False),
    }
