# SPDX-License-Identifier: GPL-2.0-only
"""Every object of a real kernel: each byte is accounted for once, nothing is unknown, and binutils agrees with us.

KLP_TEST_TREE names a built tree; without it there is nothing to test.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from mutate import entries_of

from kbuild_klp.elf import constants as elf
from kbuild_klp.elf.reader import ObjectFile
from kbuild_klp.kernel.tree import BuildTree
from kbuild_klp.object.canonical import Canonical, canonicalize
from kbuild_klp.object.parts import PartKind
from kbuild_klp.special.table import SectionClass, special_table


@pytest.fixture(scope="module")
def objects() -> list[Path]:
    """All objects that are linked into the kernel or a module."""
    tree = os.environ.get("KLP_TEST_TREE")
    if not tree:
        pytest.skip("KLP_TEST_TREE names no built kernel tree")
    root = Path(tree)
    return [root / name for name in dict.fromkeys(n for unit in BuildTree.open(root).units() for n in unit.objects)]


def canonical_objects(paths: list[Path]) -> Iterator[Canonical]:
    for path in paths:
        yield canonicalize(ObjectFile.open(path))


def check_filler(canonical: Canonical) -> None:
    """Filler is in no checksum: in data it is zeros below the alignment (in code NOPs and int3)."""
    obj, parts = canonical.objects.files[0], canonical.parts
    for part in np.flatnonzero(parts.kind == PartKind.FILLER).tolist():
        start, end = int(parts.start[part]), int(parts.end[part])
        if start >= canonical.image.code_end:
            assert end - start < obj.sections[int(parts.section[part])]["align"], canonical.section_name(part)
            assert not canonical.image.data[start:end].any()


def test_every_byte_of_every_section_lies_in_exactly_one_part(objects: list[Path]) -> None:
    """... or in a section that special.toml says is derived, with the reason. And nothing is unknown."""
    rows = special_table("x86_64").rows
    total = covered = derived = filler = 0
    for canonical in canonical_objects(objects):
        assert not canonical.image.warnings
        check_filler(canonical)
        obj, parts = canonical.objects.files[0], canonical.parts
        sizes = parts.end - parts.start
        assert bool(np.all(sizes >= 0))
        assert bool(np.all(parts.start[1:] >= parts.end[:-1])), f"{obj.path}: parts overlap"
        per_section = np.bincount(parts.section, sizes, len(obj.sections)).astype(np.int64)
        for index in np.flatnonzero(obj.sections["flags"] & elf.SHF_ALLOC).tolist():
            size, name = int(obj.sections["size"][index]), obj.section_names[index]
            total += size
            found = rows(name)
            if found and found[0].section_class is SectionClass.DERIVED:
                assert found[0].reason, name
                assert per_section[index] == 0
                derived += size
            else:
                assert per_section[index] == size, f"{obj.path}: {name}"
                covered += size
        filler += int(sizes[parts.kind == PartKind.FILLER].sum())
    print(f"{len(objects)} objects: {total} bytes, {covered} in parts ({filler} of them filler), {derived} derived")
    assert covered + derived == total


def test_every_symbol_is_in_an_entry(objects: list[Path]) -> None:
    """Functions and variables under their own name, aliases and inner labels with who covers them."""
    for path in objects[::7]:
        canonical = canonicalize(ObjectFile.open(path))
        obj = canonical.objects
        in_parts = set(canonical.chunks.symbols.tolist())
        kinds = obj.symbols["info"] & 0xF
        image = canonical.image
        for index in np.flatnonzero((obj.shndx > 0) & (kinds < elf.STT_SECTION)).tolist():
            section, name = int(obj.shndx[index]), obj.symbol_name(index)
            if image.base[section] < 0 or image.is_owned[section] or name.startswith((".L", "$")) or not name:
                continue
            assert index in in_parts, f"{path}: {name}"


def test_no_two_entries_are_of_one_symbol(objects: list[Path]) -> None:
    """An entry is found again by its symbol, also where many sources were linked."""
    linked = [path for path in (Path(os.environ["KLP_TEST_TREE"], "vmlinux.o"),) if path.exists()]
    for path in [*objects[::5], *linked]:
        symbols = [(entry.part_symbol, entry.name) for entry in entries_of(ObjectFile.open(path))]
        assert len(symbols) == len(set(symbols)), path


_RELOCATION = re.compile(
    r"^([0-9a-f]{16})\s+[0-9a-f]{16}\s+(R_\w+)\s+(?:[0-9a-f]{16}\s+)?(\S+)(?: ([+-]) ([0-9a-f]+))?$"
)


def test_relocations_are_those_that_readelf_reads(objects: list[Path], binutils: Callable[..., str]) -> None:
    """Place, symbol and addend of each; the addend is ours less what the PC bias adds, which is 0 to 12 bytes."""
    for path in objects[:: max(1, len(objects) // 25)]:
        canonical = canonicalize(ObjectFile.open(path))
        references, image = canonical.references, canonical.image
        ours = {int(place): row for row, place in enumerate(references.place)}
        section = ""
        seen = 0
        for line in binutils("readelf", "-rW", path).splitlines():
            if line.startswith("Relocation section"):
                section = line.split("'")[1].removeprefix(".rela")
                continue
            match = _RELOCATION.match(line.strip())
            indices = [i for i, name in enumerate(canonical.objects.section_names) if name == section]
            if match is None or len(indices) != 1 or image.base[indices[0]] < 0 or match[2] == "R_X86_64_NONE":
                continue
            seen += 1
            row = ours[int(image.base[indices[0]]) + int(match[1], 16)]
            symbol = int(references.symbol[row])
            name = (
                canonical.objects.symbol_name(symbol)
                or canonical.objects.section_names[canonical.objects.shndx[symbol]]
            )
            addend = int(match[5] or "0", 16) * (-1 if match[4] == "-" else 1)
            assert name == match[3], f"{path}: {line}"
            assert 0 <= int(references.addend[row]) - addend <= 12, f"{path}: {line}"
        assert seen or not len(image.places), path


_TARGET = re.compile(r"^\s*([0-9a-f]+):\t(?:call|jmp|j[a-z]+)\s+([0-9a-f]+) <([^>+]+)(?:\+0x([0-9a-f]+))?>$")


def test_resolved_branches_go_where_objdump_says(objects: list[Path], binutils: Callable[..., str]) -> None:
    """Calls to static functions have no relocation: decoded displacement and covering symbol must be right."""
    checked = 0
    for path in objects[:: max(1, len(objects) // 25)]:
        canonical = canonicalize(ObjectFile.open(path))
        references, targets, image = canonical.references, canonical.targets, canonical.image
        names = canonical.objects.section_names
        if names.count(".text") != 1:
            continue
        section = names.index(".text")
        base, end = int(image.base[section]), int(image.end[section])
        relocations = canonical.objects.relocations(np.array([section]))
        relocated = set((relocations.offset + base).tolist())
        resolved = {
            int(place): row
            for row, place in enumerate(references.place)
            if base <= place < end and int(place) not in relocated
        }
        listing = binutils("objdump", "-d", "--no-show-raw-insn", "-j", ".text", path)
        branches = [match for match in map(_TARGET.match, listing.splitlines()) if match]
        for match in branches:
            at = base + int(match[1], 16)
            row = resolved.get(at + 1, resolved.get(at + 2))  # behind an opcode of one or two bytes
            if row is None:
                continue
            assert int(references.target[row]) == base + int(match[2], 16), f"{path}: {match[0]}"
            symbol = int(targets.symbol[row])
            aliases = {
                canonical.objects.symbol_name(s) for s in canonical.part_symbols(int(targets.part[row])).tolist()
            }
            assert match[3] in aliases | {canonical.objects.symbol_name(symbol)}, f"{path}: {match[0]}"
            checked += 1
    assert checked > 100
