# SPDX-License-Identifier: GPL-2.0-only
"""What gcov adds to an object: stamps and places of the build in it say nothing, all else does.

Each table has an edit a row, and the whole answer.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from snippets import Changes, Compiler, changed, data_changed
from watched_answers import NOTHING, WATCHED, added, answer, edited

FLAGS = ("-fprofile-arcs", "-ftest-coverage", "-fno-tree-loop-im")
CLANG_FLAGS = FLAGS[:2]


@pytest.fixture(params=["clang-14", "clang-16", "clang-19"])
def clang(request: pytest.FixtureRequest, tmp_path: Path) -> Compiler:
    if request.param != "clang-19" and not shutil.which(request.param):
        pytest.skip(f"{request.param} is not installed")
    return Compiler(request.param, tmp_path)


MANY = "int use(int);\n" + "".join(
    f"int f{number}(int a) {{ if (a > {number}) return use(a); return a + 1{number:02}; }}\n" for number in range(40)
)
"""So many functions that Clang hands them over in a loop."""


@pytest.mark.parametrize(
    ("edit", "want"),
    [
        (("", ""), NOTHING),
        (("+ 100", "+ 101"), changed("f")),
        (("- 1", "- (a > 4 ? use(a) : 1)"), changed("h") | data_changed("__gcov_.h", "__gcov0.h")),
        (
            ("int h(", "int k(int a) { return a; }\nint h("),
            added("function", "k") | added("data", "__gcov_.k", "__gcov0.k"),
        ),
    ],
)
def test_gcc(tmp_path: Path, edit: tuple[str, str], want: Changes) -> None:
    gcc = Compiler("gcc", tmp_path)
    # Each in a directory of its own.
    assert answer(gcc.object(WATCHED, *FLAGS), gcc.object(edited(WATCHED, edit), *FLAGS)) == want


CAME = added("function", "k") | added("data", "__llvm_gcov_ctr")


@pytest.mark.parametrize(
    ("source", "edit", "want"),
    [
        (WATCHED, ("", ""), NOTHING),
        (WATCHED, ("+ 100", "+ 101"), changed("f")),
        (WATCHED, ("g(a) - 1", "g(a) - use(a)"), changed("h")),
        (WATCHED, ("int f(", "int k = 1; int f("), added("data", "k")),
        (WATCHED, ("- 1", "- (a > 4 ? use(a) : 1)"), changed("h") | data_changed("__llvm_gcov_ctr")),
        (WATCHED, ("int h(", "int k(int a) { return a; }\nint h("), CAME),
        (WATCHED, ("int f(", "int k(int a) { return a; }\nint f("), CAME),
        (MANY, ("", ""), NOTHING),
        (MANY, ("+ 107", "+ 177"), changed("f7")),
        (MANY, ("int f0(", "int k = 1; int f0("), added("data", "k")),
        (MANY, ("a > 9)", "a > 9 && a < 99)"), changed("f9") | data_changed("__llvm_gcov_ctr")),
        (MANY, ("int f0(", "int k(int a) { if (a) use(a); return a; }\nint f0("), CAME),
    ],
)
def test_clang(clang: Compiler, source: str, edit: tuple[str, str], want: Changes) -> None:
    old, new = clang.object(source, *CLANG_FLAGS), clang.object(edited(source, edit), *CLANG_FLAGS)
    assert answer(old, new) == want
    other_way = {"added": "removed"}
    assert answer(new, old) == {(symbol, kind, other_way.get(change, change)) for symbol, kind, change in want}


WRITEOUT = """
.text
.type __llvm_gcov_writeout, @function
__llvm_gcov_writeout:
	pushq %rax
	movq $.Lname, %rdi
	movl $0x3430382a, %esi
	movl $0x11111111, %edx
	call llvm_gcda_start_file
	movl $7, %edi
	movl $0x22222222, %esi
	movl $0x33333333, %edx
	call llvm_gcda_emit_function
	movl $2, %edi
	movq $__llvm_gcov_ctr, %rsi
	call llvm_gcda_emit_arcs
	movl $4, %ebx
1:	movl __llvm_internal_gcov_emit_function_args.0-4(%rbx), %edi
	movl __llvm_internal_gcov_emit_function_args.0(%rbx), %esi
	movl __llvm_internal_gcov_emit_function_args.0+4(%rbx), %edx
	call llvm_gcda_emit_function
	addq $12, %rbx
	cmpq $28, %rbx
	jne 1b
	call llvm_gcda_summary_info
	popq %rax
	jmp llvm_gcda_end_file
.size __llvm_gcov_writeout, . - __llvm_gcov_writeout
.bss
.type __llvm_gcov_ctr, @object
__llvm_gcov_ctr: .zero 16
.size __llvm_gcov_ctr, 16
.type __llvm_gcov_ctr.1, @object
__llvm_gcov_ctr.1: .zero 16
.size __llvm_gcov_ctr.1, 16
.section .rodata, "a"
.type __llvm_internal_gcov_emit_function_args.0, @object
__llvm_internal_gcov_emit_function_args.0:
	.long 70, 71, 72
	.long 80, 81, 82
.size __llvm_internal_gcov_emit_function_args.0, 24
.section .rodata.str1.1, "aMS", @progbits, 1
.Lname: .asciz "/build/one/unit.gcda"
"""


@pytest.mark.parametrize(
    ("edit", "is_same"),
    [
        (("/build/one/unit.gcda", "/build/two/unit.gcda"), True),
        (("/build/one/unit.gcda", "/unit.gcda"), True),
        (("0x11111111", "0x11111112"), True),
        (("0x22222222", "1"), True),
        (("0x33333333", "0xffffffff"), True),
        ((".long 70, 71, 72", ".long 70, 171, 0"), True),
        (("81, 82", "0xffffffff, 5"), True),
        (("0x3430382a", "0x3430392a"), False),
        (("$7, %edi", "$8, %edi"), False),
        (("$2, %edi", "$3, %edi"), False),
        (("$__llvm_gcov_ctr,", "$__llvm_gcov_ctr+8,"), False),
        (("$4, %ebx", "$5, %ebx"), False),
        (("$28, %rbx", "$16, %rbx"), False),
        ((".long 70,", ".long 73,"), False),
        ((".long 80,", ".long 83,"), False),
    ],
)
def test_what_clang_hands_over(tmp_path: Path, edit: tuple[str, str], is_same: bool) -> None:
    gcc = Compiler("gcc", tmp_path)
    assert edit[0] in WRITEOUT
    old, new = gcc.assembly(WRITEOUT), gcc.assembly(WRITEOUT.replace(*edit))
    assert answer(old, new) == (NOTHING if is_same else changed("__llvm_gcov_writeout"))


@pytest.mark.parametrize(
    "other",
    [
        # Of another function, to another one, for something else as well, or perhaps something else.
        WRITEOUT.replace("__llvm_gcov_writeout", "writeout"),
        WRITEOUT.replace("call llvm_gcda_emit_function", "call emit", 1),
        WRITEOUT.replace(
            "%edx\n\tcall llvm_gcda_emit_function", "%edx\n\taddl %edx, count\n\tcall llvm_gcda_emit_function", 1
        ),
        WRITEOUT.replace("movl $0x33333333", "testl %ecx, %ecx\n\tje 2f\n\tmovl $0x33333333").replace(
            "\tcall llvm_gcda_emit_function", "2:\tcall llvm_gcda_emit_function", 1
        ),
    ],
    ids=["of another", "to another", "used otherwise", "not always"],
)
def test_numbers_that_are_no_stamps(tmp_path: Path, other: str) -> None:
    gcc = Compiler("gcc", tmp_path)
    name = "writeout" if "__llvm_gcov_writeout" not in other else "__llvm_gcov_writeout"
    new = other.replace("0x33333333", "0x33333334")
    assert other not in (WRITEOUT, new)
    assert answer(gcc.assembly(other), gcc.assembly(new)) == changed(name)


def _with_one_more(edit: tuple[str, str] = ("", "")) -> str:
    """Return what is handed over with one more counter, edited."""
    counter = """
.type __llvm_gcov_ctr.2, @object
__llvm_gcov_ctr.2: .zero 8
.size __llvm_gcov_ctr.2, 8
.section .rodata"""
    emit = "\tmovl $1, %edi\n\tmovq $__llvm_gcov_ctr.2, %rsi\n\tcall llvm_gcda_emit_arcs\n"
    text = _ALL.replace("\n.section .rodata", counter, 1)
    text = text.replace("\tcall llvm_gcda_summary_info", emit + "\tcall llvm_gcda_summary_info")
    assert edit[0] in text
    return text.replace(*edit)


# Of the first counters it hands over one only, and refers to what is before a table.
_ALL = WRITEOUT.replace("args.0-4(%rbx)", "args.0(%rbx)").replace(
    "\tmovl $4, %ebx", "\tmovq $__llvm_gcov_ctr.1, %rsi\n\tcall llvm_gcda_emit_arcs\n\tmovl $4, %ebx"
)


@pytest.mark.parametrize(
    ("edit", "is_told"),
    [
        (("", ""), False),
        (("0x22222222", "0x1"), False),
        (("call llvm_gcda_summary_info", "call other"), True),
        (("\tcall llvm_gcda_summary_info", "\tincl count\n\tcall llvm_gcda_summary_info"), True),
        (("movq $__llvm_gcov_ctr.1, %rsi", "movq $__llvm_gcov_ctr, %rsi"), True),
        (("movq $__llvm_gcov_ctr.2, %rsi", "movq $__llvm_gcov_ctr, %rsi"), True),
        (("unit.gcda", "unit.c"), True),
    ],
)
def test_one_more_counter_is_handed_over(tmp_path: Path, edit: tuple[str, str], is_told: bool) -> None:
    gcc = Compiler("gcc", tmp_path)
    old, new = gcc.assembly(_ALL), gcc.assembly(_with_one_more(edit))
    found = answer(old, new)
    assert added("data", "__llvm_gcov_ctr") <= found
    assert (changed("__llvm_gcov_writeout") <= found) == is_told
    assert (changed("__llvm_gcov_writeout") <= answer(new, old)) == is_told


def test_a_string_that_names_no_file_of_gcov(tmp_path: Path) -> None:
    gcc = Compiler("gcc", tmp_path)
    source = WRITEOUT.replace("unit.gcda", "unit.c")
    assert answer(gcc.assembly(source), gcc.assembly(source.replace("unit.c", "other.h"))) == changed(
        "__llvm_gcov_writeout"
    )
