# SPDX-License-Identifier: GPL-2.0-only
"""Kbuild's saved commands, ``.NAME.o.cmd``: how an object was made, and from which files.

The file is a piece of makefile that scripts/basic/fixdep and ``cmd_and_savecmd`` in scripts/Kbuild.include
write::

    savedcmd_kernel/fork.o := gcc -nostdinc ...        (``cmd_kernel/fork.o`` before 6.2)
    source_kernel/fork.o := kernel/fork.c
    deps_kernel/fork.o := \\
        $(wildcard include/config/SMP) \\
      include/linux/slab.h \\

Only objects that the compiler made have a source and dependencies; an archive or a link has the command
alone.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import lru_cache

from kbuild_klp.errors import BadTreeError

_ASSIGNMENT = re.compile(r"^(savedcmd|cmd|source|deps)_(\S+)[ \t]*:?=[ \t]*(.*)$", re.DOTALL)
_SOURCE = "\nsource_"
_WILDCARD = re.compile(r"\$\(wildcard(?![^\s)])[^)]*\)?")


@dataclass(frozen=True)
class SavedCommand:
    """How one target was made.

    ``source`` is None and ``dependencies`` empty where kbuild records none (links, archives). Paths are as
    kbuild wrote them: absolute, or relative to the directory in which make ran.
    """

    target: str
    command: str
    source: str | None
    dependencies: tuple[str, ...]


def cmd_path(target: str) -> str:
    """The file with the saved command of ``DIR/NAME``: ``DIR/.NAME.cmd``."""
    directory, slash, name = target.rpartition("/")
    return f"{directory}{slash}.{name}.cmd"


def parse_saved_command(text: str, *, file: str | os.PathLike[str] | None = None) -> SavedCommand:
    """Read the text of a ``.cmd`` file.

    Raises BadTreeError, which names ``file``, if it holds no saved command.
    """
    found = _parsed(text)
    if found is None:
        raise BadTreeError("holds no saved command", file=file, hint="remove it and build again")
    return found


@lru_cache(maxsize=2)  # for the other side of a comparison, which was made in the same way
def _parsed(text: str) -> SavedCommand | None:
    target = command = source = None
    dependencies: list[str] = []
    for line in text.replace("\\\r\n", " ").replace("\\\n", " ").split("\n"):
        match = _ASSIGNMENT.match(line)
        if match is None:
            continue
        kind, name, value = match.groups()
        if kind in ("savedcmd", "cmd"):
            if target is None:
                target, command = name, _unescaped(value.strip())
        elif name != target:
            continue
        elif kind == "source":
            source = value.strip() or None
        else:
            # $(wildcard): what fixdep found to be mentioned of the configuration, and objtool itself.
            dependencies += _WILDCARD.sub(" ", value).split()
    if target is None or command is None:
        return None
    return SavedCommand(target, command, source, tuple(dependencies))


def read_saved_command(path: str | os.PathLike[str]) -> SavedCommand | None:
    """Read a ``.cmd`` file; None if there is none (an object that was copied in).

    Raises BadTreeError for garbage.
    """
    text = _text_of(path)
    return None if text is None else parse_saved_command(text, file=path)


def read_link_command(path: str | os.PathLike[str]) -> str | None:
    """Read from a ``.cmd`` file how objects were linked or archived; None where it has a source, or there is none.

    Raises BadTreeError for garbage. Dependencies are not looked at: vmlinux.o is of a thousand objects that have
    hundreds each.
    """
    text = _text_of(path)
    if text is None or _SOURCE in text:
        return None
    return parse_saved_command(text, file=path).command


def _text_of(path: str | os.PathLike[str]) -> str | None:
    """Return what is in a ``.cmd`` file, None if there is none; raises BadTreeError."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise BadTreeError(f"cannot be read ({error})", file=path) from error


def _unescaped(command: str) -> str:
    """Undo make-cmd of scripts/Kbuild.include: it keeps ``$`` and ``#`` from make."""
    return command.replace("$(pound)", "#").replace("$$", "$")
