# SPDX-License-Identifier: GPL-2.0-only
"""What differs in what the linker sees: symbols, split-off parts, sections."""

from __future__ import annotations

from typing import NamedTuple

from kbuild_klp.changes.wording import Code, Reason
from kbuild_klp.checksum.entry import Entry
from kbuild_klp.elf import constants as elf
from kbuild_klp.elf.symbol_names import canonical_name
from kbuild_klp.lines.versions import Version
from kbuild_klp.object.view import ObjectView


class Symbol(NamedTuple):
    """What the linker sees of one symbol; ``offset`` in the part that it belongs to, ``size`` in bytes."""

    name: str
    offset: int
    binding: int
    type: int
    visibility: int
    size: int

    @classmethod
    def of(cls, view: ObjectView, index: int, start: int) -> Symbol:
        """Read symbol ``index``, whose part starts at ``start`` of its section."""
        row = view.object.symbols[index]
        name = canonical_name(view.object.symbol_name(index)).text
        info, other = int(row["info"]), int(row["other"])
        return cls(name, int(row["value"]) - start, info >> 4, info & 0xF, other, int(row["size"]))

    def __str__(self) -> str:
        words = [elf.BINDING_NAMES.get(self.binding, f"binding {self.binding}")]
        words.append(elf.TYPE_NAMES.get(self.type, f"type {self.type}"))
        if self.visibility:
            words.append(elf.VISIBILITY_NAMES.get(self.visibility, f"other {self.visibility:#x}"))
        return f"{self.name} at +{self.offset:#x}, {' '.join(words)}, {self.size} bytes"


def _symbols(view: ObjectView, part: int) -> list[Symbol]:
    """Return the symbols of a part, the one that names it first."""
    _, start = view.place(part)
    return [Symbol.of(view, index, start) for index in view.canonical.part_symbols(part).tolist()]


def symbol_reasons(old: Symbol, new: Symbol, within: tuple[str, ...] = ()) -> list[Reason]:
    """Say how the attributes of a symbol differ."""
    reasons = []
    for code, names, was, is_ in (
        (Code.BINDING, elf.BINDING_NAMES, old.binding, new.binding),
        (Code.TYPE, elf.TYPE_NAMES, old.type, new.type),
        (Code.VISIBILITY, elf.VISIBILITY_NAMES, old.visibility, new.visibility),
    ):
        if was != is_:
            words = names.get(was, str(was)), names.get(is_, str(is_))
            reasons.append(Reason.of(code, *words)._replace(within=within))
    return reasons


def part_reasons(old: Version, new: Version) -> list[Reason]:
    """Return what differs in the symbols of a function or variable, and in which parts were split off it."""
    sides = before, after = [
        {canonical_name(view.part_name(part)).text: part for part in parts[1:]} for view, parts in (old, new)
    ]
    reasons = named_part_reasons(old.view, new.view, old.parts[0], new.parts[0])
    for name in sorted(before.keys() | after.keys()):
        sizes = [
            version.view.size(side[name]) if name in side else -1
            for version, side in zip((old, new), sides, strict=True)
        ]
        was, is_ = (f"{name}, {size} bytes" if size >= 0 else "" for size in sizes)
        if name in before and name in after:
            reasons += named_part_reasons(old.view, new.view, before[name], after[name], (name,))
            if sizes[0] != sizes[1]:
                reasons.append(Reason.of(Code.PART_SIZE, was, is_, symbol=name, old_size=sizes[0], new_size=sizes[1]))
        else:
            reasons.append(Reason.of(Code.PART, was, is_, symbol=name))
    return reasons


def named_part_reasons(
    old: ObjectView, new: ObjectView, old_part: int, new_part: int, within: tuple[str, ...] = ()
) -> list[Reason]:
    """Return what differs in the symbols of one part."""
    before, after = _symbols(old, old_part), _symbols(new, new_part)
    if not before or not after:
        return []
    # Which of several names comes first depends on their bindings. Compare the same one on both sides.
    listed = after[0].name
    common = before[0].name if any(symbol.name == before[0].name for symbol in after) else listed
    for side in (before, after):
        side.sort(key=lambda symbol: (symbol.name, symbol.offset) != (common, 0))
    named = within if after[0].name == listed else (*within, after[0].name)
    reasons = symbol_reasons(before[0], after[0], named)
    was, is_ = _stated(before[0], old.size(old_part)), _stated(after[0], new.size(new_part))
    if " for " in was + is_ and was != is_:
        reasons.append(Reason.of(Code.STATED_SIZE, was, is_)._replace(within=within))
    was_called, is_called = _others(before), _others(after)
    gone = {was_called[key] for key in was_called.keys() - is_called.keys()}
    come = {is_called[key] for key in is_called.keys() - was_called.keys()}
    others = {symbol.name: symbol for symbol in come}
    for symbol in sorted(gone):
        other = others.pop(symbol.name, None)
        if other is None:
            reasons.append(Reason.of(Code.ALIAS, symbol, "", symbol=symbol.name)._replace(within=within))
        elif symbol != other:  # otherwise the size of the function changed, and this alias is as long as it
            reasons.append(Reason.of(Code.ALIAS_DIFFERS, symbol, other)._replace(within=within))
    for symbol in sorted(others.values()):
        reasons.append(Reason.of(Code.ALIAS, "", symbol, symbol=symbol.name)._replace(within=within))
    return reasons


def _others(symbols: list[Symbol]) -> dict[Symbol, Symbol]:
    """Return aliases and labels by what is compared of them: an alias of the whole function has that one's size."""
    head, *others = symbols
    whole = (not each.offset and each.size == head.size for each in others)
    return {each._replace(size=-1) if is_whole else each: each for each, is_whole in zip(others, whole, strict=True)}


def _stated(symbol: Symbol, size: int) -> str:
    """Return the size that a symbol states: that of its part, except in assembly, which may state none or another."""
    return f"{symbol.size} bytes" if symbol.size == size else f"{symbol.size} bytes for {size}"


def number_reasons(old: ObjectView, new: ObjectView, entries: tuple[Entry, Entry]) -> list[Reason]:
    """Return what differs in a symbol that has no bytes: an absolute one, or a common one."""
    found = [view.bare_symbol(entry.symbol) for view, entry in zip((old, new), entries, strict=True)]
    if found[0] is None or found[1] is None:
        return []
    before, after = (Symbol.of(view, index, 0) for view, index in ((old, found[0]), (new, found[1])))
    reasons = symbol_reasons(before, after)
    if before.offset != after.offset:
        reasons.insert(0, Reason.of(Code.VALUE, f"{before.offset:#x}", f"{after.offset:#x}"))
    return reasons


_FLAGS = (
    (elf.SHF_WRITE, "write"),
    (elf.SHF_ALLOC, "alloc"),
    (elf.SHF_EXECINSTR, "execute"),
    (elf.SHF_MERGE, "merge"),
    (elf.SHF_STRINGS, "strings"),
    (elf.SHF_LINK_ORDER, "link order"),
)
_TYPES = {elf.SHT_PROGBITS: "progbits", elf.SHT_NOTE: "note", elf.SHT_NOBITS: "nobits"}


def section_in_words(view: ObjectView, name: str) -> str:
    """Return type, flags and entry size of the section (or sections) called ``name``."""
    words = []
    for index in view.sections_called(name):
        header = view.object.sections[index]
        flags = int(header["flags"]) & ~elf.SHF_GROUP
        known = [word for bit, word in _FLAGS if flags & bit]
        rest = flags & ~sum(bit for bit, _ in _FLAGS)
        known += [f"{rest:#x}"] if rest else []
        kind = int(header["type"])
        text = f"{_TYPES.get(kind, f'type {kind:#x}')} {'+'.join(known) or 'no flags'}"
        words.append(f"{text}, entries of {int(header['entsize'])} bytes" if header["entsize"] else text)
    return "; ".join(words if len({*words}) > 1 else words[:1])
