# SPDX-License-Identifier: GPL-2.0-only
"""Where the running kernel's code holds the constants that were written into it while it booted.

While it boots, the kernel writes a variable into each place of its own code that a table `runtime_KIND_VARIABLE` lists
(arch/x86/include/asm/runtime-const.h, 6.11; include/asm-generic/vmlinux.lds.h). It never does so for a module: new code
has to get the value from old code. Not from the variable: what is written is what the name means to the compiler, for
an array its address, and the variable itself may be local to the function that writes.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from kbuild_klp.elf import constants as elf
from kbuild_klp.elf.objects import Objects
from kbuild_klp.livepatch.linked_symbols import distances_of, open_linked
from kbuild_klp.livepatch.rules import is_init

OPCODE = 2
"""Bytes before a constant by which the module sees that no probe has been put over the instruction."""
_ENOUGH = 3
_NO_FUNCTION = ("__pfx_", "__cfi_")


class LivePlace(NamedTuple):
    """A constant in the code of vmlinux: ``offset`` bytes behind function ``name``, ``opcode`` before it.

    The function is the only one of its name.
    """

    name: str
    offset: int
    opcode: bytes


def live_places(vmlinux: Path, table: str) -> list[LivePlace]:
    """Return some of the places that a table of vmlinux lists, each in another function; none if there is no table.

    Raises BadObjectError.
    """
    file = open_linked(vmlinux)
    addresses = distances_of(file, table)
    symbols, objects = file.symbols, Objects.of(file)
    is_function = (symbols["info"] & 0xF == elf.STT_FUNC) & (symbols["size"] > 0) & (file.shndx > 0)
    functions = is_function.nonzero()[0]
    functions = functions[np.argsort(symbols["value"][functions], kind="stable")]
    starts = symbols["value"][functions].astype(np.uint64)
    found: dict[bytes, LivePlace] = {}
    for address in addresses.tolist():
        at = int(np.searchsorted(starts, np.uint64(address), "right")) - 1
        if at < 0:
            continue
        symbol = int(functions[at])
        section, offset = int(file.shndx[symbol]), address - int(starts[at])
        name = objects.encoded_name(symbol)
        if offset >= int(symbols["size"][symbol]) or offset < OPCODE or is_init(file.section_names[section]):
            continue
        place = address - int(file.sections["addr"][section])
        opcode = bytes(file.section_array(section)[place - OPCODE : place])
        found.setdefault(name, LivePlace(name.decode("utf-8", "surrogateescape"), offset, opcode))
    names = [name for _, name in objects.named(found)]
    unique = [it for name, it in found.items() if names.count(name) == 1 and not it.name.startswith(_NO_FUNCTION)]
    return unique[:_ENOUGH]
