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
from typing import NamedTuple

from xxhash import xxh3_128

from kbuild_klp.builds import archive
from kbuild_klp.builds.archive import ArchiveBuild
from kbuild_klp.builds.side import Build
from kbuild_klp.containers.replacing import replacing
from kbuild_klp.errors import BadSumFileError, BadTreeError
from kbuild_klp.kernel.sources import SourceFiles
from kbuild_klp.kernel.symvers import Exports, export_files, exports_in
from kbuild_klp.kernel.tree import BuildTree

BASE_DIRECTORY = ".klp-base"
_VERSION = 3
_TABLES = ("objects", "sources", "images", "exports")
_DIGEST = re.compile(r"[0-9a-f]{32}")
_CHECKSUMS = re.compile(r"checksums-[0-9a-f]{32}")
_FICLONE = 0x40049409  # include/uapi/linux/fs.h
_BLOCK = 1 << 20


class _Row(NamedTuple):
    """A file as it was when it was stored under the name ``file``, its digest: its time (ns) and size."""

    file: str
    mtime: int
    size: int

    @classmethod
    def parse(cls, row: object) -> _Row:
        """Read a row of the index; raises ValueError for what is none."""
        if isinstance(row, dict) and row.keys() == {*cls._fields}:
            found = cls(**row)
            if list(map(type, found)) == [str, int, int] and _DIGEST.fullmatch(found.file):
                return found
        raise ValueError("a row of it is none")


class _Index(NamedTuple):
    """What is kept: a table by name for each kind of file, and the name of the archive that goes with them."""

    tables: Mapping[str, dict[str, _Row]]
    checksums: str

    @classmethod
    def read(cls, directory: Path) -> _Index:
        """Read the index; raises OSError or ValueError."""
        index = json.loads((directory / "index").read_text("utf-8"))
        if not isinstance(index, dict) or index.get("version") != _VERSION:
            raise ValueError(f"not an index of version {_VERSION}")
        tables = {kind: index.get(kind) for kind in _TABLES}
        if not all(isinstance(table, dict) for table in tables.values()):
            raise ValueError("a table of it is missing")
        checksums = index.get("checksums")
        if not isinstance(checksums, str) or not _CHECKSUMS.fullmatch(checksums):
            raise ValueError("it names no checksums")
        rows = {kind: {name: _Row.parse(row) for name, row in (table or {}).items()} for kind, table in tables.items()}
        return cls(rows, checksums)

    def write(self, directory: Path) -> None:
        """Let this index take the place of the one that is there."""
        tables = {kind: {name: row._asdict() for name, row in table.items()} for kind, table in self.tables.items()}
        index = {"version": _VERSION, **tables, "checksums": self.checksums}
        with replacing(directory / "index") as temporary:
            temporary.write_text(json.dumps(index, indent=0, sort_keys=True), "utf-8")


class _Store:
    """The files of a base: what was stored before and did not change is not copied again."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files = directory / "files"
        self._files.mkdir(parents=True, exist_ok=True)
        self._old: Mapping[str, dict[str, _Row]] = {}
        with suppress(OSError, ValueError):
            self._old = _Index.read(directory).tables
        self.tables: dict[str, dict[str, _Row]] = {kind: {} for kind in _TABLES}

    def keep(self, kind: str, name: str, path: str) -> None:
        """Store one file if it is there."""
        with suppress(FileNotFoundError):
            status = os.stat(path)
            row = self._old.get(kind, {}).get(name)
            is_same = row is not None and (row.mtime, row.size) == (status.st_mtime_ns, status.st_size)
            if row is None or not is_same or not (self._files / row.file).exists():
                row = _Row(_digest(path), status.st_mtime_ns, status.st_size)
                if not (self._files / row.file).exists():
                    _copy(path, self._files / row.file)
            self.tables[kind][name] = row

    def finish(self, content: archive.Archive) -> None:
        """Write the checksums and the new index, and remove what is not needed any more.

        Until the new index takes the place of the old one, what was kept before stays whole.
        """
        unnamed = self._directory / "checksums"
        archive.save(unnamed, content)
        checksums = f"checksums-{_digest(str(unnamed))}"
        unnamed.replace(self._directory / checksums)
        _Index(self.tables, checksums).write(self._directory)
        wanted = {row.file for table in self.tables.values() for row in table.values()} | {checksums, "index", "files"}
        for stored in (*self._files.iterdir(), *self._directory.iterdir()):
            if stored.name not in wanted:
                stored.unlink()


def _digest(path: str) -> str:
    state = xxh3_128()
    with Path(path).open("rb") as file:
        while block := file.read(_BLOCK):
            state.update(block)
    return state.hexdigest()


def _copy(source: str, target: Path) -> None:
    """Clone or copy a file, whole or not at all."""
    with replacing(target) as temporary, Path(source).open("rb") as reader, temporary.open("wb") as writer:
        try:
            fcntl.ioctl(writer.fileno(), _FICLONE, reader.fileno())
        except OSError:
            shutil.copyfileobj(reader, writer, _BLOCK)


def keep(tree: BuildTree, content: archive.Archive) -> tuple[int, int]:
    """Keep the state of ``tree``, whose checksums are ``content``; returns the numbers of objects and sources."""
    store = _Store(tree.root / BASE_DIRECTORY)
    sources: dict[str, str] = {}
    for name in content.sums:
        store.keep("objects", name, os.path.join(tree.root, name))
        source = SourceFiles.of(tree, name)
        if source is not None:
            sources.update((key, path) for key, path in source.files.items() if not key.startswith("/"))
    for name, path in sources.items():
        store.keep("sources", name, path)
    for path in export_files(tree):
        store.keep("exports", path, path)
    objects = store.tables["objects"]
    for unit in tree.units():
        image = tree.image(unit.name)
        newest = max((objects[name].mtime for name in unit.objects if name in objects), default=0)
        # What is older than its objects was not linked from them.
        if image is not None and image.stat().st_mtime_ns >= newest:
            store.keep("images", unit.name, str(image))
    store.finish(content)
    return len(objects), len(store.tables["sources"])


def remove(root: Path) -> bool:
    """Remove what was kept in the tree at ``root``; returns whether there was something."""
    directory = root / BASE_DIRECTORY
    if not directory.exists():
        return False
    shutil.rmtree(directory)
    return True


class KeptBuild(ArchiveBuild):
    """What `make klp-base` kept of the tree at ``root``; raises BadTreeError when there is nothing."""

    def __init__(self, root: Path) -> None:
        directory = root / BASE_DIRECTORY
        file = directory / "index"
        if not file.is_file():
            raise BadTreeError("keeps no base", file=root, hint="run `make klp-base` first, or give BASE=")
        try:
            index = _Index.read(directory)
        except (OSError, ValueError) as error:
            raise BadSumFileError(f"is damaged: {error}", file=file, hint="run `make klp-base` again") from None
        super().__init__(f"{root} as kept", archive.load(directory / index.checksums))
        self._files = directory / "files"
        self._tables = index.tables

    def object_file(self, name: str) -> str | None:
        """Return the path of the kept object."""
        row = self._tables["objects"].get(name)
        return None if row is None else str(self._files / row.file)

    def sources(self, name: str, other: Build | None = None) -> SourceFiles | None:
        """Return the kept versions of the files that the other side has for this object.

        Only those that were compiled into it: a file that was edited between build and klp-base proves nothing.
        None when the object was not kept.
        """
        theirs = other.sources(name) if other is not None else None
        compiled, rows = self._tables["objects"].get(name), self._tables["sources"]
        if theirs is None or compiled is None:
            return None
        files = {
            file: str(self._files / rows[file].file)
            for file in theirs.files
            if file in rows and rows[file].mtime <= compiled.mtime
        }
        return SourceFiles(theirs.main, files)

    def image(self, unit: str) -> Path | None:
        """Return what was kept of what a unit was linked to."""
        row = self._tables["images"].get(unit)
        return None if row is None else self._files / row.file

    def exports(self) -> Exports | None:
        """Return what was exported then, None when no file said so."""
        return exports_in(str(self._files / row.file) for row in self._tables["exports"].values())
