# SPDX-License-Identifier: GPL-2.0-only
"""A function that ftrace cannot take over is carried as a new one, and with it all that call it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from module.conftest import PatchedKernels

UNIT = "drivers/unit.o"
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
    assert made.answer["left_out"] == ["other"] and "leaves out" not in str(made.answer["warnings"])


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


@pytest.mark.parametrize("source", [_C, _TABLE], ids=["a function", "a constant"])
def test_init_code_of_a_module_that_uses_it_may_be_left_out(kernels: PatchedKernels, source: str) -> None:
    """It is the same in both builds, and goes on with the old one when the module is loaded later."""
    use = "inner(x) + middle(x)" if source is _C else "table[x] + inner(x)"
    source += f"""__attribute__((section(".init.text"))) int early(int x) {{ return {use}; }}"""
    kernels.build({UNIT: source.replace("OLD", "5")}, {UNIT: source.replace("OLD", "6")})
    kernels.prepare()
    assert {code for _, code in kernels.patch().refused} == {"verdict"}
    made = kernels.patch("--without", "early")
    others = ("inner", "middle", "outer", "other" if "other" in source else "reader")
    assert made.carried == {(UNIT, name) for name in others}
    assert made.answer["left_out"] == ["early"] and "leaves out" not in str(made.answer["warnings"])
    replaced = {goal.partition("+")[0] for goal in made.relocations[".rela.init.klp_funcs"]}
    assert replaced == {"outer", others[-1]}


@pytest.mark.parametrize("pattern", ["early", "late", "unit.o:*e"])
def test_what_it_is_not_the_only_one_to_use_is_refused(kernels: PatchedKernels, pattern: str) -> None:
    stays = "".join(
        f"""__attribute__((section(".{name}.text"))) int {function}(int x) {{ return inner(x); }}"""
        for name, function in (("init", "early"), ("exit", "late"))
    )
    kernels.build({UNIT: (_C + stays).replace("OLD", "5")}, {UNIT: (_C + stays).replace("OLD", "6")})
    kernels.prepare()
    assert kernels.patch("--without", pattern).refused == {("inner", "verdict")}


def test_who_takes_its_address_may_be_left_out(kernels: PatchedKernels) -> None:
    source = _C.replace("return x + count;", "return inner != (void *)(long)x;")
    kernels.build({UNIT: source.replace("OLD", "5")}, {UNIT: source.replace("OLD", "6")})
    kernels.prepare()
    assert kernels.patch().refused == {("inner", "verdict")}
    made = kernels.patch("--without", "*:stays")
    assert made.carried == {(UNIT, name) for name in ("inner", "middle", "outer", "other")}


def test_so_may_who_goes_on_using_what_was_removed(kernels: PatchedKernels) -> None:
    source = """
    #define NOTRACE __attribute__((no_instrument_function, noinline))
    static NOTRACE int helper(int x) { asm volatile(""); return x * 3; }
    NOTRACE int stays(int x) { return helper(x) + 1; }
    int goes(int x) { return helper(x) + 2; }
    """
    new = source.replace("helper(x)", "x").replace("NOTRACE int helper", "inline int helper")
    kernels.build({UNIT: source}, {UNIT: new})
    kernels.prepare()
    assert kernels.patch().refused == {("helper", "verdict"), ("stays", "verdict")}
    made = kernels.patch("--without", "stays")
    assert made.carried == {(UNIT, "goes")} and made.answer["left_out"] == ["stays"]
