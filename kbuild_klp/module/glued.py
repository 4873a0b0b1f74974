# SPDX-License-Identifier: GPL-2.0-only
"""The arrays that register the patch, read back from the finished module (struct klp_patch, include/linux/livepatch.h).

klp_func begins with old_name, new_func and old_sympos, and klp_object with name and funcs, in all kernels so far. Which
new function goes where is code, and not read: the array that it is taken from is (`finished`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kbuild_klp.elf.reader import ObjectFile
from kbuild_klp.errors import BadObjectError
from kbuild_klp.kernel.tree import VMLINUX
from kbuild_klp.module.finished import Destination, NewPlace, RelocatedFile
from kbuild_klp.module.glue import FUNCTIONS, LIVE, OBJECTS, OPCODES, GluedObject
from kbuild_klp.module.live_code import OPCODE
from kbuild_klp.module.livepatch_elf import livepatch_symbol, module_name, wrong_module
from kbuild_klp.module.runtime_constants import RuntimeConstant

_POINTER, _POSITION = 8, 16


def check_glue(module: ObjectFile, units: Mapping[str, Sequence[GluedObject]]) -> None:
    """Check that each old function is named, where it stands; ``units`` is what was glued. Raises BadObjectError."""
    arrays = _Arrays(module)
    objects = arrays.rows(OBJECTS, len(units))
    for number, (unit, glued) in enumerate(units.items()):
        name, functions = FUNCTIONS.format(number), [row for it in glued for row in it.functions]
        rows = arrays.rows(name, len(functions))
        known = arrays.text(objects[number])
        if known != ("" if unit == VMLINUX else module_name(unit)):
            raise arrays.wrong(f"it names object {known!r}, not {unit}")
        if arrays.goal(objects[number], _POINTER) != rows[0]:
            raise arrays.wrong(f"the functions of {unit} are not registered")
        for row, function in zip(rows, functions, strict=False):
            position = arrays.number(row, _POSITION)
            if (arrays.text(row), position) != function:
                raise arrays.wrong(f"it replaces {arrays.text(row)},{position}, not {function.name}")
    for constant in {constant for glued in units.values() for it in glued for constant in it.constants}:
        arrays.check_constant(constant)


class _Arrays:
    """The arrays of structures that a module defines."""

    def __init__(self, module: ObjectFile) -> None:
        self.module = RelocatedFile(module)
        self._pointer = self.module.architecture.pointer
        names = [module.symbol_name(number) for number in range(len(module.symbols))]
        self._sizes = {name: int(module.symbols["size"][number]) for number, name in enumerate(names)}

    def rows(self, name: str, count: int) -> list[NewPlace]:
        """Return where the elements of an array are, of which there are ``count`` and an empty one."""
        found = self.start(name)
        if self._sizes[name] % (count + 1):
            raise self.wrong(f"it has no array {name} of {count}")
        size = self._sizes[name] // (count + 1)
        rows = [NewPlace(found.section, found.place + size * row) for row in range(count + 1)]
        if self.goal(rows[count], 0) or self.goal(rows[count], _POINTER):
            raise self.wrong(f"array {name} does not end")
        return rows

    def goal(self, row: NewPlace, field: int) -> NewPlace | None:
        """Return where a pointer leads, None for NULL."""
        found = self.module.rows[row.section].get(row.place + field)
        if found is None:
            return None
        is_pointer = found.type == self._pointer and found.section > 0
        return NewPlace(found.section, found.place) if is_pointer else NewPlace(-1, 0)

    def text(self, row: NewPlace) -> str:
        """Return the string to which the first field leads, empty for NULL."""
        goal = self.goal(row, 0)
        if goal is None:
            return ""
        content = self.module.content(goal.section) if goal.section > 0 else b""
        return content[goal.place :].partition(b"\0")[0].decode("latin-1")

    def number(self, row: NewPlace, field: int) -> int:
        """Return the value of an unsigned long."""
        at = row.place + field
        return int.from_bytes(self.module.content(row.section)[at : at + 8], self.module.file.byteorder)

    def check_constant(self, constant: RuntimeConstant) -> None:
        """See whether a constant is taken from where the running kernel has it; raises BadObjectError."""
        live, opcodes = (self.start(name.format(constant.table)) for name in (LIVE, OPCODES))
        for number, place in enumerate(constant.live):
            goal = self.module.rows[live.section].get(live.place + 8 * number)
            wanted = Destination(self._pointer, -1, place.offset, livepatch_symbol(VMLINUX, place.name, 0))
            at = opcodes.place + OPCODE * number
            opcode = self.module.content(opcodes.section)[at : at + OPCODE]
            if goal != wanted or opcode != place.opcode:
                raise self.wrong(f"{constant.table} is read at another place than {place.name}+{place.offset:#x}")

    def start(self, name: str) -> NewPlace:
        """Return where an array begins."""
        found = self.module.defined.get(name, [])
        if len(found) != 1:
            raise self.wrong(f"it has no array {name}")
        return found[0]

    def wrong(self, what: str) -> BadObjectError:
        """Make the error that names the module."""
        return wrong_module(self.module.file, what)
