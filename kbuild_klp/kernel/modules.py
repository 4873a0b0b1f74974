# SPDX-License-Identifier: GPL-2.0-only
"""Modules as kbuild lists them: ``modules.order`` names the modules, each ``NAME.mod`` the objects of one.

Both formats of each are read. ``modules.order`` lists ``.ko`` up to 6.2 and ``.o`` from 6.3; ``.mod`` has
its objects on one line, with undefined symbols on the next, up to 5.18, and one object a line from 5.19.
Where the paths start from differs too: the object tree, or for an external module its own directory (from
6.13), or the root of the file system.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterable

_CAT = re.compile(r"\bcat[ \t]+([^;\s]+)")


def read_text(path: str) -> str | None:
    """The text of a small file, None if it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:  # noqa: PTH123
            return file.read()
    except (OSError, ValueError):
        return None


def file_time(path: str) -> int:
    """When a file was changed (ns), -1 if there is none."""
    try:
        return os.stat(path).st_mtime_ns  # noqa: PTH116
    except OSError:
        return -1


def normal_path(path: str) -> str:
    """A path without what `ar` and kbuild leave in it: "./init/main.o" when that was asked for."""
    return posixpath.normpath(path) if "./" in path or "//" in path else path


def ordered_modules(root: str) -> list[str] | None:
    """The modules of a whole tree, each as its path without suffix, in the order of ``modules.order``.

    None if the tree has no list of its directories' lists (``.modules.order.cmd``, from 5.19), because then
    the top ``modules.order`` may be that of ``make fs/foo.ko``, which overwrites and afterwards removes it
    (rule single_modules in the kernel's Makefile). That is also why the directories' own lists are read:
    they are right after that, and after ``make fs/``.
    """
    parts = _CAT.findall(read_text(f"{root}/.modules.order.cmd") or "")
    texts = [text for part in parts if (text := read_text(f"{root}/{part}")) is not None]
    if not texts:
        return None
    if len(texts) < len(parts):
        texts.append(read_text(f"{root}/modules.order") or "")
    return list(dict.fromkeys(name for text in texts for name in module_names(text)))


def module_names(order: str) -> list[str]:
    """The entries of the text of a ``modules.order``, without suffix."""
    return [
        normal_path(line[:-3] if line.endswith(".ko") else line[:-2])
        for line in order.split()
        if line.endswith((".o", ".ko"))
    ]


def module_objects(mod: str) -> list[str]:
    """The objects in the text of a ``.mod`` file, as written there, without duplicates.

    Whatever does not end in ``.o`` is an undefined symbol of the old format.
    """
    return list(dict.fromkeys(normal_path(word) for word in mod.split() if word.endswith(".o")))


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
        if directory.startswith("/"):
            return self._from_root(directory)
        for base in self._bases:
            if os.path.lexists(f"{base}/{directory}{name}"):
                return directory if base == self._root else self._from_root(f"{base}/{directory}")
        return directory

    def _from_root(self, directory: str) -> str:
        for candidate in (directory, os.path.realpath(directory) + "/"):
            if candidate.startswith(self._root + "/"):
                return candidate[len(self._root) + 1 :]
        return directory
