# SPDX-License-Identifier: GPL-2.0-only
"""The source files of an object, under names that two trees share, and which of them differ."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from kbuild_klp.kernel.cmdfile import SavedCommand, cmd_path, read_saved_command
from kbuild_klp.kernel.files import below, file_time
from kbuild_klp.kernel.tree import BuildTree


@dataclass(frozen=True)
class SourceFiles:
    """The files that one object was compiled from.

    ``files`` maps each file's name to its path. The name is relative to the source or object tree, absolute
    for files outside (the compiler's own headers). ``main`` is the name of the file that was compiled. ``saved`` is
    how; None when that is not known.
    """

    main: str
    files: Mapping[str, str]
    saved: SavedCommand | None = field(default=None, compare=False)

    @classmethod
    def of(cls, tree: BuildTree, object_path: str) -> SourceFiles | None:
        """The files of an object of ``tree``; None if kbuild records none (linked objects, shipped ones).

        Raises BadTreeError for a damaged .cmd file. Files that are gone by now are included.
        """
        saved = read_saved_command(posixpath.join(tree.root, cmd_path(object_path)))
        if saved is None or saved.source is None:
            return None
        resolved = _resolved(tree)
        known = list(map(resolved.__getitem__, (saved.source, *saved.dependencies)))
        files = dict(known)
        files.update(reversed(known))  # of several files of one name the first counts
        return cls(known[0][0], files, saved)

    @classmethod
    def compiled(
        cls, tree: BuildTree, object_path: str, time_ns: int, known: dict[str, int] | None = None
    ) -> SourceFiles | None:
        """The files of an object as they were compiled; None if kbuild records none, or one of them changed since.

        For ``time_ns`` and ``known`` see changed_since.
        """
        sources = cls.of(tree, object_path)
        return None if sources is None or sources.changed_since(time_ns, known) else sources

    def find(self, name: str) -> str | None:
        """The path of the file that ``__FILE__`` or a line table names, None if it is none of these."""
        name = posixpath.normpath(name)
        path = self.files.get(name)
        if path is None and name.startswith("/"):
            path = next((path for path in self.files.values() if path == name), None)
        return path

    def changed_since(self, time_ns: int, known: dict[str, int] | None = None) -> list[str]:
        """The names of the files that changed after ``time_ns`` (the object's mtime), or are gone.

        Nothing about the object may be proved from these: they are not what was compiled. A generated file
        that is as old as the object counts as older. ``known`` keeps times by path for the next object, which has
        nearly the same headers.
        """
        known = {} if known is None else known
        known.update((path, file_time(path)) for path in self.files.values() if path not in known)
        times = list(map(known.__getitem__, self.files.values()))
        if not times or 0 <= min(times) <= max(times) <= time_ns:
            return []
        return [name for name, time in zip(self.files, times, strict=True) if not 0 <= time <= time_ns]


class FileComparison:
    """Compares files, each pair once; objects of one build share a thousand headers.

    A file that changes while the comparison lives is not read again.
    """

    def __init__(self) -> None:
        self._same: set[tuple[str, str]] = set()
        self._different: set[tuple[str, str]] = set()

    def changed_files(self, old: SourceFiles, new: SourceFiles) -> dict[str, tuple[str, str]]:
        """The files that both objects depend on and that differ in content, generated ones too: both paths, by name.

        A file that cannot be read differs from every other.
        """
        ours, theirs = old.files, new.files
        pairs = {*zip(ours.values(), map(theirs.get, ours), strict=True)}
        differing = {(was, now) for was, now in pairs - self._same if now is not None and not self.same(was, now)}
        if not differing:
            return {}
        both = {name: (ours[name], theirs[name]) for name in sorted(ours.keys() & theirs.keys())}
        return {name: pair for name, pair in both.items() if pair in differing}

    def same(self, old: str, new: str) -> bool:
        """Whether two files have the same content."""
        pair = old, new
        if pair not in self._same and pair not in self._different:
            is_same = old == new or _same_content(old, new)
            (self._same if is_same else self._different).add(pair)
        return pair in self._same


class _Resolved(dict[str, tuple[str, str]]):
    """The files that saved commands of a tree name, each once: its name that trees share, and its real path.

    It is found from where make ran, which is not recorded.
    """

    def __init__(self, tree: BuildTree) -> None:
        super().__init__()
        self._root = str(tree.root)
        kernel = [str(tree.kernel)] if tree.kernel and tree.is_external else []
        self._bases = [self._root, *kernel]
        source = str(tree.source)
        kernel_source = [_source_link(kernel[0])] if kernel else []
        # The object tree may lie in the source tree (make O=build): the longer prefix first.
        self._prefixes = sorted({self._root, source, *kernel, *kernel_source}, key=len, reverse=True)
        self._directories: dict[str, tuple[str, str]] = {}

    def __missing__(self, path: str) -> tuple[str, str]:
        directory, slash, name = path.rpartition("/")
        found = self._directories.get(directory)
        if found is None:
            found = self._directories[directory] = self._directory(directory + slash, name)
        self[path] = found[0] + name, found[1] + name
        return self[path]

    def _directory(self, directory: str, name: str) -> tuple[str, str]:
        """A directory's name that trees share, and its real path, each with a slash."""
        place = directory
        if not directory.startswith("/"):
            bases = self._bases if len(self._bases) > 1 else ()
            base = next((base for base in bases if os.path.lexists(f"{base}/{directory}{name}")), self._root)
            place = f"{base}/{directory}"
        place = posixpath.normpath(place).rstrip("/") + "/"
        return below(self._prefixes, place) or (place, place)


_resolved = lru_cache(maxsize=8)(_Resolved)


def _source_link(root: str) -> str:
    link = f"{root}/source"
    return os.path.realpath(link) if os.path.islink(link) else root


def _same_content(old: str, new: str) -> bool:
    try:
        a, b = os.stat(old), os.stat(new)
        if (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino):
            return True
        if a.st_size != b.st_size:
            return False
        with open(old, "rb") as one, open(new, "rb") as other:
            return one.read() == other.read()
    except OSError:
        return False
