# SPDX-License-Identifier: GPL-2.0-only
"""Where a walk through an array ends may be where something else begins, or nothing at all.

GCC's ivopts makes a loop over `array[i].member` one from the member of the first element to that of the one behind the
last, a place that is as far behind the array as the member stands in an element.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from snippets import Compiler

from kbuild_klp.elf.reader import ObjectFile
from kbuild_klp.extract.extraction import Extraction, extract
from kbuild_klp.object.reference_text import describe
from kbuild_klp.object.view import ObjectView

_ELEMENT, _MEMBER = 40, 12
_FUNCTION = """
    .globl {name}
    .type {name}, @function
{name}:
    call __fentry__
    {body}
    ret
    .size {name}, . - {name}
    .pushsection __mcount_loc, "a"
    .quad {name}
    .popsection
"""
_VARIABLE = """
    .section {section}
    .balign {align}
    .type {name}, @object
    .size {name}, {size}
{name}: .fill {size}, 1, {fill}
"""
_END = f"array+size+{_MEMBER}"


def function(name: str, body: str) -> str:
    return _FUNCTION.format(name=name, body=body)


def variable(name: str, size: int, align: int = 32, section: str = ".data", fill: int = 5) -> str:
    return _VARIABLE.format(name=name, size=size, align=align, section=section, fill=fill)


def array(count: int, section: str = ".data") -> str:
    return f".set size, {count * _ELEMENT}\n" + variable("array", count * _ELEMENT, section=section)


def walk(number: int, end: str = _END, begin: str = f"array+{_MEMBER}") -> str:
    return function("walk", f"movl ${number}, %eax\nmovq ${begin}, %rbx\ncmpq ${end}, %rbx")


def users(*names: str) -> str:
    """Functions that refer to variables, each to one."""
    return "".join(function(f"user_of_{name}", f"movq ${name}, %rdi") for name in names)


class Walks:
    """Two versions of data before and behind the code of a walk, and what is extracted."""

    def __init__(self, compiler: Compiler, directory: Path) -> None:
        self.compiler = compiler
        self.output = directory / "out.o"

    def __call__(self, old: str, new: str, *names: str, end: str = _END, begin: str = f"array+{_MEMBER}") -> Extraction:
        """``names`` are the variables of the new version; who refers to those of the old one, too, is in both."""
        sources = (
            f'.file "unit.c"\n.text\n{walk(number, end, begin)}{users(*(it for it in names if f"{it}:" in data))}{data}'
            for number, data in ((1, old), (2, new))
        )
        before, after = (str(self.compiler.assembly(source)) for source in sources)
        return extract(before, after, str(self.output))

    @property
    def goals(self) -> list[str]:
        """What the walk refers to."""
        view = ObjectView(ObjectFile.open(str(self.output)))
        [part] = view.functions_called("walk")
        return [describe(view, row) for row in view.reference_range(part)][1:]


@pytest.fixture
def walks(gcc: Compiler, tmp_path: Path) -> Walks:
    return Walks(gcc, tmp_path)


def refusals(found: Extraction) -> set[tuple[str, str]]:
    return {(refusal.symbol, refusal.bar.word) for refusal in found.refused}


WALK = ["array+0xc", "array+0x50c"]  # 32 elements


def test_what_lies_behind_it_in_both_is_no_matter(walks: Walks) -> None:
    data = array(32) + variable("behind", 640)
    found = walks(data, data, "array", "behind")
    assert not found.refused and walks.goals == ["array+0xc", "behind+0xc"]


def test_what_is_new_there_is_not_where_the_walk_ends(walks: Walks) -> None:
    """The new variable would be carried, and lie anywhere."""
    new = array(32) + variable("fresh", 640) + variable("behind", 640)
    new += function("added", "movq $fresh, %rdi\ncall user_of_fresh")
    assert refusals(walks(array(32) + variable("behind", 640), new, "array", "fresh", "behind")) >= {
        ("walk", "readings")
    }


@pytest.mark.parametrize("begin", ["array", f"array+{_MEMBER - 8}", "array+33", f"array+{_ELEMENT + 5}"])
def test_who_begins_at_another_member_does_not_walk_there(walks: Walks, begin: str) -> None:
    new = array(32) + variable("fresh", 640) + variable("behind", 640)
    found = walks(array(32) + variable("behind", 640), new, "array", "fresh", "behind", begin=begin)
    assert ("walk", "readings") not in refusals(found)


@pytest.mark.parametrize("begin", [f"array+{_MEMBER + _ELEMENT}", f"array+{_MEMBER + 3 * _ELEMENT}"])
def test_who_begins_with_another_element_does(walks: Walks, begin: str) -> None:
    new = array(32) + variable("fresh", 640) + variable("behind", 640)
    found = walks(array(32) + variable("behind", 640), new, "array", "fresh", "behind", begin=begin)
    assert ("walk", "readings") in refusals(found)


@pytest.mark.parametrize("section", [".data", '.rodata, "a"', '.bss, "aw", @nobits'])
def test_padding_behind_it_holds_nothing(walks: Walks, section: str) -> None:
    fill = 0 if "bss" in section else 5
    data = array(33, section).replace(", 1, 5", f", 1, {fill}")
    old = data + variable("low", 12, 4, section, fill) + variable("behind", 640, 32, section, fill)
    old += variable("more", 640, 64, section, fill)
    new = data + variable("more", 640, 64, section, fill) + variable("behind", 640, 32, section, fill)
    found = walks(old, new, "array", "more", "behind")
    assert refusals(found) == {("walk", "readings")}, "it may be 44 bytes before the next one"
    apart = data + variable("more", 640, 256, section, fill)
    for before in (old, apart):
        found = walks(before, apart, "array", "more")
        assert not found.refused and walks.goals == ["array+0xc", "array+0x534"]


def test_nothing_behind_it_at_all(walks: Walks) -> None:
    for old in (array(33), array(33) + variable("gone", 640)):
        found = walks(old, array(33), "array")
        assert not found.refused and walks.goals == ["array+0xc", "array+0x534"]


@pytest.mark.parametrize(
    ("begin", "fill"), [(f"array+{_MEMBER - 8}", 0), (f"array+{_MEMBER}", 7)], ids=["another member", "no zeros"]
)
def test_data_without_a_name_is_no_padding(walks: Walks, begin: str, fill: int) -> None:
    data = array(33) + f".fill 24, 1, {fill}\n" + variable("behind", 640, 256)
    assert refusals(walks(data, data, "array", "behind", begin=begin)) & {
        ("walk", "nameless-state"),
        ("walk", "readings"),
    }


@pytest.mark.parametrize("distance", [0, 8])
def test_what_is_read_right_there_is_inside_of_what_is_meant(walks: Walks, distance: int) -> None:
    """The new variable lies between two that were neighbours; who makes an address may count from the other one."""
    old = variable("counter", 16, 8) + variable("table", 24, 8) + array(2)
    new = variable("counter", 16, 8) + variable("fresh", 8, 8) + variable("table", 24, 8) + array(2)
    for body, refused in (("incl {}(%rip)", False), ("movl $7, {}(%rip)", False), ("leaq {}(%rip), %rdi", True)):
        reader = function("reader", "NUMBER\n" + body.format(f"counter+{distance}"))
        other = users("counter", "table", "array") + function("other", "leaq counter(%rip), %rdi")
        before, after = (
            str(walks.compiler.assembly(f'.file "unit.c"\n.text\n{reader.replace("NUMBER", code)}{other}{data}'))
            for code, data in (("nop", old), ("movl $1, %eax\nincq fresh(%rip)", new))
        )
        found = extract(before, after, str(walks.output))
        assert refusals(found) == ({("reader", "readings")} if refused else set())


class Sources:
    """Two versions of a C source, and what is extracted; in its section, the last variable stands first."""

    def __init__(self, compiler: Compiler, directory: Path) -> None:
        self.compiler = compiler
        self.output = directory / "out.o"

    def __call__(self, old: str, new: str) -> set[tuple[str, str]]:
        flags = ("-pg", "-mfentry", "-mrecord-mcount")
        before, after = (str(self.compiler.object(source, *flags)) for source in (old, new))
        return refusals(extract(before, after, str(self.output)))

    @property
    def goals(self) -> set[str]:
        """What the function `walk` refers to."""
        return self.goals_of("walk")

    def goals_of(self, name: str) -> set[str]:
        """What a function refers to."""
        view = ObjectView(ObjectFile.open(str(self.output)))
        [part] = view.functions_called(name)
        return {describe(view, row) for row in view.reference_range(part)}


@pytest.fixture
def sources(gcc: Compiler, tmp_path: Path) -> Sources:
    return Sources(gcc, tmp_path)


_LOOP = """
struct entry { int a, b; void (*call)(int); };
void outside(int);
%(behind)s[4] = {1, 2, 3, 4};
%(fresh)s
static struct entry array[6] = {{1, 2, outside}, {3, 4}};
int user(int x) { array[x].a++; return 1 %(user)s; }
int walk(int x) {
	struct entry *p;
	for (p = array; p < array + 6; p++) if (p->call) p->call(p->a);
	%(walk)s
	return x;
}
"""
_FRESH = {"fresh": "static int fresh[8] = {4, 5};", "user": "+ fresh[x]++"}
_GONE = {"fresh": "", "user": ""}


def test_who_walks_to_a_variable_may_use_that_one_too(sources: Sources) -> None:
    """Nobody else refers to it; but not all that the walk's function says there means it."""
    behind = {"behind": "static int behind"}
    use = "behind[0] += x; outside(behind[2])%s;"
    old, new = (
        _LOOP % {**behind, **rest, "walk": use % more} for rest, more in ((_FRESH, ""), (_GONE, ", outside(5)"))
    )
    assert sources(old, new) == {("walk", "readings")}
    moved = _LOOP % {**behind, **_GONE, "walk": use % ""}
    assert sources(moved, new) == set()
    assert {"behind", "behind+0x8"} <= sources.goals


def test_who_counts_from_another_element_may_use_what_is_there(sources: Sources) -> None:
    source = """
    static int table[100]; %s static int counters[8];
    int user(long x) { return table[x] %s; }
    void setter(int x) { table[x] = x; }
    int walk(long x) { counters[0]++; counters[1] += 2; counters[3] ^= counters[0]; return table[x - 3] %s; }
    """
    fresh = "static int fresh[8];"
    assert sources(source % (fresh, "+ fresh[x]++", ""), source % ("", "", "+ 5")) == {("walk", "readings")}


def test_a_walk_ends_where_a_global_variable_begins(sources: Sources) -> None:
    """An assembler refers to that one by its name only."""
    behind = {"behind": "int behind"}
    old, new = (_LOOP % {**behind, **rest, "walk": more} for rest, more in ((_FRESH, ""), (_GONE, "outside(5);")))
    assert sources(old, new) == set()
    assert "array+0x60" in sources.goals


def test_who_refers_to_nothing_but_the_end_before_a_global_variable(sources: Sources) -> None:
    end = "int is_behind(struct entry *p) { return (p >= array + 6)%s; }"
    behind = {"behind": "int behind", "walk": ""}
    old, new = (_LOOP % {**behind, **rest} + end % more for rest, more in ((_FRESH, ""), (_GONE, " * x")))
    assert not sources(old, new.replace("struct entry *p)", "struct entry *p, int x)"))
    assert "array+0x60" in sources.goals_of("is_behind")


_LISTS = """
struct list { struct list *next, *prev; };
struct lock { long owner, flags; struct list waiting; };
void lock(struct lock *); void unlock(struct lock *);
static struct list list = { &list, &list };
%(fresh)s
int walk(void) {
	int sum = 0;
	%(lock)s
	for (struct list *it = list.next; it != &list; it = it->next) sum += ((int *)it)[4];
	%(unlock)s
	return sum;
}
void add(struct list *it) { it->next = list.next; list.next = it; }
"""
_LOCK = "{0, 0, {&%(name)s.waiting, &%(name)s.waiting}}"


@pytest.mark.parametrize(
    ("fresh", "name"),
    [
        (f"static struct lock fresh = {_LOCK % {'name': 'fresh'}};", "fresh"),
        (f"static struct {{ struct list first; struct lock lock; }} two = {{ {{&two.first, &two.first}}, "
         f"{_LOCK % {'name': 'two.lock'}} }};", "two.lock"),
    ],
    ids=["lock", "list and lock"],
)  # fmt: skip
def test_a_new_lock_beside_a_list_is_no_array(sources: Sources, fresh: str, name: str) -> None:
    old = _LISTS % {"fresh": "", "lock": "", "unlock": ""}
    new = _LISTS % {"fresh": fresh, "lock": f"lock(&{name});", "unlock": f"unlock(&{name});"}
    assert sources(old, new) == set()
    assert "list" in sources.goals


def test_several_locks_are_an_array(sources: Sources) -> None:
    locks = ", ".join(_LOCK % {"name": f"fresh[{at}]"} for at in range(3))
    fresh = f"static struct lock fresh[3] = {{ {locks} }};"
    old = _LISTS % {"fresh": "", "lock": "", "unlock": ""}
    new = _LISTS % {"fresh": fresh, "lock": "lock(&fresh[0]);", "unlock": "unlock(&fresh[0]);"}
    assert sources(old, new) == {("walk", "readings")}


_GIVEN = """
    movl ${number}, %eax
    {before}
    cmpq $array+size, %rdi
    {after}
1:  nop
"""
_ASKED = [
    # What is done before, what with the answer, and whether that may be about the end of an array.
    ("nop", "jb 1f", True),
    ("nop", "cmovaeq %rax, %rdi", True),
    ("nop", "movq %rax, %rdx\n jae 1f", True),
    ("movl fresh(%rip), %ecx", "jb 1f", True),
    ("nop", "jne 1f", True),
    ("nop", "sete %al", True),
    ("movq fresh(%rip), %rdi", "jne 1f", False),  # a list
    ("movq $array, %rdi", "jne 1f", True),
]


@pytest.mark.parametrize(("before", "after", "may_be"), _ASKED)
def test_who_was_given_a_pointer_into_it_has_the_end_only(
    gcc: Compiler, tmp_path: Path, before: str, after: str, may_be: bool
) -> None:
    """`return ++p < array + 32 ? p : NULL`, as a seq_file does: behind the array is a new variable, or an old one."""

    def made(old: str, new: str) -> Extraction:
        sources = [
            f'.file "unit.c"\n.text\n{function("given", _GIVEN.format(number=number, before=before, after=after))}'
            f"{users(*(it for it in ('array', 'fresh', 'behind') if f'{it}:' in data))}{data}"
            for number, data in ((1, old), (2, new))
        ]
        before_path, after_path = (str(gcc.assembly(source)) for source in sources)
        return extract(before_path, after_path, str(tmp_path / "out.o"))

    behind, fresh = variable("behind", 640), variable("fresh", 640)
    same = made(array(32) + fresh, array(32) + fresh)
    assert not same.refused and same.carried
    old = array(32) + behind + (fresh if "fresh" in before else "")
    found = made(old, array(32) + fresh + behind)
    assert (("given", "readings") in refusals(found)) == may_be


@pytest.mark.parametrize("behind", ["", ".section .data\n.balign 32\n", variable("behind", 640)])
def test_the_end_of_it_where_nothing_else_begins(gcc: Compiler, tmp_path: Path, behind: str) -> None:
    """At the end of the section, in padding: that cannot be anything else."""
    sizes = ".set size, 1000\n" + variable("array", 1000)
    sources = [
        f'.file "unit.c"\n.text\n{function("given", _GIVEN.format(number=number, before="nop", after="jb 1f"))}'
        f"{users('array')}{users('behind') if 'behind:' in behind else ''}{fill}{sizes}{behind}"
        for number, fill in ((1, ""), (2, variable("first", 640) + users("first")))
    ]
    before, after = (str(gcc.assembly(source)) for source in sources)
    found = extract(before, after, str(tmp_path / "out.o"))
    assert not found.refused and "given" in {it.symbol for it in found.carried}
    view = ObjectView(ObjectFile.open(str(tmp_path / "out.o")))
    [part] = view.functions_called("given")
    assert [describe(view, row) for row in view.reference_range(part)][1:] == ["array+0x3e8"]


def test_the_end_of_what_assembly_has_where_a_table_of_the_compiler_begins(gcc: Compiler, tmp_path: Path) -> None:
    """As uretprobe_trampoline_end, arch/x86/kernel/uprobes.c: the distance is that of the running kernel."""
    source = """
        asm(".pushsection .rodata, \\"a\\"; .globl first; first: .octa 7; .globl last; last: .popsection");
        extern const char first[], last[];
        long user(int x) { return last - first + x + %d; }
        int other(unsigned x) { switch (x) { case 0: return 3; case 1: return 9; case 2: return 4; case 3: return 8;
                                             case 4: return 1; case 5: return 7; default: return 0; } }
    """
    old, new = (gcc.object(source % number, "-pg", "-mfentry", "-mrecord-mcount") for number in (1, 2))
    file = ObjectFile.open(str(new))
    names = [file.symbol_name(number).partition(".")[0] for number in range(len(file.symbols))]
    places = dict(zip(names, file.symbols["value"].tolist(), strict=True))
    assert places["last"] == places["CSWTCH"]
    found = extract(str(old), str(new), str(tmp_path / "out.o"))
    assert [it.symbol for it in found.carried] == ["user"] and not found.refused
    view = ObjectView(ObjectFile.open(str(tmp_path / "out.o")))
    [part] = view.functions_called("user")
    assert {describe(view, row) for row in view.reference_range(part)} >= {"first", "last"}
