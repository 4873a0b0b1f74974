# SPDX-License-Identifier: GPL-2.0-only
"""Which inlined functions a change comes from."""

from __future__ import annotations

from pathlib import Path

import pytest
from snippets import Compiler

import kbuild_klp.explain.explainer
from kbuild_klp.builds.single_object import ObjectBuild
from kbuild_klp.changes.classification import Change
from kbuild_klp.changes.wording import ReasonKind, sentence
from kbuild_klp.compare.passes import compare
from kbuild_klp.explain.explainer import PATIENCE, Explainer
from kbuild_klp.explain.origins import function_text
from kbuild_klp.kernel.sources import SourceFiles
from kbuild_klp.object.view import ObjectView

HEADER = """\
int ext(int);
static inline int inner(int x)
{
	return ext(x) ^ 3;
}

static inline int middle(int x, int *p)
{
	*p += inner(x);
	return *p * 5;
}
#define MAKE(name, n) static inline int name(int x) { return ext(x) - n; }
MAKE(made, 9)
"""
SOURCE = """\
#include "x.h"
int user(int x, int *p)
{
	return middle(x, p) + 1;
}
int both(int x, int *p)
{
	return middle(x, p) - inner(x);
}
int neither(int x)
{
	return ext(x) * 7;
}
static int alone(int x)
{
	return made(x) ^ 5;
}
int caller(int x) { return alone(x); }
"""


def _object(gcc: Compiler, header: str, source: str = SOURCE, *flags: str) -> Path:
    """Compile unit.c with its header x.h beside it."""
    gcc._count += 1
    directory = gcc.directory / f"tree{gcc._count}"
    directory.mkdir()
    (directory / "x.h").write_text(header)
    path = gcc.object(source, "-g", f"-I{directory}", *flags)
    path.with_name("x.h").write_text(header)
    return path


def _explained(old: Path, new: Path, sources: bool = False) -> dict[str, Change]:
    """Return the changes of two objects by symbol, explained with their sources at hand or without."""

    def find() -> tuple[SourceFiles | None, SourceFiles | None]:
        files = [{name: str(path.with_name(name)) for name in ("unit.c", "x.h")} for path in (old, new)]
        # The line table names the header by where it was included from.
        for path, mine in zip((old, new), files, strict=True):
            number = int(path.parent.name.removeprefix("build")) - 1
            mine[f"{path.parent.parent}/tree{number}/x.h"] = mine["x.h"]
        return SourceFiles("unit.c", files[0]), SourceFiles("unit.c", files[1])

    report = compare(ObjectBuild(str(old)), ObjectBuild(str(new)), explain=False)
    changes = [change for group in report.objects for change in group.changes]
    explainer = Explainer(ObjectView(str(old)), ObjectView(str(new)), PATIENCE, find if sources else None)
    return {change.symbol: change for change in map(explainer.explain, changes)}


def _inlined(change: Change) -> list[tuple[str, str, str]]:
    return [
        (_short(reason.old), _short(reason.new), _short(sentence(reason)))
        for reason in change.why
        if reason.kind is ReasonKind.INLINED
    ]


def _short(text: str) -> str:
    """Leave directories out."""
    return " ".join(word.rpartition("/")[2] for word in text.split(" "))


def test_source_of_an_inlined_function_tells_what_its_instructions_do_not(gcc: Compiler) -> None:
    """GCC adds the constant in the function around: only the text says that it is from here."""
    headers = [HEADER.replace("^ 3", f"+ {number}") for number in (3, 4)]
    old, new = (_object(gcc, header) for header in headers)
    ((_, is_, _),) = _inlined(_explained(old, new, True)["user"])
    assert is_ == "inner() from x.h:2"


def test_instructions_of_inlined_functions(gcc: Compiler) -> None:
    old, new = _object(gcc, HEADER), _object(gcc, HEADER.replace("^ 3", "^ 4"))
    changes = _explained(old, new)
    assert set(changes) == {"user", "both"}
    chain = "inner() from x.h:2, in middle() from x.h:7"
    assert _inlined(changes["user"]) == [(chain, chain, f"in inlined {chain}")]


def test_where_only_the_function_itself_differs_none_is_named(gcc: Compiler) -> None:
    """Though the instructions of what was inlined may be others."""
    source = SOURCE.replace("middle(x, p) - inner(x)", "inner(x) - middle(x, p)")
    old, new = _object(gcc, HEADER), _object(gcc, HEADER, source)
    changes = _explained(old, new)
    assert set(changes) == {"both"} and _inlined(changes["both"])
    assert _inlined(_explained(old, new, True)["both"]) == []


def test_the_declaration_may_have_moved(gcc: Compiler) -> None:
    old, new = _object(gcc, HEADER), _object(gcc, "\n\n" + HEADER.replace("^ 3", "^ 4"))
    ((was, is_, _),) = _inlined(_explained(old, new)["user"])
    assert (was, is_) == ("inner() from x.h:2, in middle() from x.h:7", "inner() from x.h:4, in middle() from x.h:9")


def test_where_the_sources_are_at_hand_they_decide(gcc: Compiler) -> None:
    """The other instructions of the function differ too, and those of what else was inlined with them."""
    header = HEADER.replace("ext(x) ^ 3", "ext(x) + ext(x + 1) * ext(x - 1)")
    old, new = _object(gcc, HEADER), _object(gcc, header)
    changes = _explained(old, new, True)
    expected = [("inner() from x.h:2", "inner() from x.h:2", "inlined inner() from x.h:2 differs in the source")]
    assert _inlined(changes["user"]) == expected == _inlined(changes["both"])


def test_an_inlined_function_that_is_the_same_is_not_named(gcc: Compiler) -> None:
    old, new = _object(gcc, HEADER), _object(gcc, HEADER, SOURCE.replace("ext(x) * 7", "ext(x) * 9"))
    for sources in (True, False):
        changes = _explained(old, new, sources)
        assert set(changes) == {"neither"} and _inlined(changes["neither"]) == []


def test_a_static_function_without_code_of_its_own(gcc: Compiler) -> None:
    old = _object(gcc, HEADER)
    new = _object(gcc, HEADER, SOURCE.replace("^ 5", "^ 6"))
    changes = _explained(old, new)
    assert set(changes) == {"caller"}
    ((_, is_, text),) = _inlined(changes["caller"])
    assert is_ == "alone() from unit.c:14" and text == f"in inlined {is_}"


def test_explainer_collects_where_they_went(gcc: Compiler) -> None:
    old, new = _object(gcc, HEADER), _object(gcc, HEADER.replace("^ 3", "^ 4"))
    report = compare(ObjectBuild(str(old)), ObjectBuild(str(new)), explain=False)
    explainer = Explainer(ObjectView(str(old)), ObjectView(str(new)))
    for change in map(explainer.explain, report.objects[0].changes):
        found = explainer.inlined_into(change, "inner")
        assert found is not None and found[0].name == "inner" and found[1]
        assert explainer.inlined_into(change, "made") is None
    assert {_short(name): symbols for name, symbols in explainer.inlined.items()} == {
        "inner() from x.h:2": ["both", "user"]
    }


def test_debug_information_is_read_for_the_first_changes_only(gcc: Compiler, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = _object(gcc, HEADER), _object(gcc, HEADER.replace("^ 3", "^ 4"))
    monkeypatch.setattr(kbuild_klp.explain.explainer, "_MOST_INLINED", 1)
    changes = _explained(old, new)
    assert sorted(bool(_inlined(change)) for change in changes.values()) == [False, True]


def test_no_debug_information_on_one_side(gcc: Compiler) -> None:
    old, new = _object(gcc, HEADER), _object(gcc, HEADER.replace("^ 3", "^ 4"), SOURCE, "-g0")
    ((was, is_, _),) = _inlined(_explained(old, new)["user"])
    assert was.startswith("inner()") and is_ == ""


def test_diff_finds_the_sources_of_a_tree_by_itself(gcc: Compiler) -> None:
    """No tree here: it asks, gets none, and goes by the instructions."""
    old, new = _object(gcc, HEADER), _object(gcc, HEADER.replace("^ 3", "^ 4"))
    builds = ObjectBuild(str(old)), ObjectBuild(str(new))
    changes = compare(*builds).objects[0].changes
    assert all(_inlined(change) for change in changes)


@pytest.mark.parametrize(
    ("name", "line", "text"),
    [
        ("inner", 2, "static inline int inner(int x)\n{\n\treturn ext(x) ^ 3;\n}"),
        ("made", 13, None),
        ("MAKE", 13, None),
        ("inner", 3, None),
        ("inner", 0, None),
        ("inner", 99, None),
        ("ext", 1, "int ext(int);\nstatic inline int inner(int x)\n{\n\treturn ext(x) ^ 3;\n}"),
    ],
)
def test_text_of_a_function(name: str, line: int, text: str | None) -> None:
    assert function_text(HEADER.split("\n"), name, line) == text


def test_text_of_a_function_in_one_line() -> None:
    assert function_text(["", "int f(void) { return 1; }", "}"], "f", 2) == "int f(void) { return 1; }"
