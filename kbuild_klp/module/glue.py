# SPDX-License-Identifier: GPL-2.0-only
"""The only C code of a livepatch module: it registers the patch with the kernel (include/linux/livepatch.h)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from kbuild_klp.arch.registry import Architecture
from kbuild_klp.module.live_code import OPCODE
from kbuild_klp.module.running import VMLINUX, PatchedFunction, livepatch_symbol, module_name
from kbuild_klp.module.runtime_constants import RuntimeConstant

FUNCTIONS, OBJECTS = "klp_old_functions_{}", "klp_old_objects"
"""The arrays of struct klp_func, by the number of the unit, and of struct klp_object."""
LIVE, OPCODES = "klp_live_{}", "klp_opcodes_{}"
"""The arrays of places where the running kernel has a constant, by its table, and of what stands before these."""

_BEGIN = """\
// SPDX-License-Identifier: GPL-2.0
// Made by kbuild-klp.

#include <linux/init.h>
#include <linux/livepatch.h>
#include <linux/module.h>

"""

_KEY = """\
#include <linux/jump_label.h>

struct static_key {key};

"""

# The function that writes is no export, but one that the livepatch loader finds. It is not called by its address: with
# IBT or kCFI only functions can be of which the kernel itself takes the address.
_WRITER = """\
#include <linux/errno.h>
#include <linux/printk.h>
#include <linux/string.h>

asm(".pushsection .text, \\"ax\\"\\n"
    ".globl klp_write_code\\n"
    ".type klp_write_code, @function\\n"
    "klp_write_code: {tail_call} \\"{writer}\\"\\n"
    ".size klp_write_code, . - klp_write_code\\n"
    ".popsection");
void *klp_write_code(void *where, const void *what, unsigned long size);

/*
 * Write a constant of the running kernel into new code. It is what stands at the
 * places in live, but where a probe has put something over the instruction.
 */
static int __init write_constant(const int *places, unsigned int count, unsigned long size,
	const unsigned char *const *live, unsigned int number, const unsigned char (*opcodes)[{opcode}])
{{
	const unsigned char *value = NULL;
	unsigned int i;

	for (i = 0; i < number; i++) {{
		if (memcmp(live[i] - {opcode}, opcodes[i], {opcode}))
			continue;
		if (value && memcmp(value, live[i], size))
			return -EINVAL;
		value = live[i];
	}}
	if (!value) {{
		pr_err("a probe stands where a constant is to be read: remove it, and load this again\\n");
		return -EBUSY;
	}}
	for (i = 0; i < count; i++) {{
		if (!klp_write_code((void *)((const char *)&places[i] + places[i]), value, size))
			return -EFAULT;
	}}
	return 0;
}}

"""

_CONSTANTS = """\
asm(".pushsection .init.rodata, \\"a\\"\\n"
    ".balign 8\\n"
    ".globl {live}\\n"
    ".type {live}, @object\\n"
    "{live}:\\n"
{rows}    ".size {live}, . - {live}\\n"
    ".popsection");
extern const unsigned char *const {live}[];
static const unsigned char {opcodes}[][{opcode}] = {{ {bytes} }};
"""

_END = """\
static struct klp_patch patch = {{
	.mod = THIS_MODULE,
	.objs = {objects},
	.replace = {replace},
}};

static int __init livepatch_init(void)
{{
{declared}{begin}{write}	return klp_enable_patch(&patch);
}}

static void __exit livepatch_exit(void)
{{
}}

module_init(livepatch_init);
module_exit(livepatch_exit);
MODULE_LICENSE("GPL");
MODULE_INFO(livepatch, "Y");
MODULE_DESCRIPTION("{description}");
"""


class GluedObject(NamedTuple):
    """An extracted object: the functions that are replaced, in the order of the array ``table`` of new addresses in it.

    ``callbacks`` are members of struct klp_callbacks, in the order of its other array; ``constants`` are to be written
    into its code, and of each table a symbol is named after ``table``.
    """

    table: str
    functions: Sequence[PatchedFunction]
    callbacks: Sequence[str] = ()
    constants: Sequence[RuntimeConstant] = ()


def glue(
    units: Mapping[str, Sequence[GluedObject]], replace: bool, description: str, arch: Architecture, key: str = ""
) -> str:
    """Return the C file; ``units`` has the extracted objects of each unit, ``replace`` makes the patch cumulative.

    ``key`` is a static key to define, which nothing enables.
    """
    begin, objects = [], []
    text = _BEGIN + (_KEY.format(key=key) if key else "")
    for number, (unit, glued) in enumerate(units.items()):
        functions = FUNCTIONS.format(number)
        text += "".join(f"extern void *const {it.table}[], *const {it.table}_callbacks[];\n" for it in glued)
        rows = [row for it in glued for row in _rows(it)]
        text += f"static struct klp_func {functions}[] = {{\n{''.join(rows)}\t{{ }}\n}};\n\n"
        name = "NULL" if unit == VMLINUX else f'"{module_name(unit)}"'
        objects.append(f"\t{{ .name = {name}, .funcs = {functions} }},\n")
        begin += [
            f"\t{OBJECTS}[{number}].callbacks.{kind} = {it.table}_callbacks[{row}];\n"
            for it in glued
            for row, kind in enumerate(it.callbacks)
        ]
        at = 0
        for it in glued:
            begin += [f"\t{functions}[{at + row}].new_func = {it.table}[{row}];\n" for row in range(len(it.functions))]
            at += len(it.functions)
    text += _constants(units, arch)
    text += f"static struct klp_object {OBJECTS}[] = {{\n{''.join(objects)}\t{{ }}\n}};\n\n"
    return text + _END.format(
        declared="\tint error;\n\n" * any(it.constants for glued in units.values() for it in glued),
        begin="".join(begin),
        write=_write(units),
        objects=OBJECTS,
        replace="true" if replace else "false",
        description=_quoted(description),
    )


def _rows(glued: GluedObject) -> Iterator[str]:
    for function in glued.functions:
        yield f'\t{{ .old_name = "{_quoted(function.name)}", .old_sympos = {function.position} }},\n'


def _constants(units: Mapping[str, Sequence[GluedObject]], arch: Architecture) -> str:
    """Return the code that writes constants into other code, and where it finds them; empty where there are none."""
    known = {constant.table: constant for glued in units.values() for it in glued for constant in it.constants}
    if not known:
        return ""
    writer = livepatch_symbol(VMLINUX, arch.write_code, 0)
    text = _WRITER.format(tail_call=arch.tail_call, writer=writer, opcode=OPCODE)
    for table, constant in known.items():
        rows = (f'\\"{livepatch_symbol(VMLINUX, place.name, 0)}\\" + {place.offset}' for place in constant.live)
        text += _CONSTANTS.format(
            live=LIVE.format(table),
            opcodes=OPCODES.format(table),
            opcode=OPCODE,
            rows="".join(f'    "\t.quad {row}\\n"\n' for row in rows),
            bytes=", ".join("{ " + ", ".join(map(hex, place.opcode)) + " }" for place in constant.live),
        )
    tables = (f"{it.table}_{each.table}" for glued in units.values() for it in glued for each in it.constants)
    return text + "".join(f"extern const int {table}[];\n" for table in tables) + "\n"


def _write(units: Mapping[str, Sequence[GluedObject]]) -> str:
    """Return the statements that write constants."""
    calls = [
        f"write_constant({it.table}_{each.table}, {each.places}, {each.size}, "
        f"{LIVE.format(each.table)}, {len(each.live)}, {OPCODES.format(each.table)})"
        for glued in units.values()
        for it in glued
        for each in it.constants
    ]
    rest = "".join(f"\tif (!error)\n\t\terror = {call};\n" for call in calls[1:])
    return f"\terror = {calls[0]};\n{rest}\tif (error)\n\t\treturn error;\n" if calls else ""


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
