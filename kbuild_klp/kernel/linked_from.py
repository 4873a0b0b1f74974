# SPDX-License-Identifier: GPL-2.0-only
"""What a linked object was made from: a module's ``.ko`` and ``.o``, ``vmlinux.o``.

Its saved command names objects, archives (``--whole-archive vmlinux.a``) and lists of objects (``@fs/ext4/ext4.mod``,
from 5.18; cmd_ld_multi_m in scripts/Makefile.build); the command of each of these says the same of it, down to what the
compiler made.
"""

from __future__ import annotations

import posixpath

from kbuild_klp.kernel.cmdfile import cmd_path, read_link_command
from kbuild_klp.kernel.files import archive_members, normal_path, read_text
from kbuild_klp.kernel.modules import module_objects
from kbuild_klp.kernel.tree import BuildTree

_OPTIONS_WITH_FILE = frozenset(("-o", "-T"))


def linked_from(tree: BuildTree, object_path: str) -> list[str]:
    """The objects, in link order, that were linked to one of ``tree``; empty for an object that was not linked.

    Paths as SourceFiles.of takes them. Those of which no command is known are taken to be no linked ones. Raises
    BadTreeError for a damaged .cmd file or archive, OSError for an archive that cannot be read.
    """
    found: dict[str, None] = {}
    waiting, seen = [object_path], {object_path}
    while waiting:
        name = waiting.pop()
        command = read_link_command(posixpath.join(tree.root, cmd_path(name)))
        inputs = _inputs(tree, command) if command is not None else []
        if inputs:
            waiting += [one for one in reversed(inputs) if one not in seen]
            seen.update(inputs)
        elif name != object_path:
            found[name] = None
    return list(found)


def _inputs(tree: BuildTree, command: str) -> list[str]:
    """The objects that the first program of a command reads."""
    result: list[str] = []
    before = ""
    for word in command.partition(";")[0].split():
        if before not in _OPTIONS_WITH_FILE:
            if word.startswith("@"):
                result += module_objects(read_text(_path(tree, word[1:])) or "")
            elif word.endswith(".a"):
                result += archive_members(_path(tree, word))
            elif word.endswith(".o"):
                result.append(normal_path(word))
        before = word
    return list(map(tree.locate, result))


def _path(tree: BuildTree, name: str) -> str:
    return posixpath.join(tree.root, tree.locate(normal_path(name)))
