# SPDX-License-Identifier: GPL-2.0-only
"""The second look: at the objects themselves, and only at those whose checksums differ.

Three things it tells: what is nothing but line numbers, what a livepatch's author has to know of each change, and,
for as many changes as anybody reads, the reasons in words. Each object is read once for the first two, and once more
for the third where there are too many of them to be kept. Many objects are looked at in as many processes as there
are job slots.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple, TypeVar

from kbuild_klp.builds.object_pair import ObjectPair, read_together
from kbuild_klp.builds.side import Build
from kbuild_klp.changes.classification import Change, ChangeType
from kbuild_klp.changes.verdict import Verdict
from kbuild_klp.changes.wording import Reason
from kbuild_klp.checksum.batch import Progress
from kbuild_klp.compare.differing import Changes
from kbuild_klp.explain.explainer import PATIENCE, explain_changes
from kbuild_klp.lines.proof import LineProver
from kbuild_klp.lines.settle import settle
from kbuild_klp.livepatch.seen import SeenObject
from kbuild_klp.livepatch.survey import Survey
from kbuild_klp.processes import in_processes, job_slots

Task = TypeVar("Task")
Result = TypeVar("Result")

_WORTH_A_PROCESS = 32  # objects, or changes to explain, below which a second process costs more than it saves
_CHUNKS = 6  # for each process, so that none waits long for another at the end
_MOST_KEPT = 8  # objects that stay open between the first pass and the second
_PIECE = 16  # changes of one object that are explained at a time
_DEBUG_INFO = ".debug_info"


class Looked(NamedTuple):
    """What differs, now that the objects were read: ``seen`` is what the verdicts need of each.

    ``unchanged`` counts what turned out to be no change: functions with the same instructions in other lengths, and
    what differs only in what the builds say of themselves.
    """

    changes: Changes
    seen: Mapping[str, SeenObject]
    unchanged: tuple[int, int]


class _Look(NamedTuple):
    """What was seen of one object, as it is sent from process to process.

    ``changes`` are those that are others now, by index, or all of them, if there are not as many any more.
    """

    name: str
    changes: dict[int, Change] | list[Change]
    unchanged: tuple[int, int]
    seen: SeenObject | None
    warnings: list[str]


class _Errand(NamedTuple):
    """The changes (indices) of one object that are to be explained, and how many of them at most."""

    name: str
    changes: tuple[int, ...]
    patience: int


class _Reasons(NamedTuple):
    """The reasons of the changes of an errand, by index of the change."""

    errand: _Errand
    why: dict[int, tuple[Reason, ...]]
    warnings: list[str]


class SecondLook:
    """Looks at the objects of two builds that differ. ``warnings`` is filled by the stages, in their order.

    ``units`` are the link units of each object. ``jobs`` None takes what make's jobserver lends, or all processors;
    ``progress`` is called with the number of objects done and their total, where there are several.
    """

    def __init__(
        self,
        old: Build,
        new: Build,
        units: Mapping[str, list[str]],
        jobs: int | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.warnings: list[str] = []
        self._survey = Survey(old, new)
        self._old = old
        self._new = new
        self._units = units
        self._jobs = jobs
        self._jobs_for_one: int | None = 1
        """The processes that may read one object: where several look at objects, one."""
        self._progress = progress
        self._prover = LineProver(old, new)
        self._pairs: dict[str, ObjectPair] = {}
        self._keeps_pairs = False

    # -- what is nothing but line numbers, and what verdicts need ---------------------------------------------------

    def settle(self, changes: Changes) -> Looked:
        """Say which changes are of line numbers only, and which are none; gather what the verdicts need."""
        self._keeps_pairs = len(changes) <= _MOST_KEPT
        with _harmless(self.warnings, "whether a livepatch can carry the changes"):
            self._survey.prepare()
        looks: dict[str, _Look] = {}
        work = partial(self._look_at_some, changes)
        for done, look in enumerate(self._in_chunks(work, list(changes), len(changes)), 1):
            looks[look.name] = look
            if self._progress is not None and len(changes) > 1:
                self._progress(done, len(changes))
        ordered = [looks[name] for name in changes]
        self.warnings += (warning for look in ordered for warning in look.warnings)
        settled = {look.name: _changes_now(changes[look.name], look.changes) for look in ordered}
        return Looked(
            {name: own for name, own in settled.items() if own},
            {look.name: look.seen for look in ordered if look.seen is not None and settled[look.name]},
            (sum(look.unchanged[0] for look in ordered), sum(look.unchanged[1] for look in ordered)),
        )

    def _look_at_some(self, all_changes: Changes, names: Sequence[str]) -> Iterator[_Look]:
        for pair in read_together(map(self._pair, names)):
            yield self._look_at(pair, list(all_changes[pair.name]))

    def _look_at(self, pair: ObjectPair, before: list[Change]) -> _Look:
        name = pair.name
        warnings: list[str] = []
        changes, unchanged = before, (0, 0)
        with _harmless(warnings, f"{name}: what is of line numbers only"):
            changes, *counts = settle(self._prover, pair, before)
            unchanged = counts[0], counts[1]
        lines = [at for at, change in enumerate(changes) if change.change is ChangeType.LINE_ONLY]
        if lines:
            with _harmless(warnings, f"{name}: the reasons"):
                told = self._explain(pair, [changes[at] for at in lines], len(lines))
                changes = _replaced(changes, dict(zip(lines, told, strict=True)))
        seen = None
        with _harmless(warnings, f"{name}: whether a livepatch can carry its changes"):
            seen = self._survey.look(pair, self._units[name], changes)
        return _Look(name, _what_differs(before, changes), unchanged, seen, warnings)

    # -- reasons --------------------------------------------------------------------------------------------------

    def explain(self, changes: Changes) -> Changes:
        """Find the reasons of as many changes as anybody reads, but for those that are ignored."""
        errands = list(_errands(changes))
        if self._keeps_pairs:
            errands = [piece for errand in errands for piece in self._pieces(errand)]
        weight = sum(len(errand.changes) for errand in errands) if self._keeps_pairs else len(errands)
        results = list(self._in_chunks(partial(self._explain_some, changes), errands, weight))
        told = dict(changes)
        for (name, *_), why, _ in results:
            told[name] = _replaced(told[name], {at: told[name][at]._replace(why=words) for at, words in why.items()})
        warnings = {errand: said for errand, _, said in results}
        self.warnings += dict.fromkeys(text for errand in errands for text in warnings[errand])
        return told

    def _pieces(self, errand: _Errand) -> list[_Errand]:
        """Divide the changes of an object that is open, also in the processes that start here.

        Not those with debug information: each piece would read it again.
        """
        with _harmless([], f"{errand.name}: the reasons"):  # who explains them will say so
            views = self._pair(errand.name).old, self._pair(errand.name).new
            if not any(view is not None and _DEBUG_INFO in view.object.section_names for view in views):
                return _divided(errand)
        return [errand]

    def _explain_some(self, all_changes: Changes, errands: Sequence[_Errand]) -> Iterator[_Reasons]:
        pairs = read_together(self._pair(errand.name) for errand in errands)
        for pair, errand in zip(pairs, errands, strict=True):
            why: dict[int, tuple[Reason, ...]] = {}
            warnings: list[str] = []
            with _harmless(warnings, f"{errand.name}: the reasons"):
                changes = [all_changes[errand.name][at] for at in errand.changes]
                told = self._explain(pair, changes, errand.patience)
                why = {at: change.why for at, change in zip(errand.changes, told, strict=True)}
            yield _Reasons(errand, why, warnings)

    def _explain(self, pair: ObjectPair, changes: list[Change], patience: int) -> list[Change]:
        if pair.old is None or pair.new is None:
            return changes
        return explain_changes(pair.old, pair.new, changes, patience, pair.sources)

    # -- verdicts -------------------------------------------------------------------------------------------------

    def judge(self, settled: Looked) -> dict[str, list[list[Verdict]]]:
        """Say whether a livepatch can carry the changes: for each object and each of its units, a verdict a change.

        That of one depends on those of other objects.
        """
        verdicts: dict[str, list[list[Verdict]]] = {}
        with _harmless(self.warnings, "whether a livepatch can carry the changes"):
            for name, seen in settled.seen.items():
                self._survey.add(name, seen, settled.changes[name])
            verdicts = self._survey.judged()
            self.warnings += self._survey.warnings()
        return verdicts

    # -- both -----------------------------------------------------------------------------------------------------

    def _pair(self, name: str) -> ObjectPair:
        """Open both versions of an object; those of a few objects are kept."""
        pair = self._pairs.get(name) or ObjectPair(self._old, self._new, name, self._jobs_for_one)
        if self._keeps_pairs:
            self._pairs[name] = pair
        return pair

    def _in_chunks(
        self, work: Callable[[Sequence[Task]], Iterator[Result]], tasks: Sequence[Task], weight: int
    ) -> Iterator[Result]:
        """Yield the results of all tasks, in any order; ``weight`` says how much there is to be done."""
        with job_slots(self._jobs, weight // _WORTH_A_PROCESS + 1) as slots:
            self._jobs_for_one = self._jobs if slots == 1 else 1
            if slots == 1:
                yield from work(tasks)
                return
            # Neighbours have the same headers, so that each process reads fewer of them.
            size = -(-len(tasks) // (slots * _CHUNKS))
            chunks = [tasks[at : at + size] for at in range(0, len(tasks), size)]
            for _, results in in_processes(lambda chunk: list(work(chunk)), chunks, slots):
                yield from results


def _divided(errand: _Errand) -> list[_Errand]:
    pieces = ((at, errand.changes[at : at + _PIECE]) for at in range(0, len(errand.changes), _PIECE))
    return [_Errand(errand.name, changes, errand.patience - at) for at, changes in pieces]


def _errands(changes: Changes) -> Iterator[_Errand]:
    patience = PATIENCE
    for name, own in changes.items():
        heard = tuple(at for at, it in enumerate(own) if it.change is ChangeType.CHANGED and it.ignored is None)
        if heard and patience > 0:
            yield _Errand(name, heard, patience)
            patience -= len(heard)


def _what_differs(before: Sequence[Change], after: list[Change]) -> dict[int, Change] | list[Change]:
    """Return the changes that are others now, by index: few of many, and only these go to another process."""
    if len(before) != len(after):
        return after
    return {at: now for at, (then, now) in enumerate(zip(before, after, strict=True)) if then is not now}


def _changes_now(before: Sequence[Change], differ: dict[int, Change] | list[Change]) -> Sequence[Change]:
    return differ if isinstance(differ, list) else _replaced(before, differ)


def _replaced(changes: Sequence[Change], others: Mapping[int, Change]) -> list[Change]:
    return [others.get(at, change) for at, change in enumerate(changes)]


@contextmanager
def _harmless(warnings: list[str], what: str) -> Iterator[None]:
    """Turn a fault of ours into a warning that ``what`` could not be told."""
    try:
        yield
    except Exception as error:
        if os.environ.get("KLP_DEBUG"):
            raise
        reason = f"internal error: {type(error).__name__}: {error}"
        warnings.append(f"{what} could not be told ({reason}); please report it")
