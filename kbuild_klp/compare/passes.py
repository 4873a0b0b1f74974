# SPDX-License-Identifier: GPL-2.0-only
"""The whole of a comparison, in the order in which it happens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from kbuild_klp.builds.side import SINGLE_OBJECT, Build, objects_by_name
from kbuild_klp.builds.single_object import ObjectBuild
from kbuild_klp.changes.classification import Change, classify
from kbuild_klp.changes.contested import Contested, contested
from kbuild_klp.changes.pairing import correlate
from kbuild_klp.checksum.batch import Progress
from kbuild_klp.compare.selection import Selection, first_rule
from kbuild_klp.errors import KlpError
from kbuild_klp.kernel.settings import SettingKind, compare_settings
from kbuild_klp.livepatch.rules import Facts, judge
from kbuild_klp.report.model import ObjectChanges, Report

if TYPE_CHECKING:
    from kbuild_klp.compare.second_look import SecondLook

_MOST_SETTINGS = 8


def compare(
    old: Build,
    new: Build,
    jobs: int | None = None,
    progress: Progress | None = None,
    explain: bool = True,
    selections: Sequence[Selection] = (),
    looking: Progress | None = None,
) -> Report:
    """Compare two builds; raises KlpError when that makes no sense at all.

    ``explain`` says whether the objects that differ are read, or checksums alone have to do. ``progress`` and
    ``looking`` are called with the number of objects done and their total: while checksums are made that are missing,
    and while objects that differ are read.
    """
    if isinstance(old, ObjectBuild) != isinstance(new, ObjectBuild):
        raise KlpError(
            "one is an object, the other is not",
            file=f"{old.label}, {new.label}",
            hint="compare like with like",
        )
    report = Report(old.label, new.label)
    # What the two sides do not share, first: it may explain everything below.
    report.warnings += _settings_warnings(old, new)
    # Checksums that are missing or stale are made now; from here on no object is read unless it differs.
    for side in (old, new):
        side.prepare(jobs, progress)
    names = _all_objects(old, new)
    for selection in selections:
        selection.check(names, {unit for units in names.values() for unit in units})
    found = _compare_objects(old, new, names, report)
    second_look: SecondLook | None = None
    if explain and found:
        from kbuild_klp.compare.second_look import SecondLook

        second_look = SecondLook(old, new, found, names, jobs, looking)
        second_look.look()
        report.summary.reencoded = second_look.reencoded
        report.summary.identity_only = second_look.identity_only
    for name, changes in found.items():
        for change in changes:
            change.ignored = first_rule(selections, name, names[name], change)
        report.summary.add(changes)
    # Whether a livepatch can carry a change depends on others of other objects.
    judged: dict[tuple[str, str], list[Change]] = {}
    if second_look is not None:
        second_look.explain()
        judged = second_look.judged()
        report.warnings += second_look.warnings
    for name, changes in found.items():
        label = new.label if name == SINGLE_OBJECT else name
        for unit in names[name]:
            known = judged.get((name, unit))
            if known is None:
                known = [replace(change, livepatch=judge(change, Facts())) for change in changes]
            report.objects.append(ObjectChanges(label, unit, known))
    order = {unit.name: place for place, unit in enumerate([*new.units(), *old.units()][::-1])}
    report.objects.sort(key=lambda changes: -order[changes.unit])
    for side in (old, new):
        report.warnings += side.warnings
        report.failed += side.failed.values()
    return report


def _settings_warnings(old: Build, new: Build) -> list[str]:
    before, after = old.settings(), new.settings()
    if before is None or after is None:
        return []
    differences = compare_settings(before, after)
    shown = [
        f"{difference.kind.value} differs: {difference.name}: {difference.old or 'not set'} -> "
        f"{difference.new or 'not set'}"
        for difference in differences
        if difference.kind is not SettingKind.RELEASE
    ]
    rest = len(shown) - _MOST_SETTINGS
    return shown[:_MOST_SETTINGS] + ([f"{rest} more settings differ"] if rest > 0 else [])


def _all_objects(old: Build, new: Build) -> dict[str, list[str]]:
    """Return all objects of both sides in link order, with the units that they are in (of the new side, if there)."""
    before, after = objects_by_name(old.units()), objects_by_name(new.units())
    names = dict(after)
    names.update((name, units) for name, units in before.items() if name not in after)
    return names


def _listed(build: Build, name: str) -> bool:
    return name in build.names


def _compare_objects(old: Build, new: Build, names: Iterable[str], report: Report) -> dict[str, list[Change]]:
    """Return the differences of all objects that differ, from checksums alone."""
    found: dict[str, list[Change]] = {}
    for name in names:
        changes = _compare_object(old, new, name, report)
        report.summary.objects_compared += changes is not None
        if changes:
            found[name] = changes
    return found


def _compare_object(old: Build, new: Build, name: str, report: Report) -> list[Change] | None:
    """Return the differences of one object, from checksums alone; None when it could not be compared."""
    before = old.sums(name) if _listed(old, name) else b""
    after = new.sums(name) if _listed(new, name) else b""
    if before is None or after is None:
        return None  # the side has noted why
    if before == after:
        return []
    try:
        old_sums = old.load(name, before) if before else None
        new_sums = new.load(name, after) if after else None
        if old_sums is None or new_sums is None:
            found = Contested(old_sums.entries if old_sums else [], new_sums.entries if new_sums else [])
        else:
            if old_sums.table != new_sums.table:
                old_sums, new_sums = old.up_to_date(name, old_sums), new.up_to_date(name, new_sums)
            if (old_sums.architecture, old_sums.table) != (new_sums.architecture, new_sums.table):
                what = "architecture" if old_sums.architecture != new_sums.architecture else "special section table"
                raise KlpError(f"checksums of another {what}; nothing of it can be compared", file=name)
            found = contested(old_sums, new_sums)
    except KlpError as error:
        report.failed.append(str(error))
        return None
    return classify(correlate(found))
