# SPDX-License-Identifier: GPL-2.0-only
"""pr_debug(): a site that the running kernel has is its own, for it may be switched on; a new one is the patch's."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from module.conftest import Made, PatchedKernels

# struct _ddebug, and the jump label with the key in it (include/linux/dynamic_debug.h); one site to a line.
_C = r"""
struct ddebug { const char *module, *function, *file, *format; unsigned line : 18, rest : 14; long key[2]; };
int printk(void *, ...);
#define JOIN(a, b) JOINED(a, b)
#define JOINED(a, b) a##b
#define pr_debug(text) pr_debug_at(JOIN(__UNIQUE_ID_ddebug, __COUNTER__), text)
#define pr_debug_at(site, text) ({ \
    static struct ddebug __attribute__((aligned(8), section("__dyndbg"))) \
        site = { "m", __func__, "m.c", text, __LINE__ }; \
    asm volatile("1: .byte 0xeb, 0\n.pushsection __jump_table,\"aw\"\n.balign 8\n.long 1b - ., 1b - .\n" \
        ".quad %c0 + 42 - .\n.popsection" :: "i"(&site)); \
    printk(&site, text); })
BEFORE
int user(int x)
{
    FIRST
    pr_debug("asked");
    LAST
    return x + OLD;
}
int other(int x) { pr_debug("asked"); return x; }
"""


def _source(by: int, first: str = "", last: str = "", before: str = "") -> str:
    texts = {"OLD": str(by), "FIRST": first, "LAST": last, "BEFORE": before}
    return re.sub("OLD|FIRST|LAST|BEFORE", lambda found: texts[found[0]], _C)


def _sites(made: Made) -> list[str]:
    """The texts of the sites that come along."""
    assert made.status == 0, made.errors
    texts = [it["size"] for it in made.answer["carried"] if it["section"] == "__dyndbg"]
    assert set(texts) <= {56}
    return texts


def _kept(made: Made) -> set[str]:
    return {name.partition(",")[0].rpartition(".klp.sym.vmlinux.")[2] for name in made.livepatch_symbols}


def test_a_site_that_exists_is_the_running_kernel_s(kernels: PatchedKernels) -> None:
    made = kernels.made(_source(1), _source(2, before="\n\n"))
    assert made.carried == {("kernel/unit.o", "user")} and _sites(made) == []
    [site] = _kept(made)
    assert re.fullmatch(r"__UNIQUE_ID_ddebug0\.\d", site)
    assert made.relocations[".klp.rela.vmlinux.__jump_table"] == [f".klp.sym.vmlinux.{site},0+2a"]
    assert f".klp.sym.vmlinux.{site},0+0" in made.relocations[".klp.rela.vmlinux..text.user"]


@pytest.mark.parametrize("change", [{"first": 'pr_debug("new");'}, {"last": 'pr_debug("new");'}])
def test_a_new_one_comes_along(kernels: PatchedKernels, change: dict[str, str]) -> None:
    made = kernels.made(_source(1), _source(2, **change))
    assert len(_sites(made)) == 1
    [site] = _kept(made)
    assert re.fullmatch(r"__UNIQUE_ID_ddebug0\.\d", site), "whatever its number is now"


def test_another_text_is_another_site(kernels: PatchedKernels) -> None:
    made = kernels.made(_source(1), _source(2).replace('pr_debug("asked");\n', 'pr_debug("told");\n'))
    assert len(_sites(made)) == 1 and _kept(made) == set()


def test_several_of_one_text_are_told_apart_by_their_order(kernels: PatchedKernels) -> None:
    old, new = (_source(by, last='x++; pr_debug("asked"); x++; pr_debug("asked");') for by in (1, 2))
    made = kernels.made(old, new)
    numbers = sorted(int(name[len("__UNIQUE_ID_ddebug")]) for name in _kept(made))
    assert numbers == [0, 1, 2] and _sites(made) == []


def test_which_one_is_new_is_not_guessed(kernels: PatchedKernels) -> None:
    made = kernels.made(_source(1), _source(2, first='pr_debug("asked"); x++;'))
    assert len(_sites(made)) == 2 and _kept(made) == set()


def test_one_that_cannot_be_named_comes_along(kernels: PatchedKernels) -> None:
    kernels.build({"kernel/unit.o": _source(1)}, {"kernel/unit.o": _source(2)})
    kernels.prepare()
    [site] = set(re.findall(r"__UNIQUE_ID_ddebug0\.\d", kernels.old.run("nm", "vmlinux")))
    kernels.old.run("objcopy", "-N", site, "vmlinux")
    made = kernels.patch()
    assert made.carried == {("kernel/unit.o", "user")} and len(_sites(made)) == 1 and _kept(made) == set()
    assert ".klp.rela.vmlinux.__jump_table" not in made.relocations


def test_those_of_a_module_come_along(kernels: PatchedKernels) -> None:
    """The loader goes through the table of jump labels before the module may be there."""
    kernels.build({"drivers/unit.o": _source(1)}, {"drivers/unit.o": _source(2)})
    kernels.prepare()
    made = kernels.patch()
    assert made.carried == {("drivers/unit.o", "user")} and len(_sites(made)) == 1
    assert not [name for name in made.relocations if "__jump_table" in name and "klp" in name]
