# SPDX-License-Identifier: GPL-2.0-only
# ruff: noqa: E101
from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from kbuild_klp.source.macros import MacroIndex, _Condition, line_sites

HEADER = r"""
#define WARN_FLAGS(f) asm volatile("# line %c0" : : "i" (__LINE__), "i" (f))
#define WARN_ON(c) ({ \
	if (c) \
		WARN_FLAGS(1); \
	1; })
#define ONCE WARN_ON(1)
#define IDENTITY(x) x
#define BOTH(x, y) ((void)(x), (void)(y))
#define COUNTED __COUNTER__
#define UNIQUE_ID(p) p ## COUNTED
#define QUOTED "__LINE__"	/* __LINE__ */
#define RAW(n) ({ asm volatile("# line %c0" : : "i" (n)); 1; })
#define LAST(x, n) RAW(n)
#define PASS(x, arguments...) LAST(x, ##arguments)
#define warn_later() WARN_ON(1)
#define MAKE(when) do { warn_##when(); } while (0)
"""

SOURCE = r"""
extern int a;
/* WARN_ON(a) __LINE__ */
void plain(void)
{
	WARN_ON(a);
	WARN_ON(
		a
	);
	ONCE;
	BOTH(
		a,
		WARN_ON(
			a
		)
	);
	BOTH(
		ONCE,
		a
	);
	BOTH(a,
	     BOTH(a,
		  RAW(
			__LINE__
		  )));
	RAW(0 ? 3 :
	    __LINE__); WARN_ON(a); IDENTITY(
		ONCE);
	MAKE(
		later
	);
	BOTH(a, RAW(0 + \
		__LINE__ \
		+ 0));
	PASS(
		a,
		__LINE__
	);
}
const char *text = "WARN_ON(a) __LINE__" QUOTED;
"""


def test_closure(tmp_path: Path) -> None:
    header = tmp_path / "bug.h"
    header.write_text(HEADER)
    assert MacroIndex().line_macros([header, tmp_path / "missing.h"]) == {
        "__LINE__",
        "WARN_FLAGS",
        "WARN_ON",
        "ONCE",
        "warn_later",
        "MAKE",
    }


def test_closure_through_several_files_in_any_order(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a.h", "b.h", "c.h")]
    files[0].write_text("#define TOP() MIDDLE(0)\n")
    files[1].write_text("#  define MIDDLE(x) \\\n\tBOTTOM\n")
    files[2].write_text("#define BOTTOM __LINE__\n")
    index = MacroIndex()
    assert index.line_macros(files) == {"__LINE__", "TOP", "MIDDLE", "BOTTOM"}
    assert index.line_macros(files[:2]) == {"__LINE__"}
    assert index.line_macros(files[::-1]) == MacroIndex().line_macros(files[::-1]) == index.line_macros(files)


def test_configuration_leaves_branches_out(tmp_path: Path) -> None:
    file = tmp_path / "compiler.h"
    file.write_text(
        """
#ifdef CONFIG_PROFILE_ALL_BRANCHES
# define if(x) trace(x, __LINE__)
#elif defined(CONFIG_SMP) && \\
	!defined(X)
# define smp() __LINE__
#else
# define up() __LINE__
#endif
#if IS_ENABLED(CONFIG_TRI) || defined(CONFIG_TRI)
# define tri() __LINE__
#endif
#ifndef CONFIG_SMP
# define not_smp() __LINE__
#endif
#if CONFIG_HZ > 100
# define hz() __LINE__
#endif
"""
    )
    every = {"if", "smp", "up", "tri", "not_smp", "hz", "__LINE__"}
    assert MacroIndex().line_macros([file]) == every
    configured = MacroIndex({"SMP": "y", "TRI": "m", "HZ": "250"})
    assert configured.line_macros([file]) == every - {"if", "not_smp"}
    assert MacroIndex({}).line_macros([file]) == {"up", "not_smp", "hz", "__LINE__"}


@pytest.mark.parametrize(
    ("condition", "truth"),
    [
        ("defined(CONFIG_A)", True),
        ("defined CONFIG_A && !defined(CONFIG_B)", True),
        ("!defined(CONFIG_A) || defined(CONFIG_M_MODULE)", True),
        ("IS_ENABLED(CONFIG_M)", True),
        ("IS_BUILTIN(CONFIG_M)", False),
        ("IS_MODULE(CONFIG_M)", True),
        ("defined(CONFIG_M)", False),
        ("defined(CONFIG_B) && OTHER(1, (2)) == 3", False),
        ("defined(CONFIG_A) && OTHER", None),
        ("defined(CONFIG_A) || OTHER", True),
        ("(defined(CONFIG_B) || OTHER) && defined(CONFIG_B)", False),
        ("CONFIG_A == 2", None),
        ("defined(CONFIG_A) == 0", None),
        ("OTHER", None),
        ("", None),
        ("((defined(CONFIG_A)", None),
        ("defined(CONFIG_A))", None),
        ("!", None),
        ("&& CONFIG_A", None),
    ],
)
def test_condition(condition: str, truth: bool | None) -> None:
    assert _Condition({"A": "y", "M": "m"}).truth(condition) is truth


@pytest.mark.parametrize("compiler", ["gcc", "clang-19"])
def test_line_taken_by_the_compiler_is_one_we_expect(tmp_path: Path, compiler: str) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    (tmp_path / "bug.h").write_text(HEADER)
    (tmp_path / "a.c").write_text('#include "bug.h"\n' + SOURCE)
    assembly = subprocess.run(
        [compiler, "-w", "-O1", "-S", "-o", "-", "a.c"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    taken = {int(line) for line in re.findall(r"# line \$?(\d+)", assembly)}
    macros = MacroIndex().line_macros([tmp_path / "bug.h", tmp_path / "a.c"])
    text = (tmp_path / "a.c").read_text()
    lines = text.split("\n")
    assert len(taken) >= 9
    sites = line_sites(text, macros).keys()
    assert taken <= sites
    # And else only where an invocation begins or ends: not the lines with nothing but arguments.
    silent = {9, 13, 15, 20, 31, 37}
    assert all(re.fullmatch(r"\s*(a,?|later)", lines[line - 1]) for line in silent)
    assert sites == set(range(7, 40)) - silent


def test_what_does_not_count() -> None:
    macros = frozenset({"__LINE__", "WARN_ON"})
    text = [
        "/* WARN_ON(x)",
        "   WARN_ON(y) */ // __LINE__",
        'puts("__LINE__");',
        "#define X WARN_ON(1) \\",
        "	WARN_ON(2)",
        "WARN_ONCE(x);",
        "c = '\"'; WARN_ON(x); /* \" */",
    ]
    assert line_sites("\n".join(text), macros) == {7: 1}
