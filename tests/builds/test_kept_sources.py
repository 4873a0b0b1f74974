# SPDX-License-Identifier: GPL-2.0-only
"""What klp-base keeps of the sources may prove a line number only if it was compiled into the kept object."""

from __future__ import annotations

import os
from pathlib import Path

from kbuild_klp.builds.kept import BASE_DIRECTORY, KeptBase
from kbuild_klp.kernel.sources import SourceFiles

ROW = {"file": "0" * 32, "size": 1}


def kept(object_mtime: int, source_mtime: int) -> KeptBase:
    index = {
        "objects": {"a.o": {**ROW, "mtime": object_mtime}},
        "sources": {"a.c": {**ROW, "mtime": source_mtime}},
    }
    return KeptBase(Path("/tree"), None, index)  # type: ignore[arg-type]


def test_kept_source_that_was_compiled_is_given() -> None:
    found = kept(2, 1).sources("a.o", SourceFiles("a.c", {"a.c": "/x/a.c", "new.h": "/x/new.h"}))
    assert found is not None
    assert found.files == {"a.c": os.fspath(Path("/tree") / BASE_DIRECTORY / "files" / str(ROW["file"]))}


def test_source_edited_between_build_and_klp_base_proves_nothing() -> None:
    found = kept(1, 2).sources("a.o", SourceFiles("a.c", {"a.c": "/x/a.c"}))
    assert found is not None
    assert found.files == {}


def test_object_that_was_not_kept_has_no_kept_sources() -> None:
    assert kept(1, 1).sources("b.o", SourceFiles("b.c", {"b.c": "/x/b.c"})) is None
