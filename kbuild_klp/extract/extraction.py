# SPDX-License-Identifier: GPL-2.0-only
"""The extraction of one object in the order in which it happens: a line a stage."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from kbuild_klp.builds.side import SINGLE_OBJECT
from kbuild_klp.builds.single_object import ObjectBuild
from kbuild_klp.compare.passes import compare
from kbuild_klp.elf.reader import ObjectFile
from kbuild_klp.elf.writer import remove_old, write_whole
from kbuild_klp.errors import KlpError
from kbuild_klp.extract.begun_anew import begun_anew
from kbuild_klp.extract.beside import check
from kbuild_klp.extract.laid_out import LaidOut
from kbuild_klp.extract.needed import Needed
from kbuild_klp.extract.runtime_tables import runtime_tables
from kbuild_klp.extract.same_object import of_other_sources
from kbuild_klp.extract.wanted import index_warning, misspelt, sort_changes, take
from kbuild_klp.extract.why_not import Refusal


class Carried(NamedTuple):
    """What was carried: ``kind`` function, data or code, ``size`` in bytes, and why."""

    symbol: str
    kind: str
    section: str
    size: int
    why: str


class Outside(NamedTuple):
    """An undefined symbol of the extracted object.

    ``is_local`` says that it is a local one of the old object (of the source ``file``, where there are several).
    """

    symbol: str
    is_local: bool
    is_own: bool
    file: str


@dataclass(frozen=True)
class Extraction:
    """What came of it: a file was written if something was carried.

    ``left_out`` are changes that the user did not want, ``not_needed`` those that nothing carried needs.
    """

    carried: Sequence[Carried] = ()
    refused: Sequence[Refusal] = ()
    left_out: Sequence[str] = ()
    not_needed: Sequence[str] = ()
    outside: Sequence[Outside] = ()
    relocations: int = 0
    functions: int = 0
    warnings: Sequence[str] = ()

    @property
    def is_written(self) -> bool:
        """Whether there is a file."""
        return bool(self.carried)


def extract(old_path: str, new_path: str, output: str, without: Sequence[str] = ()) -> Extraction:
    """Write the changed functions of an object to ``output``, whole or not at all; raises KlpError.

    Nothing is written when something that differs cannot be carried, or nothing differs. ``without`` are patterns, as
    of the shell, of symbols to be left out.
    """
    for path in (old_path, new_path):
        if os.path.realpath(path) == os.path.realpath(output):
            raise KlpError("would be written over", file=path, hint="give another -o FILE")
    remove_old(output)
    old_build, new_build = ObjectBuild(old_path), ObjectBuild(new_path)
    report = compare(old_build, new_build)
    if report.failed:
        raise KlpError(report.failed[0])
    warnings = [*report.warnings, *misspelt(report.objects, without)]
    if not report.objects:
        return Extraction(warnings=warnings)
    [group] = report.objects
    wanted = sort_changes(group, without)
    told = wanted.left_out, wanted.not_needed
    old, new = old_build.view(SINGLE_OBJECT), new_build.view(SINGLE_OBJECT)
    if old is not None and new is not None:
        warnings += of_other_sources(old, new)
    if wanted.refused or not (wanted.begin or wanted.constants or wanted.copies) or old is None or new is None:
        return Extraction((), wanted.refused, *told, warnings=warnings)

    needed, side, needless = take(old, new, wanted)
    not_needed = [*wanted.not_needed, *needless]
    if needed.refused or not needed.pieces:  # new functions alone, and nobody calls them
        return Extraction((), list(needed.refused), wanted.left_out, not_needed, warnings=warnings)
    laid = LaidOut(needed, side)
    data = laid.file()
    functions = check(needed, laid, side, ObjectFile(data, output))
    write_whole(output, data)
    carried = carried_by(needed, laid)
    names = {item.symbol for item in carried}
    not_needed = [name for name in not_needed if name not in names]
    outside = _outside(needed)
    warnings += [*_unwritten(needed), *begun_anew(needed), *index_warning(group.changes)]
    return Extraction(carried, (), wanted.left_out, not_needed, outside, laid.count, functions, warnings)


def _unwritten(needed: Needed) -> Iterator[str]:
    """Yield what is said of places that the kernel writes to while it boots: whoever makes a module of it has to."""
    for table, owners in runtime_tables(needed).items():
        functions = ", ".join(dict.fromkeys(needed.name(owner) for owner in owners))
        yield f"{functions}: the kernel writes a constant into it where {table} says, but not in a module"


def carried_by(needed: Needed, laid: LaidOut) -> list[Carried]:
    """Return what an extracted object carries, functions first."""
    found = []
    for piece in sorted(needed.pieces.values()):
        is_code = needed.view.is_code(piece.part)
        is_function = needed.main(piece.part) in needed.functions
        kind = "function" if is_function else "code" if is_code else "data"
        section, size = laid.spots[piece.low].section.name, piece.high - piece.low
        found.append(Carried(needed.view.part_name(piece.part), kind, section, size, piece.why))
    return sorted(found, key=lambda item: (item.kind != "function", item.kind, item.symbol))


def _outside(needed: Needed) -> list[Outside]:
    found = []
    for name, (symbol, _) in sorted(needed.outside.items()):
        is_own = symbol is not None
        is_local = is_own and name not in needed.both.old.globals
        found.append(Outside(name, is_local, is_own, symbol.file if symbol else ""))
    return found
