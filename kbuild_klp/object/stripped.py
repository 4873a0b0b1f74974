# SPDX-License-Identifier: GPL-2.0-only
"""Names for the functions of an object that was stripped of its local symbols (strip --strip-unneeded).

What is left of a static function is code that no symbol covers. Where one begins is said by who calls it, by the unwind
tables (.eh_frame), by the places that ftrace can take over, and by pointers to it in variables. There it is cut, and
called after its place: `.text+0x40`. That place is a number like those of a compiler (symbol_names.py): it says nothing
of which is which, and who refers to it in both builds does.

Jump tables and ORC entries say nothing: they go into the middle of functions.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from kbuild_klp.arch.sweep import instruction_starts
from kbuild_klp.elf import constants as elf
from kbuild_klp.elf.objects import Objects, Relocations
from kbuild_klp.elf.reader import SYMBOL
from kbuild_klp.object.chunks import Chunks, Gaps
from kbuild_klp.object.code import decode
from kbuild_klp.object.image import Image
from kbuild_klp.object.special_groups import GUARD

# Not .altinstr_replacement, .fixup and the like: their pieces belong to functions, as do those of .text..refcount
# (arch/x86/include/asm/refcount.h, up to 5.4).
_TEXT = re.compile(r"(?:\.\w+)?\.text(?!\.\.refcount)(?:\..*)?")
_POINTERS = re.compile(r"\.(?:\w+\.)?data(?:\..*)?")
_ALIGNED = 16


def name_functions(
    image: Image, relocations: Relocations, gaps: Gaps, chunks: Chunks, filler: NDArray[np.bool_]
) -> bool:
    """Give symbols to the code of stripped objects that has none; says whether there is any.

    To be asked before the fields of references are cleared in the image.
    """
    objects = image.objects
    maybe = ((gaps.start < image.code_end) & ~filler).nonzero()[0].tolist()
    maybe = [at for at in maybe if _TEXT.fullmatch(objects.section_names[int(gaps.section[at])])]
    if not maybe:
        return False
    number = objects.section_object[gaps.section[maybe]].tolist()
    stripped = {at for at in {*number} if _is_stripped(objects, at)}
    mine = [gap for gap, at in zip(maybe, number, strict=True) if at in stripped]
    if not mine:
        return False
    # Nor what entries of special sections have for their content: an alternative in a subsection of .text.
    is_content = np.zeros(len(objects.sections), bool)
    for group in image.owned:
        is_content[group.sections] = group.row.content is not None
    inner = np.sort(_targets(image, relocations)[is_content[relocations.section]])
    bounds = gaps.start[mine], gaps.end[mine]
    is_free = np.searchsorted(inner, bounds[0]) == np.searchsorted(inner, bounds[1])
    mine = [gap for gap, free in zip(mine, is_free.tolist(), strict=True) if free]
    starts = _known_starts(image, relocations, chunks, gaps)
    found: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
    for gap in mine:
        section = int(gaps.section[gap])
        for low, high in _functions(image, int(gaps.start[gap]), int(gaps.end[gap]), starts):
            row = section, low - int(image.base[section]), high - low
            found[int(objects.section_object[section])].append(row)
    for at, rows in found.items():
        _add_symbols(objects, at, rows)
    return bool(found)


def _is_stripped(objects: Objects, number: int) -> bool:
    """Say whether an object has functions, but no static functions and variables (any more).

    Labels without a type stay where relocations refer to them: .LC0, __kstrtab_NAME.
    """
    symbols = objects.files[number].symbols
    kind = symbols["info"] & 0xF
    is_typed = (kind == elf.STT_FUNC) | (kind == elf.STT_OBJECT)
    is_static = is_typed & (symbols["info"] >> 4 == elf.STB_LOCAL)
    return bool((kind == elf.STT_FUNC).any() and not is_static.any())


def _known_starts(image: Image, relocations: Relocations, chunks: Chunks, gaps: Gaps) -> NDArray[np.int64]:
    """Return the addresses, sorted, at which functions are known to begin."""
    objects, arch = image.objects, image.architecture
    code = image.data[: image.code_end + GUARD]
    in_code = [side.start < image.code_end for side in (chunks, gaps)]
    start, end = (
        np.concatenate([getattr(side, name)[inside] for side, inside in zip((chunks, gaps), in_code, strict=True)])
        for name in ("start", "end")
    )
    _, fields = decode(arch, code, start.astype(np.int64), end.astype(np.int64))
    offset, base = fields.offset.astype(np.int64), fields.base.astype(np.int64)
    is_call = np.isin(code[offset - 1], np.frombuffer(arch.call_opcodes, np.uint8)) & fields.is_branch
    targets = base + arch.displacements(code, fields.offset, fields.form)
    at = np.minimum(np.searchsorted(image.places, offset), max(len(image.places) - 1, 0))
    has_relocation = image.places[at] == offset if len(image.places) else np.zeros(len(offset), bool)
    goal = _targets(image, relocations)
    bias = np.where(has_relocation, base - offset, 0)
    called = np.where(has_relocation, goal[at] + bias, targets) if len(goal) else targets
    known = [called[is_call]]
    pointers = [bool(_POINTERS.fullmatch(name)) for name in objects.section_names]
    known.append(goal[np.array(pointers, bool)[relocations.section]])
    known.append(_table_targets(image, ".eh_frame"))
    if arch.trace_section:
        # The place may lie behind the landing pad of indirect branches (endbr64): then the function is aligned.
        places = _table_targets(image, arch.trace_section)
        pads = [field - arch.trace_fields[0] for field in arch.trace_fields]
        behind = [(places - image.base[_sections_of(image, places)] - pad) % _ALIGNED == 0 for pad in pads]
        known.append(np.select(behind, [places - pad for pad in pads], places))
    return np.unique(np.concatenate(known))


def _table_targets(image: Image, name: str) -> NDArray[np.int64]:
    """Return what the relocations of the sections of one name refer to in the image."""
    objects = image.objects
    sections = [at for at, found in enumerate(objects.section_names) if found == name and objects.sections["size"][at]]
    targets = _targets(image, objects.relocations(np.array(sections, np.int64)))
    return targets[targets >= 0]


def _sections_of(image: Image, addresses: NDArray[np.int64]) -> NDArray[np.int64]:
    return image.order[np.maximum(np.searchsorted(image.starts, addresses, "right") - 1, 0)]


def _targets(image: Image, relocations: Relocations) -> NDArray[np.int64]:
    """Return the linear address of the symbol and addend of each relocation, -1 for what is not in the image."""
    objects = image.objects
    section = objects.shndx[relocations.symbol]
    base = image.base[np.maximum(section, 0)].astype(np.int64)
    value = objects.symbols["value"][relocations.symbol].astype(np.int64)
    return np.where((section > 0) & (base >= 0), base + value + relocations.addend, -(1 << 40))


def _functions(image: Image, start: int, end: int, known: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Yield where each function begins and ends in code without symbols, padding left out."""
    code, filler = image.buffer, image.architecture.is_filler
    cuts = known[np.searchsorted(known, start) : np.searchsorted(known, end)].tolist()
    # The first begins behind the padding that follows what stands before.
    aligned = -start % _ALIGNED + start
    first = next((at for at in (*cuts[:1], aligned) if start < at < end and filler(bytes(code[start:at]))), start)
    cuts = [first, *(at for at in cuts if at > first)]
    lengths = image.architecture.instruction_lengths(
        np.frombuffer(bytes(code[start:end]) + bytes(GUARD), np.uint8)
    ).data
    for low, high in zip(cuts, [*cuts[1:], end], strict=True):
        begins, stopped = instruction_starts(lengths, low - start, high - start)
        size = high - low
        for at in reversed(begins if stopped == high - start else []):
            if not filler(bytes(code[start + at : high])):
                break
            size = start + at - low
        if size:
            yield low, low + size


def _add_symbols(objects: Objects, number: int, rows: list[tuple[int, int, int]]) -> None:
    """Add functions (section, place in it, size) to the symbol table of an object."""
    file = objects.files[number]
    first = int(objects.first_section[number])
    added = np.zeros(len(rows), SYMBOL)
    names = b""
    for row, (section, value, size) in zip(added, rows, strict=True):
        index = section - first
        row["name"] = len(file.symbol_strings) + len(names)
        row["info"] = elf.STB_LOCAL << 4 | elf.STT_FUNC
        row["value"], row["size"] = value, size
        names += f"{file.section_names[index]}+{value:#x}\0".encode("utf-8", "surrogateescape")
    file.add_symbols(added, np.array([section - first for section, _, _ in rows], np.int64), names)
