# SPDX-License-Identifier: GPL-2.0-only
"""Tables that no row knows, and what is said of entries."""

from __future__ import annotations

import numpy as np
import pytest
from snippets import Changes, Compiler, changed, changes_of, diff_objects

from kbuild_klp.builds.single_object import ObjectBuild
from kbuild_klp.compare.passes import compare
from kbuild_klp.object.cuts import find_cuts


@pytest.mark.parametrize(
    ("size", "align", "offset", "code", "start", "owner", "end"),
    [
        (12, 4, [0, 6], [1, 1], [0, 6], [0, 6], 12),  # a site and two bytes
        (6, 4, [0], [1], [0], [0], 8),  # one entry is as long as there is
        (16, 4, [4, 12], [1, 1], [0, 8], [4, 12], 16),  # a number before the site
        (28, 8, [0, 16], [1, 1], [0, 16], [0, 16], 32),  # the last one lacks padding
        (24, 4, [0, 4, 8, 12, 16, 20], [1, 0, 0, 1, 0, 0], [0, 12], [0, 12], 24),  # a site, a fixup, a handler
        (24, 4, [0, 4, 8, 12, 16, 20], [1, 0, 0, 1, 0, 1], [0, 12], [0, 12], 24),  # one handler is here
        (24, 4, [0, 4, 8, 12, 16, 20], [1, 1, 1, 1, 1, 1], [*range(0, 24, 4)], [*range(0, 24, 4)], 24),
        (32, 8, [0, 8, 16, 24], [0, 1, 0, 1], [0, 16], [8, 24], 32),  # a name before the site
        (20, 4, [0, 8], [1, 1], [0, 8], [0, 8], 20),  # the second one is longer
        (20, 4, [4, 12], [1, 0], [0], [4], 20),
        (24, 4, [0, 4, 12, 20], [1, 1, 0, 1], [0, 4, 20], [0, 4, 20], 24),  # at no distance
        (16, 4, [0, 0, 8], [0, 1, 1], [0, 8], [0, 8], 16),  # two at one place
    ],
)
def test_cuts(
    size: int, align: int, offset: list[int], code: list[int], start: list[int], owner: list[int], end: int
) -> None:
    found = find_cuts(size, align, np.array(offset), np.array(code, bool))
    assert found is not None
    assert (found.start.tolist(), found.owner.tolist(), found.end) == (start, owner, end)


@pytest.mark.parametrize("code", [[], [0, 0]])
def test_what_refers_to_no_function_is_not_cut(code: list[int]) -> None:
    assert find_cuts(16, 4, np.arange(len(code)), np.array(code, bool)) is None


_TEXT = """
.text
.globl f, g, h
.type f, @function\nf: nop\n.Lf: nop\nret\n.size f, . - f
.type g, @function\ng: nop\n.Lg: nop\nret\n.size g, . - g
.type h, @function\nh: nop\n.Lh: nop\nret\n.size h, . - h
"""
_SECTION: Changes = {("__vendor", "section", "changed")}


def _diff(gcc: Compiler, old: str, new: str) -> Changes:
    first, second = (gcc.assembly(f'{_TEXT}.section __vendor, "a"\n{table}\n') for table in (old, new))
    return diff_objects(first, second, unknown="__vendor")


@pytest.mark.parametrize(
    ("old", "new", "answer"),
    [
        (".long .Lf - ., 1, .Lg - ., 2", ".long .Lf - ., 1, .Lg - ., 2, .Lh - ., 3", changed("h")),
        (".long .Lf - ., 1, .Lg - ., 2", ".long .Lf - ., 2, .Lg - ., 1", changed("f", "g")),
        (".long .Lf - ., 1, .Lg - ., 2", ".long .Lf - ., 1, .Lh - ., 2", changed("g", "h")),
        (".long .Lf - ., 1, .Lg - ., 2", ".long .Lf - ., 1, .Lg - ., .Lf - .", changed("f", "g") | _SECTION),
        # In which order they stand may mean something; not while it is that of the functions.
        (".long .Lf - ., 1, .Lg - ., 1", ".long .Lg - ., 1, .Lf - ., 1", _SECTION),
        (".long .Lg - ., 1, .Lf - ., 1", ".long .Lg - ., 2, .Lf - ., 1", changed("g")),
        (".long .Lg - ., 1, .Lf - ., 1, .Lh - ., 1", ".long .Lf - ., 1, .Lh - ., 1, .Lg - ., 1", _SECTION),
    ],
)
def test_entries_of_an_unknown_table(gcc: Compiler, old: str, new: str, answer: Changes) -> None:
    assert _diff(gcc, old, new) == answer


@pytest.mark.parametrize("label", ["table: ", ".globl table\n.type table, @object\ntable: "])
def test_a_table_with_a_name_is_a_variable(gcc: Compiler, label: str) -> None:
    old, new = (gcc.assembly(f'{_TEXT}.section __vendor, "a"\n{label}.long .Lf - ., {value}\n') for value in (1, 2))
    assert diff_objects(old, new) == {("table", "data", "changed")}


def test_a_table_that_code_refers_to_is_its_own(gcc: Compiler) -> None:
    text = f"{_TEXT}.globl user\n.type user, @function\nuser: mov $.Ltable, %eax\nret\n.size user, . - user\n"
    old, new = (gcc.assembly(f'{text}.section __vendor, "a"\n.Ltable: .long .Lf - ., {value}\n') for value in (1, 2))
    assert diff_objects(old, new) == changed("user")


def test_one_warning_for_an_unknown_table(gcc: Compiler) -> None:
    path = gcc.assembly(f'{_TEXT}.section __vendor, "a"\n.long .Lf - ., 1, .Lg - ., 2\n')
    report = compare(ObjectBuild(str(path)), ObjectBuild(str(path)))
    assert changes_of(report) == set()
    assert len({warning.partition(": ")[2] for warning in report.warnings}) == 1


def _reasons(gcc: Compiler, section: str, old: str, new: str, more: str = "") -> list[str]:
    first, second = (gcc.assembly(f'{_TEXT}{more}.section {section}, "a"\n{table}\n') for table in (old, new))
    report = compare(ObjectBuild(str(first)), ObjectBuild(str(second)))
    [change] = [change for group in report.objects for change in group.changes]
    assert change.symbol == "f"
    return change.reasons


def test_reasons_name_all_fields(gcc: Compiler) -> None:
    handler = ".long .Lf - ., .Lf + 1 - ., handler_a - ."
    assert _reasons(gcc, "__ex_table", handler, ".long .Lf - ., .Lf - ., handler_b - .") == [
        "exception table at +0x1: fixup +0x2, handler handler_a -> fixup +0x1, handler handler_b"
    ]
    alternative = ".long .Lf - ., .Lf - .\n.word {}\n.byte {}, 1, {}"
    changes = alternative.format(3, 1, 0), alternative.format(5, 2, 1)
    assert _reasons(gcc, ".altinstructions", *changes) == [
        "alternative at +0x1: feature 3, length 1, padding 0 -> feature 5, length 2, padding 1"
    ]
    vendor = ".long .Lf - .\n.word {}\n.balign 4\n.long {} - .\n.word {}\n.balign 4"
    changes = vendor.format(1, "key_a", 1), vendor.format(2, "key_b", 0)
    assert _reasons(gcc, "__vendor", *changes) == [
        "__vendor at +0x1: +0x4 01000000, +0x8 key_a, +0xc 01000000 -> +0x4 02000000, +0x8 key_b, +0xc 00000000"
    ]


def test_a_fixup_that_goes_back_to_a_moved_place_is_no_reason(gcc: Compiler) -> None:
    text = """
    .text\n.globl f\n.type f, @function\nf: {}\n1: mov (%rdi), %eax\n2: ret\n.size f, . - f
    .section .fixup, "ax"\n3: mov $-14, %eax\njmp 2b\n.section __ex_table, "a"\n.long 1b - ., 3b - ., handler - .
    """
    first, second = (gcc.assembly(text.format(more)) for more in ("nop", "xor %ecx, %ecx"))
    report = compare(ObjectBuild(str(first)), ObjectBuild(str(second)))
    [change] = [change for group in report.objects for change in group.changes]
    assert not [reason for reason in change.reasons if "exception" in reason]
