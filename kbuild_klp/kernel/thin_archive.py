# SPDX-License-Identifier: GPL-2.0-only
"""The archives that kbuild makes (``built-in.a``, ``vmlinux.a``, ``lib.a``): which files are their members.

They are thin: a member is a header that names a file, relative to the archive's directory.
"""

from __future__ import annotations

import posixpath

from kbuild_klp.containers.ar import members_of


def members(archive: str) -> list[str]:
    """The member files of ``archive``, in link order, as paths that start with the archive's directory.

    Members of an archive that is not thin have no file of their own; they are taken to be beside it, where
    kbuild compiled them. Raises BadTreeError for a file that is no archive or is cut short, OSError if it
    cannot be read.
    """
    with open(archive, "rb") as file:  # noqa: PTH123 - pathlib costs more than the read
        data = file.read()
    directory = posixpath.dirname(archive)
    return [_joined(directory, member.name) for member in members_of(data, archive)]


def _joined(directory: str, name: str) -> str:
    path = posixpath.join(directory, name)
    # `ar` records "./init/main.o" when it was asked for "./init/main.o".
    return posixpath.normpath(path) if "./" in path or "//" in path else path
