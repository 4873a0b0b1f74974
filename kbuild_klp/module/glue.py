# SPDX-License-Identifier: GPL-2.0-only
"""The only C code of a livepatch module: it registers the patch with the kernel (include/linux/livepatch.h)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from kbuild_klp.module.running import VMLINUX, PatchedFunction, module_name

FUNCTIONS, OBJECTS = "klp_old_functions_{}", "klp_old_objects"
"""The arrays of struct klp_func, by the number of the unit, and of struct klp_object."""

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

_END = """\
static struct klp_patch patch = {{
	.mod = THIS_MODULE,
	.objs = {objects},
	.replace = {replace},
}};

static int __init livepatch_init(void)
{{
{begin}	return klp_enable_patch(&patch);
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

    ``callbacks`` are members of struct klp_callbacks, in the order of its other array.
    """

    table: str
    functions: Sequence[PatchedFunction]
    callbacks: Sequence[str] = ()


def glue(units: Mapping[str, Sequence[GluedObject]], replace: bool, description: str, key: str = "") -> str:
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
    text += f"static struct klp_object {OBJECTS}[] = {{\n{''.join(objects)}\t{{ }}\n}};\n\n"
    return text + _END.format(
        begin="".join(begin), objects=OBJECTS, replace="true" if replace else "false", description=_quoted(description)
    )


def _rows(glued: GluedObject) -> Iterator[str]:
    for function in glued.functions:
        yield f'\t{{ .old_name = "{_quoted(function.name)}", .old_sympos = {function.position} }},\n'


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
