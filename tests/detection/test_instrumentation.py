# SPDX-License-Identifier: GPL-2.0-only
"""What compilers and the kernel's macros add to code to watch it: lines and stamps in it say nothing, all else does.

Each table has an edit a row, and the whole answer: what is of lines only counts as nothing.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from snippets import Changes, Compiler, changed, data_changed
from watched_answers import NOTHING, WATCHED, added, answer, edited, moved

# -- what the kernel's macros leave -----------------------------------------------------------------------------------

ALLOC_TAG = """
struct alloc_tag {
	struct { unsigned flags, line; const char *module, *function, *file; } tag;
	void *counters;
} __attribute__((aligned(8)));
void *get(struct alloc_tag *, int);
#define TAG static struct alloc_tag __attribute__((section(SECTION), aligned(8), used)) _alloc_tag
#define alloc(size, flags) ({ TAG = { { flags, __LINE__, "mod", __func__, "a.c" }, 0 }; get(&_alloc_tag, size); })
void *f(void) { return alloc(64, 0); }
void *g(void) { return alloc(32, 0); }
/* more */
"""


@pytest.mark.parametrize("section", ["alloc_tags", ".codetag.alloc_tags"])
@pytest.mark.parametrize(
    ("edit", "want"),
    [
        (("", ""), NOTHING),
        (("alloc(32, 0)", "alloc(48, 0)"), changed("g")),
        (("alloc(32, 0)", "alloc(32, 1)"), changed("g")),
        (("/* more */", "void *h(void) { return alloc(16, 0); }"), added("function", "h")),
        (("void *f(", "void *h(void) { return alloc(16, 0); } void *f("), added("function", "h")),
    ],
)
def test_allocation_tags(cc: Compiler, section: str, edit: tuple[str, str], want: Changes) -> None:
    source = f'#define SECTION "{section}"\n{ALLOC_TAG}'
    assert answer(cc.object(source), cc.object(edited(source, edit))) == want


PRINTK_INDEX = """
void emit(const char *);
int use(int);
struct pi_entry {
	const char *fmt, *func, *file;
	unsigned line;
	const char *level, *prefix;
} __attribute__((packed));
#define pr(fmt, level) do { \\
	static const struct pi_entry __attribute__((used)) _entry = { fmt, __func__, "a.c", __LINE__, level, 0 }; \\
	static const struct pi_entry *_entry_ptr __attribute__((used, section(".printk_index"))) = &_entry; \\
	emit(fmt); } while (0)
int f(int a) { pr("f", "3"); return use(a) + 1; }
int g(int a) { pr("g", "6"); return use(a) + 2; }
int h(int a) { pr("h", "6"); return use(a) + 3; }
/* more */
"""


@pytest.mark.parametrize(
    ("edit", "want"),
    [
        (("", ""), NOTHING),
        (("+ 2", "+ 4"), changed("g")),
        (('pr("g", "6")', 'pr("g", "4")'), data_changed("_entry_ptr")),
        (('pr("g", "6")', 'pr("G", "6")'), data_changed("_entry_ptr") | changed("g")),
        (('"a.c"', '"b.c"'), data_changed("_entry_ptr")),
        # All that come behind have another number.
        (("int f(", 'int e(int a) { pr("e", "6"); return use(a); } int f('), added("function", "e")),
        (('pr("f", "3");', ""), changed("f") | {("_entry_ptr", "data", "removed")}),
    ],
)
def test_printk_index(gcc: Compiler, edit: tuple[str, str], want: Changes) -> None:
    if want == added("function", "e"):
        want = want | added("data", "_entry_ptr")
    assert answer(gcc.object(PRINTK_INDEX), gcc.object(edited(PRINTK_INDEX, edit))) == want


def test_printk_index_of_clang(tmp_path: Path) -> None:
    clang = Compiler("clang-19", tmp_path)
    old = clang.object(PRINTK_INDEX)
    assert answer(old, clang.object(moved(PRINTK_INDEX))) == NOTHING
    level = edited(PRINTK_INDEX, ('pr("g", "6")', 'pr("g", "4")'))
    assert answer(old, clang.object(level)) == data_changed("g._entry_ptr")


def _btf(lists: str) -> str:
    """Return lists of BTF ids: ``list: id id`` each, where an id is ``kind__name__number=value``."""
    text, symbols = '.section .BTF_ids, "a"\n.balign 4\n', []
    for line in lists.split("; "):
        name, _, ids = line.partition(": ")
        text += f".local {name}\n{name}:\n" if name else ""
        for entry in ids.split():
            symbol, _, value = entry.partition("=")
            if symbol.isdigit():
                text += f".long {symbol}\n"  # the size of a set, or the flags of what is before it
                continue
            symbols.append(f"__BTF_ID__{symbol}")
            text += f".local {symbols[-1]}\n.type {symbols[-1]}, @object\n.size {symbols[-1]}, 4\n"
            text += f"{symbols[-1]}: .long {value or 0}\n"
    return text + ".text\n.globl f\n.type f, @function\nf: mov %s, %%eax\nret\n.size f, . - f\n"


FILE, INODE, DENTRY = "struct__file__17", "struct__inode__18", "struct__dentry__19"


@pytest.mark.parametrize(
    ("old", "new", "is_same"),
    [
        (f"ids: {FILE}", "ids: struct__file__9", True),
        (f"ids: {FILE}", f"ids: {FILE}=517", True),
        (f"ids: {FILE}=9 {INODE}=7", f"ids: {FILE}=8 {INODE}=6", True),
        (f"ids: {FILE}", "ids: struct__inode__17", False),
        (f"ids: {FILE}", "ids: union__file__17", False),
        (f"ids: {FILE} {INODE} {DENTRY}", f"ids: {FILE} struct__inode__118 struct__dentry__119", True),
        (f"ids: {FILE} {INODE} {DENTRY}", f"ids: {FILE} {DENTRY} {INODE}", False),
        (f"ids: {FILE} {INODE} {DENTRY}", f"ids: {FILE} {INODE}", False),
        ("ids: 2 0 func__a__1 1 func__b__2 0", "ids: 2 0 func__a__10 1 func__b__11 0", True),
        ("ids: 2 0 func__a__1 1 func__b__2 0", "ids: 2 0 func__a__1 1 func__b__2 4", False),
        ("ids: 2 0 func__a__1 1 func__b__2 0", "ids: 2 0 func__b__1 1 func__a__2 0", False),
        ("ids: 2 0 func__a__1 1 func__b__2 0", "ids: 1 0 func__a__1 1", False),
    ],
)
def test_btf_ids(gcc: Compiler, old: str, new: str, is_same: bool) -> None:
    for x, y in ((old, new), (new, old)):
        assert (answer(gcc.assembly(_btf(x) % "ids"), gcc.assembly(_btf(y) % "ids")) == NOTHING) is is_same


def test_one_of_two_lists_that_begin_alike(gcc: Compiler) -> None:
    lists = _btf(f"one: {FILE} {INODE}; two: struct__file__20 {DENTRY}")
    renumbered = _btf(f"one: struct__file__7 {INODE}; two: struct__file__8 {DENTRY}")
    old = gcc.assembly(lists % "one")
    assert answer(old, gcc.assembly(renumbered % "one")) == NOTHING
    assert answer(old, gcc.assembly(lists % "two")) == changed("f")
    assert answer(old, gcc.assembly(renumbered % "two")) == changed("f")


# arch/x86/include/asm/pm-trace.h: TRACE_RESUME()
PM_TRACE = r"""
void generate_pm_trace(const void *, unsigned);
int take(const void *, unsigned);
#define TRACE(user) do { const void *record; \
    asm volatile("movq $1f, %0\n.section .tracedata, \"a\"\n1: .word %c1\n.quad %c2\n.previous" \
                     : "=r"(record) : "i"(__LINE__), "i"(FILE)); \
    generate_pm_trace(record, user); } while (0)
#define FILE "drivers/power/main.c"
int f(int a) { TRACE(0); return a; }
int g(int a) { TRACE(1); return a + 2; }
"""


@pytest.mark.parametrize(
    ("edit", "want"),
    [
        (("", ""), NOTHING),
        (("a + 2", "a + 3"), changed("g")),
        (("TRACE(1)", "TRACE(2)"), changed("g")),
        (('"drivers/power/main.c"', '"drivers/power/other.c"'), changed("f", "g")),
        (("generate_pm_trace(record", "take(record"), changed("f", "g")),
        (("int f(", "int h(int a) { TRACE(7); return a; } int f("), added("function", "h")),
    ],
)
def test_lines_of_suspend_and_resume(gcc: Compiler, edit: tuple[str, str], want: Changes) -> None:
    assert answer(gcc.object(PM_TRACE), gcc.object(edited(PM_TRACE, edit))) == want


def test_a_number_that_is_handed_to_others_is_no_line(gcc: Compiler) -> None:
    source = PM_TRACE.replace("generate_pm_trace(record", "take(record")
    assert answer(gcc.object(source), gcc.object(moved(source))) == changed("f", "g")


# -- what compilers add -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("compiler", "flag"),
    [("gcc", "-fsanitize=thread"), ("clang", "-fsanitize=thread"), ("clang", "-fsanitize=kernel-memory")],
)
@pytest.mark.parametrize(
    ("edit", "want"),
    [(("", ""), NOTHING), (("+ 100", "+ 101"), changed("f")), (("a > 3", "a > 4"), changed("f"))],
)
def test_kcsan_and_kmsan(
    request: pytest.FixtureRequest, compiler: str, flag: str, edit: tuple[str, str], want: Changes
) -> None:
    """GCC has no KMSAN."""
    cc: Compiler = request.getfixturevalue(compiler)
    source = WATCHED.replace(
        "int f(int a)\n{", "int state;\nint f(int a)\n{ char buf[8]; use((long)buf); state += buf[a];"
    )
    assert answer(cc.object(source, flag), cc.object(edited(source, edit), flag)) == want
