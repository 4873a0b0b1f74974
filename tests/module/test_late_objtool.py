# SPDX-License-Identifier: GPL-2.0-only
"""Under IBT and LTO objtool sees the whole livepatch, and makes no table of which an object has brought one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from module.conftest import PatchedKernels

# What is there of a module of one object, which objtool has seen by itself: where the function returns, and how the
# stack lies in it (one entry, and one of nothing at the end).
_SEEN = r"""

int printk(const char *, ...);
__attribute__((section(".text.here"))) int user(int x)
{
    asm volatile("1:\n"
        ".pushsection .return_sites,\"a\"\n.balign 4\n.long 1b - .\n.popsection\n"
        ".pushsection .orc_unwind,\"a\"\n.byte 8, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0\n.popsection\n"
        ".pushsection .orc_unwind_ip,\"a\"\n.balign 4\n.long .text.here - ., 1b + 1 - .\n.popsection");
    return x + OLD;
}
"""
_RULE = "other := x\ndelay-objtool := $(or $(CONFIG_LTO_CLANG),$(CONFIG_X86_KERNEL_IBT))\n"
_TABLES = {".return_sites", ".orc_unwind", ".orc_unwind_ip"}


@pytest.mark.parametrize(
    ("setting", "rules", "is_late"),
    [
        ("CONFIG_X86_KERNEL_IBT=y", _RULE, True),
        ("CONFIG_LTO_CLANG=y", _RULE, True),
        ("CONFIG_LTO_NONE=y", _RULE, False),
        ("CONFIG_KLP_BUILD=y", "delay-objtool := $(or $(CONFIG_LTO_CLANG),$(CONFIG_KLP_BUILD))", True),  # 6.19
        ("CONFIG_KLP_BUILD=y", _RULE, False),
        ("CONFIG_X86_KERNEL_IBT=y", "", False),
    ],
)
def test_tables_that_objtool_makes_of_the_whole(
    kernels: PatchedKernels, setting: str, rules: str, is_late: bool
) -> None:
    old, new = (_SEEN.replace("OLD", number) for number in "12")
    kernels.build({"drivers/unit.o": old}, {"drivers/unit.o": new})
    kernels.prepare()
    configuration = (kernels.old.root / "include/config/auto.conf").read_text()
    kernels.old.write("include/config/auto.conf", f"{configuration}{setting}\n")
    kernels.old.write("scripts/Makefile.lib", rules)
    made = kernels.patch()
    assert made.carried == {("drivers/unit.o", "user")}
    names = {word for word in made.readelf("-S").split() if word in _TABLES}
    assert names == (set() if is_late else _TABLES)
