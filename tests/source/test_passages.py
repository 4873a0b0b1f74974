# SPDX-License-Identifier: GPL-2.0-only
from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path

import pytest

from kbuild_klp.source.file_pair import FilePair
from kbuild_klp.source.passages import TextChange, integers, is_only_comment, passages, text_change, tokens

TEXT = r"""
#include <linux/slab.h>	/* for kmalloc */
#define LONG(x) do { \
	one(x); \
	two(x); \
} while (0)
#define QUOTE(x) #x
// a comment that \
   goes on
static const char *text = "/* no comment */ // nor this", quote = '"';
struct list { int a; /* { */ };
#ifdef CONFIG_ONE
static int choose(int a)
{
#else
static int choose(int a, int b)
{
#endif
	return LONG(a);
}
SYSCALL_DEFINE3(read, unsigned int, fd, char __user *, buf, size_t, count)
{
	if (fd > 3) {
		return "}";
	}
	return 0x10 + 017 + 99UL;
}
static __init __attribute__((cold)) int last(void) { return '\''; }
int table[] = {
	[1] = 2,
};
"""


def _write(directory: Path, name: str, text: str) -> str:
    (directory / name).write_text(text)
    return str(directory / name)


def _pair(directory: Path, old: str, new: str) -> FilePair:
    return FilePair(_write(directory, "old.c", old), _write(directory, "new.c", new))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("int a;\n", "/* x */\nint a;\n"),
        ("int a;\n", "// x\n\n\nint a;\n"),
        ("int a;\n", "int\n   a;"),
        ("int a;\n", "int /* don't */ a;\n"),
        ("#define A 1\nint a;\n", "#define A  1\t/* one\n two */\n\nint a;\n"),
        ("#define A 1 + \\\n 2\n", "#define A \\\n 1 + 2\n"),
        ('char *s = "a";\n', '/* " */ char *s = "a";\n'),
        ("long_name;\n", "long_\\\nname;\n"),
    ],
)
def test_only_lines_differ(tmp_path: Path, old: str, new: str) -> None:
    assert _pair(tmp_path, old, new).only_lines_differ
    assert _pair(tmp_path, new, old).only_lines_differ


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("int a;\n", "int b;\n"),
        ("int a;\n", "int a;\nint b;\n"),
        ("int a;\n", "ina;\n"),
        ('char *s = "a  b";\n', 'char *s = "a b";\n'),
        ('char *s = "a";\n', 'char *s = "/* x */a";\n'),
        ("#define A 1\nint a;\n", "#define A 1 int a;\n"),
        ("#define A 1\nint a;\n", "#define A\n1\nint a;\n"),
        ("int a;\n", "// x \\\nint a;\n"),
        ("/* a\nint b; */\n", "/* a */\nint b; */\n"),
        ("int x = '\"'; // \"\n", 'int x = \'"\'; ""\n'),
        ("// a\\\nint b;\n", "// a\nint b;\n"),
    ],
)
def test_more_than_lines_differs(tmp_path: Path, old: str, new: str) -> None:
    assert not _pair(tmp_path, old, new).only_lines_differ
    assert not _pair(tmp_path, new, old).only_lines_differ


def test_pieces() -> None:
    found = {frozenset(passage.names): passage for passage in passages(TEXT)}
    assert [(passage.first, passage.last) for passage in passages(TEXT)] == sorted(
        (passage.first, passage.last) for passage in passages(TEXT)
    )
    functions = {name for passage in passages(TEXT) if passage.is_function for name in passage.names}
    assert functions == {"choose", "SYSCALL_DEFINE3", "last"}
    call = found[frozenset({"SYSCALL_DEFINE3"})]
    assert "read" in call.arguments and "return" not in call.arguments
    assert (call.first, call.last) == (21, 27)
    assert integers([call.text]) == {3, 16, 15, 99}
    macro = found[frozenset({"LONG"})]
    assert macro.is_directive and (macro.first, macro.last) == (3, 6)
    (table,) = [passage for passage in passages(TEXT) if "table" in passage.names]
    assert not table.is_function and table.last == len(TEXT.split("\n")) - 1


@pytest.mark.parametrize(
    ("before", "after", "names"),
    [
        ("two(x)", "three(x)", {"LONG"}),
        ("0x10", "0x11", {"SYSCALL_DEFINE3"}),
        ("[1] = 2", "[1] = 3", {"int", "table"}),
        ("int a; /* { */", "long a; /* { */", {"struct", "list"}),
        ("return LONG(a)", "return LONG(b)", {"choose"}),
        ("'\\''", "'\"'", {"last"}),
        ("#else", "#elif 1", set()),
    ],
)
def test_piece_that_changed(before: str, after: str, names: set[str]) -> None:
    assert before in TEXT
    change = text_change(passages(TEXT), passages("/* more */\n" + TEXT.replace(before, after)))
    (removed,), (added,) = change.removed, change.added
    if names:
        assert names <= removed.names and names <= added.names
    assert not change.reordered


def test_comments_and_the_order_of_functions_change_no_piece() -> None:
    a, b = "int a(void) { return 1; }\n", "int b(void) { return 2; }\n"
    assert text_change(passages(a + b), passages(b + "/* moved */\n" + a)) == TextChange((), (), False)
    define, undef = "#define X 1\n", "#undef X\n"
    assert text_change(passages(define + undef), passages(undef + define)).reordered


@pytest.mark.parametrize(
    "text", ["", "}", "}}}", "(((", "{", "'", '"', "#", "#define", "/*", "//", "\\", "int f(\n}\nint g(void) { }\n"]
)
def test_broken_text_is_cut_somehow(text: str) -> None:
    found = passages(text)
    assert tokens(text) == tokens(text)
    assert text_change(found, passages(text)) == TextChange((), (), False)


def test_is_only_comment() -> None:
    assert is_only_comment("/* a */ // b\n\n")
    assert not is_only_comment("/* a\n")
    assert not is_only_comment("a /* b */")


def test_the_preprocessor_agrees(tmp_path: Path) -> None:
    """Put comments and other things anywhere: what is called equal is equal to the preprocessor as well."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc")
    choose = random.Random(1)
    body = TEXT.replace("#include <linux/slab.h>\t/* for kmalloc */\n", "")
    pieces = ["/* c */", "// c", "", "x", "*/", "/*", "\\", '"', "#define Y", '/* " */', "  "]

    def preprocessed(name: str) -> list[str]:
        command = ["gcc", "-E", "-P", "-w", "-dD", "-undef", name]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False).stdout.split()

    equal = 0
    for _ in range(60):
        lines = body.split("\n")
        for _ in range(2):
            lines.insert(choose.randrange(len(lines)), choose.choice(pieces))
        if _pair(tmp_path, body, "\n".join(lines)).only_lines_differ:
            equal += 1
            assert preprocessed("old.c") == preprocessed("new.c"), "\n".join(lines)
    assert 5 < equal < 55
