# SPDX-License-Identifier: GPL-2.0-only
"""Modules as kbuild lists them: ``modules.order`` names the modules, each ``NAME.mod`` the objects of one.

Both formats of each are read. ``modules.order`` lists ``.ko`` up to 6.2 and ``.o`` from 6.3; ``.mod`` has
its objects on one line, with undefined symbols on the next, up to 5.18, and one object a line from 5.19.
Where the paths start from differs too: the object tree, or for an external module its own directory (from
6.13), or the root of the file system.
"""

from __future__ import annotations

import re

from kbuild_klp.kernel.files import normal_path, read_text

_CAT = re.compile(r"\bcat[ \t]+([^;\s]+)")


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
