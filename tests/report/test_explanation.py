# SPDX-License-Identifier: GPL-2.0-only
"""A change in full as text: side by side and unified, marks, widths, folding; and as data."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from invented_changes import function_change
from kernel_like import source, with_change
from snippets import Compiler

from kbuild_klp.builds.single_object import ObjectBuild
from kbuild_klp.changes.classification import ChangeType
from kbuild_klp.changes.verdict import Finding, Obstacle, Verdict
from kbuild_klp.compare.passes import compare
from kbuild_klp.explain.contents import shown_strings
from kbuild_klp.explain.listing import ListedHunk, ListedLine, ListedRow, Lister, Listing
from kbuild_klp.object.reference_text import quote
from kbuild_klp.object.view import ObjectView
from kbuild_klp.report.explanation import marked, reason_lines, text_lines
from kbuild_klp.report.json import as_data
from kbuild_klp.report.text import TextStyle

UNIFIED = TextStyle(80)
COLUMNS = TextStyle(110, columns=True)


def listing(old: Path, new: Path, symbol: str, context: int = 3) -> Listing:
    report = compare(ObjectBuild(str(old)), ObjectBuild(str(new)))
    (change,) = [change for group in report.objects for change in group.changes if change.symbol == symbol]
    return Lister(ObjectView(str(old)), ObjectView(str(new)), context=context).listing(change)


def _function(body: str, rest: str = "") -> str:
    return f".text\n.globl f\n.type f, %function\nf: {body}\nret\n.size f, . - f\n{rest}"


def _bare(text: str) -> str:
    return re.sub(r"\x1b\[\d*m", "", text)


@pytest.mark.parametrize(
    ("old", "new", "old_marks", "new_marks"),
    [
        ("movl $1, %eax", "movl $2, %eax", "movl [$1], %eax", "movl [$2], %eax"),
        ("movl %eax, %ecx", "movl %edx, %ecx", "movl [%eax], %ecx", "movl [%edx], %ecx"),
        ("addl $1, %eax", "subl $1, %eax", "[addl] $1, %eax", "[subl] $1, %eax"),
        (
            "movl 8(%rax,%rbx,4), %ecx",
            "movl 4(%rax,%rbx,4), %ecx",
            "movl [8(%rax,%rbx,4)], %ecx",
            "movl [4(%rax,%rbx,4)], %ecx",
        ),
        ('movq $<"a, b">, %rdi', 'movq $<"a, c">, %rdi', 'movq [$<"a, b">], %rdi', 'movq [$<"a, c">], %rdi'),
        ('movq $<"(, \\">">, %rdi', 'movq $<"x">, %rdi', 'movq [$<"(, \\">">], %rdi', 'movq [$<"x">], %rdi'),
        ("callq one", "callq two", "callq [one]", "callq [two]"),
        # Nothing in common, or nothing beside each other: the line is enough.
        ("nop", "hlt", "nop", "hlt"),
        ("pushq %rax", "movl $1, %ecx", "pushq %rax", "movl $1, %ecx"),
        ("movl $1, %eax", "xorl %ecx, %ecx", "movl $1, %eax", "xorl %ecx, %ecx"),
        ("retq", "retq", "retq", "retq"),
    ],
)
def test_marks(old: str, new: str, old_marks: str, new_marks: str) -> None:
    texts = ["".join(f"[{text}]" if differs else text for text, differs in side) for side in marked(old, new)]
    assert texts == [old_marks, new_marks]


BODY = "\n".join(["nop", "cli"] * 4)
PAIR = (
    _function(f"{BODY}\nmov $1, %eax\n{BODY}\ncall one\nsti\n{BODY}"),
    _function(f"{BODY}\nmov $2, %eax\n{BODY}\ncall two\nsti\nhlt\n{BODY}"),
)


def _pair(gcc: Compiler) -> tuple[Path, Path]:
    return gcc.assembly(PAIR[0]), gcc.assembly(PAIR[1])


def test_unified(gcc: Compiler) -> None:
    lines = list(text_lines(listing(*_pair(gcc), "f"), UNIFIED))
    assert lines == [
        "  changed   f",
        "    first difference at +0x8: movl $1, %eax -> movl $2, %eax",
        "    +0x15: calls two instead of one",
        "    1 instruction added at +0x1b",
        "    size 36 -> 37",
        "    livepatch: not possible",
        "      not traceable: no fentry (assembly)",
        "      not checked: whether its name is unique (no linked image of the old build)",
        "      ... 5 unchanged ...",
        "    @@ f+0x8 @@",
        "      +0x5    cli",
        "      +0x6    nop",
        "      +0x7    cli",
        "    - +0x8    movl [-$1-], %eax",
        "    + +0x8    movl {+$2+}, %eax",
        "      +0xd    nop",
        "      +0xe    cli",
        "      +0xf    nop",
        "      ... 2 unchanged ...",
        "    @@ f+0x15 @@",
        "      +0x12   cli",
        "      +0x13   nop",
        "      +0x14   cli",
        "    - +0x15   callq [-one-]",
        "    + +0x15   callq {+two+}",
        "      +0x1a   sti",
        "    + +0x1b   hlt",
        "      +0x1c   nop",
        "      +0x1d   cli",
        "      +0x1e   nop",
        "      ... 6 unchanged ...",
    ]


def test_side_by_side(gcc: Compiler) -> None:
    lines = list(text_lines(listing(*_pair(gcc), "f", 1), COLUMNS))[8:]
    width = (110 - 4 - 3) // 2
    rows = [(line[4 : 4 + width].rstrip(), line[4 + width : 7 + width].strip(), line[7 + width :]) for line in lines]
    assert rows == [
        ("  ... 7 unchanged ...", "", ""),
        ("@@ f+0x8 @@", "", ""),
        ("+0x7    cli", "", "+0x7    cli"),
        ("+0x8    movl [-$1-], %eax", "|", "+0x8    movl {+$2+}, %eax"),
        ("+0xd    nop", "", "+0xd    nop"),
        ("  ... 6 unchanged ...", "", ""),
        ("@@ f+0x15 @@", "", ""),
        ("+0x14   cli", "", "+0x14   cli"),
        ("+0x15   callq [-one-]", "|", "+0x15   callq {+two+}"),
        ("+0x1a   sti", "", "+0x1a   sti"),
        ("", ">", "+0x1b   hlt"),
        ("+0x1b   nop", "", "+0x1c   nop"),
        ("  ... 8 unchanged ...", "", ""),
    ]


@pytest.mark.parametrize("columns", [True, False])
def test_colour_takes_the_place_of_marks(gcc: Compiler, columns: bool) -> None:
    found = listing(*_pair(gcc), "f")
    style = TextStyle(110, True, columns=columns)
    lines = list(text_lines(found, style))
    text = "\n".join(lines)
    assert "\x1b[7m$1\x1b[27m" in text and "\x1b[7mtwo\x1b[27m" in text
    assert "[-" not in _bare(text) and "{+" not in _bare(text)
    assert all(line.count("\x1b[") % 2 == 0 for line in lines)


@pytest.mark.parametrize("width", [60, 80, 100, 137])
@pytest.mark.parametrize("color", [True, False])
def test_columns_are_never_too_wide(gcc: Compiler, width: int, color: bool) -> None:
    names = [f"a_very_long_name_of_a_function_that_goes_on_{'and_on_' * n}" for n in (3, 9)]
    old, new = (
        gcc.assembly(_function("nop\n" + "\n".join(f"call {name}{at}" for name in names for at in (n, n + 1))))
        for n in (1, 3)
    )
    style = TextStyle(width, color, columns=True)
    rows = [_bare(line) for line in text_lines(listing(old, new, "f"), style)]
    rows = rows[next(i for i, row in enumerate(rows) if "@@" in row) :]
    assert all(len(row) <= width for row in rows) and any("..." in row for row in rows)
    middle = [row[4 + (width - 7) // 2 : 7 + (width - 7) // 2] for row in rows[1:] if not row.startswith("      ...")]
    assert {text.strip() for text in middle} == {"", "|"}


def test_many_rows_are_cut_and_counted(gcc: Compiler) -> None:
    old, new = (
        gcc.assembly(_function("\n".join(f"mov ${n}, %eax" for n in range(start, start + 300)))) for start in (0, 500)
    )
    lines = list(text_lines(listing(old, new, "f"), UNIFIED))
    assert lines[-1] == "    @@ and 101 more rows @@"


def test_branches_and_jump_tables_that_go_elsewhere(gcc: Compiler) -> None:
    table = ".section .rodata\n.p2align 3\n.Ltable: .quad .La, @\n"
    text = _function("je @1\njmp *.Ltable(,%rdi,8)\n.La: nop\n.Lb: hlt", table)
    old = gcc.assembly(text.replace("@1", ".La").replace("@", ".La"))
    new = gcc.assembly(text.replace("@1", ".Lb").replace("@", ".Lb"))
    lines = [line.strip() for line in text_lines(listing(old, new, "f"), UNIFIED)]
    assert "- +0x0    je [-+0x9-]" in lines and "+ +0x0    je {++0xa+}" in lines
    at = lines.index("@@ jump table @@")
    assert lines[at + 1 : at + 3] == ["- +0x9    entry 1: [-nop-]", "+ +0xa    entry 1: {+hlt+}"]


def test_entries_of_special_sections(gcc: Compiler) -> None:
    old, new = gcc.assembly(source()), gcc.assembly(with_change(feature=12, key="key_b"))
    found = listing(old, new, "user")
    lines = [line.strip() for line in text_lines(found, UNIFIED)]
    at = lines.index("@@ alternatives @@")
    assert lines[at + 1].endswith("feature [-11-], flags 0, length 3, replacement length 3")
    assert lines[at + 2].endswith("feature {+12+}, flags 0, length 3, replacement length 3")
    assert "- +0xe    jump label, target +0x2e, key [-key_a+0x2-]" in lines
    assert found.first is None and found.hunks[0].what == "alternatives"


def test_entries_that_come_and_go(gcc: Compiler) -> None:
    more = '.pushsection .smp_locks, "a"\n.balign 4\n.long 667b - .\n.popsection'
    old, new = gcc.assembly(source()), gcc.assembly(with_change(more=more))
    lines = [line.strip() for line in text_lines(listing(old, new, "user"), UNIFIED)]
    assert lines[-2:] == ["@@ .smp_locks @@", "+ +0x1a   .smp_locks"]


def test_data(gcc: Compiler) -> None:
    text = 'extern int one, two; struct {{ int *p; long n; char s[40]; }} v = {{ &{0}, {1}, "{2}" }};'
    old, new = (gcc.object(text.format(*values)) for values in (("one", 5, "abc"), ("two", 5, "abd")))
    lines = list(text_lines(listing(old, new, "v"), UNIFIED))[3:]
    assert lines == [
        "    livepatch: not possible",
        "      data: content; a livepatch replaces functions only",
        "    - +0x0    -- -- -- -- -- -- -- -- 05 00 00 00 00 00 00 00 ................ [-<one>-]",
        "    - +0x10   61 62 63 00 00 00 00 00 00 00 00 00 00 00 00 00 abc.............",
        "    + +0x0    -- -- -- -- -- -- -- -- 05 00 00 00 00 00 00 00 ................ {+<two>+}",
        "    + +0x10   61 62 64 00 00 00 00 00 00 00 00 00 00 00 00 00 abd.............",
        "      ... 2 unchanged ...",
    ]


def test_long_strings_are_shown_where_they_differ(gcc: Compiler) -> None:
    text = 'void take(const char *); void f(void) {{ take("{0} and so on, for more than a line {1}"); }}'
    old, new = (gcc.object(text.format("the same at the start", word)) for word in ("old", "new"))
    rows = [line for line in text_lines(listing(old, new, "f"), UNIFIED) if line.startswith(("    - ", "    + "))]
    assert len(rows) == 2 and 'line old">' in rows[0] and 'line new">' in rows[1]
    # Short ones, and those that differ early, are shown from the start.
    assert shown_strings("a" * 30, "a" * 29) == (quote("a" * 30), quote("a" * 29))
    assert shown_strings("b" * 100, "c" * 100) == (quote("b" * 100), quote("c" * 100))


def test_columns_do_not_cut_off_what_differs() -> None:
    long = "a_long_name_of_a_target_that_is_the_same"
    old, new = (_line(0, f"jump label, target {long}, key {key}", "") for key in ("this_key", "that_key"))
    found = Listing(JUDGED, [ListedHunk("jump labels", 0, [ListedRow(old, new, True)])], None, "")
    for color in (False, True):
        style = TextStyle(80, color, columns=True)
        *_, row = map(_bare, text_lines(found, style))
        assert "this_key" in row and "that_key" in row and len(row) <= 80


POSSIBLE = Verdict()
SYMPOS = Finding(Obstacle.SYMPOS, "sympos 2 of 3 in vmlinux")
UNTRACED = Finding(Obstacle.NOT_TRACEABLE, "not traceable: no fentry (notrace)")
UNKNOWN = Finding(Obstacle.UNKNOWN, "not known: nobody looked")
NONE = Finding(Obstacle.NO_LIVEPATCH, "no livepatch: the old kernel was built without CONFIG_LIVEPATCH")
JUDGED = function_change("f", livepatch=POSSIBLE)


@pytest.mark.parametrize(
    ("reasons", "lines"),
    [
        ((), ["livepatch: possible"]),
        ((SYMPOS,), ["livepatch: possible", "  sympos 2 of 3 in vmlinux"]),
        (
            (SYMPOS, UNTRACED),
            ["livepatch: not possible", "  not traceable: no fentry (notrace)", "  sympos 2 of 3 in vmlinux"],
        ),
        ((UNKNOWN,), ["livepatch: not known", "  nobody looked"]),
        (
            (UNKNOWN, UNTRACED),
            ["livepatch: not possible", "  not known: nobody looked", "  not traceable: no fentry (notrace)"],
        ),
        ((NONE,), []),
    ],
)
def test_the_verdict_in_words(reasons: tuple[Finding, ...], lines: list[str]) -> None:
    change = JUDGED._replace(livepatch=Verdict(reasons))
    assert [line[4:] for line in reason_lines(change, TextStyle(80))] == lines
    document = as_data(Listing(change, [], None, ""))
    possible = lines[:1] == ["livepatch: possible"]
    assert document["livepatch"] == {"possible": possible, "reasons": [reason.text for reason in reasons]}


def test_line_numbers_have_no_verdict() -> None:
    assert list(reason_lines(JUDGED._replace(change=ChangeType.LINE_ONLY), TextStyle(80))) == []


def test_one_row_of_data_has_a_guide(gcc: Compiler) -> None:
    old, new = (gcc.object(f"char v[40] = {{ [17] = {n}, [30] = {n + 1} }};") for n in (1, 4))
    lines = list(text_lines(listing(old, new, "v"), UNIFIED))
    assert lines[-2] == "                 ^^                                     ^^"
    assert lines[-1] == "      ... 1 unchanged ..." and "      ... 1 unchanged ..." in lines[:-2]


def test_data_that_grew(gcc: Compiler) -> None:
    old, new = gcc.object("char v[20] = { 1 };"), gcc.object("char v[40] = { 1 };")
    found = listing(old, new, "v")
    assert [(row.old is not None, row.new is not None) for row in found.hunks[0].rows] == [(True, True), (False, True)]


def test_as_data(gcc: Compiler) -> None:
    found = listing(*_pair(gcc), "f")
    document = as_data(found)
    assert json.loads(json.dumps(document)) == document
    assert document["first_difference"] == {
        "old": {
            "part": "f",
            "offset": 8,
            "bytes": "b801000000",
            "text": "movl $1, %eax",
            "target": None,
            "source": None,
        },
        "new": {
            "part": "f",
            "offset": 8,
            "bytes": "b802000000",
            "text": "movl $2, %eax",
            "target": None,
            "source": None,
        },
    }
    hunks = document["hunks"]
    assert [hunk["same_before"] for hunk in hunks] == [8, 8, 1]
    assert [len(hunk["old"]) for hunk in hunks] == [1, 1, 0] and [len(hunk["new"]) for hunk in hunks] == [1, 1, 1]
    assert hunks[1]["old"][0]["target"] == "one" and hunks[1]["old"][0]["bytes"] == "e800000000"
    assert {hunk["what"] for hunk in hunks} == {"instructions"}
    assert [row["kind"] for row in document["why"]] == ["constant", "call target", "instruction", "size"]


@pytest.mark.parametrize("context", [0, 1, 3, 50])
def test_context_does_not_change_the_data(gcc: Compiler, context: int) -> None:
    old, new = _pair(gcc)
    assert as_data(listing(old, new, "f", context)) == as_data(listing(old, new, "f"))


def test_whole_of_what_was_added(gcc: Compiler) -> None:
    old, new = (
        gcc.assembly(_function("nop")),
        gcc.assembly(_function("nop", ".globl g\n.type g, %function\ng: hlt\n.size g, 1\n")),
    )
    found = listing(old, new, "g")
    assert [row.new.text for row in found.hunks[0].rows if row.new] == ["hlt"] and found.first is None
    change = found.change
    assert Lister(ObjectView(str(old)), ObjectView(str(new))).listing(change, whole=False).hunks == []


def test_source_lines_in_columns() -> None:
    """A heading where the line of either side is another; at the right end of a row that is one below the other."""
    rows = [
        ListedRow(_line(0, "nop", "a.c:1"), _line(0, "nop", "a.c:2"), False),
        ListedRow(_line(1, "cli", "a.c:1"), None, True),
        ListedRow(_line(2, "sti", "a.c:2"), _line(1, "hlt", "a.c:2"), True),
        ListedRow(_line(3, "ret", ""), _line(2, "ret", ""), False),
    ]
    change = function_change("f")
    found = Listing(change, [ListedHunk("instructions", 0, rows)], None, "no more is known")
    columns = [re.sub(" +", " ", line).strip() for line in text_lines(found, COLUMNS)]
    assert columns[1:] == [
        "livepatch: not known",
        "nobody looked",
        "(no more is known)",
        "@@ f+0x1 (a.c:1) -> f+0x1 (a.c:2) @@",
        "a.c:1 a.c:2",
        "+0x0 nop +0x0 nop",
        "+0x1 cli <",
        "a.c:2",
        "+0x2 sti | +0x1 hlt",
        "+0x3 ret +0x2 ret",
    ]
    unified = [re.sub(" +", " ", line).strip() for line in text_lines(found, UNIFIED)]
    assert unified[5:] == [
        "+0x0 nop a.c:1 -> a.c:2",
        "- +0x1 cli",
        "- +0x2 sti a.c:2",
        "+ +0x1 hlt",
        "+0x2 ret",
    ]


def _line(offset: int, text: str, place: str) -> ListedLine:
    return ListedLine(f"+{offset:#x}", "f", offset, b"\x90", text, "", place)
