# SPDX-License-Identifier: GPL-2.0-only
"""The making of a livepatch module in the order in which it happens: a line a stage."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from kbuild_klp.builds.side import Build
from kbuild_klp.changes.classification import ChangeType
from kbuild_klp.compare.passes import compare
from kbuild_klp.elf.reader import ObjectFile
from kbuild_klp.elf.writer import remove_old, write_whole
from kbuild_klp.errors import KlpError
from kbuild_klp.extract.begun_anew import begun_anew
from kbuild_klp.extract.beside import check
from kbuild_klp.extract.extraction import Carried, carried_by
from kbuild_klp.extract.laid_out import LaidOut
from kbuild_klp.extract.wanted import index_warning, misspelt, sort_changes, take
from kbuild_klp.extract.why_not import CannotCarryError, Refusal
from kbuild_klp.kernel.tree import VMLINUX, BuildTree
from kbuild_klp.livepatch.rules import WAITS_FOR_THREADS, join_names
from kbuild_klp.livepatch.threads import Threads
from kbuild_klp.module.build import build_module, exports_of
from kbuild_klp.module.finished import check_linked
from kbuild_klp.module.glue import GluedObject, glue
from kbuild_klp.module.glued import check_glue
from kbuild_klp.module.late_objtool import leave_to_objtool, runs_late
from kbuild_klp.module.loadable import check_exports, check_livepatch_symbols, check_release
from kbuild_klp.module.loading import SILENT_KEY, refuse_what_comes_too_early, silent_tracepoints
from kbuild_klp.module.post_link import post_link
from kbuild_klp.module.running import CarriedObject, Running
from kbuild_klp.module.runtime_constants import runtime_constants
from kbuild_klp.module.sealed import refuse_pointers_to_sealed
from kbuild_klp.module.sign import check_that_it_can_sign, signed
from kbuild_klp.module.work import working_directory
from kbuild_klp.report.model import Report

_TABLE = "klp_new_functions_{}"
_OBJECT = "klp-{}"


class Check(NamedTuple):
    """A check that holds: of what, and how many of these there are."""

    what: str
    number: int


class CarriedPiece(NamedTuple):
    """Something that the livepatch carries, of which object and for which unit."""

    object: str
    unit: str
    piece: Carried


class RefusedChange(NamedTuple):
    """Something that cannot be carried, of which object and for which unit."""

    object: str
    unit: str
    refusal: Refusal


@dataclass(frozen=True)
class Livepatch:
    """What came of it: a module was written if ``module`` names it."""

    module: str = ""
    carried: Sequence[CarriedPiece] = ()
    refused: Sequence[RefusedChange] = ()
    left_out: Sequence[str] = ()
    not_needed: Sequence[str] = ()
    checks: Sequence[Check] = ()
    warnings: Sequence[str] = ()


class Options(NamedTuple):
    """What the user wants: the name, what to leave out (patterns), and whether it is cumulative, and is signed."""

    name: str
    without: Sequence[str] = ()
    replace: bool = False
    sign: bool = False


class _Selected(NamedTuple):
    """What is to be carried of all objects, and what is said of the rest."""

    parts: list[CarriedObject]
    refused: list[RefusedChange]
    left_out: list[str]
    not_needed: list[str]


class _Resolved(NamedTuple):
    """One part, how its undefined symbols are spelled, and which functions of the old kernel it replaces."""

    part: CarriedObject
    spelled: dict[str, str]
    glued: GluedObject


class _Extracted(NamedTuple):
    """The object that was made of one part; ``checked`` functions were held beside their originals."""

    part: CarriedObject
    glued: GluedObject
    laid: LaidOut
    data: bytes
    checked: int


def _say_nothing(stage: str) -> None:
    """Do not tell anybody what is being done."""


def make_livepatch(
    old: Build,
    new: Build,
    output: str,
    options: Options,
    compared: Callable[[Build, Build], Report] = compare,
    on_stage: Callable[[str], None] = _say_nothing,
) -> Livepatch:
    """Write a livepatch module to ``output``, whole or not at all; raises KlpError.

    Nothing is written when something that differs cannot be carried, or nothing differs. ``compared`` compares the
    builds; ``on_stage`` is told what is being done.
    """
    tree = _prepare(old, new, output, options)
    report = compared(old, new)
    if report.failed:
        raise KlpError(report.failed[0])

    on_stage("what comes along")
    selected = _select(old, new, report, options.without)
    running = Running(old, selected.parts, tree)
    if runs_late(tree):
        for part in selected.parts:
            leave_to_objtool(part)
    resolved = [_resolve(part, number, running) for number, part in enumerate(selected.parts)]
    refused = [RefusedChange(it.object, it.unit, refusal) for it in selected.parts for refusal in it.needed.refused]
    refused = [*selected.refused, *refused]
    warnings = _heard(new, report, options.without)
    if refused or not selected.parts:
        return Livepatch("", (), refused, selected.left_out, selected.not_needed, (), warnings)

    on_stage("extraction")
    extracted = [_extract(it) for it in resolved]
    on_stage("module build")
    linked, said = _build(tree, extracted, options)
    on_stage("checks")
    data = post_link(linked, output)
    checks = _check(ObjectFile(data, output), extracted, running, old, tree)
    write_whole(output, signed(tree, data) if options.sign else data)

    pieces = [(it.part, piece) for it in extracted for piece in carried_by(it.part.needed, it.laid)]
    carried = [CarriedPiece(part.object, part.unit, piece) for part, piece in pieces]
    names = {piece.symbol for _, piece in pieces}
    not_needed = [name for name in selected.not_needed if name not in names]
    changes = [change for group in report.objects for change in group.changes]
    warnings += [*_warnings(selected.parts, running), *index_warning(changes), *said]
    return Livepatch(output, carried, (), selected.left_out, not_needed, checks, warnings)


def _prepare(old: Build, new: Build, output: str, options: Options) -> BuildTree:
    """Return the tree to build in, and remove what was made before; raises KlpError, better before all work."""
    _check_alike(old, new)
    tree = _tree_to_build_in(old, new)
    exports_of(tree)
    if options.sign:
        check_that_it_can_sign(tree)
    _check_output(output, (old, new))
    remove_old(output)
    return tree


def _heard(new: Build, report: Report, without: Sequence[str]) -> list[str]:
    """Return what is said of the comparison, and of patterns that leave out nothing."""
    not_built = new.not_built() if report.objects else []  # else the comparison says so
    return [*report.warnings, *not_built, *misspelt(report.objects, without)]


def _build(tree: BuildTree, extracted: Sequence[_Extracted], options: Options) -> tuple[bytes, list[str]]:
    """Build the module; returns it as the kernel's build left it, and what that warned of."""
    about = f"made from {len(extracted)} changed objects"
    arch = extracted[0].part.needed.view.architecture
    key = SILENT_KEY if any(silent_tracepoints(it.part.needed) for it in extracted) else ""
    source = glue(_by_unit(extracted), options.replace, about, arch, key)
    objects = {_OBJECT.format(number): it.data for number, it in enumerate(extracted)}
    with working_directory() as directory:
        made, warnings = build_module(tree, directory, options.name, source, objects)
        return made.read_bytes(), warnings


def _warnings(parts: Sequence[CarriedObject], running: Running) -> Iterator[str]:
    """Yield what somebody who loads it has to know: of silent tracepoints, waiting threads, and what begins anew."""
    for part in parts:
        for function, tracepoint in silent_tracepoints(part.needed):
            yield f"{part.object}: tracepoint {tracepoint} of {part.unit} is silent in the new {function}"
    yield from _threads(parts, running)
    yield from (f"{part.object}: {text}" for part in parts for text in begun_anew(part.needed))


def _threads(parts: Sequence[CarriedObject], running: Running) -> list[str]:
    """Return what is said of functions that threads may never return from."""
    threads = {part.object: Threads(part.needed.both.old_side) for part in parts}
    warnings = []
    for part in parts:
        for _, old in part.needed.patched:
            if threads[part.object].run(old) or running.is_thread(part, old):
                warnings.append(f"{part.object}: {old.name} is what a thread runs: {WAITS_FOR_THREADS}")
        names = tuple(sorted(old.name for _, old in part.needed.patched if threads[part.object].sleep_in(old)))
        if names:
            warnings.append(f"{part.object}: tasks sleep in {join_names(names)}: {WAITS_FOR_THREADS}")
    return warnings


def _check_alike(old: Build, new: Build) -> None:
    """Refuse builds of two versions of Linux: after minutes, hundreds of refusals would say less; raises KlpError."""
    before, after = old.settings(), new.settings()
    if before is None or after is None:
        return
    for what, one, other in (
        ("for", before.architecture, after.architecture),
        ("Linux", _series(before.release), _series(after.release)),
    ):
        if one and other and one != other:
            hint = "a livepatch is made of two builds of one source, without and with the fix"
            raise KlpError(f"is {what} {other}, {old.label} {what} {one}", file=new.label, hint=hint)


def _series(release: str | None) -> str:
    """Return of a release what changes with the source as a whole: 6.12 of 6.12.107-1-amd64."""
    return ".".join((release or "").split(".")[:2])


def _tree_to_build_in(old: Build, new: Build) -> BuildTree:
    """Return the tree whose module build is used: the old one, or where only its objects were kept, the new one."""
    trees = [side.tree("") for side in (old, new)]
    found = next((tree for tree in trees if tree is not None and tree.kernel is not None), None)
    if found is None:
        raise KlpError("is no build tree", file=old.label, hint="give two build trees, or --kept and one")
    return found


def _check_output(output: str, sides: Sequence[Build]) -> None:
    """See that the module is not written over what one of the builds was linked to; raises KlpError."""
    if Path(output).exists():
        images = (side.image(unit.name) for side in sides for unit in side.units())
        if any(image is not None and image.resolve() == Path(output).resolve() for image in images):
            raise KlpError("would be written over", file=output, hint="give another -o FILE")


def _select(old: Build, new: Build, report: Report, without: Sequence[str]) -> _Selected:
    """Say what has to be carried of each object, for each unit that it is linked into."""
    selected = _Selected([], [], [], [])
    for group in report.objects:
        wanted = sort_changes(group, without)
        selected.left_out.extend(wanted.left_out)
        selected.not_needed.extend(wanted.not_needed)
        selected.refused.extend(RefusedChange(group.object, group.unit, refusal) for refusal in wanted.refused)
        is_callback_possible = any(change.change is ChangeType.ADDED for change in group.changes)
        if not (wanted.begin or wanted.constants or wanted.copies or is_callback_possible):
            continue
        before, after = old.view(group.object), new.view(group.object)
        if before is None or after is None:
            side = old if before is None else new
            raise KlpError("is not at hand", file=f"{side.label}: {group.object}", hint="give two build trees")
        taken = take(before, after, wanted, is_vmlinux=group.unit == VMLINUX)
        selected.not_needed.extend(taken.not_needed)
        if taken.needed.functions or taken.needed.refused:
            selected.parts.append(CarriedObject(group.object, group.unit, taken))
    return selected


def _resolve(part: CarriedObject, number: int, running: Running) -> _Resolved:
    """Find all that a part refers to and replaces in the old kernel; what stands in the way is noted in the part."""
    spelled = running.spelled(part)
    refuse_what_comes_too_early(part, spelled)
    refuse_pointers_to_sealed(part, spelled, running)
    constants = runtime_constants(part, running)
    functions = []
    for main, symbol in part.needed.patched:
        try:
            functions.append(running.function(part, symbol))
        except CannotCarryError as error:
            part.needed.refuse(main, error)
    callbacks = [callback.kind for callback in part.needed.callbacks]
    return _Resolved(part, spelled, GluedObject(_TABLE.format(number), functions, callbacks, constants))


def _extract(resolved: _Resolved) -> _Extracted:
    """Make the object of one part, and hold it beside its original."""
    part, spelled, glued = resolved
    tables = [constant.table for constant in glued.constants]
    laid = LaidOut(part.needed, part.taken.side, spelled, glued.table, tables)
    data = laid.file()
    count = check(part.needed, laid, part.taken.side, ObjectFile(data, f"extracted from {part.object}"))
    return _Extracted(part, glued, laid, data, count)


def _check(
    module: ObjectFile, extracted: Sequence[_Extracted], running: Running, old: Build, tree: BuildTree
) -> list[Check]:
    """Check the finished module; raises KlpError."""
    check_glue(module, _by_unit(extracted))
    return [
        Check("functions", sum(it.checked for it in extracted)),
        Check("relocations", check_linked(module, (it.data for it in extracted))),
        Check("livepatch symbols", check_livepatch_symbols(module, running)),
        Check("exported symbols", check_exports(module, running)),
        Check("version", check_release(module, old, tree.release)),
    ]


def _by_unit(extracted: Sequence[_Extracted]) -> dict[str, list[GluedObject]]:
    """Return the extracted objects of each unit, vmlinux first."""
    units: dict[str, list[GluedObject]] = {}
    for it in extracted:
        units.setdefault(it.part.unit, []).append(it.glued)
    return dict(sorted(units.items(), key=lambda it: it[0] != VMLINUX))
