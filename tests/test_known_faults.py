# SPDX-License-Identifier: GPL-2.0-only
"""Wrong answers that changes to kernel sources brought to light, and what must be seen in spite of their fixes."""

from __future__ import annotations

import pytest
from snippets import Changes, Compiler, changed, data_changed

from kbuild_klp.builds.single_object import ObjectBuild
from kbuild_klp.compare.passes import compare

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


def test_a_pr_debug_that_went_is_no_change_of_its_section(gcc: Compiler) -> None:
    old, new = (_RECORDS.replace("MIDDLE", text) for text in ('PR(2, "two")', 'printk("two")'))
    assert gcc.diff(old, new) == changed("second")


_RECORD = """
.text
.globl f
.type f,@function
f: movq $one.1, %rdi
movq $SECOND, %rsi
ret
.size f,.-f
.section __dyndbg,"aw"
.type one.1,@object
one.1: .quad module_name
.fill 6,8,5
.size one.1,56
.type one.2,@object
one.2: .quad module_name
.fill 6,8,5
.size one.2,56
"""


def test_two_records_that_look_the_same_are_two(gcc: Compiler) -> None:
    """Each pr_debug is switched on by itself."""
    before = _RECORD.replace("SECOND", "one.2")
    after = _RECORD.replace("SECOND", "one.1").partition(".type one.2")[0]
    assert gcc.diff_assembly(before, after) == changed("f")


def test_of_two_records_that_look_the_same_one_changes(gcc: Compiler) -> None:
    """16 of the 1108 records of a 6.12 kernel look like another one of their object."""
    before = _RECORD.replace("SECOND", "one.2")
    head = "one.2: .quad module_name\n.fill "
    after = before.replace(f"{head}6,8,5", f"{head}6,8,6")
    assert gcc.diff_assembly(before, after) == changed("f")


def test_records_that_look_the_same_are_told_apart_by_who_uses_them_in_which_order(gcc: Compiler) -> None:
    """That another function uses the second one first does not matter."""
    other = ".text\n.globl {0}\n.type {0},@function\n{0}: movq $one.2, %rdi\nret\n.size {0},.-{0}\n"
    text = _RECORD.replace("SECOND", "one.2")
    assert gcc.diff_assembly(text, other.format("g") + text) == {("g", "function", "added")}
    assert gcc.diff_assembly(other.format("g") + text, other.format("g") + text + other.format("h")) == {
        ("h", "function", "added")
    }


def test_a_record_that_nobody_uses_any_more_is_reported(gcc: Compiler) -> None:
    before, after = (_RECORD.replace("SECOND", name) for name in ("one.2", "one.1"))
    assert ("one", "data", "added") in gcc.diff_assembly(before, after)


_MEMSET = """
.globl memset
.type memset,@function
.set memset,__memset
.size memset,2
.globl __memset
.type __memset,@function
__memset: nop
ret
.size __memset,.-__memset
"""


@pytest.mark.parametrize(("binding", "name"), [("weak", "memset"), ("local", "__memset")])
def test_an_alias_is_the_same_when_the_binding_changes(gcc: Compiler, binding: str, name: str) -> None:
    """As __memset and memset in arch/x86/lib/memset_64.S: it goes by the static name, or by the strong one."""
    weak = _MEMSET.replace(".globl __memset", f".{binding} __memset")
    assert gcc.diff_assembly(_MEMSET, weak) == changed(name)
    assert gcc.diff_assembly(weak, _MEMSET) == changed("__memset")


def test_a_name_that_went_is_said_to_be_gone(gcc: Compiler) -> None:
    """Another name of the same code does not stand for it, and the one that stayed is not called gone."""
    _, body, rest = _MEMSET.partition(".globl __memset")
    both, one = (gcc.assembly(text) for text in (_MEMSET, (body + rest).replace("__memset", "memset")))
    for old, new, said in ((both, one, "no longer also named __memset"), (one, both, "now also named __memset")):
        [change] = compare(ObjectBuild(str(old)), ObjectBuild(str(new))).objects[0].changes
        assert change.symbol in ("memset", "__memset") and change.reasons == [said]


_STATICS = r"""
void use(int *);
void first(int x) { static int variable = 3; use(&variable); }
void second(int x) { MORE; }
"""


def test_a_renumbered_variable_did_not_move(gcc: Compiler) -> None:
    """With -fdata-sections a static variable of a function lies in .data.variable.0."""
    old, new = (_STATICS.replace("MORE", text) for text in ("use(&x)", "static int other = 1; use(&other)"))
    assert gcc.diff(old, new, "-fdata-sections") == changed("second") | {("other", "data", "added")}


@pytest.mark.parametrize(
    "place", ["static int variable __attribute__((aligned(64))) = 3", "static const int variable = 3"]
)
def test_a_numbered_variable_of_another_kind_did_not_stay(gcc: Compiler, place: str) -> None:
    """What its section says of it counts whatever the number, and if others of its name stay as they are."""
    source = _STATICS.replace("MORE", "static int variable = 4; use(&variable)")
    assert gcc.diff(source, source.replace("static int variable = 3", place), "-fdata-sections")


_NUMBERED = """
.text
.globl f
.type f,@function
f: movq $count.1, %rdi
movq $count.2, %rsi
ret
.size f,.-f
.section .data.count.1,"aw"
.balign 8
.type count.1,@object
count.1: .long 1
.size count.1,4
.section .data.count.2,"aw"
.balign 8
.type count.2,@object
count.2: .long 2
.size count.2,4
"""


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize(
    "change", [('"aw"\n.balign 8', '"aw"\n.balign 4'), ('"aw"', '"awx"'), ('"aw"', '"aw",@nobits')]
)
def test_the_section_of_each_numbered_variable_counts(gcc: Compiler, number: int, change: tuple[str, str]) -> None:
    head, name, tail = _NUMBERED.partition(f".data.count.{number},")
    old, new = change
    if "nobits" in new:
        head, tail = (text.replace(".long 1", ".zero 4").replace(".long 2", ".zero 4") for text in (head, tail))
    assert gcc.diff_assembly(head + name + tail, head + name + tail.replace(old, new, 1))


def test_numbered_variables_that_swap_numbers_are_the_same(gcc: Compiler) -> None:
    swapped = _NUMBERED.replace("count.1", "count.x").replace("count.2", "count.1").replace("count.x", "count.2")
    assert gcc.diff_assembly(_NUMBERED, swapped) == set()


_KEYS = r"""
struct key {};
void init(int *, struct key *);
static int lock, counter;
int first(int x) { MORE return counter += x; }
void second(void) { static struct key __key; init(&lock, &__key); counter++; }
int third(int x) { return x + lock; }
"""


def test_a_lock_class_key_without_lockdep_is_no_name_of_its_neighbour(gcc: Compiler) -> None:
    """struct lock_class_key has no bytes then, include/linux/lockdep_types.h."""
    old, new = (_KEYS.replace("MORE", text) for text in ("", "{ static struct key __key; init(&x, &__key); }"))
    assert gcc.diff(old, new) == changed("first")


_LABEL = """
.data
.globl table
.type table,@object
LABELtable: .long 1, 2
.size table,8
"""


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("place", ".type place,@object\n"),
        ("place.1", ""),
        ("place.1", ".globl place.1\n.type place.1,@object\n"),
        ("place.1", ".weak place.1\n.type place.1,@object\n"),
        ("place.1", ".hidden place.1\n.type place.1,@object\n"),
        ("place.1", ".type place.1,@object\n.size place.1,4\n"),
        ("place.1", ".type place.1,@function\n"),
    ],
)
def test_any_other_name_of_a_place_counts(gcc: Compiler, name: str, lines: str) -> None:
    """A label of assembly, what the linker can see, and what has bytes: no variable of C without bytes."""
    old, new = (_LABEL.replace("LABEL", label) for label in ("", f"{lines}{name}:\n"))
    assert gcc.diff_assembly(old, new) == data_changed("table")


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
def test_a_lock_class_key_is_not_its_neighbour(gcc: Compiler) -> None:
    """The oracle is wrong here too: one place has two names, and the relocation, to .bss, says neither."""
    more = _PLACE + "static int fourth_value;\nint fourth(int x) { return fourth_value += x; }\n"
    assert gcc.diff(_PLACE, more) == {("fourth", "function", "added"), ("fourth_value", "data", "added")}


# -- variables without bytes ------------------------------------------------------------------------------------------

USERS = "".join(
    f".text\n.globl {name}\n.type {name},@function\n{name}: movq ${key}, %rdi\nret\n.size {name},.-{name}\n"
    for name, key in (("f", "key.0"), ("g", "key.1"))
)
VALUE, FIRST, SECOND, LONG = (
    f".bss\n.balign {max(size, 1)}\n.type {name},@object\n.size {name},{size}\n{name}: .zero {size}\n"
    for name, size in (("value", 4), ("key.0", 0), ("key.1", 0), ("long", 8))
)


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ((VALUE, FIRST, LONG, SECOND), set()),
        ((VALUE, LONG, FIRST, SECOND), set()),
        # Where another variable begins in that place, the object does not say which of the two is meant.
        ((FIRST, VALUE, SECOND, LONG), changed("f")),
        ((FIRST, SECOND, VALUE, LONG), changed("f", "g")),
    ],
    ids=["apart", "at the end", "crossed", "at the beginning"],
)
def test_two_keys_without_bytes_may_lie_in_one_place(gcc: Compiler, order: tuple[str, ...], expected: Changes) -> None:
    """struct lock_class_key without lockdep: neither is a variable that comes or goes, nor shared by f and g."""
    together = USERS + "".join((VALUE, FIRST, SECOND, LONG))
    assert gcc.diff_assembly(together, USERS + "".join(order)) == expected


# -- labels where something begins that has no name -------------------------------------------------------------------

END_LABEL = """
.text
.globl f
.type f,@function
f: movzbl CSWTCH.{0}(%rdi), %eax
ret
.size f,.-f
.section .rodata,"a"
.globl begin
begin: .long 1
{1}
.type CSWTCH.{0},@object
CSWTCH.{0}: .byte {2}
.size CSWTCH.{0},1
"""


END = ".globl finish\nfinish:"


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        (f".hidden finish\n{END}", data_changed("finish")),
        ("finish:", data_changed("finish")),
        (".globl last\nlast:", {("finish", "data", "removed"), ("last", "data", "added")}),
    ],
)
def test_an_end_label_where_a_numbered_table_begins_is_compared(gcc: Compiler, label: str, expected: Changes) -> None:
    """uretprobe_trampoline_end of arch/x86/kernel/uprobes.c: other objects may refer to it."""
    old = END_LABEL.format(1, END, 5)
    assert gcc.diff_assembly(old, END_LABEL.format(1, label, 5)) == expected
    assert gcc.diff_assembly(old, END_LABEL.format(7, END, 5)) == set()
    assert gcc.diff_assembly(old, END_LABEL.format(7, END, 6)) == changed("f")


def test_an_end_label_is_the_same_with_and_without_a_table_behind_it(gcc: Compiler) -> None:
    """With -fdata-sections the table lies elsewhere. Who refers to the label does not refer to the table."""
    user = ".text\n.globl g\n.type g,@function\ng: movq $finish, %rax\nret\n.size g,.-g\n"
    old = user + END_LABEL.format(1, END, 5)
    new = old.replace(".type CSWTCH", '.section .rodata.CSWTCH.1,"a"\n.type CSWTCH')
    assert gcc.diff_assembly(old, new) == set()
    assert gcc.diff_assembly(old, user + END_LABEL.format(1, END, 6)) == changed("f")


def test_a_variable_that_a_numbered_table_shares_is_compared(gcc: Compiler) -> None:
    """The compiler puts equal tables together (-fipa-icf): who knows one by its name reads it as well."""
    label = ".type finish,@object\n.size finish,1\nfinish:"
    old, new = END_LABEL.format(1, label, 5), END_LABEL.format(1, label, 6)
    assert gcc.diff_assembly(old, new) == changed("f") | data_changed("finish")
