# SPDX-License-Identifier: GPL-2.0-only
"""A function that went away stays in the running kernel: harmless, unless something goes on using it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from linked_kernel import Kernels

HELPER = "static __attribute__((noipa)) int helper(int *x) { return *x * 3; }\n"


def by(*names: str) -> list[str]:
    return [f"still referenced: by {', '.join(names)}"]


def test_nobody_used_it(kernels: Kernels) -> None:
    assert kernels.of("int a; int helper(int x) { return x; }", "int a;") == {"helper": []}


def test_who_used_it_is_replaced(kernels: Kernels) -> None:
    old = HELPER + "int foo(int *x) { return helper(x) + 1; }"
    assert kernels.of(old, "int foo(int *x) { return *x + 1; }") == {"helper": [], "foo": []}


def test_who_used_it_cannot_be_replaced(kernels: Kernels) -> None:
    old = HELPER + "__attribute__((no_instrument_function)) int foo(int *x) { return helper(x) + 1; }"
    new = "__attribute__((no_instrument_function)) int foo(int *x) { return *x + 1; }"
    verdicts = kernels.of(old, new)
    assert verdicts["helper"] == by("foo") and verdicts["foo"][0].startswith("not traceable")


def test_a_table_points_to_it(kernels: Kernels) -> None:
    source = HELPER + "static int second(int *x) { return *x; }\nint (*ops)(int *) = %s; void *used = second;"
    old, new = source % "helper", (source % "second").replace(HELPER, "")
    assert kernels.of(old, new)["helper"] == by("ops")


@pytest.mark.parametrize(
    ("user", "used"),
    [
        ("void foo(void) { take(&ops); }", []),
        ("void foo(void) { take(&ops); } void bar(void) { take(&ops); }", []),  # which comes along
        ('__attribute__((section(".init.text"))) void foo(void) { take(&ops); }', ["ops"]),
    ],
)
def test_a_constant_pointed_to_it(kernels: Kernels, user: str, used: list[str]) -> None:
    """With a new one for all its readers, it is as gone as with a function that called it."""
    table = "struct ops { int (*call)(int *); }; static const struct ops ops = { %s }; void take(const struct ops *);"
    old = HELPER + table % "helper" + user
    new = HELPER.replace("helper", "other") + table % "other" + user
    verdicts = kernels.of(old, new)
    assert verdicts["helper"] == (by(*used) if used else [])
    assert verdicts["ops"][0].startswith("data" if used else "(read-only data")


def test_init_code_registered_it(kernels: Kernels) -> None:
    """A function that was renamed: whoever was given its address at boot has the old one."""
    source = """static int %s(int *x) { return *x; } void add(int (*)(int *));
        __attribute__((section(".init.text"))) void start(void) { add(%s); }"""
    verdicts = kernels.of(source % ("show", "show"), source % ("print", "print"))
    assert verdicts["show"] == by("start") and verdicts["print"] == []


@pytest.mark.parametrize(
    ("section", "name", "used"),
    [
        (".init.text", "kernel/unit.o", []),
        (".init.text", "drivers/unit.o", ["start"]),  # the module may come later
        (".meminit.text", "kernel/unit.o", ["start"]),
    ],
)
def test_init_code_called_it(kernels: Kernels, section: str, name: str, used: list[str]) -> None:
    """That of vmlinux has made its calls, of a function of its own object and of another one."""
    start = f'int far(int *x); __attribute__((section("{section}"))) int start(int *x) {{ return %s; }}'
    other = name.replace("unit", "other")
    old = {name: HELPER + start % "helper(x) + far(x)", other: "int b; int far(int *x) { return *x; }"}
    kernels.build(old, {name: start % "*x", other: "int b;"})
    verdicts = kernels.verdicts()
    assert verdicts["helper"] == verdicts["far"] == (by(*used) if used else [])
    assert verdicts["start"] == [f"init or exit code: in {section}"]


def test_what_init_code_called_uses_another_one(kernels: Kernels) -> None:
    chain = """static __attribute__((noipa)) int one(int *x) { return *x; }
        static __attribute__((noipa)) int two(int *x) { return one(x + 1) + 1; }
        __attribute__((section(".init.text"))) int start(int *x) { return %s(x); }\n"""
    new = 'int a; __attribute__((section(".init.text"))) int start(int *x) { return *x; }'
    verdicts = kernels.of(chain % "two", new)
    assert (verdicts["one"], verdicts["two"]) == ([], [])


def test_a_table_that_went_with_it(kernels: Kernels) -> None:
    source = HELPER + "static int (*const ops[])(int *) = { helper, 0 };\n"
    user = "int foo(int i, int *x) { return ops[i](x); }"
    verdicts = kernels.of(source + user, "int foo(int i, int *x) { return *x; }")
    assert verdicts == {"helper": [], "ops": [], "foo": []}


def test_a_chain_of_what_went(kernels: Kernels) -> None:
    """The last one uses the middle one, which uses the first; and of the last one there is a table."""
    chain = """static __attribute__((noipa)) int one(int *x) { return *x; }
        static __attribute__((noipa)) int two(int *x) { return one(x + 1) + 1; }
        static __attribute__((noipa)) int three(int *x) { return two(x + 1) + 1; }\n"""
    user = "int foo(int *x) { return three(x); }\n"
    rest = "int foo(int *x) { return *x; }\n"
    assert kernels.of(chain + user, rest) == {"one": [], "two": [], "three": [], "foo": []}


def test_a_chain_that_is_still_in_use(kernels: Kernels) -> None:
    chain = """static __attribute__((noipa)) int one(int *x) { return *x; }
        static __attribute__((noipa)) int two(int *x) { return one(x + 1) + 1; }\n"""
    table = "int other(int *x) { return *x; } int (*ops)(int *) = %s;"
    verdicts = kernels.of(chain + table % "two", table % "other")
    assert (verdicts["two"], verdicts["one"]) == (by("ops"), by("two"))


def test_through_a_table_without_a_name(kernels: Kernels) -> None:
    """The compiler's table belongs to the function that uses it, and goes with it."""
    old = """#asm
        .text\n.globl foo\n.type foo, @function\nfoo:%s mov .Ltable(,%%rdi,8), %%rax\nret\n.size foo, . - foo
        .type helper, @function\nhelper: ret\n.size helper, . - helper\n.section .rodata\n.Ltable: .quad %s, 0\n"""
    fentry = '1: call __fentry__\n.pushsection __mcount_loc, "a"\n.quad 1b\n.popsection\n'
    new = (old % (fentry, "0")).replace("helper: ret", "").replace(".type helper, @function\n", "")
    new = new.replace(".size helper, . - helper", "")
    assert kernels.of(old % (fentry, "helper"), new) == {"helper": [], "foo": []}
    old, new = old % ("", "helper"), new.replace(fentry, "")
    (kernels.root / "more").mkdir()
    again = type(kernels)(kernels.root / "more")
    assert again.of(old, new)["helper"] == by("foo")


@pytest.mark.parametrize(("table", "warnings"), [(".table", 1), (".init_array", 0)])
def test_a_table_that_nobody_names(kernels: Kernels, table: str, warnings: int) -> None:
    """Whoever reads it does so by the bounds of its section, be its layout known or not."""
    helper = ".type helper, @function\nhelper: ret\n.size helper, . - helper\n"
    old = f'#asm\n.text\n{helper}.section {table}, "a"\n.quad helper\n'
    kernels.build({"kernel/unit.o": old}, {"kernel/unit.o": "#asm\n.text\nnop\n"})
    assert kernels.verdicts(warnings)["helper"] == by(table)


RECURSIVE = "static __attribute__((noipa)) int helper(int x) { return x ? helper(x - 1) * x : 1; }\n"


def test_itself_is_nobody(kernels: Kernels) -> None:
    old = RECURSIVE + "int foo(int x) { return helper(x); }"
    assert kernels.of(old, "int foo(int x) { return x; }") == {"helper": [], "foo": []}


def test_and_is_not_named(kernels: Kernels) -> None:
    assert kernels.of(RECURSIVE + "void *ops = helper;", "void *ops = 0;")["helper"] == by("ops")


# -- other objects ----------------------------------------------------------------------------------------------------

GLOBAL = "int helper(int *x) { return *x * 3; }\n"
CALLER = "int helper(int *x); int foo(int *x) { return helper(x) + 1; }"
TABLE = "int helper(int *x); int other(int *x); int (*ops)(int *) = %s;"


def test_an_object_whose_caller_is_replaced(kernels: Kernels) -> None:
    old = {"lib/helper.o": "int a;" + GLOBAL, "fs/user.o": CALLER}
    kernels.build(old, {"lib/helper.o": "int a;", "fs/user.o": "int foo(int *x) { return *x + 1; }"})
    assert kernels.verdicts() == {"helper": [], "foo": []}


def test_an_object_whose_table_has_it(kernels: Kernels) -> None:
    old = {"lib/helper.o": "int a;" + GLOBAL, "fs/user.o": TABLE % "helper"}
    kernels.build(old, {"lib/helper.o": "int a;", "fs/user.o": TABLE % "other"})
    assert kernels.verdicts()["helper"] == by("ops")


def test_an_object_that_went_as_a_whole(kernels: Kernels) -> None:
    old = {"lib/helper.o": GLOBAL, "fs/user.o": TABLE % "helper"}
    kernels.build(old, {"fs/user.o": TABLE % "other"})
    kernels.new.link("fs/user.o")
    assert kernels.verdicts()["helper"] == by("ops")


def test_a_static_function_of_that_name_is_another(kernels: Kernels) -> None:
    old = {
        "lib/helper.o": "int a;" + HELPER + "int foo(int *x) { return helper(x); }",
        "fs/user.o": TABLE % "helper",
    }
    new = {"lib/helper.o": "int a; int foo(int *x) { return *x; }", "fs/user.o": TABLE % "other"}
    kernels.build(old, new)
    assert kernels.verdicts()["helper"] == []


def test_it_moved_to_another_object(kernels: Kernels) -> None:
    """Old callers, which did not change, are led to its new version as to that of a changed function."""
    old = {"lib/helper.o": "int a;" + GLOBAL, "lib/more.o": "int b;", "fs/user.o": CALLER}
    kernels.build(old, {"lib/helper.o": "int a;", "lib/more.o": "int b;" + GLOBAL})
    report = kernels.compare()
    verdicts = {(group.object, change.symbol): change.livepatch for group in report.objects for change in group.changes}
    gone, come = verdicts["lib/helper.o", "helper"], verdicts["lib/more.o", "helper"]
    assert (gone.possible, come.possible, come.reasons) == (True, True, ())
    assert [reason.text for reason in gone.reasons] == ["moved to lib/more.o: that is the new version of it"]


def test_it_moved_and_cannot_be_traced(kernels: Kernels) -> None:
    function = GLOBAL.replace("int helper", "__attribute__((no_instrument_function)) int helper", 1)
    old = {"lib/helper.o": "int a;" + function, "lib/more.o": "int b;", "fs/user.o": CALLER}
    kernels.build(old, {"lib/helper.o": "int a;", "lib/more.o": "int b;" + function})
    report = kernels.compare()
    (gone,) = (
        change.livepatch for group in report.objects if group.object == "lib/helper.o" for change in group.changes
    )
    assert not gone.possible


def test_another_function_of_that_name_is_not_its_new_version(kernels: Kernels) -> None:
    """Neither a static one in place of a global one, nor the other way round."""
    static = GLOBAL.replace("int helper", "static int helper", 1) + "void *keep%d = helper;"
    for number, (old, new) in enumerate(((GLOBAL, static % 1), (static % 2, GLOBAL))):
        again = type(kernels)(kernels.root / str(number))
        again.build({"lib/a.o": "int a;" + old, "lib/b.o": "int b;"}, {"lib/a.o": "int a;", "lib/b.o": "int b;" + new})
        assert again.verdicts()["helper"] == []
