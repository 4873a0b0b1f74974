# SPDX-License-Identifier: GPL-2.0-only
"""The values of immediate operands. In instructions of fixed size their bits may lie in several pieces."""

from __future__ import annotations

from kbuild_klp.arch.registry import Architecture
from kbuild_klp.lines.proof import Readings


def differing_immediates(arch: Architecture, old: bytes, new: bytes) -> Readings:
    """Return what the immediate operands of two instructions may be, nothing if these differ in anything else."""
    mask = arch.immediate(new)
    was, is_ = (int.from_bytes(instruction, arch.byteorder) for instruction in (old, new))
    is_alone = mask and len(old) == len(new) and mask == arch.immediate(old) and was & ~mask == is_ & ~mask
    return immediate_values(was, is_, mask) if is_alone else ()


def immediate_values(was: int, is_: int, mask: int) -> Readings:
    """Return what the bits of ``mask`` in two instructions may be: with a sign, and without one."""
    signed = signed_immediate(was, mask), signed_immediate(is_, mask)
    return tuple(dict.fromkeys((signed, (_gathered(was, mask), _gathered(is_, mask)))))


def signed_immediate(instruction: int, mask: int) -> int:
    """Return the bits of ``mask`` in an instruction as a signed number."""
    value, sign = _gathered(instruction, mask), 1 << mask.bit_count() >> 1
    return value - 2 * sign if value & sign else value


def _gathered(instruction: int, mask: int) -> int:
    """Return the bits of ``mask`` in an instruction as one unsigned number."""
    value = at = 0
    for bit in range(mask.bit_length()):
        if mask >> bit & 1:
            value |= (instruction >> bit & 1) << at
            at += 1
    return value
