# SPDX-License-Identifier: GPL-2.0-only
"""Put the include points into a kernel source tree, take them out again, or show them as a patch.

Each works out first what every file is to become, and refuses before anything is written. Files are replaced
whole, with their mode and owner; what was written is taken back when a later file cannot be.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kbuild_klp.errors import BadTreeError, KlpError, ProgramError
from kbuild_klp.kbuild import blocks
from kbuild_klp.processes import run

_NEW_FILE_MODE = 0o644


@dataclass(frozen=True)
class Edit:
    """What one file is to become. ``None`` is no file."""

    path: Path
    old: bytes | None
    new: bytes | None


def source_tree(tree: str | os.PathLike[str]) -> Path:
    """The kernel source tree at ``tree``, as an absolute path; raises BadTreeError when it is none."""
    path = Path(os.path.realpath(tree))
    if not path.is_dir():
        what = "is not a directory" if path.exists() else "does not exist"
        raise BadTreeError(what, file=tree, hint="give a kernel source tree")
    if not (path / "scripts" / "Kbuild.include").is_file():
        source = path / "source"
        hint = "give the directory that holds the kernel's top Makefile"
        if source.is_symlink() and (source / "scripts" / "Kbuild.include").is_file():
            hint = f"this is a build directory; give {source.resolve()}"
        raise BadTreeError("is not a kernel source tree", file=tree, place="scripts/Kbuild.include", hint=hint)
    return path


def read_file(path: Path) -> bytes | None:
    """The content of a regular file, ``None`` if there is none.

    Raises:
        BadTreeError: a symbolic link, which may lead into another tree, or an unreadable file.
    """
    if path.is_symlink():
        raise BadTreeError("is a symbolic link", file=path, hint="give the tree that it leads to")
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BadTreeError(error.strerror or str(error), file=path) from error


def own_command() -> str:
    """A shell command without spaces in its words that runs this very kbuild-klp from anywhere."""
    package = Path(__file__).resolve().parents[2]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    probe = [sys.executable, "-c", "import kbuild_klp as k; print(k.__path__[0])"]
    command = f"{sys.executable} -m kbuild_klp"
    try:
        found = Path(run(probe, cwd="/", environment=environment).strip())
    except ProgramError:  # it knows of no kbuild_klp
        found = Path()
    return command if found.resolve() == package / "kbuild_klp" else f"PYTHONPATH={package} {command}"


def _blocks_put_in(tree: Path, command: str | None) -> Iterator[tuple[bytes, Edit]]:
    """Yield for each file with an include point what it is without our block, and the edit that puts the block in.

    A block without a command, from a patch that the tree carries, is as good as one with.
    """
    plain = blocks.makefile_block(None)
    for point, block in (
        (blocks.TOP_MAKEFILE, blocks.makefile_block(command)),
        (blocks.KCONFIG, blocks.kconfig_block()),
    ):
        path = tree / point.path
        content = read_file(path)
        if content is None:
            raise BadTreeError("no such file", file=path, hint="is this a complete kernel source tree?")
        found = blocks.find_block(path, content)
        rest = found.rest if found else content
        new = plain if found and found.block == plain else block
        yield rest, Edit(path, content, blocks.insert_block(path, rest, point, new))


def plan_install(tree: Path, command: str | None) -> list[Edit]:
    """The edits that put our blocks and Makefile.klp into the source tree ``tree``; none if all is in place.

    Raises BadTreeError.
    """
    edits = [edit for _, edit in _blocks_put_in(tree, command)]
    copy = tree / blocks.MAKEFILE_COPY
    content = read_file(copy)
    if content is not None and not blocks.is_makefile_copy(content):
        raise BadTreeError("is there already and is not ours", file=copy, hint="move it away")
    # First, so that no moment has an include point without what it includes.
    edits.insert(0, Edit(copy, content, blocks.makefile_copy()))
    return [edit for edit in edits if edit.old != edit.new]


def plan_uninstall(tree: Path) -> list[Edit]:
    """The edits that take all of ours out of ``tree``, whatever version put it there; raises BadTreeError."""
    edits = []
    for point in (blocks.TOP_MAKEFILE, blocks.KCONFIG):
        path = tree / point.path
        content = read_file(path)
        found = blocks.find_block(path, content) if content is not None else None
        if found:
            edits.append(Edit(path, content, found.rest))
    copy = tree / blocks.MAKEFILE_COPY
    content = read_file(copy)
    if content is not None and blocks.is_makefile_copy(content):
        edits.append(Edit(copy, content, None))
    return edits


def plan_patch(tree: Path) -> list[Edit]:
    """The edits that install into ``tree`` as it would be without us, naming no path of this machine."""
    edits = [Edit(edit.path, rest, edit.new) for rest, edit in _blocks_put_in(tree, None)]
    return [*edits, Edit(tree / blocks.MAKEFILE_COPY, None, blocks.makefile_copy())]


def apply_edits(edits: Sequence[Edit]) -> None:
    """Do all of ``edits`` or none.

    Raises:
        KlpError: a file cannot be written; those before it are as they were.
    """
    for edit in edits:
        if not os.access(edit.path.parent, os.W_OK | os.X_OK):
            raise KlpError("no permission to write here", file=edit.path.parent, hint="nothing was changed")
    done: list[Edit] = []
    for edit in edits:
        try:
            _write(edit.path, edit.new)
        except OSError as error:
            for earlier in reversed(done):
                with contextlib.suppress(OSError):
                    _write(earlier.path, earlier.old)
            what = error.strerror or str(error)
            raise KlpError(what, file=edit.path, hint="nothing was changed") from error
        done.append(edit)


def _write(path: Path, content: bytes | None) -> None:
    """Replace, create or remove a file."""
    if content is None:
        path.unlink(missing_ok=True)
        return
    descriptor, name = tempfile.mkstemp(prefix=".kbuild-klp.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            try:
                status = path.stat()
            except FileNotFoundError:
                status = path.parent.stat()
                mode = _NEW_FILE_MODE
            else:
                mode = status.st_mode & 0o7777
            # Somebody else's tree, edited by root, stays theirs.
            with contextlib.suppress(PermissionError):
                os.fchown(descriptor, status.st_uid, status.st_gid)
            os.fchmod(descriptor, mode)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
