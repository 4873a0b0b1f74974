# SPDX-License-Identifier: GPL-2.0-only
"""Assembly with the special sections of an x86 kernel, in the layouts that special.toml was checked against.

`user` owns one entry of each kind; `other` owns one too, and must stay quiet when the first one's change.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Special:
    """What goes into the entries of `user`; each field can be changed alone."""

    feature: int = 11
    alt_flags: int = 0
    replacement: str = "lfence"
    second_replacement: str = ""
    fixup: str = ".Lfixup"
    extable_type: int = 3
    extable_data: int = 0
    key: str = "key_a"
    key_bits: int = 2
    target: str = ".Ltaken"
    call_key: str = "sck_a"
    call_bits: int = 0
    bug_file: str = ".Lfile"
    bug_line: int = 100
    bug_flags: int = 1
    locked: str = "667: lock incl (%rdi)"
    pointer: str = "runtime_ptr_dentry"
    more: str = ""
    head: str = ""


_FUNCTION = """
    .globl {name}
    .type {name}, @function
{name}:
    mov %rdi, %rax
{p}661: nop; nop; nop
{p}662:
    .pushsection .altinstructions, "a"
    .long {p}661b - ., 663f - .
    .short {s.feature}, {s.alt_flags}
    .byte {p}662b - {p}661b, 664f - 663f
    .popsection
    .pushsection .altinstr_replacement, "ax"
663: {s.replacement}
664:
    .popsection
665: call barrier
666:
    .pushsection .altinstructions, "a"
    .long 665b - ., 668f - .
    .short 7, 0
    .byte 666b - 665b, 669f - 668f
    .popsection
    .pushsection .altinstr_replacement, "ax"
668: {s.second_replacement}
669:
    .popsection
671: mov (%rsi), %rdx
    .pushsection __ex_table, "a"
    .balign 4
    .long 671b - ., {fixup} - .
    .long {s.extable_type} | {s.extable_data} << 16
    .popsection
672: .byte 0x0f, 0x1f, 0x44, 0x00, 0x00
    .pushsection __jump_table, "aw"
    .balign 8
    .long 672b - ., {target} - .
    .quad {s.key} + {s.key_bits} - .
    .popsection
673: call trampoline
    .pushsection .static_call_sites, "aw"
    .long 673b - ., {s.call_key} + {s.call_bits} - .
    .popsection
674: ud2
    .pushsection __bug_table, "aw"
    .long 674b - ., {s.bug_file} - .
    .word {s.bug_line}, {s.bug_flags}
    .popsection
{s.locked}
    .pushsection .smp_locks, "a"
    .balign 4
    .long 667b - .
    .popsection
675: movabs $0x123456789abcdef, %rcx
676:
    .pushsection {s.pointer}, "a"
    .long 676b - 8 - .
    .popsection
{s.more}
    ret
{fixup}: mov $-14, %eax
    ret
{target}: mov $1, %eax
    ret
{other}: mov $2, %eax
    ret
    .size {name}, . - {name}
"""

_DATA = """
    .data
    .globl key_a, key_b
    .type key_a, @object
key_a: .quad 0, .Lfile
    .size key_a, 16
    .type key_b, @object
key_b: .quad 0, .Lfile2
    .size key_b, 16
    .type sck_a, @object
sck_a: .quad 0
    .size sck_a, 8
    .type sck_b, @object
sck_b: .quad 1
    .size sck_b, 8
    .section .rodata.str1.1, "aMS", @progbits, 1
.Lfile: .string "kernel/file.c"
.Lfile2: .string "kernel/other.c"
"""

_OTHER = Special(feature=5, bug_line=7, key="key_b", call_key="sck_b", replacement="mfence")


def source(special: Special = Special(), other: Special = _OTHER) -> str:
    """Return the assembly of two functions with their special entries."""
    names = {"fixup": ".Lfixup", "target": ".Ltaken", "other": ".Lelsewhere"}
    text = [f"{special.head}\n.text\n.p2align 4\n"]
    for name, entries, suffix in (("user", special, ""), ("other", other, "_o")):
        labels = {key: label + suffix for key, label in names.items()}
        labels["fixup"] = labels["fixup"] if entries.fixup == names["fixup"] else entries.fixup
        labels["target"] = labels["target"] if entries.target == names["target"] else entries.target
        body = _FUNCTION
        for key in ("fixup", "target"):
            # Where the labels stand does not change, only who points at them.
            body = body.replace("{" + key + "}:", names[key] + suffix + ":")
        text.append(body.format(name=name, s=entries, p="", **labels) + "\n.p2align 4\n")
    return "".join(text) + _DATA


def with_change(**change: object) -> str:
    """Return the assembly with something changed in the entries of `user`."""
    return source(replace(Special(), **change))  # type: ignore[arg-type]
