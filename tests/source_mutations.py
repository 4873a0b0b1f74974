# SPDX-License-Identifier: GPL-2.0-only
"""Change sources of a built kernel, compile them, and hold what kbuild-klp says against two other opinions.

    python tests/source_mutations.py TREE [--seed N] [--jobs N] [-v]

TREE is not written to. Each change is compiled twice: as the kernel is, for `oracle.opinion`, and with a section for
each function and object, for `oracle.by_section`. All three have to name the same functions and data. What they may
differ in is the table `CONVENTIONS`, each with its reason; anything else is listed, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

from kernel_replay import SECTIONS, CompileError, Replay
from oracle import by_section, opinion
from oracle.listing import Instruction, Listing
from oracle.opinion import Answer, plain
from source_mutator import Kind, Mutation, mutations, patches, rows

from kbuild_klp.builds.single_object import ObjectBuild
from kbuild_klp.compare.passes import compare
from kbuild_klp.report.model import Report

# Of each subsystem some; assembly first.
SOURCES = """
arch/x86/entry/entry_64 arch/x86/lib/copy_user_64 arch/x86/lib/memmove_64 arch/x86/lib/memset_64 arch/x86/lib/getuser
arch/x86/lib/putuser arch/x86/lib/clear_page_64 arch/x86/lib/copy_mc_64 arch/x86/lib/retpoline
arch/x86/lib/csum-copy_64 arch/x86/kernel/ftrace_64 arch/x86/kernel/head_64 arch/x86/kvm/vmx/vmenter
arch/x86/kernel/traps arch/x86/kernel/process_64 arch/x86/kernel/cpu/common arch/x86/kernel/alternative
arch/x86/mm/fault arch/x86/events/core arch/x86/kvm/lapic arch/x86/lib/insn-eval block/blk-mq-sysfs block/bio
crypto/api drivers/acpi/osl drivers/acpi/resource drivers/base/core drivers/base/devres drivers/char/random
drivers/pci/quirks drivers/pci/pci-sysfs drivers/pnp/quirks drivers/tty/n_tty drivers/tty/serial/8250/8250_core
drivers/thermal/thermal_core drivers/cpufreq/cpufreq fs/namei fs/exec fs/ext4/inode fs/ext4/super fs/xfs/xfs_buf
fs/xfs/libxfs/xfs_bmap fs/jbd2/journal fs/proc/base fs/kernfs/dir init/main kernel/fork kernel/signal kernel/sys
kernel/time/timer kernel/irq/manage kernel/locking/mutex kernel/module/main kernel/printk/printk kernel/trace/trace
kernel/futex/pi kernel/params lib/vsprintf lib/string_helpers lib/kobject lib/zlib_inflate/inflate lib/dynamic_debug
mm/slub mm/page_alloc mm/mmap mm/vmscan mm/memory net/core/dev net/core/sock net/ipv4/tcp_input net/ipv4/udp
net/ipv6/route net/netlink/af_netlink net/packet/af_packet net/unix/af_unix net/ethtool/ioctl net/sched/sch_generic
security/commoncap virt/kvm/kvm_main
"""

Key = tuple[str, str]
_NOP = re.compile(r"(?:(?:data16|cs) )*nop|xchg +%ax,%ax$")


class Pair(NamedTuple):
    """An object before and after."""

    old: Path
    new: Path


def answer_of(pair: Pair) -> Answer:
    """Return what kbuild-klp says of two objects; nothing may be unknown to it."""
    report = compare(ObjectBuild(str(pair.old)), ObjectBuild(str(pair.new)))
    assert not report.failed and not report.warnings, [*report.failed, *report.warnings]
    return report_answer(report)


def report_answer(report: Report) -> Answer:
    """Return what a report says of each thing, in the oracle's form."""
    answer: Answer = {}
    for group in report.objects:
        for change in group.changes:
            key = change.kind, plain(change.symbol)
            value = change.change.value
            answer[key] = value if answer.get(key, value) == value else "changed"
    return answer


def disagreements(ours: Answer, theirs: Answer, asked: set[Key] | None = None) -> dict[Key, tuple[str, str]]:
    """Return what the two say of each thing of which they say something else; "" is nothing."""
    return {
        key: (ours.get(key, ""), theirs.get(key, ""))
        for key in sorted({*ours, *theirs})
        if (asked is None or key in asked) and ours.get(key) != theirs.get(key)
    }


class Question(NamedTuple):
    """Something of which two say something else; "" is nothing. ``answer`` and ``judgement`` are all that they say."""

    kind: str
    name: str
    ours: str
    theirs: str
    answer: Answer
    judgement: Answer
    pair: Pair
    mutation: Mutation


class Convention(NamedTuple):
    """Two answers that are not the same, why, and how to know the case."""

    name: str
    reason: str
    applies: Callable[[Question], bool]


def _aliases(question: Question) -> set[str]:
    """Return all names that a function has before or after."""
    found = set()
    for path in question.pair:
        places = defaultdict(set)
        for symbol in Listing(path).symbols:
            if symbol.section:
                places[symbol.section, symbol.value].add(plain(symbol.name))
        found |= {name for names in places.values() if question.name in names for name in names}
    return found - {question.name}


def _is_alias(question: Question) -> bool:
    if question.kind != "function" or (question.ours and question.theirs):
        return False
    told = question.judgement if question.ours else question.answer
    return any(("function", name) in told for name in _aliases(question))


def _labels(section: str, pair: Pair) -> set[str]:
    """Return the names of the labels of a section that have no size, which is how assembly marks a place."""
    symbols = [symbol for path in pair for symbol in Listing(path).symbols if symbol.section == section]
    return {plain(symbol.name) for symbol in symbols if symbol.kind == "NOTYPE" and not symbol.size}


def _is_code_before_label(question: Question) -> bool:
    if (question.kind, question.ours, question.theirs) == ("section", "", "changed"):
        labels = _labels(question.name, question.pair)
        return any(("function", name) in question.answer for name in labels)
    if (question.kind, question.ours, question.theirs) != ("function", "changed", ""):
        return False
    sections = [name for kind, name in question.judgement if kind == "section"]
    return any(question.name in _labels(section, question.pair) for section in sections)


def _is_alignment(question: Question) -> bool:
    if (question.kind, question.ours, question.theirs) != ("section", "changed", ""):
        return False
    old, new = (Listing(path).sections.get(question.name) for path in question.pair)
    return old is not None and new is not None and old.alignment != new.alignment


def _is_line(question: Question) -> bool:
    is_patch = question.mutation.kind is Kind.PATCH
    return is_patch and question.ours == "line-only" and question.theirs in ("changed", "")


def _code(name: str, path: Path) -> list[Instruction]:
    """Return the instructions of a function."""
    listing = Listing(path)
    found = [symbol for symbol in listing.symbols if symbol.kind == "FUNC" and plain(symbol.name) == name]
    places = [(symbol.section, range(symbol.value, symbol.value + symbol.size)) for symbol in found]
    return [line for section, inside in places for line in listing.code[section] if line.place in inside]


def _without_nops(lines: list[Instruction]) -> list[Instruction]:
    return [line for line in lines if not _NOP.match(line.text)]


def _is_encoding(question: Question) -> bool:
    if (question.kind, question.ours, question.theirs) != ("function", "", "changed"):
        return False
    lines = [_code(question.name, path) for path in question.pair]
    old, new = map(_without_nops, lines)
    lengths = ([len(line.raw) for line in side] for side in lines)
    if len(old) != len(new) or next(lengths) == next(lengths):
        return False
    pairs = [(x, y) for x, y in zip(old, new, strict=True) if not x.text.startswith(("j", "call"))]
    names = ([line.text.partition(" ")[0] for line in side] for side in (old, new))
    return next(names) == next(names) and all(x.raw == y.raw for x, y in pairs)


CONVENTIONS = (
    Convention("alias", "several names of one function are reported under one of them", _is_alias),
    Convention(
        "label", "code under no name is given to the label behind it, not to the section", _is_code_before_label
    ),
    Convention("alignment", "the alignment of a section belongs to no symbol; the oracle leaves it out", _is_alignment),
    Convention("encoding", "a branch in its long form is the same as in its short one, and NOPs align", _is_encoding),
    Convention("line", "the oracle knows no lines in code, and leaves out those of records", _is_line),
)


# Each has a test in test_known_faults.py, and goes with its fix.
FAULTS: tuple[Convention, ...] = ()


class Verdict(NamedTuple):
    """What came of a mutation. ``state``: rejected, same, silent, found, or wrong (with ``notes`` to look at)."""

    mutation: Mutation
    state: str
    found: Answer
    explained: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def judge_pair(mutation: Mutation, plainly: Pair, sectioned: Pair | None) -> Verdict:
    """Hold our answer for a pair of objects against the others'."""
    ours, theirs = answer_of(plainly), opinion.differences(*plainly)
    explained, notes = [], []
    questions = [("oracle", disagreements(ours, theirs), ours, theirs, plainly)]
    if sectioned is not None:
        sections, asked = by_section.differences(*sectioned)
        again = answer_of(sectioned)
        questions += [("sections", disagreements(ours, sections, asked), ours, sections, plainly)]
        questions += [("sectioned", disagreements(again, sections, asked), again, sections, sectioned)]
    for judge, found, answer, judgement, pair in questions:
        for key, words in found.items():
            question = Question(*key, *words, answer, judgement, pair, mutation)
            rule = next((rule for rule in CONVENTIONS + FAULTS if rule.applies(question)), None)
            if rule:
                explained.append(rule.name)
            else:
                mine, other = (word or "nothing" for word in words)
                notes.append(f"{judge}: {key[0]} {key[1]}: we say {mine}, it says {other}")
    if mutation.kind is Kind.NOTHING:
        notes += [f"nothing was changed, and we say {change} {name}" for (_, name), change in ours.items()]
    state = "wrong" if notes else "found" if ours else "silent"
    return Verdict(mutation._replace(texts={}), state, ours, tuple(explained), tuple(notes))


def judge_object(tree: Path, name: str, chosen: Iterable[Mutation], sections: bool = True) -> Iterator[Verdict]:
    """Compile each change of one object and judge it."""
    directory = Path(tempfile.mkdtemp(prefix="source-mutations-"))
    try:
        replay = Replay(tree, name)
        variants = [("plain", ()), ("sections", SECTIONS)] if sections else [("plain", ())]
        old = {variant: replay.compile(directory / f"old-{variant}", {}, *flags) for variant, flags in variants}
        for mutation in chosen:
            pairs = {}
            try:
                for variant, flags in variants:
                    place = directory / f"new-{variant}"
                    pairs[variant] = Pair(old[variant], replay.compile(place, mutation.texts, *flags))
            except CompileError as error:
                yield Verdict(mutation._replace(texts={}), "rejected", {}, (), (str(error),))
                continue
            verdict = judge_pair(mutation, pairs["plain"], pairs.get("sections"))
            if not verdict.found and not verdict.notes and _same(pairs["plain"]):
                verdict = verdict._replace(state="same")
            yield verdict
            for variant, _ in variants:
                shutil.rmtree(directory / f"new-{variant}")
    finally:
        shutil.rmtree(directory)


def _same(pair: Pair) -> bool:
    return pair.old.read_bytes() == pair.new.read_bytes()


def chosen_mutations(tree: Path, names: Iterable[str], seed: int, per_kind: int) -> dict[str, list[Mutation]]:
    """Return seeded and recorded changes that apply to a tree, by object."""
    found: dict[str, list[Mutation]] = defaultdict(list)
    for name in names:
        if (tree / name).is_file():
            replay = Replay(tree, name)
            found[name] += mutations(name, replay.source, replay.text, seed, per_kind)
    for row in rows():
        if (tree / row.object).is_file():
            replay = Replay(tree, row.object)
            mutation = row.apply(replay.source, replay.read(row.file or replay.source))
            if mutation is not None:
                found[row.object].append(mutation)
    return found


def all_mutations(tree: Path, seed: int, per_kind: int) -> dict[str, list[Mutation]]:
    """Return seeded and recorded changes and patches, by object."""
    found = chosen_mutations(tree, [f"{name}.o" for name in SOURCES.split()], seed, per_kind)
    for mutation in patches(tree):
        found.setdefault(mutation.object, []).append(mutation)
    return found


def _work(tree: Path, sections: bool, job: tuple[str, list[Mutation]]) -> list[Verdict]:
    return list(judge_object(tree, *job, sections=sections))


def judge_all(tree: Path, chosen: Mapping[str, list[Mutation]], jobs: int, sections: bool) -> Iterator[Verdict]:
    """Judge changes of many objects."""
    with ProcessPoolExecutor(jobs) as pool:
        for verdicts in pool.map(partial(_work, tree, sections), chosen.items()):
            yield from verdicts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tree", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--per-kind", type=int, default=1, metavar="N", help="seeded changes of a kind in a file")
    parser.add_argument("--object", action="append", help="only changes of this object")
    parser.add_argument("--no-sections", action="store_true", help="only the oracle")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("-v", "--verbose", action="store_true", help="list every change and the answer")
    arguments = parser.parse_args()
    chosen = all_mutations(arguments.tree.resolve(), arguments.seed, arguments.per_kind)
    if arguments.object:
        chosen = {name: found for name, found in chosen.items() if name in arguments.object}
    states: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    explained: Counter[str] = Counter()
    for verdict in judge_all(arguments.tree.resolve(), chosen, arguments.jobs, not arguments.no_sections):
        states[verdict.state] += 1
        if verdict.state == "found":
            kinds[verdict.mutation.kind.value] += 1
        explained.update(verdict.explained)
        if verdict.state in ("wrong", "silent") or arguments.verbose:
            print(f"{verdict.state}: {verdict.mutation}")
            for line in verdict.notes if verdict.state == "wrong" else ():
                print(f"    {line}")
            if arguments.verbose:
                for (kind, name), change in verdict.found.items():
                    print(f"    {change} {kind} {name}")
    tried = sum(states.values())
    print(
        f"{tried} changes in {len(chosen)} objects: {states['rejected']} rejected by the compiler, "
        f"{states['same']} compiled to the same object, {states['silent']} to the same things in another order"
    )
    print(f"{states['found'] + states['wrong']} changed something: {states['found']} agreed, {states['wrong']} not")
    print("by kind: " + ", ".join(f"{kind} {count}" for kind, count in kinds.most_common()))
    for title, rules in (("explained", CONVENTIONS), ("known fault", FAULTS)):
        for rule in rules:
            print(f"{title} {explained[rule.name]} times: {rule.name}: {rule.reason}")
    return 1 if states["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
