# SPDX-License-Identifier: GPL-2.0-only
"""Another directory differs in nothing, whatever holds the names of source files; another path in the tree does."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from snippets import Changes, Compiler, changed, changes_of, data_changed

from kbuild_klp.builds.single_object import ObjectBuild
from kbuild_klp.compare.passes import compare
from kbuild_klp.report.model import Report

UBSAN = "-fsanitize=bounds"
BUG = (
    'asm volatile("1: ud2\\n.pushsection __bug_table,\\"aw\\"\\n.long 1b - ., %c0 - .\\n.word %c1, 3\\n.popsection"'
    ' :: "i"(__FILE__), "i"(7))'
)
HOLDERS = {
    "ubsan": "int f(int x) { return table[x]; }",
    "bug table": f"int f(int x) {{ {BUG}; return x; }}",
    "argument": "int f(int x) { return call(__FILE__, x); }",
    "nameless": "int f(int x) { static const struct where w = { __FILE__, 3 }; return call(&w, x); }",
    "variable": "struct where f = { __FILE__, 3 };",
    "array": "const char f[] = __FILE__;",
    "text": 'int f(int x) { return call("at " __FILE__ ":7\\n", call(__FILE__, x)); }',
}
HEAD = "extern int table[8]; int call(const void *, int); struct where { const char *file; int x; };\n"

SAME = [
    ("/build/linux-7.2.9/crypto/x.c", "/build/linux-7.2.12/crypto/x.c"),
    ("/build/linux-7.2.9/arch/x86/crypto/x.c", "/build/linux-7.2.12/arch/x86/crypto/x.c"),
    ("/usr/src/linux/fs/x.c", "/Users/me/kernel/fs/x.c"),
    ("/Users/kernel/old/fs/x.c", "/Users/kernel/new/fs/x.c"),
    ("/a/linux/net/core/x.c", "/b/linux/net/core/x.c"),
    ("/b/linux/net/x.c", "/b/linux/new/net/x.c"),
    ("/b/linux/new/net/x.c", "/b/linux/net/x.c"),
    ("fs/x.c", "/build/linux/fs/x.c"),
    ("/build/linux/fs/x.c", "fs/x.c"),
    ("../fs/x.c", "fs/x.c"),
    ("../linux-1/fs/x.c", "../linux-2/fs/x.c"),
    ("./include/linux/x.h", "/build/linux/include/linux/x.h"),
    ("/tmp/old/x.c", "/tmp/new/x.c"),
    ("/Users/me/module-1/core/x.c", "/Users/me/module-2/core/x.c"),
]
OTHER = [
    ("/build/linux/fs/ext2/x.c", "/build/linux/fs/ext4/x.c"),
    ("/build/linux-1/fs/ext2/x.c", "/build/linux-2/fs/ext4/x.c"),
    ("/build/linux-1/fs/x.c", "/build/linux-2/fs/y.c"),
    ("/build/linux-1/fs/x.c", "/build/linux-2/fs/x.h"),
    ("/build/linux-1/lib/crypto/x.c", "/build/linux-2/crypto/x.c"),
    ("/build/linux-1/drivers/net/x.c", "/build/linux-2/drivers/staging/net/x.c"),
    ("/build/linux/drivers/a/net/x.c", "/build/linux/drivers/b/net/x.c"),
    ("/build/linux/kernel/irq/x.c", "/build/linux/kernel/power/x.c"),
    ("fs/ext2/x.c", "fs/ext4/x.c"),
    ("x.c", "fs/x.c"),
    ("../fs/x.c", "../mm/x.c"),
    ("fs/x.c", "/build/linux/mm/x.c"),
    ("/fs/ext2/x.c", "/mm/x.c"),
    ("/build/linux/fs/x.c", "/build/linux/fs/fs/x.c"),
]


@pytest.fixture
def gcc(tmp_path: Path) -> Compiler:
    return Compiler("gcc", tmp_path)


def _object(compiler: Compiler, files: Mapping[str, str]) -> Path:
    """Assemble functions, by name, with a record of UBSAN each that names a file."""
    text = ""
    for name, file in files.items():
        text += f".text\n.globl {name}\n{name}: movq $1f, %rdi\n call __ubsan_handle_out_of_bounds\n ret\n"
        text += f".type {name}, @function\n.size {name}, . - {name}\n.data\n1: .quad 2f\n.long 7, 28\n"
        text += f'.section .rodata.str1.1, "aMS", @progbits, 1\n2: .asciz "{file}"\n'
    return compiler.assembly(text)


def _report(old: Path, new: Path) -> Report:
    return compare(ObjectBuild(str(old)), ObjectBuild(str(new)), 1)


@pytest.mark.parametrize("holder", HOLDERS)
def test_another_directory_is_the_build_speaking_of_itself(gcc: Compiler, holder: str) -> None:
    names = (*SAME[0], "/build/linux-7.2.12/crypto/other/x.c")
    old, new, other = (gcc.object(f'{HEAD}#line 7 "{name}"\n{HOLDERS[holder]}\n', UBSAN) for name in names)
    report = _report(old, new)
    assert changes_of(report) == set()
    assert report.summary.identity_only == 1
    want = data_changed("f") if holder in ("variable", "array") else changed("f")
    assert changes_of(_report(old, other)) == want


@pytest.mark.parametrize(("old", "new"), SAME)
def test_directories_of_trees(gcc: Compiler, old: str, new: str) -> None:
    report = _report(_object(gcc, {"f": old}), _object(gcc, {"f": new}))
    assert (changes_of(report), report.summary.identity_only) == (set(), 1)


@pytest.mark.parametrize(("old", "new"), [*OTHER, *(pair[::-1] for pair in OTHER)])
def test_other_paths_in_the_tree(gcc: Compiler, old: str, new: str) -> None:
    assert changes_of(_report(_object(gcc, {"f": old}), _object(gcc, {"f": new}))) == changed("f")


A, B, C = (f"/build/linux-{name}/" for name in "abc")


@pytest.mark.parametrize(
    ("old", "new", "want"),
    [
        ((A + "fs/x.c", A + "fs/y.h"), (B + "fs/x.c", B + "fs/y.h"), ""),
        ((A + "fs/x.c", "include/y.h"), (B + "fs/x.c", "include/y.h"), ""),
        # Two directories, and none is more likely than the other.
        ((A + "fs/x.c", A + "fs/y.h"), (B + "fs/x.c", C + "fs/y.h"), "fg"),
        # One that is still there.
        ((A + "fs/x.c", A + "fs/y.h"), (B + "fs/x.c", A + "fs/y.h"), "f"),
        # Another directory in one place.
        ((A + "fs/x.c", A + "fs/y.h", A + "fs/z.h"), (B + "fs/x.c", C + "fs/y.h", B + "fs/z.h"), "g"),
        ((A + "fs/x.c", A + "fs/y.h", A + "fs/z.h"), (B + "fs/x.c", B + "mm/y.h", B + "fs/z.h"), "g"),
        # One function names another file of the same tree now.
        ((A + "fs/x.c", A + "fs/y.h"), (B + "fs/x.c", B + "fs/x.c"), "g"),
        # Beside the directories lies what is the same: they are in one tree.
        (("/Users/me/module/a/x.c", "/Users/me/module/y.h"), ("/Users/me/module/b/x.c", "/Users/me/module/y.h"), "f"),
        (("/Users/me/module/a/x.c", "/Users/you/y.h"), ("/Users/me/module/b/x.c", "/Users/you/y.h"), ""),
    ],
)
def test_the_same_pair_throughout_the_object(
    gcc: Compiler, old: tuple[str, ...], new: tuple[str, ...], want: str
) -> None:
    sides = (_object(gcc, dict(zip("fgh", names, strict=False))) for names in (old, new))
    assert changes_of(_report(*sides)) == changed(*want)


def test_lines_and_another_directory(gcc: Compiler) -> None:
    text = HEAD + '#line %d "%s"\n' + HOLDERS["ubsan"] + "\nint g(int x) { return table[x] + %d; }\n"
    old, new = gcc.object(text % (7, SAME[0][0], 1), UBSAN), gcc.object(text % (9, SAME[0][1], 1), UBSAN)
    assert changes_of(_report(old, new)) == {("f", "function", "line-only"), ("g", "function", "line-only")}
    other = gcc.object(text % (9, SAME[0][1], 2), UBSAN)
    assert changes_of(_report(old, other)) == {("f", "function", "line-only"), ("g", "function", "changed")}


# -- modules as they are linked ---------------------------------------------------------------------------------------

# As scripts/module.lds.S of 7.x has them: what has a section of its own goes to all others.
SCRIPT = """SECTIONS {
  .text 0 : { *(.text .text.*) }
  .data 0 : { *(.data .data.* .data..L*) }
  .rodata 0 : { *(.rodata .rodata.*) }
  __bug_table 0 : { *(__bug_table) }
}
"""


def _linked(path: Path, script: str = SCRIPT) -> Path:
    (path.parent / "script").write_text(script)
    command = ["ld", "-r", "-T", "script", "-o", "linked.o", path.name]
    subprocess.run(command, cwd=path.parent, check=True)
    return path.parent / "linked.o"


def _module(compiler: Compiler, name: str, line: int = 7, more: str = "") -> Path:
    head = "extern int table[8]; int call(const void *, int);\n"
    constant = 'int k(int x) { return x == 3 ? call("three", x) : x; }\n'
    text = f'#line {line} "{name}"\nint f(int x) {{ return table[x]; }}\n'
    return _linked(compiler.object(head + constant + text + more, UBSAN, "-fdata-sections"))


@pytest.mark.parametrize(("old", "new"), SAME[:4])
def test_linked_modules_of_two_directories(gcc: Compiler, old: str, new: str) -> None:
    before, after, later = _module(gcc, old), _module(gcc, new), _module(gcc, new, 9)
    report = _report(before, after)
    assert changes_of(report) == set() and report.summary.identity_only
    assert changes_of(_report(before, later)) == {("f", "function", "line-only")}


@pytest.mark.parametrize(("old", "new"), OTHER[:4])
def test_linked_modules_with_other_paths(gcc: Compiler, old: str, new: str) -> None:
    assert changes_of(_report(_module(gcc, old), _module(gcc, new))) == changed("f")


def test_a_string_is_shown_as_one_where_the_flag_is_lost(gcc: Compiler) -> None:
    more = 'int g(int x) { return call("%s", x); }\n'
    old, new = (_module(gcc, "fs/x.c", more=more % word) for word in ("one word", "two words"))
    (change,) = _report(old, new).objects[0].changes
    assert change.symbol == "g"
    assert [reason.partition(": ")[2] for reason in change.reasons] == ['string "one word" -> "two words"']


@pytest.mark.parametrize(
    ("before", "after", "want"),
    [
        ('"/build/linux-1/fs/x.c", 7, 5, 1', '"/build/linux-2/fs/x.c", 7, 5, 1', ""),
        ('"/build/linux-1/fs/x.c", 7, 5, 1', '"/build/linux-2/fs/x.c", 9, 6, 1', "line-only"),
        ('"/build/linux-1/fs/x.c", 7, 5, 1', '"/build/linux-2/fs/x.c", 7, 5, 2', "changed"),
        ('"/build/linux-1/fs/x.c", 7, 5, 1', '"/build/linux-2/mm/x.c", 7, 5, 1', "changed"),
    ],
)
def test_what_is_left_of_checks_that_were_unnecessary(gcc: Compiler, before: str, after: str, want: str) -> None:
    """Nobody refers to it, and it lies in .data beside all else."""
    text = ".data\n.quad .Lname\n.long %s, %s, %s\n.section .rodata\n.Lname: .asciz %s\n.text\n"
    sides = []
    for values in (before, after):
        name, *numbers = values.split(", ")
        sides.append(gcc.assembly(text % (*numbers, name)))
    found = {(".data", "section", want)} if want else set()
    assert changes_of(_report(*sides)) == found


def test_data_with_places_that_are_none_of_ubsan(gcc: Compiler) -> None:
    """What looks like UBSAN's data is handed to somebody else, beside a call of UBSAN: its numbers are numbers."""
    text = (
        "f: movl $1f, %edi\n call {}\n movl $2f, %edi\n call __ubsan_handle_out_of_bounds\n ret\n.size f, . - f\n"
        ".type f, @function\n.data\n1: .quad 3f\n.long {}, 5\n2: .quad 3f\n.long 7, 5\n"
        '.section .rodata\n3: .asciz "x.c"\n'
    )
    old, new, ubsan = (
        gcc.assembly(text.format(*values))
        for values in (("report", 7), ("report", 9), ("__ubsan_handle_shift_out_of_bounds", 7))
    )
    assert changes_of(_report(old, new)) == changed("f")
    later = gcc.assembly(text.format("__ubsan_handle_shift_out_of_bounds", 9))
    assert changes_of(_report(ubsan, later)) == {("f", "function", "line-only")}


def test_a_module_says_of_which_release_it_is(gcc: Compiler) -> None:
    text = (
        '.section .modinfo,"a"\n.byte 0\n.asciz "vermagic={0} SMP mod_unload "\n.section .rodata\nname: .asciz "{1}"\n'
    )
    text += ".size name, . - name\n.type name, @object\n.globl name\n"
    old, new, other = (
        gcc.assembly(text.format(*values))
        for values in (("7.2.9-x", "of 7.2.9-x"), ("7.2.12-x", "of 7.2.12-x"), ("7.2.12-x", "of 7.2.11-x"))
    )
    found: Changes = changes_of(_report(old, new))
    assert found == set()
    assert changes_of(_report(old, other)) == data_changed("name")
