# SPDX-License-Identifier: GPL-2.0-only
"""The oracle: it has to find each sort of change, and nothing else, before it may judge anything."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from oracle import by_section, opinion
from oracle.listing import Listing
from snippets import Compiler

SOURCE = r"""
int printk(const char *, ...);
int outside(int);
extern int key, other_key;
static int hidden = 3;
int table[] = {1, 2, 3};
static int (*const calls[])(int) = {outside, 0};
static int __attribute__((noinline)) helper(int x) { static int count; return count += x + hidden; }
void hide(int x) { hidden = x; }
int text(int x) { return printk("text %d\n", x); }
int call(int x) { return helper(x) + calls[x & 1](x) + 1; }
int later(int x) { return outside(x) ? helper(x) + 2 : table[x]; }
int name(int x) { return printk("%s", __func__) + x; }
int alternative(int x)
{
    asm volatile("661: .byte 0x90,0x90,0x90\n.pushsection .altinstructions,\"a\"\n.long 661b - ., 6641f - .\n"
                 ".word 5, 0\n.byte 3, 3\n.popsection\n"
                 ".pushsection .altinstr_replacement,\"ax\"\n6641: stac\n.popsection");
    return outside(x);
}
int warns(int x)
{
    asm volatile("1: ud2\n.pushsection __bug_table,\"aw\"\n.long 1b - ., %c0 - .\n.word %c1, %c2\n.popsection"
                 :: "i"("file.c"), "i"(12), "i"(3));
    return outside(x) + 2;
}
int guarded(int x)
{
    asm volatile("1: movl %0,%0\n2:\n.pushsection __ex_table,\"a\"\n.long 1b - ., 2b - ., 3\n.popsection" : "+r"(x));
    return x;
}
int jumps(int x)
{
    asm volatile("1: .byte 0x0f,0x1f,0x44,0,0\n.pushsection __jump_table,\"aw\"\n.balign 8\n.long 1b - ., 1b - .\n"
                 ".quad %c0 - .\n.popsection" :: "i"(&key));
    return x + 9;
}
"""

FUNCTIONS = [
    ("text", '"text %d\\n"', '"text %u\\n"'),
    ("text", 'printk("text', 'outside + printk("text'),
    ("helper", "x + hidden", "x - hidden"),
    ("call", "calls[x & 1](x) + 1", "calls[x & 1](x) + 2"),
    ("call", "helper(x) + calls", "outside(x) + calls"),
    ("later", "helper(x) + 2", "helper(x + 1)"),
    ("alternative", ".word 5, 0", ".word 6, 0"),
    ("alternative", "6641: stac", "6641: clac"),
    ("warns", '"i"(3));', '"i"(2));'),
    ("warns", '"file.c"', '"elif.c"'),
    ("guarded", "2b - ., 3", "2b - ., 4"),
    ("guarded", ".long 1b - ., 2b - ., 3", ".long 1b - ., 1b - ., 3"),
    ("jumps", '"i"(&key)', '"i"(&other_key)'),
]
DATA = [
    ("table", "table[] = {1, 2, 3}", "table[] = {1, 2, 4}"),
    ("hidden", "hidden = 3", "hidden = 4"),
    ("calls", "calls[])(int) = {outside, 0}", "calls[])(int) = {outside, outside}"),
]


@pytest.mark.parametrize(("name", "old", "new"), FUNCTIONS, ids=[f"{row[0]}: {row[2]}" for row in FUNCTIONS])
def test_a_changed_function(gcc: Compiler, name: str, old: str, new: str) -> None:
    pair = gcc.object(SOURCE), gcc.object(SOURCE.replace(old, new))
    assert opinion.differences(*pair) == {("function", name): "changed"}


@pytest.mark.parametrize(("name", "old", "new"), DATA, ids=[row[0] for row in DATA])
def test_changed_data(gcc: Compiler, name: str, old: str, new: str) -> None:
    pair = gcc.object(SOURCE), gcc.object(SOURCE.replace(old, new))
    assert opinion.differences(*pair) == {("data", name): "changed"}


@pytest.mark.parametrize(("name", "old", "new"), FUNCTIONS + DATA, ids=lambda text: text[:12])
def test_sections_say_the_same(gcc: Compiler, name: str, old: str, new: str) -> None:
    flags = "-ffunction-sections", "-fdata-sections"
    pair = gcc.object(SOURCE, *flags), gcc.object(SOURCE.replace(old, new), *flags)
    answer, asked = by_section.differences(*pair)
    kind = "data" if (name, old, new) in DATA else "function"
    assert answer == {(kind, name): "changed"}
    assert {("function", name) for name, _, _ in FUNCTIONS} <= asked


def test_neighbours_stay_the_same(gcc: Compiler) -> None:
    more = SOURCE.replace(
        "int text(", "static int new_one[7] = {1}; int first(int x) { new_one[x]++; return 3; }\nint text("
    )
    answer = opinion.differences(gcc.object(SOURCE), gcc.object(more))
    assert answer == {("function", "first"): "added", ("data", "new_one"): "added"}
    assert opinion.differences(gcc.object(more), gcc.object(SOURCE)) == dict.fromkeys(answer, "removed")


def test_attributes_and_sections(gcc: Compiler) -> None:
    old = gcc.object(SOURCE)
    weak = gcc.object(SOURCE.replace("int text(", "__attribute__((weak)) int text("))
    assert opinion.differences(old, weak) == {("function", "text"): "changed"}
    moved = gcc.object(SOURCE.replace("int text(", '__attribute__((section(".other.text"))) int text('))
    assert opinion.differences(old, moved) == {("function", "text"): "moved"}
    line = gcc.object(SOURCE.replace('"i"(12)', '"i"(13)'))
    assert opinion.differences(old, line) == {("function", "warns"): "line-only"}


def test_bytes_under_no_symbol(gcc: Compiler) -> None:
    answer = opinion.differences(gcc.assembly(".data\n.long 1, 2\n"), gcc.assembly(".data\n.long 1, 3\n"))
    assert answer == {("section", ".data"): "changed"}


# LKGS %di, and what follows it in mm_release of Linux 6.12; binutils 2.40 makes a branch of "70 83" in it.
LKGS = "f20f00f7 31c0 8ee0 488bbdf0040000 4885ff 7413 8b4370 83f801 7f64 c3"


def test_an_instruction_that_objdump_does_not_know(gcc: Compiler, monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets out of step there, and a branch of that stretch goes to wherever the neighbours are."""
    code = ", ".join(f"0x{byte:02x}" for byte in bytes.fromhex(LKGS))
    far = f"f: .byte {code}\n.type f,@function\n.size f,.-f\n"
    near = ".zero 200\ng: nop\n{}ret\n.type g,@function\n.size g,.-g\n"
    pair = [gcc.assembly(near.format(text) + far) for text in ("", "nop\n")]
    assert opinion.differences(*pair) == {("function", "g"): "changed"}
    if any("(bad)" in instruction.text for instruction in Listing(pair[0]).code[".text"]):
        monkeypatch.setattr(opinion, "_ASTRAY", 0)
        assert ("function", "f") in opinion.differences(*pair)


HANDED_OVER = """
.text
.type f, @function
f: ud2
lea {row}(%rip), %rdi
.size f, . - f
.type g, @function
g: ud2
nop
.size g, . - g
.section __bug_table, "aw"
.Lfirst: .long f - ., .Lname - .Lfirst
.word {line}, 1
.Lsecond: .long g - ., .Lname - .Lsecond
.word 20, {flags}
.section .rodata.str1.1, "aMS", @progbits, 1
.Lname: .string "a.c"
"""


def test_a_row_that_code_refers_to_is_no_more_than_itself(gcc: Compiler) -> None:
    def differences(**change: object) -> opinion.Answer:
        values: dict[str, object] = {"row": ".Lfirst", "line": 10, "flags": 1}
        return opinion.differences(
            gcc.assembly(HANDED_OVER.format(**values)), gcc.assembly(HANDED_OVER.format(**values | change))
        )

    assert differences() == {}
    assert differences(row=".Lsecond") == {("function", "f"): "changed"}
    assert differences(flags=3) == {("function", "g"): "changed"}
    assert differences(line=11) == {("function", "f"): "line-only"}


def test_jump_labels_that_are_addresses(gcc: Compiler) -> None:
    """Before 4.20: struct jump_entry in arch/x86/include/asm/jump_label.h."""
    source = "{}\n.type f, @function\nf: nop\n1: ret\n.size f, . - f\n"
    source += '.section __jump_table, "aw"\n.quad f, 1b, key\n.quad 1b, f, {}\n'
    old = gcc.assembly(source.format(".text", "other"))
    assert opinion.differences(old, gcc.assembly(source.format(".text", "other + 1"))) == {("function", "f"): "changed"}
    assert opinion.differences(old, gcc.assembly(source.format(".text\nnop\nnop", "other"))) == {}


def test_what_aligns_the_next_string_is_no_part_of_one(gcc: Compiler) -> None:
    source = ".data\n.globl p\np: .quad .Ls, .Lt\n.size p, 16\n.type p, @object\n"
    source += ".section .rodata\n.Ls: .string {}\n.Lt: .byte 7\n"
    old = gcc.assembly(source.format('"a"'))
    assert opinion.differences(old, gcc.assembly(source.format('"a"\n.zero 2'))) == {}
    assert opinion.differences(old, gcc.assembly(source.format('"b"'))) == {("data", "p"): "changed"}


def test_it_shares_no_code_with_what_it_judges() -> None:
    for path in sorted(Path(opinion.__file__).parent.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.startswith("kbuild_klp")], path
