# SPDX-License-Identifier: GPL-2.0-only
"""What must hold for every object: nothing that the kernel could notice goes unnoticed, and nothing else counts.

The first half takes objects and changes each byte, relocation, symbol and section header, one at a time.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kernel_like import source
from mutate import Mutation, Mutator, changes, entries
from snippets import Compiler

from kbuild_klp.checksum import sum_file
from kbuild_klp.checksum.batch import compute

C_SOURCE = r"""
int log(const char *, ...); int ext(int); extern int undefined_variable;
struct rs { int interval, burst; }; int limited(struct rs *);
static int counter, value = 7; int table[6] = { 1, 2, 3 }; const short numbers[5] = { 9, 8, 7 };
static const char *names[] = { "one", "two", "a third one, longer than the others are" };
static __attribute__((noinline)) int local(int x) { static int count; return count += x * 3 + counter++; }
static int gone(int x) __attribute__((cold));
int f(int x) { static int count = 4; count ^= x; return local(x) + log("f %d\n", count) + value++ + table[x]; }
int g(int x) { switch (x) { case 0: return 17; case 1: return 4; case 2: return 23;
  case 3: return 55; case 4: return 9; }
  return log(names[x & 1]) + numbers[2]; }
int h(int x) { static struct rs _rs = { 5000, 10 }; if (__builtin_expect(limited(&_rs), 0)) { ext(x);
  log(__func__); __builtin_trap(); }
  switch (x) { case 0: return ext(1); case 1: return ext(x) * 3; case 2: return ext(x * 5) - 7;
    case 3: return ext(x ^ 3);
  case 4: return -ext(x); case 5: return ext(x) / 3; default: return undefined_variable; } }
int alias(int x) __attribute__((alias("f"))); int weak(int x) __attribute__((weak)); int weak(int x) { return ext(-x); }
"""

MUTATIONS: dict[str, Callable[[Mutator], Iterator[Mutation]]] = {
    "bytes": Mutator.byte_mutations,
    "relocations": Mutator.relocation_mutations,
    "symbols": Mutator.symbol_mutations,
    "sections": Mutator.section_mutations,
}


def unnoticed(data: bytes, mutations: Iterator[Mutation], most: int = 20) -> list[str]:
    old = entries(data)
    missed: list[str] = []
    for mutation in mutations:
        if not changes(old, mutation.data) and not mutation.excuse:
            missed.append(mutation.what)
            if len(missed) == most:
                break
    return missed


@pytest.mark.parametrize("kind", MUTATIONS)
def test_every_change_of_an_object_with_special_sections_is_noticed(gcc: Compiler, kind: str) -> None:
    data = gcc.assembly(source()).read_bytes()
    assert unnoticed(data, MUTATIONS[kind](Mutator(data))) == []


@pytest.mark.parametrize("kind", MUTATIONS)
@pytest.mark.parametrize(
    "flags",
    [(), ("-ffunction-sections", "-fdata-sections"), ("-fpatchable-function-entry=16,16", "-fcf-protection=branch")],
    ids=["plain", "sections", "padded"],
)
def test_every_change_of_a_compiled_object_is_noticed(gcc: Compiler, kind: str, flags: tuple[str, ...]) -> None:
    data = gcc.object(C_SOURCE, *flags).read_bytes()
    assert unnoticed(data, MUTATIONS[kind](Mutator(data))) == []


@pytest.mark.parametrize("kind", MUTATIONS)
def test_every_change_of_an_object_of_clang_is_noticed(clang: Compiler, kind: str) -> None:
    data = clang.object(C_SOURCE).read_bytes()
    assert unnoticed(data, MUTATIONS[kind](Mutator(data))) == []


def test_mutations_are_many(gcc: Compiler) -> None:
    """So that an excuse that excuses too much does not pass for success."""
    data = gcc.assembly(source()).read_bytes()
    counts = {kind: sum(1 for _ in make(Mutator(data))) for kind, make in MUTATIONS.items()}
    assert counts["bytes"] > 400 and counts["relocations"] > 400 and counts["symbols"] > 60 and counts["sections"] > 80


@pytest.mark.parametrize("kind", MUTATIONS)
def test_every_change_of_a_real_object_is_noticed(kind: str) -> None:
    tree = os.environ.get("KLP_TEST_TREE")
    if not tree:
        pytest.skip("KLP_TEST_TREE names no built kernel tree")
    for name in ("fs/proc/cmdline.o", "lib/bsearch.o", "kernel/jump_label.o"):
        data = (Path(tree) / name).read_bytes()
        mutations = list(MUTATIONS[kind](Mutator(data)))
        random.Random(name + kind).shuffle(mutations)
        assert unnoticed(data, iter(mutations[:400])) == [], name


def test_same_object_gives_the_same_file_wherever_it_lies(gcc: Compiler, tmp_path: Path) -> None:
    data = gcc.assembly(source()).read_bytes()
    places = [tmp_path / "here" / "unit.o", tmp_path / "another directory" / "deeper" / "other-name.o"]
    results = []
    for place in places:
        place.parent.mkdir(parents=True)
        place.write_bytes(data)
        results.append(compute(str(place)).data)
    assert results[0] == results[1]
    assert str(tmp_path).encode() not in results[0]
    assert sorted(sum_file.load(results[0], "x").entries) == entries(data)
