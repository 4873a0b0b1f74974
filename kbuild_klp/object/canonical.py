# SPDX-License-Identifier: GPL-2.0-only
"""An object in canonical form: its bytes cut into parts, and its references by what they mean.

`canonicalize` is the way through: image (one line of addresses), chunks (what symbols cover), references (what
refers where), parts (every byte in exactly one), targets (what each reference means).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from kbuild_klp.arch.registry import architecture
from kbuild_klp.elf.reader import ObjectFile
from kbuild_klp.elf.symbol_names import CanonicalName, canonical_name, canonical_section, numbered_candidates
from kbuild_klp.object.chunks import Chunks, find_chunks, find_gaps
from kbuild_klp.object.image import Image, build_image
from kbuild_klp.object.parts import PartKind, Parts, build_parts, chunk_kinds, code_filler, data_filler
from kbuild_klp.object.references import References, find_references
from kbuild_klp.object.targets import Targets, find_targets, nameless_targets
from kbuild_klp.special.table import special_table

__all__ = ["CanonicalObject", "PartKind", "canonicalize"]


@dataclass
class CanonicalObject:
    """One object in canonical form.

    ``names`` are those of ``chunks.symbols``, ``dotted`` the positions in it of names that may have
    lost a number, ``numbered`` of those that did;
    ``references`` and ``targets`` have a row for each reference, in order of place.
    """

    image: Image
    chunks: Chunks
    names: list[str]
    dotted: list[int]
    numbered: list[tuple[int, CanonicalName]]
    parts: Parts
    references: References
    targets: Targets

    @property
    def object(self) -> ObjectFile:
        """The ELF file."""
        return self.image.object

    @property
    def warnings(self) -> list[str]:
        """What was not understood, one line each."""
        return self.image.warnings

    @cached_property
    def first_reference(self) -> NDArray[np.int64]:
        """Index of the first reference of each part; that of part i + 1 ends part i (one element more than parts)."""
        return np.searchsorted(self.references.place, np.concatenate([self.parts.start, [np.iinfo(np.int64).max]]))

    @cached_property
    def section_names(self) -> list[str]:
        """The canonical name of each section: those of static variables of one name share theirs."""
        names = self.single_section_names.copy()
        for section, name in self.renumbered_sections.items():
            names[section] = name
        return names

    @cached_property
    def single_section_names(self) -> list[str]:
        """The name of each section, with the compiler's number of a symbol that it is named after."""
        return list(map(canonical_section, self.object.section_names))

    @cached_property
    def renumbered_sections(self) -> dict[int, str]:
        """The names, without the number, of sections named after a numbered symbol (-fdata-sections: .data.count.0)."""
        names = self.single_section_names
        maybe = {
            section
            for section, name in enumerate(names)
            if name[-1:].isdigit() and not name.startswith((".rodata.str", ".rodata.cst"))
        }
        found: dict[int, str] = {}
        if not maybe or not self.numbered:
            return found
        maybe.difference_update(self.parts.section[self.parts.kind == PartKind.CONTENT].tolist())
        symbols = self.chunks.symbols[[at for at, _ in self.numbered]]
        for (at, form), section in zip(self.numbered, self.object.shndx[symbols].tolist(), strict=True):
            end = f".{self.names[at]}"
            if section in maybe and names[section].endswith(end):
                found[section] = names[section].removesuffix(end) + f".{form.text}"
        return found

    def section_name(self, part: int) -> str:
        """Return the name of the section in which a part lies."""
        return self.section_names[int(self.parts.section[part])]

    def part_symbols(self, part: int) -> NDArray[np.int64]:
        """Return the symbols of a part, the one that names it first (empty for anonymous parts)."""
        chunk = int(self.parts.chunk[part])
        if chunk < 0:
            return self.chunks.symbols[:0]
        return self.chunks.symbols[self.chunks.first[chunk] : self.chunks.first[chunk + 1]]


def canonicalize(obj: ObjectFile) -> CanonicalObject:
    """Bring an object into canonical form; raises BadObjectError when it is broken or of an unknown machine."""
    arch = architecture(obj.machine)
    if arch is None:
        raise obj.error(f"ELF machine {obj.machine} is not supported", hint="see kbuild_klp/arch")
    image = build_image(obj, arch, special_table(arch.name))
    chunks = find_chunks(image)
    gaps = find_gaps(image, chunks)
    names = obj.symbol_names_of(chunks.symbols.tolist())
    dotted = numbered_candidates(names)
    numbered = [(at, form) for at in dotted if (form := canonical_name(names[at])).numbered]
    kinds = chunk_kinds(image, chunks, numbered)

    filler = code_filler(image, gaps)
    references = find_references(image, chunks, gaps, filler)
    anonymous = nameless_targets(image, references)
    filler |= data_filler(image, chunks, gaps, anonymous)
    parts = build_parts(image, chunks, kinds, gaps, filler, anonymous)
    targets = find_targets(image, chunks, parts, references)
    image.release_relocations()
    return CanonicalObject(image, chunks, names, dotted, numbered, parts, references, targets)
