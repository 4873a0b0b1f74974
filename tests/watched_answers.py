# SPDX-License-Identifier: GPL-2.0-only
"""Answers about two small objects of which lines do not count: for tests of what is added to code to watch it."""

from __future__ import annotations

from pathlib import Path

from snippets import Changes, changes_of

from kbuild_klp.builds.single_object import ObjectBuild
from kbuild_klp.compare.passes import compare

NOTHING: Changes = set()

WATCHED = """
int use(int);
int f(int a)
{
	if (a > 3)
		return use(a);
	return a + 100;
}
static __attribute__((noinline)) int g(int a) { return use(a) * 3; }
int h(int a) { return g(a) - 1; }
"""


def added(kind: str, *symbols: str) -> Changes:
    """Return what is said of symbols that came."""
    return {(symbol, kind, "added") for symbol in symbols}


def answer(old: Path, new: Path) -> Changes:
    """Return what is said of two objects, but for what is of lines only."""
    report = compare(ObjectBuild(str(old)), ObjectBuild(str(new)), 1)
    assert not report.warnings
    return {change for change in changes_of(report) if change[2] != "line-only"}


def moved(text: str) -> str:
    """Return a source two lines further down."""
    return "\n\n" + text


def edited(text: str, edit: tuple[str, str]) -> str:
    """Return an edited source, further down; what is to be edited has to be in it."""
    assert edit[0] in text
    return moved(text.replace(*edit))
