# SPDX-License-Identifier: GPL-2.0-only
"""The only C code of a livepatch module: it registers the patch with the kernel (include/linux/livepatch.h)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from kbuild_klp.arch.registry import Architecture
from kbuild_klp.kernel.tree import VMLINUX
from kbuild_klp.module.live_code import OPCODE
from kbuild_klp.module.livepatch_elf import livepatch_symbol, module_name
from kbuild_klp.module.running import PatchedFunction
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
        replaced = [function for it in glued for function in it.functions]
        rows = (f'{{ .old_name = "{_quoted(it.name)}", .old_sympos = {it.position} }},' for it in replaced)
        text += "".join([f"static struct klp_func {functions}[] = {{\n", *(f"\t{row}\n" for row in rows)])
        text += "\t{ }\n};\n\n"
        name = "NULL" if unit == VMLINUX else f'"{module_name(unit)}"'
        objects.append(f"\t{{ .name = {name}, .funcs = {functions} }},\n")
        begin += [
            f"\t{OBJECTS}[{number}].callbacks.{kind} = {it.table}_callbacks[{row}];\n"
            for it in glued
            for row, kind in enumerate(it.callbacks)
        ]
        sources = (f"{it.table}[{row}]" for it in glued for row in range(len(it.functions)))
        begin += [f"\t{functions}[{at}].new_func = {source};\n" for at, source in enumerate(sources)]
    everything = [it for glued in units.values() for it in glued]
    written = {f"{it.table}_{constant.table}": constant for it in everything for constant in it.constants}
    text += _constants(written, arch) if written else ""
    text += f"static struct klp_object {OBJECTS}[] = {{\n{''.join(objects)}\t{{ }}\n}};\n\n"
    return text + _END.format(
        declared="\tint error;\n\n" if written else "",
        begin="".join(begin),
        write=_write(written),
        objects=OBJECTS,
        replace="true" if replace else "false",
        description=_quoted(description),
    )


def _constants(written: Mapping[str, RuntimeConstant], arch: Architecture) -> str:
    """Return the code that writes constants into other code, and where it finds them.

    ``written`` has each constant by the table of an extracted object that lists where to.
    """
    writer = livepatch_symbol(VMLINUX, arch.write_code, 0)
    text = _WRITER.format(tail_call=arch.tail_call, writer=writer, opcode=OPCODE)
    for table, constant in {constant.table: constant for constant in written.values()}.items():
        rows = (f'\\"{livepatch_symbol(VMLINUX, place.name, 0)}\\" + {place.offset}' for place in constant.live)
        text += _CONSTANTS.format(
            live=LIVE.format(table),
            opcodes=OPCODES.format(table),
            opcode=OPCODE,
            rows="".join(f'    "\t.quad {row}\\n"\n' for row in rows),
            bytes=", ".join("{ " + ", ".join(map(hex, place.opcode)) + " }" for place in constant.live),
        )
    return text + "".join(f"extern const int {table}[];\n" for table in written) + "\n"


def _write(written: Mapping[str, RuntimeConstant]) -> str:
    """Return the statements that write constants."""
    calls = [
        f"write_constant({table}, {constant.places}, {constant.size}, "
        f"{LIVE.format(constant.table)}, {len(constant.live)}, {OPCODES.format(constant.table)})"
        for table, constant in written.items()
    ]
    rest = "".join(f"\tif (!error)\n\t\terror = {call};\n" for call in calls[1:])
    return f"\terror = {calls[0]};\n{rest}\tif (error)\n\t\treturn error;\n" if calls else ""


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
