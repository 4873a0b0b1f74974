# SPDX-License-Identifier: GPL-2.0-only
"""`kbuild-klp explain`: what differs, where, and from which source line."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from fake_build import MAIN, FakeBuild, Result, clean_environment, klp
from samples import KERNEL_FLAGS, compile_object

from kbuild_klp.cli import main as command_line
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


def _explain(root: Path, symbol: str, old: str = "old", new: str = "new") -> Result:
    return klp("explain", f"{old}/a.o", f"{new}/a.o", symbol, cwd=root)


@pytest.mark.parametrize("version", ["", "4"])
def test_instructions_with_their_source_lines(pair: Path, version: str) -> None:
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


def test_context_is_three_lines(pair: Path) -> None:
    rows = [line[4:] for line in _explain(pair, "start").out.splitlines() if line.startswith("    ")]
    rows = rows[next(i for i, row in enumerate(rows) if row.startswith("@@")) :]
    assert all(row[0] in "@-+ " for row in rows)
    rows = [row for row in rows if not row.endswith(" unchanged ...")]
    first = next(i for i, row in enumerate(rows) if row.startswith("- "))
    last = max(i for i, row in enumerate(rows) if row.startswith("+ "))
    assert first - 1 <= 3 and len(rows) - 1 - last <= 3


def test_without_debug_information_there_are_no_lines(pair: Path) -> None:
    result = _explain(pair, "start", "plain", "new")
    assert result.status == 1
    (place, *_) = [line for line in result.out.splitlines() if "@@" in line]
    assert "-> start+0x" in place and place.count("a.c:") == 1


def test_data_as_bytes(pair: Path) -> None:
    result = _explain(pair, "table")
    assert result.status == 1
    old, new = [line.split() for line in result.out.splitlines() if line.strip()[:2] in ("- ", "+ ")]
    assert old[:2] == ["-", "+0x0"] and new[:2] == ["+", "+0x0"]
    assert (old[10], new[10]) == ("03", "05")


def test_data_that_refers_to_something_else(pair: Path) -> None:
    result = _explain(pair, "pair")
    assert result.status == 1
    assert 'string "first" -> "other"' in result.out


@pytest.mark.parametrize("name", ["weak", "strong"])
def test_both_names_of_a_function(pair: Path, name: str) -> None:
    result = _explain(pair, name)
    assert result.status == 1
    assert 'string "weak" -> "meek"' in result.out
    assert ("is part of" in result.out) == (f"changed   {name}" not in result.out)


def test_a_clone_by_its_name_in_the_source(pair: Path) -> None:
    result = _explain(pair, "helper")
    assert result.status == 1
    assert "changed   helper" in result.out


def test_a_symbol_that_is_the_same(pair: Path) -> None:
    assert _explain(pair, "same") == (0, "same: no difference (new/a.o)\n", "")


@pytest.mark.parametrize(
    ("symbol", "hint"),
    [("stat", "did you mean start"), ("tabel", "did you mean table"), ("qwxyz", "give the name of"), ("", "give")],
)
def test_a_symbol_that_is_not_there(pair: Path, symbol: str, hint: str) -> None:
    result = _explain(pair, symbol)
    assert (result.status, result.out) == (2, "")
    (line,) = result.err.splitlines()
    assert f"no function or variable {symbol} in either build; {hint}" in line


def test_no_symbol_means_everything_that_differs(pair: Path) -> None:
    result = klp("explain", "old/a.o", "new/a.o", cwd=pair)
    assert (result.status, result.err) == (1, "")
    heads = [line.split() for line in result.out.splitlines() if line.startswith("  changed")]
    assert [head[1] for head in heads] == ["helper", "start", "strong", "pair", "table"]
    assert klp("explain", "old/a.o", "old/a.o", cwd=pair) == (0, "no change in 1 object\n", "")


def test_several_symbols(pair: Path) -> None:
    result = klp("explain", "old/a.o", "new/a.o", "same", "table", cwd=pair)
    assert result.status == 1
    assert "changed   table" in result.out and result.out.endswith("same: no difference (new/a.o)\n")


def test_a_function_that_was_added_or_removed(pair: Path, tmp_path: Path) -> None:
    path = _compile(tmp_path / "b.o", SOURCE + 'int fresh(int x) { return printk("fresh") * x; }\n', "-g")
    result = klp("explain", pair / "old/a.o", path, "fresh")
    assert result.status == 1
    assert "added     fresh" in result.out and "+ +0x" in result.out and '<"fresh">' in result.out
    result = klp("explain", path, pair / "old/a.o", "fresh")
    assert result.status == 1
    assert "removed   fresh" in result.out and "- +0x" in result.out


def test_trees_and_archives(tmp_path: Path) -> None:
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


def test_damaged_debug_information_costs_the_lines_only(pair: Path, tmp_path: Path) -> None:
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


# -- everything that differs, forms and widths ------------------------------------------------------------------------


def _terminal(root: Path, columns: int, *arguments: str, **environment: str) -> str:
    """Run the program with a terminal of a width as its output; returns what arrives there."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "kbuild_klp", *arguments],
        stdout=slave,
        stderr=slave,
        cwd=root,
        env={**clean_environment(), "TERM": "xterm", **environment},
    )
    os.close(slave)
    output = b""
    while True:
        try:
            block = os.read(master, 1 << 16)
        except OSError:
            break
        if not block:
            break
        output += block
    os.close(master)
    process.wait(timeout=60)
    return output.decode().replace("\r\n", "\n")


ARGUMENTS = ("explain", "old/a.o", "new/a.o", "start")


def test_a_wide_terminal_shows_both_sides(pair: Path) -> None:
    wide = _terminal(pair, 100, *ARGUMENTS, NO_COLOR="1")
    assert " | +0x" in wide and "\n    - " not in wide and "[-$7-]" in wide
    assert max(map(len, wide.splitlines()[4:])) <= 100
    assert "\x1b[7m" in _terminal(pair, 120, *ARGUMENTS)


def test_a_narrow_terminal_and_a_pipe_show_one_below_the_other(pair: Path) -> None:
    narrow = _terminal(pair, 99, *ARGUMENTS, NO_COLOR="1")
    assert "\n    - +0x" in narrow and " | +0x" not in narrow
    pipe = klp(*ARGUMENTS, cwd=pair).out
    assert pipe == narrow
    assert klp(*ARGUMENTS, cwd=pair, COLUMNS="150").out == pipe


def test_the_form_can_be_chosen(pair: Path) -> None:
    columns = klp(*ARGUMENTS, "-y", cwd=pair).out
    assert " | +0x" in columns and "\n    - " not in columns
    wider = klp(*ARGUMENTS, "--side-by-side", "--width", "200", cwd=pair).out
    assert max(map(len, columns.splitlines())) <= 130 < max(map(len, wider.splitlines()))
    assert _terminal(pair, 150, *ARGUMENTS, "-u", NO_COLOR="1") == klp(*ARGUMENTS, cwd=pair).out
    assert klp(*ARGUMENTS, "-y", "-u", cwd=pair).status == 2


@pytest.mark.parametrize(("context", "folded"), [("0", 4), ("1", 4), ("100", 0)])
def test_how_much_is_folded_can_be_chosen(pair: Path, context: str, folded: int) -> None:
    lines = klp(*ARGUMENTS, "-U", context, cwd=pair).out.splitlines()
    assert sum(line.endswith(" unchanged ...") for line in lines) == (folded and 3)
    assert sum(line.startswith("    @@") for line in lines) == (2 if folded else 1)


def test_the_first_difference_comes_first(pair: Path) -> None:
    lines = klp(*ARGUMENTS, cwd=pair).out.splitlines()
    assert re.fullmatch(
        r'    first difference at \+0x\w+ \(a\.c:8\): movq \$<"start %d\\n">, %rdi -> movq \$<"begin %d\\n">, %rdi',
        lines[2],
    )


def test_what_was_added_is_shown_in_full_only_when_asked_for(pair: Path, tmp_path: Path) -> None:
    path = _compile(tmp_path / "b.o", SOURCE + 'int fresh(int x) { return printk("fresh") * x; }\n', "-g")
    everything = klp("explain", pair / "old/a.o", path).out
    assert "added     fresh" in everything and "callq printk" not in everything
    assert "callq printk" in klp("explain", pair / "old/a.o", path, "fresh").out


def test_progress_is_wiped_before_anything_is_printed(pair: Path) -> None:
    shown = _terminal(pair, 80, "explain", "old/a.o", "new/a.o")
    for line in shown.splitlines():
        assert "explained:" not in line.rpartition("\x1b[K")[2]


# -- JSON -------------------------------------------------------------------------------------------------------------


def test_json(pair: Path) -> None:
    result = klp(*ARGUMENTS, "table", "same", "--json", cwd=pair)
    assert (result.status, result.err) == (1, "")
    document = result.json
    assert set(document) == {"version", "changes", "inlined", "unchanged", "aliases", "warnings"}
    assert document["version"] == 1 and document["warnings"] == []
    assert document["unchanged"] == [{"symbol": "same", "objects": ["new/a.o"]}]
    change, table = document["changes"]
    assert (change["symbol"], change["object"], change["unit"]) == ("start", "new/a.o", "object")
    assert (change["kind"], change["change"]) == ("function", "changed")
    assert [row["kind"] for row in change["why"]] == ["string", "constant"]
    first = change["first_difference"]
    assert set(first) == {"old", "new"}
    assert set(first["old"]) == {"part", "offset", "bytes", "text", "target", "source"}
    assert (first["old"]["source"], first["old"]["target"]) == ("a.c:8", '"start %d\\n"')
    assert [(len(hunk["old"]), len(hunk["new"])) for hunk in change["hunks"]] == [(1, 1), (1, 1)]
    assert all(set(hunk) == {"what", "same_before", "old", "new"} for hunk in change["hunks"])
    assert change["hunks"][0]["old"][0] == first["old"]
    bytes.fromhex(first["new"]["bytes"])
    assert table["first_difference"] is None and table["hunks"][0]["what"] == "bytes"


def test_json_of_everything_is_that_of_diff_and_more(pair: Path) -> None:
    explained = klp("explain", "old/a.o", "new/a.o", "--json", cwd=pair).json["changes"]
    ((group),) = klp("diff", "old/a.o", "new/a.o", "--json", cwd=pair).json["objects"]
    for mine, theirs in zip(explained, group["changes"], strict=True):
        # Whether a livepatch can carry it is what diff tells.
        assert {name: mine[name] for name in theirs if name != "livepatch"} == {
            name: value for name, value in theirs.items() if name != "livepatch"
        }


def test_json_without_a_difference(pair: Path) -> None:
    document = klp("explain", "old/a.o", "old/a.o", "--json", cwd=pair).json
    assert document == {"version": 1, "changes": [], "inlined": [], "unchanged": [], "aliases": [], "warnings": []}


def test_json_of_trees_and_archives(tmp_path: Path) -> None:
    FakeBuild(tmp_path / "old")
    FakeBuild(tmp_path / "new", MAIN.replace("x + limit", "x - limit"), shared="int shared(int x) { return x * 5; }")
    document = klp("explain", "old", "new", "--json", cwd=tmp_path).json
    rows = {(row["object"], row["unit"], tuple(row["units"])) for row in document["changes"]}
    assert rows == {("init/main.o", "vmlinux", ("vmlinux",)), ("drivers/shared.o", "one", ("one", "two"))}
    assert klp("export", "old", "-o", "old.klp", cwd=tmp_path).status == 0
    for row in klp("explain", "old.klp", "new", "--json", cwd=tmp_path).json["changes"]:
        assert row["hunks"] == [] and row["note"] == "the objects are not at hand" and row["why"]
    assert klp("explain", "--kept", "old", cwd=tmp_path).status == 2
    assert klp("base", "old", cwd=tmp_path).status == 0
    assert klp("explain", "--kept", "old", cwd=tmp_path).out == "no change in 3 objects\n"


def test_an_unknown_symbol_is_an_error_and_no_half_document(pair: Path) -> None:
    result = klp(*ARGUMENTS, "nonsense", "--json", cwd=pair)
    assert (result.status, result.out) == (2, "") and "no function or variable nonsense" in result.err


# -- what was inlined -------------------------------------------------------------------------------------------------

INLINED = """\
extern int printk(const char *, ...);
static inline int tiny(int x) { return printk("tiny") ^ x; }
static inline int other(int x) { return printk("other") ^ x; }
int one(int x) { return tiny(x) * 3; }
int two(int x) { return tiny(x) - tiny(-x); }
int three(int x) { return x * 3; }
int four(int x) { return other(x) * 4; }
"""


@pytest.fixture(scope="module")
def inlined(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("inlined")
    compile_object("", root / "probe.o")
    _compile(root / "old/a.o", INLINED, "-g")
    _compile(root / "new/a.o", INLINED.replace('"tiny"', '"puny"'), "-g")
    return root


def test_an_inlined_function_and_where_it_went(inlined: Path) -> None:
    result = _explain(inlined, "tiny")
    assert (result.status, result.err) == (1, "")
    assert result.out == (
        "tiny() from a.c:2 has no code of its own; it was inlined, and differs in\n  one (new/a.o)\n  two (new/a.o)\n"
    )
    document = klp("explain", "old/a.o", "new/a.o", "tiny", "--json", cwd=inlined).json
    into = [{"object": "new/a.o", "symbol": name} for name in ("one", "two")]
    assert document["inlined"] == [{"function": "tiny() from a.c:2", "into": into}]


def test_an_inlined_function_that_is_the_same(inlined: Path) -> None:
    for new in ("new", "old"):
        result = _explain(inlined, "other", "old", new)
        assert (result.status, result.err) == (0, "")
        assert (
            result.out
            == "other() from a.c:3 has no code of its own; it was inlined, and no instruction of it differs\n"
        )


def test_an_inlined_function_in_one_that_differs_elsewhere(inlined: Path) -> None:
    _compile(inlined / "elsewhere/a.o", INLINED.replace("other(x) * 4", "other(x) * 8"), "-g")
    result = _explain(inlined, "other", "old", "elsewhere")
    says = "other() from a.c:3 has no code of its own; it was inlined, and no instruction of it differs\n"
    assert result == (0, says, "")
    assert _explain(inlined, "four", "old", "elsewhere").status == 1


def test_reasons_and_the_last_line_name_inlined_functions(inlined: Path) -> None:
    result = klp("explain", "old/a.o", "new/a.o", cwd=inlined)
    assert "    in inlined tiny() from a.c:2\n" in result.out
    assert result.out.endswith("  inlined   tiny() from a.c:2 has no code of its own, and differs in one, two\n")
    document = klp("explain", "old/a.o", "new/a.o", "--json", cwd=inlined).json
    assert [row["function"] for row in document["inlined"]] == ["tiny() from a.c:2"]
    (group,) = klp("diff", "old/a.o", "new/a.o", "--json", cwd=inlined).json["objects"]
    for change in group["changes"]:
        assert {"kind": "inlined", "code": "inlined", "old": "tiny() from a.c:2", "new": "tiny() from a.c:2"} in change[
            "why"
        ]


def test_too_much_debug_information_is_said(
    inlined: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("kbuild_klp.dwarf.debug_info.MOST_BYTES", 100)
    monkeypatch.chdir(inlined)
    assert command_line.main(["explain", "old/a.o", "new/a.o", "one"]) == 1
    out = capsys.readouterr().out
    assert "(no source lines: 0 MiB of debug information are more than this reads)" in out and "a.c:" not in out
