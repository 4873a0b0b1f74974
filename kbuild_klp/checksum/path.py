# SPDX-License-Identifier: GPL-2.0-only
"""Where the checksum file of an object lies, and whether it still belongs to that object.

The name is hidden and ends in ``.cmd``, because the kernel ignores ``.*`` in git and removes ``.*.cmd`` on
``make clean``, and has done both for as long as there have been livepatches.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from enum import Enum

_SUFFIX = ".klp.cmd"


class Freshness(Enum):
    """What there is for an object: the checksum file is fresh exactly when both have the same mtime."""

    FRESH = "fresh"
    STALE = "stale"
    MISSING = "missing"
    NO_OBJECT = "no object"


def sum_path(object_path: str) -> str:
    """The checksum file of ``DIR/NAME.o``: ``DIR/.NAME.o.klp.cmd``."""
    directory, slash, name = object_path.rpartition("/")
    return f"{directory}{slash}.{name}{_SUFFIX}"


def freshness(root: str | os.PathLike[str], objects: Iterable[str]) -> list[Freshness]:
    """The freshness of each of ``objects`` (relative to ``root``, or absolute), in their order.

    Two stat calls an object, and no more: this runs at the end of every make. A file that cannot be looked at
    counts as one that is not there.
    """
    stat = os.stat
    prefix = os.fspath(root).rstrip("/") + "/"
    result: list[Freshness] = []
    add = result.append
    for path in objects:
        if path[:1] != "/":
            path = prefix + path
        try:
            time = stat(path).st_mtime_ns
        except OSError:
            add(Freshness.NO_OBJECT)
            continue
        directory, slash, name = path.rpartition("/")
        try:
            add(Freshness.FRESH if stat(f"{directory}{slash}.{name}{_SUFFIX}").st_mtime_ns == time else Freshness.STALE)
        except OSError:
            add(Freshness.MISSING)
    return result
