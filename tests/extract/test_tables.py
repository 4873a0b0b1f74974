# SPDX-License-Identifier: GPL-2.0-only
"""Entries of special sections come along with the code that they are about, and nothing else does."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from extracted_mutations import Made, functions, make, survivors
from kernel_like import Special, source, with_change
from made_up_assembler import assemble
from snippets import Compiler

from kbuild_klp.elf.reader import ObjectFile
from kbuild_klp.errors import KlpError
from kbuild_klp.extract.correlated import Correlated
from kbuild_klp.extract.relocated import RelocatedObject
from kbuild_klp.object.special_entries import special_entries
from kbuild_klp.object.view import ObjectView

_SIZES = {
    ".altinstructions": 28,
    "__ex_table": 12,
    "__jump_table": 16,
    ".static_call_sites": 8,
    "__bug_table": 12,
    ".smp_locks": 4,
    "runtime_ptr_dentry": 4,
}

_SIDE = """
    .section .orc_unwind, "a"
    {unwind}
    .section .orc_unwind_ip, "a"
    {places}
    .section .orc_header, "a"
    .ascii "what the layout of it is"
    .section .discard.reachable
    .long user + 4 - ., other + 4 - .
    .section .discard.annotate_insn, "M", @progbits, 8
    .long user + 1 - ., 5, other + 1 - ., 6
"""


def made_of(path: Path, *names: str) -> Made:
    """Extract some functions of an object, as if they had changed."""
    view = ObjectView(str(path))
    wanted = [part for part in functions(view) if view.part_name(part) in names]
    assert len(wanted) == len(names)
    return make(Correlated(view, view), RelocatedObject(view), wanted)


def sizes(data: bytes) -> dict[str, int]:
    """Return the sizes of the sections of an object, by name."""
    file = ObjectFile(data, "out.o")
    return dict(zip(file.section_names, file.sections["size"].tolist(), strict=True))


@pytest.mark.parametrize("name", ["user", "other"])
def test_each_function_brings_its_own_entries(gcc: Compiler, tmp_path: Path, name: str) -> None:
    made = made_of(gcc.assembly(source()), name)
    assert made.check() == 1
    found = sizes(made.data)
    assert {table: found[table] for table in _SIZES} == _SIZES
    assert found[".altinstr_replacement"] == 3  # lfence or mfence
    view = ObjectView(ObjectFile(made.data, "out.o"))
    [part] = [part for part in functions(view) if view.part_name(part) == name]
    entries = special_entries(view, [part])
    texts = {(table, field.text) for table, own in entries.items() for entry in own for field in entry.fields}
    assert ("__jump_table", "key_a+0x2" if name == "user" else "key_b+0x2") in texts
    assert (".static_call_sites", "sck_a" if name == "user" else "sck_b") in texts


@pytest.mark.parametrize(
    "change",
    [
        {"feature": 12},
        {"replacement": "call barrier"},
        {"second_replacement": "call elsewhere"},
        {"fixup": ".Lother"},
        {"extable_type": 9},
        {"key": "key_b"},
        {"key_bits": 0},
        {"target": ".Lelsewhere"},
        {"call_key": "sck_b"},
        {"bug_file": ".Lfile2"},
        {"bug_line": 101},
        {"bug_flags": 3},
        {"locked": "incl (%rdi)\n667: lock decl (%rdi)"},
        {"pointer": "runtime_shift_d_hash_shift"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_is_in_them(gcc: Compiler, tmp_path: Path, change: dict[str, object]) -> None:
    if change.get("fixup"):
        change = {"target": ".Lelsewhere"}
    made = made_of(gcc.assembly(with_change(**change)), "user")
    assert not made.needed.refused
    assert made.check() == 1


def test_replacement_code_has_what_it_refers_to(gcc: Compiler, tmp_path: Path) -> None:
    made = made_of(gcc.assembly(source(Special(replacement="call elsewhere"))), "user")
    assert made.check() == 1
    assert "elsewhere" in made.needed.outside


def _with_side_tables(unwind: str, places: str) -> str:
    return source() + _SIDE.format(unwind=unwind, places=places)


def test_unwind_tables_begin_with_the_state_before(gcc: Compiler, tmp_path: Path) -> None:
    # Nothing is said of where `other` begins: what was said last of `user` holds.
    unwind = '.ascii "first1", "second", "third3"\n.fill 6, 1, 0'
    places = ".long user - ., user + 3 - ., other + 2 - ., other + 0x80 - ."
    made = made_of(gcc.assembly(_with_side_tables(unwind, places)), "other")
    made.check()
    file = ObjectFile(made.data, "out.o")
    assert file.section_bytes(file.section_names.index(".orc_unwind"))[:12] == b"secondthird3"
    assert file.section_bytes(file.section_names.index(".orc_unwind"))[-6:] == bytes(6)
    assert file.section_bytes(file.section_names.index(".orc_header")) == b"what the layout of it is"
    rows = ObjectView(ObjectFile(made.data, "out.o")).object.relocations(
        np.array([file.section_names.index(".orc_unwind_ip")])
    )
    assert rows.addend.tolist()[:2] == [0, 2]


def test_notes_for_objtool_come_along(gcc: Compiler, tmp_path: Path) -> None:
    made = made_of(gcc.assembly(_with_side_tables("", "")), "other")
    made.check()
    found = sizes(made.data)
    assert (found[".discard.reachable"], found[".discard.annotate_insn"]) == (4, 8)
    file = ObjectFile(made.data, "out.o")
    assert file.section_bytes(file.section_names.index(".discard.annotate_insn"))[4:] == b"\6\0\0\0"


def test_a_table_that_nobody_knows_is_refused(gcc: Compiler) -> None:
    text = source() + '.section .vendor_sites, "a"\n.long user + 3 - .\n'
    made = made_of(gcc.assembly(text), "user")
    assert [refusal.bar.word for refusal in made.needed.refused] == ["unknown-table"]
    assert not made_of(gcc.assembly(text), "other").needed.refused


_SITES = """
    .text
    .type first, @function
first:
    call *pointer
    call *pointer
    ret
    .size first, . - first
    .type last, @function
last:
    call *pointer
    ret
    .size last, . - last
    .section .parainstructions, "a"
    .macro site place type
    .balign 8
    .quad \\place
    .byte \\type, 7
    .endm
    site first 1
    site first+7 2
    site last 3
"""


@pytest.mark.parametrize(("names", "types"), [(("first",), [1, 2]), (("last",), [3]), (("first", "last"), [1, 2, 3])])
def test_the_last_entry_may_lack_its_padding(gcc: Compiler, names: tuple[str, ...], types: list[int]) -> None:
    """Nothing aligns what follows a paravirt_patch_site in 5.10: only the next one is."""
    made = made_of(gcc.assembly(_SITES), *names)
    assert not made.needed.refused
    assert made.check() == len(names)
    file = ObjectFile(made.data, "out.o")
    content = file.section_bytes(file.section_names.index(".parainstructions"))
    assert [content[at] for at in range(8, len(content), 16)] == types


def test_the_link_order_of_a_table_is_that_of_the_function(cc: Compiler, tmp_path: Path) -> None:
    text = "int first(int x) { return x + 3; } int second(int x) { return x - 3; }"
    made = made_of(cc.object(text, "-fpatchable-function-entry=16,16"), "first", "second")
    made.check()
    file = ObjectFile(made.data, "out.o")
    links = [
        file.section_names[int(header["link"])]
        for name, header in zip(file.section_names, file.sections, strict=True)
        if name == "__patchable_function_entries"
    ]
    assert sorted(links) == [".text.first", ".text.second"]


_PROGRAM = """
struct ops { int (*run)(int); const char *name; };
int outside(int, const char *, const void *);
static int helper(int x) { return outside(x, __func__, 0); }
static const struct ops table = { helper, "table" };
static int state = 3, others[6];
int user(int x) {
    static int calls; static const int primes[] = {2, 3, 5, 7, 11, 13, 17, 19, 23, 29};
    if (__builtin_expect(x == 3, 0)) __builtin_trap();
    others[x & 3] += primes[x % 10] + state++;
    switch (x) { case 1: return outside(x, "one", &table); case 2: return calls++; case 4: return outside(9, "four", 0);
                 case 5: return outside(2, "five", user); case 6: return helper(x); case 7: return x << 3; }
    return 0;
}
"""


@pytest.mark.parametrize("seed", range(4))
def test_no_damage_stays_unnoticed(gcc: Compiler, tmp_path: Path, seed: int) -> None:
    chance, tried = random.Random(seed), Counter[str]()
    path = gcc.object(_PROGRAM, "-fjump-tables") if seed % 2 else gcc.assembly(_with_side_tables("", ""))
    made = made_of(path, "user")
    made.check()
    assert [*survivors(made, 60, chance, tried)] == []
    assert sum(tried.values()) > 100


def test_the_checks_name_what_is_wrong(gcc: Compiler, tmp_path: Path) -> None:
    made = made_of(gcc.object(_PROGRAM), "user")
    at = made.data.index(b"one\0")
    with pytest.raises(KlpError, match="the extracted object is wrong: its bytes differ"):
        made.check(made.data[:at] + b"O" + made.data[at + 1 :])


@pytest.mark.usefixtures("made_up_machine")
def test_a_machine_of_which_too_little_is_known_is_not_tried(tmp_path: Path) -> None:
    (tmp_path / "unit.o").write_bytes(assemble("f0::\n    nop\n"))
    assert not RelocatedObject(ObjectView(str(tmp_path / "unit.o"))).is_supported
