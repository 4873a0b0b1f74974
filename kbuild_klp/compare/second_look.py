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
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from kbuild_klp.builds.object_pair import ObjectPair
from kbuild_klp.builds.side import Build
from kbuild_klp.changes.classification import Change, ChangeType
from kbuild_klp.changes.reasons import Reason
from kbuild_klp.checksum.batch import Progress
from kbuild_klp.explain.explainer import PATIENCE, explain_changes
from kbuild_klp.lines.proof import LineProver
from kbuild_klp.lines.settle import settle
from kbuild_klp.livepatch.seen import SeenObject
from kbuild_klp.livepatch.survey import Survey
from kbuild_klp.processes import in_processes, job_slots

Task = TypeVar("Task")
Result = TypeVar("Result")

_WORTH_A_PROCESS = 32  # objects below which a second process costs more than it saves
_CHUNKS = 12  # for each process, so that none waits long for another at the end
_MOST_KEPT = 8  # objects that stay open between the first pass and the second


@dataclass
class _Seen:
    """What was seen of one object, as it is sent from process to process.

    ``changes`` are all changes if there are others now (line numbers in names), else ``lines`` those that are of
    line numbers only, and those that moved, by index; ``object`` is what the verdicts need, without the changes;
    ``reencoded`` and ``identity_only`` count what turned out to be no change at all.
    """

    name: str
    changes: list[Change] | None = None
    reencoded: int = 0
    identity_only: int = 0
    lines: dict[int, Change] = field(default_factory=dict)
    object: SeenObject | None = None
    warnings: list[str] = field(default_factory=list)


class _Reasons(NamedTuple):
    """The reasons of the changes of one object, by index of the change."""

    name: str
    why: dict[int, list[Reason]]
    warnings: list[str]


class _Errand(NamedTuple):
    """The changes (indices) of one object that are to be explained, and how many of them at most."""

    name: str
    changes: list[int]
    patience: int


class SecondLook:
    """Looks at the objects of two builds that differ.

    ``changes`` are those of each object, in the order of the report; they are replaced by what the objects tell.
    ``units`` are the link units of each object. ``jobs`` None takes what make's jobserver lends, or all processors;
    ``progress`` is called with the number of objects done and their total, where there are several.
    """

    def __init__(
        self,
        old: Build,
        new: Build,
        changes: dict[str, list[Change]],
        units: Mapping[str, list[str]],
        jobs: int | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.changes = changes
        self.warnings: list[str] = []
        self.reencoded = 0
        """How many functions turned out to have the same instructions, in other lengths."""
        self.identity_only = 0
        """How much turned out to differ only in what the builds say of themselves."""
        self.survey = Survey(old, new)
        self._old = old
        self._new = new
        self._units = units
        self._jobs = jobs
        self._progress = progress
        self._prover = LineProver(old, new)
        self._pairs: dict[str, ObjectPair] = {}

    # -- first pass: lines, and what verdicts need ------------------------------------------------------------------

    def look(self) -> None:
        """Mark the changes that are of line numbers only, and gather what the verdicts need."""
        with _harmless(self.warnings, "whether a livepatch can carry the changes"):
            self.survey.prepare()
        total = len(self.changes)
        results: dict[str, _Seen] = {}
        for done, seen in enumerate(self._in_chunks(self._look_at, list(self.changes)), 1):
            results[seen.name] = seen
            if self._progress is not None and total > 1:
                self._progress(done, total)
        for name, before in list(self.changes.items()):
            seen = results[name]
            if seen.changes is not None:
                self.changes[name] = seen.changes
            for at, change in seen.lines.items():
                before[at] = change
            if not self.changes[name]:
                del self.changes[name]
            elif seen.object is not None:
                self.survey.add(name, seen.object, self.changes[name])
            self.reencoded += seen.reencoded
            self.identity_only += seen.identity_only
            self.warnings += seen.warnings

    def _look_at(self, name: str) -> _Seen:
        pair = self._pair(name)
        before = self.changes[name]
        result = _Seen(name)
        changes = before
        with _harmless(result.warnings, f"{name}: what is of line numbers only"):
            changes, result.reencoded, result.identity_only = settle(self._prover, pair, before)
        if len(changes) != len(before) or any(x is not y for x, y in zip(before, changes, strict=False)):
            result.changes = changes
        lines = [change for change in changes if change.change is ChangeType.LINE_ONLY]
        if lines:
            with _harmless(result.warnings, f"{name}: the reasons"):
                self._explain(pair, lines, len(lines))
        if result.changes is None:
            kinds = (ChangeType.LINE_ONLY, ChangeType.MOVED)
            result.lines = {at: change for at, change in enumerate(changes) if change.change in kinds}
        with _harmless(result.warnings, f"{name}: whether a livepatch can carry its changes"):
            result.object = self.survey.look(pair, self._units[name], changes)
        return result

    # -- second pass: reasons -------------------------------------------------------------------------------------

    def explain(self) -> None:
        """Find the reasons of as many changes as anybody reads, but for those that are ignored."""
        errands = list(self._errands())
        results = {result.name: result for result in self._in_chunks(self._explain_for, errands)}
        for errand in errands:
            result = results[errand.name]
            for at, why in result.why.items():
                self.changes[errand.name][at].why = why
            self.warnings += result.warnings

    def _errands(self) -> Iterator[_Errand]:
        patience = PATIENCE
        for name, changes in self.changes.items():
            heard = [at for at, it in enumerate(changes) if it.change is ChangeType.CHANGED and it.ignored is None]
            if heard and patience > 0:
                yield _Errand(name, heard, patience)
                patience -= len(heard)

    def _explain_for(self, errand: _Errand) -> _Reasons:
        result = _Reasons(errand.name, {}, [])
        changes = self.changes[errand.name]
        with _harmless(result.warnings, f"{errand.name}: the reasons"):
            self._explain(self._pair(errand.name), [changes[at] for at in errand.changes], errand.patience)
        result.why.update((at, changes[at].why) for at in errand.changes)
        return result

    def _explain(self, pair: ObjectPair, changes: list[Change], patience: int) -> None:
        if pair.old is not None and pair.new is not None:
            explain_changes(pair.old, pair.new, changes, patience, pair.sources)

    # -- verdicts -------------------------------------------------------------------------------------------------

    def judged(self) -> dict[tuple[str, str], list[Change]]:
        """Return the changes with their verdicts, by object and unit: they depend on those of other objects."""
        judged: dict[tuple[str, str], list[Change]] = {}
        with _harmless(self.warnings, "whether a livepatch can carry the changes"):
            judged = self.survey.judged()
            self.warnings += self.survey.warnings()
        return judged

    # -- both -----------------------------------------------------------------------------------------------------

    def _pair(self, name: str) -> ObjectPair:
        """Open both versions of an object; those of a few objects are kept."""
        pair = self._pairs.get(name) or ObjectPair(self._old, self._new, name)
        if len(self.changes) <= _MOST_KEPT:
            self._pairs[name] = pair
        return pair

    def _in_chunks(self, work: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[Result]:
        """Yield the results of all tasks, in any order."""
        with job_slots(self._jobs, len(tasks) // _WORTH_A_PROCESS + 1) as slots:
            if slots == 1:
                yield from map(work, tasks)
                return
            # Neighbours have the same headers, so that each process reads fewer of them.
            size = -(-len(tasks) // (slots * _CHUNKS))
            chunks = [tasks[at : at + size] for at in range(0, len(tasks), size)]
            for _, results in in_processes(lambda chunk: list(map(work, chunk)), chunks, slots):
                yield from results


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
