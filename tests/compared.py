# SPDX-License-Identifier: GPL-2.0-only
"""Compare objects that others built, pair by pair, and hold a part of the answers against the oracle.

    python tests/compared.py --pair "LABEL" OLD NEW [--pair ...] [--oracle N] [--every N] [--start N] [--jobs N]

OLD and NEW are directories (a package of modules, a tree) or objects; objects of one path below them are a pair, and
the directory named after a release counts for nothing. Prints a row of a table (Markdown) for each pair of directories,
and below what the oracle says otherwise. Exit status 1 if something could not be compared, or the oracle disagrees in
a way that no convention explains.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

from oracle import opinion
from source_mutations import CONVENTIONS, Convention, Pair, Question, disagreements, report_answer
from source_mutator import Kind, Mutation

from kbuild_klp.builds.single_object import ObjectBuild
from kbuild_klp.compare.passes import compare
from kbuild_klp.errors import KlpError

_RELEASE = re.compile(r"(?:^|(?<=/))\d+\.\d+[^/]*/")
_OF_RELEASE = ("__UNIQUE_ID_vermagic", "_note_", "__UNIQUE_ID_note_")
# What is left of the path of a source file behind the name of a directory: as text, or as bytes.
_OF_SOURCE = re.compile(r"[^']*/[^']*\.[chS]'|[0-9a-f]?(?:[0-9a-f]{2})*?2f(?:[0-9a-f]{2})*?2e(?:63|68|53)00")
# Data as the oracle writes them: bytes, of which some are what a reference goes to, then references by place.
_DATA = re.compile(r"((?:.*\[)?)([0-9a-f]+)\]?")
_REFERENCE = re.compile(r"[0-9a-f]+: R_X86_64_64 ")
_SOURCE_AT = re.compile(r"([0-9a-f]+): R_X86_64_64 b'[^']*/[^']*\.[chS]'")
_LINE = 8  # behind the name of the file (struct source_location in lib/ubsan.h)
_NOTHING = Mutation("", Kind.PATCH, "", 0, "", "", {})


def _is_build_id(question: Question) -> bool:
    return question.name == ".note.gnu.build-id" and not question.ours


def _is_padding(question: Question) -> bool:
    parent = question.name.removeprefix("__pfx_")
    return parent != question.name and question.answer.get(("function", parent)) == question.theirs


def _is_release(question: Question) -> bool:
    return not question.ours and question.name.startswith(_OF_RELEASE)


def _is_absolute(question: Question) -> bool:
    return question.name.startswith("__crc_") and not question.theirs


def _is_btf_id(question: Question) -> bool:
    return question.name.startswith("__BTF_ID__") and not question.ours


def _is_descriptor(question: Question) -> bool:
    return question.name.startswith("__UNIQUE_ID_ddebug") and (question.ours, question.theirs) == ("", "line-only")


def _is_directory(question: Question) -> bool:
    """Say whether all that differs is one and the same part of names of source files."""
    sides = _pieces(question)
    parts = [_part(old, new) for old, new in zip(*sides, strict=True) if old != new]
    return len({part[:2] for part in parts}) == 1 and all(_OF_SOURCE.match(rest) for *_, rest in parts)


def _is_unused_record(question: Question) -> bool:
    """Say whether all that differs besides directories is the line of records behind what is referred to.

    A thing without a name ends where something refers to, and so there the next record of UBSAN is used by nobody.
    """
    if question.kind == "section" and not question.ours and question.theirs in ("added", "removed"):
        return all(map(_holds_records, (line for path in question.pair for line in _bodies(path, question).elements())))
    sides = _pieces(question)
    parts = {at: _part(old, new) for at, (old, new) in enumerate(zip(*sides, strict=True)) if old != new}
    others = [at for at, part in parts.items() if not _OF_SOURCE.match(part[2])]
    directories = {part[:2] for at, part in parts.items() if at not in others}
    return len(directories) <= 1 and bool(others) and all(_differ_in_lines_behind(*sides, at) for at in others)


def _pieces(question: Question) -> tuple[list[str], list[str]]:
    """Return the texts of what is only said by the oracle to have changed, if they are as many; else nothing."""
    if question.ours or question.theirs != "changed":
        return [], []
    old, new = (
        [piece for body in sorted(_bodies(path, question).elements()) for line in body for piece in line.split("; ")]
        for path in question.pair
    )
    return (old, new) if len(old) == len(new) else ([], [])


def _holds_records(body: tuple[str, ...]) -> bool:
    """Say whether a text of data is of nothing but records of UBSAN: a line and a column behind each source."""
    (head, *rest), data = [piece for line in body for piece in line.split("; ")], bytearray()
    if (match := _DATA.fullmatch(head)) is not None:
        data += bytes.fromhex(match[2])
    for found in filter(None, map(_SOURCE_AT.match, rest)):
        line = int(found[1], 16) + _LINE
        data[line : line + 8] = bytes(len(data[line : line + 8]))
    return bool(data) and not any(data) and all(map(_REFERENCE.match, rest))


def _differ_in_lines_behind(old: list[str], new: list[str], at: int) -> bool:
    """Say whether two texts of data differ in nothing but lines of records, none of which they begin with."""
    was, is_ = (_DATA.fullmatch(side[at]) for side in (old, new))
    if not was or not is_ or was[1] != is_[1] or len(was[2]) != len(is_[2]):
        return False
    data = [bytearray.fromhex(match[2]) for match in (was, is_)]
    for piece in old[at + 1 :]:
        place = _SOURCE_AT.match(piece)
        if place is None and not _REFERENCE.match(piece):
            break
        if place and int(place[1], 16) > 0:
            line = int(place[1], 16) + _LINE
            for side in data:
                side[line : line + 4] = bytes(len(side[line : line + 4]))
    return data[0] == data[1]


def _part(old: str, new: str) -> tuple[str, str, str]:
    """Return what differs between two lines, and what is behind it in both."""
    head = _alike(old, new)
    tail = _alike(old[:head:-1], new[:head:-1])
    return old[head : len(old) - tail], new[head : len(new) - tail], new[len(new) - tail :]


def _alike(old: str, new: str) -> int:
    return next((at for at, (x, y) in enumerate(zip(old, new, strict=False)) if x != y), min(len(old), len(new)))


def _is_one_of_several(question: Question) -> bool:
    if question.theirs != "changed" or question.ours not in ("added", "removed"):
        return False
    less, more = (_bodies(path, question) for path in question.pair)
    if question.ours == "removed":
        less, more = more, less
    return bool(less) and less < more


def _bodies(path: Path, question: Question) -> Counter[tuple[str, ...]]:
    found = opinion.things(path)
    return Counter(it.body for it in found if (it.kind, opinion.plain(it.name)) == (question.kind, question.name))


LINKED = (
    *CONVENTIONS,
    Convention("build id", "which build it is of, is no change", _is_build_id),
    Convention("release", "which release a module is of, is no change (vermagic, LINUX_VERSION_CODE)", _is_release),
    Convention("CRC", "the oracle reads no absolute symbols, as CRCs of exports are before 5.19", _is_absolute),
    Convention("BTF id", "resolve_btfids numbers types, otherwise in each build", _is_btf_id),
    Convention("descriptor", "the line of a debug message is one of the function that prints it", _is_descriptor),
    Convention("directory", "where it was built is no change", _is_directory),
    Convention(
        "unused record", "of what nobody refers to, the oracle makes a part of what stands before", _is_unused_record
    ),
    Convention("one of several", "the oracle has one opinion of all that share a name", _is_one_of_several),
    Convention("padding", "what lies before a function is a part of it", _is_padding),
)
COLUMNS = ("objects", "changed", "added", "removed", "line_only", "identity_only", "warnings", "failed")
HEADINGS = ("objects", "changed", "added", "removed", "line-only", "identity only", "warnings", "failed")


class Outcome(NamedTuple):
    """What came of one pair of objects; ``names`` are those of which the oracle was asked, if it was."""

    counts: Counter[str]
    names: int
    agreed: int
    explained: Counter[str]
    notes: tuple[str, ...]


def judge(label: str, pair: Pair, ask: bool) -> Outcome:
    """Compare two objects; hold the answer against the oracle's if ``ask``."""
    try:
        report = compare(ObjectBuild(str(pair.old)), ObjectBuild(str(pair.new)))
    except KlpError as error:
        return Outcome(Counter(objects=1, failed=1), 0, 0, Counter(), (f"{label}: {error}",))
    counts = Counter(objects=1, warnings=len(report.warnings), failed=len(report.failed))
    counts.update({key: value for key, value in vars(report.summary).items() if key in COLUMNS})
    notes = [f"{label}: {text}" for text in (*report.failed, *report.warnings)]
    if not ask:
        return Outcome(counts, 0, 0, Counter(), tuple(notes))
    ours, theirs = report_answer(report), opinion.differences(*pair)
    found = disagreements(ours, theirs)
    explained: Counter[str] = Counter()
    for key, words in found.items():
        question = Question(*key, *words, ours, theirs, pair, _NOTHING)
        rule = next((rule for rule in LINKED if rule.applies(question)), None)
        if rule:
            explained[rule.name] += 1
        else:
            mine, other = (word or "nothing" for word in words)
            notes.append(f"{label}: {key[0]} {key[1]}: we say {mine}, it says {other}")
    names = len({*ours, *theirs})
    return Outcome(counts, names, names - len(found), explained, tuple(notes))


def pairs_of(old: Path, new: Path) -> Iterator[tuple[str, Pair]]:
    """Yield the objects that both sides have, with their path."""
    if new.is_file():
        yield new.name, Pair(old, new)
        return
    sides = [{_RELEASE.sub("", str(path.relative_to(side))): path for path in _objects(side)} for side in (old, new)]
    for name in sorted(sides[0].keys() & sides[1].keys()):
        yield name, Pair(sides[0][name], sides[1][name])


def _objects(directory: Path) -> list[Path]:
    modules = [*directory.rglob("*.ko")]
    return modules or [*directory.rglob("*.o")]


def row_of(label: str, outcomes: Iterable[Outcome]) -> tuple[str, list[str]]:
    """Return the row of a pair of directories, and what there is to look at."""
    counts: Counter[str] = Counter()
    explained: Counter[str] = Counter()
    names = agreed = 0
    notes: list[str] = []
    for outcome in outcomes:
        counts.update(outcome.counts)
        explained.update(outcome.explained)
        names, agreed = names + outcome.names, agreed + outcome.agreed
        notes += outcome.notes
    opinions = f"{agreed} of {names} the same" if names else "not asked"
    if explained:
        opinions += ", " + ", ".join(f"{count} {name}" for name, count in sorted(explained.items()))
    cells = [label, *(str(counts[column]) for column in COLUMNS), opinions]
    return f"| {' | '.join(cells)} |", notes


def main() -> int:
    """Compare what the command line names; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pair", nargs=3, action="append", required=True, metavar=("LABEL", "OLD", "NEW"))
    parser.add_argument("--oracle", type=int, default=0, metavar="N", help="ask the oracle of each Nth pair")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="take each Nth object only")
    parser.add_argument("--start", type=int, default=0, metavar="N", help="leave out the first N objects")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="processes")
    arguments = parser.parse_args()
    everything: list[str] = []
    print(f"| what | {' | '.join(HEADINGS)} | the oracle's opinion |")
    print(f"|---|{'---|' * (len(HEADINGS) + 1)}")
    with ProcessPoolExecutor(arguments.jobs) as pool:
        for label, old, new in arguments.pair:
            found = [*pairs_of(Path(old), Path(new))][arguments.start :: arguments.every]
            asked = [bool(arguments.oracle) and at % arguments.oracle == 0 for at in range(len(found))]
            names, pairs = [name for name, _ in found], [pair for _, pair in found]
            row, notes = row_of(label, pool.map(partial(judge), names, pairs, asked))
            print(row, flush=True)
            everything += notes
    print("\n" + "\n".join(everything) if everything else "")
    return bool(everything)


if __name__ == "__main__":
    sys.exit(main())
