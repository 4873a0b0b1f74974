# SPDX-License-Identifier: GPL-2.0-only
"""Rust: where a panic came from is a line of its source, and what its compiler counts is no change."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from snippets import Compiler, diff_objects

from kbuild_klp.builds.single_object import ObjectBuild
from kbuild_klp.compare.passes import compare

PANIC = "_RNvNtCs1234_4core9panicking18panic_bounds_check"

# What rustc makes of an index that is checked. Since 1.91 a zero stands behind the file's name.
CODE = """	.globl	f
	.type	f, @function
f:	cmpq	$7, %rdi
	ja	1f
	movl	$1, %eax
	ret
1:	movl	$8, %esi
	movl	$.Lat, %edx
	call	{panic}
	.size	f, .-f
	.section .rodata,"a"
.Lfile:	.ascii	"{file}"
	.balign 8
.Lat:	.quad	.Lfile, {length}
	.long	{line}, {column}{more}
"""
VALUES = {"panic": PANIC, "file": "demo.rs", "length": "7", "line": "41", "column": "9", "more": ""}


def _compare(place: Path, old: dict[str, str], new: dict[str, str]) -> dict[str, str]:
    compiler = Compiler("gcc", place)
    before, after = (ObjectBuild(str(compiler.assembly(CODE.format(**VALUES | own)))) for own in (old, new))
    report = compare(before, after)
    assert not report.failed and not report.warnings
    return {change.symbol: change.change.value for group in report.objects for change in group.changes}


@pytest.mark.parametrize("file", ["demo.rs", "demo.rs\\0", "drivers/gpu/drm/nova.rs"])
@pytest.mark.parametrize("after", [{"line": "43"}, {"column": "17"}, {"line": "4100", "column": "1"}])
def test_where_a_panic_came_from_is_a_line(tmp_path: Path, file: str, after: dict[str, str]) -> None:
    """Else a line more makes every function behind it that may panic a changed one."""
    own = {"file": file, "length": str(len(file.removesuffix("\\0")))}
    assert _compare(tmp_path, own, own | after) == {"f": "line-only"}


OTHER_CRATE = "_RNvNtCs1234_3own4text6decode"


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (".quad .Lfile, 7", "line-only"),
        (".quad .Lfile, 6", "changed"),  # no such place
        (".quad .Lsome, 7", "changed"),  # another source
        ("", "changed"),
    ],
)
def test_a_function_of_another_crate_takes_the_places_of_a_source_that_is_known(
    tmp_path: Path, told: str, expected: str
) -> None:
    """#[track_caller]: which functions are marked so, no object says."""
    more = f"""
.Lsome: .ascii "some.rs"
	.balign 8
.Ltold:	{told or ".quad 1"}
	.long	99, 5
	.text
	.globl	g
	.type	g, @function
g:	movl	$.Ltold, %edx
	call	_RNvNtCs1234_4core6option13unwrap_failed
	.size	g, .-g"""
    own = {"panic": OTHER_CRATE, "more": more}
    assert _compare(tmp_path, own, own | {"line": "43"}) == {"f": expected}


@pytest.mark.parametrize(
    "own",
    [
        {"panic": "report"},
        {"panic": OTHER_CRATE},
        {"panic": "_RINvNtCs1234_4core9panicking5otherRhE"},  # with a type of somebody's
        {"length": "6"},
        {"file": "demo.rs.txt", "length": "11"},
        {"file": "demo rs", "length": "7"},
        {"length": "70000000000000"},
    ],
)
def test_a_number_elsewhere_is_none(tmp_path: Path, own: dict[str, str]) -> None:
    """Else a constant that changed is taken for a line."""
    assert _compare(tmp_path, own, own | {"line": "43"}) == {"f": "changed"}


@pytest.mark.parametrize(
    "after",
    [
        {"file": "demo.c", "length": "6"},
        {"file": "some.rs"},
        {"more": ", 5, 6"},
        {"panic": PANIC.replace("panic_bounds_check", "panic_bounds_chock")},
    ],
)
def test_all_else_is_a_change(tmp_path: Path, after: dict[str, str]) -> None:
    """Else what a panic says or does is changed, and nobody hears of it."""
    assert _compare(tmp_path, {"more": ", 5, 5"}, {"more": ", 5, 5", "line": "43"} | after) == {"f": "changed"}


def test_what_stands_behind_is_no_line(tmp_path: Path) -> None:
    assert _compare(tmp_path, {"more": ", 5, 5"}, {"more": ", 5, 7"}) == {"f": "changed"}


MERGED = """
	.globl	{text}, {number}
	.type	{text}, @function
	.type	{number}, @function
{text}:
{number}:
	movl	$1, %eax
	ret
	.size	{text}, .-{text}
	.size	{number}, .-{number}
"""


def test_functions_of_one_code_are_the_same_ones(tmp_path: Path) -> None:
    """LLVM makes one of two equal functions; which of their names stands first depends on their numbers."""
    names = {
        "old": ("_RNvMCs1_3bigNtB2_4Text5token", "_RNvMs_Cs1_3bigNtB4_6Number5token"),
        "new": ("_RNvMs_Cs1_3bigNtB4_4Text5token", "_RNvMs0_Cs1_3bigNtB5_6Number5token"),
    }
    compiler = Compiler("gcc", tmp_path)
    old, new = (compiler.assembly(MERGED.format(text=text, number=number)) for text, number in names.values())
    assert diff_objects(old, new) == set()


# -- as rustc compiles it ---------------------------------------------------------------------------------------------

SOURCE = """#![no_std]
pub trait Visitor { fn visit(&mut self, v: u32) -> bool; }
pub trait Other { fn other(&self) -> u32; }
pub struct Counter { pub hits: u32, pub limit: u32 }
/* implementation */
impl Visitor for Counter {
    #[inline(never)]
    fn visit(&mut self, v: u32) -> bool { if v > self.limit { self.hits += 1; } self.hits < 7 }
}
pub struct Max(pub u32);
impl Visitor for Max {
    #[inline(never)]
    fn visit(&mut self, v: u32) -> bool { if v > self.0 { self.0 = v } true }
}
impl Counter { #[inline(never)] pub fn twice(&self, of: &[u32]) -> u32 { of[self.hits as usize] * 2 } }
#[inline(never)]
fn apply(f: &dyn Fn(u32) -> u32, x: u32) -> u32 { f(f(x)) }
#[no_mangle]
pub extern "C" fn run(x: u32, c: &mut Counter, m: &mut Max) -> u32 {
    /* closure */
    let p = move |v: u32| v.wrapping_mul(x) ^ 3;
    let q = move |v: u32| v.wrapping_add(x) ^ 9;
    let v: [&mut dyn Visitor; 2] = [c, m];
    let mut s = apply(&p, x) + apply(&q, x);
    for w in v { if w.visit(s) { s ^= 1; } }
    s
}
"""
VISIT = "_RNvXC4demoNtB2_7CounterNtB2_7Visitor5visit"
OTHER = "impl Other for Counter { #[inline(never)] fn other(&self) -> u32 { self.hits } }"
FLAGS = (
    *("--edition=2021", "--crate-type=lib", "--crate-name=demo", "--emit=obj", "-Copt-level=2", "-Cpanic=abort"),
    *("-Coverflow-checks=y", "-Ccodegen-units=1", "-Csymbol-mangling-version=v0", "-Crelocation-model=static"),
    *("-Cforce-unwind-tables=n", "-Cembed-bitcode=n", "-Zfunction-sections=n", "-o", "unit.o"),
)


def _rust(place: Path, text: str) -> Path:
    rustc = shutil.which("rustc")
    if rustc is None:
        pytest.skip("rustc is not installed")
    place.mkdir()
    (place / "unit.rs").write_text(text)
    command, environment = [rustc, *FLAGS, "unit.rs"], {**os.environ, "RUSTC_BOOTSTRAP": "1"}
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return place / "unit.o"


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("pub trait Other", "// a line\npub trait Other", {"line-only"}),
        ("self.hits < 7", "self.hits < 9", {"changed"}),
        ("/* implementation */", OTHER, {"added"}),
        ("/* closure */", "let z = move |v: u32| v & 0xff ^ x; let x = apply(&z, x);", {"added", "changed"}),
    ],
)
def test_a_crate(tmp_path: Path, before: str, after: str, expected: set[str]) -> None:
    """The functions that nobody touched are quiet, although their names and lines are others."""
    old, new = _rust(tmp_path / "old", SOURCE), _rust(tmp_path / "new", SOURCE.replace(before, after))
    found = diff_objects(old, new)
    assert {change for _, _, change in found} == expected
    assert {name for name, _, change in found if change == "changed"} <= {"run", VISIT}
