# SPDX-License-Identifier: GPL-2.0-only
from __future__ import annotations

import os
from typing import TYPE_CHECKING

from kbuild_klp.checksum.path import Freshness, freshness, sum_path

if TYPE_CHECKING:
    from kernel.conftest import FakeTree


def test_names() -> None:
    assert sum_path("fs/ext4/inode.o") == "fs/ext4/.inode.o.klp.cmd"
    assert sum_path("vmlinux.o") == ".vmlinux.o.klp.cmd"
    assert sum_path("/a/b.o") == "/a/.b.o.klp.cmd"


def test_freshness_is_equality_of_times(tree: FakeTree) -> None:
    names = tree.objects("a/fresh.o", "a/older.o", "a/newer.o", "bare.o")
    for name, shift in zip(names[:3], (0, -1, 1), strict=True):
        time = (tree.root / name).stat().st_mtime_ns
        sums = tree.write(sum_path(name), "")
        os.utime(sums, ns=(time + shift, time + shift))
    outside = str(tree.root / "a/fresh.o")
    assert freshness(tree.root, [*names, "gone.o", "a/fresh.o/x.o", outside]) == [
        Freshness.FRESH,
        Freshness.STALE,
        Freshness.STALE,
        Freshness.MISSING,
        Freshness.NO_OBJECT,
        Freshness.NO_OBJECT,
        Freshness.FRESH,
    ]
    assert freshness(tree.open().root, ["bare.o"]) == [Freshness.MISSING]
