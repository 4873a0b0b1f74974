# SPDX-License-Identifier: GPL-2.0-only
"""Which functions can be replaced: those that ftrace can take over, that are found by name, and that run again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from linked_kernel import Kernels

TRACED = ("-pg", "-mfentry", "-mrecord-mcount")

GOOD = "int foo(int x) { return x + %d; }\n"
NOT_TRACEABLE = "not traceable: no fentry "


def pair(source: str) -> tuple[str, str]:
    """Return a source with one number in it, in two versions."""
    return source % 1, source % 2


def test_an_ordinary_function(kernels: Kernels) -> None:
    assert kernels.of(*pair(GOOD)) == {"foo": []}


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("__attribute__((no_instrument_function)) " + GOOD, "(notrace)"),
        # no_instrument_function is part of the kernel's noinstr
        ('__attribute__((section(".noinstr.text"), no_instrument_function)) ' + GOOD, "(in .noinstr.text)"),
    ],
    ids=["notrace", "noinstr"],
)
def test_a_function_that_is_not_traced(kernels: Kernels, source: str, reason: str) -> None:
    other = "int other(int x) { return x; }\n"  # is, in the same object
    assert kernels.of(*pair(source + other)) == {"foo": [NOT_TRACEABLE + reason]}


def test_padding_says_nothing_of_tracing(kernels: Kernels) -> None:
    """x86 puts every function into __patchable_function_entries, notrace or not (CONFIG_CALL_PADDING)."""
    source = GOOD + "__attribute__((no_instrument_function)) int bar(int x) { return x * 5 + %d; }"
    verdicts = kernels.of(source % (1, 1), source % (2, 2), "-fpatchable-function-entry=16,16")
    assert verdicts == {"foo": [], "bar": [NOT_TRACEABLE + "(notrace)"]}


def test_an_object_without_tracing(kernels: Kernels) -> None:
    old, new = pair(GOOD)
    kernels.build({"lib/unit.o": old}, {"lib/unit.o": new}, flags=("-O2",))
    assert kernels.verdicts() == {"foo": [NOT_TRACEABLE + "(its object is compiled without)"]}


def test_assembly(kernels: Kernels) -> None:
    source = "#asm\n.globl foo\n.type foo, @function\nfoo: mov $%d, %%eax\nret\n.size foo, . - foo\n"
    assert kernels.of(*pair(source)) == {"foo": [NOT_TRACEABLE + "(assembly)"]}


@pytest.mark.parametrize("flags", [(), ("-fcf-protection=branch",)], ids=["plain", "endbr64"])
def test_a_call_of_fentry_that_objtool_has_yet_to_list(kernels: Kernels, flags: tuple[str, ...]) -> None:
    """Clang lists nothing; under LTO and IBT objtool does when vmlinux is linked."""
    source = GOOD + "__attribute__((no_instrument_function)) int bar(int x) { return x * 5 + %d; }"
    old, new = source % (1, 1), source % (2, 2)
    kernels.build({"kernel/unit.o": old}, {"kernel/unit.o": new}, flags=("-pg", "-mfentry", *flags))
    assert kernels.verdicts() == {"foo": [], "bar": [NOT_TRACEABLE + "(notrace)"]}


def test_the_address_of_fentry_is_no_call(kernels: Kernels) -> None:
    """MCOUNT_ADDR in the kernel's own ftrace code."""
    source = "void __fentry__(void); void *foo(int x) { return x == %d ? __fentry__ : 0; }"
    kernels.build({"kernel/unit.o": source % 1}, {"kernel/unit.o": source % 2}, flags=("-O2",))
    assert kernels.verdicts() == {"foo": [NOT_TRACEABLE + "(its object is compiled without)"]}


def test_it_is_the_old_function_that_must_be_traced(kernels: Kernels) -> None:
    notrace = "__attribute__((no_instrument_function)) int foo(int x) { return x; }"
    traced = "int foo(int x) { return x; }"
    assert kernels.of(traced, notrace) == {"foo": []}


def test_and_not_the_new_one(kernels: Kernels) -> None:
    notrace = "int bar; __attribute__((no_instrument_function)) int foo(int x) { return x; }"
    assert kernels.of(notrace, "int bar; int foo(int x) { return x; }") == {
        "foo": [NOT_TRACEABLE + "(its object is compiled without)"]
    }


def test_a_new_function_needs_nothing(kernels: Kernels) -> None:
    new = '__attribute__((section(".noinstr.text"), no_instrument_function)) int bar(int x) { return x; }'
    assert kernels.of("int a;", "int a;" + new) == {"bar": []}


@pytest.mark.parametrize("keep", ["foo", "bar"])
def test_a_function_that_the_kernel_itself_does_not_list(kernels: Kernels, keep: str) -> None:
    """scripts/sorttable.c drops places from the list, of weak functions and by mistake."""
    kernels.build({"fs/foo.o": GOOD % 1, "fs/bar.o": GOOD.replace("foo", "bar") % 1}, {"fs/foo.o": GOOD % 2})
    places = f"__start_mcount_loc = .; fs/{keep}.o(__mcount_loc) __stop_mcount_loc = .;"
    kernels.old.write("script", f"SECTIONS {{ . = 0x1000000; .text : {{ *(.text) }} .init.data : {{ {places} }} }}")
    kernels.old.run("ld", "-T", "script", "-o", "vmlinux", "--unresolved-symbols=ignore-all", *kernels.old.builtin)
    reasons = ["not traceable: not in vmlinux's list of what is"]
    assert kernels.verdicts() == {"foo": [] if keep == "foo" else reasons}


def test_a_cold_part_is_taken_over_with_its_function(kernels: Kernels) -> None:
    source = "void panic(int) __attribute__((cold, noreturn)); int foo(int x) { if (x > 5) panic(%d); return x; }"
    assert kernels.of(*pair(source)) == {"foo": []}


# -- init and exit ----------------------------------------------------------------------------------------------------

INIT = '__attribute__((section("%s"))) int foo(int x) { return x + %d; } int other;'


@pytest.mark.parametrize("section", [".init.text", ".exit.text", ".meminit.text", ".init.text.foo"])
def test_init_and_exit_code(kernels: Kernels, section: str) -> None:
    reason = [f"init or exit code: in {section}"]
    assert kernels.of(INIT % (section, 1), INIT % (section, 2)) == {"foo": reason}


@pytest.mark.parametrize("section", [".text.unlikely", ".initial", ".sched.text", ".text.init_later", ".init_array"])
def test_what_only_looks_like_it(kernels: Kernels, section: str) -> None:
    assert kernels.of(INIT % (section, 1), INIT % (section, 2)) == {"foo": []}


@pytest.mark.parametrize("change", ["added", "removed"])
def test_init_code_that_came_or_went(kernels: Kernels, change: str) -> None:
    sources = ["int other;", INIT % (".init.text", 1)]
    if change == "removed":
        sources.reverse()
    assert kernels.of(*sources) == {"foo": ["init or exit code: in .init.text"]}


def test_a_function_that_stops_being_init_code(kernels: Kernels) -> None:
    """Its body is the same, but the running kernel has freed it: who calls it now would call into nowhere."""
    assert kernels.of(INIT % (".init.text", 1), INIT % (".text", 1)) == {"foo": ["init or exit code: in .init.text"]}


@pytest.mark.parametrize("section", [".init.text", ".text.unlikely"])
def test_the_same_function_elsewhere_needs_nothing(kernels: Kernels, section: str) -> None:
    assert kernels.of(INIT % (".text", 1), INIT % (section, 1)) == {"foo": []}


# -- what needs no patch ----------------------------------------------------------------------------------------------


def test_a_symbol_that_others_may_use_now(kernels: Kernels) -> None:
    source = "__attribute__((noinline, no_instrument_function)) %s int foo(int x) { return x; } void *p = foo;"
    assert kernels.of(source % "static", source % "") == {"foo": []}


def test_lines_only(kernels: Kernels) -> None:
    bug = (
        'asm volatile("1: ud2\\n.pushsection __bug_table,\\"aw\\"\\n.long 1b - ., %c0 - .\\n.word %c1, 0\\n.popsection"'
    )
    notrace = "__attribute__((no_instrument_function))"
    source = f'{notrace} void foo(void) {{ {bug} :: "i"("f.c"), "i"(__LINE__)); }}'
    assert kernels.of("\n" + source, "\n\n\n" + source) == {"foo": []}


# -- the old function has to be found by name ------------------------------------------------------------------------

STATIC = """static __attribute__((noinline)) int init_once(int x) { return x * %d + 3; }
    int %s(int x) { return init_once(x); }"""


def three_of_a_name(kernels: Kernels, place: str) -> None:
    """Three functions of one name and size, two of them from sources of one name."""
    names = {f"{place}/a/core.o": (105, "a"), f"{place}/b/core.o": (106, "b"), f"{place}/c/misc.o": (107, "c")}
    old = {name: STATIC % values for name, values in names.items()}
    kernels.build(old, {f"{place}/b/core.o": STATIC % (99, "b")})


def test_sympos_in_vmlinux(kernels: Kernels) -> None:
    three_of_a_name(kernels, "fs")
    assert kernels.verdicts() == {"init_once": ["(sympos 2 of 3 in vmlinux)"]}


def test_sympos_in_vmlinux_is_by_address(kernels: Kernels) -> None:
    three_of_a_name(kernels, "fs")
    # The same order of objects, and of symbols; but the linker script puts the last one first, as it does with
    # .text.unlikely and others.
    kernels.old.run("objcopy", "--rename-section", ".text=.text.first", "fs/c/misc.o")
    kernels.new.run("objcopy", "--rename-section", ".text=.text.first", "fs/c/misc.o")
    script = "SECTIONS { . = 0x1000000; .text : { *(.text.first) *(.text) } }"
    kernels.old.write("script", script)
    kernels.old.run("ld", "-T", "script", "-o", "vmlinux", "--unresolved-symbols=ignore-all", *kernels.old.builtin)
    assert kernels.verdicts()["init_once"] == ["(sympos 3 of 3 in vmlinux)"]


def test_sympos_in_a_module(kernels: Kernels) -> None:
    three_of_a_name(kernels, "drivers")
    assert kernels.verdicts() == {"init_once": ["(sympos 2 of 3 in mod)"]}


def test_sympos_in_a_module_is_not_by_address(kernels: Kernels) -> None:
    """A module's sections have no addresses before it is loaded."""
    source = STATIC.replace("static", 'static __attribute__((section(".text.unlikely")))', 1)
    old = {"drivers/a.o": 'asm(".text; .skip 64, 0x90"); ' + STATIC % (105, "a"), "drivers/b.o": source % (106, "b")}
    kernels.build(old, {"drivers/b.o": source % (99, "b")})
    assert kernels.verdicts() == {"init_once": ["(sympos 2 of 2 in mod)"]}


@pytest.mark.parametrize("number", [1, 2])
def test_sympos_counts_variables(kernels: Kernels, number: int) -> None:
    """CONFIG_LIVEPATCH needs CONFIG_KALLSYMS_ALL."""
    old = {"fs/a.o": "static int foo = 1; int a(void) { return foo++; }", "fs/b.o": GOOD % 1}
    kernels.build(old, {"fs/b.o": GOOD % 2})
    order = ("data", "text") if number == 2 else ("text", "data")
    script = "".join(f".{name} : {{ *(.{name}) }} " for name in order)
    kernels.old.write("script", f"SECTIONS {{ . = 0x1000000; {script} }}")
    kernels.old.run("ld", "-T", "script", "-o", "vmlinux", "--unresolved-symbols=ignore-all", *kernels.old.builtin)
    assert kernels.verdicts() == {"foo": [f"(sympos {number} of 2 in vmlinux)"]}


def test_a_name_of_its_own_needs_no_sympos(kernels: Kernels) -> None:
    source = STATIC.replace("init_once", "own_name")
    assert kernels.of(source % (5, "a"), source % (6, "a")) == {"own_name": []}


def test_two_that_cannot_be_told_apart(kernels: Kernels) -> None:
    """One of them is in an object that no list names: the number of files and that of objects differ."""
    three_of_a_name(kernels, "fs")
    link = ["ld", "-o", "vmlinux", "-e", "0", "--unresolved-symbols=ignore-all", *kernels.old.builtin, "fs/d/core.o"]
    kernels.old.build("fs/d/core.o", STATIC % (108, "d"), *TRACED)
    kernels.old.run(*link)
    assert kernels.verdicts() == {"init_once": ["(sympos unknown of 4 in vmlinux)"]}


def test_two_that_are_told_apart_by_their_size(kernels: Kernels) -> None:
    three_of_a_name(kernels, "fs")
    for name, number in (("fs/a/core.o", 3), ("fs/d/core.o", 5)):  # lea instead of imul
        kernels.old.build(name, STATIC % (number, name[3]), *TRACED)
        kernels.new.build(name, STATIC % (number, name[3]), *TRACED)
    kernels.old.run(
        "ld", "-o", "vmlinux", "-e", "0", "--unresolved-symbols=ignore-all", *kernels.old.builtin, "fs/d/core.o"
    )
    assert kernels.verdicts() == {"init_once": ["(sympos 2 of 4 in vmlinux)"]}


def test_no_linked_image(kernels: Kernels) -> None:
    kernels.build({"fs/a.o": GOOD % 1}, {"fs/a.o": GOOD % 2})
    (kernels.root / "old/vmlinux").unlink()
    unchecked = "(not checked: whether its name is unique (no linked image of the old build))"
    assert kernels.verdicts() == {"foo": [unchecked]}


def test_a_linked_image_that_is_older_than_the_object(kernels: Kernels) -> None:
    kernels.build({"fs/a.o": GOOD % 1}, {"fs/a.o": GOOD % 2})
    kernels.old.age("vmlinux")
    assert [reason.split(":")[0] for reason in kernels.verdicts()["foo"]] == ["(not checked"]


def test_a_broken_linked_image(kernels: Kernels) -> None:
    kernels.build({"fs/a.o": GOOD % 1}, {"fs/a.o": GOOD % 2})
    for content in (b"", b"\x7fELF", (kernels.root / "old/vmlinux").read_bytes()[:3000]):
        (kernels.root / "old/vmlinux").write_bytes(content)
        assert [reason.split(":")[0] for reason in kernels.verdicts()["foo"]] == ["(not checked"]


def test_a_weak_function_of_which_another_is_linked(kernels: Kernels) -> None:
    """The livepatch would put the new fallback in place of the function that the kernel uses."""
    weak = "__attribute__((weak)) int arch_setup(int x) { return x * %d; }"
    strong = {"arch/setup.o": "int arch_setup(int x) { return -1; }"}
    kernels.build({"init/main.o": weak % 3, **strong}, {"init/main.o": weak % 5})
    assert kernels.verdicts() == {"arch_setup": ["no symbol: vmlinux has another definition of it"]}


def test_a_weak_function_that_is_linked(kernels: Kernels) -> None:
    weak = "__attribute__((weak)) int arch_setup(int x) { return x * %d; }"
    assert kernels.of(*pair(weak.replace("%d", "1%d"))) == {"arch_setup": []}


def test_a_function_that_was_not_linked(kernels: Kernels) -> None:
    kernels.build({"fs/a.o": GOOD % 1}, {"fs/a.o": GOOD % 2})
    kernels.old.run("strip", "-N", "foo", "-o", "stripped", "vmlinux")
    kernels.old.run("mv", "stripped", "vmlinux")
    assert kernels.verdicts() == {"foo": ["no symbol: vmlinux has none of that name"]}


def test_a_clone_is_found_by_its_old_name(kernels: Kernels) -> None:
    """foo.constprop.0 became foo.isra.0, and the running kernel has the former."""
    source = """static __attribute__((noinline)) int foo(int *x, int y) { return *x * y + %d; }
        int bar(int *x, int y) { return foo(x, %s); }"""
    changes = kernels.of(source % (1, "7"), source % (2, "y"))
    assert "foo.constprop.0" in kernels.old.run("nm", "vmlinux") and "foo.constprop" not in kernels.new.run(
        "nm", "vmlinux"
    )
    assert len(changes) == 2 and not any(changes.values())


_THREAD = """
struct task;
struct task *kthread_create_on_node(int (*)(void *), void *, int, const char *), *other(int (*)(void *), void *);
int kthread_should_stop(void), done(int);
static int runs(void *data) { while (!kthread_should_stop()) done(OLD); return 0; }
struct task *begin(void *data) { return kthread_create_on_node(runs, data, -1, "it"); }
"""


@pytest.mark.parametrize(
    ("edit", "is_thread"),
    [
        (("OLD", "OLD"), True),
        (
            (
                "return kthread_create_on_node(runs, data, -1",
                "return kthread_create_on_node(0, (void *)(long)runs(0), -1",
            ),
            False,
        ),
        (('kthread_create_on_node(runs, data, -1, "it")', "other(runs, data)"), False),
    ],
)
def test_a_function_that_threads_run(kernels: Kernels, edit: tuple[str, str], is_thread: bool) -> None:
    assert edit[0] in _THREAD
    source = _THREAD.replace(*edit).replace("static int runs", "static __attribute__((noipa)) int runs")
    note = "(thread: the transition waits until the threads that are in it return from it, maybe for good)"
    found = kernels.of(source.replace("OLD", "1"), source.replace("OLD", "2"))
    assert found == {"runs": [note] if is_thread else []}


_STARTS = """
struct task { int number; };
struct task *kthread_create_on_node(int (*)(void *), void *, int, const char *), *other(int (*)(void *), void *);
int runs(void *), calls(void *), limit(void);
struct task *begin(void *data) { calls(data); return kthread_create_on_node(runs, data, limit() + OLD, "it"); }
"""


NOTE = "(thread: the transition waits until the threads that are in it return from it, maybe for good)"
_KTHREAD = {
    "kernel/kthread.o": "void *kthread_create_on_node(int (*f)(void *), void *d, int n, const char *t) { return f; }"
}


@pytest.mark.parametrize("is_same", [False, True], ids=["differs", "same"])
@pytest.mark.parametrize(
    ("edit", "home", "own", "is_thread"),
    [
        (("OLD", "OLD"), "kernel", "kernel", True),
        (("OLD", "OLD"), "drivers", "drivers", True),
        (("OLD", "OLD"), "drivers", "kernel", False),  # another unit's function of that name
        (("(runs, data,", "(0, runs,"), "kernel", "kernel", True),  # the thread may run what it is given
        (('kthread_create_on_node(runs, data, limit() + OLD, "it")', "other(runs, data) + OLD"), "kernel", "kernel", 0),
        (("(runs, data,", "((other(runs, data), calls), 0,"), "kernel", "kernel", False),
    ],
)
def test_a_thread_that_another_object_starts(
    kernels: Kernels, edit: tuple[str, str], home: str, own: str, is_thread: bool, is_same: bool
) -> None:
    """What it was linked to says so, whether that object differs or not."""
    assert edit[0] in _STARTS
    starts = _STARTS.replace(*edit)
    if is_same:
        starts = starts.replace("OLD", "0")
    function = (
        "int done(int); int runs(void *data) { return done(OLD); } int calls(void *data) { return done(OLD + 5); }"
    )
    sources = {f"{home}/begin.o": starts, f"{own}/unit.o": function}
    old, new = ({name: source.replace("OLD", by) for name, source in sources.items()} for by in "12")
    kernels.build({**old, **_KTHREAD}, new)
    found = {name: texts for name, texts in kernels.verdicts().items() if name == "runs"}
    assert found == {"runs": [NOTE] if is_thread else []}


SLEEPS = """
void __switch_to_asm(void *, void *), work(int);
static __attribute__((no_instrument_function, noipa)) void __schedule(int x) { work(1); __switch_to_asm(0, 0); }
__attribute__((noipa)) void schedule(void) { __schedule(0); work(2); }
void waits(int x) { schedule(); work(3); }
"""


@pytest.mark.parametrize(
    ("edit", "wanted"),
    [
        ("1", {"__schedule": ["(by its callers: it has no fentry (notrace); carried with it: schedule)", NOTE]}),
        ("2", {"schedule": [NOTE]}),
        ("3", {"waits": []}),
    ],
)
def test_what_all_tasks_sleep_in(kernels: Kernels, edit: str, wanted: dict[str, list[str]]) -> None:
    """Who calls schedule() comes back some time, as from anything."""
    assert kernels.of(SLEEPS, SLEEPS.replace(f"work({edit})", "work(9)")) == wanted
