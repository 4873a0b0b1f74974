# SPDX-License-Identifier: GPL-2.0-only
"""Canonical names: what compilers and the kernel's macros number, each beside what is to be left of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbuild_klp.elf.symbol_names import canonical_name, canonical_section, maybe_numbered, source_name

# symbol, canonical name, whether a number went
TABLE = [
    # nothing to take out
    ("vfs_read", "vfs_read", False),
    ("count5", "count5", False),
    ("__x64_sys_read", "__x64_sys_read", False),
    ("", "", False),
    (".text", ".text", False),
    ("a.b", "a.b", False),
    ("x86_64_start_kernel", "x86_64_start_kernel", False),
    # GCC: static locals
    ("count.5", "count", True),
    ("__already_done.12345", "__already_done", True),
    ("__func__.0", "__func__", True),
    ("CSWTCH.17", "CSWTCH", True),
    ("_rs.3", "_rs", True),
    ("__compound_literal.12", "__compound_literal", True),
    (".compoundliteral", ".compoundliteral", True),
    (".compoundliteral.7", ".compoundliteral", True),
    ("constinit", "constinit", True),
    ("constinit.3", "constinit", True),
    ("constinits", "constinits", False),
    ("__key.104", "__key", True),
    ("count.5.1", "count", True),
    # GCC: clones
    ("foo.isra.0", "foo.isra", True),
    ("foo.constprop.3", "foo.constprop", True),
    ("foo.part.0", "foo.part", True),
    ("foo.constprop.0.isra.0", "foo.constprop.isra", True),
    ("foo.cold", "foo.cold", False),
    ("foo.isra.0.cold", "foo.isra.cold", True),
    ("foo.lto_priv.7", "foo.lto_priv", True),
    ("foo.localalias", "foo.localalias", False),
    ("foo.constprop.1.isra.0", "foo.constprop.isra", True),
    ("foo.isra.0.constprop.1", "foo.constprop.isra", True),
    ("foo.part.2.isra.0.cold.7", "foo.isra.part.cold", True),
    ("foo.isra.0.isra.1", "foo.isra.isra", True),
    ("foo.constprop.0.cold", "foo.constprop.cold", True),
    ("foo.cold.12", "foo.cold", True),
    ("foo.simdclone.3", "foo.simdclone", True),
    ("T.123", "T", True),
    ("C.12.3456", "C", True),
    ("count.lto_priv.0.lto_priv.1", "count.lto_priv.lto_priv", True),
    # GCC: constructors of instrumented files
    ("_sub_I_65535_1", "_sub_I_65535", True),
    ("_sub_D_00099_0", "_sub_D_00099", True),
    ("_GLOBAL__sub_I_65535_0_foo", "_GLOBAL__sub_I_65535", True),
    ("_GLOBAL__sub_D_00099_0_t.c", "_GLOBAL__sub_D_00099", True),
    ("_GLOBAL__I_65535_0_foo", "_GLOBAL__I_65535", True),
    ("_GLOBAL__sub_I_foo_1", "_GLOBAL__sub_I_foo_1", False),
    ("_sub_I_something", "_sub_I_something", False),
    # Clang
    ("__unnamed_1", "__unnamed", True),
    ("__unnamed_12.llvm.1234", "__unnamed", True),
    ("__unnamed_x", "__unnamed_x", False),
    ("func.var", "func.var", False),
    ("func.var.5", "func.var", True),
    ("foo.llvm.1234567890123456789", "foo", False),
    ("foo.cold.1", "foo.cold", True),
    ("foo.__UNIQUE_ID_x", "foo.__UNIQUE_ID_x", False),
    ("foo.__UNIQUE_ID_ddebug247", "foo.__UNIQUE_ID_ddebug", True),
    ("foo.__UNIQUE_ID_ddebug247.3", "foo.__UNIQUE_ID_ddebug", True),
    ("foo.llvm.1A2B3C4D", "foo", False),
    ("foo.5.llvm.123", "foo", True),
    ("foo.__uniq.340282366920938463463374607431768211455", "foo", False),
    ("foo.__uniq.123.llvm.456", "foo", False),
    ("count.__uniq.123.5", "count", True),
    ("foo.content.1234567890", "foo", False),
    ("foo.content", "foo.content", False),
    ("foo.llvm", "foo.llvm", False),
    ("foo.specialized.1", "foo.specialized", True),
    ("foo.specialized.1.llvm.77", "foo.specialized", True),
    ("foo.argprom", "foo.argprom", False),
    ("foo.memprof.2", "foo.memprof", True),
    ("switch.table.foo.3", "switch.table.foo", True),
    (".str.12.llvm.345", ".str", True),
    # include/linux/compiler.h, __UNIQUE_ID: 6.1 and 6.12, then with _ before the number
    ("__UNIQUE_ID___addressable_init456", "__UNIQUE_ID___addressable_init", True),
    ("__UNIQUE_ID_license123", "__UNIQUE_ID_license", True),
    ("__UNIQUE_ID_ddebug250.0", "__UNIQUE_ID_ddebug", True),
    ("__UNIQUE_ID_license_123", "__UNIQUE_ID_license", True),
    ("__UNIQUE_ID_x__123", "__UNIQUE_ID_x_", True),
    ("__UNIQUE_ID_nothing", "__UNIQUE_ID_nothing", False),
    ("__UNIQUE_ID_ddebug250.lto_priv.3", "__UNIQUE_ID_ddebug.lto_priv", True),
    ("__addressable_init_module42", "__addressable_init_module", True),
    # include/linux/btf_ids.h
    ("__BTF_ID__struct__file__17", "__BTF_ID__struct__file__", True),
    ("__BTF_ID__func__bpf_get__927104", "__BTF_ID__func__bpf_get__", True),
    ("__BTF_ID__struct__foo__1__17", "__BTF_ID__struct__foo__1__", True),
    ("__BTF_ID__set8__ids__5", "__BTF_ID__set8__ids__5", False),
    ("__BTF_ID__set__ids", "__BTF_ID__set__ids", False),
    # include/linux/init.h, ___initcall_id: counter and line
    ("__initcall__kmod_ext4__512_7441_ext4_init_fs6", "__initcall__kmod_ext4__ext4_init_fs6", False),
    ("__initcall__kmod_core__1_2_x_3_4_fn7", "__initcall__kmod_core__x_3_4_fn7", False),
    ("__initstub__kmod_ext4__512_7441_ext4_init_fs6", "__initstub__kmod_ext4__ext4_init_fs6", False),
    ("__initcall_start", "__initcall_start", False),
    ("__initcall6_start", "__initcall6_start", False),
    # Rust: legacy and v0 mangling
    ("_ZN4core3fmt5Write9write_fmt17h0123456789abcdefE", "_ZN4core3fmt5Write9write_fmt", False),
    ("_ZN4core3fmt5Write9write_fmtE", "_ZN4core3fmt5Write9write_fmtE", False),
    ("_RNvNtCs1234_6kernel5print6printk", "_RNvNtC6kernel5print6printk", False),
    ("_RNvNtCsaBcDeFgHiJk_4core3fmt5write", "_RNvNtC4core3fmt5write", False),
    ("_RNvCs1_1a1b", "_RNvC1a1b", False),
    ("_Rest", "_Rest", False),
]


@pytest.mark.parametrize(("symbol", "text", "numbered"), TABLE)
def test_table(symbol: str, text: str, numbered: bool) -> None:
    assert canonical_name(symbol) == (text, numbered)


@pytest.mark.parametrize("symbol", [row[0] for row in TABLE])
def test_a_canonical_name_is_its_own(symbol: str) -> None:
    text = canonical_name(symbol).text
    assert canonical_name(text).text == text


def test_only_candidates_lose_a_number() -> None:
    names = [row[0] for row in TABLE]
    candidates = set(maybe_numbered(names))
    assert all(at in candidates for at, row in enumerate(TABLE) if row[2])


@given(st.text("ab_.019CR", max_size=20) | st.text(max_size=10))
def test_any_name_has_an_answer_that_is_stable(name: str) -> None:
    text, numbered = canonical_name(name)
    assert len(text) <= len(name)
    assert canonical_name(name) == (text, numbered)
    assert not numbered or text != name


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("foo", "foo"),
        ("foo.isra", "foo"),
        ("foo.constprop.isra", "foo"),
        ("foo.part", "foo"),
        ("foo.cold", "foo.cold"),
        ("foo.isra.cold", "foo.cold"),
        ("foo.israel", "foo.israel"),
        ("foo.lto_priv", "foo"),
        ("foo.specialized", "foo"),
        ("foo.argprom.isra", "foo"),
        ("foo.llvm.part", "foo.llvm"),
    ],
)
def test_source_name(text: str, source: str) -> None:
    assert source_name(text) == source


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (".text.__d_alloc.llvm.10723993769922353958", ".text.__d_alloc"),
        (".rodata.str1.8", ".rodata.str1.8"),
        (".rodata.cst16", ".rodata.cst16"),
        (".data..percpu..shared_aligned", ".data..percpu..shared_aligned"),
    ],
)
def test_section_of_a_function_is_the_same_in_another_directory(name: str, expected: str) -> None:
    """ThinLTO puts the hash of a module's path into section names: else every function of an LTO kernel is moved."""
    assert canonical_section(name) == expected
