# SPDX-License-Identifier: GPL-2.0-only
"""Objects that were read together are what they are alone: else a reason would speak of another object's bytes."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from linked_kernel import Kernels
from samples import NOBODYS_ENTRIES, SAMPLE, compile_object
from special_layouts import LAYOUTS, SITE, Entry, Program, Ref

from kbuild_klp.builds import object_pair
from kbuild_klp.elf.objects import Objects
from kbuild_klp.elf.reader import ObjectFile
from kbuild_klp.errors import BadObjectError
from kbuild_klp.object.apart import take_apart
from kbuild_klp.object.canonical import Canonical, canonicalize
from kbuild_klp.object.symbol_sources import Sources
from kbuild_klp.object.view import views_of

ASSEMBLY = {
    "nothing": "",
    "bss": ".bss\n.globl only\nonly: .zero 24\n",
    "data": ".data\nvariable: .quad variable + 4, outside - 0x80000000\n.size variable, 16\n",
    "code": '.text\nf: jmp g\n.size f, . - f\n.section .text.unlikely, "ax"\ng: call f\nret\n.size g, . - g\n',
    "empty sections": '.section .text.none, "ax"\n.section .data.none, "aw"\n.section .bss.none, "aw", @nobits\n',
    "nobody's entries": NOBODYS_ENTRIES,
    "a layout that no row knows": """
        f: ret
        .size f, . - f
        .section .new_table, "a"
        .quad f, 5, f + 1, 6
    """,
    "a relocation that no row knows": ".data\nx: .long 0\n.size x, 4\n.reloc x, R_X86_64_GOTPLT64, y\n",
}


def _layout(number: int) -> str:
    layout = LAYOUTS[number]
    own: dict[str, tuple[Entry, ...]] = {}
    for name in "fg":
        values = ((one.old or SITE) if isinstance(one, Ref) else one.value for one in layout.fields_of(name))
        own[name] = (Entry(tuple(values)),)
    return Program(layout, own).text()


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """One of each kind: compilers, layouts of special sections, stripped, linked, and what has nearly nothing in it."""
    place = tmp_path_factory.mktemp("apart")
    made = [compile_object(SAMPLE, place / "sample.o"), compile_object(SAMPLE, place / "sections.o", "-fdata-sections")]
    texts = [*ASSEMBLY.values(), *map(_layout, range(len(LAYOUTS)))]
    made += [compile_object(text, place / f"{at}.o", language="assembler") for at, text in enumerate(texts)]
    stripped, linked = place / "stripped.o", place / "linked.o"
    commands = [
        ["objcopy", "--strip-unneeded", made[0], stripped],
        ["ld", "-r", "-z", "muldefs", "-o", linked, made[0], made[5], made[1]],
    ]
    for command in commands:
        subprocess.run(list(map(str, command)), check=True, capture_output=True)
    return list(map(str, [*made, stripped, linked]))


def _canonical(paths: Sequence[str]) -> Canonical:
    return canonicalize(list(map(ObjectFile.open, paths)))


def _assert_same(found: Any, alone: Any, where: str) -> None:
    """Compare two values with all that is in them; arrays may hold equal numbers in other widths."""
    if isinstance(alone, np.ndarray):
        assert np.array_equal(found, alone), where
    elif isinstance(alone, (Objects, Sources)):
        assert type(found) is type(alone)
        for name in ("section_names", "names", "files", "homes"):
            if name != "files" or isinstance(alone, Sources):
                assert getattr(found, name, None) == getattr(alone, name, None), f"{where}.{name}"
    elif is_dataclass(alone) and not isinstance(alone, type):
        for field in fields(alone):
            _assert_same(getattr(found, field.name), getattr(alone, field.name), f"{where}.{field.name}")
    elif isinstance(alone, dict):
        assert list(found) == list(alone), where
        for key, value in alone.items():
            _assert_same(found[key], value, f"{where}[{key}]")
    elif isinstance(alone, (list, tuple)):
        assert len(found) == len(alone), where
        for at, (one, other) in enumerate(zip(found, alone, strict=True)):
            _assert_same(one, other, f"{where}[{at}]")
    else:
        assert found == alone, where


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_each_object_is_what_it_is_alone(objects: list[str], data: st.DataObject) -> None:
    chosen = data.draw(st.lists(st.sampled_from(objects), min_size=1, max_size=12))
    for path, found in zip(chosen, take_apart(_canonical(chosen)), strict=True):
        _assert_same(found, _canonical([path]), Path(path).name)


def test_all_of_them_at_once(objects: list[str]) -> None:
    taken = take_apart(_canonical(objects))
    for path, found in zip(objects, taken, strict=True):
        _assert_same(found, _canonical([path]), Path(path).name)
    assert sum(len(one.image.warnings) for one in taken) >= 2  # of these objects, and each said of its own


def test_views_are_of_one_machine(objects: list[str], tmp_path: Path) -> None:
    other = bytearray(Path(objects[0]).read_bytes())
    other[18] = 183  # e_machine: aarch64
    path = tmp_path / "other.o"
    path.write_bytes(other)
    assert [view.file.path for view in views_of(objects[:2])] == objects[:2]
    assert views_of([]) == []
    with pytest.raises(BadObjectError, match="not of the machine of"):
        views_of([objects[0], str(path)])


@pytest.mark.parametrize("trouble", ["none", "one is broken"])
def test_the_answer_is_that_of_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: str) -> None:
    kernels = Kernels(tmp_path)
    source = """
        extern int out(const char *, int);
        static int helper(int x) { static int count; return out(__func__, x + count++) * 3; }
        int f_NAME(int x) { CHANGE; return helper(x) ? helper(x + 1) : out("TEXT", x); }
        const char *name_NAME(int x) { return x ? "TEXT" : __func__; }
    """
    old, new = (
        {
            f"kernel/{name}.o": source.replace("NAME", name)
            .replace("TEXT", text)
            .replace("CHANGE", change * (name > "a"))
            for name in "abcd"
        }
        for text, change in (("old", ""), ("new", "x ^= 77"))
    )
    kernels.build(old, new)
    read: list[int] = []

    def watched(paths: Sequence[str]) -> object:
        read.append(len(paths))
        if trouble != "none":
            raise RuntimeError
        return views_of(paths)

    monkeypatch.setattr(object_pair, "views_of", watched)
    found = kernels.compare()
    assert read == [8]
    monkeypatch.setattr(object_pair, "_TOGETHER", 0)
    assert found == kernels.compare()
    assert read == [8]
    assert [[change.symbol for change in group.changes] for group in found.objects] == [
        [f"f_{name}", f"name_{name}"] for name in "abcd"
    ]


def test_a_fault_of_ours_is_shown_to_who_looks_for_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Everybody else gets the answer, by reading one by one."""
    kernels = Kernels(tmp_path)
    old, new = ({f"kernel/{name}.o": f"int {name} = {value};" for name in "ab"} for value in (1, 2))
    kernels.build(old, new)

    def broken(paths: Sequence[str]) -> object:
        raise RuntimeError(f"of {len(paths)}")

    monkeypatch.setattr(object_pair, "views_of", broken)
    monkeypatch.delenv("KLP_DEBUG", raising=False)
    assert len(kernels.compare().objects) == 2
    monkeypatch.setenv("KLP_DEBUG", "1")
    with pytest.raises(RuntimeError, match="of 4"):
        kernels.compare()
