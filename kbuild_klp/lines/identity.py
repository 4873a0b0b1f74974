# SPDX-License-Identifier: GPL-2.0-only
"""What a build says of itself: the kernel release, who built it where with what, the number and time of the build.

It stands in linux_banner, init_uts_ns and vermagic of every kernel (init/version.c, include/linux/vermagic.h), and in
strings of some functions. A build of another user, or with another CONFIG_LOCALVERSION, differs there, and
means nothing by it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_TEXT = re.compile(rb"[^\0]+")


def _as_word(text: bytes) -> bytes:
    """Return a pattern for a text that is not a part of a longer number or word: 6.12.1 is not in 6.12.10."""
    before = rb"(?<![0-9A-Za-z.])" if text[:1].isalnum() else b""
    after = rb"(?![0-9A-Za-z]|\.[0-9])" if text[-1:].isalnum() else b""
    return before + re.escape(text) + after


class Identities:
    """How two builds call themselves: ``texts`` of the old one, each with what stands in its place in the new one."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self._new = {old.encode(): new.encode() for old, new in texts.items() if old != new}
        # The longest first, for one may be the beginning of another.
        words = sorted(self._new, key=len, reverse=True)
        self._old = re.compile(b"|".join(map(_as_word, words))) if words else None

    def __bool__(self) -> bool:
        return self._old is not None

    def are_all_that_differs(self, before: bytes, after: bytes) -> bool:
        """Say whether two strings, or two pieces of data with strings in them, are equal but for what builds say.

        What follows a string in a field of fixed length (struct new_utsname, include/uapi/linux/utsname.h) is zeros.
        """
        if self._old is None or not self._old.search(before):
            return False
        if self._renewed(before) == after:
            return True
        if len(before) != len(after):
            return False
        was = [(match.start(), self._renewed(match[0])) for match in _TEXT.finditer(before)]
        return was == [(match.start(), match[0]) for match in _TEXT.finditer(after)]

    def _renewed(self, text: bytes) -> bytes:
        assert self._old is not None
        return self._old.sub(lambda match: self._new[match[0]], text)
