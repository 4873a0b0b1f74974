# SPDX-License-Identifier: GPL-2.0-only
"""Flags of WARN_ONCE: variables of one name in many functions and sources of one object, told apart by numbers only.

One that comes or goes is told of the function that has it; all others keep theirs, whatever number that has now.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from snippets import KERNEL_FLAGS, Changes, changes_of

from kbuild_klp.builds.single_object import ObjectBuild
from kbuild_klp.compare.passes import compare

HEAD = """
void warn(void);
int outside(int);
#define WARN_ONCE(condition) ({ static _Bool __attribute__((section("%s"))) %s; int __c = !!(condition); \\
	if (__builtin_expect(__c && !%s, 0)) { %s = 1; warn(); } __c; })
#define ALONE static __attribute__((noinline)) int
#define INLINED static inline __attribute__((always_inline)) int
"""
FLAG = {"new": (".data.once", "__already_done"), "old": (".data.unlikely", "__warned")}
Program = Mapping[str, tuple[str, ...]]
A = (
    "INLINED both(int x) { return WARN_ONCE(x == 5); }",
    "int a1(int x) { if (WARN_ONCE(x == 1)) return 1; return outside(x) + both(x); }",
    "ALONE own(int x) { if (WARN_ONCE(x == 2)) return 2; return outside(x) + 7; }",
    "int a2(int x) { return own(x) + both(x + 1) + 1; }",
)
B = (
    "ALONE own(int x) { if (WARN_ONCE(x == 2)) return 2; return outside(x) + 7; }",
    "int b1(int x) { return own(x) + 2; }",
    "int b2(int x) { if (WARN_ONCE(x == 1)) return 1; if (WARN_ONCE(x == 2)) return 2; return outside(x) + 3; }",
)
C = ("int c1(int x) { return WARN_ONCE(x == 3) ? 4 : outside(x); }",)
BASE: Program = {"1/{0}.c": A, "2/{1}.c": B, "3/{2}.c": C}
FRESH = "int fresh(int x) { return WARN_ONCE(x == 9) ? 4 : outside(x); }"
ONE_MORE = ("{ ", "{ if (WARN_ONCE(x == 70)) return 3; ")


def _with(source: str, at: int, old: str, new: str) -> Program:
    texts = BASE[source]
    assert old in texts[at]
    return {**BASE, source: (*texts[:at], texts[at].replace(old, new, 1), *texts[at + 1 :])}


EDITS: dict[str, tuple[Program, dict[str, str]]] = {
    "same": (BASE, {}),
    "function-first": ({**BASE, "1/{0}.c": (FRESH, *A)}, {"fresh": "added"}),
    "function-last": ({**BASE, "3/{2}.c": (*C, FRESH)}, {"fresh": "added"}),
    "function-between": ({**BASE, "2/{1}.c": (B[0], FRESH, *B[1:])}, {"fresh": "added"}),
    "source-first": ({"0/{0}.c": (FRESH,), **BASE}, {"fresh": "added"}),
    "source-last": ({**BASE, "4/{1}.c": (FRESH,)}, {"fresh": "added"}),
    "source-of-another-name": ({**BASE, "4/z.c": (FRESH,)}, {"fresh": "added"}),
    "sources-in-another-order": ({"3/{2}.c": C, "2/{1}.c": B, "1/{0}.c": A}, {}),
    "flag-in-a1": (_with("1/{0}.c", 1, *ONE_MORE), {"a1": "changed"}),
    "flag-in-own-of-b": (_with("2/{1}.c", 0, *ONE_MORE), {"own": "changed"}),
    "flag-in-b2": (_with("2/{1}.c", 2, *ONE_MORE), {"b2": "changed"}),
    "flag-in-c1": (_with("3/{2}.c", 0, *ONE_MORE), {"c1": "changed"}),
    "no-flag-in-own-of-a": (_with("1/{0}.c", 2, "WARN_ONCE", "!!"), {"own": "changed"}),
    "no-second-flag-in-b2": (_with("2/{1}.c", 2, "WARN_ONCE(x == 2)", "x == 2"), {"b2": "changed"}),
    "functions-in-another-order": ({**BASE, "2/{1}.c": (B[0], B[2], B[1])}, {}),
}


def _linked(directory: Path, program: Program, names: tuple[str, ...], kind: str, flags: tuple[str, ...]) -> Path:
    section, name = FLAG[kind]
    objects = []
    for path, functions in program.items():
        source = directory / path.format(*names)
        source.parent.mkdir(parents=True)
        source.write_text(HEAD % (section, name, name, name) + "\n".join(functions) + "\n")
        objects.append(str(source.with_suffix(".o")))
        subprocess.run(["gcc", *KERNEL_FLAGS, *flags, "-c", "-o", objects[-1], str(source)], check=True)
    result = directory / "linked.o"
    subprocess.run(["ld", "-r", "-o", str(result), *objects], check=True)
    return result


SPLIT = ("-ffunction-sections", "-fdata-sections")
CASES = [
    (("a", "b", "c"), "old", SPLIT),
    (("core", "core", "core"), "new", ()),
    (("core", "core", "b"), "old", ()),
]


def _functions(old: Path, new: Path) -> tuple[Changes, list[str]]:
    """Return what is said of functions, and the reasons that are of who shares what."""
    report = compare(ObjectBuild(str(old)), ObjectBuild(str(new)))
    reasons = [reason for group in report.objects for change in group.changes for reason in change.reasons]
    found = {change for change in changes_of(report) if change[1] == "function"}
    return {(symbol.partition("@")[0], kind, change) for symbol, kind, change in found}, [
        it for it in reasons if "share" in it
    ]


@pytest.mark.parametrize(("names", "kind", "flags"), CASES, ids=lambda value: "-".join(value))
def test_a_flag_belongs_to_its_function(
    tmp_path: Path, names: tuple[str, ...], kind: str, flags: tuple[str, ...]
) -> None:
    old = _linked(tmp_path / "base", BASE, names, kind, flags)
    for edit, (program, want) in EDITS.items():
        new = _linked(tmp_path / edit, program, names, kind, flags)
        expected = {(symbol, "function", change) for symbol, change in want.items()}
        assert _functions(old, new) == (expected, []), edit
        other_way = {(symbol, kind, change.replace("added", "removed")) for symbol, kind, change in expected}
        assert _functions(new, old) == (other_way, []), f"{edit}, the other way"
