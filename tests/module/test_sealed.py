# SPDX-License-Identifier: GPL-2.0-only
"""A function of which nobody took the address: under IBT, the kernel takes away its ENDBR.

That of vmlinux while it boots, that of a module when it loads that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from module.conftest import PatchedKernels

_SEALED = """
int release(int x) { return x + 5; }
void later(int (*call)(int)) { call(1); }
int %s(int x) { return x + 6; }
asm(".pushsection .ibt_endbr_seal,\\"a\\"\\n.balign 4\\n.long release - .\\n.popsection");
"""
_USER = """
int release(int), kept(int);
void later(int (*)(int));
int user(int x) { return release(x) + kept(x); }
int teller(int x) { %s return x; }
"""


@pytest.mark.parametrize(
    ("home", "place"),
    [("kernel", "kernel"), ("kernel", "drivers"), ("drivers", "drivers")],
    ids=["vmlinux", "vmlinux-module", "module"],
)
@pytest.mark.parametrize(
    ("body", "refused"),
    [
        ("later(release);", {("teller", "sealed")}),
        ("static int (*const table[])(int) = { release }; later(table[x]);", {("teller", "sealed")}),
        ("later(kept);", set()),
        ("release(x);", set()),
    ],
    ids=["pointer", "table", "not sealed", "call"],
)
def test_who_is_first_to_take_its_address(
    kernels: PatchedKernels, home: str, place: str, body: str, refused: set[tuple[str, str]]
) -> None:
    old, new = (_USER % it for it in ("", body))
    kernels.build({f"{place}/unit.o": old, f"{home}/base.o": _SEALED % "kept"}, {f"{place}/unit.o": new})
    kernels.prepare()
    made = kernels.patch()
    if refused:
        assert made.refused == refused
    else:
        assert made.carried == {(f"{place}/unit.o", "teller")}


@pytest.mark.parametrize("place", ["kernel", "drivers"])
def test_another_one_of_its_name(kernels: PatchedKernels, place: str) -> None:
    """Which of them is sealed is known by its position."""
    other = 'static __attribute__((noinline)) int release(int x) { asm volatile("nop"); return x + 9; }\n'
    new = (
        other + "void later(int (*)(int)); int (*known)(int) = release;\nint user(int x) { return release(x) + %s; }\n"
    )
    old, new = new % "0", new % "(later(release), 0)"
    unit = f"{place}/unit.o"
    kernels.build({unit: old, f"{place}/base.o": _SEALED % "kept"}, {unit: new})
    kernels.prepare()
    assert kernels.patch().carried == {(unit, "user")}
