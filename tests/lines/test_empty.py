# SPDX-License-Identifier: GPL-2.0-only
"""A variable without bytes lies where another one begins, and the object does not say which of them is meant.

struct lock_class_key has none without lockdep (include/linux/lockdep_types.h), and every mutex_init() has one.
"""

from __future__ import annotations

import pytest
from line_trees import CHANGED, Answer, Pairs, report_of

SOURCE = """
#include "h.h"
static int value_a, value_b, value_c;
int *a(void) { return &value_a; }
void user(void) { LOCK(&value_b); }
int *b(void) { return &value_b; }
int *c(void) { return &value_c; }
"""
HEADER = """
struct key {};
void init(int *, struct key *, int);
#define KIND 3
#define LOCK(x) do { static struct key __key; init((x), &__key, KIND); } while (0)
"""
# What begins behind the key is value_c in one, and another variable in the other.
BESIDE = SOURCE.replace("value_b, value_c;", "value_b, value_c, value_d;") + "int *d(void) { return &value_d; }\n"
ADDED = {"d": Answer("added", ""), "value_d": Answer("added", "")}


def _files(source: str, header: str = HEADER) -> dict[str, str]:
    return {"unit.c": source, "h.h": header}


def test_what_lies_beside_a_key_is_not_what_its_user_refers_to(gcc: Pairs) -> None:
    old, new = gcc.tree(_files(SOURCE)), gcc.tree(_files(BESIDE))
    report = report_of(old, new)
    found = {change.symbol: Answer(change.change.value, "") for change in report.objects[0].changes}
    assert found == ADDED and report.summary.reencoded == 1
    without = report_of(old.without_sources(), new)
    assert {change.symbol for change in without.objects[0].changes} == {*ADDED, "user"}


@pytest.mark.parametrize(
    ("source", "header"),
    [
        (BESIDE.replace("LOCK(&value_b);", "LOCK(&value_c);"), HEADER),
        (BESIDE.replace("LOCK(&value_b);", "init(&value_b, (void *)&value_d, KIND);"), HEADER),
        (BESIDE, HEADER.replace("init((x), &__key, KIND)", "init((x), (void *)&value_d, KIND)")),
        (BESIDE, HEADER.replace("KIND 3", "KIND 4")),
        (BESIDE + 'extern int other asm("another");\n', HEADER),
        (BESIDE, HEADER + "#undef UNKNOWN\n"),
        (BESIDE, HEADER + "#define init(x, key, kind) init(x, (void *)&value_d, kind)\n"),
    ],
)
def test_a_user_that_may_mean_something_else_now_is_changed(gcc: Pairs, source: str, header: str) -> None:
    assert gcc.diff(_files(SOURCE), _files(source, header)) == {**ADDED, "user": CHANGED}


def test_in_another_configuration_a_key_may_be_another_one(gcc: Pairs) -> None:
    """A key that has bytes with lockdep: what the sources say depends on options that neither file shows."""
    old, new = gcc.tree(_files(SOURCE)), gcc.tree(_files(BESIDE))
    new.write("include/config/auto.conf", "CONFIG_X86_64=y\nCONFIG_LOCKDEP=y\n")
    assert {change.symbol for change in report_of(old, new).objects[0].changes} == {*ADDED, "user"}


@pytest.mark.parametrize(("flag", "expected"), [("-fdata-sections", set()), ("-fno-common", {"user"})])
def test_a_key_with_a_section_of_its_own_is_the_same_key(gcc: Pairs, flag: str, expected: set[str]) -> None:
    """Flags that say where things lie change no meaning; what others do is not known."""
    old, new = gcc.tree(_files(SOURCE)), gcc.tree(_files(SOURCE), "-fdata-sections", flag)
    assert {change.symbol for group in report_of(old, new).objects for change in group.changes} == expected
