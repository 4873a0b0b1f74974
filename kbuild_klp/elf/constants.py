# SPDX-License-Identifier: GPL-2.0-only
"""Numbers of the ELF specification (gABI chapters 4 and 5) that this package uses."""

from __future__ import annotations

ELF_MAGIC = b"\x7fELF"
BITCODE_MAGICS = (b"BC\xc0\xde", b"\xde\xc0\x17\x0b")  # LLVM bitcode, bare and in its wrapper
ARCHIVE_MAGICS = (b"!<arch>\n", b"!<thin>\n")

ELFCLASS64 = 2
ELFDATA2LSB = 1
ELFDATA2MSB = 2
ET_REL = 1

EM_S390 = 22
EM_X86_64 = 62

SHN_UNDEF = 0
SHN_LORESERVE = 0xFF00
SHN_ABS = 0xFFF1
SHN_COMMON = 0xFFF2
SHN_XINDEX = 0xFFFF

ABSOLUTE = SHN_ABS - 0x10000
"""Reserved section indices are made negative, so that they never collide with real sections beyond 0xff00."""
COMMON = SHN_COMMON - 0x10000

SHT_NULL = 0
SHT_PROGBITS = 1
SHT_SYMTAB = 2
SHT_STRTAB = 3
SHT_RELA = 4
SHT_NOTE = 7
SHT_NOBITS = 8
SHT_REL = 9
SHT_SYMTAB_SHNDX = 18
SHT_CREL = 0x40000014
"""Compact relocations, of LLVM 20 (clang -Wa,--crel)."""

SHF_WRITE = 0x1
SHF_ALLOC = 0x2
SHF_EXECINSTR = 0x4
SHF_MERGE = 0x10
SHF_STRINGS = 0x20
SHF_INFO_LINK = 0x40
SHF_LINK_ORDER = 0x80
SHF_GROUP = 0x200
SHF_COMPRESSED = 0x800

STB_LOCAL = 0
STB_GLOBAL = 1
STB_WEAK = 2

STT_NOTYPE = 0
STT_OBJECT = 1
STT_FUNC = 2
STT_SECTION = 3
STT_FILE = 4

BINDING_NAMES = {STB_LOCAL: "local", STB_GLOBAL: "global", STB_WEAK: "weak"}
TYPE_NAMES = {STT_NOTYPE: "notype", STT_OBJECT: "object", STT_FUNC: "function"}
VISIBILITY_NAMES = {0: "default", 1: "internal", 2: "hidden", 3: "protected"}
