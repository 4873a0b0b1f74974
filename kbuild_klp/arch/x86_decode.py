# SPDX-License-Identifier: GPL-2.0-only
"""Where x86-64 instructions begin and end, and where their PC-relative fields lie.

A decoder that walks from one instruction to the next cannot be vectorised, because each step needs the one
before. So the length is computed for *every* byte offset, as if an instruction began there, and a walk then
is one table look-up a step. The opcode and the byte behind it decide almost everything, and these 16 bits
index a table (x86_opcodes). What they leave open is mended in order, each step using the ones before it at
higher offsets:

    SIB with base 5     four bytes of displacement more
    escapes             0F, VEX, EVEX, XOP: look up again where the opcode is. One offset in twenty
    REX                 one byte, then what is at the next offset; REX.W widens mov's immediate
    legacy prefixes     a run of them, then what is behind it; 66 and 67 narrow some immediates. One in fifty

A length is right when there is an instruction; it does not say that a processor would take it (a LOCK that
is not allowed there, a reserved register). Like Intel's processors and unlike AMD's, 66 does not shorten
near branches.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kbuild_klp.arch.registry import PcRelativeFields
from kbuild_klp.arch.x86_opcodes import (
    GROWS_W,
    IS_ESCAPE,
    IS_PREFIX,
    LENGTH,
    NO_REX,
    SHRINKS_66,
    SIB,
    FieldKind,
    Tables,
    tables,
)

MAX_LENGTH = 15
# Offsets decoded at a time: the scratch arrays stay in the second-level cache.
_CHUNK = 1 << 17
# Offsets decoded beyond a chunk, because a prefix inside it may belong to an opcode behind it.
_AHEAD = MAX_LENGTH + 1
# Bytes read beyond the last offset decoded: EVEX, opcode, ModRM, SIB.
_PEEK = 8


def instruction_lengths(code: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return, for every byte offset of ``code``, the length of the instruction that would begin there.

    The length is 1 to 15 bytes; 0 where none begins: not an opcode in 64-bit mode, longer than 15 bytes, or
    cut off by the end of ``code``.
    """
    size = len(code)
    result = np.empty(size, np.uint8)
    for start in range(0, size, _CHUNK):
        end = min(start + _CHUNK, size)
        piece = code[start : end + _AHEAD + _PEEK]
        missing = end - start + _AHEAD + _PEEK - len(piece)
        if missing:
            piece = np.concatenate([piece, np.zeros(missing, np.uint8)])
        result[start:end] = _lengths(piece)[: end - start]
    tail = result[-MAX_LENGTH:]
    tail[tail > np.arange(len(tail), 0, -1, dtype=np.uint8)] = 0
    return result


def _lengths(code: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Lengths at all offsets of ``code`` but the last _PEEK; right except in the last _AHEAD of those."""
    table = tables()
    pairs = np.ndarray(len(code) - 1, np.dtype("<u2"), code, strides=(1,)).astype(np.intp)
    length = np.take(table.lengths, pairs[: len(code) - _PEEK], mode="clip")
    size = len(length)

    longer = _is(code[2 : size + 2], 0x07, 0x05)
    longer &= (length & SIB) >> np.uint8(2)  # SIB is 0x10, and 4 is what it adds
    length += longer
    length &= 0xFF - SIB

    special = (length & LENGTH == 0).nonzero()[0]
    kind = length[special]
    escapes, prefixes = special[kind == IS_ESCAPE], special[kind == IS_PREFIX]
    length[escapes] = _escaped(code, pairs, escapes, table)
    _add_rex(length, code)
    length[prefixes] = _prefixed(length, code, prefixes, table)
    length &= LENGTH
    return length


def _is(code: NDArray[np.uint8], mask: int, value: int) -> NDArray[np.uint8]:
    """0xFF where the masked byte has the value, else 0."""
    equal: NDArray[np.uint8] = np.equal(code & np.uint8(mask), value).view(np.uint8)
    np.negative(equal, out=equal)
    return equal


def _escaped(
    code: NDArray[np.uint8], pairs: NDArray[np.intp], at: NDArray[np.intp], table: Tables
) -> NDArray[np.uint8]:
    """Entries (length and flags, see x86_opcodes) of the instructions that begin with an escape at ``at``."""
    escape = table.escapes[pairs[at]]
    before = escape >> 4
    opcode = at + before
    entry: NDArray[np.uint8] = table.lengths[pairs[opcode] | (escape & 0x0F).astype(np.intp) << 16]
    entry += (entry & SIB) >> 2 & _is(code[opcode + 2], 0x07, 0x05)
    entry = table.resolved[entry]
    entry += before & _is(entry, LENGTH, 0) ^ before
    evex = (before == 4).nonzero()[0]
    entry[evex[code[at[evex] + 2] & 0x04 == 0]] = 0
    entry[escape == 0] = 0
    return entry


def _add_rex(length: NDArray[np.uint8], code: NDArray[np.uint8]) -> None:
    """Fill in, in place, the entries where a REX prefix is directly before an opcode."""
    size = len(length) - 1
    wide = _is(code[:size], 0xF8, 0x48)
    entry = length[1:] + np.uint8(1)
    grown = length[1:] >> 4  # GROWS_W is 0x40, and 4 is what it adds
    grown &= wide
    grown &= GROWS_W >> 4
    entry += grown
    wide &= SHRINKS_66
    entry &= ~wide
    entry &= _is(code[:size], 0xF0, 0x40)
    entry &= ~_is(length[1:], LENGTH, 0)
    entry &= ~_is(length[1:], NO_REX, NO_REX)
    length[:-1] |= entry


def _prefixed(
    length: NDArray[np.uint8], code: NDArray[np.uint8], at: NDArray[np.intp], table: Tables
) -> NDArray[np.uint8]:
    """Entries of the instructions that begin with a legacy prefix, of which ``at`` has all, in order."""
    if not at.size:
        return np.zeros(0, np.uint8)
    last = np.flatnonzero(np.diff(at, append=at[-1] + 2) != 1)  # of each run of prefixes, as an index of at
    last = np.repeat(last, np.diff(last, prepend=-1))
    opcode = np.minimum(at[last] + 1, len(length) - 1)
    byte = code[at]
    # Three counters in one number, counting up to each prefix.
    count = (byte == 0x66) + ((byte == 0x67) * (1 << 20)) + ((byte >= 0xF0) * (1 << 40))
    total = np.cumsum(count)
    count += total[last] - total
    present = (count & 0xFFFFF != 0) * 1 + (count & 0xFFFFF << 20 != 0) * 2 + (count >> 40 != 0) * 4
    entry = length[opcode]
    sized = (entry & LENGTH) + table.prefixed[(entry >> 4 << 3).astype(np.intp) | present] + (opcode - at)
    sized[(entry & LENGTH == 0) | (sized < 0) | (sized > MAX_LENGTH)] = 0
    result: NDArray[np.uint8] = sized.astype(np.uint8)
    return result


WIDTHS = (1, 2, 4)
"""Bytes of a displacement; 2 is that of xbegin with 66. A field's index in this is its form."""
_FORM_OF_WIDTH = np.array([0, 0, 1, 0, 2], np.uint8)


def relative_fields(code: NDArray[np.uint8], length: NDArray[np.uint8], starts: NDArray[np.int64]) -> PcRelativeFields:
    """Find the PC-relative field of each instruction that has one: direct branches, RIP-relative operands.

    ``length`` is from instruction_lengths over the same ``code``; ``starts`` are offsets of instructions
    in it. Instructions without such a field are absent, so are offsets where no instruction begins.
    """
    table = tables()
    first, end = (int(starts[0]), int(starts[-1]) + _AHEAD) if len(starts) else (0, 0)
    pairs = pairs_of(code[first:end])
    at = np.array(starts, np.intp) - first
    kind = behind_prefixes(pairs, at, table.fields, FieldKind.PREFIX)
    escaped = (kind == FieldKind.ESCAPE).nonzero()[0]
    escape = table.escapes[pairs.take(at[escaped], mode="clip")].astype(np.intp)
    at[escaped] += escape >> 4
    kind[escaped] = table.fields[pairs.take(at[escaped], mode="clip") | (escape & 0x0F) << 16]
    at += first

    size = length[starts]
    rows = ((kind != FieldKind.NONE) & (size != 0)).nonzero()[0]
    kind = kind[rows]
    field = at[rows] + np.where(kind == FieldKind.BRANCH, 1, 2)
    end = np.asarray(starts, np.int64)[rows] + size[rows]
    is_branch = kind != FieldKind.MEMORY
    form = _FORM_OF_WIDTH[np.where(is_branch, end - field, 4)]
    return PcRelativeFields(field, form, end, is_branch)


def pairs_of(code: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """The byte at each offset and the one behind it (behind the last, that again), as a little-endian number."""
    pairs = np.empty(len(code), np.uint16)
    if len(code):
        pairs[:-1] = np.ndarray(len(code) - 1, np.dtype("<u2"), np.ascontiguousarray(code), strides=(1,))
        pairs[-1] = int(code[-1]) * 0x101
    return pairs


def behind_prefixes(
    pairs: NDArray[np.uint16], at: NDArray[np.intp], table: NDArray[np.uint8], prefix: int
) -> NDArray[np.uint8]:
    """Move the places ``at`` of instructions behind their prefixes; returns what a table has for the opcodes there.

    ``pairs`` are the code as pairs_of() returns it; they index the table, which has ``prefix`` for a prefix.
    """
    found = table.take(pairs.take(at, mode="clip"))
    skipped = (found == prefix).nonzero()[0]
    while skipped.size:
        at[skipped] += 1
        found[skipped] = again = table.take(pairs.take(at[skipped], mode="clip"))
        skipped = skipped[(again == prefix) & (at[skipped] < len(pairs))]
    return found
