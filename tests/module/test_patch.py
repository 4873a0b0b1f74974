# SPDX-License-Identifier: GPL-2.0-only
"""The whole way from two builds to a module: small kernels, and what each livepatch must hold."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fake_build import klp

from kbuild_klp.cli import patch as command

if TYPE_CHECKING:
    from module.conftest import PatchedKernels

UNIT, MODULE = "kernel/unit.o", "drivers/unit.o"
SAYS = """
extern int printk(const char *, ...);
extern int exported(int), inner(int), *outer;
static int count;
static __attribute__((noinline)) int own(int x) { count += x; return count; }
int says(int x) { outer = &count; return printk("OLD") + exported(x) + inner(own(x)); }
int other(int x) { return own(x) + inner(x); }
"""
INNER = "int *outer; int exported(int x) { return x + 1; } int inner(int x) { return x + 2; }\n"
OTHERS = {"kernel/inner.o": INNER}


def new(source: str, *changes: tuple[str, str]) -> str:
    for old, now in changes or (("OLD", "NEW"),):
        assert old in source
        source = source.replace(old, now)
    return source


def test_what_is_carried_and_what_stays_the_running_kernel_s(kernels: PatchedKernels) -> None:
    made = kernels.made(SAYS, new(SAYS), **OTHERS)
    assert made.carried == {(UNIT, "says")}
    names = ("count", "own", "inner", "outer")
    assert made.livepatch_symbols == {f".klp.sym.vmlinux.{name},0" for name in names}
    code = [goal for name, goals in made.relocations.items() if "says" in name for goal in goals]
    assert "exported-4" in code and "printk-4" in code, "exports stay plain: modversions checks them"
    assert len(made.relocations[".klp.rela.vmlinux..text.says"]) == 4


def test_functions_of_vmlinux_and_of_a_module_are_one_patch(kernels: PatchedKernels) -> None:
    in_module = SAYS.replace("says", "tells").replace("other", "another")
    kernels.build({UNIT: SAYS, MODULE: in_module, **OTHERS}, {UNIT: new(SAYS), MODULE: new(in_module)})
    kernels.prepare()
    made = kernels.patch()
    assert made.carried == {(UNIT, "says"), (MODULE, "tells")}
    assert made.livepatch_symbols == {
        *(f".klp.sym.vmlinux.{name},0" for name in ("count", "own", "inner", "outer")),
        *(f".klp.sym.mod.{name},0" for name in ("count", "own")),
    }
    # What the module needs of vmlinux is there when the livepatch is loaded, the rest when the module is.
    assert len(made.relocations[".klp.rela.mod..text.tells"]) == 2
    assert len(made.relocations[".klp.rela.vmlinux..text.tells"]) == 2
    assert {it["unit"] for it in made.answer["carried"]} == {"vmlinux", "mod"}


@pytest.mark.parametrize(("changed", "position"), [("kernel/a.o", 1), ("kernel/b.o", 2)])
def test_a_name_that_two_sources_have(kernels: PatchedKernels, changed: str, position: int) -> None:
    """The wrong position would patch, or count in, another function of the name."""
    source = """
    static int count;
    static __attribute__((noinline)) int twin(int x) { count += x; return x + OLD; }
    int user(int x) { return twin(x); }
    """
    sources = {
        name: source.replace("user", f"user_{name[7]}").replace("OLD", "5") for name in ("kernel/a.o", "kernel/b.o")
    }
    kernels.build(sources, {changed: sources[changed].replace("5", "6")})
    kernels.prepare()
    made = kernels.patch()
    assert made.carried == {(changed, "twin")}
    assert made.livepatch_symbols == {f".klp.sym.vmlinux.count,{position}"}
    assert f"{position:016x}" in "".join(made.memory_words(".data")), "old_sympos of struct klp_func"


def test_a_new_global_function_is_the_livepatch_s_own(kernels: PatchedKernels) -> None:
    caller = "extern int helper(int); int user(int x) { return OLD; }\n"
    home = "int stays(int x) { return x; }\n"
    kernels.build(
        {UNIT: caller.replace("OLD", "x"), "kernel/home.o": home},
        {UNIT: caller.replace("OLD", "helper(x) + 1"), "kernel/home.o": home + "int helper(int x) { return x * 3; }\n"},
    )
    kernels.prepare()
    made = kernels.patch()
    assert made.carried == {(UNIT, "user"), ("kernel/home.o", "helper")}
    assert not made.livepatch_symbols


def test_a_module_that_uses_another_module_s_export(kernels: PatchedKernels) -> None:
    """It is looked up in the module that has it, when the patched one comes: that one needs it to be there."""
    source = "extern int far_away(int); int user(int x) { return far_away(x) + OLD; }\n"
    made = kernels.of_module(
        source.replace("OLD", "1"), source.replace("OLD", "2"), "int far_away(int x) { return x; }\n"
    )
    assert made.carried == {(MODULE, "user")}
    assert made.livepatch_symbols == {".klp.sym.far.far_away,0"}
    assert [name for name in made.relocations if name.startswith(".klp")] == [".klp.rela.mod..text.user"]


@pytest.mark.parametrize("other", ["x", "weak_far_away(x)"])
def test_an_export_of_a_module_that_the_old_one_does_not_need(kernels: PatchedKernels, other: str) -> None:
    """Nobody says that it is there when the patched module comes, and nobody keeps it while it is called."""
    source = "extern int far_away(int); __attribute__((weak)) extern int weak_far_away(int);\n"
    source += "int user(int x) { return OLD; }\n"
    far = "int far_away(int x) { return x; } int weak_far_away(int x) { return x; }\n"
    made = kernels.of_module(source.replace("OLD", other), source.replace("OLD", "far_away(x)"), far)
    assert made.refused == {("user", "no-dependency")}
    assert "far_away of far, without which the old mod can be loaded" in made.errors


def test_an_export_of_a_module_that_one_needs_that_the_old_one_needs(kernels: PatchedKernels) -> None:
    source = "extern int far_away(int), farther_away(int); int user(int x) { return OLD; }\n"
    old, new = source.replace("OLD", "far_away(x)"), source.replace("OLD", "farther_away(x)")
    far = "extern int farther_away(int); int far_away(int x) { return farther_away(x); }\n"
    made = kernels.of_module(old, new, far, "int farther_away(int x) { return x; }\n")
    assert made.carried == {(MODULE, "user")}
    assert made.livepatch_symbols == {".klp.sym.farther.farther_away,0"}


def test_a_symbol_that_the_old_kernel_does_not_have(kernels: PatchedKernels) -> None:
    source = "extern int nowhere(int); int user(int x) { return OLD; }\n"
    made = kernels.made(source.replace("OLD", "x"), source.replace("OLD", "nowhere(x)"))
    assert made.refused == {("user", "not-in-kernel")}
    assert "no nowhere in vmlinux" in made.errors


WEAK = """
__attribute__((weak, noinline)) int chosen(int x) { asm volatile(""); return x; }
int user(int x) { return chosen(x) + OLD; }
"""
STRONG = "int chosen(int x) { return x + 5; }\n"


def test_a_weak_function_is_what_the_linker_took(kernels: PatchedKernels) -> None:
    made = kernels.made(new(WEAK, ("OLD", "1")), new(WEAK, ("OLD", "2")), **{"kernel/strong.o": STRONG})
    assert made.carried == {(UNIT, "user")}
    assert made.livepatch_symbols == {".klp.sym.vmlinux.chosen,0"}


def test_a_weak_function_that_the_linker_did_not_take_is_not_replaced(kernels: PatchedKernels) -> None:
    changed = new(WEAK, ("return x;", "return x + 1;"))
    made = kernels.made(WEAK.replace("OLD", "1"), changed.replace("OLD", "1"), **{"kernel/strong.o": STRONG})
    assert made.refused == {("chosen", "verdict")}


def test_data_that_differs_is_refused_and_can_be_left_out(kernels: PatchedKernels) -> None:
    source = "int limit = OLD; int user(int x) { return x + limit + OLD; }\n"
    old, now = source.replace("OLD", "1"), source.replace("OLD", "2")
    assert kernels.made(old, now).refused == {("limit", "verdict")}
    assert kernels.patch("--without", "mm/*:lim*").refused == {("limit", "verdict")}
    made = kernels.patch("--without", "kernel/*:lim*")
    assert made.carried == {(UNIT, "user")}
    assert made.answer["left_out"] == ["limit"]


def test_nothing_to_carry_is_status_1(kernels: PatchedKernels) -> None:
    made = kernels.made(SAYS, SAYS)
    assert (made.status, made.answer["module"], made.module.exists()) == (1, None, False)


def test_an_older_module_does_not_outlive_a_run_that_makes_none(kernels: PatchedKernels) -> None:
    (kernels.root / "livepatch-it.ko").write_text("older")
    assert not kernels.made(SAYS, SAYS).module.exists()


def test_neither_tree_is_written_to_and_no_directory_is_left(kernels: PatchedKernels) -> None:
    kernels.build({UNIT: SAYS, **OTHERS}, {UNIT: new(SAYS)})
    kernels.prepare()
    kernels.patch()  # writes the checksums
    kernels.module.unlink()
    before = kernels.everything()
    assert kernels.patch().carried
    kernels.module.unlink()
    assert kernels.everything() == before
    assert not list(kernels.temporary.iterdir())


def test_a_module_of_another_release_is_refused(kernels: PatchedKernels) -> None:
    kernels.build({UNIT: SAYS, **OTHERS}, {UNIT: new(SAYS)})
    kernels.prepare()
    kernels.old.write("include/config/kernel.release", "6.12.0-other\n")
    made = kernels.patch()
    assert made.status == 2 and "6.12.0-other" in made.errors and not made.module.exists()


def test_a_crc_that_differs_is_refused(kernels: PatchedKernels) -> None:
    kernels.build({UNIT: SAYS, **OTHERS}, {UNIT: new(SAYS)})
    kernels.prepare(versions={"exported": 7})
    kernels.write_exports(exported=8)
    made = kernels.patch()
    assert made.status == 2 and "CRC of exported is 0x00000007" in made.errors and not made.module.exists()


@pytest.mark.parametrize(
    "assembly",
    [
        '.section __kcrctab, "a"\n.long 1\n__crc_exported: .long 8\n',  # since 5.18
        ".globl __crc_exported\n__crc_exported = 8\n",
    ],
)
@pytest.mark.parametrize("crc", [7, 8])
def test_a_crc_that_is_not_what_vmlinux_has_is_refused(kernels: PatchedKernels, assembly: str, crc: int) -> None:
    """Module.symvers may be of another build than what runs: then the kernel would not load the module."""
    kernels.build({UNIT: SAYS, **OTHERS, "kernel/crc.o": f"#asm\n{assembly}"}, {UNIT: new(SAYS)})
    kernels.prepare(versions={"exported": crc})
    kernels.write_exports(exported=crc)
    made = kernels.patch()
    if crc == 8:
        assert made.carried
    else:
        message = "CRC of exported is 0x00000007 in the old Module.symvers, in the old vmlinux 0x00000008"
        assert made.status == 2 and message in made.errors and not made.module.exists()
        assert made.errors.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("-o", "it.o"), "ends with .ko"),
        (("-o", "a b.ko"), "cannot be the name of a module"),
        (("--name", "x" * 60), "cannot be the name"),
        (("--name", ""), "livepatch- cannot be the name"),
        (("--name", "it's"), "cannot be the name"),
        (("-o", "other.ko", "--name", "it"), "give -o or --name"),
    ],
)
def test_names_that_no_module_can_have(kernels: PatchedKernels, options: tuple[str, ...], message: str) -> None:
    kernels.build({UNIT: SAYS, **OTHERS}, {UNIT: new(SAYS)})
    kernels.prepare()
    made = kernels.patch(output=options)
    assert made.status == 2 and message in made.errors and made.errors.count("\n") == 1


# -- callbacks --------------------------------------------------------------------------------------------------------

CALLBACK = """
struct klp_object;
static int applied;
static int before(struct klp_object *object) { applied = 1; return 0; }
int (*__klp_pre_patch_callback_vmlinux)(struct klp_object *)
    __attribute__((used, section(".discard.klp_callback_ptrs"))) = before;
"""


def test_a_callback_is_registered_with_its_unit(kernels: PatchedKernels) -> None:
    made = kernels.made(SAYS, new(SAYS) + CALLBACK, **OTHERS)
    assert made.carried == {(UNIT, "says"), (UNIT, "before")}
    whys = {it["symbol"]: it["why"] for it in made.answer["carried"]}
    assert whys["before"] == "callback"
    assert made.relocations[".rela.init.klp_callbacks"] == ["before+0"]
    assert ".discard" not in made.readelf("-S"), "what modules' linker script throws away would be missed"
    assert made.relocations[".rela.init.klp_funcs"] == ["says+0"], "only what takes the place of an old one"


def test_a_callback_alone_is_a_livepatch(kernels: PatchedKernels) -> None:
    made = kernels.made(SAYS, SAYS + CALLBACK, **OTHERS)
    assert made.carried == {(UNIT, "before")}


def test_the_header_names_callbacks_as_the_kernel_s_own(kernels: PatchedKernels) -> None:
    header = klp("patch", "--print-header").out
    assert (Path(command.__file__).parents[1] / "kbuild/livepatch_helpers.h").read_text() == header
    source = new(SAYS) + (
        "#define __used __attribute__((used))\n#define __section(name) __attribute__((section(name)))\n"
        + "\n".join(line for line in header.splitlines() if not line.startswith("#include"))
        + "\nstatic int early(struct klp_object *object) { return 0; }\nKLP_PRE_PATCH_CALLBACK(early);\n"
        + 'static void late(struct klp_object *object) { printk("late"); }\nKLP_POST_UNPATCH_CALLBACK(late);\n'
    )
    made = kernels.made(SAYS, source, **OTHERS)
    assert made.carried == {(UNIT, "says"), (UNIT, "early"), (UNIT, "late")}
    assert made.relocations[".rela.init.klp_callbacks"] == ["early+0", "late+0"]


# -- read-only data ---------------------------------------------------------------------------------------------------


def test_a_table_that_differs_is_carried_with_all_who_read_it(kernels: PatchedKernels) -> None:
    source = """
    static const int table[4] = {1, 2, 3, OLD};
    int first(int x) { return table[x]; }
    int second(int x) { return table[x + 1] * 2; }
    int third(int x) { return x; }
    """
    made = kernels.made(source.replace("OLD", "4"), source.replace("OLD", "5"))
    assert made.carried == {(UNIT, "first"), (UNIT, "second")}
    [table] = [it for it in made.answer["carried"] if it["kind"] == "data"]
    assert (table["symbol"], table["why"]) == ("table", "changed, read-only")
    assert not made.livepatch_symbols, "nobody who is carried reads the old one"


@pytest.mark.parametrize("without", [False, True])
def test_a_reader_that_differs_in_line_numbers_only_comes_along(kernels: PatchedKernels, without: bool) -> None:
    """He would go on reading the old table; who asks for that is left alone."""
    warned = """
    static const int table[4] = {1, 2, 3, OLD};
    int reader(int x) {
        asm volatile(".pushsection __bug_table, \\"aw\\"; 1: .long 2f - 1b, 3f - 1b; .word LINE, 1; .popsection\\n2:"
                     ".pushsection .rodata.str1.1, \\"aMS\\", @progbits, 1; 3: .asciz \\"unit.c\\"; .popsection");
        return table[x];
    }
    """
    sources = [warned.replace("OLD", value).replace("LINE", line) for value, line in (("4", "7"), ("5", "9"))]
    kernels.build({UNIT: sources[0]}, {UNIT: sources[1]})
    kernels.prepare()
    made = kernels.patch(*(["--without", "reader"] if without else []))
    if without:
        assert made.status == 1 and not made.module.exists()
    else:
        assert made.carried == {(UNIT, "reader")}


def test_all_refusals_come_at_once(kernels: PatchedKernels) -> None:
    """Whoever mends one list of them is not to get another."""
    source = "extern int nowhere(int); int limit = OLD; int user(int x) { return x + limit + CALL; }\n"
    old, now = (source.replace("OLD", value).replace("CALL", call) for value, call in (("1", "1"), ("2", "nowhere(x)")))
    assert kernels.made(old, now).refused == {("limit", "verdict"), ("user", "not-in-kernel")}


def test_the_case_for_the_virtual_machine_has_this_header() -> None:
    directory = Path(__file__).resolve().parents[2]
    patch = (directory / "selftests/vm_cases/callback/patch").read_text()
    added = patch.partition("+++ b/include/linux/livepatch_helpers.h\n")[2].splitlines()[1:]
    header = (directory / "kbuild_klp/kbuild/livepatch_helpers.h").read_text().splitlines()
    assert [line.removeprefix("+") for line in added] == header


@pytest.mark.parametrize("side", ["old", "new"])
def test_no_module_of_a_build_is_written_over(kernels: PatchedKernels, side: str) -> None:
    kernels.build({UNIT: SAYS, **OTHERS}, {UNIT: new(SAYS)})
    kernels.prepare()
    image = kernels.root / side / "drivers/mod.ko"
    before = image.read_bytes()
    made = kernels.patch(output=("-o", str(image)))
    assert made.status == 2 and "would be written over" in made.errors
    assert image.read_bytes() == before


def test_a_callback_of_another_object(kernels: PatchedKernels) -> None:
    """A pointer to what is not here is no place here."""
    source = CALLBACK.replace(
        "static int before(struct klp_object *object) { applied = 1; return 0; }", "int before();"
    )
    made = kernels.made(SAYS, new(SAYS) + source, **{"kernel/inner.o": INNER + "int before(void) { return 0; }\n"})
    assert made.status == 2 and "is no callback" in made.errors


def test_each_function_that_cannot_be_told_apart_is_named(kernels: PatchedKernels) -> None:
    """Not the first that is carried: two sources of one name, linked in another order than the tree says."""
    source = (
        "static __attribute__((noinline)) int twin(int x) { return x + OLD; } int NAME(int x) { return twin(x); }\n"
    )
    sources = {f"{place}/u.o": source.replace("NAME", f"a_{place}").replace("OLD", "5") for place in ("kernel", "lib")}
    kernels.build(
        sources, {"lib/u.o": sources["lib/u.o"].replace("5", "6").replace("return twin(x)", "return twin(x) + 1")}
    )
    kernels.prepare()
    kernels.old.run("ld", "-r", "-o", "kernel/both.o", "kernel/u.o", "lib/u.o")
    objects = ["kernel/u.o", "kernel/u.o", "lib/u.o"]
    options = ("-z", "muldefs", "-e", "0", "-Ttext=0x1000000", "--unresolved-symbols=ignore-all")
    kernels.old.run("ld", "-o", "vmlinux", *options, *objects)
    assert kernels.patch().refused == {("twin", "no-position")}


def test_a_livepatch_has_no_btf(kernels: PatchedKernels) -> None:
    """The kernel refuses a module whose BTF counts on from that of another vmlinux, as a kept tree's would."""
    kernels.build({UNIT: SAYS, **OTHERS}, {UNIT: new(SAYS)})
    kernels.prepare()
    for kernel in (kernels.old, kernels.new):
        path = kernel.root / "include/config/auto.conf"
        kernel.write("include/config/auto.conf", path.read_text() + "CONFIG_DEBUG_INFO_BTF_MODULES=y\n")
    made = kernels.patch()
    assert made.carried == {(UNIT, "says")}
    assert ".BTF" not in made.readelf("-S")


def test_messages_that_are_not_in_the_printk_index(kernels: PatchedKernels) -> None:
    source = """
    struct pi_entry { const char *text, *function; unsigned line; };
    extern int printk(const char *);
    int says(int x)
    {
        static const struct pi_entry _entry = { "OLD", __func__, 5 };
        static const struct pi_entry *_entry_ptr __attribute__((used, section(".printk_index"))) = &_entry;
        return printk("OLD") + x;
    }
    """
    made = kernels.made(source, new(source))
    assert made.carried == {(UNIT, "says")}
    assert "1 message of the livepatch will not be in the printk index (debugfs)" in made.answer["warnings"]
    assert ".printk_index" not in made.readelf("-S")


def test_a_function_that_threads_run_is_told(kernels: PatchedKernels) -> None:
    source = """
    extern int printk(const char *, ...), kthread_create_on_node(int (*)(void *), void *, int, const char *);
    static int runs(void *data) { return printk("OLD"); }
    int begin(void *data) { return kthread_create_on_node(runs, data, -1, "it"); }
    """
    made = kernels.made(source, new(source))
    assert made.carried == {(UNIT, "runs")}
    assert [text for text in made.answer["warnings"] if "kernel/unit.o: runs is what a thread runs" in text]


def test_and_one_that_all_tasks_sleep_in(kernels: PatchedKernels) -> None:
    """schedule() comes along with what it calls, though it did not change."""
    source = """
    extern int printk(const char *, ...), __switch_to_asm(int);
    static __attribute__((no_instrument_function, noipa)) int __schedule(int x) {
        printk("OLD");
        return __switch_to_asm(x) + 1;
    }
    __attribute__((noipa)) int schedule(void) { return __schedule(0) + 1; }
    int waits(void) { return schedule() + 1; }
    """
    switch = {"kernel/switch.o": "int __switch_to_asm(int x) { return x; }"}
    kernels.build({UNIT: source, **switch}, {UNIT: new(source)})
    kernels.prepare()
    made = kernels.patch()
    assert made.carried == {(UNIT, "__schedule"), (UNIT, "schedule")}
    assert [
        text for text in made.answer["warnings"] if text.startswith("kernel/unit.o: tasks sleep in schedule: the t")
    ]


@pytest.mark.parametrize("number", ["OLD", "0"], ids=["carried", "same"])
def test_so_is_one_with_which_another_object_starts_them(kernels: PatchedKernels, number: str) -> None:
    start = "int kthread_create_on_node(int (*)(void *), void *, int, const char *)"
    begin = (
        f"{start}, runs(void *); int begin(void *data) {{ return kthread_create_on_node(runs, data, {number}, 0); }}"
    )
    runs = 'int printk(const char *, ...); int runs(void *data) { return printk("OLD"); }'
    other = "int kthread_create_on_node(int (*f)(void *), void *d, int n, const char *t) { return 0; }"
    by = [{"kernel/begin.o": begin.replace("OLD", it), UNIT: runs.replace("OLD", it)} for it in "12"]
    kernels.build({**by[0], "kernel/kthread.o": other}, by[1])
    kernels.prepare()
    made = kernels.patch()
    assert made.carried == {(UNIT, "runs"), *([("kernel/begin.o", "begin")] if number == "OLD" else [])}
    assert [text for text in made.answer["warnings"] if "kernel/unit.o: runs is what a thread runs" in text]
