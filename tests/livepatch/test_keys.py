# SPDX-License-Identifier: GPL-2.0-only
"""Static keys of vmlinux can be used in a livepatch, those of a module cannot; static calls go by their trampolines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from linked_kernel import Kernels

# An entry of __jump_table (struct jump_entry) and a call of a static call's trampoline, as arch/x86 makes them.
HEAD = r"""
struct key { int enabled; void *type; };
#define BRANCH(key, at) asm volatile("1: .byte 0x0f,0x1f,0x44,0,0\n" \
    ".pushsection __jump_table,\"aw\"\n.balign 8\n.long 1b - ., 1b - .\n.quad %c0 + %c1 - .\n.popsection" \
    :: "i"(&key), "i"(at))
#define TRAMPOLINE(name) asm(".pushsection .static_call.text,\"ax\"\n.globl __SCT__" #name "\n" \
    ".type __SCT__" #name ", @function\n__SCT__" #name ": jmp plain\n.size __SCT__" #name ", 5\n.popsection")
#define CALL(name) asm volatile("call __SCT__" #name)
"""


def user(declaration: str, use: str, number: int = 1) -> str:
    """Return an object with one function that uses something."""
    return f"{HEAD}{declaration}\nint foo(int x) {{ {use}; return x + {number}; }}\n"


def unit(declaration: str, use: str) -> tuple[str, str]:
    """Return two versions of such an object."""
    return user(declaration, use, 1), user(declaration, use, 2)


KEY = ("struct key key = {0, &key};", "BRANCH(key, 0)")
OWN_STATIC_KEY = ("static struct key key = {0, &key};", "BRANCH(key, 2)")
CALL = ("TRAMPOLINE(call);", "CALL(call)")


@pytest.mark.parametrize("use", [KEY, OWN_STATIC_KEY, CALL], ids=["key", "static key", "call"])
def test_of_vmlinux(kernels: Kernels, use: tuple[str, str]) -> None:
    assert kernels.of(*unit(*use), name="kernel/unit.o") == {"foo": []}


@pytest.mark.parametrize(
    ("use", "reason"),
    [
        (KEY, "static key: key of module mod"),
        (OWN_STATIC_KEY, "static key: key of module mod"),
        (CALL, "(static call: call of module mod would go by its trampoline in the new function)"),
    ],
    ids=["key", "static key", "call"],
)
def test_of_the_module(kernels: Kernels, use: tuple[str, str], reason: str) -> None:
    assert kernels.of(*unit(*use), name="drivers/unit.o") == {"foo": [reason]}


def test_of_another_object_of_the_module(kernels: Kernels) -> None:
    old, new = unit("extern struct key key;", "BRANCH(key, 0)")
    keys = HEAD + "struct key key = {0, &key};"
    kernels.build({"drivers/unit.o": old, "drivers/keys.o": keys}, {"drivers/unit.o": new})
    for build in (kernels.old, kernels.new):
        build.write("Module.symvers", "0x00000000\tother\tvmlinux\tEXPORT_SYMBOL\t\n")
    assert kernels.verdicts() == {"foo": ["static key: key of module mod"]}


@pytest.mark.parametrize(
    ("home", "reasons"), [("vmlinux", []), ("net/core/net", ["static key: key of module net"])], ids=["vmlinux", "net"]
)
def test_exported_by_another(kernels: Kernels, home: str, reasons: list[str]) -> None:
    old, new = unit("extern struct key key;", "BRANCH(key, 0)")
    kernels.build({"drivers/unit.o": old}, {"drivers/unit.o": new})
    for build in (kernels.old, kernels.new):
        build.write("Module.symvers", f"0x00000000\tkey\t{home}\tEXPORT_SYMBOL_GPL\t\n")
    assert kernels.verdicts() == {"foo": reasons}


@pytest.mark.parametrize(
    ("use", "reason"),
    [
        ("BRANCH(key, 0)", "not known: whether static key key is that of a module"),
        ("CALL(call)", "(static call: call, if that is a module's, would go by its trampoline in the new function)"),
    ],
)
def test_nobody_says_whose_it_is(kernels: Kernels, use: str, reason: str) -> None:
    old, new = unit("extern struct key key;", use)
    assert kernels.of(old, new, name="drivers/unit.o") == {"foo": [reason]}


def test_a_new_use_of_a_key(kernels: Kernels) -> None:
    old = user(KEY[0], "")
    new = user(*KEY)
    assert kernels.of(old, new, name="drivers/unit.o") == {"foo": ["static key: key of module mod"]}


def test_a_use_that_went_away(kernels: Kernels) -> None:
    """Asking for the key's value instead is how such a function is made to fit for a livepatch."""
    old = user(*KEY)
    new = user(KEY[0], "x += key.enabled")
    assert kernels.of(old, new, name="drivers/unit.o") == {"foo": []}


@pytest.mark.parametrize("place", ["drivers/unit.o", "drivers/keys.o"])
def test_a_key_that_comes_with_the_patch(kernels: Kernels, place: str) -> None:
    old = {"drivers/unit.o": user("extern struct key key;", ""), "drivers/keys.o": HEAD}
    new = {"drivers/unit.o": user("extern struct key key;", KEY[1])}
    new[place] = new.get(place, HEAD) + KEY[0]
    kernels.build(old, new)
    for build in (kernels.old, kernels.new):
        build.write("Module.symvers", "0x00000000\tother\tvmlinux\tEXPORT_SYMBOL\t\n")
    assert kernels.verdicts() == {"foo": [], "key": []}


def test_a_new_function_that_uses_a_key(kernels: Kernels) -> None:
    new = user(*KEY)
    old = new.replace("int foo", "static inline int foo")
    assert kernels.of(old, new, name="drivers/unit.o")["foo"] == ["static key: key of module mod"]


def test_dynamic_debug_brings_its_key_along(kernels: Kernels) -> None:
    """The key of a pr_debug() is in its descriptor, of which the new function has one of its own."""
    descriptor = """static struct { const char *text[4]; int line; struct key key; }
        __attribute__((section("__dyndbg"), aligned(8), used)) descriptor = { { "a", "b", "c", "d" }, 17 };"""
    old, new = unit("", descriptor + "BRANCH(descriptor.key, 0)")
    assert kernels.of(old, new, name="drivers/unit.o") == {"foo": []}


def test_tracepoints_of_a_module_fall_silent(kernels: Kernels) -> None:
    declaration = "struct key __tracepoint_event = {0, 0}; TRAMPOLINE(tp_func_event);"
    source = unit(declaration, "BRANCH(__tracepoint_event, 8); CALL(tp_func_event)")
    note = "(tracepoint: event of module mod would be silent in the new function)"
    assert kernels.of(*source, name="drivers/unit.o") == {"foo": [note]}


def test_tracepoints_of_vmlinux(kernels: Kernels) -> None:
    source = unit("struct key __tracepoint_event = {0, 0};", "BRANCH(__tracepoint_event, 8)")
    assert kernels.of(*source) == {"foo": []}


def test_an_object_that_is_in_vmlinux_and_in_a_module(kernels: Kernels) -> None:
    old, new = unit(*KEY)
    kernels.build({"lib/unit.o": old}, {"lib/unit.o": new})
    for build in (kernels.old, kernels.new):
        build.module("drivers/mod", "lib/unit.o")
        build.run("ld", "-r", "-o", "drivers/mod.ko", "lib/unit.o")
    found = {}
    for group in kernels.compare().objects:
        found[group.unit] = [reason.text for change in group.changes for reason in change.livepatch.reasons]
    assert found == {"vmlinux": [], "mod": ["static key: key of module mod"]}
