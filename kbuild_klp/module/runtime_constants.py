# SPDX-License-Identifier: GPL-2.0-only
"""Constants that the kernel writes into its code while it boots, and that the livepatch writes into the new code.

The tables of the places come along with the code (`runtime_KIND_VARIABLE`); `live_code` says where the old code has
the values. Of a module, nobody ever writes them: up to 6.17 its code runs with what the assembler wrote, for which only
a number that does no harm is used (access_ok()), and later none has any (arch/x86/include/asm/uaccess_64.h). So new
code for a module is left as it is.
"""

from __future__ import annotations

from typing import NamedTuple

from kbuild_klp.extract.needed import Needed
from kbuild_klp.extract.runtime_tables import runtime_tables
from kbuild_klp.extract.why_not import Bar, CannotCarryError
from kbuild_klp.kernel.tree import VMLINUX
from kbuild_klp.module.live_code import LivePlace
from kbuild_klp.module.running import CarriedObject, Running


class RuntimeConstant(NamedTuple):
    """A constant in the code of an extracted object: its table there, and how many places of how many bytes that lists.

    ``live`` are places where the running kernel has it.
    """

    table: str
    places: int
    size: int
    live: tuple[LivePlace, ...]


def runtime_constants(part: CarriedObject, running: Running) -> list[RuntimeConstant]:
    """Return the constants to be written into what is carried of an object; refuses functions that need another."""
    found = []
    for table, owners in runtime_tables(part.needed).items() if part.unit == VMLINUX else ():
        try:
            found.append(_constant(part.needed, table, len(owners), running))
        except CannotCarryError as error:
            for owner in dict.fromkeys(owners):
                part.needed.refuse(owner, error)
    return found


def _constant(needed: Needed, table: str, count: int, running: Running) -> RuntimeConstant:
    arch, (_, kind, name) = needed.view.architecture, table.split("_", 2)
    size = arch.runtime_constants.get(kind)
    if size is None:
        raise CannotCarryError(Bar.RUNTIME_CONSTANT, name=name, why=f"how is not known for {arch.name}")
    live = running.live_places(table)
    if not live:
        raise CannotCarryError(Bar.RUNTIME_CONSTANT, name=name, why="no code of the old kernel has it")
    if not running.has(VMLINUX, arch.write_code, 0):
        raise CannotCarryError(Bar.RUNTIME_CONSTANT, name=name, why=f"the old kernel has no {arch.write_code}()")
    return RuntimeConstant(table, count, size, tuple(live))
