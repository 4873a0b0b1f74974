# SPDX-License-Identifier: GPL-2.0-only
"""The x86-64 decoder: encodings written by hand, and capstone on every opcode and on random bytes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from x86_peers import capstone_length

from kbuild_klp.arch import x86_decode
from kbuild_klp.arch.x86_calls import flows
from kbuild_klp.arch.x86_decode import WIDTHS, instruction_lengths, relative_fields

# fmt: off
# Encoding, what it is. The length is that of the text: everything written there is the instruction.
ENCODINGS = """
    90                              nop
    f3 90                           pause
    f3 0f 1e fa                     endbr64
    66 66 2e 0f 1f 84 00 00 00 00 00        nopw, eleven bytes, as gas pads
    66 66 66 66 66 66 2e 0f 1f 84 00 00 00 00 00    nopw, fifteen bytes
    0f 1f 44 00 08                  a NOP that stands for a jump label
    cc                              int3
    c3                              ret
    c2 10 00                        ret imm16
    ca 10 00                        lret imm16
    c8 10 00 01                     enter imm16, imm8
    e8 00 00 00 00                  call
    2e e8 00 00 00 00               cs call, as retpolines pad
    e9 00 00 00 00                  jmp
    66 e9 00 00 00 00               jmp; Intel ignores 66 here
    eb fe                           jmp short
    70 fe                           jo short
    e3 fe                           jrcxz
    67 e3 fe                        jecxz
    0f 84 00 00 00 00               je
    3e 0f 84 00 00 00 00            je with a hint
    c7 f8 00 00 00 00               xbegin
    c6 f8 01                        xabort
    ff 15 00 00 00 00               call *mem(%rip)
    41 ff d3                        call *%r11
    3e ff e0                        notrack jmp *%rax
    ff 24 c5 00 00 00 00            jmp *table(,%rax,8)
    0f 0b                           ud2
    0f b9 cc                        ud1 %esp,%ecx, the mark of a static call trampoline
    67 48 0f b9 3a                  ud1 (%edx),%rdi, as WARN has it
    0f ff c0                        ud0 %eax,%eax
    d6                              udb
    48 b8 88 77 66 55 44 33 22 11   movabs imm64
    49 bf 88 77 66 55 44 33 22 11   movabs imm64 to r15
    b8 44 33 22 11                  mov imm32
    41 b8 44 33 22 11               mov imm32 to r8d
    66 b8 22 11                     mov imm16
    66 41 b8 22 11                  mov imm16 to r8w
    66 48 b8 88 77 66 55 44 33 22 11        mov imm64: REX.W wins over 66
    b0 11                           mov imm8
    a1 88 77 66 55 44 33 22 11      mov from a 64-bit offset
    48 a3 88 77 66 55 44 33 22 11   mov to a 64-bit offset
    67 a0 44 33 22 11               mov from a 32-bit offset
    66 a9 22 11                     test imm16, %ax
    48 a9 44 33 22 11               test imm32, %rax
    68 44 33 22 11                  push imm32
    66 68 22 11                     push imm16
    6a 11                           push imm8
    69 c0 44 33 22 11               imul imm32
    66 69 c0 22 11                  imul imm16
    66 48 69 c0 44 33 22 11         imul imm32: REX.W wins over 66
    6b c0 11                        imul imm8
    81 3d 00 00 00 00 44 33 22 11   cmpl imm32, mem(%rip)
    66 81 3d 00 00 00 00 22 11      cmpw imm16, mem(%rip)
    83 3d 00 00 00 00 11            cmpl imm8, mem(%rip)
    48 c7 84 24 00 01 00 00 44 33 22 11     movq imm32, disp32(%rsp)
    48 c7 04 25 00 00 00 00 44 33 22 11     movq imm32, absolute
    c6 05 00 00 00 00 11            movb imm8, mem(%rip)
    f6 c3 cc                        test imm8, %bl
    f6 d0                           not %al
    f6 05 00 00 00 00 11            testb imm8, mem(%rip)
    f7 c0 44 33 22 11               test imm32, %eax
    66 f7 c0 22 11                  test imm16, %ax
    66 f7 d0                        not %ax
    48 f7 c0 44 33 22 11            test imm32, %rax
    49 f7 fd                        idiv %r13
    8b 00                           mov (%rax)
    8b 40 11                        mov disp8
    8b 80 11 11 11 11               mov disp32
    8b 04 24                        mov (%rsp)
    8b 44 24 11                     mov disp8(%rsp)
    8b 84 24 11 11 11 11            mov disp32(%rsp)
    8b 04 25 11 11 11 11            mov absolute
    8b 04 c5 11 11 11 11            mov table(,%rax,8)
    8b 45 00                        mov 0(%rbp)
    41 8b 45 00                     mov 0(%r13)
    43 8b 44 25 00                  mov 0(%r13,%r12)
    8b 05 11 11 11 11               mov mem(%rip)
    67 8b 05 11 11 11 11            mov mem(%eip)
    65 48 8b 04 25 28 00 00 00      mov %gs:0x28, the stack protector
    65 48 8b 05 00 00 00 00         mov %gs:mem(%rip), a per-CPU variable
    64 48 8b 04 25 00 00 00 00      mov %fs:0
    48 8d 05 00 00 00 00            lea mem(%rip)
    8e d8                           mov %eax,%ds
    8c d8                           mov %ds,%eax
    8f 00                           pop (%rax)
    f0 48 0f b1 17                  lock cmpxchg
    f0 48 0f c7 0e                  lock cmpxchg16b
    f0 83 44 24 fc 00               lock addl, a full barrier
    2e f0 0f c1 07                  lock xadd with a segment prefix
    f3 48 a5                        rep movsq
    f2 ae                           repne scasb
    f3 0f b8 c7                     popcnt
    f3 48 0f bc c7                  tzcnt
    f2 48 0f 38 f1 c7               crc32q
    66 f2 0f 38 f1 07               crc32w
    0f 38 f0 07                     movbe
    66 0f 38 82 06                  invpcid
    66 0f 38 f6 c1                  adcx
    f3 0f ae f8                     incsspd/rdpid group, register
    f3 0f c7 f8                     rdpid
    0f 01 f8                        swapgs
    0f 01 ca                        clac
    0f 01 cb                        stac
    0f 01 c1                        vmcall
    0f 01 e8                        serialize
    0f 01 ee                        rdpkru
    f2 0f 01 ca                     erets
    f2 0f 00 f7                     lkgs %edi
    0f 01 15 00 00 00 00            lgdt mem(%rip)
    0f 01 3f                        invlpg
    0f 00 d8                        ltr
    0f 20 d8                        mov %cr3
    41 0f 22 c0                     mov to %cr0
    0f 21 38                        mov %dr7; the ModRM's mod means nothing
    48 0f ae 27                     xsave64
    48 0f c7 27                     xsavec64
    0f ae 3f                        clflush
    66 0f ae 3f                     clflushopt
    0f ae e8                        lfence
    0f a2                           cpuid
    0f 30                           wrmsr
    0f 01 f9                        rdtscp
    0f c7 f0                        rdrand
    48 0f 07                        sysretq
    48 cf                           iretq
    0f 78 c0                        vmread
    44 0f 78 07                     vmread to memory
    0f ba e0 11                     bt imm8
    48 0f ac c2 11                  shrd imm8
    48 0f ad c2                     shrd %cl
    0f 70 c0 11                     pshufw
    0f c2 c0 11                     cmpps
    66 0f 3a 0f c1 08               palignr
    66 0f 3a 44 05 00 00 00 00 11   pclmulqdq imm8, mem(%rip)
    0f 38 c8 c1                     sha1nexte
    0f 3a cc c1 00                  sha1rnds4
    66 0f 38 dc c1                  aesenc
    f3 0f 38 f6 c1                  adox
    0f 77                           emms
    0f 0f c1 9e                     pfadd (3DNow)
    9b                              fwait
    d9 3f                           fnstcw
    db e3                           fninit
    c5 f8 77                        vzeroupper
    c5 fd ef c0                     vpxor
    c5 fd 6f 05 00 00 00 00         vmovdqa mem(%rip)
    c5 fd 70 c0 11                  vpshufd imm8
    c4 e2 7d 00 05 00 00 00 00      vpshufb mem(%rip)
    c4 e3 7d 0f c1 08               vpalignr
    c4 e3 fd 00 c1 11               vpermq imm8
    c4 e2 f1 f7 c0                  shlx
    c4 e3 fb f0 c0 11               rorx
    c4 e2 69 92 04 1d 00 00 00 00   vgatherdps absolute(,%xmm3)
    c4 e2 78 49 c0                  tilerelease
    65 c5 f8 10 00                  vmovups from %gs
    67 c5 f8 10 00                  vmovups with a 32-bit address
    62 f1 7d 48 ef c0               vpxord
    62 f1 7d 48 72 f0 11            vprord imm8
    62 f2 7d 48 00 05 00 00 00 00   vpermb mem(%rip)
    62 f3 7d 48 25 c1 96            vpternlogd
    62 f3 7d 48 25 05 00 00 00 00 96        vpternlogd mem(%rip)
    62 f5 7c 48 58 c1               vaddph
    62 f6 7d 48 98 c1               vfmadd132ph
    62 f1 7c 48 10 84 24 00 01 00 00        vmovups disp32(%rsp)
    8f e9 78 01 c8                  blcfill (XOP)
    8f e8 78 c0 c1 11               vprotb (XOP)
    8f ea 78 10 c1 44 33 22 11      bextr imm32 (XOP)
    c4 e7 78 f6 c0 44 33 22 11      rdmsr imm32 (MAP7)
"""

NOT_INSTRUCTIONS = """
    06          push %es, not in 64-bit mode
    27          daa
    60          pusha
    82 c0 11    add imm8
    9a          lcall imm
    d4 0a       aam
    ea          ljmp imm
    ce          into
    0f 04       unassigned
    0f 0a       unassigned
    0f 24 c0    test registers
    0f 3f c0    unassigned
    8d c0       lea of a register
    c6 c8 00    group 11 /1
    c7 c8 00 00 00 00   group 11 /1
    fe d0       group 4 /2
    ff f8       group 5 /7
    ff d8       far call through a register
    8e f0       there are six segment registers
    48 66 90    REX before another prefix does nothing; no assembler writes it
    48 48 90    two REX
    66 c5 f8 77         66 before VEX
    48 c5 f8 77         REX before VEX
    f0 62 f1 7d 48 ef c0    LOCK before EVEX
    c4 e4 78 10 c0      VEX map 4
    62 f4 7c 48 10 c0   EVEX map 4
    62 f1 79 48 ef c0   EVEX with its fixed bit clear
    66 0f 78 c0 00 00   extrq, not in any kernel
    66 66 66 66 66 66 66 2e 0f 1f 84 00 00 00 00 00     sixteen bytes
    66 66 66 66 66 66 66 66 66 66 66 66 66 66 66 90     sixteen bytes
"""

# Encoding, where the field is, its width, whether it is a branch.
FIELDS = [
    ("e8 00 00 00 00", 1, 4, True),
    ("2e e8 00 00 00 00", 2, 4, True),
    ("66 48 e8 00 00 00 00", 3, 4, True),
    ("e9 00 00 00 00", 1, 4, True),
    ("eb 00", 1, 1, True),
    ("7f 00", 1, 1, True),
    ("3e 7f 00", 2, 1, True),
    ("e0 00", 1, 1, True),
    ("67 e3 00", 2, 1, True),
    ("0f 80 00 00 00 00", 2, 4, True),
    ("2e 0f 8f 00 00 00 00", 3, 4, True),
    ("c7 f8 00 00 00 00", 2, 4, True),
    ("66 c7 f8 00 00", 3, 2, True),
    ("8b 05 00 00 00 00", 2, 4, False),
    ("4c 8d 3d 00 00 00 00", 3, 4, False),
    ("65 48 8b 05 00 00 00 00", 4, 4, False),
    ("67 8b 05 00 00 00 00", 3, 4, False),
    ("c7 05 00 00 00 00 44 33 22 11", 2, 4, False),
    ("66 81 3d 00 00 00 00 22 11", 3, 4, False),
    ("f6 05 00 00 00 00 11", 2, 4, False),
    ("8f 05 00 00 00 00", 2, 4, False),
    ("ff 25 00 00 00 00", 2, 4, False),
    ("f0 48 0f b1 15 00 00 00 00", 5, 4, False),
    ("0f ba 25 00 00 00 00 11", 3, 4, False),
    ("f3 0f b8 05 00 00 00 00", 4, 4, False),
    ("66 0f 38 00 05 00 00 00 00", 5, 4, False),
    ("66 45 0f 38 00 05 00 00 00 00", 6, 4, False),
    ("66 0f 3a 0f 05 00 00 00 00 08", 5, 4, False),
    ("c5 fd 6f 05 00 00 00 00", 4, 4, False),
    ("c5 fd 70 05 00 00 00 00 11", 4, 4, False),
    ("c4 e2 7d 00 05 00 00 00 00", 5, 4, False),
    ("c4 e3 7d 0f 05 00 00 00 00 08", 5, 4, False),
    ("65 c5 fd 6f 05 00 00 00 00", 5, 4, False),
    ("62 f1 7d 48 ef 05 00 00 00 00", 6, 4, False),
    ("62 f3 7d 48 25 05 00 00 00 00 96", 6, 4, False),
    ("8f e8 78 c0 05 00 00 00 00 11", 5, 4, False),
]
WITHOUT_FIELD = """
    90              nop
    c3              ret
    8b 45 00        disp8
    8b 85 00 00 00 00       disp32(%rbp)
    8b 04 25 00 00 00 00    absolute
    8b 04 05 00 00 00 00    SIB
    8b c5           register
    c7 c5 00 00 00 00       mov imm32, %ebp
    b8 05 00 00 00  mov imm32
    05 05 05 05 05  add imm32
    68 e8 00 00 00  push imm32
    ff e0           jmp *%rax
    0f 22 05        mov to a control register has no address
    0f 05           syscall
    0f 0b           ud2, with 05 behind it
    c5 f8 77        vzeroupper, with 05 behind it
"""
# fmt: on


class Encoding(NamedTuple):
    data: bytes
    text: str


def parse(table: str) -> list[Encoding]:
    rows = []
    for line in table.strip().splitlines():
        match = re.fullmatch(r"\s*((?:[0-9a-f]{2} )+)\s*(.*)", line + " ")
        assert match, line
        rows.append(Encoding(bytes.fromhex(match[1]), match[2].strip()))
    return rows


def lengths_of(data: bytes) -> bytes:
    return instruction_lengths(np.frombuffer(data, np.uint8)).tobytes()


@pytest.mark.parametrize("row", parse(ENCODINGS), ids=lambda row: row.text)
def test_encoding_has_its_length(row: Encoding) -> None:
    size = len(row.data)
    for behind in (b"", b"\x00" * 16, b"\x05" * 16, b"\xff" * 16, b"\x48" * 16):
        assert lengths_of(row.data + behind)[0] == size
    assert capstone_length(row.data) in (size, 0, None)


@pytest.mark.parametrize("row", parse(ENCODINGS), ids=lambda row: row.text)
def test_encoding_cut_short_is_none(row: Encoding) -> None:
    for size in range(1, len(row.data)):
        if size == 1 and row.data[0] == 0x9B:
            continue
        assert lengths_of(row.data[:size])[0] == 0


@pytest.mark.parametrize("row", parse(NOT_INSTRUCTIONS), ids=lambda row: row.text)
def test_not_an_instruction(row: Encoding) -> None:
    assert lengths_of(row.data + bytes(16))[0] == 0


def test_any_run_of_prefixes() -> None:
    prefixes = bytes.fromhex("2667f02e663664f23e65f3")
    for count in range(11):
        assert lengths_of(prefixes[:count] + b"\xb8" + bytes(4))[0] == count + (3 if count > 4 else 5)
        assert lengths_of(prefixes[:count] + b"\x48\xb8" + bytes(8))[0] == (count + 10 if count < 6 else 0)
        assert lengths_of(prefixes[:count] + b"\xa0" + bytes(8))[0] == count + (5 if count > 1 else 9)


def opcode_space() -> Iterator[bytes]:
    """Every opcode of every map with every kind of ModRM, and the prefixes that select among instructions."""
    modrms = [form | reg << 3 for reg in range(8) for form in (0x04, 0x05, 0xC3)] + [0x00, 0x41, 0x82, 0x84]
    tail = bytes([0x25]) + b"\x11" * 12  # as SIB: base 5
    prefixes = [bytes.fromhex(text) for text in ("", "66", "f2", "f3", "48", "6641", "67")]
    legacy = [prefix + escape for prefix in prefixes for escape in (b"", b"\x0f", b"\x0f\x38", b"\x0f\x3a")]
    selectors = [wide | pp for pp in range(4) for wide in (0, 0x80)]
    vex = [bytes([0xC4, 0xE0 | number, 0x78 | chosen]) for number in (1, 2, 3) for chosen in selectors]
    evex = [bytes([0x62, 0xF0 | number, 0x7C | pp, 0x48]) for number in (1, 2, 3, 5, 6) for pp in range(4)]
    for front in legacy + vex + evex:
        for opcode in range(256):
            for modrm in modrms:
                yield front + bytes([opcode, modrm]) + tail


def test_opcode_space_as_capstone_has_it() -> None:
    slot = 32
    encodings = list(opcode_space())
    lengths = lengths_of(b"".join(data.ljust(slot, b"\x90") for data in encodings))[::slot]
    known = 0
    for ours, data in zip(lengths, encodings, strict=True):
        theirs = capstone_length(data)
        assert theirs in (ours, 0, None), f"{data.hex()}: {ours}, capstone {theirs}"
        known += bool(theirs)
    assert known > 100_000


# Bytes that matter more often than chance has them.
_INTERESTING = bytes.fromhex("666667f2f3f02e363e2664650f0f0f0f380f3ac4c5628f48494c4144454a40")
_CODE = st.lists(st.one_of(st.integers(0, 255), st.sampled_from(_INTERESTING)), max_size=64).map(bytes)


@given(_CODE)
@example(b"")
@settings(max_examples=1500, deadline=None)
def test_random_bytes_as_capstone_has_them(data: bytes) -> None:
    lengths = lengths_of(data)
    assert len(lengths) == len(data)
    for at, ours in enumerate(lengths):
        assert ours <= min(15, len(data) - at)
        theirs = capstone_length(data[at : at + 15])
        if theirs:
            assert ours == theirs, f"{data[at : at + 15].hex()}: {ours}, capstone {theirs}"


@given(_CODE, st.integers(1, 40))
@settings(deadline=None)
def test_chunks_make_no_difference(data: bytes, chunk: int) -> None:
    whole = lengths_of(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(x86_decode, "_CHUNK", chunk)
        assert lengths_of(data) == whole


@pytest.mark.parametrize(("text", "field", "width", "branch"), FIELDS, ids=[row[0] for row in FIELDS])
def test_relative_field(text: str, field: int, width: int, branch: bool) -> None:
    data = b"\x90" + bytes.fromhex(text)
    for behind in (b"", b"\x05" * 8):
        code = np.frombuffer(data + behind, np.uint8)
        found = relative_fields(code, instruction_lengths(code), np.array([0, 1]))
        assert [WIDTHS[form] for form in found.form] == [width]
        assert [x.tolist() for x in (found.offset, found.base, found.is_branch)] == [[1 + field], [len(data)], [branch]]


@pytest.mark.parametrize("row", parse(WITHOUT_FIELD), ids=lambda row: row.text)
def test_no_relative_field(row: Encoding) -> None:
    for behind in (b"", b"\x05" * 8):
        code = np.frombuffer(row.data + behind, np.uint8)
        assert not relative_fields(code, instruction_lengths(code), np.array([0])).offset.size


@pytest.mark.parametrize("text", ["66", "48", "90f0"])
def test_a_prefix_and_then_the_end(text: str) -> None:
    """There is no opcode to move on to."""
    code = np.frombuffer(bytes.fromhex(text), np.uint8)
    starts = np.arange(len(code))
    assert not relative_fields(code, instruction_lengths(code), starts).offset.size
    assert len(flows(code, starts)) == len(code)


def test_relative_fields_skips_what_is_no_instruction() -> None:
    code = np.frombuffer(bytes.fromhex("06e800"), np.uint8)
    lengths = instruction_lengths(code)
    assert not relative_fields(code, lengths, np.arange(3)).offset.size
    assert not relative_fields(code, lengths, np.zeros(0, np.int64)).offset.size
