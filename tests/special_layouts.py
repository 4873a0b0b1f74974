# SPDX-License-Identifier: GPL-2.0-only
"""Layouts of special sections, as assembly: what a test needs to know of each to change everything in it.

A layout is a row of LAYOUTS; test_layouts.py makes its cases from that. Two functions, `f` and `g`, have an entry each,
and `g` has a second one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Ref:
    """A reference: to ``old``, in a change to ``new``. ``{f}`` is the function; without a target it is its place."""

    name: str
    size: int = 4
    old: str = ""
    new: tuple[str, ...] = ()

    def text(self, target: str) -> str:
        return f".quad {target}" if self.size == 8 else f".long {target} - ."


@dataclass(frozen=True)
class Number:
    """A number of ``size`` bytes, the lowest ``line`` bits of which are a line number."""

    name: str
    size: int
    value: int = 0x11
    line: int = 0

    def text(self, value: int) -> str:
        return {1: ".byte", 2: ".word", 4: ".long", 8: ".quad"}[self.size] + f" {value}"

    def changes(self) -> Iterator[tuple[str, int, bool]]:
        """Yield a change of each byte: what it is called, the value, and whether it is of the line number."""
        bits = {*range(1, 8 * self.size, 8), *((self.line, self.line - 1) if self.line % 8 else ())}
        for bit in sorted(bits):
            yield f"{self.name}-bit-{bit}", self.value ^ 1 << bit, bit < self.line


@dataclass(frozen=True)
class Layout:
    """A layout: ``fields`` of an entry in order, the ``Ref`` without a target says whom it belongs to.

    ``companion`` is code or data that an entry has besides, with a ``{value}``; ``align`` is what entries are aligned
    to; ``records`` are variables to which their function refers. ``unknown``: no row of special.toml is about it.
    ``other`` are the fields of the second function where they are others.
    """

    id: str
    section: str
    fields: tuple[Ref | Number, ...]
    align: int = 1
    companion: str = ""
    flags: str = "a"
    records: bool = False
    unknown: bool = False
    other: tuple[Ref | Number, ...] = field(default=())

    def fields_of(self, function: str) -> tuple[Ref | Number, ...]:
        return self.other if self.other and function == "g" else self.fields


@dataclass(frozen=True)
class Entry:
    """An entry of a function: the value of each field (none: there is no entry), and of its companion."""

    values: tuple[str | int, ...]
    companion: int = 14

    def changed(self, at: int, value: str | int) -> Entry:
        return replace(self, values=(*self.values[:at], value, *self.values[at + 1 :]))


@dataclass(frozen=True)
class Program:
    """The functions of an object, each with its entries; ``grown`` has more instructions, ``constant`` is in `g`."""

    layout: Layout
    entries: dict[str, tuple[Entry, ...]]
    grown: str = ""
    constant: int = 5
    head: str = ""

    def text(self) -> str:
        functions = "".join(self._function(name, own) for name, own in self.entries.items())
        return f'{self.head}\n.text\n{functions}\n.section .note.GNU-stack, "", @progbits\n{_DATA}'

    def _function(self, name: str, entries: tuple[Entry, ...]) -> str:
        layout, body, tables = self.layout, "", ""
        for number, entry in enumerate(entries):
            label = f"{name}{number}"
            tables += self._entry(name, label, entry)
            record = f"mov ${_record(label)}, %rdi\ncall take\n" if layout.records else ""
            body += f"{record}.Lsite_{label}: movl (%rdi), %eax\n.Lother_{label}: nop\n.Lback_{label}: nop\n"
        more = "xor %ecx, %ecx\ninc %ecx\n" if self.grown == name else ""
        constant = self.constant if name == "g" else 7
        return (
            f".globl {name}\n.type {name}, @function\n{name}: push %rbx\n{more}{body}"
            f".Lend_{name}: mov ${constant}, %edx\npop %rbx\nret\n.size {name}, . - {name}\n.p2align 4\n{tables}"
        )

    def _entry(self, name: str, label: str, entry: Entry) -> str:
        layout = self.layout
        if not entry.values:
            return ""
        names = {"f": name, "at": label}
        companion = _NAME if layout.records else layout.companion
        lines = [companion.format(value=entry.companion, **names)]
        lines += [f'.pushsection {layout.section}, "{layout.flags}"', f".balign {layout.align}"]
        if layout.records:
            lines += [f".type {_record(label)}, @object", f"{_record(label)}:"]
        for one, value in zip(layout.fields_of(name), entry.values, strict=True):
            lines.append(one.text(str(value).format(**names)) if isinstance(one, Ref) else one.text(int(value)))
        if layout.records:
            lines.append(f".size {_record(label)}, . - {_record(label)}")
        return "\n".join([*lines, ".popsection", ""])


def _record(label: str) -> str:
    """Return the name that a compiler gives the descriptor of an entry: its number means nothing."""
    return f"descriptor.{sum(map(ord, label))}"


_DATA = """
.data
.globl key_a, key_b
.type key_a, @object
key_a: .quad 0, 1
.size key_a, 16
.type key_b, @object
key_b: .quad 0, 2
.size key_b, 16
.globl names
.type names, @object
names: .quad .Lstring_a, .Lstring_b, .Lformat_a, .Lformat_b
.size names, 32
.section .rodata.str1.1, "aMS", @progbits, 1
.Lstring_a: .string "drivers/a.c"
.Lstring_b: .string "drivers/b.c"
.Lformat_a: .string "a %d"
.Lformat_b: .string "b %d"
.section .note.GNU-stack, "", @progbits
"""
_NAME = '.pushsection .rodata.str1.1, "aMS", @progbits, 1\n.Lname_{at}: .string "{at}"\n.popsection'
SITE = ".Lsite_{at}"
_FIXUP = '.pushsection .fixup, "ax"\n.Lcode_{at}: mov $-{value}, %eax\njmp .Lback_{at}\n.popsection'
_REPLACEMENT = '.pushsection .altinstr_replacement, "ax"\n.Lcode_{at}: mov ${value}, %eax\n.popsection\n'
_SITE, _WIDE_SITE = Ref("site", 4), Ref("site", 8)
_Fields = tuple[Ref | Number, ...]
_ALTERNATIVE: _Fields = (_SITE, Ref("replacement", 4, ".Lcode_{at}"))
_LENGTHS: _Fields = (Number("length", 1, 3), Number("replacement length", 1, 5))
_FIX = Ref("fixup", 4, ".Lcode_{at}")
_KEYS = ("key_b", "key_a + 1", "key_a + 2", "elsewhere")
_STRING = (".Lstring_b", "key_a")
_DESCRIPTOR: _Fields = (
    Ref("modname", 8, ".Lstring_a", _STRING),
    Ref("function", 8, ".Lname_{at}"),
    *(Ref(name, 8, ".Lstring_a", _STRING) for name in ("filename", "format")),
    Number("lineno", 4, 0x10123, line=18),
    Number("pad", 4, 0),
)
_BRANCH: _Fields = (
    Ref("func", 8, ".Lname_{at}"),
    Ref("file", 8, ".Lstring_a", (".Lstring_b",)),
    Number("line", 4, 0x123, line=32),
    Number("pad", 4, 0),
)
_COUNTS: _Fields = (Number("correct", 8, 0), Number("incorrect", 8, 0))
_DD_KEY: _Fields = (Number("key", 8, 1), Number("key type", 8, 0))
_PAD: _Fields = (Number("pad", 8, 0),)

LAYOUTS = [
    Layout(
        "alt13",
        ".altinstructions",
        (*_ALTERNATIVE, Number("feature", 2), *_LENGTHS, Number("padlen", 1, 0)),
        companion=_REPLACEMENT,
    ),
    Layout("alt12", ".altinstructions", (*_ALTERNATIVE, Number("feature", 2), *_LENGTHS), companion=_REPLACEMENT),
    Layout(
        "alt14",
        ".altinstructions",
        (*_ALTERNATIVE, Number("feature", 2), Number("flags", 2), *_LENGTHS),
        companion=_REPLACEMENT,
    ),
    Layout("ex12-type", "__ex_table", (_SITE, _FIX, Number("data", 4, 3)), 4, _FIXUP),
    Layout(
        "ex12-handler",
        "__ex_table",
        (_SITE, _FIX, Ref("handler", 4, "ex_handler_default", ("ex_handler_uaccess", "g"))),
        4,
        _FIXUP,
    ),
    Layout("ex8", "__ex_table", (_SITE, _FIX), 4, _FIXUP),
    Layout(
        "jump16",
        "__jump_table",
        (
            _SITE,
            Ref("target", 4, ".Lback_{at}", (".Lother_{at}",)),
            Ref("key", 8, "key_a - .", tuple(f"{key} - ." for key in _KEYS)),
        ),
        8,
        flags="aw",
    ),
    Layout(
        "jump24",
        "__jump_table",
        (_WIDE_SITE, Ref("target", 8, ".Lback_{at}", (".Lother_{at}",)), Ref("key", 8, "key_a", _KEYS)),
        8,
        flags="aw",
    ),
    Layout(
        "bug12",
        "__bug_table",
        (
            _SITE,
            Ref("file", 4, ".Lstring_a", (".Lstring_b",)),
            Number("line", 2, 0x123, line=16),
            Number("flags", 2, 1),
        ),
        1,
        flags="aw",
    ),
    Layout(
        "bug12-from-entry",
        "__bug_table",
        (
            _SITE,
            Ref("file", 4, ".Lstring_a + 4", (".Lstring_b + 4",)),
            Number("line", 2, 0x123, line=16),
            Number("flags", 2, 1),
        ),
        1,
        flags="aw",
    ),
    Layout(
        "bug16",
        "__bug_table",
        (
            _SITE,
            Ref("format", 4, ".Lstring_a", _STRING),
            Ref("file", 4, ".Lstring_a", (".Lstring_b",)),
            Number("line", 2, 0x123, line=16),
            Number("flags", 2, 1),
        ),
        1,
        flags="aw",
    ),
    Layout(
        "bug12-format",
        "__bug_table",
        (_SITE, Ref("format", 4, ".Lformat_a", (".Lformat_b", "key_a")), Number("flags", 2, 1), Number("pad", 2, 0)),
        flags="aw",
    ),
    Layout("bug8", "__bug_table", (_SITE, Number("flags", 2, 1), Number("pad", 2, 0)), 1, flags="aw"),
    Layout("static-call", ".static_call_sites", (_SITE, Ref("key", 4, "key_a", _KEYS)), 4, flags="aw"),
    Layout("static-call-tramp-key", ".static_call_tramp_key", (_SITE, Ref("key", 4, "key_a", _KEYS)), 4),
    Layout("paravirt", ".parainstructions", (_WIDE_SITE, Number("type", 1, 41), Number("length", 1, 2)), 8),
    Layout(
        "paravirt-clobbers",
        ".parainstructions",
        (_WIDE_SITE, Number("type", 1, 41), Number("length", 1, 2), Number("clobbers", 2, 1)),
        8,
    ),
    Layout("smp-locks", ".smp_locks", (_SITE,), 4),
    Layout("retpoline-sites", ".retpoline_sites", (_SITE,), 4),
    Layout("return-sites", ".return_sites", (_SITE,), 4),
    Layout("call-sites", ".call_sites", (_SITE,), 4),
    Layout("endbr-seal", ".ibt_endbr_seal", (_SITE,), 4),
    Layout("cfi-sites", ".cfi_sites", (_SITE,), 4),
    Layout("kcfi-traps", ".kcfi_traps", (_SITE,), 4),
    Layout("runtime-pointer", "runtime_ptr_SYMBOL", (_SITE,), 1),
    Layout("mcount", "__mcount_loc", (_WIDE_SITE,), 8),
    Layout("patchable-function", "__patchable_function_entries", (_WIDE_SITE,), 8, flags="aw"),
    Layout("kprobe-blacklist", "_kprobe_blacklist", (_WIDE_SITE,), 8, flags="aw"),
    Layout("error-injection", "_error_injection_whitelist", (_WIDE_SITE, Number("type", 4, 1)), 8, flags="aw"),
    Layout(
        "pci-fixup",
        ".pci_fixup_final",
        (Number("vendor", 2), Number("device", 2), Number("class", 4), Number("shift", 4, 0), _SITE),
        16,
    ),
    Layout(
        "pci-fixup-wide",
        ".pci_fixup_final",
        (
            *(Number("vendor", 2), Number("device", 2), Number("class", 4), Number("shift", 4, 0)),
            *(Number("pad", 4, 0), _WIDE_SITE),
        ),
        8,
    ),
    Layout("constructor", ".init_array", (_WIDE_SITE,), 8, flags="aw"),
    # Of objects that were stripped of the names that the entries have
    Layout("initcall-address", ".initcall6.init", (_WIDE_SITE,), 8),
    Layout("initcall-distance", ".initcall6.init", (_SITE,), 4),
    Layout("con-initcall", ".con_initcall.init", (_SITE,), 4),
    Layout("exitcall", ".exitcall.exit", (_WIDE_SITE,), 8),
    Layout(
        "setup",
        ".init.setup",
        (Ref("parameter", 8, ".Lstring_a", _STRING), _WIDE_SITE, Number("early", 4, 1), Number("pad", 4, 0)),
        8,
        flags="aw",
    ),
    Layout("addressable-init", ".init.data", (_WIDE_SITE,), 8, flags="aw"),
    Layout("addressable-exit", ".exit.data", (_WIDE_SITE,), 8, flags="aw"),
    *(
        Layout(
            f"export-{len(names) + 1}x{size}",
            "__ksymtab_gpl",
            (Ref("value", size), *(Ref(name, size, ".Lstring_a", _STRING) for name in names)),
            size,
        )
        for names in (("name",), ("name", "namespace"))
        for size in (4, 8)
    ),
    Layout(
        "bpf-tracepoint",
        "__bpf_raw_tp_map",
        (Ref("tracepoint", 8, "key_a", ("key_b",)), _WIDE_SITE, Number("arguments", 4, 3), Number("size", 4), *_PAD),
        32,
        flags="aw",
    ),
    Layout("dyndbg56", "__dyndbg", (*_DESCRIPTOR, *_DD_KEY), 8, flags="aw", records=True),
    Layout("dyndbg40", "__dyndbg", _DESCRIPTOR, 8, flags="aw", records=True),
    Layout("verbose56", "__verbose", (*_DESCRIPTOR, *_DD_KEY), 8, flags="aw", records=True),
    Layout("verbose40", "__verbose", _DESCRIPTOR, 8, flags="aw", records=True),
    Layout("branch", "_ftrace_branch", (*_BRANCH, *_COUNTS), 8, flags="aw", records=True),
    Layout("branch-likely", "_ftrace_annotated_branch", (*_BRANCH, *_COUNTS, _COUNTS[0]), 8, flags="aw", records=True),
    # What no row knows
    Layout("vendor-number", "__vendor", (_SITE, Number("value", 2)), 1, unknown=True),
    Layout("vendor-number-first", "__vendor", (Number("value", 4), _SITE), 4, unknown=True),
    Layout("vendor-wide", "__vendor", (_WIDE_SITE, Number("value", 4)), 8, unknown=True),
    Layout(
        "vendor-three",
        "__vendor",
        (_SITE, Ref("target", 4, ".Lback_{at}", (".Lother_{at}",)), Ref("key", 4, "key_a", _KEYS), Number("value", 8)),
        4,
        unknown=True,
    ),
    Layout("vendor-handler", "__vendor", (_WIDE_SITE, Ref("handler", 8, "handler_a", ("handler_b",))), 8, unknown=True),
    Layout(
        "vendor-string",
        "__vendor",
        (Ref("name", 8, ".Lstring_a", _STRING), _WIDE_SITE, Number("value", 8)),
        8,
        unknown=True,
    ),
    Layout(
        "vendor-irregular",
        "__vendor",
        (_SITE, Number("value", 2)),
        1,
        unknown=True,
        other=(_SITE, Number("value", 2), Number("more", 8)),
    ),
    Layout("ex-strange", "__ex_table", (_SITE, _FIX, Number("data", 4, 3), Number("more", 1)), 1, _FIXUP, unknown=True),
    Layout(
        "alt-strange",
        ".altinstructions",
        (*_ALTERNATIVE, Number("feature", 4), *_LENGTHS, Number("more", 8)),
        companion=_REPLACEMENT,
        unknown=True,
    ),
]
