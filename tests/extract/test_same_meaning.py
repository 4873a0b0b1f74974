# SPDX-License-Identifier: GPL-2.0-only
"""What was decided wrongly is noticed in what is made of it: an entry left out, another symbol, another place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from extracted_mutations import Made, functions, make
from kernel_like import Special, source
from snippets import Compiler

from kbuild_klp.elf.reader import ObjectFile
from kbuild_klp.errors import KlpError
from kbuild_klp.extract.beside import check
from kbuild_klp.extract.correlated import Correlated
from kbuild_klp.extract.laid_out import LaidOut
from kbuild_klp.extract.needed import Needed
from kbuild_klp.extract.pieces import Goal
from kbuild_klp.extract.relocated import RelocatedObject
from kbuild_klp.extract.side_tables import side_entries
from kbuild_klp.object.view import ObjectView

STATE = """
int printk(const char *, ...);
static int level[4];
static __attribute__((noinline)) int step(int x) { return x * 3 + level[x & 3]++; }
int first(int x) { static int count; printk("one %d", ++count); return step(x) + count; }
int second(int x) { static int count; printk("two %d", ++count); return step(x + 1) - count; }
"""


def made_of(path: Path, *names: str) -> Made:
    view = ObjectView(str(path))
    wanted = [part for part in functions(view) if view.part_name(part) in names]
    assert len(wanted) == len(names)
    made = make(Correlated(view, view), RelocatedObject(view), wanted)
    assert made.check() == len(names)
    return made


def is_noticed(needed: Needed) -> bool:
    """Say whether the checks fail on what is made of a decision."""
    side = list(side_entries(needed))
    laid = LaidOut(needed, side)
    try:
        check(needed, laid, side, ObjectFile(laid.file(), "extracted.o"))
    except KlpError:
        return True
    return False


@contextmanager
def decided(needed: Needed, row: int, goal: Goal) -> Iterator[None]:
    before = needed.goals[row]
    needed.goals[row] = goal
    try:
        yield
    finally:
        needed.goals[row] = before


def faults(needed: Needed) -> Iterator[tuple[int, Goal]]:
    """Yield what else each reference could have become."""
    names = {goal.name for goal in needed.goals.values() if goal.name}
    for row, goal in list(needed.goals.items()):
        if goal.name:
            yield row, goal._replace(offset=goal.offset + 8)
            yield from ((row, goal._replace(name=other)) for other in names - {goal.name})
        elif goal.piece >= 0:
            yield row, goal._replace(address=goal.address + 1)


@pytest.mark.parametrize("optimize", ["-O2", "-Os"])
def test_another_symbol_or_place(cc: Compiler, optimize: str) -> None:
    needed = made_of(cc.object(STATE, optimize), "first", "second").needed
    count = 0
    for row, goal in faults(needed):
        if "count." in goal.name and "count." in needed.goals[row].name and goal.offset == needed.goals[row].offset:
            continue  # only a number tells them apart: which one it is correlated.py says
        count += 1
        with decided(needed, row, goal):
            assert is_noticed(needed), (row, goal)
    assert count > 20


def test_special_entries(gcc: Compiler) -> None:
    needed = made_of(gcc.assembly(source(Special())), "user").needed
    entries = needed.entries
    assert len(entries) > 5
    for entry in entries:
        needed.entries = [it for it in entries if it is not entry]
        assert is_noticed(needed), entry
    needed.entries = entries
    assert not is_noticed(needed)
    found = list(faults(needed))
    assert len(found) > 20
    for row, goal in found:
        with decided(needed, row, goal):
            assert is_noticed(needed), (row, goal)
