# SPDX-License-Identifier: GPL-2.0-only
"""What of ours is in a kernel source tree."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from kbuild_klp.errors import BadTreeError
from kbuild_klp.kbuild import blocks
from kbuild_klp.kbuild.install import read_file


class PartState(Enum):
    """The state of one file that ``install`` edits."""

    PRESENT = "present"
    OTHER = "of another version"
    ABSENT = "absent"
    DAMAGED = "damaged"


class InstallState(Enum):
    """The state of all of them."""

    INSTALLED = "installed"
    OTHER = "installed by another version"
    PARTLY = "partly installed"
    NOT = "not installed"


@dataclass(frozen=True)
class Part:
    """One file that ``install`` edits; ``note`` says what is wrong with a damaged one."""

    path: str
    state: PartState
    note: str = ""


def install_parts(tree: Path) -> list[Part]:
    """The state of each file of the source tree ``tree``; never raises for what is in them."""
    expected = {
        blocks.TOP_MAKEFILE: blocks.makefile_block(None).splitlines(),
        blocks.KCONFIG: blocks.kconfig_block().splitlines(),
    }
    parts = []
    for point, lines in expected.items():
        path = tree / point.path
        try:
            found = blocks.find_block(path, read_file(path) or b"")
        except BadTreeError as error:
            parts.append(Part(point.path, PartState.DAMAGED, error.message))
            continue
        if found is None:
            parts.append(Part(point.path, PartState.ABSENT))
            continue
        ours = [line for line in found.block.splitlines() if not line.startswith(b"KBUILD_KLP ")]
        parts.append(Part(point.path, PartState.PRESENT if ours == lines else PartState.OTHER))
    parts.append(_copy_part(tree))
    return parts


def _copy_part(tree: Path) -> Part:
    name = blocks.MAKEFILE_COPY
    try:
        content = read_file(tree / name)
    except BadTreeError as error:
        return Part(name, PartState.DAMAGED, error.message)
    if content is None:
        return Part(name, PartState.ABSENT)
    if not blocks.is_makefile_copy(content):
        return Part(name, PartState.DAMAGED, "is not ours")
    return Part(name, PartState.PRESENT if content == blocks.makefile_copy() else PartState.OTHER)


def summarize(parts: list[Part]) -> InstallState:
    """One state for all parts."""
    states = {part.state for part in parts}
    if states == {PartState.PRESENT}:
        return InstallState.INSTALLED
    if states == {PartState.ABSENT}:
        return InstallState.NOT
    if states <= {PartState.PRESENT, PartState.OTHER}:
        return InstallState.OTHER
    return InstallState.PARTLY
