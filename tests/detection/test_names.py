# SPDX-License-Identifier: GPL-2.0-only
"""Who is who: numbered statics, clones, aliases, attributes of symbols, and objects with unusual tables."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from snippets import Changes, Compiler, changed, data_changed, diff_objects

# -- numbered statics -------------------------------------------------------------------------------------------------

COUNTERS = """
%s
int a(int x) { static int count = 1; return count += x; }
int b(int x) { static int count = 2; return count -= x; }
int c(int x) { static int count = 3; return count ^= x; }
"""


@pytest.mark.parametrize(
    "head",
    ["int z(void) { static int count = 9; return count++; }", "int z(void) { static int other; return other++; }"],
)
def test_new_static_at_the_top_renumbers_others_and_changes_none(cc: Compiler, head: str) -> None:
    name = "count" if "count" in head else "other"
    name = name if cc.command == "gcc" else f"z.{name}"
    expected = {("z", "function", "added"), (name, "data", "added")}
    assert cc.diff(COUNTERS % "", COUNTERS % head) == expected


def test_new_variable_at_the_top_changes_nobody(cc: Compiler) -> None:
    assert cc.diff(COUNTERS % "", COUNTERS % 'int fresh = 7; int zero; const char text[] = "text";') == {
        ("fresh", "data", "added"),
        ("zero", "data", "added"),
        ("text", "data", "added"),
    }


def test_static_locals_whose_functions_trade_places_are_unchanged(gcc: Compiler) -> None:
    lines = [line for line in (COUNTERS % "").splitlines() if line]
    flags = ["-fno-toplevel-reorder"]
    assert gcc.diff("\n".join(lines), "\n".join(reversed(lines)), *flags) == set()


def test_static_locals_that_trade_values_are_changed(gcc: Compiler) -> None:
    """count.0 is now what count.1 was: the names say nothing, the users tell."""
    source = (
        "int a(int x) {{ static int count = {}; return count += x; }} "
        "int b(int x) {{ static int count = {}; return count -= x; }}"
    )
    assert gcc.diff(source.format(1, 2), source.format(2, 1)) == data_changed("count")


def test_static_local_that_changes_among_equals_is_the_only_one(cc: Compiler) -> None:
    new = (COUNTERS % "").replace("count = 2", "count = 5")
    assert cc.diff(COUNTERS % "", new) == data_changed("count" if cc.command == "gcc" else "b.count")


SHARED = """
static inline __attribute__((always_inline)) int next(int x) {{ static int count; return count += x; }}
static inline __attribute__((always_inline)) int next2(int x) {{ static int count; return count += x; }}
int a(int x) {{ return next(x) * 3; }}
int b(int x) {{ return {}(x) * 5; }}
int c(int x) {{ return next2(x) * 7; }}
"""


def test_static_that_two_functions_no_longer_share_is_found(gcc: Compiler) -> None:
    assert gcc.diff(SHARED.format("next"), SHARED.format("next2")) == changed("b")


def test_static_that_two_functions_share_from_now_on_is_found(gcc: Compiler) -> None:
    one = "static inline __attribute__((always_inline)) int next(int x) { static int count; return count += x; }"
    two = one.replace("next", "next2")
    users = "int a(int x) { return next(x) * 3; } int b(int x) { return %s(x) * 5; }"
    old, new = one + two + users % "next2", one + users % "next"
    assert gcc.diff(old, new) == changed("b") | {("count", "data", "removed")}


def test_two_statics_of_one_name_in_one_function_that_trade_roles_are_found(gcc: Compiler) -> None:
    source = """
    int f(int x) {{ int r = 0; {{ static int count; r += count++ + x; }} {{ static int count;
      r ^= count--; }} return r; }}
    int g(int x) {{ int r; {{ static int state = 1; r = state++; {{ static int state = 2; r -= {}; }} }} return r; }}
    """
    assert gcc.diff(source.format("state++"), source.format("state")) >= changed("g")


def test_size_of_a_static_is_seen_although_it_has_no_bytes(cc: Compiler) -> None:
    source = "static char buffer[{}]; char *f(int x) {{ return buffer + x; }} int g(void) {{ return 4; }}"
    assert cc.diff(source.format(64), source.format(128)) == data_changed("buffer")


# -- clones -----------------------------------------------------------------------------------------------------------


def test_clone_that_appears_is_the_same_function_changed(gcc: Compiler) -> None:
    """foo becomes foo.constprop.0 when all its callers pass the same constant."""
    source = """
    int ext(int), ext2(int);
    static __attribute__((noinline)) int foo(int x, int y) {{ return ext(x) + ext2(y) * y; }}
    int a(int x) {{ return foo(x, {}) + 1; }} int b(int x) {{ return foo(x, {}) + 2; }}
      int c(int x) {{ return ext(x) + 3; }}
    """
    old, new = source.format("x", "x"), source.format("7", "7")
    names = gcc.object(new).read_bytes()
    assert b"foo.constprop.0" in names
    answer = gcc.diff(old, new)
    assert answer - {("foo.constprop", "function", "changed")} == changed("a", "b")
    assert ("foo.constprop", "function", "changed") in answer
    back = gcc.diff(new, old)
    assert back == changed("foo", "a", "b")


@pytest.mark.parametrize("suffix", ["isra.0", "part.0", "constprop.0", "isra.0.constprop.1", "localalias"])
def test_function_that_gains_a_suffix_is_not_removed_and_added(gcc: Compiler, suffix: str) -> None:
    source = """
    .text\n.type {0}, @function\n{0}: mov ${1}, %eax\nret\n.size {0}, . - {0}
    .globl g\n.type g, @function\ng: call {0}\nnop\nret\n.size g, . - g
    .globl h\n.type h, @function\nh: ret\n.size h, 1
    """
    answer = gcc.diff_assembly(source.format("foo", 1), source.format(f"foo.{suffix}", 2))
    assert {(symbol.partition(".")[0], kind, change) for symbol, kind, change in answer} == changed("foo", "g")


def test_clones_that_are_renumbered_are_unchanged(gcc: Compiler) -> None:
    source = """
    int ext(int);
    {}
    static __attribute__((noinline)) int foo(int x, int y) {{ return ext(x + y) * y; }}
    int a(int x) {{ return foo(x, 7) + 1; }} int b(int x) {{ return foo(x, 7) + 2; }}
    """
    fresh = """
    static __attribute__((noinline)) int bar(int x, int y) { return ext(x - y) * y; }
    int z(int x) { return bar(x, 9) + 1; } int y(int x) { return bar(x, 9) + 2; }
    """
    answer = gcc.diff(source.format(""), source.format(fresh))
    assert answer == {("z", "function", "added"), ("y", "function", "added"), ("bar.constprop", "function", "added")}


CLONES = """
    .text
    .type foo.constprop.0, @function
    foo.constprop.0: mov ${0}, %eax
    ret
    .size foo.constprop.0, . - foo.constprop.0
    .type foo.constprop.1, @function
    foo.constprop.1: mov ${1}, %eax
    ret
    .size foo.constprop.1, . - foo.constprop.1
    .globl a, b
    .type a, @function
    a: call foo.constprop.{2}
    ret
    .size a, . - a
    .type b, @function
    b: call foo.constprop.{3}
    mov $1, %eax
    ret
    .size b, . - b
"""


def test_clones_that_trade_numbers_are_unchanged(gcc: Compiler) -> None:
    assert gcc.diff_assembly(CLONES.format(1, 2, 0, 1), CLONES.format(2, 1, 1, 0)) == set()


def test_clones_that_trade_bodies_are_found(gcc: Compiler) -> None:
    """Who is called changed for both callers, whatever it is called."""
    answer = gcc.diff_assembly(CLONES.format(1, 2, 0, 1), CLONES.format(2, 1, 0, 1))
    assert answer and answer <= changed("a", "b", "foo.constprop")


def test_caller_that_turns_to_the_other_clone_is_found(gcc: Compiler) -> None:
    assert gcc.diff_assembly(CLONES.format(1, 2, 0, 1), CLONES.format(1, 2, 0, 0)) == changed("b")


# -- numbers of macros ------------------------------------------------------------------------------------------------

UNIQUE = """
%s
#define PASTE(a, b) a##b
#define NAME(a, b) PASTE(a, b)
#define INFO(tag, text) static const char NAME(__UNIQUE_ID_##tag, __COUNTER__)[] \\
    __attribute__((used, section(".modinfo"), aligned(1))) = #tag "=" text
INFO(license, "%s");
INFO(author, "a person");
INFO(author, "another person");
int f(int x) { return x; }
"""


def test_unique_ids_that_are_renumbered_are_unchanged(cc: Compiler) -> None:
    new = "static int unused = __COUNTER__ + __COUNTER__;"
    assert cc.diff(UNIQUE % ("", "GPL"), UNIQUE % (new, "GPL")) == set()


def test_content_of_a_unique_id_is_found(cc: Compiler) -> None:
    assert cc.diff(UNIQUE % ("", "GPL"), UNIQUE % ("", "MIT")) == data_changed("__UNIQUE_ID_license")


def test_initcall_is_told_by_its_function_not_by_its_line(gcc: Compiler) -> None:
    source = """
    int f(void) {{ return 0; }} int g(void) {{ return 1; }}
    static void *__initcall__kmod_unit__{}_{}_{}6 __attribute__((used, section(".initcall6.init"))) = {};
    """
    old = source.format(123, 45, "f", "f")
    assert gcc.diff(old, source.format(125, 47, "f", "f")) == set()
    assert gcc.diff(old, source.format(123, 45, "g", "g")) == {
        ("__initcall__kmod_unit__f6", "data", "removed"),
        ("__initcall__kmod_unit__g6", "data", "added"),
    }
    assert gcc.diff(old, source.format(123, 45, "f", "g")) == data_changed("__initcall__kmod_unit__f6")


# -- attributes of symbols --------------------------------------------------------------------------------------------

ATTRIBUTES = """
{0} __attribute__((noinline, used)) int f(int x) {{ return x * 3; }}
__attribute__((used)) int g(int x) {{ return x * 5; }}
{1} int variable __attribute__((used)) = 4;
"""


@pytest.mark.parametrize(
    ("attribute", "function", "variable"),
    [("static", "f", "variable"), ("__attribute__((weak))", "f", "variable")]
    + [(f'__attribute__((visibility("{kind}")))', "f", "variable") for kind in ("hidden", "protected", "internal")],
)
def test_binding_and_visibility_are_found(cc: Compiler, attribute: str, function: str, variable: str) -> None:
    old = ATTRIBUTES.format("", "")
    assert cc.diff(old, ATTRIBUTES.format(attribute, "")) == changed(function)
    assert cc.diff(ATTRIBUTES.format(attribute, ""), old) == changed(function)
    assert cc.diff(old, ATTRIBUTES.format("", attribute)) == data_changed(variable)


def test_alias_that_comes_or_goes_is_found(cc: Compiler) -> None:
    source = "int f(int x) { return x * 3; } int g(int x) { return x * 5; } "
    alias = 'int h(int x) __attribute__((alias("f")));'
    assert cc.diff(source, source + alias) == changed("f")
    assert cc.diff(source + alias, source) == changed("f")
    assert cc.diff(source + alias, source + alias.replace('"f"', '"g"')) == changed("f", "g")
    assert cc.diff(source + alias, source + alias.replace("alias(", "weak, alias(")) == changed("f")


def test_alias_of_a_numbered_constant_changes_with_its_content(gcc: Compiler) -> None:
    source = (
        '.globl f\n.type f, @function\nf: mov table.0(%rip), %rax\nret\n.size f, . - f\n.section .rodata, "a"\n'
        ".type table.0, @object\n.size table.0, 8\n.type window, @object\n.size window, {}\n"
        "table.0: window: .quad {}\n"
    )
    assert gcc.diff_assembly(source.format(8, 1), source.format(8, 2)) == changed("f") | data_changed("window")
    assert gcc.diff_assembly(source.format(8, 1), source.format(4, 1)) == data_changed("window")


def test_one_descriptor_for_two_that_look_alike_is_a_change(gcc: Compiler) -> None:
    where = '__attribute__((section("__dyndbg"), used, aligned(8))) = { "m", 0, 0, "text" }'
    source = (
        "struct _ddebug { const char *modname, *function, *filename, *format; unsigned long line; void *key[2]; };\n"
        f"int emit(struct _ddebug *); int f(int x) {{ static struct _ddebug a {where}; static struct _ddebug b {where};"
        " return emit(&a) + emit(&@) * x; }"
    )
    assert ("f", "function", "changed") in gcc.diff(source.replace("@", "b"), source.replace("@", "a"))


def test_alias_changes_nothing_for_who_refers_to_the_function(cc: Compiler) -> None:
    source = "int f(int x) {{ return x * 3; }} {} int (*user)(int) = f;"
    alias = 'int h(int x) __attribute__((alias("f")));'
    assert cc.diff(source.format(""), source.format(alias)) == changed("f")


def test_undefined_symbol_that_becomes_weak_is_found(cc: Compiler) -> None:
    source = "int ext(int) {}; int f(int x) {{ return ext(x) + 1; }} int g(int x) {{ return x; }}"
    assert cc.diff(source.format(""), source.format("__attribute__((weak))")) == changed("f")


def test_type_of_a_symbol_is_found(gcc: Compiler) -> None:
    source = ".text\n.globl f, g\n.type f, @{}\nf: ret\n.size f, 1\n.type g, @function\ng: ret\n.size g, 1\n"
    assert gcc.diff_assembly(source.format("function"), source.format("notype")) == changed("f")


def test_size_of_a_symbol_that_covers_the_same_bytes_is_found(gcc: Compiler) -> None:
    source = ".text\n.globl f, g\n.type f, @function\nf: nop\n ret\n{}\n.type g, @function\ng: ret\n.size g, 1\n"
    assert gcc.diff_assembly(source.format(".size f, 2"), source.format("")) == changed("f")
    assert gcc.diff_assembly(source.format(".size f, 2"), source.format(".size f, 1")) >= changed("f")
    assert gcc.diff_assembly(source.format(".size f, 2"), source.format(".size f, 3")) >= changed("f")


def test_common_and_absolute_symbols_are_found(gcc: Compiler) -> None:
    source = ".comm shared, {}, 8\n.globl constant\n.set constant, {}\n.text\n.globl f\nf: mov $constant, %eax\nret\n"
    old = source.format(16, 5)
    assert gcc.diff_assembly(old, source.format(32, 5)) == data_changed("shared")
    # gas has put the value into the instruction as well.
    assert gcc.diff_assembly(old, source.format(16, 6)) == data_changed("constant") | changed("f")


def test_common_symbol_that_becomes_an_ordinary_one_is_found(cc: Compiler) -> None:
    source = "int shared; int f(void) { return shared; }"
    assert diff_objects(cc.object(source, "-fcommon"), cc.object(source)) == data_changed("shared")


# -- renamed, section flags, alignment --------------------------------------------------------------------------------


def test_renamed_function_is_removed_and_added_and_changes_its_callers(cc: Compiler) -> None:
    source = (
        "int ext(int); __attribute__((noinline)) int {0}(int x) {{ return ext(x) + 1; "
        "}} int user(int x) {{ return {0}(x) * 2; }}"
    )
    assert cc.diff(source.format("before"), source.format("after")) == changed("user") | {
        ("before", "function", "removed"),
        ("after", "function", "added"),
    }


def test_variable_that_becomes_read_only_is_moved(cc: Compiler) -> None:
    source = "{} int variable = 4; int *f(void) {{ return (int *)&variable; }}"
    assert cc.diff(source.format(""), source.format("const")) == {("variable", "data", "moved")}


def test_section_flags_that_change_are_found(gcc: Compiler) -> None:
    source = '.section .odd, "{}", @progbits\n.globl v\n.type v, @object\nv: .quad 1\n.size v, 8\n'
    assert gcc.diff_assembly(source.format("a"), source.format("aw")) == {(".odd", "section", "changed")}


def test_section_type_that_changes_is_found(gcc: Compiler) -> None:
    source = '.section .odd, "aw", @{}\n.globl v\n.type v, @object\nv: .skip 8\n.size v, 8\n'
    assert gcc.diff_assembly(source.format("progbits"), source.format("init_array")) == {(".odd", "section", "changed")}


def test_alignment_alone_is_found(cc: Compiler) -> None:
    source = "struct {{ int x; }} variable __attribute__((aligned({}))) = {{ 3 }}; int f(void) {{ return 1; }}"
    assert cc.diff(source.format(8), source.format(64)) == {(".data", "section", "changed")}


def test_alignment_is_found_beside_a_changed_function(cc: Compiler) -> None:
    source = "struct {{ int x; }} variable __attribute__((aligned({}))) = {{ 3 }}; int f(void) {{ return {}; }}"
    assert cc.diff(source.format(8, 1), source.format(64, 2)) == {(".data", "section", "changed")} | changed("f")


# -- unusual symbol tables --------------------------------------------------------------------------------------------


def test_more_sections_than_sixteen_bits_can_count(gcc: Compiler) -> None:
    """From 65,280 sections on a symbol's section stands in a table of its own (SHN_XINDEX)."""

    def source(value: int) -> str:
        fillers = "\n".join(f'.section .s{i}, "", @progbits' for i in range(65300))
        last = f'.section .data.last, "aw"\n.globl v\n.type v, @object\nv: .quad {value}\n.size v, 8\n'
        code = (
            f'.section .text.last, "ax"\n.globl f\n.type f, @function\n'
            f"f: mov ${value}, %eax\nmov v, %ecx\nret\n.size f, . - f\n"
        )
        return (
            fillers
            + "\n"
            + last
            + code
            + '.section .text.other, "ax"\n.globl g\n.type g, @function\ng: ret\n.size g, 1\n'
        )

    old, same, new = (gcc.assembly(source(value)) for value in (1, 1, 2))
    assert diff_objects(old, same) == set()
    assert diff_objects(old, new) == data_changed("v") | changed("f")


def test_comdat_groups_are_compared_by_their_members(gcc: Compiler) -> None:
    source = """
    .section .text.f,"axG",@progbits,{0},comdat
    .weak f
    .type f, @function
    f: mov ${1}, %eax
    ret
    .size f, . - f
    .section .text.g,"axG",@progbits,g,comdat
    .weak g
    .type g, @function
    g: ret
    .size g, . - g
    """
    assert gcc.diff_assembly(source.format("f", 1), source.format("f", 2)) == changed("f")


def test_object_without_section_symbols(gcc: Compiler, binutils: Callable[..., str]) -> None:
    """Newer assemblers write no section symbols that nothing uses; references then name the variables."""
    source = "static int v[4]; int f(int x) { return v[x] += 3; } int g(int x) { return x; }"
    plain = gcc.object(source)
    stripped = plain.with_name("stripped.o")
    binutils("objcopy", "--strip-unneeded", "--keep-symbol=v", "--keep-symbol=f", "--keep-symbol=g", plain, stripped)
    assert diff_objects(plain, stripped) == set()


def test_linked_object_keeps_statics_of_two_files_apart(gcc: Compiler, binutils: Callable[..., str]) -> None:
    source = "static int state = {}; int {}(int x) {{ return state += x; }}"

    def link(first: int, second: int) -> Path:
        parts = []
        for index, (value, name) in enumerate(((first, "a"), (second, "b"))):
            part = gcc.object(source.format(value, name))
            parts.append(part)
            (part.parent / "unit.c").unlink()
            renamed = part.with_name(f"part{index}.o")
            binutils("objcopy", part, renamed)
        linked = parts[1].with_name("linked.o")
        binutils("ld", "-r", "-o", linked, *parts)
        return linked

    assert diff_objects(link(1, 2), link(1, 2)) == set()
    answer: Changes = diff_objects(link(1, 2), link(1, 3))
    assert {(symbol.partition("@")[0], kind, change) for symbol, kind, change in answer} == data_changed("state")


def test_symbols_before_the_first_file_symbol_are_compared(gcc: Compiler, binutils: Callable[..., str]) -> None:
    source = "static __attribute__((noinline)) int s(int x) {{ return x * {}; }} int f(int x) {{ return s(x) + 1; }}"
    stripped = []
    for value in (3, 5):
        plain = gcc.object(source.format(value))
        other = plain.with_name("nofile.o")
        binutils("objcopy", "--strip-symbol=unit.c", plain, other)
        stripped.append(other)
    assert diff_objects(*stripped) == changed("s")


@pytest.mark.parametrize("suffixes", [("llvm.111", "llvm.222"), ("__uniq.111", "__uniq.222")])
def test_functions_called_alike_but_for_the_hash_of_their_module(tmp_path: Path, suffixes: tuple[str, str]) -> None:
    one, two = suffixes
    text = "user: call foo.%s\n ret\n.size user, . - user\n.type user, @function\n.globl user\n"
    for suffix, number in ((one, 1), (two, 2)):
        name = f"foo.{suffix}"
        text += (
            f".globl {name}\n.type {name}, @function\n{name}: movl ${number}, %eax\n ret\n.size {name}, . - {name}\n"
        )
    gcc = Compiler("gcc", tmp_path)
    old = gcc.assembly(text.replace("%s", one, 1))
    # Which of them is which, the user says, so it is they that are others now.
    assert diff_objects(old, gcc.assembly(text.replace("%s", two, 1))) == changed("foo")
    renamed = text.replace("%s", one, 1).replace("111", "333").replace("222", "444")
    assert diff_objects(old, gcc.assembly(renamed)) == set()
