# SPDX-License-Identifier: GPL-2.0-only
"""How a verdict is shown: a sign before the change and a legend, and in the JSON document."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from fake_build import klp
from invented_changes import function_change

from kbuild_klp.changes.classification import ChangeType
from kbuild_klp.changes.verdict import Finding, Obstacle, Verdict
from kbuild_klp.report import json as json_report
from kbuild_klp.report import text
from kbuild_klp.report.model import ObjectChanges, Report

if TYPE_CHECKING:
    from linked_kernel import Kernels

OLD = """
int foo(int x) { return x + 1; }
__attribute__((no_instrument_function)) int bar(int x) { return x + 1; }
__attribute__((section(".init.text"), no_instrument_function)) int setup(int x) { return x + 1; }
int limit = 1;
"""


def test_text_and_json(kernels: Kernels) -> None:
    kernels.build({"fs/a.o": OLD}, {"fs/a.o": OLD.replace("+ 1", "+ 2").replace("= 1", "= 2")})
    done = klp("diff", "old", "new", cwd=kernels.root)
    assert (done.status, done.err) == (1, "")
    assert done.out.splitlines() == [
        "vmlinux",
        "  fs/a.o",
        "  T changed   bar  +0x0: leal 1(%rdi), %eax -> leal 2(%rdi), %eax",
        "    changed   foo  +0x5: leal 1(%rdi), %eax -> leal 2(%rdi), %eax",
        "  I changed   setup  +0x0: leal 1(%rdi), %eax -> leal 2(%rdi), %eax",
        "  D changed   limit (data)  content at +0x0: 01000000 -> 02000000",
        "",
        "  I no livepatch: init or exit code",
        "  T no livepatch: not traceable",
        "  D no livepatch: data",
        "4 changed; 1 of 2 objects",
    ]
    verbose = klp("diff", "-v", "old", "new", cwd=kernels.root).out
    assert "              livepatch: not traceable: no fentry (notrace)\n" in verbose
    changes = klp("diff", "--json", "old", "new", cwd=kernels.root).json["objects"][0]["changes"]
    assert {change["symbol"]: change["livepatch"] for change in changes} == {
        "foo": {"possible": True, "reasons": []},
        "bar": {"possible": False, "reasons": ["not traceable: no fentry (notrace)"]},
        "setup": {"possible": False, "reasons": ["init or exit code: in .init.text"]},
        "limit": {"possible": False, "reasons": ["data: content; a livepatch replaces functions only"]},
    }


def test_a_kernel_without_livepatch(kernels: Kernels) -> None:
    """One line, and no sign at every change."""
    kernels.build({"fs/a.o": OLD}, {"fs/a.o": OLD.replace("+ 1", "+ 2")})
    kernels.old.write("include/config/auto.conf", "CONFIG_X86_64=y\n")
    kernels.new.write("include/config/auto.conf", "CONFIG_X86_64=y\n")
    lines = klp("diff", "old", "new", cwd=kernels.root).out.splitlines()
    assert lines[-2:] == [
        "  no livepatch: the old kernel was built without CONFIG_LIVEPATCH",
        "3 changed; 1 of 2 objects",
    ]
    assert all(line.startswith("    changed ") for line in lines[2:5])


def report_of(*verdicts: tuple[Obstacle, ...], change: ChangeType = ChangeType.CHANGED) -> Report:
    """Return a report with one change for each of the verdicts."""
    changes = []
    for at, obstacles in enumerate(verdicts):
        verdict = Verdict(tuple(Finding(obstacle, f"{obstacle.word}: x") for obstacle in obstacles))
        changes.append(function_change(f"f{at}", change, verdict))
    return Report("old", "new", [ObjectChanges("a.o", "vmlinux", changes)])


def lines_of(report: Report, **style: Any) -> list[str]:
    return text.render(report, text.TextStyle(**style)).splitlines()


def test_without_an_obstacle_there_is_no_legend() -> None:
    assert lines_of(report_of((), ())) == [
        "vmlinux",
        "  a.o",
        "    changed   f0",
        "    changed   f1",
        "",
        "no change in 0 objects",
    ]


@pytest.mark.parametrize("obstacle", Obstacle)
def test_every_obstacle_has_a_sign_and_a_line_of_the_legend(obstacle: Obstacle) -> None:
    lines = lines_of(report_of((obstacle,)))
    # Nothing that forbids, or that the patch has to contain.
    silent = {Obstacle.MOVED, Obstacle.UNCHECKED, Obstacle.STATIC_CALL, Obstacle.PRINTK_INDEX}
    if obstacle in silent:
        assert lines[2:] == ["    changed   f0", "", "no change in 0 objects"]
    elif obstacle is Obstacle.NO_LIVEPATCH:
        assert lines[2:] == ["    changed   f0", "", "  no livepatch: x", "no change in 0 objects"]
    else:
        sign = lines[2][2]
        assert sign.isupper() or sign in "?#"
        assert lines[4].startswith(f"  {sign} ") and ("no livepatch" in lines[4]) == (sign not in "?#POH")
        assert len(lines[4]) <= 80
    assert (
        obstacle.is_note
        == json.loads(json_report.render(report_of((obstacle,))))["objects"][0]["changes"][0]["livepatch"]["possible"]
    )


def test_signs_are_distinct() -> None:
    lines = lines_of(report_of(*((obstacle,) for obstacle in Obstacle)))
    signs = [line[2] for line in lines[2 : 2 + len(Obstacle)] if line[2] != " "]
    assert len(set(signs)) == len(signs) - 1  # who brings others along: constants and functions
    legend = [
        line[2]
        for line in lines
        if line.startswith("  ") and line[3] == " " and line[2] != " " and "change" not in line[:12]
    ]
    assert sorted(legend) == sorted(set(signs))


def test_what_forbids_goes_before_what_is_to_know() -> None:
    lines = lines_of(report_of((Obstacle.SYMPOS, Obstacle.TRACEPOINT, Obstacle.NOT_TRACEABLE), (Obstacle.SYMPOS,)))
    assert [line[2] for line in lines[2:4]] == ["T", "#"]
    assert lines[5:7] == ["  T no livepatch: not traceable", "  # a livepatch needs sympos: the name is not unique"]


def test_colour_is_for_terminals() -> None:
    report = report_of((Obstacle.DATA,), (Obstacle.SYMPOS,))
    plain = "\n".join(lines_of(report))
    painted = "\n".join(lines_of(report, color=True))
    assert "\x1b" not in plain and "\x1b[31mD\x1b[m" in painted and "\x1b[33m#\x1b[m" in painted


def test_lines_that_are_not_listed_need_no_legend() -> None:
    report = report_of((Obstacle.DATA,), change=ChangeType.LINE_ONLY)
    assert "livepatch" not in "\n".join(lines_of(report))
    assert "no livepatch: data" in "\n".join(lines_of(report, lines=True))
