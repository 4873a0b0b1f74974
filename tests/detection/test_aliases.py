# SPDX-License-Identifier: GPL-2.0-only
"""A function or variable with several names is called by its own, whichever of the others it has."""

from __future__ import annotations

import subprocess

import pytest
from snippets import Compiler, changed, data_changed, diff_objects

from kbuild_klp.builds.single_object import ObjectBuild
from kbuild_klp.compare.passes import compare

MODULE = """
static {0} int svm_init(int x) {{ return x * {1}; }}
static {0} int svm_exit(int x) {{ return x * 7; }}
int init_module(int) __attribute__((alias("svm_init")));
int cleanup_module(int) __attribute__((alias("svm_exit")));
"""


def test_static_function_with_an_alias_is_called_by_its_own_name(cc: Compiler) -> None:
    old, new = (cc.object(MODULE.format("__attribute__((noinline, used))", factor)) for factor in (3, 5))
    [group] = compare(ObjectBuild(str(old)), ObjectBuild(str(new))).objects
    [change] = group.changes
    assert (change.symbol, change.aliases) == ("svm_init", ["init_module"])
    assert change.title == "svm_init (alias init_module)"
    assert diff_objects(old, old) == set()


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ('long __do_sys_f(int x) {body} long __x64_sys_f(int) __attribute__((alias("__do_sys_f")));', "__do_sys_f"),
        ('long f(int x) {body} long g(int) __attribute__((weak, alias("f")));', "f"),
        ('long a_variant(int x) {body} long z(int) __attribute__((weak, alias("a_variant")));', "a_variant"),
    ],
)
@pytest.mark.parametrize("binding", ["", "static __attribute__((used))"])
def test_what_is_defined_names_what_is_declared_to_be_the_same(
    cc: Compiler, source: str, name: str, binding: str
) -> None:
    old, new = (f"{binding} {source.replace('{body}', f'{{ return x * {factor}; }}')}" for factor in (3, 5))
    if binding or "__x64" not in source:  # of two global ones none is more of a definition than the other
        assert cc.diff(old, new) == changed(name)


def test_table_with_an_alias_is_called_by_its_own_name(cc: Compiler) -> None:
    source = (
        "static const int ids[] __attribute__((used)) = {{ 1, {} }};"
        'extern const int __mod_pci__ids_device_table[2] __attribute__((alias("ids")));'
    )
    assert cc.diff(source.format(2), source.format(3)) == data_changed("ids")


def test_alias_in_one_build_only_does_not_say_what_is_which(cc: Compiler) -> None:
    """The alias comes or goes: one function is changed, and none added or removed."""
    source = MODULE.format("__attribute__((noinline, used))", 3)
    bare = source.replace('int init_module(int) __attribute__((alias("svm_init")));', "")
    assert cc.diff(source, bare) == changed("svm_init")
    assert cc.diff(bare, source) == changed("svm_init")


def test_static_function_of_one_build_is_the_alias_of_the_other(gcc: Compiler) -> None:
    """What is left of a module without local symbols has the alias for a name."""
    whole = gcc.object(MODULE.format("__attribute__((noinline, used))", 3))
    bare = gcc.object(MODULE.format("__attribute__((noinline, used))", 3))
    subprocess.run(["strip", "--strip-unneeded", str(bare)], check=True)
    assert diff_objects(whole, bare) == changed("init_module", "cleanup_module")
    assert diff_objects(bare, whole) == changed("svm_init", "svm_exit")
    assert diff_objects(bare, bare) == set()


def test_label_of_assembly_does_not_name_a_function(gcc: Compiler) -> None:
    source = ".text\n.globl f\n.type f, @function\nlabel: f: mov ${}, %eax\nret\n.size f, . - f\n"
    assert gcc.diff_assembly(source.format(1), source.format(2)) == changed("f")


CLONE = """
.text
.type {0}, @function
{0}: mov $3, %eax
.Lhere: ret
.size {0}, . - {0}
.globl user
.type user, @function
user: mov $5, %eax
ret
.size user, . - user
.section .return_sites, "a"
.long .Lhere - .
"""


def test_function_that_lost_its_suffix_shares_nothing_with_others(gcc: Compiler) -> None:
    """It is the same; that its special entries refer to it by a name with a number means nothing."""
    clone, plain = gcc.assembly(CLONE.format("f.isra.0")), gcc.assembly(CLONE.format("f"))
    for pair in ((clone, plain), (plain, clone)):
        assert diff_objects(*pair) == set()
    assert diff_objects(clone, gcc.assembly(CLONE.format("f").replace("$3", "$4"))) == changed("f")


def test_recursive_function_that_calls_another_clone_now(gcc: Compiler) -> None:
    source = """
.text
.type {first}.0, @function
{first}.0: mov {first}.0(%rip), %eax
mov {second}(%rip), %eax
ret
.size {first}.0, . - {first}.0
.type {first}.1, @function
{first}.1: mov $7, %eax
ret
.size {first}.1, . - {first}.1
"""
    own = source.format(first="f.part", second="f.part.0")
    other = source.format(first="f.part", second="f.part.1")
    assert ("f.part", "function", "changed") in diff_objects(gcc.assembly(own), gcc.assembly(other))
