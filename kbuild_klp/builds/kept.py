# SPDX-License-Identifier: GPL-2.0-only
"""`make klp-base`: the present state of a tree, kept inside it to compare with after a patch and a rebuild.

Kept are the checksums (an archive), the objects (to explain a difference), the sources (to prove that a difference
is one of line numbers), and what a livepatch has to know of the kernel that runs: what objects were linked to, and
Module.symvers. Files are stored by their content, once each, as clones where the file system has them and as
copies otherwise: never as hard links, because parts of kbuild write into files in place. Their names are digests,
so that no pattern of `make clean` matches them.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from xxhash import xxh3_128

from kbuild_klp.builds import archive
from kbuild_klp.builds.archive import ArchiveBuild
from kbuild_klp.builds.side import Build
from kbuild_klp.errors import BadSumFileError, BadTreeError
from kbuild_klp.kernel.modules import read_text
from kbuild_klp.kernel.sources import SourceFiles
from kbuild_klp.kernel.symvers import Exports, export_files
from kbuild_klp.kernel.tree import BuildTree

BASE_DIRECTORY = ".klp-base"
_VERSION = 3
_TABLES = ("objects", "sources", "images", "exports")
_DIGEST = re.compile(r"[0-9a-f]{32}")
_CHECKSUMS = re.compile(r"checksums-[0-9a-f]{32}")
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
    temporary = target.with_name(f"{target.name}-{os.getpid()}")
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
            index = _read_index(directory)
        except (OSError, ValueError) as error:
            raise BadSumFileError(
                f"is damaged: {error}", file=directory / "index", hint="run `make klp-base` again"
            ) from None
        content = archive.load(directory / index.checksums)
        return cls(root, content, index.tables())

    def object_file(self, name: str) -> str | None:
        """Return the path of the kept object ``name``, or None."""
        row = self._index["objects"].get(name)
        return None if row is None else str(self._files / row["file"])

    def sources(self, name: str, other: SourceFiles) -> SourceFiles | None:
        """Return the kept versions of the files of the object ``name``, which are ``other`` today.

        Only those that were compiled into it: a file that was edited between build and klp-base proves nothing.
        None when the object was not kept.
        """
        compiled = self._index["objects"].get(name)
        if compiled is None:
            return None
        rows = self._index["sources"]
        files = {
            file: str(self._files / rows[file]["file"])
            for file in other.files
            if file in rows and rows[file]["mtime"] <= compiled["mtime"]
        }
        return SourceFiles(other.main, files)

    def image(self, unit: str) -> Path | None:
        """Return the path of what a unit was linked to, or None."""
        row = self._index["images"].get(unit)
        return None if row is None else self._files / row["file"]

    def exports(self) -> Exports | None:
        """Return what was exported, None when no file said so."""
        rows = self._index["exports"].values()
        texts = [text for row in rows if (text := read_text(str(self._files / row["file"]))) is not None]
        return Exports([line for text in texts for line in text.splitlines()], {}) if texts else None


class _Index(NamedTuple):
    """Which file is kept under which digest, and the name of the archive that goes with them."""

    objects: dict[str, Row]
    sources: dict[str, Row]
    images: dict[str, Row]
    exports: dict[str, Row]
    checksums: str

    def tables(self) -> dict[str, dict[str, Row]]:
        """Return all files, by what they are."""
        return {name: getattr(self, name) for name in _TABLES}


def _read_index(directory: Path) -> _Index:
    """Read the index; raises OSError or ValueError."""
    index = json.loads((directory / "index").read_text("utf-8"))
    if not isinstance(index, dict) or index.get("version") != _VERSION:
        raise ValueError(f"not an index of version {_VERSION}")
    tables = [index.get(name) for name in _TABLES]
    if not all(isinstance(table, dict) and all(map(_is_row, table.values())) for table in tables):
        raise ValueError("a row of it is none")
    checksums = index.get("checksums")
    if not isinstance(checksums, str) or not _CHECKSUMS.fullmatch(checksums):
        raise ValueError("it names no checksums")
    return _Index(**{name: index[name] for name in _TABLES}, checksums=checksums)


def _is_row(row: object) -> bool:
    return (
        isinstance(row, dict)
        and isinstance(row.get("file"), str)
        and _DIGEST.fullmatch(row["file"]) is not None
        and isinstance(row.get("mtime"), int)
        and isinstance(row.get("size"), int)
    )


def _old_index(directory: Path) -> _Index:
    with suppress(OSError, ValueError):
        return _read_index(directory)
    return _Index({}, {}, {}, {}, "")


def _keep_file(path: str, known: Row | None, files: Path) -> Row | None:
    """Store one file; returns its row of the index, None when it is not there."""
    try:
        status = os.stat(path)
        is_same = known is not None and (known["mtime"], known["size"]) == (status.st_mtime_ns, status.st_size)
        if known is not None and is_same and (files / known["file"]).exists():
            return known
        digest = _digest(path)
        if not (files / digest).exists():
            _copy(path, files / digest)
    except FileNotFoundError:
        return None
    return {"file": digest, "mtime": status.st_mtime_ns, "size": status.st_size}


def keep(tree: BuildTree, content: archive.Archive) -> tuple[int, int]:
    """Keep the state of ``tree``, whose checksums are ``content``; returns the numbers of objects and sources.

    What was kept before and did not change is not copied again; what is not needed any more is removed. Until the new
    index takes the place of the old one, what was kept before stays whole.
    """
    directory = tree.root / BASE_DIRECTORY
    files = directory / "files"
    files.mkdir(parents=True, exist_ok=True)
    old = _old_index(directory)
    objects: dict[str, Row] = {}
    sources: dict[str, str] = {}
    for name in content.sums:
        row = _keep_file(os.path.join(tree.root, name), old.objects.get(name), files)
        if row is not None:
            objects[name] = row
        source = SourceFiles.of(tree, name)
        if source is not None:
            sources.update((key, path) for key, path in source.files.items() if not key.startswith("/"))
    source_rows: dict[str, Row] = {}
    for name, path in sources.items():
        row = _keep_file(path, old.sources.get(name), files)
        if row is not None:
            source_rows[name] = row
    image_rows = _keep_images(tree, objects, old.images, files)
    exports = {path: _keep_file(path, old.exports.get(path), files) for path in export_files(tree)}
    export_rows = {path: row for path, row in exports.items() if row is not None}
    archive.save(directory / "checksums", content)
    checksums = f"checksums-{_digest(str(directory / 'checksums'))}"
    (directory / "checksums").replace(directory / checksums)
    kept = _Index(objects, source_rows, image_rows, export_rows, checksums)
    index = {"version": _VERSION, **kept.tables(), "checksums": checksums}
    temporary = directory / f"index-{os.getpid()}"
    try:
        temporary.write_text(json.dumps(index, indent=0, sort_keys=True), "utf-8")
        temporary.replace(directory / "index")
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    rows = (row for table in kept.tables().values() for row in table.values())
    wanted = {row["file"] for row in rows} | {checksums, "index", "files"}
    for stored in (*files.iterdir(), *directory.iterdir()):
        if stored.name not in wanted:
            stored.unlink()
    return len(objects), len(source_rows)


def _keep_images(tree: BuildTree, objects: dict[str, Row], known: dict[str, Row], files: Path) -> dict[str, Row]:
    """Store what the units were linked to, but for what is older than its objects."""
    found: dict[str, Row] = {}
    for unit in tree.units():
        path = tree.image(unit.name)
        newest = max((objects[name]["mtime"] for name in unit.objects if name in objects), default=0)
        if path is None or path.stat().st_mtime_ns < newest:
            continue
        row = _keep_file(str(path), known.get(unit.name), files)
        if row is not None:
            found[unit.name] = row
    return found


def remove(root: Path) -> bool:
    """Remove what was kept in the tree at ``root``; returns whether there was something."""
    directory = root / BASE_DIRECTORY
    if not directory.exists():
        return False
    shutil.rmtree(directory)
    return True


class KeptBuild(ArchiveBuild):
    """What `make klp-base` kept: checksums, objects and sources."""

    def __init__(self, root: Path) -> None:
        self._base = KeptBase.open(root)
        super().__init__(f"{root} as kept", self._base.archive)

    def object_file(self, name: str) -> str | None:
        """Return the path of the kept object."""
        return self._base.object_file(name)

    def sources(self, name: str, other: Build | None = None) -> SourceFiles | None:
        """Return the kept versions of the files that the other side has for this object."""
        theirs = other.sources(name) if other is not None else None
        return None if theirs is None else self._base.sources(name, theirs)

    def image(self, unit: str) -> Path | None:
        """Return what was kept of what a unit was linked to."""
        return self._base.image(unit)

    def exports(self) -> Exports | None:
        """Return what was exported then."""
        return self._base.exports()
