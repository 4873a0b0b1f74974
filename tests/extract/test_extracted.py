# SPDX-License-Identifier: GPL-2.0-only
"""What an extracted object holds: small sources, and the whole answer beside each."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from mutate import entries_of
from snippets import Compiler

from kbuild_klp.elf.reader import ObjectFile
from kbuild_klp.extract.extraction import Extraction, extract

TRACED = ("-pg", "-mfentry", "-mrecord-mcount")

Extract = Callable[..., Extraction]


class Extractor:
    """Compiles two versions and extracts what differs; ``output`` is the object of the last time."""

    def __init__(self, compiler: Compiler, directory: Path) -> None:
        self.compiler = compiler
        self.output = directory / "out.o"

    def __call__(self, old: str, new: str, *flags: str, without: tuple[str, ...] = ()) -> Extraction:
        sides = [self.compiler.object(source, *TRACED, *flags) for source in (old, new)]
        self.new = sides[1]
        found = extract(str(sides[0]), str(sides[1]), str(self.output), without)
        assert self.output.exists() == found.is_written
        if found.is_written:
            self.is_like_the_new_one(found)
            run("ld", "-r", "-o", self.output.with_suffix(".linked"), self.output)
        return found

    def is_like_the_new_one(self, found: Extraction) -> None:
        """The checksum file's components of each function: bytes and special sections are those of NEW.o."""
        olds, news = (
            {entry.name: entry for entry in entries_of(ObjectFile.open(path)) if entry.kind == "function"}
            for path in (self.new, self.output)
        )
        assert news
        for name, entry in news.items():
            was, is_ = olds[name].split_components(), entry.split_components()
            assert (was.data, entry.size) == (is_.data, olds[name].size)
            if not any(outside.is_local or outside.symbol == name for outside in found.outside):
                assert (was.references, was.special) == (is_.references, is_.special)

    @property
    def relocations(self) -> list[str]:
        """What each relocation of code goes to, in the order of the object: symbol and addend."""
        text = run("readelf", "-rW", self.output)
        tables = text.split("Relocation section '")[1:]
        code = [table for table in tables if table.startswith(".rela.text")]
        rows = [re.findall(r"R_X86_64_(\w+) +[0-9a-f]+ (\S+) ([+-]) (\w+)$", table, re.MULTILINE) for table in code]
        return [f"{name}{sign}{addend}" for table in rows for _, name, sign, addend in table]

    @property
    def goals(self) -> set[str]:
        """The symbols to which code refers."""
        return {re.split(r"[+-]", goal)[0] for goal in self.relocations} - {"__fentry__"}


def run(*command: str | Path) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=True)
    assert not done.stderr
    return done.stdout


@pytest.fixture
def extracted(gcc: Compiler, tmp_path: Path) -> Extractor:
    return Extractor(gcc, tmp_path)


def carried(found: Extraction) -> set[tuple[str, str]]:
    assert not found.refused
    return {(item.symbol, item.kind) for item in found.carried}


def refusals(found: Extraction) -> set[tuple[str, str]]:
    assert not found.is_written
    return {(refusal.symbol, refusal.bar.word) for refusal in found.refused}


# -- functions --------------------------------------------------------------------------------------------------------

_CALLS = """
#define noinline __attribute__((noinline))
%(before)s
static noinline int helper(int x) { asm volatile("nop"); return x * 3; }
static noinline int twin(int x) { asm volatile("nop; nop"); return x * 5 %(twin)s; }
int outside(int);
int (*pointer(void))(int) { return twin; }
int user(int x) { %(user)s return helper(x) + twin(x) + outside(x); }
int other(int x) { return helper(x) - 1; }
"""


def _calls(before: str = "", twin: str = "", user: str = "") -> str:
    return _CALLS % {"before": before, "twin": twin, "user": user}


def test_a_call_of_what_stays_is_undefined_again(extracted: Extractor) -> None:
    found = extracted(_calls(), _calls(user="x ^= 0x55;"))
    assert carried(found) == {("user", "function")}
    assert extracted.goals == {"helper", "twin", "outside"}
    assert {outside.symbol for outside in found.outside if outside.is_local} == {"helper", "twin"}


def test_a_call_of_what_is_carried_goes_to_the_new_one_and_its_address_to_the_old_one(extracted: Extractor) -> None:
    new = _calls(twin="+ 1").replace("return twin;", "return outside(1) ? twin : 0;")
    found = extracted(_calls(), new.replace("x) - 1", "x) - 2").replace("helper(x) + twin", "helper(x) - twin"))
    assert carried(found) == {(name, "function") for name in ("twin", "user", "pointer", "other")}
    symbols = run("nm", extracted.output)
    assert re.search(r"[0-9a-f]+ t twin\n", symbols)
    assert re.search(r"  U twin\n", symbols), "the address that is compared is that of the running kernel"
    assert "twin" in {outside.symbol for outside in found.outside if outside.is_local}
    listing = run("objdump", "-dr", "--section=.text.user", extracted.output)
    assert "R_X86_64_PLT32\ttwin" in listing
    rows = run("readelf", "-sW", extracted.output)
    number = re.search(r"(\d+): \S+ +\d+ NOTYPE +GLOBAL DEFAULT +UND twin\n", rows)
    local = re.search(r"(\d+): \S+ +\d+ FUNC +LOCAL +DEFAULT +\d+ twin\n", rows)
    assert number and local
    raw = run("readelf", "-rW", extracted.output)
    of = {table.split("'")[0]: table for table in raw.split("Relocation section '")[1:]}
    assert f"{int(number[1]):08x}0000000" in of[".rela.text.pointer"]
    assert f"{int(local[1]):08x}0000000" in of[".rela.text.user"]


def test_a_new_function_comes_along_with_what_it_needs(extracted: Extractor) -> None:
    before = "static int calls[3]; static noinline int fresh(int x) { return calls[x & 1]++ + x; }"
    found = extracted(_calls(), _calls(before, user="x += fresh(x);"))
    assert carried(found) == {("user", "function"), ("fresh", "function"), ("calls", "data")}


def test_a_new_function_that_nobody_needs_does_not(extracted: Extractor) -> None:
    before = "__attribute__((used)) static int fresh(int x) { return x; }"
    found = extracted(_calls(), _calls(before, user="x ^= 1;"))
    assert carried(found) == {("user", "function")}
    assert list(found.not_needed) == ["fresh"]


def test_a_new_global_function_stays_one(extracted: Extractor) -> None:
    found = extracted(_calls(), _calls("int fresh(int x) { return x + 7; }", user="x ^= 1;"))
    assert carried(found) == {("user", "function"), ("fresh", "function")}
    assert re.search(r"[0-9a-f]+ T fresh\n", run("nm", extracted.output))
    assert re.search(r"[0-9a-f]+ t user\n", run("nm", extracted.output))


def test_nothing_is_carried_of_what_is_the_same(extracted: Extractor) -> None:
    found = extracted(_calls(), _calls())
    assert not found.is_written
    assert not found.refused


def test_a_cold_part_comes_along(extracted: Extractor) -> None:
    source = """
    void __attribute__((cold)) complain(const char *); int outside(int);
    int user(int x) { if (x == 7) { complain("seven"); x = outside(x); } return x * %s; }
    """
    found = extracted(source % "3", source % "5")
    assert carried(found) == {("user", "function"), ("user.cold", "function"), ("", "data")}
    assert {item.section for item in found.carried} == {".text.user", ".text.unlikely.user.cold", ".rodata.str1.1"}


def test_padding_before_a_function_comes_along(extracted: Extractor) -> None:
    found = extracted(_calls(), _calls(user="x ^= 1;"), "-fpatchable-function-entry=16,16", "-falign-functions=16")
    assert carried(found) == {("user", "function")}
    assert re.search(r"0+10 <user>:", run("objdump", "-d", extracted.output))
    assert "user - 10" in run("readelf", "-rW", extracted.output)


def test_a_jump_into_a_function_is_not_one_to_its_symbol(extracted: Extractor) -> None:
    """objtool would take it for a sibling call."""
    source = """
    int user(int x)
    {
        asm goto("661: .byte 0x0f,0x1f,0x44,0,0\\n662:\\n"
            ".pushsection .altinstructions,\\"a\\"\\n.long 661b - ., 663f - .\\n.short 11, 0\\n"
            ".byte 662b - 661b, 664f - 663f\\n.popsection\\n"
            ".pushsection .altinstr_replacement,\\"ax\\"\\n663: jmp %%l[away]\\n664:\\n.popsection" :::: away);
        return x + %d;
    away:
        return x * 3;
    }
    """
    assert carried(extracted(source % 1, source % 2)) == {("user", "function"), ("", "code")}
    table = run("readelf", "-rW", extracted.output).split("'.rela.altinstr_replacement'")[1].split("Relocation")[0]
    assert re.findall(r"_PC32 .* (\S+) [+-] \w+$", table, re.MULTILINE) == [".text.user"]


# -- data -------------------------------------------------------------------------------------------------------------

_COUNTS = """
%(before)s
int outside(int);
int first(int x) { %(first)s static int count; return ++count * %(by)s + outside(x); }
int second(int x) { %(second)s return x - 1; }
"""


def _counts(before: str = "", first: str = "", by: str = "3", second: str = "") -> str:
    return _COUNTS % {"before": before, "first": first, "by": by, "second": second}


def test_state_is_never_a_copy(extracted: Extractor) -> None:
    found = extracted(_counts(), _counts(by="5"))
    assert carried(found) == {("first", "function")}
    [name] = [outside.symbol for outside in found.outside if outside.is_local]
    assert name.startswith("count.")


def test_a_static_variable_has_the_number_that_the_running_kernel_knows(extracted: Extractor) -> None:
    before = "int zeroth(int x) { static int count, more; return ++count + ++more + x; }"
    old = _counts()
    found = extracted(old, _counts(before, by="5"))
    [name] = [outside.symbol for outside in found.outside if outside.symbol.startswith("count.")]
    assert name in run("nm", extracted.compiler.directory / "build1/unit.o")
    assert ("zeroth", "function") in carried(found)
    assert {item.symbol.split(".")[0] for item in found.carried if item.kind == "data"} == {"count", "more"}


def test_two_candidates_are_refused_with_both_names(extracted: Extractor) -> None:
    second = "{ static int count; x += ++count; }"
    source = "int user(int x) { { static int count; x += ++count; } %s return x * %s; }"
    found = extracted(source % (second, 3), source % (second, 5))
    assert refusals(found) == {("user", "candidates")}
    assert {"count.0", "count.1"} <= set(re.findall(r"count\.\d", found.refused[0].reason))


def test_a_variable_that_goes_to_another_function_is_refused(extracted: Extractor) -> None:
    use = "static int count; x += ++count;"
    source = "int outside(int); int first(int x) { %s return outside(x); } int second(int x) { %s return x * 2; }"
    assert refusals(extracted(source % (use, ""), source % ("", use))) == {("second", "candidates")}


def test_content_without_a_name_is_carried(extracted: Extractor) -> None:
    source = """
    void outside(const char *, const char *); int number(int);
    int user(int x) {
        outside(__func__, "a text that is new: %s");
        switch (x) {
        case 0: return number(3); case 1: return number(17) + 1; case 2: return number(x) ^ 5; case 3: return number(9);
        case 4: return number(x + 4); case 5: return number(0x33) - x; case 6: return 8;
        }
        return 0;
    }
    int table(int x) {
        switch (x) {
        case 0: return 5; case 1: return 99; case 2: return 7; case 3: return 1; case 4: return 3; case 5: return %s;
        }
        return 0;
    }
    """
    found = extracted(source % ("a", 11), source % ("b", 12), "-fjump-tables")
    kinds = {(item.symbol.split(".")[0], item.section) for item in found.carried if item.kind == "data"}
    assert kinds == {
        ("__func__", ".rodata"),
        ("CSWTCH", ".rodata"),
        ("", ".rodata"),
        ("", ".rodata.str1.1"),
    }
    assert not any(outside.is_local for outside in found.outside)


def test_changed_state_is_refused_unless_it_is_left_out(extracted: Extractor) -> None:
    source = "int limit = %s; int user(int x) { return x + limit * %s; }"
    assert refusals(extracted(source % (1, 3), source % (2, 5))) == {("limit", "verdict")}
    found = extracted(source % (1, 3), source % (2, 5), without=("lim*",))
    assert carried(found) == {("user", "function")}
    assert list(found.left_out) == ["limit"]


def test_what_is_gone_after_boot_is_refused(extracted: Extractor) -> None:
    before = 'static int early __attribute__((section(".init.data"))) = 4;'
    source = _counts(before + "int boot(void) { return early; }")
    found = extracted(source, _counts(before + "int boot(void) { return early + 1; }"))
    assert refusals(found) == {("boot", "init")}


def test_a_new_per_cpu_variable_is_refused(extracted: Extractor) -> None:
    before = 'static int each __attribute__((section(".data..percpu")));'
    new = _counts(before, first="each++;")
    assert refusals(extracted(_counts(), new)) == {("each", "verdict")}
    assert refusals(extracted(_counts(), new, without=("each",))) == {("first", "per-cpu")}


@pytest.mark.parametrize("section", ["__odd_table", "__tracepoints"])
def test_a_new_variable_in_a_section_of_meaning_is_refused(extracted: Extractor, section: str) -> None:
    new = _counts(f'static int odd __attribute__((section("{section}"))) = 3;', first="x += odd++;")
    assert refusals(extracted(_counts(), new)) == {("odd", "verdict")}
    assert refusals(extracted(_counts(), new, without=("odd",))) == {("first", "section-of-meaning")}


_ARRAYS = """
int outside(int *);
static int before[%(before)s] = {1, 2}, behind[8] = {3};
void fill(int x) { for (int *at = before; at != before + %(before)s; at++) outside(at); behind[x] = %(by)s; }
int *first(void) { return behind; } int *second(void) { return before; } %(more)s
"""


def _arrays(before: int = 8, by: int = 1, more: str = "") -> str:
    return _ARRAYS % {"before": before, "by": by, "more": more}


def test_the_end_of_an_array_may_be_the_beginning_of_the_next_where_both_lie_as_they_did(extracted: Extractor) -> None:
    found = extracted(_arrays(), _arrays(by=2))
    assert carried(found) == {("fill", "function")}


def test_the_end_of_an_array_is_refused_where_another_one_begins_there_now(extracted: Extractor) -> None:
    new = _arrays(by=2).replace("static int before[8] = {1, 2},", "static int before[8] = {1, 2}, fresh[8] = {7},")
    new += "int third(int x) { return fresh[x]++; }"
    found = extracted(_arrays(), new.replace("outside(at);", "outside(at + fresh[x]);"))
    assert ("fill", "readings") in refusals(found)


_CONTENT = """
int outside(const void *);
%(before)s
static const long table[12] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
static inline __attribute__((always_inline)) int tells(int x) { return outside(__func__) + x; }
int user(int x) { return tells(x) + %(by)d; }
int other(int x) { return tells(x) - 1; }
long looks(int x) { return table[x]; }
%(behind)s
"""


def _content(by: int, before: str = "", behind: str = "") -> str:
    return _CONTENT % {"by": by, "before": before, "behind": behind}


def test_content_beside_an_array_is_the_old_kernel_s_where_both_lie_as_they_did(extracted: Extractor) -> None:
    found = extracted(_content(1), _content(2))
    assert carried(found) == {("user", "function")}
    assert "table-20" in extracted.relocations, "whatever it means, it is there"


def test_content_that_lies_as_it_did_and_is_other_content_is_refused(extracted: Extractor) -> None:
    old, new = _content(1).replace("tells", "tolds"), _content(2)
    assert refusals(extracted(old, new)) == {("user", "readings"), ("other", "readings")}


def test_content_that_lies_elsewhere_is_refused(extracted: Extractor) -> None:
    between = "int more(int x) { static const long other_table[9] = {7, 8, 9}; return other_table[x]; }"
    old, new = _content(1, before=between), _content(2)
    assert refusals(extracted(old, new)) == {("user", "readings")}


def test_users_that_contradict_each_other_are_not_believed(extracted: Extractor) -> None:
    source = """
    int outside(int *);
    int one(int x) { static int count = 5; return outside(&count) + %s; }
    int two(int x) { static int count = 5; return outside(&count) - %s; }
    """
    found = extracted(source % (1, 2), source % (3, 4))
    assert carried(found) == {("one", "function"), ("two", "function")}
    numbers = {outside.symbol for outside in found.outside if outside.symbol.startswith("count.")}
    assert len(numbers) == 2


def test_who_makes_a_module_has_to_write_runtime_constants(extracted: Extract) -> None:
    source = """
    unsigned long user(unsigned long x)
    {
        unsigned long limit;
        asm("mov $0x0123456789abcdef,%0\\n1:\\n"
            ".pushsection runtime_ptr_limit,\\"a\\"\\n.long 1b - 8 - .\\n.popsection" : "=r"(limit));
        return x < limit ? x : OLD;
    }
    """
    found = extracted(source.replace("OLD", "5"), source.replace("OLD", "6"))
    assert found.warnings == [
        "user: the kernel writes a constant into it where runtime_ptr_limit says, but not in a module"
    ]


@pytest.mark.parametrize(
    ("files", "kinds"),
    [
        (("core.c", "main.c"), ["count@core.c", "count@main.c"]),
        (("core.c", "core.c"), ["count@core.c", "count@core.c[2]"]),
    ],
)
def test_two_of_one_name_are_refused_with_both(
    gcc: Compiler, tmp_path: Path, files: tuple[str, str], kinds: list[str]
) -> None:
    """As in an object that a linker made of several (LTO): in the extracted one, the same name would mean both."""
    source = "static int count = 3; void %s(int x) { count += x * %s; }"
    sides = []
    for number in "12":
        parts = []
        for at, file in enumerate(files):
            place = tmp_path / number / str(at) / file
            place.parent.mkdir(parents=True)
            place.write_text(source % (f"user{at}", number))
            parts.append(place.with_suffix(".o"))
            subprocess.run(["gcc", "-O2", *TRACED, "-c", file, "-o", parts[-1]], cwd=place.parent, check=True)
        sides.append(tmp_path / number / "linked.o")
        run("ld", "-r", "-o", sides[-1], *parts)
    [refusal] = extract(str(sides[0]), str(sides[1]), str(tmp_path / "out.o")).refused
    assert refusal.bar.word == "one-name" and sorted(refusal.reason.split(": ")[1].split(" and ")) == kinds


def test_a_new_variable_that_may_refer_to_init_code(extracted: Extractor) -> None:
    """__refdata, include/linux/init.h: a word for modpost, and else ordinary data."""
    new = _counts('static int odd __attribute__((section(".ref.data"))) = 3;', first="x += odd++;")
    assert ("odd", "data") in carried(extracted(_counts(), new))


def test_a_constant_that_is_written_to_from_now_on(extracted: Extractor) -> None:
    """GCC makes one of a static variable that nobody writes to: the old one is in read-only memory."""
    source = "static int table[] = { 5, 6, 7 }; int user(int x) { %s return table[x]; }"
    source += "int other(int x) { return table[x]; }"
    found = extracted(source % "", source % "table[1] = x;")
    assert carried(found) == {("user", "function"), ("other", "function"), ("table", "data")}
    assert extracted.goals >= {"table"} and not any(it.symbol == "table" for it in found.outside)


def test_a_function_with_a_weak_name_beside_its_own(extracted: Extractor) -> None:
    """Both are local in what is made: there the shorter name stands for the function, in its special entries, too."""
    source = """
        int user_of_all(int x) {
            asm volatile("1: nop; .pushsection .return_sites, \\"a\\"; .long 1b - .; .popsection");
            return x + %d;
        }
        int user(int x) __attribute__((weak, alias("user_of_all")));
    """
    old, new = (str(extracted.compiler.object(source % number, *TRACED)) for number in (1, 2))
    assert carried(extract(old, new, str(extracted.output))) == {("user_of_all", "function")}
    assert {"user", "user_of_all"} <= set(run("nm", "-j", extracted.output).split())
