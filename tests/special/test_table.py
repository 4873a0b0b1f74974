# SPDX-License-Identifier: GPL-2.0-only
"""The table of special sections: each row is sound, and the row that fits is found from the object."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import kbuild_klp.special.table
from kbuild_klp.arch.registry import _MODULES, architecture
from kbuild_klp.errors import KlpError
from kbuild_klp.object.special_groups import GUARD
from kbuild_klp.special.table import Places, SectionClass, SpecialSection, special_table

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FILE = Path(kbuild_klp.special.table.__file__).with_name("special.toml")
DOCUMENT = tomllib.loads(FILE.read_text("utf-8"))
ROWS = DOCUMENT["section"]
_KEYS = {
    "name",
    "pointed_lines",
    "architectures",
    "class",
    "sizes",
    "references",
    "owner",
    "lines",
    "content",
    "reason",
    "checked",
    "names",
    "tail",
    "data",
    "source",
    "from_entry",
    "named",
    "ordered",
    "stripped",
}
ARCHITECTURES = {found.name for machine in _MODULES if (found := architecture(machine))}


@pytest.mark.parametrize("row", ROWS, ids=[f"{i}-{row['name']}" for i, row in enumerate(ROWS)])
def test_row(row: dict[str, Any]) -> None:
    assert set(row) <= _KEYS
    kind = SectionClass(row["class"])
    assert set(row.get("architectures", ())) <= ARCHITECTURES | {"arm64", "ppc64le", "s390", "riscv", "loongarch"}
    assert row.get("checked") or row.get("reason"), "says neither what it was checked against nor why it may go"
    if kind is SectionClass.DERIVED:
        assert row["reason"]
        assert set(row) <= {"name", "architectures", "class", "reason"}
        return
    sizes = row["sizes"]
    assert sizes and all(isinstance(size, int) and size > 0 for size in sizes)
    for line in row.get("lines", ()):
        assert set(line) == {"offset", "bits"}
        assert 0 < line["bits"] <= 32
        assert line["offset"] + (line["bits"] + 7) // 8 <= min(sizes)
    if kind is SectionClass.RECORDS:
        return
    assert row.get("owner", 0) in row["references"]
    names = {int(offset): name for offset, name in row.get("names", {}).items()}
    # A reference without a name would run into the field behind it.
    assert not names or set(row["references"]) - {row["owner"]} <= set(names)
    assert all(0 <= offset < min(sizes) for offset in names) and len(set(names.values())) == len(names)
    assert len(set(row["references"])) == len(row["references"])
    assert all(0 <= place < min(sizes) for place in row["references"])
    assert {*row.get("named", ()), *row.get("data", ()), row.get("source", row["owner"])} <= set(row["references"])
    assert "source" in row or not row.get("lines"), "what stands where another layout has a line is no line"
    # What is missing of the last entry is read from between two sections.
    assert max(sizes) - GUARD <= row.get("tail", max(sizes)) <= max(sizes)
    content = row.get("content")
    if content:
        assert content["reference"] in row["references"]
        assert -min(sizes) <= content["length"] < min(sizes)


def test_rows_of_one_section_differ() -> None:
    seen = set()
    for row in ROWS:
        for architecture_name in row.get("architectures", ("",)):
            key = (
                row["name"],
                architecture_name,
                *row.get("sizes", ()),
                *row.get("references", ()),
                row.get("source"),
                *row.get("named", ()),
                *row.get("from_entry", ()),
            )
            assert key not in seen
            seen.add(key)


def test_the_version_is_what_checksum_files_carry() -> None:
    assert DOCUMENT["version"] == special_table("x86_64").version


def _row(name: str) -> list[SpecialSection]:
    return list(special_table("x86_64").rows(name))


def _places(offset: NDArray[np.int64], section: NDArray[np.int64] | None = None) -> Places:
    none = np.zeros(len(offset), np.int64)
    return Places(none if section is None else section, offset, none == 0, none != 0)


def _entry_sizes(name: str, size: int, places: NDArray[np.int64]) -> list[int]:
    """Return the entry sizes that fit one section of that size, with references at these places."""
    found = (int(row.entry_sizes(np.array([size]), _places(places))[0]) for row in _row(name))
    return [entry for entry in found if entry]


@pytest.mark.parametrize(
    ("name", "size", "fields", "entry"),
    [
        (".altinstructions", 28, [0, 4], 14),  # 6.12
        (".altinstructions", 24, [0, 4], 12),  # 6.1
        (".altinstructions", 84, [0, 4], 14),  # both divide it: the places of the references decide
        (".altinstructions", 84, [0, 4], 12),
        ("__bug_table", 48, [0, 4], 12),
        ("__bug_table", 48, [0, 4, 8], 16),
        ("__ex_table", 36, [0, 4], 12),
        ("__jump_table", 32, [0, 4, 8], 16),
        (".altinstructions", 26, [0, 4], 13),  # 5.10
        (".altinstructions", 156, [0, 4], 13),
        (".altinstructions", 156, [0, 4], 12),
        ("__ex_table", 36, [0, 4, 8], 12),  # 5.10
        ("__ex_table", 16, [0, 4], 8),
        ("__jump_table", 120, [0, 8, 16], 24),  # 4.18
        ("__jump_table", 48, [0, 4, 8], 16),
        ("__dyndbg", 280, [0, 8, 16, 24], 56),  # both divide it
        ("__dyndbg", 280, [0, 8, 16, 24], 40),
        ("__verbose", 280, [0, 8, 16, 24], 40),
        (".pci_fixup_final", 32, [12], 16),
    ],
)
def test_the_object_decides_how_long_entries_are(name: str, size: int, fields: list[int], entry: int) -> None:
    places = np.array([start + field for start in range(0, size, entry) for field in fields])
    assert _entry_sizes(name, size, places)[0] == entry


@pytest.mark.parametrize("places", [[], [1], [0], [0, 4, 8], [0, 12, 13]])
def test_what_does_not_fit_is_no_table(places: list[int]) -> None:
    assert not _entry_sizes("__ex_table", 24, np.array(places, np.int64))


@pytest.mark.parametrize(("size", "fits"), [(16, True), (10, True), (42, True), (44, True), (8, False), (41, False)])
def test_the_last_entry_may_lack_its_padding(size: int, fits: bool) -> None:
    places = np.arange(0, size, 16)
    assert _entry_sizes(".parainstructions", size, places) == [16] * fits


def test_layouts_with_relocations_at_the_same_places_are_told_apart_by_names() -> None:
    """Three entries of 8 bytes are two of 12: but a handler is a symbol, and an instruction a place in a section."""
    offset = np.arange(0, 24, 4)
    for is_handler, entry in ((offset % 12 == 8, 12), (offset < 0, 8)):
        found = [
            int(row.entry_sizes(np.array([24]), Places(0 * offset, offset, is_handler, offset < 0))[0])
            for row in _row("__ex_table")
        ]
        assert next(size for size in found if size) == entry


def test_each_section_of_a_name_has_its_own_entry_size() -> None:
    """Linked objects have several tables of one name, and those of assembly files may be of another layout."""
    sizes, owner = np.array([28, 24]), np.array([0, 0, 0, 0, 1, 1, 1, 1])
    places = np.array([0, 4, 14, 18, 0, 4, 12, 16])
    found = [row.entry_sizes(sizes, _places(places, section=owner)).tolist() for row in _row(".altinstructions")]
    assert [14, 0] in found and [0, 12] in found and np.sum(found) == 26


def test_patterns_and_architectures() -> None:
    assert _row("runtime_ptr_dentry_hashtable")
    assert not _row(".text")
    assert not special_table("nonesuch").rows(".altinstructions")


@pytest.mark.parametrize(
    "text",
    [
        "version = 1\n[[section]]\nclass = 'owned'\n",
        "version = 1\n[[section]]\nname = 'x'\nclass = 'other'\n",
        "version = 1\n[[section]]\nname = 'x'\nclass = 'owned'\nlines = [5]\n",
        "version = 1\n[[section]]\nname = 'x'\nclass = 'owned'\ncontent = { reference = 1 }\n",
        "version = [\n",
        "version = 1\n",
        "[[section]]\nname = 'x'\nclass = 'derived'\n",
    ],
)
def test_a_broken_table_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    (tmp_path / "special.toml").write_text(text)
    monkeypatch.setattr(kbuild_klp.special.table, "__file__", str(tmp_path / "special.py"))
    with pytest.raises(KlpError, match=r"special\.toml: "):
        special_table.__wrapped__("x86_64")


def test_what_is_listed_has_rows() -> None:
    table = special_table("x86_64")
    names = [
        ".altinstructions",
        "__bug_table",
        ".text.foo",
        ".init_array.00001",
        "runtime_ptr_x",
        "runtime_ptr",
        "",
        "my_alloc_tags",
        "alloc_tags_not",
        ".discard.x",
        ".pci_fixup_early",
        ".rela__bug_table",
        "__bug_table2",
    ]
    assert [names[at] for at in table.listed(names)] == [name for name in names if table.rows(name)]
    assert {"my_alloc_tags", "runtime_ptr_x", ".init_array.00001"} <= {names[at] for at in table.listed(names)}
