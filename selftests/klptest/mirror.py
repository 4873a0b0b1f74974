# SPDX-License-Identifier: GPL-2.0-only
"""Copies of a kernel tree that was built in its source directory, such that make finds nothing to do in them.

An in-tree build saves relative paths, so it may be copied, times included. Only tools/ (objtool) saves absolute ones,
in its .cmd files, and would be built again in the copy, and with it everything that objtool was run on. They are
rewritten.

Nothing is hard linked: parts of kbuild write into files in place, and the original must stay as it is.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Iterator
from fnmatch import translate
from pathlib import Path

from klptest import TroubleError

_FILES = "*.[chS]"

# What a build for x86 never reads, two thirds of the sources: leaving it out makes copies cheap. Makefiles and Kconfig
# files stay, for kbuild reads them all, even Documentation's in `make clean`. In these patterns, which tar and
# fnmatch read alike, * matches / too.
PRUNED = (
    ".git",
    ".git/*",
    "Documentation/*.rst",
    "Documentation/*.svg",
    "Documentation/*.txt",
    "Documentation/*.yaml",
    "drivers/accel/" + _FILES,
    "drivers/gpu/[!v]" + _FILES,  # until 6.5 the VGA arbiter is there
    "drivers/infiniband/" + _FILES,
    "drivers/media/" + _FILES,
    "drivers/net/ethernet/" + _FILES,
    "drivers/net/wireless/" + _FILES,
    "drivers/scsi/[!s]" + _FILES,  # until 5.14 the block layer needs scsi_common.c
    "drivers/staging/" + _FILES,
    "sound/" + _FILES,
    "tools/perf/*",
    "tools/testing/*",
    *(
        f"arch/{arch}/{files}"
        for arch in (
            "[a-tv-w]*",  # all but um, which arch/x86 shares headers with, and x86 itself
            "xtensa",
        )
        for files in (_FILES, "*.dts*")
    ),
)

_is_pruned = re.compile("|".join(translate(pattern) for pattern in PRUNED)).match
_is_tools_command = re.compile(r"tools/(.*/)?\.[^/]*\.cmd").fullmatch


def _entries(top: Path, below: str = "") -> Iterator[tuple[str, os.stat_result]]:
    """Yield every file, link and directory below ``top`` with its path, a directory before what is in it."""
    with os.scandir(top / below) as entries:
        found = list(entries)
    for entry in found:
        name = below + entry.name
        status = entry.stat(follow_symlinks=False)
        yield name, status
        if stat.S_ISDIR(status.st_mode):
            yield from _entries(top, name + "/")


def _same(old: os.stat_result | None, new: os.stat_result) -> bool:
    if old is None or stat.S_IFMT(old.st_mode) != stat.S_IFMT(new.st_mode):
        return False
    if not stat.S_ISREG(new.st_mode):
        return stat.S_ISDIR(new.st_mode)
    return (old.st_size, old.st_mtime_ns, old.st_mode) == (new.st_size, new.st_mtime_ns, new.st_mode)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _copy(source: Path, target: Path, status: os.stat_result, place: tuple[str, str] | None) -> None:
    if stat.S_ISDIR(status.st_mode):
        target.mkdir()
    elif stat.S_ISLNK(status.st_mode):
        target.symlink_to(source.readlink())
    elif place and str(source).endswith(".cmd"):
        target.write_text(source.read_text().replace(*place))
        shutil.copystat(source, target)
    elif stat.S_ISREG(status.st_mode):
        shutil.copy2(source, target)


def mirror(source: Path, target: Path, *, final: Path | None = None) -> int:
    """Make ``target`` equal to ``source`` in everything but what is pruned; return how many files that took.

    A file with the same size, mode and time is taken to be the same. ``final`` is where the target is going to be
    renamed to, when it is not to stay where it is written.
    """
    place = (f"{source}/", f"{final or target}/")
    if any(character.isspace() for character in place[1]):
        raise TroubleError(f"{final or target}: kbuild cannot build in a directory with a space in its path")
    target.mkdir(parents=True, exist_ok=True)
    there = dict(_entries(target))
    copied = 0
    for name, status in _entries(source):
        if _is_pruned(name):
            continue
        old = there.pop(name, None)
        moved = place if _is_tools_command(name) else None
        if moved and old and old.st_mtime_ns == status.st_mtime_ns:
            continue  # rewritten, so its size says nothing
        if stat.S_ISLNK(status.st_mode) and old and stat.S_ISLNK(old.st_mode):
            if (source / name).readlink() == (target / name).readlink():
                continue
        elif _same(old, status):
            continue
        if old:
            _remove(target / name)
        _copy(source / name, target / name, status, moved)
        copied += 1
    for name in sorted(there, key=len):
        if os.path.lexists(target / name):  # not gone with its directory
            _remove(target / name)
            copied += 1
    return copied
