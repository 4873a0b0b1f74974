# SPDX-License-Identifier: GPL-2.0-only
from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kbuild_klp.source.line_map import LineMap


def pairs(line_map: LineMap, lines: int) -> dict[int, int]:
    return {line: new for line in range(-1, lines + 3) if (new := line_map.map(line)) is not None}


def test_same_text() -> None:
    assert pairs(LineMap("a\nb\n", "a\nb\n"), 2) == {1: 1, 2: 2, 3: 3}


def test_line_inserted_at_the_top() -> None:
    assert pairs(LineMap("a\nb\nc", "new\na\nb\nc"), 3) == {1: 2, 2: 3, 3: 4}


def test_changed_line_has_no_counterpart() -> None:
    line_map = LineMap("a\nb\nc\nd", "a\nB\nc\nd")
    assert pairs(line_map, 4) == {1: 1, 3: 3, 4: 4}


def test_several_hunks() -> None:
    old = [f"line {i}" for i in range(50)]
    new = ["top", *old[:10], "x", "y", *old[12:40], *old[45:]]
    line_map = LineMap("\n".join(old), "\n".join(new))
    assert line_map.map(10) == 11
    assert line_map.map(11) is None
    assert line_map.map(13) == 14
    assert line_map.map(42) is None
    assert line_map.map(50) == len(new)


def test_repeated_lines_fall_to_difflib() -> None:
    old = "{\n}\n{\n}\n{\n}"
    new = "{\n}\nx\n{\n}\n{\n}"
    mapped = pairs(LineMap(old, new), 6)
    assert len(mapped) == 6
    assert sorted(mapped.values()) == list(mapped.values())


def test_other_line_ends_are_text() -> None:
    assert LineMap("a\x0cb\nc", "a\x0cb\nc").map(2) == 2
    assert LineMap("a\r\nb", "a\nb").map(1) is None


def test_large_files_with_repeated_lines_are_mapped() -> None:
    block = "{\n\tif (x)\n\t\treturn;\n}\n\n"
    old = "".join(f"int f{i}(void)\n{block}" for i in range(2000))
    new = "/* first */\n" + old.replace("int f1000(", "long f1000(") + "/* last */\n"
    line_map = LineMap(old, new)
    assert line_map.map(1) == 2
    assert line_map.map(6 * 1000 + 1) is None
    assert line_map.map(12000) == 12001


lines = st.lists(st.sampled_from(["", "{", "}", "a", "b", "c", "d"]), max_size=25)


@given(lines, lines)
def test_pairs_are_equal_and_never_cross(old: list[str], new: list[str]) -> None:
    line_map = LineMap("\n".join(old), "\n".join(new))
    # An empty list of lines is one empty line.
    old, new = old or [""], new or [""]
    mapped = pairs(line_map, len(old))
    assert all(old[line - 1] == new[to - 1] for line, to in mapped.items())
    assert list(mapped.values()) == sorted(set(mapped.values()))


@given(lines, st.integers(0, 25), lines)
def test_insertion_keeps_every_line(old: list[str], place: int, extra: list[str]) -> None:
    new = [*old[:place], *extra, *old[place:]]
    if old and new:
        assert len(pairs(LineMap("\n".join(old), "\n".join(new)), len(old))) == len(old)
