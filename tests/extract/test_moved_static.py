# SPDX-License-Identifier: GPL-2.0-only
"""A static variable that moves to another function: a copy of its own would begin from nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from snippets import Compiler

from kbuild_klp.elf.reader import ObjectFile
from kbuild_klp.extract.extraction import Extraction, extract
from kbuild_klp.object.view import ObjectView

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


_TOLD = (
    HEAD
    + """
#define text(it) ({ static const char *___tp_str __attribute__((used, section("__tracepoint_str"))) = it; ___tp_str; })
struct limit { long interval, burst, begin; };
int limited(struct limit *);
#define limit() ({ static struct limit _rs = { 5, 10 }; limited(&_rs); })
void tell(const char *);
int user(int x) { tell(text("one")); outside(&x); %s tell(text("two")); return limit() + limit() %s; }
"""
)


def test_several_that_are_no_state_are_carried(cc: Compiler, tmp_path: Path) -> None:
    output = tmp_path / "out.o"
    for more in (("", "+ 1"), ('if (x) tell(text("three"));', ""), ("", "+ limit()")):
        before, after = (str(cc.object(_TOLD % each, *TRACED)) for each in (("", ""), more))
        found = extract(before, after, str(output))
        assert not found.refused and {it.symbol for it in found.carried if it.kind == "function"} == {"user"}
        assert not [it.symbol for it in found.outside if it.is_local]
        view = ObjectView(ObjectFile.open(str(output)))
        sections = {it.section for it in found.carried if "___tp_str" in it.symbol}
        assert sections == {"__tracepoint_str"} and view.object.section_names.count("__tracepoint_str") == 1


def test_one_that_is_no_state_is_the_old_one(cc: Compiler, tmp_path: Path) -> None:
    source = _TOLD.replace('tell(text("two"));', "").replace("+ limit()", "")
    before, after = (str(cc.object(source % ("", more), *TRACED)) for more in ("", "+ 1"))
    found = extract(before, after, str(tmp_path / "out.o"))
    assert not found.refused
    assert any("___tp_str" in it.symbol for it in found.outside if it.is_local)


_NAMED = HEAD + "%s\nint user(int x) { %s++; return outside(&%s) + x; }\nint other(int x) { return %s * x; }\n"


@pytest.mark.parametrize(
    ("old", "new", "is_said"),
    [
        ("static int count = 5;", "static int number = 5;", True),
        ("static int count = 5;", "static int number = 7;", True),
        ("static int count = 5;", "static long number = 5;", False),
        (
            "static int count = 5;",
            "static int count = 5; int *kept(void) { return &count; } static int number = 5;",
            False,
        ),
    ],
)
def test_one_under_another_name_begins_anew(cc: Compiler, tmp_path: Path, old: str, new: str, is_said: bool) -> None:
    before = cc.object(_NAMED % (old, *["count"] * 3), *TRACED)
    after = cc.object(_NAMED % (new, *["number"] * 3), *TRACED)
    found = extract(str(before), str(after), str(tmp_path / "out.o"))
    assert "number" in {it.symbol for it in found.carried}
    said = [text for text in found.warnings if text.startswith("number is new") and "if it is count" in text]
    assert bool(said) == is_said
