# SPDX-License-Identifier: GPL-2.0-only
"""What UBSAN reports with: lines and columns in it are lines, and everything else is what it is."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from line_trees import CHANGED, RECORDS, Answer, Pairs, at_line, shifted
from snippets import Compiler, changes_of

from kbuild_klp.builds.single_object import ObjectBuild
from kbuild_klp.compare.passes import compare
from kbuild_klp.lines.referring import called_next
from kbuild_klp.lines.ubsan import size_read
from kbuild_klp.object.parts import PIECE
from kbuild_klp.object.view import ObjectView

UBSAN = at_line(
    40,
    """extern int table[8];
int f(int x) { return table[x]; }
int g(int x) { return 1 << x; }
""",
)
UBSAN_FLAGS = ("-fsanitize=bounds", "-fsanitize=shift")


def test_ubsan_data_hold_lines(cc: Pairs) -> None:
    assert cc.diff_without_sources(UBSAN, shifted(UBSAN), *UBSAN_FLAGS) == {"f": RECORDS, "g": RECORDS}


def test_columns_in_ubsan_data_are_lines(cc: Pairs) -> None:
    wider = UBSAN.replace("{ return table", "{   return table")
    assert cc.diff_without_sources(UBSAN, wider, *UBSAN_FLAGS) == {"f": RECORDS}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("table[8]", "table[9]"),
        ("1 << x", "1U << x"),
    ],
)
def test_everything_else_in_ubsan_data_is_a_change(gcc: Pairs, before: str, after: str) -> None:
    found = gcc.diff_without_sources(UBSAN, shifted(UBSAN.replace(before, after)), *UBSAN_FLAGS)
    assert before in UBSAN and CHANGED in found.values()


UNNAMED = """struct item { int n; struct { int a, b; } values[6]; int last; };
int f(struct item *item, int i) { return item->values[i].a; }
"""


@pytest.mark.parametrize("lines", [1, 9, 4321])
@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [("", "", RECORDS), ("values[6]", "values[7]", CHANGED), ("struct { int a", "union { int a", CHANGED)],
)
def test_the_place_of_a_type_without_a_name_is_a_line(
    cc: Pairs, lines: int, before: str, after: str, expected: Answer
) -> None:
    """Clang calls it after its place, so that another line of a header changed each function that uses the type."""
    flags = ("-fsanitize=bounds", "-fsanitize=alignment", "-fsanitize=object-size")
    new = lines * "\n" + UNNAMED.replace(before, after)
    assert cc.diff_without_sources(UNNAMED, new, *flags) == {"f": expected}


def test_a_string_that_goes_to_other_memory_is_no_line(gcc: Pairs) -> None:
    """Init memory is given back after boot; that the UBSAN data beside it hold a line does not matter."""
    source = at_line(
        40,
        """extern int table[8];
void show(const char *);
int f(int x)
{
	const char *text;
	asm volatile(".pushsection .rodata.text,\\"a\\"\\n7: .string \\"text\\"\\n.popsection\\nmovq $7b, %0" : "=r"(text));
	show(text);
	return table[x];
}
""",
    )
    moved = shifted(source).replace(".rodata.text", ".init.rodata")
    assert gcc.diff_without_sources(source, shifted(source), *UBSAN_FLAGS) == {"f": RECORDS}
    assert gcc.diff_without_sources(source, moved, *UBSAN_FLAGS) == {"f": CHANGED}


UNNECESSARY = at_line(
    40,
    r"""#define S_(x) #x
#define S(x) S_(x)
int f(int x)
{
	asm volatile("movq $.Lrecord, %%rdi\n call __ubsan_handle_out_of_bounds" : : : "rdi", "memory");
	return x;
}
asm(".data\n .balign 8\n.Lrecord: .quad .Lfile\n .long " S(__LINE__) ", 7\n .quad .Ltype, .Ltype\n"
    ".Ltype: .short 0, 10\n .asciz \"int [4]\"\n .balign 8\n"
    ".quad .Lfile\n .long " S(__LINE__) ", 9\n .quad .Ltype, .Lother\n"
    ".Lother: .short 0, 11\n .asciz \"long\"\n .balign 8\n"
    ".quad .Lfile\n .long " S(__LINE__) ", 9\n .quad .Lother, .Ltype\n"
    ".section .rodata.str1.1,\"aMS\",@progbits,1\n.Lfile: .asciz " S(__FILE__) "\n.text");
""",
)


def test_records_of_unnecessary_checks_behind_a_type_are_nothing(gcc: Pairs) -> None:
    """Nobody refers to them, so they are taken for a part of the type."""
    assert gcc.diff_without_sources(UNNECESSARY, shifted(UNNECESSARY)) == {"f": RECORDS}
    for before, after, want in (("int [4]", "int [5]", CHANGED), ("0, 11", "0, 12", RECORDS)):
        other = shifted(UNNECESSARY.replace(before, after))
        assert before in UNNECESSARY and gcc.diff_without_sources(UNNECESSARY, other) == {"f": want}


LOADED_BEFORE = at_line(
    40,
    r"""#define S_(x) #x
#define S(x) S_(x)
int f(int x)
{
	asm volatile("movq $.Lrecord, %%r12\n call use\n movq %%r12, %%rdi\n call HANDLER" : : : "rdi", "r12", "memory");
	return x;
}
asm(".data\n .balign 8\n.Lrecord: .quad .Lfile\n .long " S(__LINE__) ", 7\n .quad .Ltype, .Ltype\n"
    ".Ltype: .short 0xffff, 0\n .asciz \"'int [4]'\"\n .balign 8\n"
    ".section .rodata.str1.1,\"aMS\",@progbits,1\n.Lfile: .asciz " S(__FILE__) "\n.text");
""",
)


@pytest.mark.parametrize(
    ("edit", "want"),
    [
        (("", ""), RECORDS),
        (("'int [4]'", "'int [5]'"), CHANGED),
        (("0xffff, 0", "0xffff, 1"), CHANGED),
        ((".quad .Ltype, .Ltype", ".quad .Ltype, .Lfile"), CHANGED),
    ],
)
def test_record_that_is_loaded_before_other_calls(gcc: Pairs, edit: tuple[str, str], want: Answer) -> None:
    """GCC 6 to 9 load a record in front of a loop. It is known by the type that it names."""
    source = LOADED_BEFORE.replace("HANDLER", "__ubsan_handle_out_of_bounds")
    assert gcc.diff_without_sources(source, shifted(source.replace(*edit))) == {"f": want}


@pytest.mark.parametrize(
    ("edit", "handler"),
    [
        (("", ""), "report"),  # UBSAN is not called
        (("'int [4]'", "int [4]"), "__ubsan_handle_out_of_bounds"),  # this is no type
        (("0xffff, 0", "7, 0"), "__ubsan_handle_out_of_bounds"),
    ],
)
def test_what_only_looks_like_such_a_record(gcc: Pairs, edit: tuple[str, str], handler: str) -> None:
    source = LOADED_BEFORE.replace("HANDLER", handler).replace(*edit)
    assert gcc.diff_without_sources(source, shifted(source)) == {"f": CHANGED}


LEFT_BEHIND = r"""#define S_(x) #x
#define S(x) S_(x)
void report(void *);
int f(int x)
{
	asm volatile("movq $.Lrecord, %%rdi\n call HANDLER" : : : "rdi", "memory");
	return x;
}
asm(".data\n .balign 8\n.Lrecord: .quad .Lfile\n .long " S(__LINE__) ", 7\n .quad .Ltype, .Ltype\n"
    BEHIND_RECORD
    ".Ltype: .short 0, 10\n .asciz \"int [4]\"\n .balign 4\n"
    BEHIND_TYPE
    ".section .rodata.str1.1,\"aMS\",@progbits,1\n.Lfile: .asciz " S(__FILE__) "\n.text");
"""
DEAD = '".quad .Lfile\\n .long " S(__LINE__) ", 9\\n .quad .Ltype, .Ltype\\n"'


def _left_behind(behind_record: str, behind_type: str, handler: str = "__ubsan_handle_out_of_bounds") -> str:
    text = LEFT_BEHIND.replace("HANDLER", handler)
    return at_line(40, text.replace("BEHIND_RECORD", behind_record).replace("BEHIND_TYPE", behind_type))


@pytest.mark.parametrize(("record", "type_"), [(DEAD, '""'), ('""', DEAD), (DEAD, DEAD)])
def test_a_check_becomes_unnecessary(gcc: Pairs, record: str, type_: str) -> None:
    """Its record stays, behind that of another check: nvidia-uvm.ko of Ubuntu's 7.0 has two functions of this kind."""
    some, none = _left_behind(record, type_), _left_behind('""', '""')
    for before, after in ((some, none), (none, some)):
        assert gcc.diff_without_sources(before, after) == {}
        assert gcc.diff_without_sources(before, shifted(after)) == {"f": RECORDS}
        for was, is_ in (("int [4]", "int [5]"), ('.Ltype, .Ltype\\n"\n', '.Ltype, .Lfile\\n"\n')):
            other = after.replace(was, is_, 1)
            assert other != after and gcc.diff_without_sources(before, other) == {"f": CHANGED}


UNUSED = """
.text
.globl f
.type f, @function
f: movq $.Lfile, %rdi
ret
.size f, . - f
.data
.balign 32
RECORDS
.section .rodata
.Lfile: .asciz "include/linux/slab.h"
"""
_RECORD = ".quad .Lfile\n.long {line}, 19\n.quad .Ltype, .Lindex\n"
_TYPES = '.Ltype: .short 0, 10\n.asciz "int [4]"\n.Lindex: .short 0, 11\n.asciz "int"\n.balign 32\n'


def _unused(*records: str, behind: str = "") -> str:
    return UNUSED.replace("RECORDS", "".join(records) + _TYPES * any(".Ltype" in it for it in records) + behind)


@pytest.mark.parametrize(
    ("before", "after", "is_same"),
    [
        (_unused(_RECORD.format(line=592)), _unused(), True),
        (_unused(_RECORD.format(line=592)), _unused(_RECORD.format(line=601), _RECORD.format(line=30)), True),
        (_unused(_RECORD.format(line=592), behind=_RECORD.format(line=7)), _unused(), True),
        # What may be more than records, or other ones.
        (_unused(".quad .Lfile\n.long 592, 19\n"), _unused(), False),
        (_unused(_RECORD.format(line=592), ".quad 77\n.balign 32\n"), _unused(".quad 78\n.balign 32\n"), False),
        (_unused(_RECORD.format(line=592)), _unused(".quad 5\n.balign 32\n"), False),
        (_unused(_RECORD.format(line=592).replace(".Lindex", "f")), _unused(), False),
    ],
)
def test_records_that_nobody_refers_to_come_and_go(tmp_path: Path, before: str, after: str, is_same: bool) -> None:
    """Those of slab.h in Ubuntu's modules of 6.8: what refers to them went, and that is told."""
    gcc = Compiler("gcc", tmp_path)
    for old, new in ((before, after), (after, before)):
        report = compare(ObjectBuild(str(gcc.assembly(old))), ObjectBuild(str(gcc.assembly(new))), 1)
        assert {change[:2] for change in changes_of(report)} == (set() if is_same else {(".data", "section")})


@pytest.mark.parametrize("handler", ["report", "__ubsan_handle_of_tomorrow"])
def test_what_others_read_is_not_cut(gcc: Pairs, handler: str) -> None:
    """What is handed to a function that is not known may be longer than a record of UBSAN."""
    some, none = _left_behind(DEAD, '""', handler), _left_behind('""', '""', handler)
    assert gcc.diff_without_sources(some, none) == {"f": CHANGED}


CHECKED = """extern int table[8]; enum color { RED, GREEN }; _Bool flag(void);
int f_index(int x) { return table[x]; }
int f_shift(int x, int y) { return x << y; }
int f_add(int x, int y) { return x + y; }
int f_sub(int x, int y) { return x - y; }
int f_mul(int x, int y) { return x * y; }
int f_negate(int x) { return -x; }
int f_divide(int x, int y) { return x / y; }
int f_load(_Bool *x) { return *x; }
int f_member(struct { long a, b; } *x) { return x->b; }
char *f_pointer(char *x, unsigned long y) { return x + y; }
int f_vla(int x) { char own[x]; __builtin_memset(own, x, x); return own[x / 2]; }
__attribute__((nonnull)) int callee(char *);
int f_argument(char *x) { return callee(x); }
int f_builtin(unsigned x) { return __builtin_clz(x); }
int f_unreachable(int x) { if (x) __builtin_unreachable(); return 1; }
"""
CHECKS = ("-fsanitize=undefined,bounds", "-w", "-O1")


@pytest.mark.parametrize("name", ["gcc", "clang-19"])
def test_sizes_of_records(name: str, tmp_path: Path) -> None:
    """What compilers hand to the functions of UBSAN is as long as its structures, and no longer."""
    command = shutil.which(name) or pytest.skip(f"no {name}")
    view = ObjectView(str(Compiler(command, tmp_path).object(CHECKED, *CHECKS)))
    handlers = set()
    parts = [part for part in range(len(view.canonical.parts.start)) if view.canonical.parts.kind[part] == PIECE]
    for part in parts:
        for row in view.references_to(part):
            handler = called_next(view, row)
            if not handler.startswith("__ubsan_handle_"):
                continue
            read = size_read(view, part)
            assert read is not None, handler
            last = max(view.reference_place(part, index) for index in view.reference_range(part)) + 8
            assert last <= read <= view.size(part), handler
            assert not view.data(part)[read:].strip(b"\0"), handler
            handlers.add(handler)
    assert len(handlers) >= 12, handlers
