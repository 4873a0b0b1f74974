# SPDX-License-Identifier: GPL-2.0-only
"""The whole of a comparison in the order in which it happens: a line a stage. No stage changes what it is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kbuild_klp.builds.members import MembersBuild
from kbuild_klp.builds.side import SINGLE_OBJECT, Build, objects_by_name
from kbuild_klp.builds.single_object import ObjectBuild
from kbuild_klp.changes.classification import Change
from kbuild_klp.changes.verdict import Verdict
from kbuild_klp.checksum.batch import Progress
from kbuild_klp.compare.differing import Changes, differing
from kbuild_klp.compare.selection import Selection, first_rule
from kbuild_klp.errors import KlpError
from kbuild_klp.kernel.settings import compare_settings
from kbuild_klp.livepatch.rules import Facts, judge
from kbuild_klp.report.model import ObjectChanges, Report, Summary

Verdicts = Mapping[str, list[list[Verdict]]]

_MOST_SETTINGS = 8


def compare(
    old: Build,
    new: Build,
    jobs: int | None = None,
    progress: Progress | None = None,
    explain: bool = True,
    selections: Sequence[Selection] = (),
    looking: Progress | None = None,
    kept: list[object] | None = None,
) -> Report:
    """Compare two builds; raises KlpError when that makes no sense at all.

    ``explain`` says whether the objects that differ are read, or checksums alone have to do. ``progress`` and
    ``looking`` are called with the number of objects done and their total: while checksums are made that are missing,
    and while objects that differ are read. What has been read of these is put into ``kept``, for who has more to ask of
    it, or no time to have it taken apart.
    """
    _check_alike(old, new)
    # What the two sides do not share, first: it may explain everything below.
    warnings = _settings_warnings(old, new)
    # Checksums that are missing or stale are made now; from here on no object is read unless it differs.
    if isinstance(old, ObjectBuild) and isinstance(new, ObjectBuild):
        ObjectBuild.read_both(old, new, jobs)
    for side in (old, new):
        side.prepare(jobs, progress)
    names = _all_objects(old, new)
    _check_selections(selections, names)

    found = differing(old, new, names)
    changes, unchanged = found.changes, (0, 0)
    if not changes:  # the first that one would ask
        warnings += new.not_built()
    verdicts: Verdicts = {}
    if explain and changes:
        from kbuild_klp.compare.second_look import SecondLook

        look = SecondLook(old, new, names, jobs, looking)
        if kept is not None:
            kept.append(look)
        settled = look.settle(changes)
        heard = _with_ignored(settled.changes, names, selections)
        changes, unchanged = look.explain(heard), settled.unchanged
        verdicts = look.judge(settled)
        warnings += look.warnings
    else:
        changes = _with_ignored(changes, names, selections)

    return Report(
        old.label,
        new.label,
        _by_unit(changes, verdicts, names, old, new),
        Summary.of(changes.values(), found.compared, *unchanged),
        warnings + old.warnings + new.warnings,
        [*found.failed, *old.failed.values(), *new.failed.values()],
    )


def _check_alike(old: Build, new: Build) -> None:
    for kind, what in ((ObjectBuild, "an object"), (MembersBuild, "an archive of objects")):
        if isinstance(old, kind) != isinstance(new, kind):
            raise KlpError(
                f"one is {what}, the other is not",
                file=f"{old.label}, {new.label}",
                hint="compare like with like",
            )


def _settings_warnings(old: Build, new: Build) -> list[str]:
    before, after = old.settings(), new.settings()
    if before is None or after is None:
        return []
    shown = [
        f"{difference.kind.value} differs: {difference.name}: {difference.old or 'not set'} -> "
        f"{difference.new or 'not set'}"
        for difference in compare_settings(before, after)
    ]
    rest = len(shown) - _MOST_SETTINGS
    return shown[:_MOST_SETTINGS] + ([f"{rest} more settings differ"] if rest > 0 else [])


def _all_objects(old: Build, new: Build) -> dict[str, list[str]]:
    """Return all objects of both sides in link order, with the units that they are in (of the new side, if there)."""
    before, after = objects_by_name(old.units()), objects_by_name(new.units())
    names = dict(after)
    names.update((name, units) for name, units in before.items() if name not in after)
    return names


def _check_selections(selections: Sequence[Selection], names: Mapping[str, list[str]]) -> None:
    units = {unit for units in names.values() for unit in units}
    for selection in selections:
        selection.check(names, units)


def _with_ignored(changes: Changes, names: Mapping[str, list[str]], selections: Sequence[Selection]) -> Changes:
    """Mark what the user does not want to hear of."""
    if not selections:
        return changes
    return {
        name: [change._replace(ignored=first_rule(selections, name, names[name], change)) for change in own]
        for name, own in changes.items()
    }


def _by_unit(
    changes: Changes,
    verdicts: Verdicts,
    names: Mapping[str, list[str]],
    old: Build,
    new: Build,
) -> list[ObjectChanges]:
    """Return what changed by link unit, in link order; ``verdicts`` has a row for each unit of an object."""
    objects = []
    for name, own in changes.items():
        label = new.label if name == SINGLE_OBJECT else name
        for at, unit in enumerate(names[name]):
            row = verdicts[name][at] if name in verdicts else [judge(change, Facts()) for change in own]
            judged: list[Change] = [
                change._replace(livepatch=verdict) for change, verdict in zip(own, row, strict=True)
            ]
            objects.append(ObjectChanges(label, unit, judged))
    order = {unit.name: place for place, unit in enumerate([*new.units(), *old.units()][::-1])}
    return sorted(objects, key=lambda changes: -order[changes.unit])
