# SPDX-License-Identifier: GPL-2.0-only
"""Constants that the kernel writes into its code while it boots: taken from old code, written into new code."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from linked_mutations import make

from kbuild_klp.elf.reader import ObjectFile
from kbuild_klp.errors import KlpError
from kbuild_klp.livepatch.linked_symbols import open_linked
from kbuild_klp.module.live_code import OPCODE, LivePlace, live_places

if TYPE_CHECKING:
    from pathlib import Path

    from module.conftest import PatchedKernels

# runtime_const_ptr() and its like (arch/x86/include/asm/runtime-const.h, 6.12).
_HEADER = r"""
#define PTR(sym) ({ unsigned long __ret; asm("mov %1,%0\n1:\n" \
    ".pushsection runtime_ptr_" #sym ",\"a\"\n.long 1b - 8 - .\n.popsection" \
    : "=r" (__ret) : "i" (0x0123456789abcdefUL)); __ret; })
#define SHIFT(value, sym) ({ unsigned int __ret = value; asm("shrl $12,%k0\n1:\n" \
    ".pushsection runtime_shift_" #sym ",\"a\"\n.long 1b - 1 - .\n.popsection" : "+r" (__ret)); __ret; })
#define MASK(value, sym) ({ unsigned int __ret = value; asm("and $0x12345678,%k0\n1:\n" \
    ".pushsection runtime_mask_" #sym ",\"a\"\n.long 1b - 4 - .\n.popsection" : "+r" (__ret)); __ret; })
"""
_USER = _HEADER + "unsigned long user(unsigned long x) { return x < PTR(limit) ? x : OLD; }\n"
_OTHERS = {
    "kernel/others.o": _HEADER
    + """
static __attribute__((noinline)) unsigned long twin(unsigned long x) { return x + PTR(limit); }
unsigned long first(unsigned long x) { return twin(x) + 1; }
unsigned long second(unsigned long x) { return SHIFT(x, bits) ^ MASK(x, mask) ^ PTR(limit); }
__attribute__((section(".init.text"))) unsigned long early(unsigned long x) { return PTR(limit) + PTR(young) + x; }
""",
    "kernel/twin.o": 'static __attribute__((noinline)) int twin(int x) { asm(""); return x; }\n'
    "int third(int x) { return twin(x) + 1; }\n",
    "kernel/write.o": "void *text_poke_copy(void *where, const void *what, unsigned long size) { return where; }\n",
}


def test_it_is_read_where_the_running_kernel_has_it(kernels: PatchedKernels) -> None:
    made = kernels.made(_USER.replace("OLD", "5"), _USER.replace("OLD", "6"), **_OTHERS)
    assert made.carried == {("kernel/unit.o", "user")}
    # Not in init code, which is gone, nor in a function whose name two have.
    live = made.relocations[".klp.rela.vmlinux..init.rodata"]
    assert [goal.partition("+")[0] for goal in live] == [".klp.sym.vmlinux.user,0", ".klp.sym.vmlinux.second,0"]
    assert {".klp.sym.vmlinux.text_poke_copy,0-4"} <= {*made.relocations[".klp.rela.vmlinux..text"]}
    assert len(made.relocations[".relaruntime_ptr_limit"]) == 1


def _content(vmlinux: Path, place: LivePlace, size: int) -> int:
    """Return the number that stands at a place, little-endian."""
    file = open_linked(vmlinux)
    symbol = [file.symbol_name(number) for number in range(len(file.symbols))].index(place.name)
    section = int(file.shndx[symbol])
    at = int(file.symbols["value"][symbol]) + place.offset - int(file.sections["addr"][section])
    return int.from_bytes(file.section_bytes(section)[at : at + size], "little")


@pytest.mark.parametrize("text", ["0x1000000", "0xffffffff81000000"])
def test_the_places_of_the_old_kernel(kernels: PatchedKernels, text: str) -> None:
    kernels.build({"kernel/unit.o": _USER.replace("OLD", "5"), **_OTHERS}, {})
    objects = kernels.old.builtin
    kernels.old.run("ld", "-o", "linked", "-e", "0", f"-Ttext={text}", "--unresolved-symbols=ignore-all", *objects)
    vmlinux = kernels.old.root / "linked"
    wanted = {
        ("runtime_shift_bits", 1): [("second", 12)],
        ("runtime_mask_mask", 4): [("second", 0x12345678)],
        ("runtime_ptr_limit", 8): [("user", 0x0123456789ABCDEF), ("second", 0x0123456789ABCDEF)],
        ("runtime_ptr_young", 8): [],  # in init code only
        ("runtime_ptr_none", 8): [],
    }
    for (table, size), places in wanted.items():
        found = live_places(vmlinux, table)
        assert [(place.name, _content(vmlinux, place, size)) for place in found] == places
    assert live_places(vmlinux, "runtime_shift_bits")[0].opcode[0] == 0xC1
    assert live_places(vmlinux, "runtime_ptr_limit")[0].opcode[0] == 0x48


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("5", "PTR(young)", "no code of the old kernel has it"),
        ("5", "PTR(fresh)", "no code of the old kernel has it"),
        ("5", "SIGN(limit)", "how is not known for x86_64"),
    ],
)
def test_what_no_old_code_says(kernels: PatchedKernels, old: str, new: str, why: str) -> None:
    source = "#define SIGN(sym) PTR(sym)\n" + _USER
    if "SIGN" in new:
        source = _HEADER.replace("runtime_ptr", "runtime_sign") + "#define SIGN PTR\n" + _USER.removeprefix(_HEADER)
    made = kernels.made(source.replace("OLD", old), source.replace("OLD", new), **_OTHERS)
    assert made.refused == {("user", "runtime-constant")}
    assert why in made.errors


def test_a_kernel_that_cannot_write(kernels: PatchedKernels) -> None:
    others = {**_OTHERS, "kernel/write.o": "int nothing_to_write;\n"}
    made = kernels.made(_USER.replace("OLD", "5"), _USER.replace("OLD", "6"), **others)
    assert made.refused == {("user", "runtime-constant")}
    assert "no text_poke_copy()" in made.errors


def test_of_a_module_it_stays_what_it_is(kernels: PatchedKernels) -> None:
    """Nobody writes it into the module either."""
    old, new = (_USER.replace("OLD", number) for number in ("5", "6"))
    kernels.build({"drivers/unit.o": old, **_OTHERS}, {"drivers/unit.o": new})
    kernels.prepare()
    made = kernels.patch()
    assert made.carried == {("drivers/unit.o", "user")}
    assert not made.livepatch_symbols


def test_another_place_is_noticed(kernels: PatchedKernels) -> None:
    kernels.build({"kernel/unit.o": _USER.replace("OLD", "5"), **_OTHERS}, {"kernel/unit.o": _USER.replace("OLD", "6")})
    kernels.prepare()
    made = make(kernels.old.root, kernels.new.root)
    made.check(made.finished)
    file, data = ObjectFile(made.finished, "livepatch.ko"), made.finished
    table = file.section_names.index(".klp.rela.vmlinux..init.rodata")
    start, size = (int(file.sections[field][table]) for field in ("offset", "size"))
    names = [file.symbol_name(number) for number in range(len(file.symbols))]
    opcodes = names.index("klp_opcodes_runtime_ptr_limit")
    begin = int(file.sections["offset"][file.shndx[opcodes]]) + int(file.symbols["value"][opcodes])
    places = [start + row + field for row in range(0, size, 24) for field in (0, 8, 12, 16)]
    places += range(begin, begin + int(file.symbols["size"][opcodes]))
    assert len(places) == 2 * 4 + 2 * OPCODE
    for place in places:
        with pytest.raises(KlpError):
            made.check(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
