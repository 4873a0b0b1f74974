# SPDX-License-Identifier: GPL-2.0-only
"""The archives that kbuild makes (``built-in.a``, ``vmlinux.a``, ``lib.a``): which files are their members.

They are thin: a member is a header that names a file, relative to the archive's directory.
"""

from __future__ import annotations

import posixpath

from kbuild_klp.containers.ar import members_of
from kbuild_klp.kernel.files import normal_path


def members(archive: str) -> list[str]:
    """The member files of ``archive``, in link order, as paths that start with the archive's directory.

    Members of an archive that is not thin have no file of their own; they are taken to be beside it, where
    kbuild compiled them. Raises BadTreeError for a file that is no archive or is cut short, OSError if it
    cannot be read.
    """
    with open(archive, "rb") as file:
        data = file.read()
    directory = posixpath.dirname(archive)
    return [normal_path(posixpath.join(directory, member.name)) for member in members_of(data, archive)]
