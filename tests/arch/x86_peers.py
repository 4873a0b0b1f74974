# SPDX-License-Identifier: GPL-2.0-only
"""The decoders that ours is compared with, and where they are known to differ."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import capstone

_PREFIX = rb"[\x26\x2e\x36\x3e\x64-\x67\xf0\xf2\xf3]"
_REX = rb"[\x40-\x4f]"
_FRONT = _PREFIX + rb"*" + _REX + rb"?"
_FRONT_66 = _PREFIX + rb"*\x66" + _FRONT
# What capstone (4.0.2 to 5.0.7) decodes and we do not, or with another length: the encoding and the reason.
CAPSTONE_DIFFERS = [
    # A processor ignores such a REX, objdump prints it as an instruction of its own. No assembler writes it.
    (_PREFIX + rb"*" + _REX + rb"(?:" + _PREFIX + rb"|" + _REX + rb")", "REX that is not next to the opcode"),
    # They raise #UD. capstone looks at some of them only.
    (
        _PREFIX + rb"*[\x66\xf0\xf2\xf3]" + _FRONT + rb"[\xc4\xc5\x62\x8f]",
        "66, F2, F3, LOCK before VEX or EVEX",
    ),
    # Intel and objdump have ModRM there (and GCC's WARN relies on it); capstone has two bytes.
    (_FRONT + rb"\x0f[\xb9\xff]", "ud0 and ud1"),
    # AMD takes a 16-bit displacement, Intel ignores 66. capstone 4 is with AMD; capstone 5 with Intel, but
    # with AMD for jo and jno; objdump with AMD unless told otherwise.
    (_FRONT_66 + rb"(?:[\xe8\xe9]|\x0f[\x80-\x8f])", "near branch with 66"),
    # AMD's SSE4a, with two immediates. capstone 4 takes any of these prefixes for vmread.
    (_PREFIX + rb"*[\x66\xf0\xf2\xf3]" + _FRONT + rb"\x0f\x78", "extrq, insertq"),
    # The immediate is always 16 bits; capstone reads 32 when there is 66 or 67 and REX.W.
    (_FRONT + rb"\xc2", "ret imm16 with REX.W"),
    # 66 makes it 16 bits; capstone 4 reads 32 when F2 is there too.
    (_PREFIX + rb"*\xf2" + _PREFIX + rb"*\x68", "push with 66 and F2"),
]
_CAPSTONE_DIFFERS = re.compile(b"|".join(b"(?:" + pattern + b")" for pattern, _ in CAPSTONE_DIFFERS), re.DOTALL)
_CAPSTONE = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)


def capstone_length(data: bytes) -> int | None:
    """Length of the first instruction, 0 when capstone knows none, None when it cannot be relied on."""
    if _CAPSTONE_DIFFERS.match(data):
        return None
    return next((size for _, size, *_ in _CAPSTONE.disasm_lite(data[:15], 0, 1)), 0)


_OBJDUMP_LINE = re.compile(r"\s*([0-9a-f]+):\t((?:[0-9a-f]{2} )+)\s*(.*)")


def objdump(path: Path, sections: list[str]) -> dict[str, dict[int, tuple[int, str]]]:
    """Section name to offset to length and text of each instruction."""
    only = [f"--section={name}" for name in sections]
    listing = subprocess.run(["objdump", "-dzw", *only, path], capture_output=True, text=True, check=True).stdout
    result: dict[str, dict[int, tuple[int, str]]] = {}
    for line in listing.splitlines():
        if line.startswith("Disassembly of section "):
            current = result.setdefault(line.removeprefix("Disassembly of section ").rstrip(":"), {})
        elif match := _OBJDUMP_LINE.match(line):
            current[int(match[1], 16)] = (len(match[2].split()), match[3].strip())
    return result
