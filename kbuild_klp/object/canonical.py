# SPDX-License-Identifier: GPL-2.0-only
"""Objects in canonical form: their bytes cut into parts, and their references by what they mean.

`canonicalize` is the way through, one step after the other; from its end on nothing of it changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from kbuild_klp.arch.registry import architecture
from kbuild_klp.elf.objects import Objects
from kbuild_klp.elf.reader import ObjectFile
from kbuild_klp.elf.symbol_names import CanonicalName, canonical_name, canonical_section, is_made_up, memory_of
from kbuild_klp.object.btf_ids import clear_btf_ids
from kbuild_klp.object.chunks import Chunks, find_chunks, find_gaps
from kbuild_klp.object.families import Families, find_families
from kbuild_klp.object.image import Image, build_image
from kbuild_klp.object.owned import OwnedEntries, RecordLines, sort_by_owner, take_record_lines
from kbuild_klp.object.parts import CONTENT, Parts, build_parts, chunk_kinds, code_filler, data_filler
from kbuild_klp.object.pointed_lines import take_pointed_lines
from kbuild_klp.object.redzones import without_redzones
from kbuild_klp.object.references import References, find_references
from kbuild_klp.object.runs import with_end
from kbuild_klp.object.special_groups import SpecialGroup
from kbuild_klp.object.stripped import name_functions
from kbuild_klp.object.symbol_sources import Sources
from kbuild_klp.object.targets import Targets, count_from_entries, find_targets, nameless_targets, rows_of_group
from kbuild_klp.special.table import special_table


class _Memories(dict[int, bytes]):
    """The memories of sections; there may be a section for each function, and few of them are asked for."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self._names = names

    def __missing__(self, section: int) -> bytes:
        found = memory_of(canonical_section(self._names[section])).encode("utf-8", "surrogateescape")
        self[section] = found
        return found


@dataclass(frozen=True)
class Canonical:
    """A batch of objects in canonical form.

    ``references`` and ``targets`` have a row for each reference, in order of place; ``owned`` are the entries of
    special sections, by part; ``record_lines`` the line numbers that were cleared in sections of records, and
    ``pointed_lines`` those in records elsewhere, by part; ``numbered`` the symbols in whose names there was a
    compiler's number, by position in ``chunks.symbols``.
    """

    image: Image
    chunks: Chunks
    parts: Parts
    references: References
    targets: Targets
    sources: Sources
    families: Families
    owned: OwnedEntries
    record_lines: dict[int, RecordLines]
    pointed_lines: dict[int, bytes]
    numbered: list[tuple[int, CanonicalName]]

    @property
    def objects(self) -> Objects:
        """The ELF files."""
        return self.image.objects

    @cached_property
    def first_reference(self) -> NDArray[np.int64]:
        """Index of the first reference of each part; that of part i + 1 ends part i (one element more than parts)."""
        return np.searchsorted(self.references.place, with_end(self.parts.start))

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
        return list(map(canonical_section, self.objects.section_names))

    @cached_property
    def memories(self) -> Mapping[int, bytes]:
        """For each section what its memory is, where that is not the rule: init memory is given back after boot."""
        return _Memories(self.objects.section_names)

    @cached_property
    def renumbered_sections(self) -> dict[int, str]:
        """The names, without the number, of sections named after a numbered symbol (-fdata-sections: .data.count.0)."""
        found: dict[int, str] = {}
        if not self.numbered:
            return found
        symbols = self.chunks.symbols[[at for at, _ in self.numbered]]
        sections = self.objects.shndx[symbols]
        barred = np.zeros(len(self.image.base), bool)
        barred[self.parts.section[self.parts.kind == CONTENT]] = True
        names = self.objects.names_of(symbols.tolist())
        rows = zip(self.numbered, names, sections.tolist(), barred[sections].tolist(), strict=True)
        for (_, form), symbol, section, is_barred in rows:
            if is_barred or not self.objects.section_names[section].endswith(symbol):
                continue
            name, end = canonical_section(self.objects.section_names[section]), f".{symbol}"
            # One of constants or strings is named after their size.
            if name[-1:].isdigit() and name.endswith(end) and not name.startswith((".rodata.str", ".rodata.cst")):
                found[section] = name.removesuffix(end) + f".{form.text}"
        return found

    def lines_of_record(self, part: int) -> bytes:
        """Return the line numbers that were cleared in a record (LINE_SIZE bytes each), empty for what is none."""
        taken = self.record_lines.get(int(self.parts.section[part]))
        if taken is None:
            return self.pointed_lines.get(part, b"")
        line: bytes = taken.rows[(int(self.parts.start[part]) - taken.base) // taken.size].tobytes()
        return line

    def section_name(self, part: int) -> str:
        """Return the name of the section in which a part lies."""
        section = int(self.parts.section[part])
        return self.renumbered_sections.get(section) or canonical_section(self.objects.section_names[section])

    def owners_out_of_order(self, group: SpecialGroup, section: int) -> list[str]:
        """Return the canonical names of the owners of the entries in a section of ``group``, in the order of these.

        Empty where that is the order in which they lie: then it says nothing, and entries may come and go.
        """
        found = rows_of_group(self.image, replace(group, sections=np.array([section])), self.references)
        rows = found.rows[found.is_owner]
        target, of = self.references.target[rows], self.references.section[rows]
        order = np.argsort(of, kind="stable")
        if ((np.diff(target[order]) >= 0) | (np.diff(of[order]) != 0)).all():
            return []
        names = self.objects.names_of(np.maximum(self.targets.symbol[rows], 0).tolist())
        return [canonical_name(name).text for name in names]

    def part_symbols(self, part: int) -> NDArray[np.int64]:
        """Return the symbols of a part, the one that names it first (empty for anonymous parts)."""
        chunk = int(self.parts.chunk[part])
        if chunk < 0:
            return self.chunks.symbols[:0]
        return self.chunks.symbols[self.chunks.first[chunk] : self.chunks.first[chunk + 1]]


def canonicalize(files: ObjectFile | Sequence[ObjectFile]) -> Canonical:
    """Bring objects of one machine into canonical form; raises BadObjectError for one that is broken."""
    objects = Objects([files] if isinstance(files, ObjectFile) else files)
    arch = architecture(objects.machine)
    if arch is None:
        raise objects.error(0, f"ELF machine {objects.machine} is not supported", hint="see kbuild_klp/arch")
    if objects.byteorder != arch.byteorder:
        raise objects.error(0, f"a {objects.byteorder}-endian object", hint=f"{arch.name} is {arch.byteorder}-endian")
    image, relocations = build_image(objects, arch, special_table(arch.name))
    chunks = find_chunks(image)
    gaps = find_gaps(image, chunks)
    filler = code_filler(image, gaps)
    if name_functions(image, relocations, gaps, chunks, filler):
        return canonicalize(objects.files)
    names = objects.names_of(chunks.symbols.tolist())
    maybe = objects.is_maybe_numbered[chunks.symbols].nonzero()[0].tolist()
    made_up = [(at, form) for at in maybe if is_made_up(form := canonical_name(names[at]))]
    numbered = [(at, form) for at, form in made_up if form.numbered]
    kinds = chunk_kinds(image, chunks, made_up)

    references = find_references(image, relocations, chunks, gaps, filler)
    del relocations
    count_from_entries(image, references)
    anonymous = nameless_targets(image, references)
    filler |= data_filler(image, chunks, gaps, anonymous)
    gaps, filler = without_redzones(image, chunks, gaps, filler, references, anonymous)
    parts = build_parts(image, chunks, kinds, gaps, filler, anonymous)
    targets = find_targets(image, chunks, parts, references)

    sources = Sources(objects)
    families = find_families(image, chunks, parts, sources, names, maybe, numbered)
    owned = sort_by_owner(image, references, targets)
    lines = take_record_lines(image)
    pointed = take_pointed_lines(image, parts, references)
    clear_btf_ids(image)
    image.data.flags.writeable = False
    return Canonical(image, chunks, parts, references, targets, sources, families, owned, lines, pointed, numbered)
