# SPDX-License-Identifier: GPL-2.0-only
"""Filters: what is left out is counted and in JSON, never lost, and a misspelt filter is not an empty answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fake_build import DRIVER, MAIN, FakeBuild, klp

from kbuild_klp.compare.selection import Selection
from kbuild_klp.errors import KlpError

NEW_MAIN = MAIN.replace("x + limit", "x - limit")


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """Two builds in which one function each of vmlinux and of a module differs."""
    FakeBuild(tmp_path / "old")
    FakeBuild(tmp_path / "new", NEW_MAIN, driver=DRIVER.replace("+ 1", "+ 2"))
    return tmp_path


def _listed(root: Path, *options: str) -> dict[str, Any]:
    document: dict[str, Any] = klp("diff", "old", "new", "--json", *options, cwd=root).json
    return document


def _changes(document: dict[str, Any]) -> dict[str, str | None]:
    return {change["symbol"]: change.get("ignored") for group in document["objects"] for change in group["changes"]}


def test_without_filters_nothing_is_ignored(pair: Path) -> None:
    document = _listed(pair)
    assert set(_changes(document).values()) == {None} and len(_changes(document)) == 2
    assert document["summary"]["ignored"] == 0


@pytest.mark.parametrize("by", ["--function", "--object", "--unit", "--ignore"])
def test_what_is_left_out_is_counted_and_shown_to_scripts(pair: Path, by: str) -> None:
    everything = _listed(pair)
    group = next(group for group in everything["objects"] if group["unit"] == "vmlinux")
    kept = {"--function": group["changes"][0]["symbol"], "--object": group["object"], "--unit": "vmlinux"}
    other = next(group for group in everything["objects"] if group["unit"] != "vmlinux")
    pattern = kept.get(by, f"{other['object']}:{other['changes'][0]['symbol'][:3]}*")
    document = _listed(pair, by, pattern)
    assert set(_changes(document)) == set(_changes(everything)), "a change is hidden from JSON"
    assert _changes(document)[group["changes"][0]["symbol"]] is None
    assert _changes(document)[other["changes"][0]["symbol"]] == f"{by} {pattern}"
    assert (document["summary"]["ignored"], document["summary"]["changed"]) == (1, 1)
    text = klp("diff", "old", "new", by, pattern, cwd=pair)
    assert text.status == 1
    assert other["changes"][0]["symbol"] not in text.out
    assert f"1 more left out by {by} {pattern}\n" in text.out


def test_with_everything_ignored_there_is_no_change(pair: Path) -> None:
    result = klp("diff", "old", "new", "--ignore", "*", cwd=pair)
    assert (result.status, result.out.splitlines()[-1]) == (0, "2 more left out by --ignore *")
    assert result.out.startswith("no change in ")


def test_rules_of_a_tree(pair: Path) -> None:
    (pair / "new" / "klp.toml").write_text('ignore = ["driver*"]\n')
    (pair / "old" / "klp.toml").write_text('ignore = ["*"]\n')  # the new tree's counts
    rules = set(_changes(_listed(pair)).values())
    assert rules <= {None, "klp.toml: ignore driver*"} and None in rules


def test_a_rule_for_one_object_is_not_one_for_others(pair: Path) -> None:
    result = klp("diff", "old", "new", "--ignore", "drivers/*:*", cwd=pair)
    assert result.status == 1 and "init/main.o" in result.out and "drivers/driver.o" not in result.out


@pytest.mark.parametrize(("option", "what"), [("--object", "object"), ("--unit", "link unit")])
def test_misspelt_pattern_is_said(pair: Path, option: str, what: str) -> None:
    result = klp("diff", "old", "new", option, "fs/nothing*", cwd=pair)
    assert (result.status, result.out) == (2, "")
    assert result.err.startswith(f"kbuild-klp: no {what} matches fs/nothing*")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("ignore = 3", "ignore is no list of strings"),
        ("ignore = [3]", "ignore is no list of strings"),
        ("ignored = []", "unknown key ignored"),
        ("ignore = [", "is no TOML"),
    ],
)
def test_broken_rules_are_refused_by_name(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "klp.toml").write_text(text)
    with pytest.raises(KlpError, match=complaint) as caught:
        Selection.read([tmp_path])
    assert str(tmp_path / "klp.toml") in str(caught.value)
