# SPDX-License-Identifier: GPL-2.0-only
"""References and data: what has a name is compared under it, what has none by its content at who uses it."""

from __future__ import annotations

import pytest
from mutate import Mutator
from snippets import Compiler, changed, changes_of, data_changed, diff_objects

from kbuild_klp.builds.single_object import ObjectBuild
from kbuild_klp.compare.passes import compare

# -- strings ----------------------------------------------------------------------------------------------------------

STRINGS = """
int log(const char *, ...);
%s
int a(int x) { return log("alpha %%d\\n", x) + 1; }
int b(int x) { return log("%s", x) + 2; }
int c(int x) { return log("gamma %%d\\n", x) + 3; }
const char *names[] = { "one", "two", "three" };
"""


def test_changed_string_changes_its_user(cc: Compiler) -> None:
    assert cc.diff(STRINGS % ("", "beta"), STRINGS % ("", "BETA")) == changed("b")


@pytest.mark.parametrize(
    "longer", ["beta, and more", "", "a string so long that the kernel's compilers align it to 8 bytes"]
)
def test_string_of_another_length_moves_the_others_and_changes_none(cc: Compiler, longer: str) -> None:
    assert cc.diff(STRINGS % ("", "beta"), STRINGS % ("", longer)) == changed("b")


def test_string_that_becomes_the_same_as_another_changes_its_user(cc: Compiler) -> None:
    assert cc.diff(STRINGS % ("", "beta"), STRINGS % ("", "gamma %%d\\n")) == changed("b")


def test_strings_added_at_the_top_move_the_others_and_change_none(cc: Compiler) -> None:
    head = 'int z(void) { return log("a fresh one") + log("and another"); }'
    assert cc.diff(STRINGS % ("", "beta"), STRINGS % (head, "beta")) == {("z", "function", "added")}


def test_string_in_a_table_of_pointers_changes_the_table(cc: Compiler) -> None:
    old = STRINGS % ("", "beta")
    assert cc.diff(old, old.replace('"two"', '"TWO"')) == data_changed("names")


def test_middle_of_a_string_means_the_whole_string(gcc: Compiler) -> None:
    """What stands before the address can be reached as well: "0123456789abcdef"[i + 3] with i below 0."""
    source = (
        ".text\n.globl f\n.type f, @function\nf: mov $.LC0+3, %rdi\nret\n"
        '.size f, . - f\n.section .rodata.str1.1,"aMS",@progbits,1\n.LC0: .string "{}"\n'
    )
    assert gcc.diff_assembly(source.format("foobar"), source.format("Foobar")) == changed("f")
    assert gcc.diff_assembly(source.format("foobar"), source.format("foobaz")) == changed("f")


def test_wide_strings_are_compared(cc: Compiler) -> None:
    source = 'const void *f(void) {{ return L"{}"; }} const void *g(void) {{ return L"other"; }}'
    assert cc.diff(source.format("wide"), source.format("WIDE")) == changed("f")


def test_string_with_a_zero_inside_is_compared_to_its_end(cc: Compiler) -> None:
    source = (
        'int log(const char *, ...); int f(void) {{ return log("ab\\0{}") + 1; '
        '}} int g(void) {{ return log("ab") + 2; }}'
    )
    assert cc.diff(source.format("cd"), source.format("ce")) == changed("f")


def test_string_nobody_uses_is_found_in_its_section(gcc: Compiler) -> None:
    source = '.section .rodata.str1.1,"aMS",@progbits,1\n.string "used"\n.string "{}"\n'
    assert gcc.diff_assembly(source.format("unused"), source.format("UNUSED")) == {
        (".rodata.str1.1", "section", "changed")
    }


# -- constants, tables, other data without a name of its own ----------------------------------------------------------

SWITCH = """
int ext(int);
int before(int x) { switch (x) { %s case 0: return ext(11); case 1: return ext(x) * 3; case 2: return ext(x * 5) - 7;
  case 3: return ext(x ^ 3); case 4: return -ext(x); case 5: return ext(x) / 3; default: return 0; } }
int target(int x) { switch (x) { case 0: return ext(1); case 1: return ext(x) + %s; case %s: return ext(x + 2) - 2;
  case 3: return ext(x - 3); case 4: return ext(x) ^ 9; case 5: return ext(x) >> 3;
    case 6: return 77; default: return 1; } }
"""


def test_jump_table_of_another_function_leaves_one_alone(gcc: Compiler) -> None:
    head = "case 6: return ext(66) + 66; case 7: return ext(77) + 7; case 8: return ext(88) - 3;"
    assert gcc.diff(SWITCH % ("", "1", "2"), SWITCH % (head, "1", "2")) == changed("before")


JUMP_TABLE = """
    .text
    .globl f
    .type f, @function
f:  jmp *.L4(,%rdi,8)
.La: mov $1, %eax
    ret
.Lb: mov $2, %eax
    ret
    .size f, . - f
    .globl g
    .type g, @function
g:  jmp *.L5(,%rdi,8)
.Lc: ret
    .size g, . - g
    .section .rodata
    .align 8
    {0}
.L4: .quad {1}
    .quad {2}
.L5: .quad .Lc
    .quad .Lc
"""


def test_jump_table_with_entries_exchanged_changes_its_owner(gcc: Compiler) -> None:
    """No byte of code differs, and no byte of data: only where the entries point."""
    old = JUMP_TABLE.format("", ".La", ".Lb")
    assert gcc.diff_assembly(old, JUMP_TABLE.format("", ".Lb", ".La")) == changed("f")
    assert gcc.diff_assembly(old, JUMP_TABLE.format("", ".La", ".La")) == changed("f")


def test_jump_table_that_moves_changes_nobody(gcc: Compiler) -> None:
    new = JUMP_TABLE.format(".globl v\n.type v, @object\nv: .quad 3\n.size v, 8", ".La", ".Lb")
    assert gcc.diff_assembly(JUMP_TABLE.format("", ".La", ".Lb"), new) == {("v", "data", "added")}


CONVERSION = """
%s
int f(int x) { switch (x) { case 0: return 17; case 1: return 4; case 2: return %s; case 3: return 55; case 4: return 9;
  default: return -1; } }
int g(int x) { switch (x) { case 0: return 7; case 1: return 44; case 2: return 23; case 3: return 5; case 4: return 90;
  default: return -2; } }
"""


def test_table_made_of_a_switch_changes_its_function(cc: Compiler) -> None:
    """CSWTCH.N of GCC, switch.table.f of Clang."""
    assert cc.diff(CONVERSION % ("", 23), CONVERSION % ("", 24)) in (changed("f"), data_changed("switch.table.f"))


def test_table_made_of_a_switch_may_be_renumbered(gcc: Compiler) -> None:
    head = (CONVERSION.split("\n")[2] + "\n" + CONVERSION.split("\n")[3]).replace("int f", "int z") % 1001
    assert gcc.diff(CONVERSION % ("", 23), CONVERSION % (head, 23)) == {("z", "function", "added")}


def test_function_names_follow_their_functions(cc: Compiler) -> None:
    source = """
    int log(const char *); {}
    int f(void) {{ return log(__func__) + 1; }} int g(void) {{ return log(__func__) + 2; }}
    """
    fresh = "int z(void) { return log(__func__) + 3; }"
    assert cc.diff(source.format(""), source.format(fresh)) - {("__func__.z", "data", "added")} <= {
        ("z", "function", "added"),
        ("z.__func__", "data", "added"),
        ("__func__", "data", "added"),
    }
    assert cc.diff(source.format(""), source.format(fresh)) >= {("z", "function", "added")}


def test_static_const_table_in_a_function_changes_the_function(gcc: Compiler) -> None:
    source = (
        "int f(int x) {{ static const int table[4] = {{ 1, 2, {}, 4 }}; "
        "return table[x & 3]; }} int g(void) {{ return 1; }}"
    )
    assert gcc.diff(source.format(3), source.format(33)) == changed("f")


def test_static_const_table_shared_by_two_functions_changes_both(gcc: Compiler) -> None:
    source = """
    static inline __attribute__((always_inline)) int get(int x) {{ static const int t[4] = {{ 1, 2, {}, 4 }};
      return t[x & 3]; }}
    int f(int x) {{ return get(x); }} int g(int x) {{ return get(x) * 3; }} int h(void) {{ return 1; }}
    """
    assert gcc.diff(source.format(3), source.format(33)) == changed("f", "g")


def test_initialiser_of_a_structure_on_the_stack_changes_its_function(cc: Compiler) -> None:
    source = """
    struct s {{ long v[9]; }}; int use(struct s *);
    int f(void) {{ struct s s = {{ {{ 1, 2, 3, {}, 5, 6, 7, 8, 9 }} }}; return use(&s) + 1; }}
    int g(void) {{ struct s s = {{ {{ 9, 8, 7, 6, 5, 4, 3, 2, 1 }} }}; return use(&s) + 2; }}
    """
    assert cc.diff(source.format(4), source.format(44)) == changed("f")


def test_constant_pool_entry_changes_its_function(gcc: Compiler) -> None:
    source = """
    .text\n.globl f\n.type f, @function\nf: movaps .LC0(%rip), %xmm0\nret\n.size f, . - f
    .globl g\n.type g, @function\ng: movaps .LC1(%rip), %xmm0\nret\n.size g, . - g
    .section .rodata.cst16,"aM",@progbits,16\n.align 16\n{}
    .LC0: .quad 1, {}\n.LC1: .quad 3, 4
    """
    assert gcc.diff_assembly(source.format("", 2), source.format("", 22)) == changed("f")
    # The constant that comes in is used by nobody.
    assert gcc.diff_assembly(source.format("", 2), source.format(".quad 7, 8", 2)) == {
        (".rodata.cst16", "section", "changed")
    }


def test_nested_content_is_followed(gcc: Compiler) -> None:
    """A nameless table of pointers to nameless records that point to strings."""
    source = """
    .text\n.globl f\n.type f, @function\nf: mov .Ltable(,%rdi,8), %rax\nret\n.size f, . - f
    .globl g\n.type g, @function\ng: ret\n.size g, . - g
    .section .rodata\n.align 8\n.Ltable: .quad .Lr1, .Lr2\n.Lr1: .quad 1, .Ls1\n.Lr2: .quad 2, .Ls2
    .section .rodata.str1.1,"aMS",@progbits,1\n.Ls1: .string "first"\n.Ls2: .string "{}"
    """
    assert gcc.diff_assembly(source.format("second"), source.format("SECOND")) == changed("f")


@pytest.mark.parametrize("used", [True, False])
def test_nameless_data_that_refers_to_itself_is_compared(gcc: Compiler, used: bool) -> None:
    """An empty list head, a ring of records: nobody else need refer to it."""
    source = """
    .text\n.globl f\n.type f, @function\nf: {}\nret\n.size f, . - f
    .section .rodata\n.align 8\n.L1: .quad .L2, {}\n.L2: .quad .L1, {}
    """
    use = "mov $.L1, %rax" if used else "nop"
    expected = changed("f") if used else {(".rodata", "section", "changed")}
    assert gcc.diff_assembly(source.format(use, 1, 2), source.format(use, 3, 2)) == expected
    assert gcc.diff_assembly(source.format(use, 1, 2), source.format(use, 1, 3)) == expected


@pytest.mark.xfail(strict=True, reason="of a ring, who refers to the second member does not know of the first")
def test_two_users_of_nameless_data_that_refers_to_itself_both_change(gcc: Compiler) -> None:
    source = """
    .text\n.globl f\n.type f, @function\nf: mov $.L1, %rax\nret\n.size f, . - f
    .globl g\n.type g, @function\ng: mov $.L2, %rcx\nret\n.size g, . - g
    .section .rodata\n.align 8\n.L1: .quad .L2, {}\n.L2: .quad .L1, {}
    """
    assert gcc.diff_assembly(source.format(1, 2), source.format(3, 2)) == changed("f", "g")
    assert gcc.diff_assembly(source.format(1, 2), source.format(1, 3)) == changed("f", "g")


def test_nameless_table_that_points_to_the_other_static_of_that_name_is_found(gcc: Compiler) -> None:
    """Both pointers look alike without their numbers, and so do the variables."""
    source = """
    .text\n.globl f\n.type f, @function\nf: mov .Ltable(,%rdi,8), %rax\nret\n.size f, . - f
    .globl g\n.type g, @function\ng: mov $key.1, %rax\nret\n.size g, . - g
    .section .rodata\n.align 8\n.Ltable: .quad key.{}
    .bss\n.type key.0, @object\nkey.0: .skip 8\n.size key.0, 8\n.type key.1, @object\nkey.1: .skip 8\n.size key.1, 8
    """
    answer = gcc.diff_assembly(source.format(0), source.format(1))
    assert answer and answer <= changed("f", "g")


def test_data_that_no_symbol_covers_is_an_entry_of_its_section(gcc: Compiler) -> None:
    source = ".data\n.globl v\n.type v, @object\nv: .quad 1\n.size v, 8\n.quad {}\n"
    assert gcc.diff_assembly(source.format(2), source.format(3)) == {(".data", "section", "changed")}
    assert gcc.diff_assembly(source.format("a"), source.format("b")) == {(".data", "section", "changed")}


def test_rate_limit_and_descriptor_are_compared_by_content(cc: Compiler) -> None:
    source = """
    struct rs {{ int interval, burst; }}; int limited(struct rs *), log(void *);
    int f(int x) {{ static struct rs _rs = {{ {}, 10 }}; return limited(&_rs) + x; }}
    int g(int x) {{ static struct rs _rs = {{ 5000, 10 }}; return limited(&_rs) - x; }}
    """
    assert cc.diff(source.format(5000), source.format(6000)) == changed("f")


DYNDBG = """
struct _ddebug {{ const char *modname, *function, *filename, *format; unsigned int lineno : 18, class_id : 6, flags : 8;
  void *key[2]; }};
int emit(struct _ddebug *);
{0}
int f(int x) {{ static struct _ddebug descriptor __attribute__((section("__dyndbg"), used, aligned(8))) =
  {{ "m", "f", "file.c", "{1}", {2}, {3}, {4} }}; return emit(&descriptor) + x; }}
int g(int x) {{ static struct _ddebug descriptor __attribute__((section("__dyndbg"), used, aligned(8))) =
  {{ "m", "g", "file.c", "g", 9, 1, 2 }}; return emit(&descriptor) - x; }}
"""


def test_dynamic_debug_line_is_a_line(cc: Compiler) -> None:
    old = DYNDBG.format("", "text", 40, 1, 2)
    assert cc.diff(old, DYNDBG.format("", "text", 41, 1, 2)) == {("f", "function", "line-only")}
    assert cc.diff(old, DYNDBG.format("", "text", 200000, 1, 2)) == {("f", "function", "line-only")}


@pytest.mark.parametrize("fields", [("TEXT", 40, 1, 2), ("text", 40, 2, 2), ("text", 40, 1, 3), ("text", 41, 1, 3)])
def test_everything_else_of_a_dynamic_debug_descriptor_is_not(cc: Compiler, fields: tuple[object, ...]) -> None:
    assert cc.diff(DYNDBG.format("", "text", 40, 1, 2), DYNDBG.format("", *fields)) == changed("f")


def test_descriptor_comes_and_goes_with_the_function_that_has_it(cc: Compiler) -> None:
    old = DYNDBG.format("", "text", 40, 1, 2)
    more = old[old.index("int g(") :].replace("int g(", "int h(").replace('"g"', '"h"')
    assert cc.diff(old, old + more) == {("h", "function", "added")}


# -- named data -------------------------------------------------------------------------------------------------------

NAMED = """
int ext(int), ext2(int);
struct ops {{ int (*call)(int); const char *name; long flags; }};
{0}
static int local = 5;
struct ops ops = {{ {1}, "{2}", {3} }};
const struct ops other = {{ ext2, "other", 7 }};
int target[8], above[4];
int *where = &{4};
int f(int x) {{ return ops.call(x) + local++ + other.call(x) + target[x]; }}
"""


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (("", "ext2", "name", 1, "target[2]"), {"ops"}),
        (("", "ext", "NAME", 1, "target[2]"), {"ops"}),
        (("", "ext", "name", 2, "target[2]"), {"ops"}),
        (("", "ext", "name", 1, "target[3]"), {"where"}),
        (("", "ext", "name", 1, "above[2]"), {"where"}),
        (("", "ext", "name", 1, "local"), {"where"}),
    ],
)
def test_initialiser_that_changes_is_found(cc: Compiler, fields: tuple[object, ...], expected: set[str]) -> None:
    assert cc.diff(NAMED.format("", "ext", "name", 1, "target[2]"), NAMED.format(*fields)) == data_changed(*expected)


def test_value_of_a_static_is_found(cc: Compiler) -> None:
    old = NAMED.format("", "ext", "name", 1, "target[2]")
    assert cc.diff(old, old.replace("local = 5", "local = 6")) == data_changed("local")


def test_static_local_is_not_the_variable_of_that_name_outside(gcc: Compiler) -> None:
    source = """
    {} int count; int g(void) {{ return ++count; }}
    int f(int x) {{ {} return count += x; }}
    int h(int x) {{ static int count; return count -= x; }}
    """
    for storage in ("", "static", "extern"):
        answer = gcc.diff(source.format(storage, "static int count;"), source.format(storage, ""))
        assert answer == changed("f") | {("count", "data", "removed")}, storage


def test_address_one_past_the_end_belongs_to_what_ends_there(gcc: Compiler) -> None:
    source = """
    .text\n.globl f\n.type f, @function\nf: mov $.Lend, %rax\nmov $table, %rcx\nret\n.size f, . - f
    .data\n.align 16\n.type table, @object\ntable: .quad 1, 2, {}\n.size table, . - table\n.Lend:
    {}
    """
    after = ".align 32\n.type v, @object\nv: .quad {}\n.size v, 8\n"
    assert gcc.diff_assembly(source.format(3, ""), source.format(4, "")) == data_changed("table")
    assert gcc.diff_assembly(source.format(3, ""), source.format(3, after.format(1))) == {("v", "data", "added")}


def test_per_cpu_and_thread_like_sections_are_compared(cc: Compiler) -> None:
    source = (
        'int v __attribute__((section(".data..percpu"))) = {}; int w __attribute__((section(".data..percpu"))) = 2;'
    )
    assert cc.diff(source.format(1), source.format(3)) == data_changed("v")


def test_order_in_an_array_made_by_the_linker_is_found(gcc: Compiler) -> None:
    line = 'static void *p_{0} __attribute__((used, section("__param_like"))) = {0};'
    source = "int a(void) { return 1; } int b(void) { return 2; }"
    flags = ["-fno-toplevel-reorder"]
    answer = gcc.diff(
        source + line.format("a") + line.format("b"), source + line.format("b") + line.format("a"), *flags
    )
    assert answer == {("__param_like", "section", "changed")}


def test_build_id_of_the_vdso_means_nothing(cc: Compiler) -> None:
    """It is a digest of debug information too; all other bytes of its image in the kernel count."""
    image = "const unsigned char raw_data[] = {{ 127, 4, 0, 0, 0, 20, 0, 0, 0, {}, 0, 0, 0, 'G', 'N', 'U', 0, {} }};"
    old = image.format(3, "1, " * 20 + "5")
    assert cc.diff(old, image.format(3, "2, " * 20 + "5")) == set()
    assert cc.diff(old, image.format(3, "1, " * 20 + "6")) == data_changed("raw_data")
    assert cc.diff(image.format(4, "1, " * 20), image.format(4, "2, " * 20)) == data_changed("raw_data")


# -- relocations ------------------------------------------------------------------------------------------------------


def test_width_of_a_relocation_is_found(gcc: Compiler) -> None:
    source = ".data\n.globl v\n.type v, @object\nv: {}\n.size v, 8\n"
    assert gcc.diff_assembly(source.format(".quad ext"), source.format(".long ext, 0")) == data_changed("v")
    assert gcc.diff_assembly(source.format(".quad ext"), source.format(".quad ext - .")) == data_changed("v")


def test_relocation_of_an_unknown_type_is_compared_raw_and_warned_about_once(gcc: Compiler) -> None:
    text = (
        ".data\n.globl v\n.type v, @object\nv: .quad ext, ext\n"
        ".size v, 16\n.globl w\n.type w, @object\nw: .quad 1\n.size w, 8\n"
    )
    plain = gcc.assembly(text)
    mutator = Mutator(plain.read_bytes())
    unknown = plain.with_name("unknown.o"), plain.with_name("other.o")
    data = bytearray(plain.read_bytes())
    for at, *_ in mutator.relocations:
        data[at + 8] = 250
    unknown[0].write_bytes(data)
    # The linker might leave these bytes as they are: they count.
    data[int(mutator.object.sections[mutator.relocations[0][1]]["offset"])] ^= 1
    unknown[1].write_bytes(data)
    for first, second, warned in ((plain, unknown[0], 1), (unknown[0], unknown[1], 2), (unknown[1], unknown[1], 2)):
        report = compare(ObjectBuild(str(first)), ObjectBuild(str(second)))
        assert changes_of(report) == (set() if first == second else data_changed("v"))
        assert len(report.warnings) == warned and all("type 250" in warning for warning in report.warnings)


def test_unknown_allocated_section_is_data(gcc: Compiler) -> None:
    source = '.section vendor_table, "a"\n.quad {}\n.text\n.globl f\n.type f, @function\nf: ret\n.size f, 1\n'
    assert gcc.diff_assembly(source.format(1), source.format(2)) == {("vendor_table", "section", "changed")}
    old, new = gcc.assembly(source.format("f")), gcc.assembly(source.format("g"))
    answer = {("f", "function", "changed"), ("vendor_table", "section", "changed")}
    assert diff_objects(old, new, unknown="vendor_table") == answer, "f lost it, and nobody here got it"


def test_section_without_content_of_its_own_that_goes_is_found(gcc: Compiler) -> None:
    source = '.section vendor_table, "a"\n.quad 1\n'
    assert gcc.diff_assembly(source, "") == {("vendor_table", "section", "removed")}
    assert gcc.diff_assembly("", source) == {("vendor_table", "section", "added")}


def test_debug_information_with_sections_for_functions_and_data(cc: Compiler) -> None:
    source = NAMED.format("", "ext", "name", 1, "target[2]") + STRINGS.replace("%%", "%").replace("%s", "")
    flags = ["-ffunction-sections", "-fdata-sections"]
    assert diff_objects(cc.object(source, *flags), cc.object(source, *flags, "-g")) == set()


def test_place_inside_a_constant_is_another_than_its_start(gcc: Compiler) -> None:
    """Where all bytes of a constant are the same, what stands from its middle on looks like all of it."""
    text = """
    .section .rodata.cst8, "aM", @progbits, 8
    .LC0: .quad {value}\n .LC1: .quad 7
    .text\n.globl f\n.type f, @function\nf: movzwl .LC{at}(%rip), %eax\n movq .LC1(%rip), %rdx\n ret\n.size f, . - f
    """
    old = text.format(value=0, at=0)
    assert gcc.diff_assembly(old, text.format(value=0, at="0+2")) == changed("f")
    assert gcc.diff_assembly(old, text.format(value=1, at=0)) == changed("f")
    assert gcc.diff_assembly(text.format(value=0, at="0+2"), text.format(value=0, at="0+4")) == changed("f")


def test_one_past_the_last_string_is_not_the_empty_string(gcc: Compiler) -> None:
    text = """
    .section .rodata.str1.1, "aMS", @progbits, 1\n.LC0: .string "a"\n.LC1: .string ""\n
    .text\n.globl f\n.type f, @function\nf: movq $.LC1+{at}, %rsi\n movq $.LC0, %rdi\n ret\n.size f, . - f
    """
    assert gcc.diff_assembly(text.format(at=0), text.format(at=1)) == changed("f")
