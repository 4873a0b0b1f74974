# SPDX-License-Identifier: GPL-2.0-only
"""Names that Rust gave to symbols: what is left of them says the same, less the numbers."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbuild_klp.elf.rust_names import without_numbers
from kbuild_klp.elf.symbol_names import canonical_name

# Of a library that rustc 1.95 compiled with -Csymbol-mangling-version=v0.
NAMES = [
    "_RNvCs1HE6alunEGA_3big1g",
    "_RINvCs1HE6alunEGA_3big1fhEB2_",
    "_RNCNvCs1HE6alunEGA_3big1g0B3_",
    "_RNCNvCs1HE6alunEGA_3big1gs_0B3_",
    "_RNvNtCsgEmfK2I1SDS_4core3fmt5write",
    "_RINvCs1HE6alunEGA_3big1fTscAyj4_EEB2_",
    "_RNCINvCs1HE6alunEGA_3big1fTscAyj4_EE0B4_",
    "_RNvNtCslNYArtu3iFV_5alloc7raw_vec12handle_error",
    "_RNvMNvCs1HE6alunEGA_3big1gINtB2_1WKj3_Kb1_E1qB4_",
    "_RNvMNtNtCsjrHSEGnQ3l9_3std6thread2idNtB2_8ThreadId3new",
    "_RINvNtCsjrHSEGnQ3l9_3std3env6var_osReECs1HE6alunEGA_3big",
    "_RINvNtCsgEmfK2I1SDS_4core3ptr10swap_chunkKj1_ECs1HE6alunEGA_3big",
    "_RNvMNtCsgEmfK2I1SDS_4core5sliceSTscAyj4_E4iterCs1HE6alunEGA_3big",
    "_RNvMs_NtNtCsgEmfK2I1SDS_4core3fmt8buildersNtB4_10PadAdapter4wrap",
    "_RNvXsp_NtCsgEmfK2I1SDS_4core3fmtPFKChEuNtB5_5Debug3fmtCs1HE6alunEGA_3big",
    "_RINvNtCsgEmfK2I1SDS_4core3ptr13drop_in_placeNCINvCs1HE6alunEGA_3big1fhE0EBL_",
    "_RNCNvXsl_NtCsgEmfK2I1SDS_4core3fmtPFKChEuNtB7_7Pointer3fmt0Cs1HE6alunEGA_3big",
    "_RINvMNtNtCsgEmfK2I1SDS_4core3fmt2rtNtB3_8Argument9new_debugjECs1HE6alunEGA_3big",
    "_RNvMs_NtCslNYArtu3iFV_5alloc5boxedINtB4_3BoxnE13new_uninit_inCs1HE6alunEGA_3big",
    "_RNCNvXs7_NtNtCsgEmfK2I1SDS_4core5slice3cmpyNtB7_8SliceOrd7compare0Cs1HE6alunEGA_3big",
    "_RINvMNtNtCsgEmfK2I1SDS_4core3fmt2rtNtB3_8Argument9new_debugPFKChEuECs1HE6alunEGA_3big",
    "_RNvXs0_NtCsgEmfK2I1SDS_4core3anyDNtB5_3AnyNtNtB7_6marker4SendEL_NtNtB7_3fmt5Debug3fmt",
    "_RNCNvXs7_NtNtCsgEmfK2I1SDS_4core5slice3cmpyNtB7_8SliceOrd7compares_0Cs1HE6alunEGA_3big",
    "_RINvNtNtNtCslNYArtu3iFV_5alloc11collections5btree4node12slice_inserthECs1HE6alunEGA_3big",
    "_RINvNtCsgEmfK2I1SDS_4core3ptr13drop_in_placeINtNtCslNYArtu3iFV_5alloc3vec3VechEECs1HE6alunEGA_3big",
    "_RNvYNCNvCs1HE6alunEGA_3big1gs_0INtNtNtCsgEmfK2I1SDS_4core3ops8function6FnOnceTReQShEE9call_onceB6_",
    "_RINvNtCsgEmfK2I1SDS_4core3ptr13drop_in_placeDNtNtB4_3any3AnyNtNtB4_6marker4SendEL_ECs1HE6alunEGA_3big",
    "_RNCINvCs1HE6alunEGA_3big1fINtNtCsgEmfK2I1SDS_4core6option6OptionINtNtCslNYArtu3iFV_5alloc5boxed3BoxnEEE0B4_",
    "_RNCINvNtNtCsjrHSEGnQ3l9_3std6thread9lifecycle15spawn_uncheckedNCINvCs1HE6alunEGA_3big1fTscAyj4_EE0uEs_0B13_",
    "_RNSNvYNCNvCs1HE6alunEGA_3big1gs_0INtNtNtCsgEmfK2I1SDS_4core3ops8function6FnOnceTReQShEE9call_once6vtableB8_",
    "_RNSNvYNCNvCs1HE6alunEGA_3big1gs0_0INtNtNtCsgEmfK2I1SDS_4core3ops8function6FnOnceTReQShEE9call_once6vtableB8_",
    "_RNvMs0_CscBAOm73Iv6_9rust_demoNtB5_7Counter1a",
    "_RNCNvCscBAOm73Iv6_9rust_demo3runs0_0B3_",
]

_COUNTED = re.compile(r"\{(\w+)(:\w+)?#\d+\}")
_HASH = re.compile(r"\[[0-9a-f]+\]")


def _demangled(names: list[str]) -> list[str]:
    if shutil.which("c++filt") is None:
        pytest.skip("c++filt (binutils) is not installed")
    command = ["c++filt", "-s", "rust"]
    done = subprocess.run(command, input="\n".join(names), capture_output=True, text=True, check=True)
    return [_HASH.sub("", _COUNTED.sub(r"{\1\2}", line)) for line in done.stdout.splitlines()]


def _without(name: str) -> str:
    found = without_numbers(name)
    assert found is not None, name
    return found[0]


def test_what_is_left_is_a_name_that_says_the_same() -> None:
    """Else two functions are taken for one: a change of either is missed."""
    before = _demangled(NAMES)
    assert all(text != name for text, name in zip(before, NAMES, strict=True))
    assert _demangled(list(map(_without, NAMES))) == before


@pytest.mark.parametrize("name", NAMES)
def test_what_is_left_has_no_more_numbers(name: str) -> None:
    assert _without(_without(name)) == _without(name)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        # Another hash, and one that is longer: what is repeated stands elsewhere.
        ("_RINvCs1HE6alunEGA_3big1fhEB2_", "_RINvCsgEmfK2I1SDS0x_3big1fhEB2_"),
        ("_RNvMCs1_3bigNtB2_4Ring2at", "_RNvMCs12345_3bigNtB2_4Ring2at"),
        # `impl` blocks before it, and closures.
        ("_RNvMCs1_3bigNtB2_7Counter1a", "_RNvMs0_Cs1_3bigNtB5_7Counter1a"),
        ("_RNvXs_Cs1_3bigNtB4_3MaxNtB4_7Visitor5visit", "_RNvXs1b_Cs1_3bigNtB6_3MaxNtB6_7Visitor5visit"),
        ("_RNCNvCs1_3big3run0B3_", "_RNCNvCs1_3big3runs0_0B3_"),
        ("_RNCNvCs1_3big3run0B3_.llvm.123", "_RNCNvCs1_3big3runs_0B3_.llvm.456"),
    ],
)
def test_numbers_do_not_count(before: str, after: str) -> None:
    """Else one `impl` more makes all functions of the blocks behind it new ones."""
    assert canonical_name(before) == canonical_name(after)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("_RNvCs1_3big1s_0", "_RNvCs1_3big1s_1"),  # no names of Rust
        ("_RNvCs1_3big2s_", "_RNvCs1_3big2s0"),  # letters of an identifier
        ("_RINvCs1_3big1fsE", "_RINvCs1_3big1flE"),  # the type i16 is an s
        ("_RINvCs1_3big1fTsNtB4_1aEE", "_RINvCs1_3big1fTNtB4_1aEE"),
        ("_RINvCs1_3big1fKj1_E", "_RINvCs1_3big1fKj2_E"),
        ("_RNvMCs1_3bigNtB2_3One1a", "_RNvMCs1_3bigNtB2_3Two1a"),
        ("_RINvCs1_3big1fTNtB4_1aB9_EE", "_RINvCs1_3big1fTNtB4_1aB4_EE"),  # what is repeated is something else
    ],
)
def test_all_else_does(one: str, other: str) -> None:
    """Else two functions are taken for one: a change of either is missed."""
    assert canonical_name(one).text != canonical_name(other).text


@given(st.sampled_from(NAMES), st.integers(0, 200), st.text("0159_BCEKMNRTXasu\u00e9", max_size=3))
def test_what_is_no_such_name_stays_as_it_is(name: str, at: int, text: str) -> None:
    """A name may be anything: no error, and no part of it gone that is no number."""
    changed = name[:at] + text + name[at + len(text) :]
    found = without_numbers(changed)
    assert found is None or (len(found[0]) <= len(changed) and without_numbers(found[0]) is not None)


@pytest.mark.parametrize("piece", ["N", "T", "INvC1a1f", "FKC", "DNvC1a1f", "M", "Y", "A", "SNCINvC1a1f"])
@pytest.mark.parametrize("start", ["_R", "_RINvC1a1f"])
def test_a_hostile_name_ends(start: str, piece: str) -> None:
    assert without_numbers(start + piece * 100_000) is None


@pytest.mark.parametrize("name", ["_RNvC{}a", "_RINvC1a1fB{}_E", "_RINvC1a1fKj{}", "_RNvCs{}"])
def test_a_number_that_is_too_long_is_none(name: str) -> None:
    """Python refuses to convert 5,000 digits, and takes seconds for what stands for more."""
    for digits in ("9" * 20, "9" * 5_000, "z" * 200_000):
        assert without_numbers(name.format(digits)) is None


def test_a_name_of_many_parts_is_read_once() -> None:
    """A name of a million types: what was written is not copied for each of them."""
    name = "_RINvC1a1fT" + "a" * 1_000_000 + "EE"
    assert without_numbers(name) == (name, False)
