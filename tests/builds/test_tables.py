# SPDX-License-Identifier: GPL-2.0-only
"""Checksums from before special.toml changed: made again where the objects are, and otherwise not compared at all."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_build import FakeBuild

from kbuild_klp.builds import kept
from kbuild_klp.builds.archive import Archive, ArchiveBuild
from kbuild_klp.builds.built_tree import TreeBuild
from kbuild_klp.builds.kept import KeptBuild
from kbuild_klp.checksum import sum_file
from kbuild_klp.compare.passes import compare
from kbuild_klp.kernel.settings import Settings
from kbuild_klp.kernel.tree import BuildTree


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return FakeBuild(tmp_path / "tree").root


def _of_an_older_table(root: Path) -> Archive:
    build = TreeBuild(str(root))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sum_file, "table_version", lambda: 0)
        build.prepare(None, None)
    sums = {name: build.sums(name) or b"" for name in build.objects()}
    assert all(b" table=0 " in data for data in sums.values())
    return Archive(build.units(), Settings.of(BuildTree.open(root)), sums)


def test_kept_objects_are_read_again(root: Path) -> None:
    kept.keep(BuildTree.open(root), _of_an_older_table(root))
    report = compare(KeptBuild(root), TreeBuild(str(root)))
    assert (report.objects, report.failed, report.summary.objects_compared) == ([], [], 3)
    says = "made with version 0 of special.toml; its checksums were computed in memory"
    assert [warning.partition(": ")[2].partition(": ")[2] for warning in report.warnings] == [says] * 3


def test_an_archive_is_refused_object_by_object(root: Path) -> None:
    report = compare(ArchiveBuild("old.klp", _of_an_older_table(root)), TreeBuild(str(root)))
    assert (report.objects, report.summary.objects_compared) == ([], 0)
    says = "checksums of another special section table; nothing of it can be compared"
    assert sorted(report.failed) == [
        f"{name}: {says}" for name in ("drivers/driver.o", "drivers/shared.o", "init/main.o")
    ]
