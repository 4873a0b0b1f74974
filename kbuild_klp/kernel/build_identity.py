# SPDX-License-Identifier: GPL-2.0-only
"""What a build says of itself, in the headers that kbuild makes for that."""

from __future__ import annotations

import re

from kbuild_klp.kernel.files import read_text
from kbuild_klp.kernel.tree import BuildTree

_DEFINE = re.compile(r'^#define (UTS_VERSION|LINUX_COMPILE_BY|LINUX_COMPILE_HOST|LINUX_COMPILER)[ \t]+"(.+)"$', re.M)
# scripts/mkcompile_h; init/Makefile makes the other two, one for init/version.o and one when all is linked.
COMPILE_H = "include/generated/compile.h"
_HEADERS = (COMPILE_H, "include/generated/utsversion.h", "init/utsversion-tmp.h")
_LEAST = 3  # characters: what is shorter may be a part of anything


def defined(tree: BuildTree, header: str) -> dict[str, str]:
    """Return what a header that kbuild made says of the build, by the name of the macro."""
    return dict(_DEFINE.findall(read_text(f"{tree.kernel}/{header}") or "")) if tree.kernel else {}


def identity(tree: BuildTree) -> dict[str, str]:
    """Return the texts that tell a build from others of the same source, by what they are.

    What is not recorded, and what is too short to be told from other text, is left out.
    """
    texts = {"release": tree.release or ""}
    for header in _HEADERS:
        found = defined(tree, header)
        by, host = found.pop("LINUX_COMPILE_BY", ""), found.pop("LINUX_COMPILE_HOST", "")
        if by and host:
            texts["builder"] = f"{by}@{host}"
        texts.update((f"{name} of {header}", text) for name, text in found.items())
    return {name: text for name, text in texts.items() if len(text) >= _LEAST}
