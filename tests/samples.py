# SPDX-License-Identifier: GPL-2.0-only
"""Small objects compiled on the spot, shared by the tests of the reader, the batch and the command line."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

KERNEL_FLAGS = ("-O2", "-mno-red-zone", "-fno-pic", "-mcmodel=kernel", "-fno-asynchronous-unwind-tables")

# One of everything that the canonical form has a path for: statics, strings, a jump table, constants, an alias, a
# weak symbol, and entries of four special sections.
SAMPLE = r"""
extern int printk(const char *, ...);
extern int key;
static int counter;
int table[8] = {1, 2, 3, 4};
static const char *const names[] = {"alpha", "beta", "gamma"};
static int __attribute__((noinline)) helper(int x) { static int calls; calls += x; return calls + counter; }
static inline void warn(void)
{
    asm volatile("1: ud2\n.pushsection __bug_table,\"aw\"\n.long 1b - ., %c0 - .\n.word %c1, %c2\n.popsection"
             :: "i"("file.c"), "i"(12), "i"(3));
}
static inline void alternative(void)
{
    asm volatile("661: .byte 0x90,0x90,0x90\n.pushsection .altinstructions,\"a\"\n.long 661b - ., 6641f - .\n"
             ".word 5, 0\n.byte 3, 3\n.popsection\n"
             ".pushsection .altinstr_replacement,\"ax\"\n6641: nop; nop; nop\n.popsection");
}
static inline int extable(int x)
{
    asm volatile("1: movl %0,%0\n2:\n.pushsection __ex_table,\"a\"\n.long 1b - ., 2b - ., 3\n.popsection" : "+r"(x));
    return x;
}
static inline void jump(void)
{
    asm volatile("1: .byte 0x0f,0x1f,0x44,0,0\n.pushsection __jump_table,\"aw\"\n.balign 8\n.long 1b - ., 1b - .\n"
             ".quad %c0 - .\n.popsection" :: "i"(&key));
}
int choose(int x)
{
    switch (x) {
    case 0: return helper(3);
    case 1: return printk("one\n");
    case 2: return printk("two %d\n", x);
    case 3: return table[x];
    case 4: return counter++;
    case 5: return printk("five");
    case 6: warn(); return 2;
    case 7: alternative(); return 4;
    case 8: return extable(x);
    default: jump(); return -1;
    }
}
const char *name(int x) { printk("%s %s\n", names[x], __func__); return names[x]; }
__attribute__((weak)) int weak(void) { return printk("w"); }
int alias(void) __attribute__((alias("weak")));
double scale(double x) { return x * 3.25 + 1.5; }
"""

# Entries of special sections that are about no function of the object.
NOBODYS_ENTRIES = """
    .text
    .globl user
    .type user, @function
user:
    ret
    .size user, . - user
    .section .init_array, "aw"
    .quad user, elsewhere
    .section .altinstructions, "a"
    .long outer - ., 1f - .
    .hword 1, 2
    .byte 1, 0
    .section .altinstr_replacement, "ax"
1:  nop
"""


def compile_object(source: str, path: Path, *flags: str, language: str = "c") -> Path:
    """Compile ``source`` into the object ``path``; skips the test where there is no compiler."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc")
    path.parent.mkdir(parents=True, exist_ok=True)
    command = ["gcc", "-x", language, "-c", *KERNEL_FLAGS, *flags, "-o", str(path), "-"]
    subprocess.run(command, input=source, text=True, check=True)
    return path


def without_privileges() -> list[str]:
    """Return what a command has to begin with to be refused where others are; skips the test where there is no way."""
    if os.geteuid() != 0:
        return []
    # Root may write everywhere, unless it gives up that capability.
    if shutil.which("setpriv") is None:
        pytest.skip("running as root, and there is no setpriv")
    return ["setpriv", "--inh-caps=-dac_override", "--bounding-set=-dac_override"]
