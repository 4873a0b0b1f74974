# SPDX-License-Identifier: GPL-2.0-only
"""What a build says of itself: the kernel release, who built it where with what, the number and time of the build.

It is in linux_banner, init_uts_ns and vermagic of every kernel (init/version.c, include/linux/vermagic.h), and in
strings of some functions. The builds of two users, or with two values of CONFIG_LOCALVERSION, differ there, and that is
no change. Nor is the directory of the build in the names of source files (directories.py).
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
    """Return a pattern for a text that is not part of a longer number or word: 6.12.1 is not in 6.12.10."""
    before = rb"(?<![0-9A-Za-z.])" if text[:1].isalnum() else b""
    after = rb"(?![0-9A-Za-z]|\.[0-9])" if text[-1:].isalnum() else b""
    return before + re.escape(text) + after


class Identities:
    """What two builds say of themselves: ``texts`` of the old one, each with its counterpart in the new one.

    ``find_directories`` returns the directories of both, None if they are not known. It reads all of both objects.
    """

    def __init__(self, texts: Mapping[str, str], find_directories: Callable[[], Directories | None]) -> None:
        self._find_directories = find_directories
        self._new = {old.encode(): new.encode() for old, new in texts.items() if old != new}
        # The longest first: one may be the beginning of another.
        words = sorted(self._new, key=len, reverse=True)
        self._old = re.compile(b"|".join(map(_as_word, words))) if words else None

    @cached_property
    def _directories(self) -> Directories | None:
        return self._find_directories()

    @property
    def change_lengths(self) -> bool:
        """Whether the names of source files became longer or shorter."""
        return self._directories is not None and len(self._directories.old) != len(self._directories.new)

    def are_all_that_differs(self, before: bytes, after: bytes) -> bool:
        """Say whether two strings, or data with strings in them, differ in what builds say, and in nothing else.

        Strings in fields of fixed length (struct new_utsname, include/uapi/linux/utsname.h) are followed by zeros.
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
    """Return the releases that two builds of a module say they are for, old to new; empty for other objects."""
    found = [_VERMAGIC.findall(view.canonical.image.buffer, view.canonical.image.code_end) for view in (old, new)]
    if any(len(texts) != 1 for texts in found):
        return {}
    (before,), (after,) = ([text.decode("utf-8", "surrogateescape") for text in texts] for texts in found)
    return {before: after}
