# SPDX-License-Identifier: GPL-2.0-only
"""Every word of the vocabulary of reasons, from two versions of a snippet in which one thing differs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from kernel_like import source, with_change
from snippets import Compiler

from kbuild_klp.builds.single_object import ObjectBuild
from kbuild_klp.changes.classification import Change
from kbuild_klp.changes.wording import Code, Reason, ReasonKind, sentence
from kbuild_klp.compare.passes import compare
from kbuild_klp.report.json import why

Make = Callable[[Compiler], tuple[Path, Path]]


def changes(old: Path, new: Path, explain: bool = True) -> list[Change]:
    report = compare(ObjectBuild(str(old)), ObjectBuild(str(new)), explain=explain)
    assert not report.failed
    return [change for group in report.objects for change in group.changes]


def _c(text: str, old: str, new: str, *flags: str) -> Make:
    """Compile a C file with ``old`` or ``new`` in place of @."""
    return lambda gcc: (gcc.object(text.replace("@", old), *flags), gcc.object(text.replace("@", new), *flags))


def _asm(text: str, old: str, new: str) -> Make:
    """Assemble a file with ``old`` or ``new`` in place of @@."""
    return lambda gcc: (gcc.assembly(text.replace("@@", old)), gcc.assembly(text.replace("@@", new)))


def _function(body: str, rest: str = "") -> str:
    """Return the assembly of a function f."""
    return f".text\n.globl f\n.type f, %function\nf: {body}\n ret\n.size f, . - f\n{rest}\n"


def _moves(first: int) -> str:
    """Return the assembly of a function with ten numbers in it."""
    return _function("\n".join(f"mov ${n + first}, %eax\nnop" for n in range(10)))


def _special(**change: object) -> Make:
    return lambda gcc: (gcc.assembly(source()), gcc.assembly(with_change(**change)))


_UNDEFINED_KEY = with_change(call_key="sck_c")
_OTHERS = "\n".join(f".globl {name}\n.type {name}, %function\n{name}: ret\n.size {name}, 1" for name in "gh")
_TABLE = """
    .section .rodata
    .p2align 3
.Ltable: .quad .La, .Lb, @@
"""
_SWITCH = "jmp *.Ltable(,%rdi,8)\n.La: nop\n.Lb: hlt\n.Lc: cli"
_COLD = """
    .section .text.unlikely, "ax"
    .type f.cold, %function
f.cold: @@
    jmp f
    .size f.cold, . - f.cold
"""
_ARRAY = """
    .section .array, "a"
    .type {0}, %object
{0}: .quad {2}
    .size {0}, 8
    .type {1}, %object
{1}: .quad {3}
    .size {1}, 8
"""
_CLONES = """
    .text
    .type foo.constprop.0, %function
    foo.constprop.0: mov $1, %eax
    ret
    .size foo.constprop.0, . - foo.constprop.0
    .type foo.constprop.1, %function
    foo.constprop.1: mov $2, %eax
    ret
    .size foo.constprop.1, . - foo.constprop.1
    .globl a, b
    .type a, %function
    a: call foo.constprop.0
    ret
    .size a, . - a
    .type b, %function
    b: call foo.constprop.@@
    mov $1, %eax
    ret
    .size b, . - b
"""
_INLINE = (
    "int ext(int);\nstatic inline int foo(int x)\n{\n\treturn ext(x) @;\n}\nint f(int x)\n{\n\treturn foo(x);\n}\n"
)


class Case(NamedTuple):
    """What differs: ``symbol`` gets a reason of ``kind`` with the values ``old`` and ``new``."""

    kind: ReasonKind
    symbol: str
    old: str
    new: str
    make: Make
    explain: bool = True


K = ReasonKind
CASES = [
    Case(K.INSTRUCTION, "f", "addl %edi, %eax", "subl %edi, %eax", _asm(_function("@@ %edi, %eax"), "add", "sub")),
    Case(K.INSTRUCTION, "f", "", "nop", _asm(_function("hlt\n@@\ncli"), "", "nop")),
    Case(K.INSTRUCTION, "f", "nop and 1 more", "", _asm(_function("hlt\n@@\ncli"), "nop\nnop", "")),
    Case(K.INSTRUCTION, "f", "hash 0", "hash 0", _asm(_function("@@"), "nop", "cli"), False),
    Case(
        K.BRANCH,
        "f",
        "+0x2 (nop)",
        "+0x3 (hlt)",
        _asm(_function("je @@\n1: nop\n2: hlt"), "1f", "2f"),
    ),
    Case(K.CALL_TARGET, "f", "g", "h", _asm(_function("call @@", _OTHERS), "g", "h")),
    Case(K.CALL_TARGET, "f", "", "g", _asm(_function("nop\n@@\nhlt", _OTHERS), "", "call g\n call g")),
    Case(K.CALL_TARGET, "f", "outside", "outside+0x8", _asm(_function("jmp outside@@"), "", "+8")),
    Case(K.PART, "f", "", "f.cold, 6 bytes", _asm(_function("je f.cold", "@@"), "", _COLD.replace("@@", "nop"))),
    Case(K.PART, "f", "f.cold, 6 bytes", "f.cold, 7 bytes", _asm(_function("je f.cold", _COLD), "nop", "nop;nop")),
    Case(K.INLINED, "f", "foo() from unit.c:2", "foo() from unit.c:2", _c(_INLINE, "+ 3", "+ 4", "-g")),
    Case(K.CONSTANT, "f", "movl $0x11, %eax", "movl $0x12, %eax", _asm(_function("mov $@@, %eax"), "0x11", "0x12")),
    Case(
        K.CONSTANT,
        "f",
        "constant 0x4000000000000000",
        "constant 0x3000000000000000",
        _asm(
            _function("mov .Lc(%rip), %rax", '.section .rodata.cst8,"aM",%progbits,8\n.Lc: .quad 0x@@000000000000000'),
            "4",
            "3",
        ),
    ),
    Case(
        K.CONSTANT,
        "f",
        "0700000009000000",
        "0700000008000000",
        _asm(
            _function(
                "mov CSWTCH.1(,%rdi,4), %eax",
                ".section .rodata\n.type CSWTCH.1, %object\nCSWTCH.1: .long 7, @@\n.size CSWTCH.1, 8",
            ),
            "9",
            "8",
        ),
    ),
    Case(K.CONTENT, "v", "0500000000000000", "0600000000000000", _c("long v[2] = { 1, @ };", "5", "6")),
    Case(K.CONTENT, ".odd", "01", "02", _asm('.section .odd, "a"\n.byte @@', "1", "2")),
    Case(K.CONTENT, ".odd", "", "1 bytes", _asm('.section .even, "a"\n.byte 1\n@@', "", '.section .odd, "a"\n.byte 1')),
    Case(
        K.STRING,
        "f",
        '"one\\n"',
        '"two\\n"',
        _c('int g(const char *); int f(void) { return g("@\\n"); }', "one", "two"),
    ),
    Case(K.STRING, "v", '"one"', '"two"', _c('const char *v = "@";', "one", "two")),
    Case(
        K.STRING, "f", "", '"two"', _c('int g(const char *); void f(void) { g("one"); @ }', "", 'g("two"); g("two");')
    ),
    Case(K.JUMP_TABLE, "f", "+0x9 (cli)", "+0x7 (nop)", _asm(_function(_SWITCH, _TABLE), ".Lc", ".La")),
    Case(K.JUMP_TABLE, "f", "3 entries", "4 entries", _asm(_function(_SWITCH, _TABLE), ".Lc", ".Lc, .Lc")),
    Case(K.DATA_REFERENCE, "f", "one", "two", _c("extern int one, two; int f(void) { return @; }", "one", "two")),
    Case(K.DATA_REFERENCE, "v", "one", "two", _c("extern int one, two; int *v = &@;", "one", "two")),
    Case(K.DATA_REFERENCE, "v", "", "one", _c("extern int one; int *v[2] = { &one, @ };", "0", "&one")),
    Case(
        K.RELOCATION,
        "f",
        "R_X86_64_PC32 undefined outside",
        "R_X86_64_PC32 undefined weak outside",
        _asm(_function("call outside\n@@"), "", ".weak outside"),
    ),
    Case(
        K.RELOCATION,
        "f",
        "R_X86_64_32S undefined outside",
        "R_X86_64_32 undefined outside",
        _asm(_function("nop\n.reloc . - 1, @@, outside"), "R_X86_64_32S", "R_X86_64_32"),
    ),
    Case(K.REFERENCE, "f", "hash 0", "hash 0", _asm(_function("call @@", _OTHERS), "g", "h"), False),
    Case(K.LINE, "user", "100", "131", _special(bug_line=131)),
    Case(K.ALTERNATIVE, "user", "feature 11", "feature 12", _special(feature=12)),
    Case(K.ALTERNATIVE, "user", "replacement lfence", "replacement mfence", _special(replacement="mfence")),
    Case(K.EXCEPTION_TABLE, "user", "type 3", "type 4", _special(extable_type=4)),
    Case(K.EXCEPTION_TABLE, "user", "fixup +0x28", "fixup +0x34", _special(fixup=".Lelsewhere")),
    Case(K.JUMP_LABEL, "user", "key key_a+0x2", "key key_b+0x2", _special(key="key_b")),
    Case(K.STATIC_CALL, "user", "key sck_a", "key sck_b", _special(call_key="sck_b")),
    Case(
        K.STATIC_CALL,
        "user",
        "key R_X86_64_PC32 undefined sck_c",
        "key R_X86_64_PC32 undefined weak sck_c",
        lambda gcc: (gcc.assembly(_UNDEFINED_KEY), gcc.assembly(".weak sck_c\n" + _UNDEFINED_KEY)),
    ),
    Case(K.BUG, "user", "flags 1", "flags 3", _special(bug_flags=3)),
    Case(K.BUG, "user", 'file "kernel/file.c"', 'file "kernel/other.c"', _special(bug_file=".Lfile2")),
    Case(
        K.RUNTIME_CONSTANT,
        "user",
        "runtime_ptr_dentry",
        "runtime_ptr_inode",
        _special(pointer="runtime_ptr_inode"),
    ),
    Case(
        K.SPECIAL_SECTION,
        "f",
        "0 entries",
        "1 entry",
        _asm(_function("lock incl (%rdi)\n@@"), "", '.section .smp_locks, "a"\n.long f - .\n.text'),
    ),
    Case(K.SPECIAL_SECTION, "user", "hash 0", "hash 0", _special(feature=12), False),
    Case(K.SIZE, "v", "8 bytes", "16 bytes", _c("long v[@];", "1", "2")),
    Case(K.SIZE, "f", "2 bytes", "1 bytes", _asm(_function("nop") + ".size f, @@\n", "2", "1")),
    Case(
        K.SECTION,
        "f",
        ".text",
        ".init.text",
        _c("@ int f(void) { return 3; }", "", '__attribute__((section(".init.text")))'),
    ),
    Case(K.BINDING, "f", "global", "weak", _c("@ int f(void) { return 3; }", "", "__attribute__((weak))")),
    Case(K.BINDING, "g", "global", "weak", _asm("@@ f\n.globl g\n.set g, f\n" + _function("ret"), ".globl", ".weak")),
    Case(K.TYPE, "f", "function", "notype", _asm(_function("nop").replace("%function", "@@"), "%function", "%notype")),
    Case(K.VISIBILITY, "f", "default", "hidden", _asm(_function("nop") + "@@", "", ".hidden f\n")),
    Case(
        K.ALIAS,
        "f",
        "",
        "g at +0x0, global function, 2 bytes",
        _asm(_function("nop") + "@@", "", ".globl g\n.set g, f\n"),
    ),
    Case(
        K.ALIAS,
        "f",
        "l at +0x0, local notype, 0 bytes",
        "l at +0x1, local notype, 0 bytes",
        _asm(_function("@@"), "l: nop", "nop; l:"),
    ),
    Case(K.VALUE, "v", "0x11", "0x12", _asm(".globl v\n.set v, @@\n", "0x11", "0x12")),
    Case(K.ATTRIBUTE, "f", "hash 0", "hash 0", _c("@ int f(void) { return 3; }", "", "__attribute__((weak))"), False),
    Case(K.SHARING, "b", "foo.constprop with some functions", "foo.constprop with others", _asm(_CLONES, "1", "0")),
    Case(K.ALIGNMENT, ".odd", "1", "16", _asm('.section .odd, "a"\n.p2align @@\n.byte 1', "0", "4")),
    Case(
        K.ALIGNMENT,
        ".bss",
        "0x40",
        "0x4",
        _c("int first, a __attribute__((aligned(@))), b __attribute__((aligned(64)));", "64", "4"),
    ),
    Case(
        K.FLAGS,
        ".odd",
        "progbits alloc",
        "progbits write+alloc",
        _asm('.section .odd, "@@"\n.byte 1', "a", "aw"),
    ),
    Case(
        K.ORDER,
        ".array",
        "one, two",
        "two, one",
        lambda gcc: (
            gcc.assembly(_ARRAY.format("one", "two", 1, 2)),
            gcc.assembly(_ARRAY.format("two", "one", 2, 1)),
        ),
    ),
    Case(
        K.MORE,
        "f",
        "",
        "3 more",
        lambda gcc: (gcc.assembly(_moves(0)), gcc.assembly(_moves(50))),
    ),
]


def _same(expected: str, found: str) -> bool:
    """Compare values; those of hashes are whatever the hash is."""
    return found.startswith("hash ") if expected.startswith("hash ") else expected == found


@pytest.mark.parametrize("case", CASES, ids=[f"{case.kind.value}-{i}" for i, case in enumerate(CASES)])
def test_word_with_its_values(gcc: Compiler, case: Case) -> None:
    found = changes(*case.make(gcc), explain=case.explain)
    reasons = [reason for change in found if change.symbol == case.symbol for reason in change.why]
    mine = [reason for reason in reasons if reason.kind is case.kind]
    assert mine, reasons
    assert any(_same(case.old, reason.old) and _same(case.new, reason.new) for reason in mine), mine


def test_every_word_is_tried() -> None:
    assert {case.kind for case in CASES} == set(ReasonKind)


@pytest.mark.parametrize("case", CASES, ids=[f"{case.kind.value}-{i}" for i, case in enumerate(CASES)])
def test_data_and_sentences_are_the_same_reasons(gcc: Compiler, case: Case) -> None:
    for change in changes(*case.make(gcc), explain=case.explain):
        assert all(isinstance(reason, Reason) and isinstance(reason.kind, ReasonKind) for reason in change.why)
        document = why(change)
        assert len(document) == len(change.reasons)
        for row, reason in zip(document, change.why, strict=True):
            own = {"kind": reason.kind.value, "code": reason.code.word, "old": reason.old, "new": reason.new}
            assert row.items() >= {**own, **reason.values}.items()
            assert sentence(reason)
            # Something differs, unless all that is known is what the change is in.
            assert reason.old != reason.new or reason.kind is ReasonKind.INLINED, reason


def test_every_code_has_a_word_of_its_own() -> None:
    assert len({code.word for code in Code}) == len(Code)


def test_scripts_need_no_english(gcc: Compiler) -> None:
    """What the sentence says is there as values: of -97 for -95, where it stands, and both numbers."""
    source = "int other(int); int f(int x) { return other(x) ? %d : x; }\n"
    (change,) = changes(gcc.object(source % -95), gcc.object(source % -97), explain=True)
    (row,) = why(change)
    assert (row["code"], row["old_value"], row["new_value"]) == ("immediate", -95, -97)
    assert change.reasons == [f"+{row['at']:#x}: {row['old']} -> {row['new']}"]


def test_the_manual_lists_every_word() -> None:
    answers = (Path(__file__).resolve().parents[2] / "docs/answers.md").read_text("utf-8")
    rows = [line.split("|")[2] for line in answers.partition("| of what | kind |")[2].splitlines()[2:8]]
    words = [word.partition("(")[0].strip() for row in rows for word in row.split(",")]
    assert sorted(words) == sorted(kind.value for kind in ReasonKind)
