# SPDX-License-Identifier: GPL-2.0-only
"""Small kernels that can build a module: what `make -C TREE M=DIR modules` does, with nothing but a compiler and ld.

The headers have of include/linux/livepatch.h what registers a patch; its functions are exported.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from linked_kernel import TRACED, Kernels

ROOT = Path(__file__).resolve().parents[2]

_MAKEFILE = """\
-include include/config/auto.conf
include $(M)/Kbuild
name := $(patsubst %.o,%,$(obj-m))
modules:
	gcc -O1 -fno-pie -mcmodel=kernel -pg -mfentry -mrecord-mcount -DMODULE -DKBUILD_MODNAME='"$(name)"' \\
		-Iinclude -c $(M)/glue.c -o $(M)/glue.o
	as versions.s -o $(M)/versions.o
	ld -r -o $(M)/$(name).ko $(M)/versions.o $(addprefix $(M)/,$($(name)-y))
	$(if $(CONFIG_DEBUG_INFO_BTF_MODULES),objcopy --add-section .BTF=Makefile $(M)/$(name).ko)
"""

_HEADERS = {
    "errno.h": "#define EINVAL 22\n#define EBUSY 16\n#define EFAULT 14\n",
    "printk.h": "#define pr_err(text) ((void)0)\n",
    "string.h": "#define memcmp __builtin_memcmp\n",
    "init.h": '#define __init __attribute__((section(".init.text")))\n#define __exit\n#define NULL ((void *)0)\n',
    "jump_label.h": "struct static_key { int enabled; void *type; };\n",
    "livepatch.h": """
typedef _Bool bool;
#define true 1
#define false 0
struct klp_func { const char *old_name; void *new_func; unsigned long old_sympos; };
struct klp_callbacks { void *pre_patch, *post_patch, *pre_unpatch, *post_unpatch; };
struct klp_object { const char *name; struct klp_func *funcs; struct klp_callbacks callbacks; };
struct klp_patch { struct module *mod; struct klp_object *objs; bool replace; };
int klp_enable_patch(struct klp_patch *);
""",
    "module.h": """
#define MODULE_INFO(tag, info) static const char tag##_info[] \\
	__attribute__((used, section(".modinfo"))) = #tag "=" info
#define MODULE_LICENSE(text) MODULE_INFO(license, text)
#define MODULE_DESCRIPTION(text) MODULE_INFO(description, text)
struct module { int nothing; };
extern struct module __this_module;
#define THIS_MODULE ((struct module *)0)
#define module_init(function) int init_module(void) __attribute__((alias(#function)))
#define module_exit(function) void cleanup_module(void) __attribute__((alias(#function)))
static const char vermagic[] __attribute__((used, section(".modinfo"))) = "vermagic=" VERMAGIC;
""",
}
_EXPORTS = ("klp_enable_patch", "__fentry__", "printk", "memcmp", "exported", "module_layout")
VERMAGIC = "6.12.0-test SMP mod_unload "


@dataclass(frozen=True)
class Made:
    """What the command said, and the module's path."""

    status: int
    answer: dict[str, Any]
    errors: str
    module: Path

    @property
    def carried(self) -> set[tuple[str, str]]:
        """Object and name of the functions that are carried."""
        assert self.status == 0, self.errors
        return {(it["object"], it["symbol"]) for it in self.answer["carried"] if it["kind"] == "function"}

    @property
    def refused(self) -> set[tuple[str, str]]:
        """Name and code of what is refused; there is no module then."""
        assert self.status == 2 and not self.module.exists(), self.answer
        return {(it["symbol"], it["code"]) for it in self.answer["refused"]}

    def memory_words(self, section: str) -> list[str]:
        """The words of a section, in hexadecimal, first the lowest byte's."""
        rows = re.findall(r"^  0x[0-9a-f]+ ((?:[0-9a-f]{1,8} ){1,4})", self.readelf("-x", section), re.MULTILINE)
        data = bytes.fromhex("".join(rows).replace(" ", ""))
        return [f"{int.from_bytes(data[at : at + 8], 'little'):016x}" for at in range(0, len(data), 8)]

    def readelf(self, *options: str) -> str:
        command = ["readelf", "-W", *options, str(self.module)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    @property
    def relocations(self) -> dict[str, list[str]]:
        """What each relocation goes to, by relocation section: symbol, sign and addend."""
        found = {}
        for table in self.readelf("-r").split("Relocation section '")[1:]:
            rows = re.findall(r"R_X86_64_\w+ +[0-9a-f]+ (\S+) ([+-]) (\w+)$", table, re.MULTILINE)
            found[table.partition("'")[0]] = ["".join(row) for row in rows]
        return found

    @property
    def livepatch_symbols(self) -> set[str]:
        """The symbols that are marked for the livepatch loader."""
        return set(re.findall(r"OS \[0xff20\] (\S+)", self.readelf("-s")))


class PatchedKernels(Kernels):
    """Two builds, and the livepatch between them."""

    @property
    def module(self) -> Path:
        """Where the livepatch is written."""
        return self.root / "livepatch-it.ko"

    def patch(self, *options: str, output: tuple[str, ...] | None = None, **variables: str) -> Made:
        """Run the command on both trees; ``output`` takes the place of what says where the module goes."""
        return self.end(self.begin(*options, output=output, variables=variables))

    def begin(
        self,
        *options: str,
        output: tuple[str, ...] | None = None,
        variables: Mapping[str, str] = MappingProxyType({}),
        limit: int = 0,
    ) -> subprocess.Popen[str]:
        """Begin to run the command; no file gets larger than ``limit`` bytes, if one is given."""
        where = ("-o", str(self.module)) if output is None else output
        command = [sys.executable, "-m", "kbuild_klp", "patch", "old", "new", "--json", *where, *options]
        if limit:
            command = ["sh", "-c", f'ulimit -f {limit // 512}; exec "$@"', "sh", *command]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(self.temporary), **variables}
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=self.root, env=environment, stdout=pipe, stderr=pipe, text=True)

    def end(self, running: subprocess.Popen[str]) -> Made:
        """Wait for a run of the command."""
        out, errors = running.communicate(timeout=300)
        assert "Traceback" not in errors
        return Made(running.returncode, json.loads(out or "{}"), errors, self.module)

    @property
    def temporary(self) -> Path:
        """Where temporary files go."""
        path = self.root / "tmp"
        path.mkdir(exist_ok=True)
        return path

    def prepare(self, versions: dict[str, int] | None = None) -> None:
        """Make the old tree one that modules can be built in."""
        old = self.old
        old.write("Makefile", _MAKEFILE)
        old.write("init/.main.o.cmd", "savedcmd_init/main.o := gcc -c -o init/main.o init/main.c\n")
        for name, text in _HEADERS.items():
            old.write(f"include/linux/{name}", text.replace("VERMAGIC", f'"{VERMAGIC}"'))
        self.write_exports()
        rows = [f'.quad {crc}; .asciz "{name}"; .zero {55 - len(name)}' for name, crc in (versions or {}).items()]
        old.write("versions.s", "\n".join(['.section __versions, "a"', *rows, ""]))

    def write_exports(self, **crcs: int) -> None:
        """Write what the old kernel exports, with some CRCs."""
        rows = [f"{crcs.get(name, 0):#010x}\t{name}\tvmlinux\tEXPORT_SYMBOL_GPL\t\n" for name in _EXPORTS]
        others = {"far_away": "far", "weak_far_away": "far", "farther_away": "farther"}
        rows += [f"0x00000000\t{name}\tdrivers/{unit}\tEXPORT_SYMBOL_GPL\t\n" for name, unit in others.items()]
        self.old.write("Module.symvers", "".join(rows))

    def everything(self) -> dict[str, bytes]:
        """All files of both trees and beside them."""
        paths = (path for path in sorted(self.root.rglob("*")) if path.is_file())
        return {str(path): path.read_bytes() for path in paths}

    def of_module(self, old: str, new: str, far: str, farther: str = "int farther;") -> Made:
        """Return the livepatch of two versions of an object of module mod, beside which are modules far and farther."""
        self.build({"drivers/unit.o": old}, {"drivers/unit.o": new}, TRACED)
        for kernel in (self.old, self.new):
            for name, source in (("far", far), ("farther", farther)):
                kernel.build(f"drivers/{name}_away.o", source, *TRACED)
                kernel.module(f"drivers/{name}", f"drivers/{name}_away.o")
                kernel.run("ld", "-r", "-o", f"drivers/{name}.ko", f"drivers/{name}_away.o")
            kernel.order("drivers/mod", "drivers/far", "drivers/farther")
        self.prepare()
        return self.patch()

    def made(self, old: str, new: str, **others: str) -> Made:
        """Return the livepatch of two versions of one object; ``others`` stay what they are."""
        self.build({"kernel/unit.o": old, **others}, {"kernel/unit.o": new}, TRACED)
        self.prepare()
        return self.patch()


@pytest.fixture
def kernels(tmp_path: Path) -> PatchedKernels:
    for tool in ("gcc", "ld", "make", "readelf"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    return PatchedKernels(tmp_path)
