# SPDX-License-Identifier: GPL-2.0-only
"""Special sections: a change in an entry is a change of the function that it is about, and of nobody else."""

from __future__ import annotations

from pathlib import Path

import pytest
from kernel_like import Special, source, with_change
from snippets import Compiler, changed, data_changed, diff_objects

from kbuild_klp.builds.single_object import ObjectBuild
from kbuild_klp.compare.passes import compare


@pytest.fixture
def old(gcc: Compiler) -> Path:
    return gcc.assembly(source())


@pytest.mark.parametrize(
    "change",
    [
        {"feature": 12},
        {"alt_flags": 1},
        {"replacement": "mfence"},
        {"replacement": "lfence; nop"},
        {"replacement": ""},
        {"replacement": "call retpoline"},
        {"second_replacement": "nop"},
        {"second_replacement": "int3"},
        {"fixup": ".Lelsewhere"},
        {"extable_type": 4},
        {"extable_data": 5},
        {"key": "key_b"},
        {"key_bits": 0},
        {"key_bits": 3},
        {"target": ".Lelsewhere"},
        {"call_key": "sck_b"},
        {"call_bits": 1},
        {"bug_file": ".Lfile2"},
        {"bug_flags": 3},
        {"pointer": "runtime_ptr_inode"},
        {"locked": "incl (%rdi); 667: lock incl (%rdi)"},
        {"more": "nop"},
        {"more": '.pushsection .discard.reachable, "a"; .long 0; .popsection; nop'},
    ],
    ids=str,
)
def test_changed_entry_changes_its_owner(gcc: Compiler, old: Path, change: dict[str, object]) -> None:
    new = gcc.assembly(with_change(**change))
    assert diff_objects(old, new) == changed("user")
    assert diff_objects(new, old) == changed("user")


def test_line_of_a_bug_entry_is_a_line(gcc: Compiler, old: Path) -> None:
    new = gcc.assembly(with_change(bug_line=131))
    assert diff_objects(old, new) == {("user", "function", "line-only")}


def test_line_of_a_bug_entry_beside_its_flags_is_a_change(gcc: Compiler, old: Path) -> None:
    assert diff_objects(old, gcc.assembly(with_change(bug_line=131, bug_flags=3))) == changed("user")


def test_new_alternative_at_the_top_leaves_all_others_quiet(gcc: Compiler, old: Path) -> None:
    head = """
    .text\n.globl fresh\n.type fresh, @function
    fresh: 661: nop; nop; nop
    662: .pushsection .altinstructions, "a"
    .long 661b - ., 663f - .
    .short 3, 0
    .byte 3, 664f - 663f
    .popsection
    .pushsection .altinstr_replacement, "ax"
    663: mov $1, %eax; call retpoline
    664: .popsection
    671: mov (%rsi), %rdx
    .pushsection __ex_table, "a"\n .balign 4\n .long 671b - ., 672f - ., 3\n .popsection
    672: ret\n.size fresh, . - fresh\n.p2align 4
    """
    assert diff_objects(old, gcc.assembly(with_change(head=head))) == {("fresh", "function", "added")}


@pytest.mark.parametrize("section", ["__bug_table", "__jump_table", ".smp_locks", ".static_call_sites"])
def test_order_of_the_tables_in_the_object_means_nothing(gcc: Compiler, old: Path, section: str) -> None:
    """Sections come in the order of first use, which a new function at the top decides."""
    head = f'.pushsection {section}, "aw"\n.popsection'.replace('"aw"', '"a"' if section == ".smp_locks" else '"aw"')
    assert diff_objects(old, gcc.assembly(with_change(head=head))) == set()


def test_discarded_annotations_change_nothing(gcc: Compiler, old: Path) -> None:
    """The linker throws them away."""
    for text in ("1", "2, 3"):
        more = f'.pushsection .discard.annotate, "a"; .long {text}; .popsection'
        assert diff_objects(old, gcc.assembly(with_change(more=more))) == set()


def test_names_that_are_checked_while_the_kernel_is_built(gcc: Compiler) -> None:
    """TRACEPOINT_CHECK of 7.x: the first use of a tracepoint in a file brings one, and a renamed one is no change."""
    source = """
        CHECK
        int out(int);
        int user(int x) { return out(x) + NUMBER; }
    """
    check = '__attribute__((used, section("__tracepoint_check"))) static const char check_%s[] = "%s";'
    texts = ["", check % ("it", "it"), check % ("that", "that")]
    objects = [gcc.object(source.replace("CHECK", text).replace("NUMBER", "1")) for text in texts]
    assert diff_objects(objects[0], objects[1]) == diff_objects(objects[1], objects[2]) == set()
    other = gcc.object(source.replace("CHECK", texts[1]).replace("NUMBER", "2"))
    assert diff_objects(objects[0], other) == changed("user")


def test_replacement_of_length_zero_does_not_own_what_lies_beside_it(gcc: Compiler) -> None:
    """Its reference points at the next replacement, which belongs to another alternative."""
    empty = Special(replacement="", second_replacement="")
    new = [gcc.assembly(source(empty, Special(replacement=text))) for text in ("lfence", "mfence; nop")]
    assert diff_objects(*new) == changed("other")


@pytest.mark.parametrize("text", ["nop", "int3", "nop; nop; nop", ".byte 0x0f, 0x1f, 0x00", ""])
def test_replacements_of_nothing_but_nops_are_code(gcc: Compiler, text: str) -> None:
    """Where all replacements of an object are NOPs, their section is no padding."""
    entries = Special(replacement="nop; nop", second_replacement="nop")
    new = Special(replacement=text, second_replacement="nop")
    assert diff_objects(gcc.assembly(source(entries, entries)), gcc.assembly(source(new, entries))) == changed("user")


def test_lock_prefix_in_replacement_code_is_seen(gcc: Compiler) -> None:
    def locked(instruction: str) -> str:
        lock = f'{instruction}\n.pushsection .smp_locks, "a"\n.balign 4\n.long 677b - .\n.popsection'
        return with_change(replacement=lock)

    first = gcc.assembly(locked("677: lock incl (%rdi); nop"))
    assert diff_objects(first, gcc.assembly(locked("677: lock incl (%rdi); nop"))) == set()
    assert diff_objects(first, gcc.assembly(locked("incl (%rdi); 677: nop"))) == changed("user")
    plain = gcc.assembly(with_change(replacement="lock incl (%rdi); nop"))
    assert diff_objects(first, plain) == changed("user")


def test_call_in_replacement_code_counts_from_its_end(gcc: Compiler) -> None:
    old_object = gcc.assembly(with_change(replacement="call user; nop"))
    assert diff_objects(old_object, gcc.assembly(with_change(replacement="call other; nop"))) == changed("user")
    assert diff_objects(old_object, gcc.assembly(with_change(replacement="call user+1; nop"))) == changed("user")


def test_replacement_code_in_a_subsection_is_seen(gcc: Compiler) -> None:
    """As arm64 and riscv do: behind the functions, in their section, in nobody's symbol."""
    text = """
    .text\n.globl f\n.type f, @function\nf: 661: nop\n ret\n.size f, . - f
    .subsection 1\n663: {}\n664: .previous
    .pushsection .altinstructions, "a"\n.long 661b - ., 663b - .\n.short 3, 0\n.byte 1, 664b - 663b\n.popsection
    .globl g\n.type g, @function\ng: {}ret\n.size g, . - g
    """
    first = gcc.assembly(text.format("cli", ""))
    assert diff_objects(first, gcc.assembly(text.format("sti", ""))) == changed("f")
    assert diff_objects(first, gcc.assembly(text.format("cli", "nop; "))) == changed("g")


@pytest.mark.parametrize("section", ["__mcount_loc", "__patchable_function_entries"])
def test_traced_function_that_is_no_longer_traced_is_found(gcc: Compiler, section: str) -> None:
    text = (
        ".text\n.globl f, g\n.type f, @function\nf: {}\n ret\n.size f, . - f\n.type g, @function\ng: ret\n.size g, 1\n"
    )
    entry = f'nop\n.pushsection {section}, "a"\n.quad f\n.popsection'
    assert gcc.diff_assembly(text.format(entry), text.format("nop")) == changed("f")


@pytest.mark.parametrize(
    "section", [".retpoline_sites", ".return_sites", ".call_sites", ".ibt_endbr_seal", ".cfi_sites"]
)
def test_sites_that_objtool_lists_belong_to_their_function(gcc: Compiler, section: str) -> None:
    text = (
        ".text\n.globl f, g\n.type f, @function\nf: nop\n{}\n ret\n"
        ".size f, . - f\n.type g, @function\ng: {}\nret\n.size g, . - g\n"
    )
    entry = f'1: nop\n.pushsection {section}, "a"\n.long 1b - .\n.popsection'
    first = gcc.assembly(text.format(entry, entry))
    assert diff_objects(first, gcc.assembly(text.format("nop", entry))) == changed("f")
    assert diff_objects(first, gcc.assembly(text.format(entry, "nop"))) == changed("g")
    assert diff_objects(first, gcc.assembly(text.format(entry, "nop\n" + entry))) == changed("g")


def test_unwind_tables_are_derived(gcc: Compiler, old: Path) -> None:
    more = (
        '.pushsection .orc_unwind, "a"; .byte {0}, 2, 3, 4, 5, 6; '
        '.popsection; .pushsection .orc_unwind_ip, "a"; .long {0}; .popsection'
    )
    one, two = (gcc.assembly(with_change(more=more.format(value))) for value in (1, 9))
    assert diff_objects(old, one) == set() == diff_objects(one, two)


def test_table_of_an_unknown_layout_without_functions_is_plain_data_and_said_so(gcc: Compiler) -> None:
    text = '.data\n.globl v\nv: .long 0\n.section __ex_table, "a"\n.long v - ., {}\n.byte 1\n'
    first, second = gcc.assembly(text.format(1)), gcc.assembly(text.format(2))
    report = compare(ObjectBuild(str(first)), ObjectBuild(str(second)))
    assert [(change.symbol, change.kind) for group in report.objects for change in group.changes] == [
        ("__ex_table", "section")
    ]
    assert len(report.warnings) == 2 and all("__ex_table" in warning for warning in report.warnings)


def test_entry_that_belongs_to_nobody_is_compared(gcc: Compiler) -> None:
    text = (
        ".text\n.globl f\n.type f, @function\nf: ret\n.size f, 1\n"
        '.section __ex_table, "a"\n.long outside - ., f - ., {}\n'
    )
    assert gcc.diff_assembly(text.format(1), text.format(2)) == {("__ex_table", "section", "changed")}


def test_entries_about_data_belong_to_the_data(gcc: Compiler) -> None:
    text = (
        '.data\n.globl v\n.type v, @object\nv: .quad 1\n.size v, 8\n.section __ex_table, "a"\n.long v - ., v - ., {}\n'
    )
    assert gcc.diff_assembly(text.format(1), text.format(2)) == data_changed("v")


_TWO_LABELS = """
.text
.globl user\n.type user, @function
user: nop
first_place: mov (%rdi), %rax
second_place: mov (%rsi), %rax
ret
.size user, . - user
.pushsection __ex_table, "a"\n .balign 4\n .long {owner} - ., user - ., 3\n .popsection
"""


def test_entry_that_names_its_place_by_a_global_label(gcc: Compiler) -> None:
    """Relocations name such a label, and both are its offset 0: what counts is where in the function they lie."""
    labels = ".globl first_place, second_place\n"
    old, new = (gcc.assembly(labels + _TWO_LABELS.format(owner=f"{which}_place")) for which in ("first", "second"))
    assert diff_objects(old, new) == changed("user")


def test_entry_whose_place_is_in_another_object(gcc: Compiler) -> None:
    """Nobody here owns it; that it is about another symbol now must not be lost."""
    old, new = (gcc.assembly(_TWO_LABELS.format(owner=name)) for name in ("elsewhere", "somewhere"))
    assert diff_objects(old, new) == {("__ex_table", "section", "changed")}


def test_padding_before_a_split_off_part(gcc: Compiler) -> None:
    """Padding with a symbol before foo.cold is of foo."""
    text = """
    .text\n.globl foo\n.type foo, @function\nfoo: jmp foo.cold\n.size foo, . - foo
    .section .text.unlikely, "ax"
    .type __pfx_foo.cold, @function\n__pfx_foo.cold: {padding}\n.size __pfx_foo.cold, . - __pfx_foo.cold
    .type foo.cold, @function\nfoo.cold: ud2\n.size foo.cold, . - foo.cold
    """
    assert gcc.diff_assembly(text.format(padding="nop; nop"), text.format(padding="nop; int3")) == changed("foo")


def test_pointers_to_tracepoints_are_variables(gcc: Compiler) -> None:
    """Before 4.19 (include/linux/tracepoint.h), and where there are no PREL32 relocations."""
    text = """
    struct tracepoint { const char *name; };
    #define TRACE(name) \\
        struct tracepoint __tracepoint_##name __attribute__((section("__tracepoints"))) = {#name}; \\
        static struct tracepoint *const __tracepoint_ptr_##name \\
            __attribute__((section("__tracepoints_ptrs"), used)) = &__tracepoint_##name;
    TRACE(first)
    TRACE(second)
    """
    old = gcc.object(text)
    new = gcc.object(text.replace("TRACE(first)\n", "TRACE(other)\nTRACE(first)\n"))
    added = {(f"__tracepoint_{name}other", "data", "added") for name in ("", "ptr_")}
    assert diff_objects(old, new) == added
