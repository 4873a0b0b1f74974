# SPDX-License-Identifier: GPL-2.0-only
"""`kbuild-klp explain`: whether a livepatch can carry a change, and where line numbers stand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from fake_build import MAIN, FakeBuild, klp
from samples import compile_object

GONE = '__attribute__((noinline)) int gone(int x) { return printk("gone") * x; }\n'
REMOVED = MAIN.replace("int stop", f"{GONE}int stop").replace("- x", "- gone(x)")


def test_verdicts_are_those_of_diff(tmp_path: Path) -> None:
    """Also that of a function that one uses that cannot be replaced, and of one in several units."""
    FakeBuild(tmp_path / "old", REMOVED)
    new = MAIN.replace("limit = 10", "limit = 12").replace("- x", "+ x")
    FakeBuild(tmp_path / "new", new, shared="int shared(int x) { return x * 5; }")
    for side in ("old", "new"):
        (tmp_path / side / "include/config/auto.conf").write_text(
            "CONFIG_X86_64=y\nCONFIG_MODULES=y\nCONFIG_LIVEPATCH=y\n"
        )
    groups = klp("diff", "old", "new", "--json", cwd=tmp_path).json["objects"]
    wanted: dict[tuple[str, str], dict[str, Any]] = {}
    for group in groups:
        for change in group["changes"]:
            known = wanted.setdefault((group["object"], change["symbol"]), change["livepatch"])
            known["reasons"] += [text for text in change["livepatch"]["reasons"] if text not in known["reasons"]]
    document = klp("explain", "old", "new", "--json", cwd=tmp_path).json
    told = {(row["object"], row["symbol"]): row["livepatch"] for row in document["changes"]}
    assert told == wanted
    assert any("still referenced" in text for text in told["init/main.o", "gone"]["reasons"])
    assert told["init/main.o", "limit"]["possible"] is False
    text = klp("explain", "old", "new", "gone", cwd=tmp_path).out
    assert "\n    livepatch: not possible\n      still referenced: by stop" in text


LINES = """\
struct _ddebug {
	const char *modname, *function, *filename, *format; unsigned int lineno : 18, class_id : 6, flags : 8;
	void *key[2];
};
extern void __dynamic_pr_debug(struct _ddebug *, const char *);
void debug(void)
{
	static struct _ddebug __attribute__((aligned(8), section("__dyndbg"))) descriptor =
		{ "mod", "debug", "a.c", "format", __LINE__, 63, 0, { 0, 0 } };
	__dynamic_pr_debug(&descriptor, "format");
}
"""


def test_line_numbers_have_a_place(tmp_path: Path) -> None:
    compile_object(LINES, tmp_path / "old/a.o")
    compile_object(f"/* one more line */\n{LINES}", tmp_path / "new/a.o")
    result = klp("explain", "old/a.o", "new/a.o", "debug", cwd=tmp_path)
    assert result.status == 0
    assert re.search(r"\n  line-only debug\n    line number in __dyndbg for \+0x\w+: a\.c:9 -> 10\n$", result.out)
    (row,) = klp("explain", "old/a.o", "new/a.o", "debug", "--json", cwd=tmp_path).json["changes"]
    (reason,) = row["why"]
    assert reason.pop("at") > 0
    in_record = {"kind": "line", "code": "line-in-record", "section": "__dyndbg", "file": "a.c"}
    assert reason == in_record | {"old": "9", "new": "10"}
    assert row["livepatch"] == {"possible": True, "reasons": []}
