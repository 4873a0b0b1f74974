# SPDX-License-Identifier: GPL-2.0-only
"""Objects laid end to end: names are found without reading those of all others."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import compile_object

from kbuild_klp.elf.objects import Objects
from kbuild_klp.elf.reader import SYMBOL, ObjectFile
from kbuild_klp.errors import BadObjectError

_NAMES = st.text("ab", min_size=0, max_size=20)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> ObjectFile:
    return ObjectFile.open(compile_object("int a;\n", tmp_path_factory.mktemp("objects") / "a.o"))


def _with_names(file: ObjectFile, strings: bytes, offsets: list[int]) -> Objects:
    objects = Objects.of(file)
    objects.strings = strings
    objects.symbols = np.zeros(len(offsets), SYMBOL)
    objects.symbols["name"] = offsets
    return objects


@given(names=st.lists(_NAMES, max_size=12), skipped=st.lists(st.integers(0, 25), max_size=12), asked=st.lists(_NAMES))
def test_symbols_are_found_by_name(file: ObjectFile, names: list[str], skipped: list[int], asked: list[str]) -> None:
    """Names as linkers store them: one may be the end of another."""
    strings = b"\0" + b"".join(name.encode() + b"\0" for name in names)
    offsets = [0, *(min(skip, len(strings) - 1) for skip in skipped)]
    for name in names[:-1]:
        offsets.append(offsets[-1] + len(name) + 1 if offsets[-1] + len(name) + 1 < len(strings) else 0)
    objects = _with_names(file, strings, offsets)
    wanted = {name.encode() for name in (*asked, *names[::2])}
    every = [(at, strings[start:].partition(b"\0")[0]) for at, start in enumerate(offsets)]
    assert objects.named(wanted) == [(at, name) for at, name in every if name in wanted]


def test_a_name_outside_the_table_is_an_error(file: ObjectFile) -> None:
    with pytest.raises(BadObjectError, match="name of symbol 1 has no end"):
        _with_names(file, b"\0abc\0x", [1, 5]).named({b"abc"})


@pytest.mark.parametrize(("what", "section"), [("section", 1), ("symbol", 1)])
def test_a_name_does_not_run_into_the_table_of_another_object(file: ObjectFile, what: str, section: int) -> None:
    """In a batch the string tables stand behind each other: an object would take the name of another for its own."""
    data = bytearray(file.view)
    names = file.section_strings if what == "section" else file.symbol_strings
    if what == "section":
        place = int.from_bytes(data[40:48], "little") + 64 * section
    else:
        place = int(file.sections["offset"][file.section_names.index(".symtab")]) + SYMBOL.itemsize * section
    data[place : place + 4] = (len(names) + 2).to_bytes(4, "little")
    broken = ObjectFile(bytes(data), "broken.o")
    for batch in ([broken, file], [file, broken], [broken]):
        with pytest.raises(BadObjectError, match=f"broken.o: .*name of {what} 1 has no end"):
            _ = Objects(batch).names
