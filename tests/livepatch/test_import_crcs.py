# SPDX-License-Identifier: GPL-2.0-only
"""The CRCs that a linked module has of what it uses follow from what it refers to, and from the kernel."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from snippets import Compiler

from kbuild_klp.builds.single_object import ObjectBuild
from kbuild_klp.compare.passes import compare
from kbuild_klp.elf.reader import ObjectFile
from kbuild_klp.extract.extraction import extract
from kbuild_klp.livepatch.import_crcs import import_crcs

TRACED = ("-pg", "-mfentry", "-mrecord-mcount")
_C = "int outside(int); int user(int x) { return outside(x) + %d; }\n"


def _pairs(**crcs: int) -> str:
    """struct modversion_info ____versions[], include/linux/module.h."""
    data = b"".join(struct.pack("<Q56s", crc, name.encode()) for name, crc in crcs.items())
    return f'__attribute__((used, section("__versions"))) static const unsigned char ____versions[] = {_bytes(data)};'


def _extended(**crcs: int) -> str:
    """What modpost writes with CONFIG_EXTENDED_MODVERSIONS, 6.14."""
    names = b"".join(name.encode() + b"\0" for name in crcs) + b"\0"
    data = b"".join(struct.pack("<I", crc) for crc in crcs.values())
    return (
        '__attribute__((used, section("__version_ext_crcs"))) static const unsigned char ____version_ext_crcs[] = '
        f'{_bytes(data)}; __attribute__((used, section("__version_ext_names"))) '
        f"static const unsigned char ____version_ext_names[] = {_bytes(names)};"
    )


def _bytes(data: bytes) -> str:
    return "{" + ",".join(map(str, data)) + "}"


def _reasons(old: Path, new: Path) -> list[str]:
    [group] = compare(ObjectBuild(str(old)), ObjectBuild(str(new))).objects
    assert {change.symbol for change in group.changes} > {"user"}
    return [it.text for change in group.changes if change.symbol != "user" for it in change.livepatch.reasons]


@pytest.mark.parametrize("form", [_pairs, _extended])
def test_a_module_that_uses_something_more(gcc: Compiler, tmp_path: Path, form: Callable[..., str]) -> None:
    old = gcc.object(_C % 1 + form(module_layout=7, outside=5), *TRACED)
    new = gcc.object((_C % 2).replace("+", "- more() +") + form(more=9, module_layout=7, outside=5), *TRACED)
    assert import_crcs(ObjectFile.open(new)) == {"more": 9, "module_layout": 7, "outside": 5}
    assert _reasons(old, new) == []
    found = extract(str(old), str(new), str(tmp_path / "out.o"))
    assert [it.symbol for it in found.carried if it.kind == "function"] == ["user"]
    assert {*found.not_needed} <= {"____versions", "____version_ext_crcs", "____version_ext_names"}


@pytest.mark.parametrize("form", [_pairs, _extended])
def test_another_crc_is_another_type(gcc: Compiler, tmp_path: Path, form: Callable[..., str]) -> None:
    old = gcc.object(_C % 1 + form(module_layout=7, outside=5), *TRACED)
    new = gcc.object(_C % 2 + form(module_layout=7, outside=0xBEEF), *TRACED)
    text = "CRC: outside 0x00000005 -> 0x0000beef"
    assert _reasons(old, new) == [text]
    assert [refusal.reason for refusal in extract(str(old), str(new), str(tmp_path / "out.o")).refused] == [text]


def test_a_layout_that_nobody_knows(gcc: Compiler, tmp_path: Path) -> None:
    strange = _pairs(outside=5).replace("__versions", "__versions_of_a_vendor")
    for versions in (strange, _pairs(outside=5).replace("};", ",1};")):
        old = gcc.object(_C % 1 + versions, *TRACED)
        new = gcc.object(_C % 2 + versions.replace("5,", "6,", 1), *TRACED)
        [text] = _reasons(old, new)
        assert text.startswith("table: __versions") and text.endswith("the CRCs of what it uses")
