# SPDX-License-Identifier: GPL-2.0-only
"""`kbuild-klp explain`: what differs, where, and from which source line."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from fake_build import MAIN, FakeBuild, klp
from samples import KERNEL_FLAGS, compile_object

from kbuild_klp.elf.reader import ObjectFile

SOURCE = """\
extern int printk(const char *, ...);
static int limit = 10;
int table[8] = { 1, 2, 3, 4 };
struct pair { const char *name; int *value; } pair = { "first", &limit };
__attribute__((noinline)) static int helper(int x) { static int count; count += x; return count * limit; }
int start(int x)
{
	printk("start %d\\n", x);
	if (x > 3)
		return helper(x);
	return helper(7) + helper(x + 1);
}
int same(int x) { return printk("same") + x; }
int __attribute__((weak)) weak(int x) { return printk("weak") - x; }
int strong(int x) __attribute__((alias("weak")));
void set(int x) { limit = x; }
"""


def _compile(path: Path, source: str, *flags: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.with_suffix(".c")
    file.write_text(source)
    # Named, not from standard input, so that the line table has a name for it.
    subprocess.run(["gcc", *KERNEL_FLAGS, *flags, "-c", file.name, "-o", path.name], cwd=path.parent, check=True)
    return path


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("explain")
    changed = SOURCE.replace("start %d", "begin %d").replace("helper(7)", "helper(9)").replace("2, 3,", "2, 5,")
    changed = (
        changed.replace('"first"', '"other"')
        .replace('printk("weak")', 'printk("meek")')
        .replace("count += x", "count -= x")
    )
    compile_object("", root / "probe.o")  # skips without a compiler
    _compile(root / "old/a.o", SOURCE, "-g")
    _compile(root / "new/a.o", changed, "-g")
    _compile(root / "old4/a.o", SOURCE, "-gdwarf-4", "-ffunction-sections")
    _compile(root / "new4/a.o", changed, "-gdwarf-4", "-ffunction-sections")
    _compile(root / "plain/a.o", SOURCE)
    return root


def _explain(root: Path, symbol: str, old: str = "old", new: str = "new"):
    return klp("explain", f"{old}/a.o", f"{new}/a.o", symbol, cwd=root)


@pytest.mark.parametrize("version", ["", "4"])
def test_instructions_with_their_source_lines(pair: Path, version: str):
    result = _explain(pair, "start", f"old{version}", f"new{version}")
    assert (result.status, result.err) == (1, "")
    lines = [line.strip() for line in result.out.splitlines()]
    assert lines[:2] == [f"new{version}/a.o", "changed   start"]
    assert any(line.startswith("+0x") and '"start %d\\n" -> "begin %d\\n"' in line for line in lines)
    places = [line for line in lines if line.startswith("@@")]
    assert any("(a.c:8)" in line for line in places), places
    assert any("(a.c:11)" in line for line in places) or len(places) == 1
    removed = [line for line in lines if line.startswith("- ")]
    added = [line for line in lines if line.startswith("+ ")]
    assert len(removed) == len(added) == 2
    assert '<"start %d\\n">' in removed[0] and '<"begin %d\\n">' in added[0]
    assert "$7" in removed[1] and "$9" in added[1]


def test_context_is_three_lines(pair: Path):
    rows = [line[4:] for line in _explain(pair, "start").out.splitlines() if line.startswith("    ")]
    rows = rows[next(i for i, row in enumerate(rows) if row.startswith("@@")) :]
    assert all(row[0] in "@-+ " for row in rows)
    first = next(i for i, row in enumerate(rows) if row.startswith("- "))
    last = max(i for i, row in enumerate(rows) if row.startswith("+ "))
    assert first - 1 <= 3 and len(rows) - 1 - last <= 3


def test_without_debug_information_there_are_no_lines(pair: Path):
    result = _explain(pair, "start", "plain", "new")
    assert result.status == 1
    (place, *_) = [line for line in result.out.splitlines() if "@@" in line]
    assert "-> start+0x" in place and place.count("a.c:") == 1


def test_data_as_bytes(pair: Path):
    result = _explain(pair, "table")
    assert result.status == 1
    old, new = [line.split() for line in result.out.splitlines() if line.strip()[:2] in ("- ", "+ ")]
    assert old[:2] == ["-", "+0x0"] and new[:2] == ["+", "+0x0"]
    assert (old[10], new[10]) == ("03", "05")


def test_data_that_refers_to_something_else(pair: Path):
    result = _explain(pair, "pair")
    assert result.status == 1
    assert 'string "first" -> "other"' in result.out


@pytest.mark.parametrize("name", ["weak", "strong"])
def test_both_names_of_a_function(pair: Path, name: str):
    result = _explain(pair, name)
    assert result.status == 1
    assert 'string "weak" -> "meek"' in result.out
    assert ("is part of" in result.out) == (f"changed   {name}" not in result.out)


def test_a_clone_by_its_name_in_the_source(pair: Path):
    result = _explain(pair, "helper")
    assert result.status == 1
    assert "changed   helper" in result.out


def test_a_symbol_that_is_the_same(pair: Path):
    assert _explain(pair, "same") == (0, "same: no difference (new/a.o)\n", "")


@pytest.mark.parametrize(
    ("symbol", "hint"),
    [("stat", "did you mean start"), ("tabel", "did you mean table"), ("qwxyz", "give the name of"), ("", "give")],
)
def test_a_symbol_that_is_not_there(pair: Path, symbol: str, hint: str):
    result = _explain(pair, symbol)
    assert (result.status, result.out) == (2, "")
    (line,) = result.err.splitlines()
    assert f"no function or variable {symbol} in either build; {hint}" in line


def test_no_symbol_at_all(pair: Path):
    for arguments in (("old/a.o", "new/a.o"), ("--kept", "old")):
        result = klp("explain", *arguments, cwd=pair)
        assert (result.status, result.out) == (2, "")
        assert "names no symbol to explain; give OLD NEW SYMBOL" in result.err


def test_several_symbols(pair: Path):
    result = klp("explain", "old/a.o", "new/a.o", "same", "table", cwd=pair)
    assert result.status == 1
    assert "changed   table" in result.out and result.out.endswith("same: no difference (new/a.o)\n")


def test_a_function_that_was_added_or_removed(pair: Path, tmp_path: Path):
    path = _compile(tmp_path / "b.o", SOURCE + 'int fresh(int x) { return printk("fresh") * x; }\n', "-g")
    result = klp("explain", pair / "old/a.o", path, "fresh")
    assert result.status == 1
    assert "added     fresh" in result.out and "+ +0x" in result.out and '<"fresh">' in result.out
    result = klp("explain", path, pair / "old/a.o", "fresh")
    assert result.status == 1
    assert "removed   fresh" in result.out and "- +0x" in result.out


def test_trees_and_archives(tmp_path: Path):
    FakeBuild(tmp_path / "old")
    FakeBuild(tmp_path / "new", MAIN.replace("x + limit", "x - limit"), shared="int shared(int x) { return x * 5; }")
    result = klp("explain", "old", "new", "start", cwd=tmp_path)
    assert result.status == 1 and result.out.startswith("init/main.o (vmlinux)\n")
    result = klp("explain", "old", "new", "shared", cwd=tmp_path)
    assert result.status == 1 and "(one)" in result.out and "(two)" in result.out
    assert klp("explain", "old", "new", "probe", cwd=tmp_path) == (0, "probe: no difference (drivers/driver.o)\n", "")
    assert klp("explain", "old", "new", "prob", cwd=tmp_path).status == 2
    assert klp("export", "old", "-o", "old.klp", cwd=tmp_path).status == 0
    result = klp("explain", "old.klp", "new", "start", cwd=tmp_path)
    assert result.status == 1 and "the objects are not at hand" in result.out
    assert klp("base", "old", cwd=tmp_path).status == 0
    assert klp("explain", "--kept", "old", "start", cwd=tmp_path).status == 0


def test_damaged_debug_information_costs_the_lines_only(pair: Path, tmp_path: Path):
    data = bytearray((pair / "new/a.o").read_bytes())
    obj = ObjectFile.open(pair / "new/a.o")
    for name in (".debug_line", ".debug_info", ".debug_abbrev"):
        header = obj.sections[obj.section_names.index(name)]
        start, size = int(header["offset"]), int(header["size"])
        data[start : start + size] = b"\xa5" * size
    (tmp_path / "a.o").write_bytes(data)
    result = klp("explain", pair / "old/a.o", tmp_path / "a.o", "start")
    assert (result.status, result.err) == (1, "")
    assert "(a.c:8)" in result.out
