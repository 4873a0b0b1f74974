# SPDX-License-Identifier: GPL-2.0-only
"""Which functions and data objects of two objects differ: their listings as text, addresses replaced by names.

A thing (function, data object, or bytes under no name) is a few lines of text. A line of code is the disassembly with
each target by name; of data, bytes and targets. Things of one name without the compiler's numbers are one group
(``f``, ``f.cold`` and ``f.isra.0``; all ``__already_done``), and two groups are the same when their texts are.

What it leaves out: unwind tables and lists of places (``.orc_*``, ``__mcount_loc``, ``__patchable_function_entries``),
which follow from the code; sections that the linker discards; alignment; the order of things in a section.
"""

from __future__ import annotations

import fnmatch
import re
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from oracle.listing import Instruction, Listing, Relocation, Symbol

Answer = dict[tuple[str, str], str]
"""(kind, name without numbers) -> changed, added, removed, moved or line-only."""


class Thing(NamedTuple):
    """One function or data object; ``lines`` are line numbers, which are no part of the body."""

    kind: str
    name: str
    section: str
    body: tuple[str, ...]
    lines: tuple[str, ...]


class Span(NamedTuple):
    """Where a symbol lies."""

    start: int
    end: int
    symbol: Symbol


_NUMBERS = re.compile(r"(?<=.)\.(?:isra|constprop|part|cold|__part)\b|(?<=.)\.\d+")
_UNIQUE = re.compile(r"^(__UNIQUE_ID_.*?)\d+$")
_INITCALL = re.compile(r"^__initcall__(\w+?)__\d+_\d+_(\w+)$")
_BY_CONTENT = ("CSWTCH", "C", "__func__", "_rs", "descriptor", "__compound_literal", "__UNIQUE_ID_ddebug")
_PC_RELATIVE = ("PC8", "PC16", "PC32", "PC64", "PLT32", "GOTPCREL", "GOTPCRELX", "REX_GOTPCRELX")

# Tables of the kernel whose rows are about a place in code: bytes of a row (0: as the relocations are spaced).
_TABLES = {
    ".altinstructions": 0,
    "__bug_table": 12,
    "__ex_table": 12,
    "__jump_table": 16,
    ".static_call_sites": 8,
    ".smp_locks": 4,
    ".parainstructions": 16,
    ".retpoline_sites": 4,
    ".return_sites": 4,
    ".call_sites": 4,
    ".ibt_endbr_seal": 4,
    "runtime_*_*": 4,
}
_ASTRAY = 12
_FOLLOWS_FROM_CODE = (".orc_*", "__mcount_loc", "__patchable_function_entries")
_DISCARDED = (".discard*",)  # not .export_symbol: modpost makes the export of it
_ONLY_BY_REFERENCE = (".altinstr_replacement", ".altinstr_aux")


def plain(name: str) -> str:
    """Return a name without what the compiler and __COUNTER__ number."""
    name = _NUMBERS.sub("", name)
    name = _UNIQUE.sub(r"\1", name)
    return _INITCALL.sub(r"__initcall__\1__\2", name)


def _kind(relocation: Relocation) -> str:
    return relocation.kind.replace("PLT32", "PC32")  # the same in a kernel, which has no PLT


def _last(symbol: Symbol) -> str:
    return symbol.name.rpartition(".")[2]


def _fits(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _without_filler(data: str) -> str:
    """Return the bytes (hexadecimal) of a string without the zeros that align what is behind it; others as they are."""
    if not re.fullmatch(r"(?:[0-9a-f]{2})+00", data):
        return data
    text = bytes.fromhex(data).rstrip(b"\0")
    return (text + b"\0").hex() if re.fullmatch(rb"[\t\n -~]*", text) else data


class Reader:
    """Turns one listing into things."""

    def __init__(self, listing: Listing) -> None:
        self.listing = listing
        self.by_name: dict[str, list[Symbol]] = defaultdict(list)
        self.inside: dict[str, list[Symbol]] = defaultdict(list)
        for symbol in listing.symbols:
            self.by_name[symbol.name].append(symbol)
            if symbol.name and not symbol.name.startswith(".L"):
                self.inside[symbol.section].append(symbol)
        self.named_at: dict[tuple[str, int], list[Symbol]] = defaultdict(list)
        for section_name, inside in self.inside.items():
            for symbol in inside:
                self.named_at[section_name, symbol.value].append(symbol)
        self.spans = {name: self._spans(name) for name, section in listing.sections.items() if section.is_loaded}
        self.starts = {name: [span.start for span in spans] for name, spans in self.spans.items()}
        self.rows: dict[str, dict[int, list[tuple[str, str]]]] = defaultdict(lambda: defaultdict(list))
        self.told: dict[str, list[int]] = {}  # where rows are about something, in order; without it: not known yet
        self.row_places: dict[str, list[int]] = {}
        self.edges = self._edges()
        self._active: list[tuple[str, int]] = []
        for name, section in listing.sections.items():
            for pattern, size in _TABLES.items():
                if section.is_loaded and fnmatch.fnmatchcase(name, pattern):
                    self._read_rows(name, size)

    # -- who lies where -------------------------------------------------------------------------------------------

    def _spans(self, section: str) -> list[Span]:
        """Return the outermost symbols of a section; a label of assembly reaches to the next one."""
        inside = self.inside[section]
        sized = sorted((s for s in inside if s.size), key=lambda s: (s.value, -s.size))
        spans: list[Span] = []
        for symbol in sized:
            if not spans or symbol.value >= spans[-1].end:
                spans.append(Span(symbol.value, symbol.value + symbol.size, symbol))
        labels = [symbol for symbol in inside if not symbol.size and symbol.kind == "NOTYPE"]
        free = [label for label in labels if not any(span.start <= label.value < span.end for span in spans)]
        ends = sorted({span.start for span in spans} | {label.value for label in free})
        ends.append(self.listing.sections[section].size)
        for value in sorted({label.value for label in free}):
            symbol = next(label for label in free if label.value == value)
            end = min(end for end in ends if end > value or end == ends[-1])
            spans.append(Span(value, max(end, value), symbol))
        return sorted(spans, key=lambda span: (span.start, span.end))

    def _is_content(self, symbol: Symbol) -> bool:
        """Say whether a symbol is what its bytes are: what macros and the compiler make, constants of a function."""
        name = plain(symbol.name)
        if name in _BY_CONTENT:
            return True
        is_numbered = symbol.kind == "OBJECT" and symbol.binding == "LOCAL" and symbol.name == f"{name}.{_last(symbol)}"
        return is_numbered and symbol.size > 0 and "W" not in self.listing.sections[symbol.section].flags

    def _cover(self, section: str, place: int) -> Span | None:
        spans = self.spans.get(section, [])
        at = bisect_right(self.starts.get(section, []), place) - 1
        return spans[at] if at >= 0 and place < spans[at].end else None

    def _edges(self) -> dict[str, list[int]]:
        """Return for each section where something begins: symbols, and whatever a relocation refers to."""
        edges: dict[str, set[int]] = defaultdict(set)
        self.referred: dict[str, set[int]] = defaultdict(set)
        for symbol in self.listing.symbols:
            edges[symbol.section].add(symbol.value)
        for section, relocations in self.listing.relocations.items():
            for relocation in relocations:
                place = self._place(relocation, self._bias(section, relocation))
                if place:
                    edges[place[0]].add(place[1])
                    self.referred[place[0]].add(place[1])
        for section, header in self.listing.sections.items():
            edges[section].add(header.size)
        return {section: sorted(places) for section, places in edges.items()}

    # -- where a relocation points --------------------------------------------------------------------------------

    def _bias(self, section: str, relocation: Relocation) -> int:
        """Return what the processor adds: a PC-relative operand counts from the end of its instruction."""
        if relocation.kind.removeprefix("R_X86_64_") not in _PC_RELATIVE:
            return 0
        if not self.listing.sections[section].is_code:
            return 0  # in data, from itself
        code = self.listing.code[section]
        at = bisect_right(code, relocation.place, key=lambda instruction: instruction.place) - 1
        return code[at].end - relocation.place

    def _place(self, relocation: Relocation, bias: int) -> tuple[str, int] | None:
        """Return section and offset, None for an undefined symbol."""
        offset = relocation.addend + bias
        defined = [symbol for symbol in self.by_name[relocation.symbol] if symbol.section]
        if defined:
            return defined[0].section, defined[0].value + offset
        if relocation.symbol in self.listing.sections:
            return relocation.symbol, offset
        return None

    def _target(self, section: str, relocation: Relocation) -> str:
        bias = self._bias(section, relocation)
        place = self._place(relocation, bias)
        offset = relocation.addend + bias
        named = self.by_name[relocation.symbol]
        by_content = relocation.symbol.startswith(".L") or (named and self._is_content(named[0]))
        if place is None or (named and not by_content):
            return f"{plain(relocation.symbol)}{offset:+#x}"
        return self._at(*place)

    def _at(self, section: str, place: int) -> str:
        """Say what lies at a place: a name and an offset, or the content itself where there is no name."""
        header = self.listing.sections[section]
        data = self.listing.contents.get(section, b"")
        if "M" in header.flags and "S" in header.flags and 0 <= place < len(data):
            return repr(data[place : data.find(b"\0", place)])
        if "M" in header.flags and 0 <= place < len(data):
            return data[place : place + header.entry_size].hex()
        span = self._cover(section, place)
        if span is not None and not self._is_content(span.symbol):
            return f"{plain(span.symbol.name)}{place - span.start:+#x}"
        if (section, place) in self._active:
            return "<itself>"
        if section in self.row_places:
            return self._row_name(section, place)
        self._active.append((section, place))
        try:
            if span is not None:
                return f"{'; '.join(self.data_text(section, span.start, span.end)[0])}{place - span.start:+#x}"
            edges = self.edges[section]
            end = next(iter(edges[bisect_right(edges, place) :][:1]), header.size)
            if header.is_code:
                return f"{{{'; '.join(self.code_text(section, place, end)[0])}}}"
            first, *others = self.data_text(section, place, end)[0]
            return f"[{'; '.join([first if others else _without_filler(first), *others])}]"
        finally:
            self._active.pop()

    def _row_name(self, table: str, place: int) -> str:
        """Return what to call a place in a table: the code that its row is about. The row itself is read with that."""
        starts = self.row_places[table]
        at = max(bisect_right(starts, place) - 1, 0)
        first = next(it for it in self.listing.relocations[table] if it.place >= starts[at])
        owner = self._place(first, 0)
        assert owner is not None
        span = self._cover(*owner)
        who = f"{plain(span.symbol.name)}{owner[1] - span.start:+#x}" if span else owner[0]
        return f"<{table} of {who}>{place - starts[at]:+#x}"

    # -- text -----------------------------------------------------------------------------------------------------

    def code_text(self, section: str, start: int, end: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the text of code, and line numbers that rows about it hold."""
        body = []
        code = self.listing.code[section]
        at = bisect_right(code, start - 1, key=lambda instruction: instruction.place)
        astray = 0
        while at < len(code) and code[at].place < end:
            instruction = code[at]
            # What objdump does not know puts it out of step for a while: no branch of that while is one.
            astray = _ASTRAY if "(bad)" in instruction.text else astray - 1
            if astray > 0:
                instruction = instruction._replace(text=instruction.raw.hex())
            body.append(f"{instruction.place - start:x}: {self._instruction(section, instruction, start, end)}")
            at += 1
        rows, lines = self.row_text(section, start, end)
        return (*body, *rows), lines

    def row_text(self, section: str, start: int, end: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return what tables say about places in a range, and line numbers that stand there."""
        if section not in self.told:
            self.told[section] = sorted(self.rows[section])
        told = self.told[section]
        found = [
            (f"{place - start:x}: {text}", line)
            for place in told[bisect_left(told, start) : bisect_left(told, end)]
            for text, line in self.rows[section][place]
        ]
        return tuple(text for text, _ in found), tuple(line for _, line in found if line)

    def _instruction(self, section: str, instruction: Instruction, start: int, end: int) -> str:
        text, _, comment = instruction.text.partition("#")
        text = text.strip()
        branch = re.match(r"^(.*\s)([0-9a-f]+) <.*>$", text)
        place: int | None = None
        if branch:
            text, place = branch[1].strip(), int(branch[2], 16)
        elif "(%rip)" in text and comment:
            text = re.sub(r"-?0x[0-9a-f]+(?=\(%rip\))", "", text)
            place = int(comment.split()[0], 16)
        if not instruction.relocations:
            if place is None:
                return text
            # The assembler leaves a relocation only to another section: the same field, whoever fills it.
            size = 1 if len(instruction.raw) == 2 else 4
            own = start <= place < end
            target = f".{place - start:+#x}" if own else self._at(section, place)
            return f"{text} <{len(instruction.raw) - size} R_X86_64_PC{size * 8} {target}>"
        targets = []
        for relocation in instruction.relocations:
            where = self._place(relocation, self._bias(section, relocation))
            own = where is not None and where[0] == section and start <= where[1] < end
            target = f".{where[1] - start:+#x}" if own and where else self._target(section, relocation)
            targets.append(f"<{relocation.place - instruction.place} {_kind(relocation)} {target}>")
        return " ".join([text, *targets])

    def data_text(self, section: str, start: int, end: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the text of data, and line numbers in it."""
        header = self.listing.sections[section]
        if header.kind == "NOBITS":
            return (f"{end - start} bytes of zeros",), ()
        data = bytearray(self.listing.contents.get(section, b"")[start:end])
        lines = []
        if section == "__dyndbg" and len(data) == 56:
            # struct _ddebug, include/linux/dynamic_debug.h: 18 bits of lineno after four pointers
            lines.append(str(int.from_bytes(data[32:36], "little") & 0x3FFFF))
            data[32:36] = (int.from_bytes(data[32:36], "little") & ~0x3FFFF).to_bytes(4, "little")
        body = [data.hex()]
        for relocation in self.listing.relocations_between(section, start, end):
            target = self._target(section, relocation)
            body.append(f"{relocation.place - start:x}: {_kind(relocation)} {target}")
        return tuple(body), tuple(lines)

    # -- rows of tables about code --------------------------------------------------------------------------------

    def _read_rows(self, table: str, size: int) -> None:
        relocations = self.listing.relocations.get(table, [])
        if not size:
            size = relocations[2].place if len(relocations) > 2 else self.listing.sections[table].size
        if table == "__bug_table" and [relocation.place for relocation in relocations[:3]] == [0, 4, 8]:
            size += 4  # 7.x: a format before the file
        if table == "__jump_table" and [relocation.place for relocation in relocations[:3]] == [0, 8, 16]:
            size = 24  # struct jump_entry of addresses, before 4.20
        data = self.listing.contents.get(table, b"")
        if table == "__bug_table":  # 7.x: code hands its row to the kernel: WARN_printf()
            self.row_places[table] = [*range(0, len(data), size)]
        for start in range(0, len(data), size):
            row = bytearray(data[start : start + size])
            inside = [relocation for relocation in relocations if start <= relocation.place < start + size]
            owner = self._place(inside[0], 0)
            assert owner is not None and inside[0].place == start, f"{table}+{start:#x}"
            line = ""
            if table == "__bug_table":  # struct bug_entry, include/asm-generic/bug.h
                line = str(int.from_bytes(row[-4:-2], "little"))
                row[-4:-2] = b"\0\0"
            targets = [self._row_target(table, relocation, start, row) for relocation in inside[1:]]
            self.told.pop(owner[0], None)
            self.rows[owner[0]][owner[1]].append((f"{table} {row.hex()} {targets}", line))

    def _row_target(self, table: str, relocation: Relocation, start: int, row: bytearray) -> str:
        if table != ".altinstructions":
            return self._target(table, relocation)
        # struct alt_instr, arch/x86/include/asm/alternative.h: the last byte is the length of the replacement.
        place = self._place(relocation, 0)
        assert place is not None and relocation.place == start + 4
        return "; ".join(self.code_text(*place, place[1] + row[-1])[0])

    # -- all of it ------------------------------------------------------------------------------------------------

    def things(self) -> Iterator[Thing]:
        for name, section in self.listing.sections.items():
            left_out = _fits(name, (*_FOLLOWS_FROM_CODE, *_DISCARDED, *_ONLY_BY_REFERENCE, *_TABLES))
            if not section.is_loaded or left_out:
                continue
            for span in self.spans[name]:
                yield from self.thing(name, span)
            yield from self._rest(name)

    def thing(self, section: str, span: Span) -> Iterator[Thing]:
        """Yield a thing for each name that a span has."""
        is_code = self.listing.sections[section].is_code and span.symbol.kind != "OBJECT"
        body, lines = (self.code_text if is_code else self.data_text)(section, span.start, span.end)
        if not is_code and self._is_content(span.symbol):
            return
        for symbol in self.named_at[section, span.symbol.value]:
            same = (symbol.value, symbol.size) == (span.symbol.value, span.symbol.size)
            if same or symbol is span.symbol:
                attributes = f"{symbol.kind} {symbol.binding} {symbol.visibility} {symbol.size}"
                kind = "function" if is_code else "data"
                yield Thing(kind, plain(symbol.name), section, (attributes, *body), lines)

    def _rest(self, section: str) -> Iterator[Thing]:
        """Yield the bytes under no symbol as one thing, unless they are filler or found by their content."""
        header = self.listing.sections[section]
        if "M" in header.flags or header.kind == "NOBITS":
            return
        at = 0
        texts: list[str] = []
        for start, end in [*((span.start, span.end) for span in self.spans[section]), (header.size, header.size)]:
            if at < start:
                texts += self._gap(section, at, start)
            at = max(at, end)
        if texts:
            yield Thing("section", section, section, tuple(texts), ())

    def _gap(self, section: str, start: int, end: int) -> tuple[str, ...]:
        if self.listing.sections[section].is_code:
            body = self.code_text(section, start, end)[0]
            filler = re.compile(r"^[0-9a-f]+: (?:.*\bnop|xchg\s+%ax,%ax|int3|.*data16)")
            return () if all(filler.match(line) for line in body) else body
        found: list[str] = []
        edges = self.edges[section]
        edges = [start, *edges[bisect_right(edges, start) : bisect_left(edges, end)], end]
        for at, to in pairwise(edges):
            body = self.data_text(section, at, to)[0]
            if at not in self.referred[section] and (body[0].strip("0") or len(body) > 1):
                found += body
        return tuple(found)


def things(path: Path) -> list[Thing]:
    """Return all functions and data of an object."""
    return list(Reader(Listing(path)).things())


def _groups(found: list[Thing]) -> dict[tuple[str, str], list[Thing]]:
    groups: dict[tuple[str, str], list[Thing]] = defaultdict(list)
    for thing in found:
        groups[thing.kind, thing.name].append(thing)
    return groups


def differences(old: Path, new: Path) -> Answer:
    """Say which functions and data differ between two objects."""
    return compare_things(things(old), things(new))


def compare_things(old: list[Thing], new: list[Thing]) -> Answer:
    """Compare groups of things of one kind and name."""
    before, after = _groups(old), _groups(new)
    answer: Answer = {}
    for key in sorted({*before, *after}):
        one, other = before.get(key, []), after.get(key, [])
        if not one or not other:
            answer[key] = "removed" if one else "added"
        elif sorted(thing.body for thing in one) != sorted(thing.body for thing in other):
            answer[key] = "changed"
        elif sorted(thing.section for thing in one) != sorted(thing.section for thing in other):
            answer[key] = "moved"
        elif sorted(thing.lines for thing in one) != sorted(thing.lines for thing in other):
            answer[key] = "line-only"
    return answer
