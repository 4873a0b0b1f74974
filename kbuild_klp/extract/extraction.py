# SPDX-License-Identifier: GPL-2.0-only
"""The extraction of one object in the order in which it happens: a line a stage."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from kbuild_klp.builds.side import SINGLE_OBJECT
from kbuild_klp.builds.single_object import ObjectBuild
from kbuild_klp.changes.classification import Change, ChangeType
from kbuild_klp.changes.verdict import NOTES
from kbuild_klp.checksum.entry import KIND_FUNCTION
from kbuild_klp.compare.passes import compare
from kbuild_klp.errors import KlpError
from kbuild_klp.extract.beside import check
from kbuild_klp.extract.correlated import Correlated
from kbuild_klp.extract.laid_out import LaidOut
from kbuild_klp.extract.needed import Needed
from kbuild_klp.extract.relocated import RelocatedObject
from kbuild_klp.extract.side_tables import SideEntry, side_entries
from kbuild_klp.extract.why_not import Bar, CannotCarryError, Refusal
from kbuild_klp.livepatch.rules import needs_nothing
from kbuild_klp.object.view import ObjectView


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


class _Wanted(NamedTuple):
    """The changes, sorted: those to begin with, and what is said of the others."""

    begin: list[Change]
    refused: list[Refusal]
    left_out: list[str]
    not_needed: list[str]


def extract(old_path: str, new_path: str, output: str, without: Sequence[str] = ()) -> Extraction:
    """Write the changed functions of an object to ``output``, whole or not at all; raises KlpError.

    Nothing is written when something that differs cannot be carried, or nothing differs. ``without`` are patterns, as
    of the shell, of symbols to be left out.
    """
    for path in (old_path, new_path):
        if os.path.realpath(path) == os.path.realpath(output):
            raise KlpError("would be written over", file=path, hint="give another -o FILE")
    # What was made another time is no answer to this one.
    try:
        Path(output).unlink(missing_ok=True)
    except OSError as error:
        raise KlpError(error.strerror or str(error), file=output, hint="give another -o FILE") from None
    old_build, new_build = ObjectBuild(old_path), ObjectBuild(new_path)
    report = compare(old_build, new_build)
    if report.failed:
        raise KlpError(report.failed[0])
    changes = [change for group in report.objects for change in group.changes]
    wanted = _sorted(changes, without)
    told = wanted.left_out, wanted.not_needed
    old, new = old_build.view(SINGLE_OBJECT), new_build.view(SINGLE_OBJECT)
    if wanted.refused or not wanted.begin or old is None or new is None:
        return Extraction((), wanted.refused, *told, warnings=report.warnings)

    needed, side = _needed(old, new, wanted)
    if needed.refused:
        return Extraction((), list(needed.refused), *told, warnings=report.warnings)
    laid = LaidOut(needed, side)
    functions = _write_checked(output, needed, laid, side)
    carried = _carried(needed, laid)
    names = {item.symbol for item in carried}
    not_needed = [name for name in wanted.not_needed if name not in names]
    outside = _outside(needed)
    return Extraction(carried, (), wanted.left_out, not_needed, outside, laid.count, functions, report.warnings)


def _sorted(changes: Sequence[Change], without: Sequence[str]) -> _Wanted:
    """Say of each change whether it is one to begin with."""
    wanted = _Wanted([], [], [], [])
    for change in changes:
        if needs_nothing(change):
            continue
        if any(fnmatchcase(name, pattern) for pattern in without for name in (change.symbol, change.label)):
            wanted.left_out.append(change.label or change.symbol)
        elif not change.livepatch.possible:
            text = "; ".join(it.text for it in change.livepatch.reasons if it.obstacle not in NOTES)
            wanted.refused.append(Refusal.of(change.label or change.symbol, Bar.VERDICT, text=text))
        elif change.kind == KIND_FUNCTION and (change.change is ChangeType.CHANGED or _is_new_global(change)):
            wanted.begin.append(change)
        else:
            wanted.not_needed.append(change.symbol)
    return wanted


def _is_new_global(change: Change) -> bool:
    """Say whether a function is new and no other object can be ruled out to call it."""
    return change.change is ChangeType.ADDED and not change.file


def _needed(old: ObjectView, new: ObjectView, wanted: _Wanted) -> tuple[Needed, list[SideEntry]]:
    both, relocated = Correlated(old, new), RelocatedObject(new)
    if not relocated.is_supported:
        raise KlpError(f"functions of {new.architecture.name} cannot be extracted yet", file=new.file.path)
    begin = []
    for change in wanted.begin:
        assert change.new is not None
        part = new.parts_of(change.new.part_symbol)[0]
        is_local = not int(new.object.symbols["info"][int(new.canonical.part_symbols(part)[0])]) >> 4
        if both.old_function(part) is not None:
            begin.append((part, "changed"))
        elif change.change is ChangeType.ADDED and not is_local:
            begin.append((part, "new"))
        else:
            wanted.not_needed.append(change.symbol)
    needed = Needed(both, relocated, begin)
    try:
        side = list(side_entries(new, needed.pieces.values()))
    except CannotCarryError as error:
        needed.refuse(begin[0][0], error)
        side = []
    return needed, side


def _write_checked(output: str, needed: Needed, laid: LaidOut, side: list[SideEntry]) -> int:
    """Write the object, read it again, and only then give it its name; returns the number of functions."""
    temporary = f"{output}.{os.getpid()}.tmp"
    try:
        try:
            Path(temporary).write_bytes(laid.file())
            functions = check(needed, laid, side, temporary)
            Path(temporary).replace(output)
        except OSError as error:
            raise KlpError(error.strerror or str(error), file=output, hint="give another -o FILE") from None
    except BaseException:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise
    return functions


def _carried(needed: Needed, laid: LaidOut) -> list[Carried]:
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
        is_local = is_own and not needed.both.is_inside_old(name)
        found.append(Outside(name, is_local, is_own, symbol.file if symbol else ""))
    return found
