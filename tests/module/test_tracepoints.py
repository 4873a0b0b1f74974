# SPDX-License-Identifier: GPL-2.0-only
"""Tracepoints in carried functions: those of vmlinux work, those of the patched module are silent, and it is said."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from module.conftest import PatchedKernels

# What trace_told() is made of (include/linux/tracepoint.h): a jump label with the key in struct tracepoint, and a
# static call behind it, with the table that objtool writes of it.
_USER = r"""
struct key { int enabled; void *type; };
struct tracepoint { const char *name; struct key key; void *funcs; };
extern struct tracepoint __tracepoint_told;
extern struct key switched;
#define BRANCH(key, offset) asm volatile("1: .byte 0xeb, 0\n" \
    ".pushsection __jump_table,\"aw\"\n.balign 8\n.long 1b - ., 1b - .\n.quad " key " + " #offset " - .\n.popsection")
int user(int x)
{
    BRANCH("__tracepoint_told", 10);
    asm volatile("2: call __SCT__tp_func_told\n"
        ".pushsection .static_call_sites,\"aw\"\n.balign 4\n.long 2b - ., __SCK__tp_func_told - .\n.popsection");
    return __tracepoint_told.funcs ? x : x + OLD;
}
"""
_EVENTS = """
struct tracepoint { const char *name; long key[2]; void *funcs; };
struct tracepoint __tracepoint_told;
long __SCK__tp_func_told[2], switched[2];
void __SCT__tp_func_told(void) { }
"""


def _made(kernels: PatchedKernels, place: str, source: str = _USER, events: str = _EVENTS) -> None:
    old, new = (source.replace("OLD", number) for number in ("1", "2"))
    kernels.build({f"{place}/unit.o": old, f"{place}/events.o": events}, {f"{place}/unit.o": new})
    kernels.prepare()


def test_a_tracepoint_of_the_module_is_silent(kernels: PatchedKernels) -> None:
    _made(kernels, "drivers")
    made = kernels.patch()
    assert made.carried == {("drivers/unit.o", "user")}
    assert "drivers/unit.o: tracepoint told of mod is silent in the new user" in made.answer["warnings"]
    goals = made.relocations[".rela__jump_table"]
    assert goals[-1].startswith("klp_silent_key") and goals[-1].endswith("2"), "flags stay what they were"
    assert not [name for name in made.relocations if "static_call_sites" in name or "rela.mod.__jump_table" in name]
    # What is behind the jump label knows whose it is.
    code = made.relocations[".klp.rela.mod..text.user"]
    assert len(code) == 2 and {goal.split(",")[0] for goal in code} == {
        ".klp.sym.mod.__tracepoint_told",
        ".klp.sym.mod.__SCT__tp_func_told",
    }


def test_a_tracepoint_of_vmlinux_stays(kernels: PatchedKernels) -> None:
    _made(kernels, "kernel")
    made = kernels.patch()
    assert made.carried == {("kernel/unit.o", "user")}
    assert not [text for text in made.answer["warnings"] if "silent" in text]
    assert made.relocations[".klp.rela.vmlinux.__jump_table"] == [".klp.sym.vmlinux.__tracepoint_told,0+a"]
    assert ".klp.rela.vmlinux..static_call_sites" in made.relocations


@pytest.mark.parametrize("place", ["drivers", "kernel"])
def test_a_static_call(kernels: PatchedKernels, place: str) -> None:
    """Of the module, it goes by the trampoline; of vmlinux, it is made a direct one when the livepatch is loaded."""
    _made(kernels, place, *(text.replace("tp_func_told", "told") for text in (_USER, _EVENTS)))
    made = kernels.patch()
    assert made.carried == {(f"{place}/unit.o", "user")}
    unit = "mod" if place == "drivers" else "vmlinux"
    assert f".klp.sym.{unit}.__SCT__told,0-4" in made.relocations[f".klp.rela.{unit}..text.user"]
    assert (".klp.rela.vmlinux..static_call_sites" in made.relocations) == (place == "kernel")
    assert not [name for name in made.relocations if "rela.mod..static_call_sites" in name]


@pytest.mark.parametrize("place", ["drivers", "kernel"])
@pytest.mark.parametrize("key", ["__SCK__told", ""], ids=["key exported", "trampoline only"])
def test_a_static_call_that_objtool_has_not_seen_yet(kernels: PatchedKernels, place: str, key: str) -> None:
    """Under IBT or LTO it makes the table for the livepatch, and without a symbol for the key says that of another one.

    The kernel finds that key only if vmlinux exports the trampoline and not the key.
    """
    user = 'int user(int x) { asm volatile("call __SCT__told"); return x + OLD; }'
    old, new = (user.replace("OLD", number) for number in ("1", "2"))
    events = "long __SCK__told[2]; void __SCT__told(void) { }"
    kernels.build({f"{place}/unit.o": old, "kernel/events.o": events}, {f"{place}/unit.o": new})
    kernels.prepare()
    rows = [f"0x00000000\t{name}\tvmlinux\tEXPORT_SYMBOL_GPL\t\n" for name in ("__SCT__told", key) if name]
    with (kernels.old.root / "Module.symvers").open("a") as file:
        file.writelines(rows)
    made = kernels.patch()
    assert made.carried == {(f"{place}/unit.o", "user")}
    ordinary = [goal for goal in made.relocations[".rela.text.user"] if goal.startswith("__SCT__told")]
    of_livepatch = made.relocations.get(".klp.rela.vmlinux..text.user", [])
    assert (ordinary, of_livepatch) == (([], [".klp.sym.vmlinux.__SCT__told,0-4"]) if key else (["__SCT__told-4"], []))


@pytest.mark.parametrize("key", ["switched", "__SCK__tp_func_told"])
def test_another_static_key_of_the_module_is_none_to_be_silenced(kernels: PatchedKernels, key: str) -> None:
    _made(kernels, "drivers", _USER.replace('"__tracepoint_told", 10', f'"{key}", 2'))
    assert kernels.patch().refused <= {("user", "verdict"), ("user", "too-early")}
