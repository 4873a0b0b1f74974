# SPDX-License-Identifier: GPL-2.0-only
"""A function that ftrace cannot take over is carried as a new one, and with it all that call it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from module.conftest import PatchedKernels

_C = """
#define NOTRACE __attribute__((no_instrument_function, noinline))
static int count;
static NOTRACE int inner(int x) { count++; return x * OLD; }
static NOTRACE int middle(int x) { asm volatile(""); return inner(x) + 1; }
int outer(int x) { return middle(x) + 1; }
int other(int x) { return inner(x) + 3; }
int stays(int x) { return x + count; }
"""


def test_callers_are_replaced_and_it_is_not(kernels: PatchedKernels) -> None:
    made = kernels.made(_C.replace("OLD", "5"), _C.replace("OLD", "6"))
    names = ("inner", "middle", "outer", "other")
    assert made.carried == {("kernel/unit.o", name) for name in names}
    assert made.livepatch_symbols == {".klp.sym.vmlinux.count,0"}, "calls go to the new ones"
    assert {goal.partition("+")[0] for goal in made.relocations[".rela.init.klp_funcs"]} == {"outer", "other"}
    why = {it["symbol"]: it["why"] for it in made.answer["carried"] if it["kind"] == "function"}
    assert why["other"] == "changed, calls inner" and why["inner"].startswith("changed, needed by ")


def test_left_out_callers_keep_the_old_one(kernels: PatchedKernels) -> None:
    kernels.build({"kernel/unit.o": _C.replace("OLD", "5")}, {"kernel/unit.o": _C.replace("OLD", "6")})
    kernels.prepare()
    made = kernels.patch("--without", "other")
    assert made.carried == {("kernel/unit.o", name) for name in ("inner", "middle", "outer")}


def test_what_nobody_calls_is_not_needed(kernels: PatchedKernels) -> None:
    source = _C.replace("int other(int x) { return inner(x) + 3; }", "int other(int x) { return OLD; }")
    old = source.replace("NOTRACE int inner", "NOTRACE __attribute__((used)) int inner").replace(
        "inner(x) + 1", "x + 1"
    )
    made = kernels.made(old.replace("OLD", "5"), old.replace("OLD", "6"))
    assert made.carried == {("kernel/unit.o", "other")}
    assert "inner" in made.answer["not_needed"]


_TABLE = """
#define NOTRACE __attribute__((no_instrument_function, noinline))
static const int table[6] = {1, 2, 3, OLD};
static NOTRACE int inner(int x) { return table[x]; }
static NOTRACE int middle(int x) { asm volatile(""); return inner(x) + 1; }
int outer(int x) { return middle(x) + 1; }
int reader(int x) { return table[x] + 3; }
int stays(int x) { return x; }
"""


def test_so_is_one_that_reads_a_constant_which_differs(kernels: PatchedKernels) -> None:
    made = kernels.made(_TABLE.replace("OLD", "5"), _TABLE.replace("OLD", "6"))
    assert made.carried == {("kernel/unit.o", name) for name in ("inner", "middle", "outer", "reader")}
    assert {goal.partition("+")[0] for goal in made.relocations[".rela.init.klp_funcs"]} == {"outer", "reader"}
    assert not any("table" in name or "inner" in name for name in made.livepatch_symbols)


def test_and_is_not_needed_where_no_function_calls_it(kernels: PatchedKernels) -> None:
    source = _TABLE.replace("return inner(x) + 1", "return x").replace("NOTRACE int inner", "NOTRACE USED int inner")
    source = "#define USED __attribute__((used))\n" + source
    made = kernels.made(source.replace("OLD", "5"), source.replace("OLD", "6"))
    assert made.carried == {("kernel/unit.o", "reader")}


def test_init_code_that_called_it_does_not_come_along(kernels: PatchedKernels) -> None:
    early = """__attribute__((section(".init.text"))) int early(int x) { return inner(x) + middle(x); }"""
    made = kernels.made((_C + early).replace("OLD", "5"), (_C + early).replace("OLD", "6"))
    assert made.carried == {("kernel/unit.o", name) for name in ("inner", "middle", "outer", "other")}
