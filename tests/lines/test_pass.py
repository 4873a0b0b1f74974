# SPDX-License-Identifier: GPL-2.0-only
"""The second look at many objects: in several processes as in one, and a fault costs nothing but itself."""

from __future__ import annotations

import json as reader
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_build import FakeBuild

from kbuild_klp.builds.built_tree import TreeBuild
from kbuild_klp.builds.object_pair import ObjectPair
from kbuild_klp.changes.classification import Change
from kbuild_klp.compare import second_look
from kbuild_klp.compare.passes import compare
from kbuild_klp.explain.explainer import PATIENCE
from kbuild_klp.report import json, text

SOURCE = """int pass(int, int);
int f{0}(int x) {{ asm volatile("1: ud2\\n.pushsection __bug_table,\\"aw\\"\\n.long 1b - ., %c0 - .\\n.word %c1, 3\\n"
	".popsection" :: "i"("file.c"), "i"(__LINE__)); return pass(x, 40) + {1}; }}
"""
OBJECTS = [f"lib/o{at}.o" for at in range(6)]


@pytest.fixture
def builds(tmp_path: Path) -> tuple[TreeBuild, TreeBuild]:
    for side, head in (("old", ""), ("new", "\n")):
        build = FakeBuild(tmp_path / side)
        for at, name in enumerate(OBJECTS):
            build.compile(name, head + SOURCE.format(at, at if side == "old" else at + (at == 2)))
        build.link("init/main.o", *OBJECTS)
    return TreeBuild(str(tmp_path / "old")), TreeBuild(str(tmp_path / "new"))


def _answers(old: TreeBuild, new: TreeBuild, jobs: int) -> list[dict[str, Any]]:
    report = compare(old, new, jobs)
    assert not report.failed and not report.warnings
    document = reader.loads(json.render(report))
    return [{"object": group["object"], **change} for group in document["objects"] for change in group["changes"]]


@pytest.mark.parametrize("patience", [PATIENCE, 0])
def test_several_processes_say_what_one_says(
    builds: tuple[TreeBuild, TreeBuild], monkeypatch: pytest.MonkeyPatch, patience: int
) -> None:
    """Reasons and verdicts too, and when there is too much to explain."""
    monkeypatch.setattr(second_look, "PATIENCE", patience)
    alone = _answers(*builds, 1)
    assert {(answer["change"], answer.get("proof")) for answer in alone} == {
        ("line-only", "records"),
        ("changed", None),
    }
    (changed,) = [answer["reasons"] for answer in alone if answer["change"] == "changed"]
    assert any("addl" in reason for reason in changed) is bool(patience)
    monkeypatch.setattr(second_look, "_WORTH_A_PROCESS", 1)
    assert _answers(*builds, 3) == alone


def test_progress_counts_the_objects_that_differ(builds: tuple[TreeBuild, TreeBuild]) -> None:
    calls: list[tuple[int, int]] = []
    compare(*builds, 1, looking=lambda done, total: calls.append((done, total)))
    assert calls == [(done, len(OBJECTS)) for done in range(1, len(OBJECTS) + 1)]


def test_a_fault_leaves_the_change_and_says_so(
    builds: tuple[TreeBuild, TreeBuild], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> list[Change]:
        raise RuntimeError("broken")

    monkeypatch.delenv("KLP_DEBUG", raising=False)
    monkeypatch.setattr(second_look, "settle", fail)
    report = compare(*builds, 1)
    assert report.summary.changed == 1 and report.summary.line_only == len(OBJECTS) - 1
    assert len(report.warnings) == len(OBJECTS)
    assert all("broken" in line and "\n" not in line for line in report.warnings)


def test_an_object_that_cannot_be_looked_at_leaves_its_changes(
    builds: tuple[TreeBuild, TreeBuild], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a fault of ours in one object hides what differs in all."""

    def fail(_: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.delenv("KLP_DEBUG", raising=False)
    monkeypatch.setattr(ObjectPair, "old", property(fail))
    report = compare(*builds, 1)
    assert report.summary.changed == 1
    assert report.warnings and all("broken" in line for line in report.warnings)


def test_proof_is_in_the_document_of_line_only_changes_only(builds: tuple[TreeBuild, TreeBuild]) -> None:
    report = compare(*builds, 1)
    document = reader.loads(json.render(report))
    changes = [change for part in document["objects"] for change in part["changes"]]
    assert {(change["change"], change.get("proof")) for change in changes} == {
        ("line-only", "records"),
        ("changed", None),
    }
    inferred = replace(report, summary=replace(report.summary, line_only_inferred=3))
    assert "5 more differ in line numbers only, 3 of them inferred" in text.render(inferred, text.TextStyle())
