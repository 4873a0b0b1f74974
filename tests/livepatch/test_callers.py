# SPDX-License-Identifier: GPL-2.0-only
"""Functions that ftrace cannot take over, and their callers: `inline` is also notrace in the kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from linked_kernel import Kernels

_NOTRACE = "__attribute__((no_instrument_function, noinline))"
_C = f"""
#define NOTRACE {_NOTRACE}
static NOTRACE int inner(int x) {{ asm volatile(""); return x * OLD; }}
static NOTRACE int middle(int x) {{ asm volatile(""); return inner(x) + 1; }}
int outer(int x) {{ return middle(x) + 1; }}
int other(int x) {{ return inner(x) + 3; }}
int stays(int x) {{ return x; }}
"""
BY_CALLERS = "by its callers: it has no fentry (notrace)"
NOT_TRACEABLE = "not traceable: no fentry (notrace)"


def of(kernels: Kernels, source: str, *changes: tuple[str, str]) -> dict[str, list[str]]:
    for old, new in changes:
        assert old in source
        source = source.replace(old, new)
    return kernels.of(source.replace("OLD", "5"), source.replace("OLD", "6"))


def test_all_that_call_it_come_along(kernels: Kernels) -> None:
    assert of(kernels, _C) == {"inner": [f"({BY_CALLERS}; carried with it: other, outer)"]}


def test_who_calls_it_and_is_changed_has_a_verdict_of_its_own(kernels: Kernels) -> None:
    changes = ("inner(x) + 3", "inner(x) + OLD"), ("inner(x) + 1", "inner(x) + OLD")
    wanted = {
        "inner": [f"({BY_CALLERS})"],
        "middle": [f"({BY_CALLERS}; carried with it: outer)"],
        "other": [],
    }
    assert of(kernels, _C, *changes) == wanted


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (("static NOTRACE int inner", "NOTRACE int inner"), ""),
        (("static NOTRACE int middle", "NOTRACE int middle"), "; it is used by middle (not traceable)"),
        (("return x;", "return inner != (void *)(long)x;"), "; it is used by stays (takes its address)"),
        (("int stays", "int (*pointer)(int) = inner; int stays"), "; it is used by pointer (data)"),
        (("int other", "NOTRACE int other"), "; it is used by other (not traceable)"),
        (("x * OLD;", "(long)inner + x * OLD;"), "; it is used by inner (takes its address)"),
    ],
)
def test_what_keeps_the_old_one(kernels: Kernels, change: tuple[str, str], why: str) -> None:
    assert of(kernels, _C, change)["inner"] == [NOT_TRACEABLE + why]


EARLY = ("int other", '__attribute__((section(".init.text"))) int other')
USED_EARLY = "; it is used by other (init or exit code)"


def test_init_code_of_vmlinux_has_made_its_calls(kernels: Kernels) -> None:
    assert of(kernels, _C, EARLY) == {"inner": [f"({BY_CALLERS}; carried with it: outer)"]}


@pytest.mark.parametrize("section", [".init.text", ".exit.text"])
def test_that_of_a_module_may_be_still_to_come(kernels: Kernels, section: str) -> None:
    source = _C.replace(EARLY[0], EARLY[1].replace(".init.text", section))
    found = kernels.of(source.replace("OLD", "5"), source.replace("OLD", "6"), name="drivers/unit.o")
    assert found == {"inner": [NOT_TRACEABLE + USED_EARLY]}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (("inner(x) + 1", "x + 1"), USED_EARLY),
        (("inner(x) + 3", "(long)inner + x"), "; it is used by other (takes its address)"),
        ((".init.text", ".meminit.text"), USED_EARLY),
    ],
    ids=["nobody else calls it", "an address may be kept", "it may stay"],
)
def test_init_code_of_vmlinux_matters(kernels: Kernels, change: tuple[str, str], why: str) -> None:
    assert of(kernels, _C, EARLY, change)["inner"] == [NOT_TRACEABLE + why]


def test_an_address_that_only_the_old_or_the_new_object_takes(kernels: Kernels) -> None:
    """Who kept it goes on calling the old function."""
    taken = _C.replace("return x;", "return inner != (void *)(long)x;")
    for old, new in ((taken, _C), (_C, taken)):
        found = kernels.of(old.replace("OLD", "5"), new.replace("OLD", "6"))
        assert found["inner"] == [f"{NOT_TRACEABLE}; it is used by stays (takes its address)"]


def test_jumps_inside_it_are_its_own(kernels: Kernels) -> None:
    cases = "".join(f"case {number}: stays({number * 7 % 5}); return stays(x + {number});" for number in range(9))
    source = _C.replace("return x * OLD;", f"switch (x) {{ {cases} }} return x > 99 ? inner(x - 1) * 2 : x * OLD;")
    source = source.replace("static NOTRACE int inner", "int stays(int);\nstatic NOTRACE int inner")
    assert of(kernels, source) == {"inner": [f"({BY_CALLERS}; carried with it: other, outer)"]}
