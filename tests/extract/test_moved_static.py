# SPDX-License-Identifier: GPL-2.0-only
"""A static variable that moves to another function: a copy of its own would begin from nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from snippets import Compiler

from kbuild_klp.extract.extraction import Extraction, extract

TRACED = ("-pg", "-mfentry")
HEAD = "#define noinline __attribute__((noinline))\nint outside(int *);\n"
OLD = HEAD + "int user(int x) { static int count; return outside(&count) + x; }\n"
MOVED = (
    HEAD
    + """
static noinline int helper(int x) { static int count; return outside(&count) - x; }
int user(int x) { return helper(x) + 1; }
"""
)
NEW = (
    HEAD
    + """
static noinline int helper(int x) { static int number; return outside(&number) - x; }
int user(int x) { static int count; return outside(&count) + helper(x); }
"""
)


def _extract(compiler: Compiler, new: str, tmp_path: Path) -> Extraction:
    before, after = (str(compiler.object(source, *TRACED)) for source in (OLD, new))
    return extract(before, after, str(tmp_path / "out.o"))


def test_one_that_moved_may_be_the_old_one(cc: Compiler, tmp_path: Path) -> None:
    found = _extract(cc, MOVED, tmp_path)
    assert {(it.symbol, it.bar.word) for it in found.refused} == {("helper", "candidates")} and not found.is_written


def test_one_that_is_new_is_carried(cc: Compiler, tmp_path: Path) -> None:
    found = _extract(cc, NEW, tmp_path)
    assert not found.refused
    assert {it.symbol for it in found.carried if it.kind == "function"} == {"helper", "user"}


_SCOPES = HEAD + "int user(int x) { %s if (x > 3) { static int count; count++; return outside(&count); } return x; }\n"
_BEFORE = "if (x == 1) { static int count; count += 7; outside(&count); }"


@pytest.mark.parametrize(("old", "new"), [("", _BEFORE), (_BEFORE, ""), (_BEFORE, _BEFORE.replace("7", "6"))])
def test_several_of_one_function_are_told_apart_by_a_number_only(
    cc: Compiler, tmp_path: Path, old: str, new: str
) -> None:
    """LLVM numbers the second one: it is the first one, when another one comes before."""
    before, after = (str(cc.object(_SCOPES % source, *TRACED)) for source in (old, new))
    found = extract(before, after, str(tmp_path / "out.o"))
    assert {(it.symbol, it.bar.word) for it in found.refused} == {("user", "candidates")} and not found.is_written
