# SPDX-License-Identifier: GPL-2.0-only
"""The objects of vmlinux, from the best list that a tree has.

From 6.1, ``vmlinux.a`` lists all of them, flat and in link order, unless CONFIG_MODULES is off, when the
``lib.a`` archives (KBUILD_VMLINUX_LIBS) are linked beside it. 5.19 and 6.0 name the archives and head
objects in the saved command of vmlinux.o. Before that no file says what was linked, and after an
interrupted or partial build it is not said yet: then the directories' own ``built-in.a`` are gathered.
Kbuild makes one only where it is linked (need-builtin in scripts/Makefile.build), so whichever exists
counts.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from kbuild_klp.errors import BadTreeError
from kbuild_klp.kernel.files import archive_members, file_time, read_text

_WHOLE = re.compile(r"--whole-archive[ \t](.*?)[ \t]--no-whole-archive", re.DOTALL)
_GROUP = re.compile(r"--start-group[ \t](.*?)--end-group", re.DOTALL)
_AR = re.compile(r"\bvmlinux\.a[ \t]+((?:[^\s;]+\.(?:a|o)[ \t]*)+)")

# Directories at the top that hold no part of a kernel, and are large or not ours.
_NOT_KERNEL = frozenset(
    ("Documentation", "LICENSES", "debian", "include", "rpmbuild", "samples", "scripts", "source", "tools")
)
# Compiled with the kernel's flags and in its tree, but part of a program of its own (an image, or nothing).
_OWN_PROGRAMS = re.compile(
    r"^(?:scripts|tools|samples|usr/include|Documentation)/"
    r"|^arch/[^/]+/(?:boot|purgatory|tools)/"
    r"|/vdso[^/]*/|^arch/x86/realmode/rm/"
)


def linked_objects(root: str, source_architecture: str) -> list[str]:
    """The objects of vmlinux relative to ``root``; empty if none was built.

    Raises BadTreeError for a damaged archive.
    """
    saved = read_text(f"{root}/.vmlinux.o.cmd") or ""
    group = _GROUP.search(saved)
    libraries = group.group(1).split() if group else []
    archives = ["vmlinux.a"] if _is_current(root) else _parts_of_vmlinux(root, saved)
    if archives:
        return _flattened(root, [*archives, *libraries])
    archives, libraries = _discover(root, source_architecture)
    objects = _flattened(root, [*archives, *libraries])
    if file_time(f"{root}/vmlinux") < 0:
        return objects
    return [*_head_objects(root, source_architecture, objects), *objects]


def archive_objects(root: str, archive: str) -> list[str]:
    """The members of ``root/archive``, relative to ``root``; empty if there is no such archive.

    Raises BadTreeError for one that is damaged or cannot be read.
    """
    prefix = f"{root}/"
    try:
        return [path.removeprefix(prefix) for path in archive_members(prefix + archive)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise BadTreeError(f"cannot be read ({error.strerror})", file=prefix + archive) from error


def is_own_program(path: str) -> bool:
    """Whether an object belongs to another program than the kernel: host tool, boot code, vdso, purgatory."""
    return _OWN_PROGRAMS.search(path) is not None


def _archive_parts(root: str) -> list[str]:
    match = _AR.search(read_text(f"{root}/.vmlinux.a.cmd") or "")
    return match.group(1).split() if match else ["built-in.a"]


def _is_current(root: str) -> bool:
    """Whether vmlinux.a is there, and none of what it was made from was made again since."""
    made = file_time(f"{root}/vmlinux.a")
    return made >= 0 and all(file_time(f"{root}/{part}") <= made for part in _archive_parts(root))


def _parts_of_vmlinux(root: str, saved: str) -> list[str]:
    """What vmlinux.a is made from (6.1 on), or what the saved link of vmlinux.o names (5.19, 6.0)."""
    parts = [part for part in _archive_parts(root) if file_time(f"{root}/{part}") >= 0]
    if parts:
        return parts
    whole = _WHOLE.search(saved)
    named = whole.group(1).split() if whole else []
    return [part for part in named if part != "vmlinux.a" and file_time(f"{root}/{part}") >= 0]


def _flattened(root: str, parts: list[str]) -> list[str]:
    """Each part's members, or the part itself if it is an object, without duplicates."""
    objects: dict[str, None] = {}
    for part in parts:
        name = part.removeprefix("./").removeprefix(f"{root}/")
        if name.endswith(".a"):
            objects.update(dict.fromkeys(archive_objects(root, name)))
        elif name.endswith(".o"):
            objects[name] = None
    return list(objects)


def _discover(root: str, source_architecture: str) -> tuple[list[str], list[str]]:
    """The outermost ``built-in.a`` of a tree, and the ``lib.a`` beside them."""
    built_in: list[str] = []
    libraries: list[str] = []
    for directory, names in visit(root, source_architecture):
        if "built-in.a" in names:
            built_in.append(f"{directory}built-in.a")
        # x86 links the EFI stub into its boot code, the others into vmlinux.
        if "lib.a" in names and not (source_architecture == "x86" and directory.endswith("/libstub/")):
            libraries.append(f"{directory}lib.a")
    return built_in, libraries


def visit(root: str, source_architecture: str) -> Iterator[tuple[str, frozenset[str]]]:
    """Walk the directories that kbuild may have entered: each one's path with a slash, and the names of its
    files.

    Does not go below a directory with its own ``built-in.a`` and ``modules.order``, which cover all below,
    except in ``arch``, whose Makefile adds subdirectories one by one.
    """
    pending = [""]
    while pending:
        directory = pending.pop()
        files: list[str] = []
        below: list[str] = []
        try:
            with os.scandir(f"{root}/{directory}") as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        below.append(entry.name)
                    else:
                        files.append(entry.name)
        except OSError:
            continue
        names = frozenset(files)
        yield directory, names
        if not directory:
            below = [name for name in below if name not in _NOT_KERNEL]
        elif directory == "arch/":
            below = [name for name in below if name == source_architecture]
        elif not directory.startswith("arch/") and {"built-in.a", "modules.order"} <= names:
            continue
        pending.extend(f"{directory}{name}/" for name in sorted(below, reverse=True))


def _head_objects(root: str, source_architecture: str, linked: list[str]) -> list[str]:
    """Objects that are linked first (head-y before 6.1), which no archive and no module names."""
    directory = f"arch/{source_architecture}/kernel/"
    try:
        names = sorted(os.listdir(f"{root}/{directory}"))
    except OSError:
        return []
    known = set(linked)
    for name in names:
        if name.endswith(".mod"):
            known.add(f"{directory}{name[:-4]}.o")
            known.update((read_text(f"{root}/{directory}{name}") or "").split())
    return [
        path
        for name in names
        if name.endswith(".o")
        and not name.startswith(".")
        and not name.endswith(".mod.o")
        and (path := directory + name) not in known
    ]
