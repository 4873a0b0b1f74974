# SPDX-License-Identifier: GPL-2.0-only
"""The compiler and the linker with which a tree was built."""

from __future__ import annotations

import shlex
from contextlib import suppress
from pathlib import Path

from kbuild_klp.errors import BadTreeError, ProgramError
from kbuild_klp.kernel.cmdfile import cmd_path, read_saved_command
from kbuild_klp.kernel.tree import BuildTree
from kbuild_klp.processes import run


def tool_variables(tree: BuildTree, kernel: Path) -> list[str]:
    """Return what make has to be told of them, CC=… and LD=…; raises BadTreeError when the compiler cannot be told.

    They stand first in the saved commands: of an object, and of vmlinux.o, or any archive's or object's link. Where
    these are gone, the configuration says what the compiler called itself (CC_VERSION_TEXT, init/Kconfig).
    """
    compiler = _first_words(kernel, "init/main.o") or _by_version(tree, kernel)
    linker = _first_words(kernel, "vmlinux.o") or ("ld.lld" if tree.setting("LD_IS_LLD") == "y" else "")
    return [f"CC={compiler}", *([f"LD={linker}"] if linker else [])]


def _first_words(kernel: Path, target: str) -> str:
    """Return the program of a saved command, and what is before its options; empty where there is none."""
    saved = read_saved_command(str(kernel / cmd_path(target)))
    words = shlex.split(saved.command.partition(";")[0]) if saved else []
    options = next((at for at, word in enumerate(words) if word.startswith("-")), 0)
    return shlex.join(words[:options])


def _by_version(tree: BuildTree, kernel: Path) -> str:
    """Return a compiler that calls itself what the configuration says."""
    text = (tree.setting("CC_VERSION_TEXT") or "").strip('"')
    for name in _names(text):
        with suppress(ProgramError):
            if run([name, "--version"]).partition("\n")[0] == text:
                return name
    what = f"no compiler here calls itself {text!r}" if text else "the configuration does not say either"
    raise BadTreeError(
        f"init/.main.o.cmd does not say which compiler it was built with, and {what}",
        file=kernel,
        hint="install that compiler, or run `make vmlinux` there",
    )


def _names(text: str) -> list[str]:
    """Return what a compiler may be called: as in ``text``, the first line of what it prints, or with its version."""
    words = text.split()
    if not words:
        return []
    kind, version = words[0], words[-1]
    if "clang" in words:
        kind, version = "clang", (text.partition("version ")[2].split() or [""])[0]
    return [kind, f"{kind}-{version.partition('.')[0]}"]
