# SPDX-License-Identifier: GPL-2.0-only
"""`make klp-base`: the present state of a tree, kept inside it to compare with after a patch and a rebuild.

Kept are the checksums (an archive), the objects (to explain a difference) and the sources (to prove that a difference
is one of line numbers). Files are stored by their content, once each, as clones where the file system has them and as
copies otherwise: never as hard links, because parts of kbuild write into files in place. Their names are digests,
so that no pattern of `make clean` matches them.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from xxhash import xxh3_128

from kbuild_klp import archive
from kbuild_klp.errors import BadSumFileError, BadTreeError
from kbuild_klp.kernel.sources import SourceFiles
from kbuild_klp.kernel.tree import BuildTree

BASE_DIRECTORY = ".klp-base"
_VERSION = 1
_FICLONE = 0x40049409  # include/uapi/linux/fs.h
_BLOCK = 1 << 20

Row = dict[str, Any]


def _digest(path: str) -> str:
    state = xxh3_128()
    with Path(path).open("rb") as file:
        while block := file.read(_BLOCK):
            state.update(block)
    return state.hexdigest()


def _copy(source: str, target: Path) -> None:
    """Clone or copy a file, whole or not at all."""
    temporary = target.with_name(f"{target.name}.{os.getpid()}")
    try:
        with Path(source).open("rb") as reader, temporary.open("wb") as writer:
            try:
                fcntl.ioctl(writer.fileno(), _FICLONE, reader.fileno())
            except OSError:
                shutil.copyfileobj(reader, writer, _BLOCK)
        temporary.replace(target)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


class KeptBase:
    """What `make klp-base` kept of a tree."""

    def __init__(self, root: Path, content: archive.Archive, index: Mapping[str, Mapping[str, Row]]) -> None:
        self._files = root / BASE_DIRECTORY / "files"
        self.root = root
        self.archive = content
        self._index = index

    @classmethod
    def open(cls, root: Path) -> KeptBase:
        """Open what was kept in the tree at ``root``; raises BadTreeError when there is nothing."""
        directory = root / BASE_DIRECTORY
        if not (directory / "index").is_file():
            raise BadTreeError("keeps no base", file=root, hint="run `make klp-base` first, or give BASE=")
        try:
            index = json.loads((directory / "index").read_text("utf-8"))
            if index["version"] != _VERSION:
                raise ValueError(f"version {index['version']}")
            objects, sources = dict(index["objects"]), dict(index["sources"])
        except (ValueError, KeyError, TypeError) as error:
            raise BadSumFileError(
                f"is damaged: {error}", file=directory / "index", hint="run `make klp-base` again"
            ) from None
        content = archive.load(directory / "checksums")
        return cls(root, content, {"objects": objects, "sources": sources})

    def object_file(self, name: str) -> str | None:
        """Return the path of the kept object ``name``, or None."""
        row = self._index["objects"].get(name)
        return None if row is None else str(self._files / row["file"])

    def sources_like(self, other: SourceFiles) -> SourceFiles:
        """Return the kept versions of the files of an object (those that were there when the base was kept)."""
        rows = self._index["sources"]
        files = {name: str(self._files / rows[name]["file"]) for name in other.files if name in rows}
        return SourceFiles(other.main, files)


def _old_rows(directory: Path) -> dict[str, dict[str, Row]]:
    with suppress(OSError, ValueError, KeyError, TypeError):
        index = json.loads((directory / "index").read_text("utf-8"))
        if index["version"] == _VERSION:
            return {"objects": dict(index["objects"]), "sources": dict(index["sources"])}
    return {"objects": {}, "sources": {}}


def _keep_file(path: str, known: Row | None, files: Path) -> Row | None:
    """Store one file; returns its row of the index, None when it is not there."""
    try:
        status = os.stat(path)
        if known and (known["mtime"], known["size"]) == (status.st_mtime_ns, status.st_size):
            if (files / known["file"]).exists():
                return known
        digest = _digest(path)
        if not (files / digest).exists():
            _copy(path, files / digest)
    except FileNotFoundError:
        return None
    return {"file": digest, "mtime": status.st_mtime_ns, "size": status.st_size}


def keep(tree: BuildTree, content: archive.Archive) -> tuple[int, int]:
    """Keep the state of ``tree``, whose checksums are ``content``; returns the numbers of objects and sources.

    What was kept before and did not change is not copied again; what is not needed any more is removed.
    """
    directory = tree.root / BASE_DIRECTORY
    files = directory / "files"
    files.mkdir(parents=True, exist_ok=True)
    old = _old_rows(directory)
    (directory / "index").unlink(missing_ok=True)  # until the new one is whole there is no base
    objects: dict[str, Row] = {}
    sources: dict[str, str] = {}
    for name in content.sums:
        row = _keep_file(os.path.join(tree.root, name), old["objects"].get(name), files)
        if row is not None:
            objects[name] = row
        source = SourceFiles.of(tree, name)
        if source is not None:
            sources.update((key, path) for key, path in source.files.items() if not key.startswith("/"))
    source_rows: dict[str, Row] = {}
    for name, path in sources.items():
        row = _keep_file(path, old["sources"].get(name), files)
        if row is not None:
            source_rows[name] = row
    archive.save(directory / "checksums", content)
    wanted = {row["file"] for row in objects.values()} | {row["file"] for row in source_rows.values()}
    for stored in files.iterdir():
        if stored.name not in wanted:
            stored.unlink()
    index = {"version": _VERSION, "objects": objects, "sources": source_rows}
    temporary = directory / f"index.{os.getpid()}"
    temporary.write_text(json.dumps(index, indent=0, sort_keys=True), "utf-8")
    temporary.replace(directory / "index")
    return len(objects), len(source_rows)


def remove(root: Path) -> bool:
    """Remove what was kept in the tree at ``root``; returns whether there was something."""
    directory = root / BASE_DIRECTORY
    if not directory.exists():
        return False
    shutil.rmtree(directory)
    return True
