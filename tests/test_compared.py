# SPDX-License-Identifier: GPL-2.0-only
"""compared.py: which objects it takes for a pair, and each convention by which the oracle's opinion is explained.

A convention that explains too much hides a missed change, so each is asked of what is only like it, too.
"""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import compared
import pytest
from compared import LINKED, Outcome, judge, pairs_of
from oracle import opinion
from oracle.opinion import Answer
from snippets import Compiler
from source_mutations import Pair, Question, report_answer
from source_mutator import Kind, Mutation

from kbuild_klp.builds.single_object import ObjectBuild
from kbuild_klp.compare.passes import compare

NOTHING = Mutation("", Kind.PATCH, "", 0, "", "", {})


@pytest.fixture
def gcc(tmp_path: Path) -> Compiler:
    return Compiler("gcc", tmp_path)


def _linked(gcc: Compiler, *sources: str) -> Path:
    """Return one object of several sources, as the kernel links a module of several objects."""
    objects = [gcc.object(source) for source in sources]
    linked = objects[0].with_name("linked.o")
    subprocess.run(["ld", "-r", "-o", linked, *objects], check=True)
    return linked


def _explained(pair: Pair) -> dict[str, int]:
    """Return by which conventions the two are of one mind; nothing may be left over."""
    outcome = judge("x", pair, True)
    assert not outcome.notes
    return dict(outcome.explained)


def _applies(convention: str, pair: Pair, kind: str, name: str, ours: str, theirs: str) -> bool:
    """Say whether a convention would explain an answer, had it been given."""
    answer = report_answer(compare(ObjectBuild(str(pair.old)), ObjectBuild(str(pair.new))))
    question = Question(kind, name, ours, theirs, answer, opinion.differences(*pair), pair, NOTHING)
    return next(rule for rule in LINKED if rule.name == convention).applies(question)


# -- directories ------------------------------------------------------------------------------------------------------

# The path to which a directory belongs is told by several sources, as in a module.
WARNS = """
int warn(const char *, int);
int f(int a) { return warn("/build/linux-Xw3Cd/drivers/md/one.c", %s) + a; }
int g(int a) { return warn("/build/linux-Xw3Cd/include/linux/two.h", 2) - a; }
"""
ELSEWHERE = ("/build/linux-Xw3Cd/", "/build/linux-pQ9aZ/")


def test_another_directory_is_explained(gcc: Compiler) -> None:
    source = WARNS % 1
    for new in (ELSEWHERE[1], "/srv/somebody/kernel/"):
        pair = Pair(gcc.object(source), gcc.object(source.replace(ELSEWHERE[0], new)))
        assert _explained(pair) == {"directory": 2}


@pytest.mark.parametrize(
    "new",
    [
        WARNS.replace(*ELSEWHERE) % 2,  # another number, too
        WARNS.replace(*ELSEWHERE, 1).replace("one.c", "three.c") % 1,
        (WARNS % 1).replace('one.c", 1)', 'one.c", 1) + warn("/build/linux-pQ9aZ/drivers/md/one.c", 1)'),
        (WARNS % 1).replace("one.c", "one"),
        WARNS % 1,
    ],
    ids=["number", "file", "call", "no source", "nothing"],
)
def test_what_is_more_than_another_directory(gcc: Compiler, new: str) -> None:
    pair = Pair(gcc.object(WARNS % 1), gcc.object(new))
    assert not _applies("directory", pair, "function", "f", "", "changed")


def test_a_directory_in_several_strings_of_one_record_is_one(gcc: Compiler) -> None:
    """As in the records of UBSAN, of which there are several in one line of the oracle's."""
    source = """
    int take(const void *);
    int f(void)
    {
        static const struct { const char *file; int line; const char *of; } record[] = {
            { "/build/linux-Xw3Cd/net/one.c", 5, "int" }, { "/build/linux-Xw3Cd/net/two.h", 6, "long" },
        };
        return take(record);
    }
    """
    pair = Pair(gcc.object(source), gcc.object(source.replace(*ELSEWHERE)))
    assert _explained(pair) == {"directory": 1}
    other = gcc.object(source.replace(*ELSEWHERE).replace('"long"', '"char"'))
    assert not _applies("directory", Pair(pair.old, other), "function", "f", "", "changed")


def test_two_directories_are_none(gcc: Compiler) -> None:
    two = 'int warn(const char *); int f(void) { return warn("/one/a.c") + warn("/two/b.c"); }'
    pair = Pair(gcc.object(two), gcc.object(two.replace("/one/", "/1/").replace("/two/", "/2/")))
    assert not _applies("directory", pair, "function", "f", "", "changed")
    pair = Pair(pair.old, gcc.object(two.replace("/one/", "/1/")))
    assert _applies("directory", pair, "function", "f", "", "changed")
    assert not _applies("directory", pair, "function", "f", "changed", "")


# -- one of several ---------------------------------------------------------------------------------------------------

COUNTS = "int use(int *); static int count = %d; int %s(void) { return use(&count); }\n"


def test_one_more_of_several_is_explained(gcc: Compiler) -> None:
    less = _linked(gcc, COUNTS % (1, "one"), COUNTS % (2, "two"))
    more = _linked(gcc, COUNTS % (1, "one"), COUNTS % (2, "two"), COUNTS % (3, "three"))
    assert _explained(Pair(less, more)) == {"one of several": 1}
    assert _explained(Pair(more, less)) == {"one of several": 1}


def test_others_of_several_are_changed(gcc: Compiler) -> None:
    less = _linked(gcc, COUNTS % (1, "one"), COUNTS % (2, "two"))
    more = _linked(gcc, COUNTS % (1, "one"), COUNTS % (4, "two"), COUNTS % (3, "three"))
    for pair, ours in ((Pair(less, more), "added"), (Pair(more, less), "removed")):
        assert not _applies("one of several", pair, "data", "count", ours, "changed")
        assert not _applies("one of several", pair, "data", "count", "", "changed")
    # What was not there before is not one of several.
    assert not _applies("one of several", Pair(less, more), "data", "other", "added", "changed")


# -- padding ----------------------------------------------------------------------------------------------------------

PADDED = """
.text
.type __pfx_f, @function
__pfx_f: .fill 16, 1, 0x90
.size __pfx_f, 16
.globl f
.type f, @function
f: movl $%d, %%eax
	ret
.size f, . - f
"""


def test_padding_is_explained_by_its_function(gcc: Compiler) -> None:
    padded = PADDED % 1
    renamed = (
        padded.replace("__pfx_f", "__pfx_g").replace(" f", " g").replace("f:", "g:").replace("__pfx_g:", "__pfx_g:")
    )
    pair = Pair(gcc.assembly(padded), gcc.assembly(renamed))
    assert _explained(pair) == {"padding": 2}


def test_padding_is_not_explained_by_another_change(gcc: Compiler) -> None:
    pair = Pair(gcc.assembly(PADDED % 1), gcc.assembly(PADDED % 2))
    assert _applies("padding", pair, "function", "__pfx_f", "", "changed")
    assert not _applies("padding", pair, "function", "__pfx_f", "", "removed")
    assert not _applies("padding", pair, "function", "__pfx_g", "", "changed")
    assert not _applies("padding", pair, "function", "f", "", "changed")


# -- the same in another form -----------------------------------------------------------------------------------------

ALIGNED = """
.text
.globl before
.type before, @function
before: .skip %d, 0x40
	ret
.size before, . - before
.p2align 4
.globl f
.type f, @function
f: jmp 2f
.p2align 6
1: incl %%eax
2: loop 1b
	%s
	ret
.size f, . - f
"""


def test_what_aligns_a_loop_is_explained(gcc: Compiler) -> None:
    old = gcc.assembly(ALIGNED % (1, "ret"))
    assert _explained(Pair(old, gcc.assembly(ALIGNED % (17, "ret")))) == {"encoding": 1}
    for code in ("decl %ebx", "ret; nop; incl %ecx", "push %rax"):
        new = gcc.assembly(ALIGNED % (17, code))
        assert not _applies("encoding", Pair(old, new), "function", "f", "", "changed")
    more = gcc.assembly(ALIGNED.replace("incl %%eax", "incl %%ecx") % (17, "ret"))
    assert not _applies("encoding", Pair(old, more), "function", "f", "", "changed")


# -- what else differs from release to release ------------------------------------------------------------------------


def test_a_build_id_is_explained(gcc: Compiler) -> None:
    plain = gcc.object("int f(void) { return 1; }")
    old, new = (plain.with_name(f"of{number}.o") for number in (1, 2))
    for path, number in ((old, "1"), (new, "2")):
        subprocess.run(["ld", "-r", f"--build-id=0x{number * 40}", "-o", path, plain], check=True)
    pair = Pair(old, new)
    assert _explained(pair) == {"build id": 1}
    assert not _applies("build id", pair, "section", ".note.Linux", "", "changed")
    assert not _applies("build id", pair, "section", ".note.gnu.build-id", "changed", "")


@pytest.mark.parametrize(
    ("convention", "name", "ours", "theirs", "applies"),
    [
        ("release", "__UNIQUE_ID_vermagic", "", "changed", True),
        ("release", "__UNIQUE_ID_vermagic", "changed", "", False),
        ("release", "__UNIQUE_ID_license", "", "changed", False),
        ("CRC", "__crc_f", "changed", "", True),
        ("CRC", "__crc_f", "", "changed", False),
        ("CRC", "crc_f", "changed", "", False),
        ("BTF id", "__BTF_ID__func__f__", "", "changed", True),
        ("BTF id", "__BTF_ID__func__f__", "changed", "", False),
        ("descriptor", "__UNIQUE_ID_ddebug", "", "line-only", True),
        ("descriptor", "__UNIQUE_ID_ddebug", "", "changed", False),
        ("descriptor", "__UNIQUE_ID_other", "", "line-only", False),
    ],
)
def test_what_is_known_by_name(
    tmp_path: Path, convention: str, name: str, ours: str, theirs: str, applies: bool
) -> None:
    question = Question("data", name, ours, theirs, {}, {}, Pair(tmp_path, tmp_path), NOTHING)
    assert next(rule for rule in LINKED if rule.name == convention).applies(question) is applies


UNUSED = """
.text
.globl f
.type f, @function
f: movq $1f, %rdi
	call __ubsan_handle_out_of_bounds
	ret
.size f, . - f
.data
.balign 8
1: .quad 3f
.long USED, 5
.quad 2f, 2f
2: .short 0, 11
.asciz "int"
.balign 8
.quad 4f
.long BEHIND, 19
.quad 2b, 2b
.section .rodata.str1.1,"aMS",@progbits,1
3: .asciz "/build/one/fs/x.c"
4: .asciz "/build/one/include/linux/slab.h"
"""


def test_records_that_nobody_uses_are_explained(gcc: Compiler) -> None:
    values = ("USED", "7"), ("BEHIND", "592")
    old = UNUSED
    for name, value in values:
        old = old.replace(name, value)

    def applies(*edits: tuple[str, str]) -> bool:
        text = old
        for edit in edits:
            assert edit[0] in text
            text = text.replace(*edit)
        return _applies("unused record", Pair(gcc.assembly(old), gcc.assembly(text)), "function", "f", "", "changed")

    behind, directory = ("592", "601"), ("/build/one", "/build/two")
    assert applies(behind) and applies(behind, directory)
    assert not applies(directory)
    for edit in (("long 7", "long 8"), (", 19", ", 18"), ("0, 11", "0, 12"), ("ret", "nop; ret")):
        assert not applies(behind, edit) and not applies(behind, directory, edit)
    assert not applies(behind, directory, ("fs/x.c", "mm/x.c"))
    pair = Pair(gcc.assembly(old), gcc.assembly(old.replace(*behind)))
    assert not _applies("unused record", pair, "function", "f", "changed", "")


@pytest.mark.parametrize(
    ("record", "applies"),
    [
        (".quad 4f\n.long 592, 19\n.quad 2f, 2f\n", True),
        (".quad 4f\n.long 592, 19\n.quad 2f, 5\n", False),
        (".quad 77\n", False),
    ],
)
def test_records_of_which_a_section_consists(gcc: Compiler, record: str, applies: bool) -> None:
    strings = '.section .rodata.str1.1,"aMS",@progbits,1\n4: .asciz "include/linux/slab.h"\n'
    text = f".data\n{record}\n.section .rodata\n2: .short 0, 11\n{strings}"
    pair = Pair(gcc.assembly(text), gcc.assembly(text.replace(record, "")))
    assert _applies("unused record", pair, "section", ".data", "", "removed") is applies
    assert not _applies("unused record", pair, "section", ".data", "removed", "")


# -- pairs ------------------------------------------------------------------------------------------------------------


def _files(directory: Path, *names: str) -> Path:
    for name in names:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).touch()
    return directory


@pytest.mark.parametrize(
    ("old", "new", "want"),
    [
        (["lib/modules/5.15.0-1-generic/a.ko"], ["lib/modules/5.15.0-2-generic/a.ko"], ["lib/modules/a.ko"]),
        (["5.10.0/fs/a.ko", "5.10.0/b.ko"], ["6.1/fs/a.ko", "6.1/c.ko"], ["fs/a.ko"]),
        (["a.o", "fs/b.o"], ["a.o", "fs/b.o"], ["a.o", "fs/b.o"]),
        (["a.o", "b.ko"], ["a.o", "b.ko"], ["b.ko"]),  # objects are what modules were linked from
        (["drivers/v4l2/a.ko"], ["drivers/v4l2/a.ko"], ["drivers/v4l2/a.ko"]),
    ],
)
def test_objects_of_one_path_are_a_pair(tmp_path: Path, old: list[str], new: list[str], want: list[str]) -> None:
    sides = _files(tmp_path / "old", *old), _files(tmp_path / "new", *new)
    found = [*pairs_of(*sides)]
    assert [name for name, _ in found] == want
    assert all(pair.old.is_relative_to(sides[0]) and pair.new.is_relative_to(sides[1]) for _, pair in found)


@pytest.mark.parametrize(
    ("options", "judged", "asked"),
    [
        ([], "abcdefg", ""),
        (["--every", "3"], "adg", ""),
        (["--start", "2"], "cdefg", ""),
        (["--start", "1", "--every", "3"], "be", ""),
        (["--start", "9"], "", ""),
        (["--start", "1", "--every", "2", "--oracle", "2"], "bdf", "bf"),
        (["--oracle", "1"], "abcdefg", "abcdefg"),
    ],
)
def test_which_objects_are_taken(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    judged: str,
    asked: str,
) -> None:
    names = [f"{letter}.ko" for letter in "abcdefg"]
    sides = [str(_files(tmp_path / side, *names)) for side in ("old", "new")]
    taken: dict[str, bool] = {}

    def remember(
        _pool: object, _judge: object, found: Sequence[str], pairs: Sequence[Pair], is_asked: Sequence[bool]
    ) -> list[Outcome]:
        assert [pair.new.name for pair in pairs] == [*found]
        taken.update((name.removesuffix(".ko"), ask) for name, ask in zip(found, is_asked, strict=True))
        return [Outcome(Counter(objects=1), 0, 0, Counter(), ()) for _ in found]

    monkeypatch.setattr(ProcessPoolExecutor, "map", remember)
    monkeypatch.setattr("sys.argv", ["compared.py", "--pair", "some", *sides, *options])
    assert compared.main() == 0
    assert "".join(taken) == judged
    assert "".join(name for name, ask in taken.items() if ask) == asked
    assert f"| some | {len(judged)} |" in capsys.readouterr().out


def test_what_no_convention_explains_is_told(gcc: Compiler, monkeypatch: pytest.MonkeyPatch) -> None:
    def mistaken(*_: Path) -> Answer:
        return {("function", "f"): "changed"}

    monkeypatch.setattr(opinion, "differences", mistaken)
    same = gcc.object("int f(void) { return 1; }")
    outcome = judge("x", Pair(same, same), True)
    assert outcome.notes == ("x: function f: we say nothing, it says changed",)
    assert (outcome.names, outcome.agreed) == (1, 0)
