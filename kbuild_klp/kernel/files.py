# SPDX-License-Identifier: GPL-2.0-only
"""Files of a build tree: how they are read, how old they are, and where they lie that kbuild names."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable

from kbuild_klp.containers.ar import members_of


def read_text(path: str) -> str | None:
    """The text of a small file, None if it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except (OSError, ValueError):
        return None


def file_time(path: str) -> int:
    """When a file was changed (ns), -1 if there is none."""
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return -1


def normal_path(path: str) -> str:
    """A path without what `ar` and kbuild leave in it: "./init/main.o" when that was asked for."""
    return posixpath.normpath(path) if "./" in path or "//" in path else path


def archive_members(archive: str) -> list[str]:
    """The member files of an archive of kbuild's (``built-in.a``, ``vmlinux.a``, ``lib.a``), in link order.

    They are thin: a member is a header that names a file, relative to the archive's directory. The paths start with
    that. Members of an archive that is not thin have no file of their own; they are taken to be beside it, where
    kbuild compiled them. Raises BadTreeError for a file that is no archive or is cut short, OSError if it
    cannot be read.
    """
    with open(archive, "rb") as file:
        data = file.read()
    directory = posixpath.dirname(archive)
    return [normal_path(posixpath.join(directory, member.name)) for member in members_of(data, archive)]


def below(roots: Iterable[str], directory: str) -> tuple[str, str] | None:
    """The path of a directory from the first root above it, and the directory, with symbolic links only if need be.

    Both end with a slash, as ``directory`` does. None if it lies outside.
    """
    for place in (directory, os.path.realpath(directory).rstrip("/") + "/"):
        for root in roots:
            if place.startswith(root + "/"):
                return place[len(root) + 1 :], place
    return None


class Locator:
    """Turns a path that kbuild wrote into one relative to ``root``, or absolute if it lies outside.

    A path is looked for from ``root``, then from each of ``others`` (for an external module the kernel's
    object tree), then from the directories above ``root`` (a part of a kernel tree given as ``M=``). The
    answer is remembered for each directory, so that a module of 300 objects costs one look.
    """

    def __init__(self, root: str, others: Iterable[str] = (), *, search_above: bool = False) -> None:
        self._root = root
        self._bases = [root, *others]
        if search_above:
            above = root
            while (above := posixpath.dirname(above)) not in ("", "/"):
                self._bases.append(above)
        self._known: dict[str, str] = {}

    def locate(self, path: str) -> str:
        """``path`` relative to the root, or absolute."""
        directory, slash, name = path.rpartition("/")
        if len(self._bases) == 1 and not path.startswith("/"):
            return path
        found = self._known.get(directory)
        if found is None:
            found = self._known[directory] = self._directory(directory + slash, name)
        return found + name

    def _directory(self, directory: str, name: str) -> str:
        if not directory.startswith("/"):
            base = next((base for base in self._bases if os.path.lexists(f"{base}/{directory}{name}")), self._root)
            if base == self._root:
                return directory
            directory = f"{base}/{directory}"
        found = below([self._root], directory)
        return found[0] if found else directory
