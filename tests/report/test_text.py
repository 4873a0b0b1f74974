# SPDX-License-Identifier: GPL-2.0-only
"""What a reader sees where a line has no room, or there are too many lines."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from snippets import Compiler

from kbuild_klp.builds.single_object import ObjectBuild
from kbuild_klp.compare.passes import compare
from kbuild_klp.report.text import TextStyle, fitted, render

IMMEDIATE = "+0x64: movl $0xffffffa1, %eax -> movl $0xffffff95, %eax"
STRING = '+0x5: string "the quick brown fox" -> "the quick brown dog"'


@pytest.mark.parametrize(
    ("reason", "room", "shown"),
    [
        (IMMEDIATE, 80, IMMEDIATE),
        (IMMEDIATE, 45, "+0x64: movl $0xffffffa1, %eax -> $0xffffff95"),
        (IMMEDIATE, 33, "+0x64: movl $0x... -> $0xffffff95"),
        ("+0x5c: movl 0x30(%r13), %edx -> movl 0x30(%r13), %esi", 45, "+0x5c: movl 0x30(%r13), %edx -> %esi"),
        (STRING, 45, '+0x5: string "...fox" -> "...dog"'),
        (STRING, 30, '+0x5: string ".... -> "...dog"'),
        ("now calls a_function_with_a_long_name", 20, "now calls a_funct..."),
    ],
)
def test_the_new_side_is_seen(reason: str, room: int, shown: str) -> None:
    """Else nobody knows what the new value is without asking again."""
    assert fitted(reason, room) == shown


@given(st.text("ab: ,->", max_size=60), st.text("ab, ", max_size=60), st.integers(12, 80))
def test_it_fits(old: str, new: str, room: int) -> None:
    assert len(fitted(f"+0x1: {old} -> {new}", room)) <= room


def _crcs(gcc: Compiler, count: int, value: int) -> ObjectBuild:
    text = "".join(
        f"__crc_s{at}: .long {value + at}\n.type __crc_s{at}, @object\n.size __crc_s{at}, 4\n" for at in range(count)
    )
    return ObjectBuild(
        str(gcc.assembly(f'.section ___kcrctab,"a"\n.globl f\n{text}.data\nf: .long {value}\n.size f, 4\n'))
    )


def test_crcs_of_many_exports_are_one_line(gcc: Compiler) -> None:
    """Of 591 lines about Ubuntu's zfs.ko of another release 589 said nothing but this."""
    report = compare(_crcs(gcc, 40, 1), _crcs(gcc, 40, 100))
    lines = [line.strip() for line in render(report, TextStyle()).splitlines() if "__crc_" in line or "CRCs" in line]
    assert lines == ["L changed   CRCs of 40 exports (-v lists them)  s0, s1, s10, s11, s12, s13,..."]
    assert render(report, TextStyle()).count("changed   ") == 2
    assert render(report, TextStyle(verbose=True)).count("__crc_s") == 40
    few = render(compare(_crcs(gcc, 3, 1), _crcs(gcc, 3, 100)), TextStyle())
    assert few.count("__crc_s") == 3 and "CRCs" not in few
