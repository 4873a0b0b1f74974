#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Changes a built kernel's objects in thousands of places, one at a time, and counts what goes unnoticed.

    tests/object_mutations.py TREE [--objects N] [--each N] [--seed N]

Of N objects (seeded choice) about as many bytes, relocations, symbols and sections each are changed as --each says.
Every change must be reported, or the object be refused; one inside a function or variable must be reported of that.
What is in derived sections, relocated fields and padding is excused (tests/mutate.py says why). Exit status 1 with
survivors.
The test suite does the same to three objects.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from mutate import Excuse, Mutation, Mutator, changes, entries

from kbuild_klp.changes.classification import Change
from kbuild_klp.elf import constants as elf
from kbuild_klp.elf.symbol_names import canonical_name
from kbuild_klp.kernel.tree import BuildTree

KINDS: dict[str, Callable[[Mutator], Iterator[Mutation]]] = {
    "byte": Mutator.byte_mutations,
    "relocation": Mutator.relocation_mutations,
    "symbol": Mutator.symbol_mutations,
    "section": Mutator.section_mutations,
}
LARGEST = 200_000


def candidates(mutator: Mutator, kind: str) -> int:
    """Return about how many places there are to change."""
    sections = mutator.object.sections
    if kind == "byte":
        return sum(int(sections["size"][i]) for i, wanted in enumerate(mutator.wanted) if wanted)
    return {"relocation": len(mutator.relocations), "symbol": len(mutator.object.symbols)}.get(kind, len(sections))


def names_at(mutator: Mutator, place: tuple[int, int]) -> set[str]:
    """Return the names under which a change at ``place`` may be reported; empty where that is not told by symbols."""
    section, offset = place
    names: set[str] = set()
    for index in (mutator.object.shndx == section).nonzero()[0].tolist():
        symbol = mutator.object.symbols[index]
        kind = int(symbol["info"]) & 0xF
        if kind in (elf.STT_OBJECT, elf.STT_FUNC) and symbol["value"] <= offset < symbol["value"] + symbol["size"]:
            name = mutator.object.symbol_name(index)
            if canonical_name(name).numbered and kind == elf.STT_OBJECT:
                return set()  # known by its content: it is in the checksums of those who use it
            names.add(name.removeprefix("__pfx_").removeprefix("__cfi_").partition(".cold")[0])
    return names


def survives(mutator: Mutator, mutation: Mutation, answer: list[Change] | str) -> str:
    """Return what is wrong with the answer to a mutation, empty when nothing is."""
    if isinstance(answer, str):
        return ""
    if not answer:
        return "not noticed"
    wanted = names_at(mutator, mutation.place) if mutation.place else set()
    found = {change.symbol.partition("@")[0] for change in answer}
    if wanted and not wanted & found:
        return f"reported of {', '.join(sorted(found)[:4])} and not of {' or '.join(sorted(wanted))}"
    return ""


def _share(chance: random.Random, share: float) -> Callable[[], bool]:
    return lambda: chance.random() < share


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("tree", help="a built kernel tree; it is only read")
    parser.add_argument("--objects", type=int, default=40)
    parser.add_argument("--each", type=int, default=60, help="places of each kind in each object")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    tree = BuildTree.open(arguments.tree)
    names = sorted({name for unit in tree.units() for name in unit.objects})
    names = [name for name in names if (Path(tree.root) / name).stat().st_size < LARGEST]
    chance = random.Random(arguments.seed)
    tried: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    excused: Counter[Excuse] = Counter()
    survivors: list[str] = []
    for name in chance.sample(names, min(arguments.objects, len(names))):
        data = (Path(tree.root) / name).read_bytes()
        old = entries(data)
        for kind, make in KINDS.items():
            mutator = Mutator(data)
            share = arguments.each / max(1, candidates(mutator, kind))
            mutator.wants = _share(chance, share)
            for mutation in make(mutator):
                answer = changes(old, mutation.data)
                tried[kind] += 1
                refused[kind] += isinstance(answer, str)
                problem = survives(mutator, mutation, answer)
                if problem and mutation.excuse and not answer:
                    excused[mutation.excuse] += 1
                elif problem:
                    survivors.append(f"{name}: {mutation.what}: {problem}")
    for kind in KINDS:
        print(f"{kind:<11}{tried[kind]:>7} tried, {refused[kind]:>6} refused as broken, the rest compared")
    for excuse, count in excused.items():
        print(f"{count} excused: {excuse.value}")
    print(f"{len(survivors)} survivors of {sum(tried.values())}")
    for line in survivors:
        print(f"  {line}")
    return int(bool(survivors))


if __name__ == "__main__":
    sys.exit(main())
