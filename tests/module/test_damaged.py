# SPDX-License-Identifier: GPL-2.0-only
"""A module that the linker, or anything after it, damaged is noticed, wherever it is."""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from linked_mutations import make, survivors

if TYPE_CHECKING:
    from module.conftest import PatchedKernels

_C = """
extern int printk(const char *, ...);
extern int exported(int), inner(int), *outer;
static int count;
static const int table[4] = {{ 1, 2, 3, 4 }};
static __attribute__((noinline)) int own(int x) {{ count += x; return count; }}
int says_{0}(int x) {{ outer = &count; return printk("{0} OLD") + exported(x) + inner(own(x)) + table[x & 3]; }}
int more_{0}(int x) {{ printk("more OLD"); return own(says_{0}(x) + inner(x)); }}
"""
_INNER = "int *outer; int exported(int x) { return x + 1; } int inner(int x) { return x + 2; }\n"


@pytest.mark.parametrize("seed", [1, 2])
def test_damage_to_a_module_is_noticed(kernels: PatchedKernels, seed: int) -> None:
    old = {"kernel/unit.o": _C.format("a"), "drivers/unit.o": _C.format("b"), "kernel/inner.o": _INNER}
    kernels.build(old, {name: text.replace("OLD", "NEW") for name, text in old.items()})
    kernels.prepare(versions={"exported": 7, "printk": 8, "module_layout": 9})
    kernels.write_exports(exported=7, printk=8, module_layout=9)
    kernels.old.write("include/config/kernel.release", "6.12.0-test\n")
    made = make(kernels.old.root, kernels.new.root)
    tried: Counter[str] = Counter()
    assert list(survivors(made, 70, random.Random(seed), tried)) == []
    kinds = {kind.partition(": ")[2] for kind in tried}
    assert kinds == {"byte", "relocation", "moved", "name", "symbol", "header", "glue", "version"}
    assert sum(tried.values()) > 300
