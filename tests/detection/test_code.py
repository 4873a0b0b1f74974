# SPDX-License-Identifier: GPL-2.0-only
"""Changes of machine code: each one found at its owner, and nothing said of the neighbours.

Each test has two versions of a small source and the whole answer that is right for them.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from snippets import THREE, Compiler, changed, changes_of, diff_objects

from kbuild_klp.builds.single_object import ObjectBuild
from kbuild_klp.compare.passes import compare

# Three functions that call each other without relocations, with a loop, a tail call and a conditional branch.
# -- a change in the body ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("return x + 1;", "return x - 1;"),
        ("return x + 1;", "return x + 2;"),
        ("return x + 1000;", "return x + 1001;"),
        ("return x > 5 ? 3 : 9;", "return x >= 5 ? 3 : 9;"),
        ("return (unsigned)x > 5 ? ext(x) : 9;", "return x > 5 ? ext(x) : 9;"),
        ("return -22;", "return -12;"),
        ("return ext(1);", "return ext(2);"),
        ("return ext(x);", "return ext2(x);"),
        ("return ext(x) + 0;", "return ext2(x) + 1;"),
        ("return v1;", "return v2;"),
        ("return v1;", "v1 = x; return x;"),
        ("return arr[1];", "return arr[2];"),
        ("return arr[x];", "return arr[x + 1];"),
        ("for (int i = 0; i < 9; i++) ext(i); return 0;", "for (int i = 0; i < 10; i++) ext(i); return 0;"),
        ("__builtin_trap();", "return 0;"),
        ('asm volatile("lfence"); return 0;', 'asm volatile("mfence"); return 0;'),
    ],
)
def test_changed_body_is_found_and_nothing_else(cc: Compiler, old: str, new: str) -> None:
    around = """
    int ext(int), ext2(int); int v1, v2; int arr[8];
    int above(int x) { return ext(x) + 7; }
    int target(int x) { %s }
    int below(int x) { return target(x) + above(x) + arr[x & 3]; }
    """
    # Weak, lest the callers take over what target returns.
    around = around.replace("int target", "__attribute__((weak)) int target")
    assert cc.diff(around % old, around % new) == changed("target")


def test_neighbour_that_grows_leaves_functions_below_alone(cc: Compiler) -> None:
    source = "int ext(int); int above(int x) { %s return x; } " + THREE % ""
    assert cc.diff(source % "", source % "ext(x); ext(1); ext(2);") == changed("above")


def test_neighbour_that_shrinks_leaves_functions_below_alone(cc: Compiler) -> None:
    source = "int ext(int); int above(int x) { %s return x; } " + THREE % ""
    assert cc.diff(source % ("ext(x);" * 60), source % "") == changed("above")


def test_function_added_at_the_top_is_the_only_news(cc: Compiler) -> None:
    new = "int fresh(int x) { return x * x + 40; }" + THREE % ""
    assert cc.diff(THREE % "", new) == {("fresh", "function", "added")}


def test_static_function_added_at_the_top_is_the_only_news(cc: Compiler) -> None:
    new = "__attribute__((noinline, used)) static int fresh(int x) { return x * x + 40; }" + THREE % ""
    assert cc.diff(THREE % "", new) == {("fresh", "function", "added")}


def test_removed_function_is_reported_as_removed(cc: Compiler) -> None:
    old = "int gone(int x) { return x * x + 40; }" + THREE % ""
    assert cc.diff(old, THREE % "") == {("gone", "function", "removed")}


def test_functions_in_another_order_are_unchanged(cc: Compiler) -> None:
    parts = ["int a(int x) { return ext(x) + 1; }", "int b(int x) { return ext(x) + 2; }", "int c(int x) { return 3; }"]
    head = "int ext(int);"
    flags = ["-fno-toplevel-reorder"] if cc.command == "gcc" else []
    assert cc.diff(head + "".join(parts), head + "".join(reversed(parts)), *flags) == set()


def test_same_source_in_another_directory_is_unchanged(cc: Compiler) -> None:
    first = cc.object(THREE % "", place="a")
    second = cc.object(THREE % "", place="a-directory-with-a-longer-name")
    assert diff_objects(first, second) == set()


@pytest.mark.parametrize("debug", ["-g", "-g3", "-gdwarf-4", "-gsplit-dwarf"])
def test_debug_information_changes_nothing(cc: Compiler, debug: str) -> None:
    assert diff_objects(cc.object(THREE % ""), cc.object(THREE % "", debug)) == set()


# -- branches that the assembler resolved -----------------------------------------------------------------------------

BRANCHES = """
    .text
    .p2align 4
    .globl before
    .type before, @function
before:
    %s
    ret
    .size before, . - before
    .p2align 4
    .type callee1, @function
callee1:
    mov $1, %%eax
    ret
    .size callee1, . - callee1
    .p2align 4
    .type callee2, @function
callee2:
    mov $2, %%eax
    ret
    .size callee2, . - callee2
    .p2align 4
    .globl user
    .type user, @function
user:
    nop
    %s
    ret
    .size user, . - user
"""


@pytest.mark.parametrize(
    "instruction",
    ["call {}", "jmp {}", "jne {}", "{{disp32}} jmp {}", "{{disp32}} jc {}", "lea {}(%rip), %rax", "jrcxz {}"],
)
class TestResolvedBranches:
    """A static callee in the same section has no relocation: only the displacement says who it is."""

    def test_another_target_is_found(self, gcc: Compiler, instruction: str) -> None:
        old, new = instruction.format("callee1"), instruction.format("callee2")
        assert gcc.diff_assembly(BRANCHES % ("", old), BRANCHES % ("", new)) == changed("user")

    def test_another_place_in_the_target_is_found(self, gcc: Compiler, instruction: str) -> None:
        old, new = instruction.format("callee1"), instruction.format("callee1+5")
        assert gcc.diff_assembly(BRANCHES % ("", old), BRANCHES % ("", new)) == changed("user")

    def test_what_lies_between_may_grow(self, gcc: Compiler, instruction: str) -> None:
        code = instruction.format("callee1")
        source = BRANCHES.replace("mov $2, %%eax", "mov $2, %%eax\n %s")
        old, new = source % ("", "", code), source % ("nop", "mov $3, %eax; mov $4, %ecx; xor %eax, %ecx", code)
        assert gcc.diff_assembly(old, new) == changed("before", "callee2")


_ENTRIES = """
    .section .text
    .section __patchable_function_entries, "awo", @progbits, .text
    .quad user - 16
"""
_JUMP_LABEL = '.pushsection __jump_table, "aw"; .long 1b - .; .long callee1 - .; .quad key - .; .popsection'


@pytest.mark.parametrize("branch", ["jmp callee1", "jne callee1"])
def test_branch_that_becomes_long_because_of_a_neighbour_is_the_same_instruction(gcc: Compiler, branch: str) -> None:
    """A tail call to a static function gets three more bytes when what lies between grows."""
    source = BRANCHES.replace("mov $2, %%eax", ".skip %d, 0x90") + _ENTRIES
    short, long = gcc.assembly(source % ("", 8, branch)), gcc.assembly(source % ("", 300, branch))
    report = compare(ObjectBuild(str(short)), ObjectBuild(str(long)))
    assert changes_of(report) == changed("callee2")
    assert report.summary.reencoded == 1


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("jmp callee1", "jmp before"),
        ("jmp callee1; nop", "nop; jmp callee1"),
        ("jne callee1", "je callee1"),
        ("jmp callee1", "call callee1"),
        ("1: jmp callee1; dec %ecx; jnz 1b", "jmp callee1; 1: dec %ecx; jnz 1b"),
        ("1: jmp callee1; dec %ecx; " + _JUMP_LABEL, "jmp callee1; 1: dec %ecx; " + _JUMP_LABEL),
        ("jmp callee1; mov 8(%rdi), %eax", "jmp callee1; mov 16(%rdi), %eax"),
    ],
)
def test_longer_branch_hides_nothing(gcc: Compiler, old: str, new: str) -> None:
    source = BRANCHES.replace("mov $2, %%eax", ".skip %d, 0x90") + _ENTRIES
    assert gcc.diff_assembly(source % ("", 8, old), source % ("", 300, new)) == changed("callee2", "user")


def test_branch_inside_the_function_is_found(gcc: Compiler) -> None:
    body = "1: dec %eax; 2: nop; jnz {}b"
    assert gcc.diff_assembly(BRANCHES % ("", body.format(1)), BRANCHES % ("", body.format(2))) == changed("user")


def test_tail_call_to_the_next_function_is_a_reference(gcc: Compiler) -> None:
    """A branch to the very end of a function is one to the function behind it."""
    source = """
    .text
    .type a, @function
    a: jmp %s
    .size a, . - a
    .type b, @function
    b: ret
    .size b, . - b
    .type c, @function
    c: ret
    .size c, . - c
    """
    assert gcc.diff_assembly(source % "b", source % "c") == changed("a")


# -- the end of the instruction, from which PC-relative addresses count -----------------------------------------------

WITH_IMMEDIATE = """
    .text
    .globl user
    .type user, @function
user:
    {0}
    ret
    .size user, . - user
    .data
    {2}
    .type low, @object
low: .quad 1
    .size low, 8
    .type high, @object
high: .quad 2
    .size high, 8
    .type last, @object
last: .quad 3
    .size last, 8
"""

IMMEDIATES = [
    "cmpl $1, {}(%rip)",
    "cmpl $100000, {}(%rip)",
    "movb $7, {}(%rip)",
    "movw $7, {}(%rip)",
    "movl $7, {}(%rip)",
    "movq $7, {}(%rip)",
    "imul $1000, {}(%rip), %eax",
    "imul $10, {}(%rip), %eax",
    "shll $3, {}(%rip)",
    "testb $1, {}(%rip)",
    "mov {}(%rip), %eax",
    "lock btsl $3, {}(%rip)",
]


@pytest.mark.parametrize("instruction", IMMEDIATES)
def test_local_variable_behind_an_immediate_is_told_from_its_neighbours(gcc: Compiler, instruction: str) -> None:
    old = WITH_IMMEDIATE.format(instruction.format("low"), "", "")
    for other in ("high", "last", "low+1", "high-1", "low+4"):
        new = WITH_IMMEDIATE.format(instruction.format(other), "", "")
        assert gcc.diff_assembly(old, new) == changed("user"), other


@pytest.mark.parametrize("instruction", IMMEDIATES)
def test_local_variable_behind_an_immediate_may_move(gcc: Compiler, instruction: str) -> None:
    old = WITH_IMMEDIATE.format(instruction.format("high"), "", "")
    new = WITH_IMMEDIATE.format(instruction.format("high"), "", "first: .quad 4; .size first, 8; .type first, @object")
    assert gcc.diff_assembly(old, new) == {("first", "data", "added")}


def test_section_symbol_and_named_symbol_mean_the_same(gcc: Compiler) -> None:
    """Whether gas writes .data+8 or the symbol depends on its version and on the binding."""
    template = WITH_IMMEDIATE.format("movl $7, {}(%rip)", "", "").replace("{{}}", "{}")
    for a, b in (("high", ".data+8"), ("low", ".data"), ("last+4", ".data+20")):
        assert gcc.diff_assembly(template.replace("{}", a), template.replace("{}", b)) == set()


def test_relocation_in_place_of_the_same_bytes_is_found(gcc: Compiler) -> None:
    source = ".text\n.globl f\n.type f, @function\nf: movl ${}, %eax\nret\n.size f, . - f\n"
    assert gcc.diff_assembly(source.format("0"), source.format("extern")) == changed("f")
    assert gcc.diff_assembly(source.format("extern"), source.format("0")) == changed("f")


# -- padding ----------------------------------------------------------------------------------------------------------


def test_padding_between_functions_is_nobodys(gcc: Compiler) -> None:
    source = """
    .text
    .globl f
    .type f, @function
    f: ret
    .size f, . - f
    .p2align {}, {}
    .globl g
    .type g, @function
    g: ret
    .size g, . - g
    .p2align 4
    """
    assert gcc.diff_assembly(source.format("4", "0x90"), source.format("4", "0xcc")) == set()
    assert gcc.diff_assembly(source.format("4", "0x90"), source.format("3", "0x90")) == set()


PADDED = "-fpatchable-function-entry=16,16"


@pytest.mark.parametrize(
    "flags", [[PADDED], [PADDED, "-fcf-protection=branch"], ["-pg", "-mfentry", "-mrecord-mcount"]]
)
def test_neighbour_that_grows_moves_no_trace_entry_to_somebody_else(gcc: Compiler, flags: list[str]) -> None:
    """The NOPs before a function belong to it, also where the function before ends right there."""
    for length in range(1, 18):
        source = 'int above(int x) { asm volatile(".skip %d, 0xf8"); return x; }' + THREE % ""
        assert gcc.diff(source % length, source % (length + 1), *flags) == changed("above"), length


def test_trace_entry_that_goes_away_changes_the_function(gcc: Compiler) -> None:
    source = THREE % "" + "%s int traced(int x) { return x + outside(2); }"
    old, new = source % "", source % "__attribute__((patchable_function_entry(16, 0)))"
    assert gcc.diff(old, new, PADDED) == changed("traced")


def test_symbols_of_padding_belong_to_the_function_behind(gcc: Compiler) -> None:
    source = """
    .text
    .type __pfx_f, @function
    __pfx_f: .skip 16, 0x90
    .size __pfx_f, . - __pfx_f
    .globl f
    .type f, @function
    f: ret
    .size f, . - f
    .type __cfi_g, @function
    __cfi_g: .skip 11, 0x90
    movl ${}, %eax
    .size __cfi_g, . - __cfi_g
    .globl g
    .type g, @function
    g: ret
    .size g, . - g
    """
    assert gcc.diff_assembly(source.format(0x1234567), source.format(0x7654321)) == changed("g")


def test_symbols_of_padding_that_objtool_added_are_of_the_function_behind(gcc: Compiler) -> None:
    """In vmlinux.o those of local functions stand behind all others: after the STT_FILE symbol of the last source.

    A function that came was told twice, and a change of the padding was one of the last source.
    """

    def linked(names: Sequence[str], padding: str = "nop") -> str:
        functions = "".join(
            f"""
            .file "{name}.c"
            .text {2 * at + 1}
            .type {name}, @function
            {name}: mov ${at}, %eax; ret
            .size {name}, . - {name}"""
            for at, name in enumerate(names)
        )
        paddings = "".join(
            f"""
            .text {2 * at}
            .balign 16
            .type __pfx_{name}, @function
            __pfx_{name}: .rept 16; {padding}; .endr
            .size __pfx_{name}, . - __pfx_{name}"""
            for at, name in enumerate(names)
        )
        return f'{functions}\n.file "last.c"\n{paddings}\n'

    old = linked(["f", "g"])
    assert gcc.diff_assembly(old, linked(["f", "g", "h"])) == {("h", "function", "added")}
    assert gcc.diff_assembly(old, linked(["f", "g"], "int3")) == changed("f", "g")


# -- __LINE__ ---------------------------------------------------------------------------------------------------------


def test_number_that_moves_like_a_line_is_a_change_without_proof(cc: Compiler) -> None:
    """Two bare objects have no sources: an errno that went from 5 to 6 is no line number because something else is."""
    source = "int log(int); int f(int x) {{ return log({}); }} int g(int x) {{ return x ? -5 : log(9); }}"
    assert cc.diff(source.format(5), source.format(6)) == changed("f")
    line = "int log(int);\n%s int f(int x) { return log(__LINE__); }"
    assert cc.diff(line % "", line % "\n") == changed("f")


def test_function_moved_to_another_section_is_moved(cc: Compiler) -> None:
    source = "int other(int); {} int f(int x) {{ return other(x) + 3; }} int g(int x) {{ return f(x) * 5; }}"
    moved = '__attribute__((noinline, section(".noinstr.text")))'
    assert cc.diff(source.format("__attribute__((noinline))"), source.format(moved)) == {("f", "function", "moved")}


def test_static_function_moved_to_another_section_changes_no_caller(gcc: Compiler) -> None:
    """The call had no relocation before, and has one now; it still calls the same function."""
    source = "int other(int); {} static int f(int x) {{ return other(x) + 3; }} int g(int x) {{ return f(x) + 1; }}"
    moved = '__attribute__((noinline, section(".init.text")))'
    assert gcc.diff(source.format("__attribute__((noinline))"), source.format(moved)) == {("f", "function", "moved")}


# -- code without a symbol --------------------------------------------------------------------------------------------


def test_code_that_no_symbol_covers_is_an_entry_of_its_section(gcc: Compiler) -> None:
    source = '.section .entry.text, "ax"\n mov ${}, %eax\n call somewhere\n ret\n'
    assert gcc.diff_assembly(source.format(1), source.format(2)) == {(".entry.text", "section", "changed")}
    assert gcc.diff_assembly(source.format(1), source.format(1).replace("somewhere", "elsewhere")) == {
        (".entry.text", "section", "changed")
    }


def test_nops_that_are_a_whole_section_are_no_padding(gcc: Compiler) -> None:
    source = '.section .entry.text, "ax"\n .byte {}\n'
    assert gcc.diff_assembly(source.format("0x90"), source.format("0xcc")) == {(".entry.text", "section", "changed")}


def test_assembly_symbols_of_size_zero_cover_what_follows(gcc: Compiler) -> None:
    source = ".text\n.globl a\na: mov ${}, %eax\n ret\n.globl b\nb: mov $2, %eax\n{} ret\n.globl c\nc: ret\n"
    old = source.format(1, "")
    assert gcc.diff_assembly(old, source.format(3, "")) == changed("a")
    assert gcc.diff_assembly(old, source.format(1, "nop")) == changed("b")


def test_inner_labels_of_assembly_that_move_are_found(gcc: Compiler) -> None:
    source = ".text\n.globl a\n.type a, @function\na: {} nop\n {} nop\n ret\n.size a, . - a\n"
    assert gcc.diff_assembly(source.format("inner:", ""), source.format("", "inner:")) == changed("a")


def test_data_in_code_ends_decoding_and_not_detection(gcc: Compiler) -> None:
    """Bytes that are no instruction: what follows is compared as it stands."""
    source = ".text\n.globl a\n.type a, @function\na: ret\n.byte 0x06, {}\n.size a, . - a\n.globl b\nb: ret\n"
    assert gcc.diff_assembly(source.format(1), source.format(2)) == changed("a")
