# SPDX-License-Identifier: GPL-2.0-only
"""Edits as a patch, for ``patch -p1`` and ``git apply``."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path

from kbuild_klp.kbuild.install import Edit


def _lines(content: bytes | None) -> list[str]:
    """Lines with their ends, split at LF only; bytes that are no UTF-8 survive as surrogates."""
    text = (content or b"").decode("utf-8", "surrogateescape")
    lines = text.split("\n")
    last = lines.pop()
    return [f"{line}\n" for line in lines] + ([last] if last else [])


def _file_patch(tree: Path, edit: Edit) -> Iterable[str]:
    name = edit.path.relative_to(tree).as_posix()
    yield f"diff --git a/{name} b/{name}\n"
    if edit.old is None:
        yield "new file mode 100644\n"
    before = "/dev/null" if edit.old is None else f"a/{name}"
    for line in difflib.unified_diff(_lines(edit.old), _lines(edit.new), before, f"b/{name}"):
        yield line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"


def render_patch(tree: Path, edits: Sequence[Edit]) -> bytes:
    """A unified diff of ``edits``, paths relative to ``tree`` with the prefixes a/ and b/, no dates."""
    text = "".join(line for edit in edits for line in _file_patch(tree, edit))
    return text.encode("utf-8", "surrogateescape")
