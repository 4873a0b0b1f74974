# SPDX-License-Identifier: GPL-2.0-only
"""Numbers in the data of a big-endian object: line numbers, constants, fields of special sections, notes."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_up_assembler import assemble
from snippets import Changes, changed, data_changed, diff_objects

from kbuild_klp.builds.single_object import ObjectBuild
from kbuild_klp.cli.main import main
from kbuild_klp.compare.passes import compare
from kbuild_klp.lines.identity import Identities
from kbuild_klp.lines.numbers import differing_numbers
from kbuild_klp.lines.records import LineMove, line_moves
from kbuild_klp.lines.versions import Version
from kbuild_klp.object import canonical
from kbuild_klp.object.symbol_id import SymbolId
from kbuild_klp.object.view import ObjectView
from kbuild_klp.special.table import LineField, SectionClass, SpecialSection, SpecialTable

pytestmark = pytest.mark.usefixtures("made_up_machine")


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """Where an old and a new object go."""
    return tmp_path / "old.o", tmp_path / "new.o"


def _diff(pair: tuple[Path, Path], old: str, new: str) -> Changes:
    for path, source in zip(pair, (old, new), strict=True):
        path.write_bytes(assemble(source))
    return diff_objects(*pair)


_BUG_TABLE = SpecialSection(
    name="__bug_table",
    section_class=SectionClass.OWNED,
    architectures=(),
    sizes=(8,),
    references=frozenset({0}),
    owner=0,
    lines=(LineField(4, 16),),
    content=None,
    reason="",
    names={4: "line", 6: "flags"},
)


def test_numbers_in_a_special_section(pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canonical, "special_table", lambda _: SpecialTable([_BUG_TABLE], 1))
    old, line, flags = (
        f"caller::\n    li r3, 1\n    ret\n.section __bug_table\n    .word caller+4 - .\n    .word {number:#x}\n"
        for number in (0x0064_0102, 0x0065_0102, 0x0064_0103)
    )
    assert _diff(pair, old, line) == {("caller", "function", "line-only")}
    assert _diff(pair, old, flags) == changed("caller")
    (group,) = compare(ObjectBuild(str(pair[0])), ObjectBuild(str(pair[1]))).objects
    assert [change.reasons for change in group.changes] == [["bug at +0x4: flags 258 -> flags 259"]]


def test_constant_is_shown_as_the_number_that_it_is(
    pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    source = "f::\n    lea r3, .Lhalf\n    ret\n.section .rodata.cst8\n.Lhalf:\n    .quad {}\n"
    assert _diff(pair, source.format(5), source.format(6)) == changed("f")
    main(["diff", "-v", *map(str, pair)])
    assert "+0x0: constant 0x5 -> constant 0x6\n" in capsys.readouterr().out


def test_build_id_of_an_embedded_image_means_nothing(pair: tuple[Path, Path]) -> None:
    note = ".section .rodata\nimage::\n    .word 4\n    .word 8\n    .word 3\n    .word 0x474e5500\n    .quad {}\n"
    assert _diff(pair, note.format(1), note.format(2)) == set()
    other = note.replace(".word 3", ".word 4")  # another kind of note
    assert _diff(pair, other.format(1), other.format(2)) == data_changed("image")


def test_line_number_in_data(pair: tuple[Path, Path]) -> None:
    """As UBSAN has them: a struct source_location."""
    source = (
        "f::\n    lea r3, .Lwhere\n    bl __ubsan_handle_overflow\n    ret\n.section .rodata.str1\n.Lfile:\n"
        "    .asciz kernel/fork.c\n.section .data\n.Lwhere:\n    .quad .Lfile\n    .word {}\n    .word 9\n"
    )
    line_only = {("f", "function", "line-only")}
    assert _diff(pair, source.format(258), source.format(259)) == line_only
    old, new = (ObjectView(str(path)) for path in pair)
    before, after = (Version(view, view.parts_of(SymbolId("f"))) for view in (old, new))
    assert line_moves(before, after) == [LineMove("kernel/fork.c", 258, 259)]
    found = differing_numbers(before, after, True, Identities({}, lambda: None))
    assert found is not None
    assert [number.readings for number in found.numbers] == [((258, 259), (258, 259))]
