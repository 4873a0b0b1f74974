# SPDX-License-Identifier: GPL-2.0-only
"""Every function of a real kernel, against what the linked vmlinux says in other places than we look.

KLP_TEST_TREE names a built tree; without it there is nothing to test.
"""

from __future__ import annotations

import os
import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from kbuild_klp.builds.built_tree import TreeBuild
from kbuild_klp.builds.object_pair import ObjectPair
from kbuild_klp.changes.classification import Change, ChangeType
from kbuild_klp.checksum.batch import compute
from kbuild_klp.checksum.entry import Entry
from kbuild_klp.checksum.stale import find_stale
from kbuild_klp.checksum.sum_file import load
from kbuild_klp.compare.passes import compare
from kbuild_klp.elf import constants as elf
from kbuild_klp.elf.reader import ObjectFile
from kbuild_klp.livepatch.linked_symbols import open_linked
from kbuild_klp.livepatch.sides import ObjectSide
from kbuild_klp.livepatch.survey import Survey
from kbuild_klp.object.view import ObjectView

_NM = re.compile(r"([0-9a-f]{16}) (?:[0-9a-f]{16} )?(\w) (\S+)")


@pytest.fixture(scope="module")
def build() -> TreeBuild:
    tree = os.environ.get("KLP_TEST_TREE")
    if not tree:
        pytest.skip("KLP_TEST_TREE names no built kernel tree")
    return TreeBuild(tree)


class Symbols(NamedTuple):
    """What System.map and vmlinux say: addresses by name, in order, and all places that ftrace knows."""

    addresses: dict[str, list[int]]
    traced: frozenset[int]


@pytest.fixture(scope="module")
def linked(build: TreeBuild) -> Symbols:
    addresses: dict[str, list[int]] = defaultdict(list)
    for line in (build.root / "System.map").read_text().splitlines():
        address, _, name = line.split(" ", 2)
        addresses[name].append(int(address, 16))
    # The list that the kernel starts ftrace with, __start_mcount_loc to __stop_mcount_loc.
    image = open_linked(build.root / "vmlinux")
    start, stop = addresses["__start_mcount_loc"][0], addresses["__stop_mcount_loc"][0]
    section = next(i for i, row in enumerate(image.sections) if row["addr"] <= start < row["addr"] + row["size"])
    offset = start - int(image.sections[section]["addr"])
    places = image.section_array(section)[offset : offset + stop - start].view("<u8")
    return Symbols(addresses, frozenset(places.tolist()))


def entries(build: TreeBuild, name: str) -> list[Entry]:
    """Return the functions of an object; the tree is somebody's, and nothing is written there."""
    content = load(compute(str(build.root / name)).data, name)
    return [entry for entry in content.entries if entry.kind == "function"]


def placed(obj: ObjectFile, linked: Symbols) -> dict[int, int]:
    """Return where sections of an object are in vmlinux, told by their functions with a name of their own."""
    found: dict[int, int] = {}
    kinds = obj.symbols["info"] & 0xF
    for index in np.flatnonzero((kinds == elf.STT_FUNC) & (obj.shndx > 0)).tolist():
        addresses = linked.addresses.get(obj.symbol_name(index), [])
        if len(addresses) == 1 and obj.symbols["info"][index] >> 4 != elf.STB_WEAK:
            found[int(obj.shndx[index])] = addresses[0] - int(obj.symbols["value"][index])
    return found


def located(build: TreeBuild, linked: Symbols) -> Iterator[tuple[str, ObjectSide, Entry, int]]:
    """Yield the functions of vmlinux whose place in it can be told: object, entry and address."""
    (unit,) = (unit for unit in build.units() if unit.name == "vmlinux")
    for name in unit.objects:
        side = ObjectSide(ObjectView(str(build.root / name)))
        bases = placed(side.view.file, linked)
        canonical = side.view.canonical
        for entry in entries(build, name):
            symbol = int(canonical.part_symbols(side.view.parts_of(entry.part_symbol)[0])[0])
            base = bases.get(int(side.view.object.shndx[symbol]))
            address = -1 if base is None else base + int(side.view.object.symbols["value"][symbol])
            # A weak function of which another is linked has its bytes in vmlinux, but no symbol.
            if address in linked.addresses.get(entry.name, ()):
                yield name, side, entry, address


def test_what_ftrace_can_take_over(build: TreeBuild, linked: Symbols) -> None:
    """The kernel's own list has a place in a function if and only if we say so (init code apart, which is freed)."""
    places = sorted(linked.traced)
    counts = {True: 0, False: 0}
    for name, side, entry, address in located(build, linked):
        if entry.section == ".init.text":
            continue
        low, high = bisect_left(places, address), bisect_left(places, address + entry.size)
        untraced = side.untraced(entry)
        assert (untraced == "") == (high > low), f"{name}: {entry.name}: {untraced}"
        counts[high > low] += 1
    print(f"{counts[True]} traceable, {counts[False]} not")
    assert counts[True] > 10000 and counts[False] > 500


def test_the_demo(build: TreeBuild) -> None:
    """Two functions of vmlinux and one of ext4, as selftests/demo.py patched them: nothing is in the way."""
    demo = build.root.with_name("demo")
    if not (demo / "vmlinux.a").exists() or "CONFIG_LIVEPATCH=y" not in (build.root / ".config").read_text():
        pytest.skip("no demo beside KLP_TEST_TREE, or without livepatch")
    patched = TreeBuild(str(demo))
    if any(any(find_stale(side.root, side.objects())) for side in (build, patched)):
        pytest.skip("checksums of other code, and a comparison would write them again; selftests/demo.py does")
    report = compare(build, patched)
    found = {(group.unit, change.symbol): change.livepatch for group in report.objects for change in group.changes}
    assert {key[1] for key in found} == {"cmdline_proc_show", "packet_getname_spkt", "ext4_llseek"}
    assert not any(verdict.reasons for verdict in found.values())


def test_positions_of_all_names_that_are_not_unique(build: TreeBuild, linked: Symbols) -> None:
    """By address in System.map, which is what kallsyms is made from."""
    shared = [row for row in located(build, linked) if len(linked.addresses[row[2].name]) > 1]
    survey = Survey(build, build)
    expected = {}
    by_object: dict[str, list[Change]] = defaultdict(list)
    for name, _, entry, address in shared:
        addresses = linked.addresses[entry.name]
        expected[name, entry.name] = f"sympos {addresses.index(address) + 1} of {len(addresses)} in vmlinux"
        by_object[name].append(Change(entry.kind, ChangeType.CHANGED, entry, entry))
    for name, changes in by_object.items():
        survey.add(name, survey.look(ObjectPair(build, build, name), ["vmlinux"], changes), changes)
    found = {
        (name, change.symbol): [reason.text for reason in verdict.reasons if reason.text.startswith("sympos")]
        for name, (verdicts,) in survey.judged().items()
        for change, verdict in zip(by_object[name], verdicts, strict=True)
        # Of these there is no old one that a livepatch would have to find.
        if not verdict.reasons[0].text.startswith(("init or exit code", "by its callers"))
    }
    print(f"{len(found)} functions")
    assert len(found) > 100
    assert {key: texts[0] for key, texts in found.items()} == {key: expected[key] for key in found}


def test_positions_in_modules(build: TreeBuild, binutils: Callable[..., str]) -> None:
    """In the order of the module's symbol table, as readelf prints it."""
    checked = 0
    for unit in build.units():
        image = build.root / next(iter(build.root.rglob(f"{unit.name}.ko")), Path())
        if unit.name == "vmlinux" or not image.is_file():
            continue
        rows = [line.split() for line in binutils("readelf", "-sW", image).splitlines()]
        names = [row[7] for row in rows if len(row) == 8 and row[3] not in ("FILE", "SECTION") and row[6] != "UND"]
        survey = Survey(build, build)
        of_object = {}
        for name in unit.objects:
            changes = of_object[name] = [
                Change(entry.kind, ChangeType.CHANGED, entry, entry)
                for entry in entries(build, name)
                if names.count(entry.name) > 1
            ]
            if changes:
                survey.add(name, survey.look(ObjectPair(build, build, name), [unit.name], changes), changes)
        seen: dict[str, list[str]] = defaultdict(list)
        for name in unit.objects:  # in link order
            for verdicts in survey.judged().get(name, ()):
                for change, verdict in zip(of_object[name], verdicts, strict=True):
                    seen[change.symbol] += [r.text for r in verdict.reasons if r.text.startswith("sympos")]
        for symbol, texts in seen.items():
            count = names.count(symbol)
            if len(texts) == count:  # else some of them are variables, or in init code
                assert texts == [f"sympos {at + 1} of {count} in {unit.name}" for at in range(count)]
                checked += count
    assert checked > 1
