# SPDX-License-Identifier: GPL-2.0-only
"""What KASAN adds to an object: descriptors of all variables of a file, and strings about those on the stack.

Each table has an edit a row, and the whole answer: what is of lines only counts as nothing.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from snippets import KERNEL_FLAGS, Changes, Compiler, changed, data_changed
from watched_answers import NOTHING, added, answer, edited


def _with(compiler: Compiler, *flags: str) -> Compiler:
    directory = compiler.directory / "instrumented"
    directory.mkdir()
    return Compiler(compiler.command, directory, (*KERNEL_FLAGS, *flags))


KASAN = {
    "gcc": (
        "-fsanitize=kernel-address",
        "--param=asan-globals=1",
        "--param=asan-stack=1",
        "-fasan-shadow-offset=0xdffffc0000000000",
    ),
    "clang-19": (
        "-fsanitize=kernel-address",
        "-mllvm=-asan-globals=1",
        "-mllvm=-asan-stack=1",
        "-mllvm=-asan-mapping-offset=0xdffffc0000000000",
    ),
}
STACK = """
int use(void *);
int h(const char *);
%s
int f(int a) { char buf[9]; int other; use(&other); return use(buf) + a; }
int g(int a) { return a + 100; }
"""


@pytest.mark.parametrize("lines", [0, 4, 92])  # the number in the string is longer, and its length stands before it
@pytest.mark.parametrize(
    ("edit", "want"),
    [
        (("", ""), NOTHING),
        (("+ 100", "+ 101"), changed("g")),
        (("buf[9]", "buf[11]"), changed("f")),
        (("char buf", "char but"), changed("f")),
        (("other; use(&other)", "third; use(&third)"), changed("f")),
    ],
)
def test_kasan_strings_of_the_stack(cc: Compiler, lines: int, edit: tuple[str, str], want: Changes) -> None:
    cc = _with(cc, *KASAN[cc.command])
    source = STACK % ("\n" * lines)
    new = edited(source, edit).replace("use(but)", "use(but)" if "but" in edit[1] else "use(buf)")
    new = new.replace("use(buf)", "use(but)") if "but" in edit[1] else new
    assert answer(cc.object(source), cc.object(new)) == want


def test_a_string_like_those_of_kasan_is_a_string(gcc: Compiler) -> None:
    source = 'int h(const char *); int f(void) { return h("1 32 9 5 buf:5"); }\n'
    assert answer(gcc.object(source), gcc.object(source.replace("buf:5", "buf:7"))) == changed("f")
    kasan = _with(gcc, *KASAN["gcc"])
    source = STACK % 'int k(void) { char c[4]; use(c); return h("2 32 9 5 buf:5"); }'
    assert answer(kasan.object(source), kasan.object(source.replace("buf:5", "buf:7"))) == changed("k")


# Clang's variables have their redzones in them.
CLANG_WANTS = {("table[5]", "table[6]"): changed("asan.module_ctor", "asan.module_dtor")}
GLOBALS = """
int use(const void *);
int table[5] = { 1, 2, 3 };
static int state[2];
/* more */
int f(int a) { state[1] += a; return use(table) + use(state) + use("text"); }
"""


@pytest.mark.parametrize(
    ("edit", "want"),
    [
        (("", ""), NOTHING),
        (("{ 1,", "{ 7,"), data_changed("table")),
        (("+= a", "+= a + 1"), changed("f")),
        (('"text"', '"other text"'), changed("f")),
        (("table[5]", "table[6]"), data_changed("table")),
        (("table[5]", "table[50]"), data_changed("table")),
        (('use("text")', 'use("text") + use("more")'), changed("f")),
        (("/* more */", 'int fresh(void) { return use("first"); }'), added("function", "fresh")),
        (("/* more */", 'const char *fresh = "first";'), added("data", "fresh")),
        (("int table", "const int table"), {("table", "data", "moved")}),
        (("/* more */", "int fresh[3] = { 1 };"), added("data", "fresh")),
        (("int table", "int fresh[3] = { 1 }; int table"), added("data", "fresh")),
        (("/* more */", "int fresh[3];"), added("data", "fresh")),
        (("return use", "static int fresh = 1; return use(&fresh) + use"), changed("f") | added("data", "fresh")),
        (("return use", "static int fresh; return use(&fresh) + use"), changed("f") | added("data", "fresh")),
    ],
)
def test_kasan_descriptors_of_variables(cc: Compiler, edit: tuple[str, str], want: Changes) -> None:
    cc = _with(cc, *KASAN[cc.command])
    old, new = cc.object(GLOBALS), cc.object(edited(GLOBALS, edit))
    if cc.command != "gcc":
        want = CLANG_WANTS.get(edit, want)
        if "static" in edit[1]:  # Clang calls it by its function, too
            want = {(symbol.replace("fresh", "f.fresh"), kind, change) for symbol, kind, change in want}
    assert answer(old, new) == want
    other_way = {"added": "removed"}
    assert answer(new, old) == {(symbol, kind, other_way.get(change, change)) for symbol, kind, change in want}


NO_VARIABLES = """
int use(const void *);
static int both(int a) { return a + 3; }
/* more */
int f(int a) { return use(0) + both(a); }
int g(int a) { return both(a) - 1; }
"""


@pytest.mark.parametrize(
    ("edit", "want"),
    [
        (("/* more */", "int fresh[3] = { 1 };"), added("data", "fresh")),
        (("/* more */", 'const char *fresh = "first";'), added("data", "fresh")),
        (("use(0)", 'use("first" + a)'), changed("f")),
        (
            ("/* more */", "static int fresh; int h(int a) { return fresh += a; }"),
            added("data", "fresh") | added("function", "h"),
        ),
    ],
)
def test_kasan_constructor_comes_with_the_first_variable(cc: Compiler, edit: tuple[str, str], want: Changes) -> None:
    cc = _with(cc, *KASAN[cc.command])
    old, new = cc.object(NO_VARIABLES), cc.object(edited(NO_VARIABLES, edit))
    assert answer(old, new) == want
    other_way = {"added": "removed"}
    assert answer(new, old) == {(symbol, kind, other_way.get(change, change)) for symbol, kind, change in want}


CONSTRUCTOR = {"gcc": "_sub_I_65535", "clang-19": "asan.module_ctor"}


@pytest.mark.parametrize("edit", [("/* more */", "int fresh[3] = { 1 };"), ("use(0)", 'use("first")')])
def test_kasan_constructor_that_comes_by_itself_is_told(cc: Compiler, edit: tuple[str, str]) -> None:
    """Variables that were there are watched now."""
    flags = KASAN[cc.command]
    off = [flag.replace("asan-globals=1", "asan-globals=0") for flag in flags]
    assert [*flags] != off
    cc = _with(cc, *flags)
    source = edited(NO_VARIABLES, edit)
    found = answer(cc.object(source, *off), cc.object(source))
    assert CONSTRUCTOR[cc.command] in {symbol for symbol, _, _ in found}


def test_constructor_that_is_not_kasan_s_is_told(gcc: Compiler) -> None:
    gcc = _with(gcc, *KASAN["gcc"])
    more = "int count; __attribute__((constructor)) static void _sub_I_65535_7(void) { use(&count); }"
    found = answer(gcc.object(NO_VARIABLES), gcc.object(edited(NO_VARIABLES, ("/* more */", more))))
    assert ("_sub_I_65535", "function", "added") in found


def test_kasan_constructor_with_the_hash_of_its_type(tmp_path: Path) -> None:
    kcfi = _with(
        Compiler("clang-19", tmp_path), *KASAN["clang-19"], "-fsanitize=kcfi", "-fpatchable-function-entry=11,11"
    )
    old = kcfi.object(GLOBALS)
    assert answer(old, kcfi.object(edited(GLOBALS, ("", "")))) == NOTHING
    fresh = edited(GLOBALS, ("/* more */", "int fresh[3] = { 1 };"))
    assert answer(old, kcfi.object(fresh)) == added("data", "fresh")


SWITCH = """
int use(const void *);
/* more */
const char *f(int a)
{
	switch (a) { case 0: return "a"; case 1: return "b"; case 2: return "c"; case 3: return "d"; case 4: return "e"; }
	return 0;
}
"""


def test_kasan_descriptors_of_tables_that_the_compiler_made(gcc: Compiler) -> None:
    kasan = _with(gcc, *KASAN["gcc"])
    more = "static int fresh = 1; int g(int a) { static int inner = 1; return use(&fresh) + inner++; }"
    old, new = (kasan.object(source) for source in (SWITCH, edited(SWITCH, ("/* more */", more))))
    assert answer(old, new) == added("function", "g") | added("data", "fresh", "inner")
    assert answer(old, kasan.object(SWITCH.replace('"c"', '"d"'))) == changed("f")


ONLY_REGISTERED = """
.text
_sub_I_65535_1: movl $1, %esi
	movl $1f, %edi
	jmp __asan_register_globals
.size _sub_I_65535_1, . - _sub_I_65535_1
.type _sub_I_65535_1, @function
.data
1: .quad table.5, 4, 64, 2f, 3f, 0, 0, 0
# behind
.section .rodata, "a"
.balign 32
.type table.5, @object
table.5: .long 7
.size table.5, 4
.zero 60
.section .rodata.str1.1, "aMS", @progbits, 1
2: .asciz "table"
3: .asciz "a.c"
"""
FRESH = """
.quad fresh, 4, 64, 4f, 3f, 0, 0, 0
.balign 32
.globl fresh
.type fresh, @object
fresh: .long 1
.size fresh, 4
.zero 60
.section .rodata.str1.1, "aMS", @progbits, 1
4: .asciz "fresh"
"""


@pytest.mark.parametrize(
    ("value", "more", "want"),
    [
        ("7", "", NOTHING),
        ("7", FRESH, added("data", "fresh")),
        ("8", "", changed("_sub_I_65535")),
        ("8", FRESH, changed("_sub_I_65535") | added("data", "fresh")),
    ],
)
def test_kasan_descriptor_of_what_nobody_uses(gcc: Compiler, value: str, more: str, want: Changes) -> None:
    """That is all that is told of it, as of KVM's kvm_emulate_prefix."""
    new = ONLY_REGISTERED.replace(".long 7", f".long {value}").replace("# behind", more)
    new = new.replace("$1, %esi", "$2, %esi") if more else new
    assert answer(gcc.assembly(ONLY_REGISTERED), gcc.assembly(new)) == want


OLDER = ONLY_REGISTERED.replace(" 0, 0, 0\n", " 0, 0\n")
OLDER_FRESH = FRESH.replace(" 0, 0, 0\n", " 0, 0\n").replace("fresh", "a_fresh")


@pytest.mark.parametrize(
    ("value", "more", "want"),
    [
        ("7", "", NOTHING),
        ("7", OLDER_FRESH, added("data", "a_fresh")),
        ("8", "", changed("_GLOBAL__sub_I_65535")),
        ("8", OLDER_FRESH, changed("_GLOBAL__sub_I_65535") | added("data", "a_fresh")),
    ],
)
def test_kasan_constructor_of_older_gcc(gcc: Compiler, value: str, more: str, want: Changes) -> None:
    """It is called after the first symbol of the file (up to 8), and descriptors have seven words (5)."""
    old = OLDER.replace("_I_65535_1", "_I_65535_1_a.c").replace("_sub_I", "_GLOBAL__sub_I")
    new = OLDER.replace("_I_65535_1", f"_I_65535_1_{'a_fresh' if more else 'a.c'}").replace("_sub_I", "_GLOBAL__sub_I")
    new = new.replace(".long 7", f".long {value}").replace("# behind", more)
    new = new.replace("$1, %esi", "$2, %esi") if more else new
    assert answer(gcc.assembly(old), gcc.assembly(new)) == want


REDZONE = """
.text
_sub_I_65535_1: movl $1, %esi
	movl $1f, %edi
	jmp __asan_register_globals
.size _sub_I_65535_1, . - _sub_I_65535_1
.type _sub_I_65535_1, @function
.data
.balign 32
.globl table
.type table, @object
table: .long 1, 2, 3, 4, 5
.size table, 20
.zero 44
# behind
1: .quad table, 20, 64, 2f, 3f, 0, 0, 0
.section .rodata.str1.1, "aMS", @progbits, 1
2: .asciz "table"
3: .asciz "a.c"
"""


@pytest.mark.parametrize(
    ("edit", "want"),
    [
        ((".zero 44", ".zero 44"), NOTHING),
        ((".zero 44", ".zero 43; .byte 1"), {(".data", "section", "changed")}),
        ((".zero 44", ".long 1; .zero 40"), {(".data", "section", "changed")}),
        ((".zero 44", ".zero 12; .quad outside; .zero 24"), {(".data", "section", "changed")}),
        (("# behind", ".zero 31"), NOTHING),
        (("# behind", ".zero 32"), NOTHING),
        (("# behind", ".zero 31; .byte 1"), {(".data", "section", "changed")}),
        (("# behind", ".globl fresh; fresh: .long 0; .size fresh, 4; .type fresh, @object"), added("data", "fresh")),
    ],
)
def test_redzone_is_zeros_that_a_descriptor_tells_of(gcc: Compiler, edit: tuple[str, str], want: Changes) -> None:
    assert edit[0] in REDZONE
    assert answer(gcc.assembly(REDZONE), gcc.assembly(REDZONE.replace(*edit, 1))) == want


@pytest.mark.parametrize(
    "edit", [(".quad 20", ".quad 19"), (".quad 64", ".quad 96"), ("$1", "$0"), (".quad 0", ".quad 1")]
)
def test_what_does_not_follow_from_the_variables(gcc: Compiler, edit: tuple[str, str]) -> None:
    source = """
_sub_I_65535_1: movl $1, %esi
	movl $1f, %edi
	jmp __asan_register_globals
.size _sub_I_65535_1, . - _sub_I_65535_1
.type _sub_I_65535_1, @function
.data
1: .quad table
.quad 20
.quad 64
.quad 2f
.quad 3f
.quad 0, 0, 0
.globl table
.type table, @object
table: .zero 64
.size table, 20
.section .rodata.str1.1, "aMS", @progbits, 1
2: .asciz "table"
3: .asciz "a.c"
"""
    assert edit[0] in source
    assert answer(gcc.assembly(source), gcc.assembly(source.replace(*edit, 1))) == changed("_sub_I_65535")
