# SPDX-License-Identifier: GPL-2.0-only
"""The directory of each of two builds, as the names of source files in their objects tell it.

Compilers write names as they were called with them: UBSAN's records, bug tables and ``__FILE__`` have
/build/linux-7.2.9/crypto/x.c if the tree was in /build/linux-7.2.9. That is something the build says of itself, and no
change, as long as the rest of each name is the same path in the tree. A path that became another one is a change, and
looks much the same: /build/linux/fs/ext2/inode.c and /build/linux/fs/ext4/inode.c end in the same name. So two
directories are believed only if

- most of the names that changed, weighted by how often they are referred to, differ by these two, and the new object
  has no name in the old directory;
- both are outside a tree: absolute, or beginning with ``../``; and what differs is no directory of the kernel;
- the rest of the names has a directory of the kernel in it, or there is none anywhere (an external module, and then no
  file that both builds have is beside the two directories).

Names that differ otherwise are changes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from posixpath import commonprefix
from typing import NamedTuple

import numpy as np

from kbuild_klp.object.view import ObjectView

_NAME = re.compile(rb"[!-$&-~]+\.(?:c|h|S|cc|rs|inc)(?=\0|\Z)")
# The directories at the top of a kernel's tree. Those in _OUTSIDE_TOO have no directory in them that is called like one
# of the list: if one stands before another of the list, it is somebody's directory, and not a path in the tree.
_TOP = frozenset(
    b"arch block certs crypto drivers fs include init io_uring ipc kernel lib mm net rust samples scripts security "
    b"sound tools usr virt".split()
)
_OUTSIDE_TOO = frozenset((b"kernel", b"usr"))
_ROOTS = [b"", b"usr"], [b"", b"lib"]  # of a file system
# What can stand before a name in a text.
_BEGINS = rb"(?<![^\s\"'(<,:=\x00-\x1f])"


class Directories(NamedTuple):
    """The directories of the old and the new build; each ends with a slash, or is empty."""

    old: bytes
    new: bytes

    def renewed(self, text: bytes) -> bytes:
        """Return a text with the new directory in place of the old one."""
        if self.old:
            return re.sub(_BEGINS + re.escape(self.old), lambda _: self.new, text)
        return self.new + text if _NAME.fullmatch(text) else text


def find_directories(old: ObjectView, new: ObjectView) -> Directories | None:
    """Return the directories by which the names of source files in two objects differ, None if these are not clear."""
    before, after = _names(old), _names(new)
    came: dict[bytes, list[bytes]] = {}
    for name in after.keys() - before.keys():
        came.setdefault(name.rpartition(b"/")[2], []).append(name)
    votes: Counter[Directories] = Counter()
    for name in before.keys() - after.keys():
        splits = [_split(name, other) for other in came.get(name.rpartition(b"/")[2], ())]
        longest = max((len(rest) for _, rest in splits), default=0)
        for found in {found for found, rest in splits if len(rest) == longest}:
            votes[found] += before[name]
    ranked = votes.most_common(2)
    if not ranked or (len(ranked) == 2 and ranked[0][1] == ranked[1][1]):
        return None
    found = ranked[0][0]
    same = before.keys() & after.keys()
    # If one directory lies in the other, the files of the inner one are in both.
    if found.old and any(name.startswith(found.old) and not name.startswith(found.new or b"\0") for name in same):
        return None
    rests = [name[len(found.old) :] for name in before.keys() - after.keys() if name.startswith(found.old)]
    return found if _are_outside(found, rests, same) else None


def _names(view: ObjectView) -> dict[bytes, int]:
    """Return the names of source files in an object, each with how often it is referred to (counted at least once)."""
    image = view.canonical.image
    found = [(match.start(), match[0]) for match in _NAME.finditer(image.buffer, image.code_end)]
    places = np.array([place for place, _ in found], np.int64)
    targets = view.canonical.references.target
    hits = targets[np.isin(targets, places)]
    uses = np.bincount(np.searchsorted(places, hits), minlength=len(places)).tolist()
    names: Counter[bytes] = Counter()
    for (_, name), count in zip(found, uses, strict=True):
        names[name] += max(count, 1)
    return names


def _split(old: bytes, new: bytes) -> tuple[Directories, bytes]:
    """Return the directories that two names of files begin with, and the path that both end with."""
    was, is_ = old.split(b"/"), new.split(b"/")
    same = len(commonprefix([was[::-1], is_[::-1]]))
    rest = b"/".join(was[len(was) - same :])
    return Directories(old[: len(old) - len(rest)], new[: len(new) - len(rest)]), rest


def _are_outside(found: Directories, rests: Iterable[bytes], same: Iterable[bytes]) -> bool:
    """Say whether two directories are those of trees, and not inside one."""
    if not all(not side or side.startswith((b"/", b"../", b"./")) for side in found):
        return False
    sides = [side.split(b"/")[:-1] for side in found]
    above = commonprefix(sides)
    names = {name for side in sides for name in side[2 if side[0:2] in _ROOTS else 0 :]}
    if all(_TOP.intersection(rest.split(b"/")[:-1]) for rest in rests):
        return _TOP.isdisjoint(names - _OUTSIDE_TOO)
    beside = b"/".join(above) + b"/"
    return _TOP.isdisjoint(names) and not (len(above) > 1 and any(name.startswith(beside) for name in same))
