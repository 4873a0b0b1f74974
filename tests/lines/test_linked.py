# SPDX-License-Identifier: GPL-2.0-only
"""Objects that were linked from several, compared beside the trees in which they were built: a module's .ko and .o."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from line_trees import CHANGED, PROVED, Answer
from snippets import KERNEL_FLAGS

from kbuild_klp.builds.single_object import ObjectBuild
from kbuild_klp.compare.passes import compare

# Nothing in the objects says that these are lines.
ONE = "int pass(int);\nint one(int x) { return pass(__LINE__) + x; }\n"
TWO = "int pass(int);\nint two(int x) { return pass(__LINE__) - x; }\n"
MOVED = "/* one more line */\n"


class LinkedTree:
    """A tree with the module m of some sources, as kbuild leaves it.

    ``separate``: the sources lie in another directory (O=). ``form``: how the command of m.o names its objects.
    """

    def __init__(
        self, root: Path, files: Mapping[str, str], *flags: str, form: str = "words", separate: bool = False
    ) -> None:
        self.root = root
        self.source = root.with_name(f"{root.name}-source") if separate else root
        self.write("include/config/auto.conf", "CONFIG_X86_64=y\n")
        self.write("include/generated/autoconf.h", "")
        if separate:
            self.source.mkdir()
            (root / "source").symlink_to(self.source)
        for name, text in {**files, "m/m.mod.c": "int this_module;\n"}.items():
            self.write(name, text, root if name == "m/m.mod.c" else self.source)
        self.members = [self.compile(name, *flags) for name in files if name.endswith(".c")]
        self.compile("m/m.mod.c")
        words = " ".join(self.members)
        if form == "list":
            self.write("m/m.mod", "\n".join(self.members) + "\n")
            words = "@m/m.mod"
        elif form == "archive":
            self.run("ar", "cDPrST", "m/parts.a", *self.members)
            words = "--whole-archive m/parts.a --no-whole-archive"
        self.link("m/m.o", words, "; ./tools/objtool --link m/m.o m/other.o")
        self.link("m/m.ko", "m/m.o m/m.mod.o", ";  true")

    def write(self, name: str, text: str, root: Path | None = None) -> None:
        path = (root or self.root) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        os.utime(path, ns=(1, 1))

    def run(self, *words: str) -> None:
        done = subprocess.run(words, cwd=self.root, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def compile(self, name: str, *flags: str) -> str:
        target = f"{name.removesuffix('.c')}.o"
        is_own = (self.root / name).exists()
        path = name if is_own else str(self.source / name)
        (self.root / target).parent.mkdir(parents=True, exist_ok=True)
        words = ["gcc", *KERNEL_FLAGS, f"-I{self.source}", "-MMD", "-MF", "deps", "-c", "-o", target, path]
        self.run(*words)
        names = (self.root / "deps").read_text().replace("\\\n", " ").split()[2:]
        self.saved(target, " ".join([*words, *flags]), path, names)
        return target

    def saved(self, target: str, command: str, source: str = "", names: list[str] | None = None) -> None:
        text = f"savedcmd_{target} := {command}\n"
        if source:
            listed = "".join(f"  {name} \\\n" for name in names or [])
            text += f"\nsource_{target} := {source}\n\ndeps_{target} := \\\n{listed}\n"
        directory, _, name = target.rpartition("/")
        self.write(f"{directory}/.{name}.cmd", text)

    def link(self, target: str, words: str, behind: str) -> None:
        command = f"ld -r -o {target} {words}"
        self.run(*command.split())
        self.saved(target, command + behind)


class Linked:
    """Makes pairs of trees in a directory and compares their modules."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def tree(
        self, side: str, files: Mapping[str, str], *flags: str, form: str = "words", separate: bool = False
    ) -> LinkedTree:
        return LinkedTree(self.directory / side, files, *flags, form=form, separate=separate)

    def diff(self, old: Mapping[str, str], new: Mapping[str, str], *flags: str) -> dict[str, Answer]:
        return answers(self.tree("old", old, *flags), self.tree("new", new, *flags))


def answers(old: LinkedTree, new: LinkedTree, name: str = "m/m.ko") -> dict[str, Answer]:
    """Return what is said of each symbol, with the name of its file where that tells it from another."""
    report = compare(ObjectBuild(str(old.root / name)), ObjectBuild(str(new.root / name)))
    assert not report.failed and not report.warnings
    return {
        change.label or change.symbol: Answer(change.change.value, change.proof.value if change.proof else "")
        for group in report.objects
        for change in group.changes
    }


@pytest.fixture
def linked(tmp_path: Path) -> Linked:
    return Linked(tmp_path)


@pytest.mark.parametrize("name", ["m/m.ko", "m/m.o"])
@pytest.mark.parametrize("form", ["words", "list", "archive"])
@pytest.mark.parametrize("separate", [False, True])
def test_lines_of_linked_sources_are_proved(linked: Linked, name: str, form: str, separate: bool) -> None:
    sides = ("old", {"m/a.c": ONE, "m/b.c": TWO}), ("new", {"m/a.c": MOVED + ONE, "m/b.c": TWO})
    old, new = (linked.tree(side, files, form=form, separate=separate) for side, files in sides)
    assert answers(old, new, name) == {"one": PROVED}


def test_what_changed_in_one_source_is_no_doubt_about_another(linked: Linked) -> None:
    old = {"m/a.c": ONE, "m/b.c": TWO}
    new = {"m/a.c": MOVED + ONE, "m/b.c": MOVED + TWO.replace("- x", "- x * 3")}
    assert linked.diff(old, new) == {"one": PROVED, "two": CHANGED}


@pytest.mark.parametrize(("constant", "expected"), [(2, CHANGED), (700, CHANGED)])
def test_constant_of_one_source_is_no_line_of_another(linked: Linked, constant: int, expected: Answer) -> None:
    """Line 2 of a.c is its line 3 now; b.c says 2 and 3."""
    text = "int pass(int);\nint two(int x) {{ return pass({}) - x; }}\n"
    old = {"m/a.c": ONE, "m/b.c": text.format(constant)}
    new = {"m/a.c": MOVED + ONE, "m/b.c": text.format(constant + 1)}
    assert linked.diff(old, new) == {"one": PROVED, "two": expected}


def test_static_functions_of_one_name_are_of_their_sources(linked: Linked) -> None:
    static = "static __attribute__((noinline)) int own(int x) {{ return pass({}) + x; }}\n"
    a = "int pass(int);\n" + static.format("__LINE__") + "int one(int x) { return own(x) + 1; }\n"
    b = "int pass(int);\n" + static.format(2) + "int two(int x) { return own(x) + 2; }\n"
    found = linked.diff({"m/a.c": a, "m/b.c": b}, {"m/a.c": MOVED + a, "m/b.c": b.replace("pass(2)", "pass(3)")})
    assert found == {"own@a.c": PROVED, "own@b.c": CHANGED}


def test_static_functions_of_sources_of_one_name(linked: Linked) -> None:
    """Which of the two it is, nothing says for certain."""
    static = "int pass(int);\nstatic __attribute__((noinline)) int own(int x) {{ return pass({}) + x; }}\n{}"
    a = static.format("__LINE__", "int one(int x) { return own(x) + 1; }\n")
    b = static.format(2, "int two(int x) { return own(x) + 2; }\n")
    old, new = {"m/a/core.c": a, "m/b/core.c": b}, {"m/a/core.c": MOVED + a, "m/b/core.c": b.replace("(2)", "(3)")}
    assert set(linked.diff(old, new).values()) == {CHANGED}


def test_variables_are_of_their_sources_too(linked: Linked) -> None:
    a, b = "int table[] = { 1, __LINE__ };\n", "int other[] = { 1, 1 };\n"
    found = linked.diff({"m/a.c": a, "m/b.c": b}, {"m/a.c": MOVED + a, "m/b.c": b.replace("1 }", "2 }")})
    assert found == {"table": PROVED, "other": CHANGED}


def test_longer_instructions_of_one_source_beside_a_change_of_another(linked: Linked) -> None:
    many = "int many(int, int, int, int, int, int, int);"
    a = "\n" * 126 + f"{many} int one(int x) {{ return many(1, 2, 3, 4, 5, 6, __LINE__) + x; }}\n"
    new = {"m/a.c": MOVED + a, "m/b.c": TWO.replace("- x", "- x * 3")}
    assert linked.diff({"m/a.c": a, "m/b.c": TWO}, new) == {"one": PROVED, "two": CHANGED}


def test_under_lto_a_function_has_code_of_any_source(linked: Linked) -> None:
    found = linked.diff({"m/a.c": ONE, "m/b.c": TWO}, {"m/a.c": MOVED + ONE, "m/b.c": TWO}, "-flto=auto")
    assert found == {"one": CHANGED}


@pytest.mark.parametrize("what", ["member is gone", "member is newer", "source is newer", "command is gone", "bitcode"])
@pytest.mark.parametrize("side", [0, 1])
def test_what_is_not_what_was_linked_proves_nothing(linked: Linked, what: str, side: int) -> None:
    sides = ("old", {"m/a.c": ONE, "m/b.c": TWO}), ("new", {"m/a.c": MOVED + ONE, "m/b.c": TWO})
    trees = [linked.tree(side, files) for side, files in sides]
    root = trees[side].root
    later = (root / "m/m.ko").stat().st_mtime_ns + 1
    match what:
        case "member is gone":
            (root / "m/b.o").unlink()
        case "member is newer":
            os.utime(root / "m/a.o", ns=(later, later))
        case "source is newer":
            os.utime(root / "m/a.c", ns=(later, later))
        case "command is gone":
            (root / "m/.a.o.cmd").unlink()
        case _:
            (root / "m/b.o").write_bytes(b"BC\xc0\xde" + bytes(60))
    assert answers(trees[0], trees[1]) == {"one": CHANGED}


@pytest.mark.parametrize("text", ["", "garbage\n", "savedcmd_m/m.ko := ld -r -o m/m.ko m/m.ko m/m.o\n"])
def test_commands_that_say_nothing(linked: Linked, text: str) -> None:
    sides = ("old", {"m/a.c": ONE}), ("new", {"m/a.c": MOVED + ONE})
    old, new = (linked.tree(side, files) for side, files in sides)
    new.write("m/.m.ko.cmd", text)
    assert answers(old, new)["one"] == (PROVED if "m.o" in text else CHANGED)
