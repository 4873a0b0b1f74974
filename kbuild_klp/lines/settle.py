# SPDX-License-Identifier: GPL-2.0-only
"""Which of the changes that the checksums show are changes of line numbers only, or no changes at all.

This is a second look at the objects, after checksums were compared and before reasons are found: only at objects and
entries that differ, and in several processes where there are many. What differs is first reduced to numbers
(numbers.py); where it is more than that, the change stands. Then the numbers are proved from the sources (proof.py),
known by their records (records.py), or inferred from these (infer.py), in this order. A function in which no number
differs but the length of a branch (encoding.py) is the same, and so is what differs only in what the two builds say of
themselves (identity.py).
"""

from __future__ import annotations

from collections import Counter
from enum import Enum
from functools import cached_property, partial
from typing import NamedTuple

from kbuild_klp.builds.object_pair import ObjectPair
from kbuild_klp.changes.classification import Change, ChangeType, Proof, moved_reason
from kbuild_klp.changes.wording import Code, Reason
from kbuild_klp.checksum.entry import KIND_DATA, KIND_FUNCTION, KIND_SECTION, Entry
from kbuild_klp.errors import KlpError
from kbuild_klp.lines.alignment import follows_from_content, is_realigned
from kbuild_klp.lines.directories import find_directories
from kbuild_klp.lines.encoding import alike, can_be_reencoded, has_other_form, reencoded_numbers
from kbuild_klp.lines.gcov_writeout import follows_from_counters, is_for_gcov
from kbuild_klp.lines.identity import Identities, releases
from kbuild_klp.lines.infer import LineInference
from kbuild_klp.lines.kasan_globals import (
    holds_only_descriptors,
    is_constructor,
    registers_the_same,
    registers_what_other_lacks,
)
from kbuild_klp.lines.linked_proofs import LinkedProofs, linked_proofs
from kbuild_klp.lines.numbers import Number, differing_leftovers, differing_numbers, distinct_uses
from kbuild_klp.lines.proof import LineProver, ObjectProof
from kbuild_klp.lines.records import LineMove, line_moves
from kbuild_klp.lines.renamed import with_renamed
from kbuild_klp.lines.versions import Version, versions_of
from kbuild_klp.object.function import expect_functions
from kbuild_klp.object.place import Place
from kbuild_klp.object.view import ObjectView

_MOST_REASONS = 8
# GCC aligns strings of 31 bytes and more (ix86_constant_alignment), and ld -r the section with them.
_STRING_ALIGNMENTS = ["1", "8"]


def is_candidate(change: Change) -> bool:
    """Say, from checksums alone, whether a change can be one of lines only, or of what builds say of themselves."""
    if change.change is ChangeType.LINE_ONLY:
        return True
    old, new = change.old, change.new
    if change.change is not ChangeType.CHANGED or old is None or new is None:
        return False
    before, after = old.split_components(), new.split_components()
    if before.attributes != after.attributes:
        return False
    if change.kind == KIND_SECTION:
        places = (entry.place | {"align": ""} for entry in (old, new))
        return before.special == after.special and next(places) == next(places) and old != new
    if change.kind == KIND_FUNCTION and can_be_reencoded(old.size, new.size):
        return True
    return old.home == new.home and (old.size == new.size or change.kind == KIND_DATA)


def is_of_interest(change: Change) -> bool:
    """As is_candidate, but counting line numbers in names, and functions that compilers make."""
    if change.change in (ChangeType.ADDED, ChangeType.REMOVED):
        return any(map(str.isdigit, change.symbol)) or _is_made_by_compiler(change.symbol)
    return is_candidate(change) or _is_made_by_compiler(change.symbol) or is_realigned(change)


def _is_made_by_compiler(name: str) -> bool:
    return is_constructor(name) or is_for_gcov(name)


class Settled(NamedTuple):
    """The changes of an object; those of line numbers only are marked LINE_ONLY.

    What turned out to be no change is left out and counted. ``reencoded``: functions whose instructions are the same
    but have other lengths, or that refer to variables without bytes that have other neighbours now.
    ``identity_only``: what differs only in what builds say of themselves.
    """

    changes: list[Change]
    reencoded: int = 0
    identity_only: int = 0


def settle(prover: LineProver, pair: ObjectPair, changes: list[Change]) -> Settled:
    """Say which changes of an object are of line numbers only, and which are no changes."""
    if None in pair.files or not any(map(is_of_interest, changes)):
        return Settled(changes)
    try:
        return _Judge(prover, pair).settle(changes)
    except KlpError:
        return Settled(changes)  # the checksums stand


class _Same(Enum):
    """Why something is no change although the checksums differ."""

    FORM = "length of instructions, or what lies beside"
    IDENTITY = "what the builds say of themselves"


class _Judge:
    """Settles the changes of one object. Nothing is read before it is needed."""

    def __init__(self, prover: LineProver, pair: ObjectPair) -> None:
        self._prover = prover
        self._pair = pair
        self._changes: list[Change] = []
        self._may_be_only_lines = False

    @property
    def _views(self) -> tuple[ObjectView, ObjectView]:
        old, new = self._pair.old, self._pair.new
        if old is None or new is None:
            raise KlpError("cannot be read", file=self._pair.name)
        return old, new

    @cached_property
    def _identities(self) -> Identities:
        before, after = self._views
        texts = self._prover.identities or releases(before, after)
        return Identities(texts, partial(find_directories, before, after))

    @cached_property
    def _object_proof(self) -> ObjectProof | None:
        return self._prover.of(self._pair)

    @cached_property
    def _linked_proofs(self) -> LinkedProofs | None:
        return linked_proofs(self._prover, self._pair, self._changes)

    def _proof(self, old: Entry, new: Entry) -> ObjectProof | None:
        """Return what proves things from the sources of a function or variable, None without these."""
        linked = self._linked_proofs
        return linked.of(old, new) if linked is not None else self._object_proof

    def _only_lines_differ(self, old: Entry, new: Entry) -> bool:
        # What else differs in a linked object comes from other sources.
        may_be = self._may_be_only_lines or self._linked_proofs is not None
        proof = self._proof(old, new) if may_be else None
        return proof is not None and proof.only_lines_differ

    @cached_property
    def _inference(self) -> LineInference:
        old, new = self._views
        parts = (old.parts_of(change.old.part_symbol) for change in self._changes if change.old is not None)
        return LineInference(old, new, {own[0] for own in parts if own})

    def settle(self, changes: list[Change]) -> Settled:
        """See the function settle; raises KlpError."""
        self._changes = changes
        # Where more than lines differs, sources are not read for instructions of other lengths.
        self._may_be_only_lines = all(map(is_of_interest, changes))
        candidates = [change for change in changes if is_candidate(change)]
        pairs = [(it.old, it.new) for it in candidates if it.kind == KIND_FUNCTION and it.old and it.new]
        for at, view in enumerate(self._views if candidates else ()):
            expect_functions(view, (pair[at].symbol for pair in pairs))
        left = []
        same: Counter[_Same] = Counter()
        for change in changes:
            settled: Change | _Same = change
            if is_candidate(change):
                assert change.old is not None and change.new is not None
                settled = self._settled(change, change.old, change.new)
            if settled is change and self._follows_from_others(change):
                settled = _Same.FORM
            if isinstance(settled, _Same):
                same[settled] += 1
            else:
                left.append(settled)
        came_or_went = any(change.change in (ChangeType.ADDED, ChangeType.REMOVED) for change in left)
        if came_or_went and (self._linked_proofs or self._object_proof):  # else nothing can be proved
            left = with_renamed(left, self._is_line_in_name)
        return Settled(left, same[_Same.FORM], same[_Same.IDENTITY])

    def _is_line_in_name(self, old: Entry, new: Entry, was: int, now: int) -> bool:
        proof = self._proof(old, new)
        return proof is not None and proof.proves(new.name, new.kind == KIND_FUNCTION, [((was, now),)])

    def _settled(self, change: Change, old: Entry, new: Entry) -> Change | _Same:
        """Return what a change turns out to be (LINE_ONLY, MOVED, or itself), or why it is none."""
        if change.kind == KIND_SECTION:
            return self._settled_section(change)
        before, after = versions_of(change, *self._views)
        if not before.parts or not after.parts:
            return change
        moves = line_moves(before, after) if old.lines != new.lines else []
        if change.change is ChangeType.LINE_ONLY:
            return change._replace(proof=self._records_proof(old, new, moves))
        is_function = change.kind == KIND_FUNCTION
        if is_function and old.size != new.size:
            numbers, why = self._reencoded_numbers(old, new, before, after)
        else:
            found = differing_numbers(before, after, is_function, self._identities)
            # Where the comparison finds nothing at all, it does not know what makes the checksums differ.
            if found is None or not any(found) or (found.empty and not self._says_the_same(old, new)):
                return change
            numbers, why = found.numbers, _Same.IDENTITY if found.identity else _Same.FORM
        if numbers is None:
            return change
        if numbers:
            proof = self._numbers_proof(old, new, (before, after), numbers)
            if proof is None or old.home != new.home:
                return change
            if old.lines != new.lines and proof is Proof.SOURCES:
                proof = self._records_proof(old, new, moves)
            return change._replace(change=ChangeType.LINE_ONLY, proof=proof, why=_reasons(numbers, proof))
        if old.home != new.home:
            return change._replace(change=ChangeType.MOVED, why=(moved_reason(old, new),))
        if old.lines != new.lines:
            return change._replace(change=ChangeType.LINE_ONLY, proof=self._records_proof(old, new, moves), why=())
        return why

    def _follows_from_others(self, change: Change) -> bool:
        if is_realigned(change):
            return follows_from_content(*self._views, change)
        return _is_made_by_compiler(change.symbol) and self._follows_from_variables(change)

    def _follows_from_variables(self, change: Change) -> bool:
        """Say whether a function that KASAN or Clang's gcov made differs, came or went because its variables did."""
        (before, after), old, new = versions_of(change, *self._views), change.old, change.new
        if old and new:
            if old.home != new.home or old.split_components().attributes != new.split_components().attributes:
                return False
            if is_constructor(change.symbol) and registers_the_same(before, after):
                return True
        if is_for_gcov(change.symbol):
            return follows_from_counters(before, after)
        return registers_what_other_lacks(after, before) or registers_what_other_lacks(before, after)

    def _settled_section(self, change: Change) -> Change | _Same:
        """Return a change of what belongs to nobody as what it is."""
        found = differing_leftovers(*self._views, change.symbol, self._identities)
        assert change.old is not None and change.new is not None
        if all(holds_only_descriptors(view, change.symbol) for view in self._views):
            return _Same.FORM  # only the alignment of the descriptors
        aligned = [entry.place["align"] for entry in (change.old, change.new)]
        is_realigned = aligned[0] != aligned[1]
        if found is None or found.empty or not (any(found) or is_realigned):
            return change
        if is_realigned and not (sorted(aligned) == _STRING_ALIGNMENTS and self._identities.change_lengths):
            return change
        if not found.numbers:
            return _Same.IDENTITY
        if any(number.file is None for number in found.numbers):
            return change
        why = _reasons(found.numbers, Proof.RECORDS)
        return change._replace(change=ChangeType.LINE_ONLY, proof=Proof.RECORDS, why=why)

    def _says_the_same(self, old: Entry, new: Entry) -> bool:
        proof = self._proof(old, new) if new.kind == KIND_FUNCTION else None
        return proof is not None and proof.says_the_same(new.name)

    def _reencoded_numbers(
        self, old: Entry, new: Entry, before: Version, after: Version
    ) -> tuple[list[Number] | None, _Same]:
        """Return the numbers that differ between two functions of different sizes, None when anything else does.

        A number outside a record is believed to be a line only where nothing but lines can differ. With it comes why
        the functions are the same if there are no numbers.
        """
        same = alike(before, after, self._identities)
        if same is None:
            return None, _Same.FORM
        numbers: list[Number] | None = None
        if has_other_form(before, after) or self._only_lines_differ(old, new):
            numbers = reencoded_numbers(before, after, same.references)
        if numbers is not None:
            numbers += same.differences.numbers
            if any(number.file is None for number in numbers) and not self._only_lines_differ(old, new):
                numbers = None
        return numbers, _Same.IDENTITY if same.differences.identity else _Same.FORM

    def _records_proof(self, old: Entry, new: Entry, moves: list[LineMove]) -> Proof:
        """Say how it is known that line records moved with their lines; that they are lines is known anyway."""
        proof = self._proof(old, new)
        if proof is not None and moves and all(proof.proves_record(*move) for move in moves):
            return Proof.SOURCES
        return Proof.RECORDS

    def _numbers_proof(
        self, old: Entry, new: Entry, versions: tuple[Version, Version], numbers: list[Number]
    ) -> Proof | None:
        """Say how it is known that numbers are lines that moved, None when it is not."""
        proof, is_function = self._proof(old, new), new.kind == KIND_FUNCTION
        if proof is None:
            if all(number.file is not None for number in numbers):
                return Proof.RECORDS
            inferred = is_function and self._inference.infers(*versions, numbers)
            return Proof.INFERRED if inferred else None
        known = [number for number in numbers if number.file is not None]
        others = [number for number in numbers if number.file is None]
        uses = partial(distinct_uses, self._views[0], others)
        if others and not proof.proves(new.name, is_function, [number.readings for number in others], uses):
            return None
        moves = [LineMove(number.file, *number.readings[0]) for number in known]
        return self._records_proof(old, new, moves) if moves else Proof.SOURCES


def _reasons(numbers: list[Number], proof: Proof) -> tuple[Reason, ...]:
    code = Code.LINE_INFERRED if proof is Proof.INFERRED else Code.LINE
    reasons = []
    for number in numbers[:_MOST_REASONS]:
        # Of several readings the one without a sign.
        was, is_ = next((values for values in number.readings if min(values) > 0), number.readings[0])
        place = Place("", number.instruction[1][1]) if number.instruction else None
        reasons.append(Reason.of(code, was, is_, place, words=number.place))
    return tuple(reasons)
