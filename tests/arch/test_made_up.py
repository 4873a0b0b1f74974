# SPDX-License-Identifier: GPL-2.0-only
"""A machine that is unlike x86 in everything, all the way from object to answer.

Each case is two sources and the whole answer that is right for them.
"""

from __future__ import annotations

import json
from pathlib import Path

import made_up
import pytest
from fake_build import FakeBuild
from made_up_assembler import assemble
from snippets import Changes, changed, data_changed, diff_objects

from kbuild_klp.checksum import sum_file
from kbuild_klp.checksum.batch import compute
from kbuild_klp.checksum.path import sum_path
from kbuild_klp.cli.main import main
from kbuild_klp.errors import BadObjectError

pytestmark = pytest.mark.usefixtures("made_up_machine")

SOURCE = """
helper:
    li r3, 1
    ret
other:
    li r3, 2
    ret
    .balign 16
caller::
    li r5, 77
    bl helper
    bz r3, .Lout
    lea r4, table+8
    leap r4, other
.Lhigh:
    lah r6, outside
    add r3, r4, r5
    lal r6, .Lhigh
    ld r7, setting
    lw r7, limit
    lea r8, .Lcases
    bl external
    b other
.Lout:
    ret
    .balign 16
second::
    bl caller
.Lhigh2:
    lah r6, other
    lal r6, .Lhigh2
    b helper
.section .text.cold
far:
    bl helper
    b caller
.section .rodata
.Lcases:
    .word .Lout - .Lcases
    .word .Lhigh - .Lcases
.section .data
table::
    .quad helper
    .quad 5
    .word other - table
    .word helper - .
"""
"""One of everything; each case replaces something in it."""

Replacement = tuple[str, str]

ADDED = "added::\n    li r3, 3\n    bl helper\n    ret\n"
IN_FRONT = ("\nhelper:\n", f"\n{ADDED}helper:\n")
FAR_FROM_IT = (".section .rodata\n", ".section .rodata\nconstant::\n    .quad 3\n    .balign 8\n")


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """Where an old and a new object go."""
    return tmp_path / "old.o", tmp_path / "new.o"


def _write(pair: tuple[Path, Path], old: bytes, new: bytes) -> None:
    for path, data in zip(pair, (old, new), strict=True):
        path.write_bytes(data)


def _diff(pair: tuple[Path, Path], old: bytes, new: bytes) -> Changes:
    _write(pair, old, new)
    return diff_objects(*pair)


def _replaced(*replacements: Replacement, source: str = SOURCE) -> str:
    for old, new in replacements:
        assert source.count(old) == 1, old
        source = source.replace(old, new)
    return source


# -- what is no change ------------------------------------------------------------------------------------------------


def test_what_moves_has_not_changed(pair: tuple[Path, Path]) -> None:
    new = assemble(_replaced(IN_FRONT, FAR_FROM_IT))
    assert _diff(pair, assemble(SOURCE), new) == {("added", "function", "added"), ("constant", "data", "added")}


def test_order_of_sections_means_nothing(pair: tuple[Path, Path]) -> None:
    old, new = assemble(SOURCE), assemble(SOURCE, order=lambda sections: sections[::-1])
    assert old != new
    assert _diff(pair, old, new) == set()


@pytest.mark.parametrize("name", [".L0 ", ""], ids=["one name for all", "no name"])
def test_labels_of_pairs_may_have_any_name(pair: tuple[Path, Path], name: str) -> None:
    """Binutils call all labels of their own on riscv `.L0 `."""
    spelled = [assemble(source, label_name=lambda _: name) for source in (SOURCE, _replaced(IN_FRONT))]
    assert _diff(pair, assemble(SOURCE), spelled[0]) == set()
    assert _diff(pair, *spelled) == {("added", "function", "added")}


def test_place_of_a_table_entry_means_nothing(pair: tuple[Path, Path]) -> None:
    # Entries are made in the order of their first use.
    new = _replaced(("helper:\n    li r3, 1\n", "helper:\n    ld r7, limit\n"))
    assert _diff(pair, assemble(SOURCE), assemble(new)) == changed("helper")


# -- what is one ------------------------------------------------------------------------------------------------------

CHANGES = {
    "target of a call without relocation": (
        [("    bl helper\n    bz", "    bl other\n    bz")],
        changed("caller"),
        ["+0x4: calls other instead of helper"],
    ),
    "target of a call with relocation": (
        [("bl external", "bl elsewhere")],
        changed("caller"),
        ["+0x2c: calls elsewhere instead of external"],
    ),
    "call from another section": (
        [("far:\n    bl helper", "far:\n    bl other")],
        changed("far"),
        ["+0x0: calls other instead of helper"],
    ),
    "opcode beside the field, without relocation": (
        [("    b other\n.Lout", "    bl other\n.Lout")],
        changed("caller"),
        ["+0x30: b other -> bl other"],
    ),
    "opcode beside the field, with relocation": (
        [("    b caller\n", "    bl caller\n")],
        changed("far"),
        ["+0x4: b caller -> bl caller"],
    ),
    "opcode between the pieces of a field, with relocation": (
        [("lea r4", "leap r4")],
        changed("caller"),
        ["+0xc: lea r4, table+0x8 -> leap r4, table+0x8"],
    ),
    "opcode between the pieces of a field, without relocation": (
        [("leap r4", "lea r4")],
        changed("caller"),
        ["+0x10: leap r4, other -> lea r4, other"],
    ),
    "opcode behind the field": (
        [("ld r7, setting", "lw r7, setting")],
        changed("caller"),
        ["+0x20: ld r7, <unnamed data in .toc> -> lw r7, <unnamed data in .toc>"],
    ),
    "register beside the field": (
        [("lea r8", "lea r9")],
        changed("caller"),
        ["+0x28: lea r8, <jump table in .rodata> -> lea r9, <jump table in .rodata>"],
    ),
    "target of a field in pieces, without relocation": (
        [("leap r4, other", "leap r4, helper")],
        changed("caller"),
        ["+0x10: refers to helper instead of other"],
    ),
    "addend of a field in pieces": (
        [("table+8", "table+7")],
        changed("caller"),
        ["+0xc: refers to table+0x7 instead of table+0x8"],
    ),
    "branch inside of a function": (
        [("b other\n.Lout:\n    ret\n", "b other\n    ret\n.Lout:\n    ret\n")],
        changed("caller"),
        [
            "+0x8: goes to +0x38 (ret) instead of +0x34 (ret)",
            "+0x28: entry 0 of the jump table goes to +0x38 (ret) instead of +0x34 (ret)",
            "1 instruction added at +0x38",
            "size 56 -> 60",
        ],
    ),
    "number": (
        [("li r5, 77", "li r5, -77")],
        changed("caller"),
        ["+0x0: li r5, 77 -> li r5, -77"],
    ),
    "target of a pair": (
        [("lah r6, outside", "lah r6, external")],
        changed("caller"),
        [
            "+0x14: refers to external instead of outside",
            "+0x1c: refers to external instead of outside",
        ],
    ),
    "target of a pair in the other function": (
        [("lah r6, other", "lah r6, helper")],
        changed("second"),
        ["+0x4: refers to helper instead of other", "+0x8: refers to helper instead of other"],
    ),
    "low half of another pair": (
        [("lal r6, .Lhigh2", "lal r6, .Lhigh")],
        changed("second"),
        ["+0x8: refers to outside instead of other"],
    ),
    "low half of no pair": (
        [("lal r6, .Lhigh2", "lal r6, helper")],
        changed("second"),
        ["+0x8: refers to helper instead of other"],
    ),
    "content of a table entry": (
        [("ld r7, setting", "ld r7, option")],
        changed("caller"),
        ["+0x20: unnamed data in .toc: +0x0: refers to option instead of setting"],
    ),
    "first of two relocations at one place": (
        [(".word other - table", ".word helper - table")],
        data_changed("table"),
        ["+0x10: refers to helper instead of other"],
    ),
    "second of two relocations at one place": (
        [(".word other - table", ".word other - caller")],
        data_changed("table"),
        ["+0x10: refers to caller instead of table"],
    ),
    "one of two relocations at one place gone": (
        [(".word other - table", ".word other")],
        data_changed("table"),
        ["+0x10: no longer refers to table"],
    ),
    "what is counted from its own place": (
        [(".word helper - .", ".word other - .")],
        data_changed("table"),
        ["+0x14: refers to other instead of helper"],
    ),
    "whether it is counted from its own place": (
        [(".word helper - .", ".word helper")],
        data_changed("table"),
        ["+0x14: R_MADE_UP_SET32 from its place helper -> R_MADE_UP_SET32 helper"],
    ),
    "entry of a jump table": (
        [(".word .Lout - .Lcases", ".word .Lhigh - .Lcases")],
        changed("caller"),
        ["+0x28: entry 0 of the jump table goes to +0x14 (lah r6, outside) instead of +0x34 (ret)"],
    ),
    "number in data": (
        [(".quad 5", ".quad 6")],
        data_changed("table"),
        ["content at +0x8: 0000000000000005 -> 0000000000000006"],
    ),
}


@pytest.mark.parametrize("case", CHANGES)
def test_a_change_is_found_and_nothing_else(
    pair: tuple[Path, Path], case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    replacements, changes, reasons = CHANGES[case]
    assert _diff(pair, assemble(SOURCE), assemble(_replaced(*replacements))) == changes
    assert main(["diff", "--json", *map(str, pair)]) == 1
    (found,) = json.loads(capsys.readouterr().out)["objects"]
    assert [change["reasons"] for change in found["changes"]] == [reasons]


def test_a_global_symbol_is_not_taken_for_the_place_where_it_lies(pair: tuple[Path, Path]) -> None:
    source = ".section .data\ntable::\n    .word above - {}\n"
    assert _diff(pair, *(assemble(source.format(name)) for name in (".", "table"))) == data_changed("table")


def test_what_is_taken_off_twice(pair: tuple[Path, Path]) -> None:
    source = ".section .data\ntable::\n    .word above - .\n"
    twice = assemble(source, pairs=lambda rows: [*rows, rows[-1]])
    assert _diff(pair, assemble(source), twice) == data_changed("table")


def test_order_of_two_relocations_at_one_place(pair: tuple[Path, Path]) -> None:
    """What R_MADE_UP_SET32 writes is lost if what is taken off comes first."""
    source = ".section .data\ntable::\n    .word {} - {}\n"
    old = assemble(source.format("above", "below"))
    exchanged = assemble(source.format("above", "below"), pairs=reversed)
    assert _diff(pair, old, exchanged) == data_changed("table")
    assert _diff(pair, exchanged, exchanged) == set()


def test_entry_of_a_special_section_with_two_relocations_at_a_place(pair: tuple[Path, Path]) -> None:
    """On riscv, `.long site - .` is R_RISCV_ADD32 and R_RISCV_SUB32."""
    table = ".section .static_call_sites\n"
    site = "    .word caller+4 - .\n    .word {} - .\n"
    old, new = (SOURCE + table + site.format(key) for key in ("key", "other_key"))
    assert _diff(pair, assemble(old), assemble(new)) == changed("caller")
    moved = SOURCE + table + "    .word other - .\n    .word key - .\n" + site.format("key")
    assert _diff(pair, assemble(old), assemble(moved)) == changed("other")


# -- the commands -----------------------------------------------------------------------------------------------------


def test_checksum_files(pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    _write(pair, assemble(SOURCE), assemble(_replaced(IN_FRONT)))
    assert main(["checksum", *map(str, pair)]) == 0
    old, new = (sum_file.load(Path(sum_path(str(path))).read_bytes(), "x") for path in pair)
    assert {old.architecture, new.architecture} == {made_up.ARCHITECTURE.name}
    assert {entry.name for entry in old.entries} >= {"helper", "other", "caller", "second", "far", "table", ".toc"}
    assert {*new.entries} - {*old.entries} == {entry for entry in new.entries if entry.name == "added"}
    assert {*old.entries} <= {*new.entries}
    assert capsys.readouterr().out == "2 checksum files written, 0 up to date\n"
    assert main(["diff", *map(str, pair)]) == 1


def test_explanation(pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    new = _replaced(
        IN_FRONT, ("    bl helper\n    bz", "    bl other\n    bz"), ("lea r4, table+8", "lea r4, table+16")
    )
    _write(pair, assemble(SOURCE), assemble(new))
    assert main(["explain", *map(str, pair), "caller", "-U", "2"]) == 1
    out = capsys.readouterr().out
    assert out[out.index("    @@") :] == (
        "    @@ caller+0x4 @@\n"
        "      +0x0    li r5, 77\n"
        "    - +0x4    bl [-helper-]\n"
        "    + +0x4    bl {+other+}\n"
        "      +0x8    bz r3, +0x34\n"
        "    - +0xc    lea r4, [-table+0x8-]\n"
        "    + +0xc    lea r4, {+table+0x10+}\n"
        "      +0x10   leap r4, other\n"
        "      +0x14   lah r6, outside\n"
        "      ... 8 unchanged ...\n"
    )


class MadeUpBuild(FakeBuild):
    """A build tree with objects of the made-up machine."""

    def compile(self, name: str, source: str, *flags: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(assemble(source))
        return path


def test_build_trees(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    driver, shared = "probe::\n    bl caller\n    ret\n", "shared::\n    li r3, 3\n    ret\n"
    for side, source in (("old", SOURCE), ("new", _replaced(IN_FRONT, ("li r5, 77", "li r5, 78")))):
        build = MadeUpBuild(tmp_path / side, source, driver, shared)
        build.write("include/config/auto.conf", "CONFIG_MODULES=y\n")
    assert main(["diff", "--json", str(tmp_path / "old"), str(tmp_path / "new")]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["warnings"] == []
    (found,) = document["objects"]
    assert (found["object"], found["unit"]) == ("init/main.o", "vmlinux")
    assert [(change["symbol"], change["change"], change["reasons"]) for change in found["changes"]] == [
        ("added", "added", []),
        ("caller", "changed", ["+0x0: li r5, 77 -> li r5, 78"]),
    ]
    assert main(["explain", str(tmp_path / "old"), str(tmp_path / "new"), "caller"]) == 1
    assert "    + +0x0    li r5, {+78+}\n" in capsys.readouterr().out


# -- what is refused --------------------------------------------------------------------------------------------------


def test_an_object_of_the_other_byte_order_is_refused(pair: tuple[Path, Path]) -> None:
    pair[0].write_bytes(assemble(SOURCE, byteorder="little"))
    with pytest.raises(BadObjectError, match="a little-endian object; made_up is big-endian"):
        compute(str(pair[0]))


def test_an_unknown_relocation_is_compared_raw(pair: tuple[Path, Path]) -> None:
    source = "f::\n    bl external\n    ret\n"
    pair[0].write_bytes(assemble(source, pairs=lambda rows: [row._replace(type=99) for row in rows]))
    text = f"{pair[0]}: relocation type 99 is unknown on made_up; compared raw"
    assert compute(str(pair[0])).warnings == [text]
