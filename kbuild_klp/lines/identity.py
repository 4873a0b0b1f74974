# SPDX-License-Identifier: GPL-2.0-only
"""What a build says of itself: the kernel release, who built it where with what, the number and time of the build.

It stands in linux_banner, init_uts_ns and vermagic of every kernel (init/version.c, include/linux/vermagic.h), and in
strings of some functions. A build of another user, or with another CONFIG_LOCALVERSION, differs there, and
means nothing by it. Nor does one in another directory, where that stands in the names of source files (directories.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cached_property

from kbuild_klp.lines.directories import Directories
from kbuild_klp.object.view import ObjectView

_TEXT = re.compile(rb"[^\0]+")
_VERMAGIC = re.compile(rb"\0vermagic=(\S{3,}) ")  # MODULE_INFO(vermagic, ...), made by scripts/mod/modpost.c


def _as_word(text: bytes) -> bytes:
    """Return a pattern for a text that is not a part of a longer number or word: 6.12.1 is not in 6.12.10."""
    before = rb"(?<![0-9A-Za-z.])" if text[:1].isalnum() else b""
    after = rb"(?![0-9A-Za-z]|\.[0-9])" if text[-1:].isalnum() else b""
    return before + re.escape(text) + after


class Identities:
    """How two builds call themselves: ``texts`` of the old one, each with what stands in its place in the new one.

    ``find_directories`` tells where both lay, None where they do not say: all of both is read for it.
    """

    def __init__(self, texts: Mapping[str, str], find_directories: Callable[[], Directories | None]) -> None:
        self._find_directories = find_directories
        self._new = {old.encode(): new.encode() for old, new in texts.items() if old != new}
        # The longest first, for one may be the beginning of another.
        words = sorted(self._new, key=len, reverse=True)
        self._old = re.compile(b"|".join(map(_as_word, words))) if words else None

    @cached_property
    def _directories(self) -> Directories | None:
        return self._find_directories()

    @property
    def change_lengths(self) -> bool:
        """Whether names of source files are longer or shorter than they were."""
        return self._directories is not None and len(self._directories.old) != len(self._directories.new)

    def are_all_that_differs(self, before: bytes, after: bytes) -> bool:
        """Say whether two strings, or two pieces of data with strings in them, are equal but for what builds say.

        What follows a string in a field of fixed length (struct new_utsname, include/uapi/linux/utsname.h) is zeros.
        """
        if before == after:
            return False
        renewed = self._renewed(before)
        if renewed == after:
            return True
        if len(before) != len(after) or renewed == before:
            return False
        was = [(match.start(), self._renewed(match[0])) for match in _TEXT.finditer(before)]
        return was == [(match.start(), match[0]) for match in _TEXT.finditer(after)]

    def _renewed(self, text: bytes) -> bytes:
        if self._directories is not None:
            text = self._directories.renewed(text)
        return self._old.sub(lambda match: self._new[match[0]], text) if self._old is not None else text


def releases(old: ObjectView, new: ObjectView) -> dict[str, str]:
    """Return the kernel release that a module says it was built for, with that of another build; empty for others."""
    found = [_VERMAGIC.findall(view.canonical.image.buffer, view.canonical.image.code_end) for view in (old, new)]
    if any(len(texts) != 1 for texts in found):
        return {}
    (before,), (after,) = ([text.decode("utf-8", "surrogateescape") for text in texts] for texts in found)
    return {before: after}
