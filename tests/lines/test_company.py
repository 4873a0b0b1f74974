# SPDX-License-Identifier: GPL-2.0-only
"""Numbers in the company of a name that are no lines, though each goes from the line on which it stands to what that
is now; and beside each kind one that is.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from line_trees import CHANGED, INFERRED, Answer, Pairs, answer
from snippets import Compiler

MORE = """
int printed(char *, unsigned long, const char *, ...); void copied(char *, const char *, long);
void entry(const char *, int, void *), record(struct pair), twice(const char *, int, const char *, int);
void told(const char *, int, const char *, ...), boxed(const void *), bytes(const char *, unsigned short);
void level(int, const char *, int), seven(int, int, int, int, int, const char *, int, int); extern char room[];
"""
STRUCT = "struct pair { const char *s; int l; };"

# What a format shows is told by the format; what stands before it has to have a name before it, too.
FORMATS = [
    ('printed(room, NUMBER, "%s", FILE); return x;', CHANGED),
    ('printed(room, NUMBER, "%s", __func__); return x;', CHANGED),
    ('printed(room, NUMBER, "%s:%d", FILE, x); return x;', CHANGED),
    ('printed(room, NUMBER, "in %s", x ? FILE : "none"); return x;', CHANGED),
    ('told("other", NUMBER, "%s", FILE); return x;', CHANGED),
    ('told(FILE, NUMBER, "%s", "other"); return x;', INFERRED),
    ('told(FILE, NUMBER, "%s", __func__); return x;', INFERRED),
    ('told(__func__, NUMBER, "%d bytes", 300); return x;', INFERRED),
    ('printed(room, 64, "%s:%d", FILE, NUMBER); return x;', INFERRED),
    ('printed(room, 64, "%s: %d", FILE, NUMBER); return x;', CHANGED),
    ('printed(room, 64, "%s: %d bytes", FILE, NUMBER); return x;', CHANGED),
    ('say("%d %s", NUMBER, FILE); return x;', CHANGED),
    ('say("%s %d", FILE, NUMBER); return x;', CHANGED),
    ('say("%s=%d", FILE, NUMBER); return x;', CHANGED),
    ('say("%s[%d]", __func__, NUMBER); return x;', CHANGED),
    ('say("line %d size %d %s", __LINE__, NUMBER, FILE); return x;', CHANGED),
    ('say("%s timeout %d line %d", __func__, NUMBER, __LINE__); return x;', CHANGED),
]

# What else goes there in calls about the same file.
ARGUMENTS = [
    ("entry(FILE, NUMBER, room); return x;", INFERRED),
    ("entry(__func__, NUMBER, room); entry(__func__, 0644, 0); return x;", CHANGED),
    ("entry(FILE, 300, 0); entry(FILE, NUMBER, room); return x;", CHANGED),
    ("entry(FILE, 7, 0); entry(FILE, NUMBER, room); entry(FILE, 30000, 0); return x;", CHANGED),
    ("entry(FILE, NUMBER, room); entry(FILE, NUMBER, 0); entry(FILE, 300, 0); return x;", INFERRED),
    ("copied(room, __func__, NUMBER); copied(room, FILE, 8); return x;", CHANGED),
    ("copied(room, __func__, NUMBER); copied(room, FILE, 8); copied(room, FILE, 30000); return x;", CHANGED),
    ("record((struct pair){ FILE, NUMBER }); record((struct pair){ FILE, 2 }); return x;", CHANGED),
    ("record((struct pair){ FILE, NUMBER }); return x;", INFERRED),
]

# Neither an argument nor whole, or the company is another's.
ELSEWHERE = [
    ("complain(FILE, __func__, __LINE__, NUMBER); return x;", CHANGED),
    ("complain(FILE, __func__, NUMBER, __LINE__); return x;", CHANGED),
    ("complain(FILE, __func__, NUMBER, NUMBER); return x;", CHANGED),
    ('twice(FILE, __LINE__, "y", NUMBER); return x;', CHANGED),
    ('twice("y", NUMBER, FILE, __LINE__); return x;', CHANGED),
    ("twice(FILE, NUMBER, FILE, NUMBER); return x;", CHANGED),
    ("level(NUMBER, FILE, __LINE__); return x;", CHANGED),
    ("level(NUMBER, FILE, x); note(FILE, x); return pass(NUMBER, 3);", CHANGED),
    ("struct pair b = { FILE, NUMBER }; boxed(&b); return x;", CHANGED),
    ("seven(1, 2, 3, 4, 5, FILE, NUMBER, __LINE__); return x;", CHANGED),
    ("seven(1, 2, 3, 4, 5, FILE, 2, NUMBER); return x;", CHANGED),
    ('note(x ? FILE : "other", NUMBER); return x;', CHANGED),
    ('note(x ? "a" : "b", NUMBER); return x;', CHANGED),
    ("note(room, NUMBER); return x;", CHANGED),
    ("note(FILE, -NUMBER); return x;", CHANGED),
    ("note(FILE, x); return pass(NUMBER, 2);", CHANGED),
    ("int y = NUMBER; note(FILE, y); return y + x;", CHANGED),
    ('int y = NUMBER; note(FILE, y); if (x) note("other", y); return x;', CHANGED),
    ("bytes(FILE, NUMBER << 8); return x;", CHANGED),
    ("note(FILE + (NUMBER & 7), 3); return x;", CHANGED),
    ("for (int i = 0; i < NUMBER; i++) note(FILE, __LINE__); return x;", CHANGED),
    ("if (x == NUMBER) note(FILE, __LINE__); return x;", CHANGED),
    ("x *= NUMBER; note(FILE, __LINE__); return x;", CHANGED),
    ('asm volatile("# %0 %1" :: "r"(NUMBER), "r"(FILE)); return x;', CHANGED),
    ('asm volatile("# %0" :: "a"(NUMBER)); note(FILE, __LINE__); return x;', CHANGED),
    ("BUG_ENTRY; return pass(x, NUMBER);", CHANGED),
    ('hook(FILE, __LINE__); hook("z", NUMBER); return x;', CHANGED),
]


@pytest.mark.parametrize(("body", "expected"), FORMATS + ARGUMENTS + ELSEWHERE)
@pytest.mark.parametrize("flag", ["-g0", "-Os"])
def test_number_that_looks_like_the_line_it_stands_on(cc: Pairs, body: str, flag: str, expected: Answer) -> None:
    # On the line of f, so that nothing moves.
    body = f"{STRUCT} {MORE.replace(chr(10), ' ')} {body}"
    assert answer(cc, body, 111, 113, flag) == expected


_HALF = """
extern void rests(const char *, int), complains(const char *, const char *, int, int);
extern int work(int);
int f(int x) { rests("kernel/m.c", %d); return work(x); }
int g(int x) { if (work(x) < 0) complains("kernel/m.c", __func__, %d, 12); return x + 1; }
int k(int x) { rests("kernel/m.c", %d); return work(x + 2) * 3; }
"""


@pytest.mark.parametrize(("was", "is_", "others"), [(11, 8, "line-only"), (2, 2, "changed")])
def test_half_of_an_argument_s_numbers(tmp_path: Path, was: int, is_: int, others: str) -> None:
    """A call of which somebody edited the number says nothing of the others; a constant does."""
    found = Compiler("gcc", tmp_path).diff(_HALF % (4, 8, was), _HALF % (6, 10, is_))
    edited = {("k", "function", "changed")} if was != is_ else set()
    assert found == {("f", "function", others), ("g", "function", others), *edited}
