# SPDX-License-Identifier: GPL-2.0-only
"""Whether two objects are two versions of one."""

from __future__ import annotations

import numpy as np

from kbuild_klp.elf import constants as elf
from kbuild_klp.errors import KlpError
from kbuild_klp.object.view import ObjectView

_OF_EVERY_MODULE = frozenset({"init_module", "cleanup_module"})  # include/linux/module.h
_MOST_NAMES = 3


def of_other_sources(old: ObjectView, new: ObjectView) -> list[str]:
    """Return what is said of two objects of which none of the sources has the same name.

    A source may have been renamed. But where not one function of the old object is in the new one, nothing is changed,
    all is new: raises KlpError.
    """
    before, after = _functions(old), _functions(new)
    if before and after and not before & after:
        raise KlpError(
            f"has no function of {old.file.path}",
            file=new.file.path,
            hint="give two versions of one object",
        )
    sources, others = _sources(old), _sources(new)
    if not sources or not others or sources & others:
        return []
    return [f"{new.file.path} is made of {_joined(others)}, {old.file.path} of {_joined(sources)}"]


def _functions(view: ObjectView) -> set[str]:
    info, shndx = view.object.symbols["info"], view.object.shndx
    found = np.flatnonzero((info & 0xF == elf.STT_FUNC) & (shndx > 0)).tolist()
    names = (name.partition(".")[0] for name in view.object.names_of(found))  # foo.isra.0 was foo
    return {*names} - _OF_EVERY_MODULE


def _sources(view: ObjectView) -> set[str]:
    files = np.flatnonzero(view.object.symbols["info"] & 0xF == elf.STT_FILE).tolist()
    return {*view.object.names_of(files)} - {""}


def _joined(names: set[str]) -> str:
    listed = sorted(names)
    return ", ".join(listed[:_MOST_NAMES]) + (" and others" if len(listed) > _MOST_NAMES else "")
