# SPDX-License-Identifier: GPL-2.0-only
"""A livepatch replaces no data: what changed in it, and what comes and goes with functions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from linked_kernel import Kernels

ONLY = "a livepatch replaces functions only"


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("int limit = 5;", "int limit = 6;", "content"),
        ("char buffer[64];", "char buffer[128];", "size 64 -> 128"),
        ("int table[2] = {1, 2};", "int table[3] = {1, 2, 3};", "size 8 -> 12"),
        ("int a, b; int *p = &a;", "int a, b; int *p = &b;", "what it points to"),
        ('const char *name = "one";', 'const char *name = "two";', "what it points to"),
        ("const int modes[2] = {1, 2};", "const int modes[2] = {1, 3};", "content"),
    ],
)
def test_changed_data(kernels: Kernels, old: str, new: str, what: str) -> None:
    (reasons,) = kernels.of(old, new).values()
    assert reasons == [f"data: {what}; {ONLY}"]


def test_a_key_that_starts_with_another_value(kernels: Kernels) -> None:
    source = "struct static_key { int enabled; void *type; } key = { %d, 0 };"
    assert kernels.of(source % 0, source % 1) == {"key": [f"data: content; {ONLY}"]}


@pytest.mark.parametrize("change", ["added", "removed"])
@pytest.mark.parametrize(
    "source", ["int limit = 5;", "static int calls; int *p = &calls;", "const int table[] = {1, 2, 3};"]
)
def test_data_that_came_or_went(kernels: Kernels, change: str, source: str) -> None:
    sources = ["int other;", "int other; " + source]
    if change == "removed":
        sources.reverse()
    verdicts = kernels.of(*sources)
    assert verdicts and not any(verdicts.values())


def test_only_others_may_use_it_now(kernels: Kernels) -> None:
    source = "%s int limit = 5; int *p = &limit;"
    assert kernels.of(source % "static", source % "") == {"limit": []}


def test_an_absolute_symbol(kernels: Kernels) -> None:
    """All that there is to it is its value, which the linker puts into who uses it."""
    source = "#asm\n.globl limit\nlimit = %d\n"
    assert kernels.of(source % 5, source % 6) == {"limit": [f"data: content; {ONLY}"]}


@pytest.mark.parametrize("section", [".data..ro_after_init", ".data..read_mostly"])
def test_data_that_moved(kernels: Kernels, section: str) -> None:
    source = "%s int limit = 5;"
    assert kernels.of(source % "", source % f'__attribute__((section("{section}")))') == {"limit": []}


def test_data_that_moved_out_of_init(kernels: Kernels) -> None:
    source = '__attribute__((section("%s"))) int limit = 5;'
    verdicts = kernels.of(source % ".init.data", source % ".data")
    assert verdicts == {"limit": ["init or exit code: in .init.data"]}


@pytest.mark.parametrize("back", [False, True])
def test_data_that_became_per_cpu(kernels: Kernels, back: bool) -> None:
    """Patched functions would add the offset of a CPU to the address of one variable."""
    sections = [".data", ".data..percpu"]
    if back:
        sections.reverse()
    sources = [f'__attribute__((section("{section}"))) int limit = 5;' for section in sections]
    assert kernels.of(*sources) == {"limit": [f"data: from {sections[0]} to {sections[1]}; {ONLY}"]}


@pytest.mark.parametrize("section", [".data..ro_after_init", ".rodata"])
def test_data_that_is_written_to_from_now_on(kernels: Kernels, section: str) -> None:
    """The old one is in memory that has become read-only: who writes to it faults."""
    source = "%s int limit = 5; int user(int x) { %s return x + limit; }"
    old = source % (f'__attribute__((section("{section}")))', "")
    assert kernels.of(old, source % ("", "limit = x;"))["limit"] == [f"data: from {section} to .data; {ONLY}"]
    assert kernels.of(source % ("", ""), old)["limit"] == []


@pytest.mark.parametrize(
    ("user", "wanted"),
    [
        ("void user(int x) { %s take(table); }", "(read-only data: who has its address keeps the old one)"),
        (
            "void user(int x) { %s take(table); } void other(void) { take(table); }",
            "(read-only data: who has its address keeps the old one; carried with it: other)",
        ),
        (
            "void user(int x) { %s take(table); }"
            '__attribute__((section(".init.text"))) void init(void) { take(table); }',
            "data: from .rodata to .data; it is used by init (init or exit code)",
        ),
    ],
)
def test_a_constant_that_is_written_to_from_now_on(kernels: Kernels, user: str, wanted: str) -> None:
    """It has no state yet, so that another one does as well, if all refer to that."""
    source = "void take(const int *); static %s int table[] = { 5, 6, 7 };" + user
    assert kernels.of(source % ("const", ""), source % ("", "table[1] = x;"))["table"] == [wanted]


@pytest.mark.parametrize("change", ["changed", "added", "removed"])
@pytest.mark.parametrize(
    ("section", "reason"),
    [
        (".init.data", "init or exit code: in .init.data"),
        (".initcall6.init", "init or exit code: in .initcall6.init"),
        (".init.setup", "init or exit code: in .init.setup"),
        (".modinfo", "table: .modinfo is read from the module's file"),
        (".export_symbol", "table: .export_symbol is made into exports by the linker"),
        ("___ksymtab_gpl+foo", "table: ___ksymtab_gpl+foo is what the kernel exports, fixed when it is linked"),
        ("__ksymtab_strings", "table: __ksymtab_strings is what the kernel exports, fixed when it is linked"),
        ("__param", "table: __param is read at boot, or when the module is loaded"),
        ("__versions", "table: __versions is read when the module is loaded, the CRCs of what it uses"),
    ],
)
def test_data_that_is_read_once(kernels: Kernels, section: str, reason: str, change: str) -> None:
    source = 'int other; __attribute__((section("%s"))) long entry = %d;'
    old = "int other;" if change == "added" else source % (section, 5)
    new = "int other;" if change == "removed" else source % (section, 6)
    is_left = change == "removed" and "export" in reason  # what was exported stays so
    assert kernels.of(old, new)["entry"] == ([] if is_left else [reason])


@pytest.mark.parametrize("section", ["_ftrace_events", ".apicdrivers", "___srcu_struct_ptrs"])
def test_a_new_entry_of_a_table(kernels: Kernels, section: str) -> None:
    """Nobody finds it in the livepatch, and nothing of the object refers to it, so that it would not even be there."""
    source = f'int other; __attribute__((section("{section}"))) int *entry = &other;'
    reason = f"table: {section} is put together when the kernel or the module is linked"
    assert kernels.of("int other;", source)["entry"] == [reason]


_QUIRK = """asm(".section .pci_fixup_final, \\"a\\"; .short %d, 2; .long -1, 0; .long %s - .; .previous");"""


def test_the_order_of_pci_quirks(kernels: Kernels) -> None:
    """They are called in this order, and those of modules never (include/linux/pci.h, relocations from the place)."""
    functions = "void one(void) {} void other(void) {} "
    one, other = _QUIRK % (1, "one"), _QUIRK % (1, "other")
    reason = "table: .pci_fixup_final is put together when the kernel is linked"
    assert kernels.of(functions + one + other, functions + other + one)[".pci_fixup_final"] == [reason]


@pytest.mark.parametrize("section", [".data..once", ".rodata.table", ".ref.data", "__tracepoint_str"])
def test_new_data_comes_with_the_livepatch(kernels: Kernels, section: str) -> None:
    source = f'int other; __attribute__((section("{section}"))) int *entry = &other;'
    assert kernels.of("int other;", source)["entry"] == []


def test_new_tracepoints_do_not(kernels: Kernels) -> None:
    source = 'int other; __attribute__((section("__tracepoints"))) long entry = 5;'
    reason = "table: __tracepoints is put together when the kernel or the module is linked"
    assert kernels.of("int other;", source)["entry"] == [reason]


def test_a_new_per_cpu_variable_does_not(kernels: Kernels) -> None:
    source = 'int other; __attribute__((section(".data..percpu"))) int *entry = &other;'
    assert kernels.of("int other;", source)["entry"] == [f"data: a new per-CPU variable; {ONLY}"]


def test_content_without_a_symbol(kernels: Kernels) -> None:
    source = "#asm\n.section .rodata\n.globl a\na: .quad 1\n.size a, 8\n.quad %d\n"
    assert kernels.of(source % 5, source % 6) == {".rodata": [f"data: content without a symbol; {ONLY}"]}


@pytest.mark.parametrize("section", [".rodata.str1.1", ".rodata.user.str1.8", ".rodata.strings"])
def test_a_string_that_nobody_refers_to(kernels: Kernels, section: str) -> None:
    """As GCC leaves behind where it made instructions of memcmp() and a constant string."""
    source = (
        f'#asm\n.section {section}, "aMS", @progbits, 1\n.Lused: .asciz "used"\n.asciz "%s"\n'
        ".data\n.globl name\nname: .quad .Lused\n.size name, 8\n"
    )
    reasons = [] if "str1" in section else [f"data: content without a symbol; {ONLY}"]
    assert kernels.of(source % "one", source % "two") == {section: reasons}


def test_flags_of_a_section(kernels: Kernels) -> None:
    source = '#asm\n.section .extra, "%s"\n.globl a\na: .quad 1\n.size a, 8\n'
    assert kernels.of(source % "a", source % "aw")[".extra"] == [f"data: type or flags of the section; {ONLY}"]


def test_the_order_of_a_table(kernels: Kernels) -> None:
    source = '#asm\n.section .table, "a"\n.globl a, b\n%s: .quad 1\n.size %s, 8\n%s: .quad 1\n.size %s, 8\n'
    verdicts = kernels.of(source % ("a", "a", "b", "b"), source % ("b", "b", "a", "a"))
    assert verdicts == {".table": [f"data: the order of its symbols; {ONLY}"]}


def test_the_alignment_of_a_section(kernels: Kernels) -> None:
    source = '#asm\n.section .extra, "a"\n.p2align %d\n.quad 1\n'
    assert kernels.of(source % 3, source % 4) == {".extra": [f"data: alignment; {ONLY}"]}


def test_the_alignment_of_a_variable(kernels: Kernels) -> None:
    source = "int first, a __attribute__((aligned(%d))), b __attribute__((aligned(64)));"
    assert kernels.of(source % 64, source % 4) == {".bss": [f"data: alignment; {ONLY}"]}


def test_the_alignment_of_code(kernels: Kernels) -> None:
    """New code comes with the livepatch, aligned as it is."""
    source = '#asm\n.section .text.extra, "ax"\n.p2align %d\n.quad 1\n'
    assert kernels.of(source % 3, source % 4) == {".text.extra": []}
    data = source.replace(".text.extra", ".data.text").replace('"ax"', '"aw"')
    assert kernels.of(data % 3, data % 4) == {".data.text": [f"data: alignment; {ONLY}"]}


_CASES = """
void tell(const void *); int outside(int);
%s
int told(int x) { tell(name); tell(name + 2); return outside(x); }
int chosen(int x) { switch (x) { case 0: return 17; case 1: return 23; %s } return outside(x); }
"""


@pytest.mark.parametrize("is_removed", [False, True])
def test_the_alignment_of_a_section_with_new_content(kernels: Kernels, is_removed: bool) -> None:
    """A table of values that the compiler made of a switch comes along with its function.

    Where it came, it explains the alignment; where it went, what stayed lies otherwise.
    """
    name = 'static const char name[5]%s = "abcd";'
    few, many = ("".join(f"case {at}: return {at * 7 % 5};" for at in range(2, count)) for count in (3, 8))
    old, new = (_CASES % (name % "", cases) for cases in ((many, few) if is_removed else (few, many)))
    assert kernels.of(old, new) == {"chosen": []} | ({".rodata": []} if is_removed else {})


def test_the_alignment_of_a_section_and_content_that_was_there(kernels: Kernels) -> None:
    name, cases = 'static const char name[5]%s = "abcd";', "".join(f"case {at}: return {at};" for at in range(2, 8))
    verdicts = kernels.of(*(_CASES % (name % f" __attribute__((aligned({align})))", cases) for align in (1, 64)))
    assert verdicts[".rodata"] == [f"data: alignment; {ONLY}"]


def test_the_vdso(kernels: Kernels) -> None:
    """The image is an array in vmlinux; the functions beside it in the same directory are functions as others."""
    image = "const unsigned char raw_data[4] = {1, 2, 3, %d};"
    function = "int map_vdso(int x) { return x + %d; }"
    old = {"arch/x86/entry/vdso/vdso-image-64.o": image % 1, "arch/x86/entry/vdso/vma.o": function % 1}
    new = {"arch/x86/entry/vdso/vdso-image-64.o": image % 2, "arch/x86/entry/vdso/vma.o": function % 2}
    kernels.build(old, new)
    assert kernels.verdicts() == {"raw_data": ["vdso: its image is mapped into running programs"], "map_vdso": []}


# -- read-only data ---------------------------------------------------------------------------------------------------

TABLE = """
static const int table[4] = {1, 2, 3, %s};
int first(int x) { return table[x]; }
int second(int x) { return table[x + 1] * 2; }
int third(int x) { return x; }
"""
KEEPS = "read-only data: who has its address keeps the old one"


def test_a_table_that_only_functions_of_one_object_read(kernels: Kernels) -> None:
    verdicts = kernels.of(TABLE % 4, TABLE % 5)
    assert verdicts == {"table": [f"({KEEPS}; carried with it: first, second)"]}


def test_a_table_of_which_all_readers_changed_as_well(kernels: Kernels) -> None:
    old = "static const int table[4] = {1, 2, 3, %s}; int reader(int x) { return table[x] + %s; }"
    assert kernels.of(old % (4, 4), old % (5, 5)) == {"reader": [], "table": [f"({KEEPS})"]}


@pytest.mark.parametrize(
    ("more", "who"),
    [
        ("const int *kept = &table[1];", "kept (data)"),
        ("__attribute__((no_instrument_function)) int apart(int x) { return table[x]; }", "apart (not traceable)"),
        (
            "static __attribute__((no_instrument_function, noinline)) int inner(int x) { return table[x]; }"
            "int (*pointer)(int) = inner;",
            "pointer (data)",
        ),
        (
            "static __attribute__((no_instrument_function, noinline)) int inner(int x) { return table[x]; }"
            "__attribute__((no_instrument_function)) int apart(int x) { return inner(x) + 1; }",
            "apart (not traceable)",
        ),
        ('__attribute__((section(".init.text"))) int early(int x) { return table[x]; }', "early (init or exit code)"),
    ],
)
def test_a_table_that_somebody_else_reads_who_stays(kernels: Kernels, more: str, who: str) -> None:
    """To him it would be the old one still."""
    assert kernels.of(TABLE % 4 + more, TABLE % 5 + more) == {"table": [f"data: content; it is used by {who}"]}


def test_a_table_that_a_function_reads_which_ftrace_cannot_take_over(kernels: Kernels) -> None:
    """`inline` is also notrace in the kernel: all that call it come along."""
    more = """
    static __attribute__((no_instrument_function, noinline)) int inner(int x) { return table[x]; }
    static __attribute__((no_instrument_function, noinline)) int middle(int x) { return inner(x) * 3; }
    int outer(int x) { return middle(x) + 1; }
    """
    verdicts = kernels.of(TABLE % 4 + more, TABLE % 5 + more)
    assert verdicts == {"table": [f"({KEEPS}; carried with it: first, outer, second)"]}


def test_a_table_that_other_objects_may_read(kernels: Kernels) -> None:
    source = TABLE.replace("static ", "")
    assert kernels.of(source % 4, source % 5) == {"table": [f"data: content; {ONLY}"]}


PRINTED = """
struct pi_entry { const char *fmt, *func, *file; unsigned line; const char *level, *prefix; } __attribute__((packed));
int printk(const char *);
#define pr(text) ({ \\
    static const struct pi_entry _entry __attribute__((used)) = { text, __func__, "a.c", __LINE__, 0, 0 }; \\
    static const struct pi_entry *_entry_ptr __attribute__((used, section(".printk_index"))) = &_entry; printk(text); })
int foo(int x) { pr("OLD"); return x; }
int bar(int x) { return x + pr("same"); }
"""


def test_the_printk_index_is_for_people(kernels: Kernels) -> None:
    """A message that differs has an entry that differs, and a new one a new entry: nobody refers to it."""
    found = kernels.of(PRINTED, PRINTED.replace("OLD", "now").replace("return x;", 'pr("more"); return x;'))
    assert found.pop("foo") == []
    assert len(found) == 2 and all(name.startswith("_entry_ptr") for name in found)
    note = "(printk index: it does not name the message of the livepatch)"
    assert [*found.values()] == [[note], [note]]
