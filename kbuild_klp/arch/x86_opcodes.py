# SPDX-License-Identifier: GPL-2.0-only
"""The x86-64 opcode maps as tables: how long an instruction is, and which of its fields are PC-relative.

A map is sixteen rows of sixteen letters, one letter an opcode, as the manuals print it (Intel SDM volume 2,
appendix A; AMD APM volume 3, appendix A; the EVEX, XOP and MAP7 formats from the same volumes). From the
letters two kinds of tables are made, both indexed by map, the byte after the opcode and the opcode itself
(the last two as one little-endian 16-bit number, because that is how they are read): lengths and
PC-relative fields.

Where the format of a whole map is laid down (0F 38, 0F 3A and everything behind VEX, EVEX or XOP except map
1), every opcode of it is taken as an instruction. A processor that does not have it raises #UD; a kernel
that is newer than this table still decodes.
"""

from __future__ import annotations

import enum
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# The letters:
#   1  opcode alone                        j  rel8                         r  rel32, always
#   b  imm8                                M  ModRM                        C  ModRM, always a register
#   w  imm16                               B  ModRM, imm8                  Z  ModRM, imm32 (imm16 with 66)
#   z  imm32 (imm16 with 66)               L  ModRM, imm32                 F  ModRM, imm8 if reg is 0 or 1
#   v  imm32 (16 with 66, 64 with REX.W)   e  imm16 and imm8 (enter)       G  ModRM, imm32/16 if reg is 0 or 1
#   o  64-bit offset (32 with 67)          p  legacy prefix                V  ModRM; another form with 66, F2
#   X  escape to another map               x  REX prefix                   .  not an instruction
_ONE_BYTE = """
    MMMMbz..MMMMbz.X
    MMMMbz..MMMMbz..
    MMMMbzp.MMMMbzp.
    MMMMbzp.MMMMbzp.
    xxxxxxxxxxxxxxxx
    1111111111111111
    ..XMppppzZbB1111
    jjjjjjjjjjjjjjjj
    BZ.BMMMMMMMMMMMM
    1111111111.11111
    oooo1111bz111111
    bbbbbbbbvvvvvvvv
    BBw1XXBZe1w11b.1
    MMMM..11MMMMMMMM
    jjjjbbbbrr.j1111
    p1pp11FG111111MM
"""
_TWO_BYTE = """
    MMMM.11111.1.M1B
    MMMMMMMMMMMMMMMM
    CCCC....MMMMMMMM
    111111.1X.X.....
    MMMMMMMMMMMMMMMM
    MMMMMMMMMMMMMMMM
    MMMMMMMMMMMMMMMM
    BBBBMMM1VM..MMMM
    rrrrrrrrrrrrrrrr
    MMMMMMMMMMMMMMMM
    111MBMMM111MBMMM
    MMMMMMMMMMBMMMMM
    MMBMBBBM11111111
    MMMMMMMMMMMMMMMM
    MMMMMMMMMMMMMMMM
    MMMMMMMMMMMMMMMM
"""
_VEX_TWO_BYTE = """
    ................
    MMMMMMMM........
    ........MMMMMMMM
    ................
    .MM.MMMM..MM....
    MMMMMMMMMMMMMMMM
    MMMMMMMMMMMMMMMM
    BBBBMMM1MMMMMMMM
    ................
    MMMM....MM......
    ..............M.
    ................
    ..B.BBB.........
    MMMMMMMMMMMMMMMM
    MMMMMMMMMMMMMMMM
    MMMMMMMMMMMMMMM.
"""


class Map(enum.IntEnum):
    """An opcode map, by the format it gives its instructions."""

    ONE_BYTE = 0
    TWO_BYTE = 1  # 0F
    MODRM = 2  # 0F 38
    MODRM_IMM8 = 3  # 0F 3A
    VEX_TWO_BYTE = 4  # VEX and EVEX map 1
    VEX_MODRM = 5  # VEX and EVEX map 2, EVEX maps 5 and 6, XOP map 9
    VEX_MODRM_IMM8 = 6  # VEX and EVEX map 3, XOP map 8
    VEX_MODRM_IMM32 = 7  # VEX and EVEX map 7, XOP map A


class FieldKind(enum.IntEnum):
    """Which PC-relative field an opcode has, and what has to be skipped to reach the opcode."""

    NONE = 0
    BRANCH = 1  # displacement right after the opcode, up to the end of the instruction
    BRANCH_MODRM = 2  # displacement after opcode and ModRM (xbegin)
    MEMORY = 3  # disp32 after opcode and ModRM
    PREFIX = 4  # the byte is a legacy prefix or REX
    ESCAPE = 5  # the byte begins an escape to another map


# An entry of a length table: length from opcode to end in the low four bits (0: no instruction), and
LENGTH = 0x0F
SIB = 0x10  # ModRM is followed by SIB with mod 0: four more bytes when SIB's base is 5
SHRINKS_66 = 0x20  # two bytes less with 66, unless REX.W
GROWS_W = 0x40  # four bytes more with REX.W
SHRINKS_67 = 0x80  # four bytes less with 67
# After SIB is resolved, its bit means that 66, F2, F3 and LOCK make it something else; NO_REX: and REX too.
NO_66_F2_F3 = 0x10
NO_REX = 0x90
# In the tables these two are written as flags that no instruction has together.
_RAW_NO_66_F2_F3 = SHRINKS_66 | SHRINKS_67
_RAW_NO_REX = GROWS_W | SHRINKS_67
# Length 0 and a flag: not an opcode but
IS_PREFIX = 0x20
IS_ESCAPE = 0x40

# Bytes after opcode, ModRM and address.
_IMMEDIATE = {"b": 1, "B": 1, "w": 2, "z": 4, "Z": 4, "L": 4, "e": 3, "v": 4, "o": 8, "j": 1, "r": 4, "C": 1}
_FLAGS = {"z": SHRINKS_66, "Z": SHRINKS_66, "v": SHRINKS_66 | GROWS_W, "o": SHRINKS_67, "V": _RAW_NO_66_F2_F3}
_SPECIAL = {"p": IS_PREFIX, "X": IS_ESCAPE, "x": 0, ".": 0}
_WITH_MODRM = "MBZLFGV"  # and C, but that is never an address


class Tables(NamedTuple):
    """Everything the decoder looks up; unsigned bytes but for one."""

    lengths: NDArray[np.uint8]  # [map << 16 | next byte << 8 | opcode]
    fields: NDArray[np.uint8]  # the same index; values of FieldKind
    escapes: NDArray[np.uint8]  # [second byte << 8 | first byte]: map | bytes before the opcode << 4; 0: none
    resolved: NDArray[np.uint8]  # [entry of lengths]: the same with SIB gone and the raw flags made final
    prefixed: NDArray[np.int8]  # [flags >> 4 << 3 | prefixes]: bytes to add; below -16: no instruction


@cache
def tables() -> Tables:
    """Make the tables, once: two milliseconds and a megabyte."""
    lengths = np.empty((len(Map), 256, 256), np.uint8)
    fields = np.empty((len(Map), 256, 256), np.uint8)
    for number, letters in zip(Map, _letters(), strict=True):
        _fill_lengths(lengths[number], number, letters)
        _fill_fields(fields[number], number, letters)
    return Tables(lengths.reshape(-1), fields.reshape(-1), _escapes(), _resolved(), _prefixed())


def _letters() -> list[str]:
    def of(rows: str) -> str:
        return "".join(rows.split())

    vex = of(_VEX_TWO_BYTE)
    return [of(_ONE_BYTE), of(_TWO_BYTE), "M" * 256, "B" * 256, vex, "M" * 256, "B" * 256, "L" * 256]


def _modrm() -> NDArray[np.uint8]:
    """For each ModRM byte, the length of itself, SIB and displacement, with SIB where more may follow."""
    byte = np.arange(256)
    mod, rm = byte >> 6, byte & 7
    size = np.ones(256, np.uint8)
    size += (mod != 3) & (rm == 4)
    size += (mod == 1).astype(np.uint8)
    size += np.where((mod == 2) | ((mod == 0) & (rm == 5)), 4, 0).astype(np.uint8)
    size[(mod == 0) & (rm == 4)] |= SIB
    return size


def _fill_lengths(table: NDArray[np.uint8], number: Map, letters: str) -> None:
    by_letter = {x: (1 + _IMMEDIATE.get(x, 0)) | _FLAGS.get(x, 0) for x in set(letters)} | _SPECIAL
    constant = np.array([by_letter[x] for x in letters], np.uint8)
    if number >= Map.VEX_TWO_BYTE:
        constant |= np.where(constant, _RAW_NO_REX, 0).astype(np.uint8)
    np.multiply(_modrm()[:, None], np.array([x in _WITH_MODRM for x in letters], np.uint8), out=table)
    table += constant
    if number is Map.ONE_BYTE:
        _refine_one_byte(table)


def _refine_one_byte(table: NDArray[np.uint8]) -> None:
    """Apply what depends on ModRM beyond its size: groups, forms that only memory or a register has."""
    byte = np.arange(256)
    mod, reg = byte >> 6, (byte >> 3) & 7
    table[reg < 2, 0xF6] += 1  # test r/m8, imm8; /1 is an alias that no assembler writes
    table[reg < 2, 0xF7] += 4 | SHRINKS_66
    table[mod == 3, 0x8D] = 0  # lea needs memory
    table[reg > 5, 0x8C] = table[reg > 5, 0x8E] = 0  # there are six segment registers
    table[(reg != 0) & (byte != 0xF8), 0xC6] = 0  # F8: xabort
    table[(reg != 0) & (byte != 0xF8), 0xC7] = 0  # F8: xbegin
    table[reg > 1, 0xFE] = 0
    table[(reg == 7) | ((mod == 3) & ((reg == 3) | (reg == 5))), 0xFF] = 0
    table[reg != 0, 0x8F] = 0
    table[(byte & 0x1F) >= 8, 0x8F] = IS_ESCAPE  # XOP; its map field lies where pop has reg
    table[:, 0x62] = table[:, 0xC4] = table[:, 0xC5] = IS_ESCAPE


def _fill_fields(table: NDArray[np.uint8], number: Map, letters: str) -> None:
    by_letter = {
        "j": FieldKind.BRANCH,
        "r": FieldKind.BRANCH,
        "p": FieldKind.PREFIX,
        "x": FieldKind.PREFIX,
        "X": FieldKind.ESCAPE,
    }
    constant = np.array([by_letter.get(x, FieldKind.NONE) for x in letters], np.uint8)
    table[:] = constant
    with_memory = np.array([x in _WITH_MODRM for x in letters], np.uint8)
    table[0x05:0x40:8] = constant + with_memory * np.uint8(FieldKind.MEMORY)
    if number is Map.ONE_BYTE:
        table[0xF8, 0xC7] = FieldKind.BRANCH_MODRM
        table[(np.arange(256) & 0x1F) >= 8, 0x8F] = FieldKind.ESCAPE


def _escapes() -> NDArray[np.uint8]:
    """Where each escape leads, by its first two bytes."""
    table = np.zeros((256, 256), np.uint8)  # [second byte, first byte]
    table[:, 0x0F] = Map.TWO_BYTE | 1 << 4
    table[0x38, 0x0F] = Map.MODRM | 2 << 4
    table[0x3A, 0x0F] = Map.MODRM_IMM8 | 2 << 4
    table[:, 0xC5] = Map.VEX_TWO_BYTE | 2 << 4
    vex = {1: Map.VEX_TWO_BYTE, 2: Map.VEX_MODRM, 3: Map.VEX_MODRM_IMM8, 7: Map.VEX_MODRM_IMM32}
    second = np.arange(256)
    for field, target in vex.items():
        table[(second & 0x1F) == field, 0xC4] = target | 3 << 4
        table[(second & 0x0F) == field, 0x62] = target | 4 << 4  # bit 3 is zero, except in APX
    table[((second & 0x0F) == 5) | ((second & 0x0F) == 6), 0x62] = Map.VEX_MODRM | 4 << 4
    for field, target in {8: Map.VEX_MODRM_IMM8, 9: Map.VEX_MODRM, 10: Map.VEX_MODRM_IMM32}.items():
        table[(second & 0x1F) == field, 0x8F] = target | 3 << 4
    return table.reshape(-1)


def _resolved() -> NDArray[np.uint8]:
    table = np.arange(256, dtype=np.uint8) & ~np.uint8(SIB)
    flags = table & ~np.uint8(LENGTH)
    table[flags == _RAW_NO_REX] -= _RAW_NO_REX - NO_REX
    table[flags == _RAW_NO_66_F2_F3] -= _RAW_NO_66_F2_F3 - NO_66_F2_F3
    table[(table & LENGTH) == 0] = 0
    return table


def _prefixed() -> NDArray[np.int8]:
    """By flags of the instruction and prefixes before it (1: 66, 2: 67, 4: F2, F3 or LOCK), bytes to add."""
    table = np.zeros((16, 8), np.int8)
    flags, present = np.arange(16)[:, None] << 4, np.arange(8)[None, :]
    refuses = (flags == NO_66_F2_F3) | (flags == NO_REX)
    table -= np.where(~refuses & ((flags & SHRINKS_66) != 0) & ((present & 1) != 0), 2, 0).astype(np.int8)
    table -= np.where(~refuses & ((flags & SHRINKS_67) != 0) & ((present & 2) != 0), 4, 0).astype(np.int8)
    table[refuses & ((present & 5) != 0)] = -64
    return table.reshape(-1)
