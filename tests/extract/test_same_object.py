# SPDX-License-Identifier: GPL-2.0-only
"""Two objects that are no versions of one."""

from __future__ import annotations

from pathlib import Path

import pytest
from snippets import Compiler

from kbuild_klp.errors import KlpError
from kbuild_klp.extract.extraction import Extraction, extract

TRACED = ("-pg", "-mfentry", "-mrecord-mcount")
_C = "int outside(int); int user(int x) { return outside(x) + %d; }\n"


def _renamed(path: Path, name: str) -> Path:
    """The object, as if it were compiled from another file."""
    data = path.read_bytes().replace(b"\0unit.c\0", b"\0" + name.encode() + b"\0")
    other = path.with_name("other.o")
    other.write_bytes(data)
    return other


def _extract(old: Path, new: Path, output: Path) -> Extraction:
    return extract(str(old), str(new), str(output))


def test_nothing_is_said_of_two_versions(gcc: Compiler, tmp_path: Path) -> None:
    old, new = gcc.object(_C % 1, *TRACED), gcc.object(_C % 2 + "int more(int x) { return x; }", *TRACED)
    assert not _extract(old, new, tmp_path / "out.o").warnings


def test_a_source_of_another_name(gcc: Compiler, tmp_path: Path) -> None:
    old, new = gcc.object(_C % 1, *TRACED), _renamed(gcc.object(_C % 2, *TRACED), "core.c")
    found = _extract(old, new, tmp_path / "out.o")
    assert found.is_written
    assert found.warnings == [f"{new} is made of core.c, {old} of unit.c"]


@pytest.mark.parametrize("name", ["unit.c", "core.c"])
def test_no_function_is_in_both(gcc: Compiler, tmp_path: Path, name: str) -> None:
    old, new = (gcc.object((_C % number).replace("user", f"user{number}"), *TRACED) for number in (1, 2))
    with pytest.raises(KlpError, match=r"has no function of .*; give two versions of one object"):
        _extract(old, _renamed(new, name), tmp_path / "out.o")
    assert not (tmp_path / "out.o").exists()


def test_a_function_of_which_the_compiler_made_another_is_in_both(gcc: Compiler, tmp_path: Path) -> None:
    source = "int outside(int); %s int user(int x) { return outside(x) + %d; } void *keep = user;"
    old = gcc.object(source % ("static", 1), *TRACED)
    new = gcc.object(source % ('static int user(int) asm("user.isra.0"); static', 2), *TRACED)
    _extract(old, new, tmp_path / "out.o")


def test_where_there_was_no_function_all_is_new(gcc: Compiler, tmp_path: Path) -> None:
    old, new = gcc.object("int limit;", *TRACED), gcc.object("int limit;" + _C % 1, *TRACED)
    assert _extract(old, new, tmp_path / "out.o").is_written
