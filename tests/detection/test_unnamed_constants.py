# SPDX-License-Identifier: GPL-2.0-only
"""What has no name in C, of which a compiler numbers all but the first: compound literals, what fills structures."""

from __future__ import annotations

import pytest
from snippets import KERNEL_FLAGS, Changes, Compiler, changed, data_changed
from watched_answers import NOTHING, added, answer

KASAN = (
    "-fsanitize=kernel-address",
    "-mllvm=-asan-globals=1",
    "-mllvm=-asan-stack=1",
    "-mllvm=-asan-mapping-offset=0xdffffc0000000000",
)
LITERALS = """
struct big { int v[24]; };
int use(const void *);
%s
int f(struct big *p) { *p = (struct big){ { 1, 2, 3, 4, 5, 6, 7, 8, 9 } }; return use(p); }
int g(int a) { switch (a) { case 0: return 3; case 1: return 17; case 2: return 7; case 3: return 99; } return -1; }
const struct { const int *p; } constant = { (const int[]){ 1, 2, 30 } };
struct { int *p; } variable = { (int[3]){ 1, 20 } };
struct { int *p; } zeros = { (int[3]){} };
"""
MORE = """
int more(struct big *p) { *p = (struct big){ { 9, 9, 9, 4, 5, 6, 7, 8, 1 } }; return use(p); }
int table(int a) { switch (a) { case 0: return 4; case 1: return 8; case 2: return 7; case 3: return 9; } return -1; }
const struct { const int *p; } more_constant = { (const int[]){ 1, 2, 3 } };
struct { int *p; } more_variable = { (int[3]){ 1, 8 } };
"""
CAME = added("function", "more", "table") | added("data", "more_constant", "more_variable")


@pytest.mark.parametrize(
    ("compiler", "flags"),
    [
        *((compiler, flags) for compiler in ("gcc", "clang") for flags in ((), ("-fdata-sections",))),
        # GCC has flags of its own for this, and numbers from the first on.
        *(("clang", flags) for flags in (KASAN, (*KASAN, "-fdata-sections"))),
    ],
)
@pytest.mark.parametrize("more", ["", MORE])
@pytest.mark.parametrize(
    ("edit", "want"),
    [
        (("", ""), NOTHING),
        (("8, 9 }", "8, 7 }"), changed("f")),
        (("{ 1, 2, 30", "{ 1, 3, 30"), data_changed("constant")),
        (("{ 1, 20", "{ 3, 20"), data_changed("LITERAL")),
        (("zeros = { (int[3])", "zeros = { (int[5])"), data_changed("LITERAL")),
    ],
)
def test_first_without_number(
    request: pytest.FixtureRequest,
    compiler: str,
    flags: tuple[str, ...],
    more: str,
    edit: tuple[str, str],
    want: Changes,
) -> None:
    literal = ".compoundliteral" if compiler == "clang" else "__compound_literal"
    plain: Compiler = request.getfixturevalue(compiler)
    cc = Compiler(plain.command, plain.directory, (*KERNEL_FLAGS, *flags))
    old, new = cc.object(LITERALS % ""), cc.object((LITERALS % more).replace(*edit))
    want = {(symbol.replace("LITERAL", literal), kind, change) for symbol, kind, change in want}
    if more:
        want |= CAME | added("data", literal)
    found = answer(old, new)
    if "[5]" in edit[1] and flags[:1] == KASAN[:1]:
        found -= changed("asan.module_ctor", "asan.module_dtor")  # may say that it is larger
    assert found == want


def test_variable_of_that_name_is_not_another(cc: Compiler) -> None:
    source = "int use(void *); static int constinit = %d; static int other = 3; int f(void) { return use(&%s); }"
    old = cc.object(source % (3, "constinit"))
    assert answer(old, cc.object(source % (4, "constinit"))) == data_changed("constinit")
    assert answer(old, cc.object(source % (3, "other"))) >= changed("f")


SECTIONS = ("..L.x", "..compoundliteral.3", "..ro_after_init", "..percpu", "..Lconstinit.9")


@pytest.mark.parametrize("first", SECTIONS)
@pytest.mark.parametrize("second", SECTIONS)
def test_memory_of_sections_behind_two_dots(gcc: Compiler, first: str, second: str) -> None:
    """What is without a name goes where all such data go; what has a section of its own does not."""
    source = (
        '.globl f\n.type f, @function\nf: movq $1f, %rax\n ret\n.size f, . - f\n.section .data{}, "aw"\n1: .quad 5\n'
    )
    of_its_own = {place for place in (first, second) if place in ("..ro_after_init", "..percpu")}
    want = NOTHING if first == second or not of_its_own else changed("f")
    assert answer(gcc.assembly(source.format(first)), gcc.assembly(source.format(second))) >= want
    if not want:
        assert not any(
            name == "f" for name, _, _ in answer(*(gcc.assembly(source.format(it)) for it in (first, second)))
        )
