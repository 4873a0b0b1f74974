# SPDX-License-Identifier: GPL-2.0-only
"""Wrong answers that changes to kernel sources brought to light; each goes with its fix."""

from __future__ import annotations

import pytest
from snippets import Compiler, changed

_RECORDS = r"""
struct ddebug {
    const char *module, *function, *file, *format;
    unsigned line : 18, class : 6, flags : 8;
    char pad[16];
};
int report(struct ddebug *, ...);
int printk(const char *);
#define PR(n, text) do { \
    static struct ddebug __attribute__((aligned(8), section("__dyndbg"))) \
        __UNIQUE_ID_ddebug##n = {"mod", __func__, "f.c", text, 12, 0, 0}; \
    if (__UNIQUE_ID_ddebug##n.flags) report(&__UNIQUE_ID_ddebug##n); \
} while (0)
int first(int x) { PR(1, "one"); return x; }
int second(int x) { MIDDLE; return x + 1; }
int third(int x) { PR(3, "three"); return x + 2; }
"""


@pytest.mark.xfail(strict=True, reason="the order of a section counts symbols that belong to who uses them")
def test_a_pr_debug_that_went_is_no_change_of_its_section(gcc: Compiler):
    old, new = (_RECORDS.replace("MIDDLE", text) for text in ('PR(2, "two")', 'printk("two")'))
    assert gcc.diff(old, new) == changed("second")


@pytest.mark.xfail(strict=True, reason="which of two names an entry gets depends on their binding")
def test_an_alias_keeps_its_name_when_the_binding_changes(gcc: Compiler):
    """As __memset and memset in arch/x86/lib/memset_64.S, when the first is made weak."""
    text = ".globl memset\n.type memset,@function\n.set memset,__memset\n.size memset,2\n"
    text += ".globl __memset\n.type __memset,@function\n__memset: nop\nret\n.size __memset,.-__memset\n"
    answer = gcc.diff_assembly(text, text.replace(".globl __memset", ".weak __memset"))
    assert answer == changed("__memset")


_STATICS = r"""
void use(int *);
void first(int x) { static int variable = 3; use(&variable); }
void second(int x) { MORE; }
"""


@pytest.mark.xfail(strict=True, reason="the number is in the name of the section too")
def test_a_renumbered_variable_did_not_move(gcc: Compiler):
    """With -fdata-sections a static variable of a function lies in .data.variable.0."""
    old, new = (_STATICS.replace("MORE", text) for text in ("use(&x)", "static int other = 1; use(&other)"))
    assert gcc.diff(old, new, "-fdata-sections") == changed("second") | {("other", "data", "added")}


_KEYS = r"""
struct key {};
void init(int *, struct key *);
static int lock, counter;
int first(int x) { MORE return counter += x; }
void second(void) { static struct key __key; init(&lock, &__key); counter++; }
int third(int x) { return x + lock; }
"""


@pytest.mark.xfail(strict=True, reason="what has no size is taken for another name of what lies behind it")
def test_a_lock_class_key_without_lockdep_is_no_name_of_its_neighbour(gcc: Compiler):
    """struct lock_class_key has no bytes then, include/linux/lockdep_types.h."""
    old, new = (_KEYS.replace("MORE", text) for text in ("", "{ static struct key __key; init(&x, &__key); }"))
    assert gcc.diff(old, new) == changed("first")


_PLACE = r"""
struct key {};
void init(int *, struct key *);
static int first_value;
int first(int x) { return first_value += x; }
static int second_value;
void second(void) { static struct key __key; init(&second_value, &__key); second_value++; }
static int third_value;
int third(int x) { return third_value += x; }
"""


@pytest.mark.xfail(strict=True, reason="a place that belongs to nothing is named after what lies behind it")
def test_a_lock_class_key_is_not_its_neighbour(gcc: Compiler):
    """The oracle is wrong here too: one place has two names, and the relocation, to .bss, says neither."""
    more = _PLACE + "static int fourth_value;\nint fourth(int x) { return fourth_value += x; }\n"
    assert gcc.diff(_PLACE, more) == {("fourth", "function", "added"), ("fourth_value", "data", "added")}
