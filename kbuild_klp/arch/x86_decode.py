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

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

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
# With fewer ranges than this, walking them singly is faster.
_FEW_RANGES = 100


def instruction_lengths(code: NDArray[np.uint8]) -> bytes:
    """Return, for every byte offset of ``code``, the length of the instruction that would begin there.

    The length is 1 to 15 bytes; 0 where none begins: not an opcode in 64-bit mode, longer than 15 bytes, or
    cut off by the end of ``code``. Bytes and not an array, because indexing them from Python is three times
    as fast.
    """
    size = len(code)
    padded = np.zeros(size + _AHEAD + _PEEK, np.uint8)
    padded[:size] = code
    result = np.empty(size, np.uint8)
    for start in range(0, size, _CHUNK):
        end = min(start + _CHUNK, size)
        result[start:end] = _lengths(padded[start : end + _AHEAD + _PEEK])[: end - start]
    tail = result[-MAX_LENGTH:]
    tail[tail > np.arange(len(tail), 0, -1, dtype=np.uint8)] = 0
    return result.tobytes()


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


def instruction_starts(lengths: bytes, start: int, end: int) -> tuple[list[int], int]:
    """Return where instructions begin from ``start`` on, one after the other, and where that stopped.

    ``lengths`` is from instruction_lengths, ``start`` and ``end`` are offsets into it. When the second
    value is ``end``, the instructions fill the range exactly. Otherwise it is the first offset that is not
    understood: no instruction begins there or it reaches beyond ``end``; it is not in the list.
    """
    starts: list[int] = []
    append = starts.append
    at = start
    while at < end and (length := lengths[at]):
        append(at)
        at += length
    if at > end and starts:
        at = starts.pop()
    return starts, at


class Sweep(NamedTuple):
    """The instructions of many ranges."""

    starts: NDArray[np.int64]  # where instructions begin, ascending, each once
    stopped: NDArray[np.int64]  # for each range what instruction_starts returns as its second value


def sweep(lengths: bytes, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> Sweep:
    """Do instruction_starts for many ranges, one step in all of them at a time.

    ``starts[i]`` and ``ends[i]`` bound a range; ranges may overlap. For a whole kernel this is ten times as
    fast as one range after the other; when only long functions are left, they are walked singly.
    """
    length = np.frombuffer(lengths, np.uint8)
    begins = np.zeros(len(length), np.bool_)
    stopped = np.array(starts, np.int64)
    row = (stopped < ends).nonzero()[0]
    at, end = stopped[row], np.asarray(ends, np.int64)[row]
    while row.size > _FEW_RANGES:
        step = length[at]
        behind = at + step
        is_whole = behind <= end
        is_whole &= step != 0
        # Ranges may overlap: what is cut off in one may be an instruction in another.
        begins[at if is_whole.all() else at[is_whole]] = True
        goes_on = behind < end
        goes_on &= is_whole
        done = (~goes_on).nonzero()[0]
        if done.size:
            stopped[row[done]] = np.where(is_whole[done], behind[done], at[done])
            rest = goes_on.nonzero()[0]
            row, behind, end = row[rest], behind[rest], end[rest]
        at = behind
    for number, first, last in zip(row.tolist(), at.tolist(), end.tolist(), strict=True):
        found, stopped[number] = instruction_starts(lengths, first, last)
        begins[found] = True
    return Sweep(begins.nonzero()[0], stopped)


class RelativeFields(NamedTuple):
    """PC-relative fields of instructions, one row each, by ascending position in the argument ``starts``."""

    start: NDArray[np.int64]  # where the instruction begins
    field: NDArray[np.int64]  # where its displacement is
    width: NDArray[np.int64]  # bytes of displacement: 1 or 4 (2 for xbegin with 66)
    end: NDArray[np.int64]  # where the instruction ends, which the displacement counts from
    branch: NDArray[np.bool_]  # the target is where control goes; else it is a memory operand


def relative_fields(
    code: NDArray[np.uint8], lengths: bytes | NDArray[np.uint8], starts: NDArray[np.int64]
) -> RelativeFields:
    """Find the PC-relative field of each instruction that has one: direct branches, RIP-relative operands.

    ``lengths`` is from instruction_lengths over the same ``code``; ``starts`` are offsets of instructions
    in it. Instructions without such a field are absent, so are offsets where no instruction begins.
    """
    table = tables()
    at = np.array(starts, np.intp)
    pair = _pair(code, at)
    kind = table.fields[pair]
    skipped = (kind == FieldKind.PREFIX).nonzero()[0]
    while skipped.size:
        at[skipped] += 1
        pair[skipped] = again = _pair(code, at[skipped])
        kind[skipped] = found = table.fields[again]
        skipped = skipped[found == FieldKind.PREFIX]
    escaped = (kind == FieldKind.ESCAPE).nonzero()[0]
    escape = table.escapes[pair[escaped]].astype(np.intp)
    at[escaped] += escape >> 4
    kind[escaped] = table.fields[_pair(code, at[escaped]) | (escape & 0x0F) << 16]

    size = np.frombuffer(lengths, np.uint8)[starts]
    rows = ((kind != FieldKind.NONE) & (size != 0)).nonzero()[0]
    kind = kind[rows]
    start = np.asarray(starts, np.int64)[rows]
    field = at[rows] + np.where(kind == FieldKind.BRANCH, 1, 2)
    end = start + size[rows]
    branch = kind != FieldKind.MEMORY
    return RelativeFields(start, field, np.where(branch, end - field, 4), end, branch)


def _pair(code: NDArray[np.uint8], at: NDArray[np.intp]) -> NDArray[np.intp]:
    """The byte at each offset and the one behind it, as a little-endian number."""
    pair = code.take(at + 1, mode="clip").astype(np.intp)
    pair <<= 8
    pair |= code.take(at, mode="clip")
    return pair
