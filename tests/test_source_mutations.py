# SPDX-License-Identifier: GPL-2.0-only
"""A sample of the changes to kernel sources in source_mutations.py, which runs all of them by hand.

KLP_TEST_TREE names a built tree; without it there is nothing to compile.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import source_mutations
from kernel_replay import SECTIONS, CompileError, Replay
from oracle import opinion
from oracle.opinion import Answer
from snippets import Compiler
from source_mutations import SOURCES, Pair, Verdict, chosen_mutations, judge_all, judge_pair
from source_mutator import Kind, Mutation, mutations, rows

# Assembly costs nothing; of C, small files, with what is recorded of them and two seeded changes.
ASSEMBLY = ("arch/x86/entry/entry_64.o", "arch/x86/lib/copy_user_64.o", "arch/x86/lib/memmove_64.o")
C = ("lib/hexdump.o", "lib/argv_split.o", "fs/proc/cmdline.o", "drivers/pnp/quirks.o")


@pytest.fixture(scope="module")
def tree() -> Path:
    path = os.environ.get("KLP_TEST_TREE")
    if not path:
        pytest.skip("KLP_TEST_TREE names no built kernel tree")
    if shutil.which("gcc") is None or shutil.which("objdump") is None:
        pytest.skip("no gcc or no objdump")
    return Path(path).resolve()


@pytest.fixture(scope="module")
def verdicts(tree: Path) -> list[Verdict]:
    chosen = chosen_mutations(tree, ASSEMBLY + C, seed=1, per_kind=1)
    few = {name: chosen[name] if name in ASSEMBLY else chosen[name][-3:] for name in ASSEMBLY + C}
    return list(judge_all(tree, few, jobs=2, sections=True))


@pytest.mark.parametrize("name", ["fs/proc/cmdline.o", "fs/ext4/file.o", "arch/x86/lib/memmove_64.o"])
def test_a_replayed_command_makes_the_same_object(tree: Path, tmp_path: Path, name: str) -> None:
    """In another place, from a copy of the source: otherwise the two sides would not be what the kernel has."""
    replay = Replay(tree, name)
    assert replay.compile(tmp_path, {}).read_bytes() == (tree / name).read_bytes()
    header = "arch/x86/include/asm/alternative.h"
    assert replay.compile(tmp_path, {header: replay.read(header)}).read_bytes() == (tree / name).read_bytes()


def test_a_changed_header_is_the_one_that_is_compiled(tree: Path, tmp_path: Path) -> None:
    for name, header in (("lib/argv_split.o", "include/linux/slab.h"), ("fs/ext4/file.o", "fs/ext4/ext4.h")):
        replay = Replay(tree, name)
        with pytest.raises(CompileError, match="the other one"):
            replay.compile(tmp_path, {header: "#error the other one\n"})
        replay.compile(tmp_path, {})  # and not any more


def test_a_sample_of_changes_is_found(verdicts: list[Verdict]) -> None:
    assert [verdict for verdict in verdicts if verdict.state == "wrong"] == []
    found = [verdict for verdict in verdicts if verdict.state == "found"]
    assert len(found) >= 24
    assert all(verdict.found for verdict in found)
    assert len({verdict.mutation.kind for verdict in found}) >= 10


def test_the_command_line_gives_the_same_answer(tree: Path, tmp_path: Path) -> None:
    name = "fs/proc/cmdline.o"
    replay = Replay(tree, name)
    text = replay.text.replace("seq_puts(m, saved", "seq_puts(m, boot")
    assert text != replay.text
    old = replay.compile(tmp_path / "old", {})
    new = replay.compile(tmp_path / "new", {replay.source: text})
    done = subprocess.run(
        [sys.executable, "-m", "kbuild_klp", "diff", str(old), str(new), "--json"], capture_output=True, text=True
    )
    assert done.returncode == 1, done.stderr
    (group,) = json.loads(done.stdout)["objects"]
    assert [(change["symbol"], change["change"]) for change in group["changes"]] == [("cmdline_proc_show", "changed")]


SOURCE = "int outside(int);\nint first(int x) { return outside(x) + 1; }\nint second(int x) { return outside(x); }\n"


@pytest.mark.parametrize("answer", [{}, {("function", "second"): "changed"}, {("function", "first"): "added"}])
@pytest.mark.parametrize("asked", ["oracle", "sections"])
def test_a_wrong_answer_would_be_seen(
    gcc: Compiler, monkeypatch: pytest.MonkeyPatch, answer: Answer, asked: str
) -> None:
    """A miss, a false report, and another word for it: no convention may excuse them."""
    change = Mutation("unit.o", Kind.CONSTANT, "unit.c", 2, "+ 1", "+ 2", {})
    texts = SOURCE, SOURCE.replace("+ 1", "+ 2")
    plainly, sectioned = (Pair(*(gcc.object(text, *flags) for text in texts)) for flags in ((), SECTIONS))
    assert judge_pair(change, plainly, sectioned).state == "found"
    if asked == "sections":
        monkeypatch.setattr(opinion, "differences", lambda *_: answer)
    monkeypatch.setattr(source_mutations, "answer_of", lambda _: answer)
    verdict = judge_pair(change, plainly, sectioned)
    assert verdict.state == "wrong"
    assert {note.partition(":")[0] for note in verdict.notes} >= {asked}


def test_a_report_of_what_is_no_change_would_be_seen(gcc: Compiler) -> None:
    nothing = Mutation("unit.o", Kind.NOTHING, "unit.c", 2, "+ 1", "+ 2", {})
    pair = Pair(gcc.object(SOURCE), gcc.object(SOURCE.replace("+ 1", "+ 2")))
    assert judge_pair(nothing, pair, None).state == "wrong"
    assert judge_pair(nothing, Pair(pair.old, pair.old), None).state == "silent"


def test_changes_are_the_same_each_time() -> None:
    """Seeded: who runs it again sees what was seen before."""
    text = 'static int f(int x)\n{\n\tif (x < 3)\n\t\treturn call(x, 4);\n\tpr_warn("text");\n\treturn -EINVAL;\n}\n'
    first = mutations("a/f.o", "a/f.c", text, seed=3, per_kind=9)
    assert first == mutations("a/f.o", "a/f.c", text, seed=3, per_kind=9)
    assert {Kind.OPERATOR, Kind.CONSTANT, Kind.CONDITION, Kind.STRING, Kind.WARN, Kind.ATTRIBUTE} <= {
        mutation.kind for mutation in first
    }
    for mutation in first:
        (changed,) = mutation.texts.values()
        assert changed != text
        assert changed.count("\n") == text.count("\n"), "a line number moved"


def test_comments_directives_and_macros_are_left_alone() -> None:
    text = "/* if (x < 3)\n * return 1;\n */\n#define M(x) \\\n\tif (x < 3) \\\n\t\treturn 1;\n// a < b;\n"
    assert mutations("a/f.o", "a/f.c", text, per_kind=9) == []


def test_there_is_something_of_everything() -> None:
    """The proof asks for at least 60 changes to 30 files, each kind among them."""
    assert len(SOURCES.split()) >= 30
    assert len(rows()) >= 60
    kinds = {row.kind for row in rows()}
    assert {Kind.STATIC_KEY, Kind.ALTERNATIVE, Kind.EXTABLE, Kind.RECORD, Kind.TABLE, Kind.INITIALISER} <= kinds
    for row in rows():
        assert row.old != row.new
