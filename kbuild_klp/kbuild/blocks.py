# SPDX-License-Identifier: GPL-2.0-only
"""Our marked blocks in a kernel's files: what they say, where they go, and how they come out again.

A block is whole lines, put right before one line of the kernel's, between two marker lines. So taking the
block out again gives back the very bytes of before, whatever else was edited meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kbuild_klp.errors import BadTreeError

BLOCK_VERSION = 1
_BEGIN = b"# kbuild-klp begin"
_END = b"# kbuild-klp end"
_DATA = Path(__file__).parent

MAKEFILE_COPY = "scripts/Makefile.klp"
_COPY_MARK = b"# kbuild-klp: checksums of every function"


@dataclass(frozen=True)
class IncludePoint:
    """A place for a block in a kernel's file."""

    path: str  # below the source tree
    anchor: bytes  # the line that the block goes before
    required: tuple[bytes, ...]  # further lines without which the block would not do what it says


# The kernel's top Makefile decides here whether a second make does the work, in 5.3 and all later versions
# (inside `ifneq ($(sub_make_done),1)` at first, in 6.12 after it). Makefile.klp hooks into the two rules.
TOP_MAKEFILE = IncludePoint(
    "Makefile",
    b"ifeq ($(need-sub-make),1)",
    (b"export sub_make_done := 1", b"__all:", b"__sub-make:"),
)
# Read by every architecture, unlike kernel/livepatch/Kconfig; this line stands in 5.4 and all later versions.
KCONFIG = IncludePoint("lib/Kconfig.debug", b'endmenu # "Compiler options"', ())


def makefile_copy() -> bytes:
    """The content of ``scripts/Makefile.klp``."""
    return (_DATA / "Makefile.klp").read_bytes()


def is_makefile_copy(content: bytes) -> bool:
    """Whether a file is a copy, of any version, of our Makefile.klp."""
    return any(line.startswith(_COPY_MARK) for line in content.split(b"\n", 8)[:8])


def _block(lines: list[bytes]) -> bytes:
    begin = b"%s %d (removed by: kbuild-klp uninstall)" % (_BEGIN, BLOCK_VERSION)
    return b"\n".join([begin, *lines, _END, b""])


def makefile_block(command: str | None) -> bytes:
    """The block of the top Makefile; ``command`` runs kbuild-klp, ``None`` leaves that to Makefile.klp.

    ``-include``, because a build must not fail when our file has gone.
    """
    lines = [] if command is None else [b"KBUILD_KLP ?= " + command.encode()]
    return _block([*lines, b"-include $(abs_srctree)/" + MAKEFILE_COPY.encode()])


def kconfig_block() -> bytes:
    """The block of the Kconfig file: the entry of Kconfig.fragment, without its own head."""
    text = (_DATA / "Kconfig.fragment").read_bytes()
    return _block([b"", *text[text.index(b"config KLP_CHECKSUMS") :].rstrip(b"\n").split(b"\n"), b""])


@dataclass(frozen=True)
class Found:
    """A block found in a file: its bytes, and the file without it."""

    block: bytes
    rest: bytes


def find_block(path: Path, content: bytes) -> Found | None:
    """Our block in ``content``, or ``None``.

    Raises:
        BadTreeError: the markers do not pair up, so that nobody can tell what is ours; it names ``path``.
    """
    lines = content.splitlines(keepends=True)
    begins = [number for number, line in enumerate(lines) if line.startswith(_BEGIN)]
    ends = [number for number, line in enumerate(lines) if line.rstrip() == _END]
    if not begins and not ends:
        return None
    if len(begins) != 1 or len(ends) != 1 or ends[0] < begins[0]:
        number = (begins + ends)[0] if len(begins) != 1 or not ends else ends[0]
        raise BadTreeError(
            f"expected one '{_BEGIN.decode()}' and one '{_END.decode()}' after it",
            file=path,
            place=f"line {number + 1}",
            hint="remove what is left of the block by hand",
        )
    begin, end = begins[0], ends[0] + 1
    return Found(b"".join(lines[begin:end]), b"".join(lines[:begin] + lines[end:]))


def insert_block(path: Path, content: bytes, point: IncludePoint, block: bytes) -> bytes:
    """``content`` (which holds no block) with ``block`` before the anchor line.

    Raises:
        BadTreeError: the anchor is not there once, or a required line is not there.
    """
    lines = content.splitlines(keepends=True)
    stripped = [line.rstrip() for line in lines]
    hint = "this file is not like that of any kernel from 5.10 to 7.x, so nothing was changed"
    for required in point.required:
        if not any(line.startswith(required) for line in stripped):
            raise BadTreeError(f"no line '{required.decode()}'", file=path, hint=hint)
    places = [number for number, line in enumerate(stripped) if line == point.anchor]
    if len(places) != 1:
        count = "no line" if not places else f"{len(places)} lines"
        raise BadTreeError(f"{count} '{point.anchor.decode()}'", file=path, hint=hint)
    if lines[places[0]].endswith(b"\r\n"):
        raise BadTreeError("lines end in CR LF", file=path, hint="make cannot read such a file either")
    return b"".join([*lines[: places[0]], block, *lines[places[0] :]])
