# SPDX-License-Identifier: GPL-2.0-only
"""Objects without local symbols, as vendors ship them: what is left of a static function is found and named."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from snippets import Changes, Compiler, changed, changes_of, diff_objects

from kbuild_klp.builds.single_object import ObjectBuild
from kbuild_klp.compare.passes import compare

STRIPS = ("strip --strip-unneeded", "objcopy --discard-all")

STATICS = """
int use(int);
{quiet} int early(int a) {{ {early} return use(a) + 1; }}
static {quiet} int one(int a) {{ return use(a) + use(a + 1) + {one}; }}
{extra}
static {quiet} int two(int a) {{ return one(a) * 3 + use(a + 5) + {two}; }}
int first(int a) {{ return one(a) + {first}; }}
int last(int a) {{ return two(a) * 3 + 5; }}
"""
PLAIN = {"quiet": "__attribute__((noinline))", "early": "", "one": 1000, "two": 2000, "first": 1, "extra": ""}
NEW = "static __attribute__((noinline)) int new(int a) { return use(a) ^ use(a + 9); }"


def _stripped(gcc: Compiler, command: str, *flags: str, **values: object) -> Path:
    path = gcc.object(STATICS.format(**{**PLAIN, **values}), *flags)
    subprocess.run([*command.split(), str(path)], check=True)
    return path


@pytest.fixture(params=STRIPS)
def strip(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _only(gcc: Compiler, strip: str, *flags: str, **values: object) -> list[tuple[str, str, str]]:
    """Return the one change of a function without a name: section, kind of change, first reason."""
    old, new = _stripped(gcc, strip, *flags), _stripped(gcc, strip, *flags, **values)
    report = compare(ObjectBuild(str(old)), ObjectBuild(str(new)))
    assert not report.warnings and not report.failed
    return [
        (change.symbol.partition("+")[0], change.change.value, change.reasons[0])
        for group in report.objects
        for change in group.changes
    ]


@pytest.mark.parametrize("flags", [(), ("-ffunction-sections",), ("-Os",), ("-fasynchronous-unwind-tables",)])
@pytest.mark.parametrize("which", ["one", "two"])
def test_change_of_a_static_function_is_that_of_one_piece(
    gcc: Compiler, strip: str, which: str, flags: tuple[str, ...]
) -> None:
    [(section, change, reason)] = _only(gcc, strip, *flags, **{which: 1004})
    assert section.startswith(".text") and change == "changed"
    assert "0x3ec" in reason


def test_nothing_else_changes_when_a_neighbour_grows(gcc: Compiler, strip: str) -> None:
    old = _stripped(gcc, strip)
    new = _stripped(gcc, strip, early="if (a > 9) return use(a * 7) - use(a); ")
    assert diff_objects(old, new) == changed("early")


def test_global_function_is_changed_alone(gcc: Compiler, strip: str) -> None:
    assert diff_objects(_stripped(gcc, strip), _stripped(gcc, strip, first=2)) == changed("first")


def test_the_same_is_the_same(gcc: Compiler, strip: str) -> None:
    assert diff_objects(_stripped(gcc, strip), _stripped(gcc, strip)) == set()


def test_static_function_that_comes(gcc: Compiler, strip: str) -> None:
    """It moves its neighbours, and who calls it is changed."""
    old, new = _stripped(gcc, strip), _stripped(gcc, strip, extra=NEW, first="new(a)")
    assert _kinds(changes_of(compare(ObjectBuild(str(old)), ObjectBuild(str(new))))) == [
        (".text+", "added"),
        ("first", "changed"),
    ]
    assert _kinds(changes_of(compare(ObjectBuild(str(new)), ObjectBuild(str(old))))) == [
        (".text+", "removed"),
        ("first", "changed"),
    ]


def test_call_of_another_static_function(gcc: Compiler, strip: str) -> None:
    """Both pieces look alike to names: that they are not the same is seen from what they hold."""
    old = _stripped(gcc, strip)
    new = _stripped(gcc, strip, first="two(a)")
    assert ("first", "function", "changed") in diff_objects(old, new)


def _kinds(changes: Changes) -> list[tuple[str, str]]:
    return sorted((symbol, change) for symbol, _, change in changes)


def test_swap_of_two_static_functions_is_found(gcc: Compiler, strip: str) -> None:
    """`first` calls the other one of two functions that differ in a constant; its own bytes are the same."""
    source = (
        "int use(int); static __attribute__((noinline)) int a(int x) {{ return use(x) + 7; }}"
        "static __attribute__((noinline)) int b(int x) {{ return use(x) + 9; }}"
        "int first(int x) {{ return {}(x) * 3; }} int second(int x) {{ return {}(x) * 5; }}"
        "int third(int x) {{ return a(x) ^ 3; }} int fourth(int x) {{ return b(x) ^ 5; }}"
    )
    paths = []
    for calls in (("a", "b"), ("b", "a")):
        path = gcc.object(source.format(*calls))
        subprocess.run([*strip.split(), str(path)], check=True)
        paths.append(path)
    found = diff_objects(*paths)
    assert found and found <= changed("first", "second", "third", "fourth") | {
        change for change in found if change[0].startswith(".text")
    }


@pytest.mark.parametrize("pads", [False, True])
def test_places_of_ftrace_say_where_functions_begin(gcc: Compiler, pads: bool) -> None:
    """Two static functions that nobody calls directly; the second is known by its entry in __mcount_loc alone."""
    pad = "endbr64\n" if pads else ""
    source = ".text\n.globl named\n.type named, @function\nnamed: ret\n.size named, 1\n" + "".join(
        f".p2align 4\n{pad}.Lsite{number}: call __fentry__\nmov ${{{number}}}, %eax\nret\n"
        f'.section __mcount_loc, "a"\n.quad .Lsite{number}\n.text\n'
        for number in (0, 1)
    )
    paths = [gcc.assembly(source.format(*values)) for values in ((3, 5), (3, 6))]
    [(symbol, kind, change)] = diff_objects(*paths)
    assert (symbol, kind, change) == (".text+", "function", "changed")


def test_assembly_with_static_functions_is_not_stripped(gcc: Compiler) -> None:
    source = ".text\n.type f, @function\nf: mov $1, %eax\nret\n.size f, . - f\nmov ${}, %eax\nret\n"
    [(symbol, kind, _)] = diff_objects(gcc.assembly(source.format(1)), gcc.assembly(source.format(2)))
    assert (symbol, kind) == (".text", "section")


# arch/x86/include/asm/refcount.h, up to 5.4: _REFCOUNT_EXCEPTION
COUNTED = r"""
#define COUNT(operation, place, trap, handler) asm volatile( \
    operation " %0\njs 111f\n.pushsection .text..refcount, \"ax\"\n" \
    "111: lea " place ", %%rcx\n112: " trap "\n.popsection\n113:\n.pushsection __ex_table, \"a\"\n.balign 4\n" \
    ".long 112b - ., 113b - ., " handler " - .\n.popsection" : "+m"(*counter) : : "cc", "rcx")
int f(int *counter) { MORE COUNT("incl", "%0", "ud2", "ex_handler_refcount"); return 3; }
int g(int *counter) { COUNT("decl", "%0", "ud2", "ex_handler_refcount"); return 5; }
"""


@pytest.mark.parametrize(
    ("edit", "names"),
    [
        (("", ""), ()),
        (("MORE", "if (*counter > 9) return 7;"), "f"),
        (('"incl", "%0"', '"incl", "4%0"'), "f"),
        (('"decl", "%0"', '"decl", "4%0"'), "g"),
        (('"%0", "ud2"', '"%0", ".byte 0x0f, 0xff"'), "fg"),
        (('refcount"); return 5', 'other"); return 5'), "g"),
        (("return 5", "return 6"), "g"),
    ],
)
def test_code_of_reference_counts_is_its_functions(
    gcc: Compiler, strip: str, edit: tuple[str, str], names: str
) -> None:
    """Each function has a piece of .text..refcount, and jumps into it."""
    paths = []
    for source in (COUNTED, COUNTED.replace(*edit)):
        path = gcc.object(source, "-DMORE=")
        subprocess.run([*strip.split(), str(path)], check=True)
        paths.append(path)
    assert diff_objects(*paths) == diff_objects(*reversed(paths)) == changed(*names)


INITCALLS = """
int use(int);
int __attribute__((section(".init.text"))) one(void) { return use(1); }
int __attribute__((section(".init.text"))) two(void) { return use(2); }
#define INITCALL(number, line, f) \\
	static int (*__initcall__kmod_m__##number##_##line##_##f##6)(void) \\
		__attribute__((used, section(".initcall6.init"))) = f
INITCALL(10, 20, one);
INITCALL(11, 21, two);
"""


@pytest.mark.parametrize(
    ("edit", "names"),
    [
        (("(11, 21", "(13, 29"), set()),
        (("use(2)", "use(3)"), {"two"}),
        (("INITCALL(11, 21, two);", ""), {"two", ".initcall6.init"}),
        (("20, one", "20, tmp"), {"one", "two", ".initcall6.init"}),  # and two instead of one: the other order
    ],
)
def test_initcalls_without_their_names(gcc: Compiler, strip: str, edit: tuple[str, str], names: set[str]) -> None:
    """What a table of initcalls says is known without the names of its entries: no warning."""
    new = INITCALLS.replace(*edit)
    if "tmp" in new:
        new = new.replace("21, two", "21, one").replace("20, tmp", "20, two")
    paths = [gcc.object(text) for text in (INITCALLS, new)]
    for path in paths:
        subprocess.run([*strip.split(), str(path)], check=True)
    found = {symbol for symbol, _, _ in diff_objects(*paths)}
    assert found <= names and bool(found) == bool(names)
