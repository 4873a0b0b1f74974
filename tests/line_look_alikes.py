#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Changes constants in thousands of functions so that they look like lines that moved, and counts what is excused.

    tests/line_look_alikes.py [--pairs N] [--seed N] [--compiler CC]

C files are made up, with calls that are passed file or function and line, bug table entries and constants; then lines
come and go between the functions and in them. A pair is one function of which a constant was made a line of the file
in the old version, and what this line is now in the new one, or moved by as much as the lines around it. It has to be
reported as changed. What has no such constant has to be of lines, as far as it can be known; how often it is not, is
counted too. Exit status 1 if any change was excused. The test suite does the same to some files.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from snippets import Compiler

from kbuild_klp.builds.single_object import ObjectBuild
from kbuild_klp.compare.passes import compare

HEAD = """\
#define BUG_ENTRY asm volatile("1: ud2\\n.pushsection __bug_table,\\"aw\\"\\n.long 1b - ., %c0 - .\\n.word %c1, 3\\n" \\
	".popsection" :: "i"(FILE), "i"(__LINE__))
#define FILE "kernel/unit.c"
void note(const char *, int), complain(const char *, const char *, int, int), report(const char *, int, int, long);
void deep(int, int, long, long, const char *, int, int, int), say(const char *, ...), (*hook)(const char *, int);
int work(int, int), open_it(const char *, int), sized(const char *, long, int);
#define NOTE() note(FILE, __LINE__)
extern int table[];
struct box { int a, b, c; };
"""

# Statements that are of lines: none of them may be taken for a change, or hide one.
LINES = (
    "NOTE();",
    "NOTE();",
    "complain(FILE, __func__, __LINE__, {small});",
    "report(__func__, __LINE__, -{small}, x);",
    "hook(FILE, __LINE__);",
    "BUG_ENTRY;",
    'say("%s:%d: bad\\n", FILE, __LINE__);',
    "if (work(x, -{small})) {{ NOTE(); return x; }}",
    "deep(x, {small}, 3, 4, FILE, __LINE__, {small}, 2);",
)

# Statements with a constant that is none, whatever it looks like.
CONSTANTS = (
    "x += work(x, {c});",
    "x ^= {c};",
    "table[{c}] = x;",
    "*(volatile int *)table = {c};",
    "if (x == {c}) return 1;",
    'x += open_it("/dev/null", {c});',
    'x += sized("unit", x, {c});',
    "complain(FILE, __func__, __LINE__, {c});",
    "report(__func__, __LINE__, {c}, x);",
    "complain(FILE, __func__, x, {c}); NOTE(); complain(FILE, __func__, __LINE__, 3);",
    "deep(x, {c}, 3, 4, FILE, __LINE__, 5, 2);",
    "deep(x, 1, 3, 4, FILE, __LINE__, {c}, 2);",
    'say("%s: %d bytes\\n", __func__, {c});',
    'say("%d of %s:%d\\n", {c}, FILE, __LINE__);',
    'say("%s:%d: %d\\n", FILE, __LINE__, {c});',
    "note(FILE, __LINE__ + (x = {c}) * 0);",
    "NOTE(); return x + {c};",
    "for (int i = 0; i < {c}; i++) x += work(i, x);",
    "x += ((struct box *)table)[{c}].b;",
    "note(FILE, x); x += work({c}, __LINE__ * 0);",
    "note(FILE, -{c});",
    "{{ int y = {c}; note(FILE, __LINE__); work(y, y); }}",
)


class Statement(NamedTuple):
    """One line of a function; ``constant`` says whether {c} in it is what is to be changed."""

    text: str
    constant: bool


class Function(NamedTuple):
    """A function: its lines, whether it is static, and the function that it calls at its end (or empty).

    Compilers put static functions elsewhere than the source does, beside those that call them.
    """

    name: str
    statements: list[Statement]
    is_static: bool
    calls: str


class Case(NamedTuple):
    """Two versions of a file; ``changed`` are the functions with a constant that is another one now."""

    old: str
    new: str
    changed: dict[str, str]
    functions: list[str]


def _functions(choose: random.Random, count: int) -> list[Function]:
    functions = []
    for number in range(count):
        statements = [
            Statement(choose.choice(LINES).format(small=choose.randint(1, 40)), False)
            for _ in range(choose.randint(0, 3))
        ]
        if choose.random() < 0.6:
            statements.insert(choose.randint(0, len(statements)), Statement(choose.choice(CONSTANTS), True))
        called = f"f{choose.randrange(number)}" if number and choose.random() < 0.4 else ""
        functions.append(Function(f"f{number}", statements, choose.random() < 0.35, called))
    return functions


def _gaps(choose: random.Random, functions: list[Function]) -> list[list[int]]:
    """Return how many empty lines stand before each function and each of its statements."""
    return [
        [choose.choice((1, 1, 2, 3, 8)), *(int(choose.random() < 0.2) for _ in function.statements)]
        for function in functions
    ]


def _edited(choose: random.Random, gaps: list[list[int]]) -> list[list[int]]:
    """Return other gaps: some edits, of which some take away lines again."""
    found = [list(own) for own in gaps]
    found[0][0] += choose.choice((0, 1, 2, 5))
    for own in found:
        for at in range(len(own)):
            if choose.random() < (0.12 if at == 0 else 0.02):
                own[at] = max(0, own[at] + choose.choice((-2, -1, 1, 2, 3)))
    return found


def _lines(gaps: list[list[int]]) -> list[list[int]]:
    """Return the line on which each statement stands; a function's first line and its brace come before."""
    line, found = HEAD.count("\n") + 1, []
    for own in gaps:
        line += own[0] + 2
        lines = []
        for gap in own[1:]:
            line += gap
            lines.append(line)
            line += 1
        found.append(lines)
        line += 2
    return found


def _text(functions: list[Function], gaps: list[list[int]], constants: dict[str, int]) -> str:
    out = [HEAD]
    for function, own in zip(functions, gaps, strict=True):
        linkage = "static __attribute__((noinline, used)) " if function.is_static else ""
        out.append("\n" * own[0] + f"{linkage}int {function.name}(int x)\n{{\n")
        for statement, gap in zip(function.statements, own[1:], strict=True):
            constant = constants.get(function.name, 0)
            out.append(
                "\n" * gap + (statement.text.format(c=constant) if statement.constant else statement.text) + "\n"
            )
        # The store keeps compilers from leaving out what only changes an argument that the function called ignores.
        out.append(f"*(volatile int *)table = x; return {function.calls or ''}(x);\n}}\n")
    return "".join(out)


def make(choose: random.Random, count: int) -> Case:
    """Make up a file of ``count`` functions and what became of it."""
    functions = _functions(choose, count)
    gaps = _gaps(choose, functions)
    edited = _edited(choose, gaps)
    before, after = _lines(gaps), _lines(edited)
    moves = [pair for x, y in zip(before, after, strict=True) for pair in zip(x, y, strict=True)]
    old, new, changed = {}, {}, {}
    for at, function in enumerate(functions):
        own = [place for place, statement in enumerate(function.statements) if statement.constant]
        if not own:
            continue
        was, is_ = (lines[at][own[0]] for lines in (before, after))
        way = choose.randrange(4)
        if way == 1 or was == is_:
            was, is_ = choose.choice(moves)
        if way == 2:
            other = choose.choice((-2, -1, 1, 2, 20))
            was, is_ = max(was + other, 1), max(is_ + other, 1)
        if way == 3:
            start = choose.randint(1, 60)
            was, is_ = start, max(start + is_ - was, 1)
        old[function.name], new[function.name] = was, is_
        if was != is_:
            changed[function.name] = function.statements[own[0]].text
    names = [function.name for function in functions]
    return Case(_text(functions, gaps, old), _text(functions, edited, new), changed, names)


class Outcome(NamedTuple):
    """What was said of one file: the changes that were excused, and how many there were of each kind."""

    excused: list[tuple[str, str]]
    counts: Counter[str]


def judge(case: Case, compiler: Compiler, *flags: str) -> Outcome:
    """Compile and compare both versions, without sources."""
    objects = [compiler.object(text, *flags) for text in (case.old, case.new)]
    for path in objects:
        (path.parent / "unit.c").unlink()
    report = compare(ObjectBuild(str(objects[0])), ObjectBuild(str(objects[1])), 1)
    assert not report.failed and not report.warnings, (report.failed, report.warnings)
    said = {
        change.symbol: change.change.value
        for group in report.objects
        for change in group.changes
        if change.kind == "function"
    }
    # A constant may be in what GCC split off: f5.part.0.
    reported = {name.partition(".")[0] for name, what in said.items() if what == "changed"}
    excused = [(name, text) for name, text in case.changed.items() if name not in reported]
    counts = Counter({"changed": len(case.changed)})
    for name in case.functions:
        if name not in case.changed:
            counts[f"unchanged: {said.get(name, 'the same')}"] += 1
    return Outcome(excused, counts)


FLAGS: tuple[tuple[str, ...], ...] = ((), ("-g",), ("-Os",), ("-ffunction-sections",), ("-fno-merge-constants",))


def outcomes(seed: int, pairs: int, count: int, command: str) -> Iterator[tuple[int, Case, Outcome]]:
    """Judge files until there were ``pairs`` changes in them."""
    done = 0
    while done < pairs:
        choose = random.Random(seed)
        case = make(choose, count)
        with tempfile.TemporaryDirectory() as top:
            outcome = judge(case, Compiler(command, Path(top)), *choose.choice(FLAGS))
        yield seed, case, outcome
        done += len(case.changed)
        seed += 1


def main() -> int:
    """Try as many as asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=10_000)
    parser.add_argument("--functions", type=int, default=120, help="in one file")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--compiler", default="gcc")
    options = parser.parse_args()
    total: Counter[str] = Counter()
    excused = 0
    for seed, _, outcome in outcomes(options.seed, options.pairs, options.functions, options.compiler):
        total += outcome.counts
        excused += len(outcome.excused)
        for name, text in outcome.excused:
            print(f"seed {seed}: {name} is excused: {text}")
    for what, count in sorted(total.items()):
        print(f"{count:8} {what}")
    print(f"{excused} of {total['changed']} changes were excused")
    return excused > 0


if __name__ == "__main__":
    sys.exit(main())
