# SPDX-License-Identifier: GPL-2.0-only
"""What a reference goes to, and how, in words."""

from __future__ import annotations

from kbuild_klp.elf import constants as elf
from kbuild_klp.object.view import ObjectView

_MOST_TEXT = 40
_MOST_CONSTANT = 16


def describe(view: ObjectView, index: int) -> str:
    """Return a reference's target in words."""
    text = view.string(index)
    if text is not None:
        return quote(text)
    targets = view.canonical.targets
    offset = int(targets.offset[index])
    suffix = "" if not offset else f"{'+' if offset > 0 else '-'}{abs(offset):#x}"
    symbol, section = int(targets.symbol[index]), int(targets.section[index])
    if symbol >= 0:
        name = view.object.symbol_name(symbol)
        if not name and view.object.shndx[symbol] > 0:
            name = view.object.section_names[int(view.object.shndx[symbol])]
        return f"{name or 'address'}{suffix}"
    if section >= 0:
        return f"{view.object.section_names[section]}{suffix}"
    part = int(targets.part[index])
    return f"{view.part_name(part)}{suffix}" if view.part_name(part) else _describe_nameless(view, part)


def _describe_nameless(view: ObjectView, part: int) -> str:
    references = view.entries(part)
    flags = int(view.object.sections["flags"][int(view.canonical.parts.section[part])])
    if flags & elf.SHF_MERGE and view.size(part) <= _MOST_CONSTANT and not references:
        return f"constant {int.from_bytes(view.data(part), view.architecture.byteorder):#x}"
    kinds = {view.is_code(target) for i in references if (target := int(view.canonical.targets.part[i])) >= 0}
    what = "jump table" if kinds == {True} and not any(view.data(part)) else "unnamed data"
    return f"{what} in {view.canonical.section_name(part)}"


def operand_text(view: ObjectView, index: int) -> str:
    """Return a reference's target as it stands in an instruction: what has no name of its own in <>."""
    words = describe(view, index)
    return words if view.target_symbol(index) >= 0 else f"<{words}>"


def how(view: ObjectView, index: int) -> str:
    """Return how a reference refers to its target: relocation type, and what an undefined symbol is known by."""
    words = [view.kinds.name(int(view.canonical.references.kind[index]))]
    symbol = view.target_symbol(index)
    if symbol > 0:
        row, shndx = view.object.symbols[symbol], int(view.object.shndx[symbol])
        if shndx == elf.SHN_UNDEF:
            weak = int(row["info"]) >> 4 == elf.STB_WEAK
            words += ["undefined"] + ["weak"] * weak
            if row["other"] & 3:
                words.append(elf.VISIBILITY_NAMES[int(row["other"]) & 3])
        elif shndx == elf.ABSOLUTE:
            words.append(f"absolute {int(row['value']):#x}")
    return " ".join(words)


def describe_with_section(view: ObjectView, index: int) -> str:
    """Return a reference's target and the section in which it lies."""
    section = view.canonical.section_name(int(view.canonical.targets.part[index]))
    words = describe(view, index)
    return words if words.endswith(f" in {section}") else f"{words} in {section}"


def quote(text: str, most: int = _MOST_TEXT) -> str:
    """Return a string literal, cut when it has more than ``most`` characters."""
    cut = text if len(text) <= most else text[: most - 3] + "..."
    printable = cut.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    return '"' + "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in printable) + '"'
