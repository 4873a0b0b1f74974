# SPDX-License-Identifier: GPL-2.0-only
"""Which objects of a tree need a new checksum file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

from kbuild_klp.checksum.path import Freshness, freshness, sum_path
from kbuild_klp.checksum.sum_file import is_current


class Stale(NamedTuple):
    """Objects without a usable checksum file, and objects that are not there."""

    objects: list[str]
    absent: list[str]


def find_stale(root: str | os.PathLike[str], objects: Sequence[str]) -> Stale:
    """Sort out ``objects`` (relative to ``root``, or absolute).

    A checksum file is good when it has its object's modification time and was written in today's format with today's
    table of special sections: after an update of this program all of them are written again.
    """
    result = Stale([], [])
    directory = os.fspath(root)
    for name, state in zip(objects, freshness(root, objects), strict=True):
        if state is Freshness.NO_OBJECT:
            result.absent.append(name)
            continue
        path = name if name.startswith("/") else f"{directory}/{name}"
        if state is not Freshness.FRESH or not is_current(sum_path(path)):
            result.objects.append(name)
    return result
