# SPDX-License-Identifier: GPL-2.0-only
"""What is left out before entries are paired makes no difference: the answer is that of pairing all of them."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from kbuild_klp.changes.classification import classify
from kbuild_klp.changes.contested import Contested, contested
from kbuild_klp.changes.pairing import correlate
from kbuild_klp.checksum import sum_file
from kbuild_klp.checksum.entry import Entry
from kbuild_klp.object.symbol_id import SymbolId

_NAMES = ["run", "help", "count.1", "count.2", "run.isra.0", "x\\y", *"abcdefg"]
_SYMBOLS = st.builds(
    SymbolId, st.sampled_from(_NAMES), st.sampled_from(["", "core.c", "core.c"]), st.integers(1, 2), st.just(1)
).map(lambda symbol: symbol if symbol.file else symbol._replace(source=1))


@st.composite
def _entries(draw: st.DrawFn) -> Entry:
    kind, section = (
        draw(st.sampled_from(["function", "function", "data"])),
        draw(st.sampled_from([".text", ".init.text"])),
    )
    checksum, lines = draw(st.sampled_from("01")) * 32, draw(st.sampled_from(["", "", "ab"]))
    uses, aliases = draw(st.lists(_SYMBOLS, max_size=2)), draw(st.lists(_SYMBOLS, max_size=1))
    components = ".".join([checksum[:8]] * 4)
    return Entry(kind, draw(_SYMBOLS), section, 8, checksum, components, lines, tuple(uses), tuple(aliases))


_OBJECTS = st.lists(_entries(), max_size=16, unique_by=lambda entry: entry.symbol)


def _file(entries: Sequence[Entry]) -> sum_file.SumFile:
    return sum_file.load(sum_file.dump("x86_64", 1, map(sum_file.entry_line, entries)), "x")


@settings(max_examples=500, deadline=None)
@given(old=_OBJECTS, others=_OBJECTS, lost=st.sets(st.integers(0, 15), max_size=4))
def test_the_answer_is_that_of_all_entries(old: list[Entry], others: list[Entry], lost: set[int]) -> None:
    """Most of the new object is the old one, as it is with kernels; the rest is anything."""
    same = [entry for at, entry in enumerate(old) if at not in lost]
    known = {entry.symbol for entry in same}
    before, after = _file(old), _file(same + [entry for entry in others[:5] if entry.symbol not in known])
    assert classify(correlate(contested(before, after))) == classify(
        correlate(Contested(before.entries, after.entries))
    )


def test_what_both_have_is_not_looked_at() -> None:
    """vmlinux.o has 55,000 entries, of which two differ."""
    entry = Entry("function", SymbolId("run"), ".text", 8, "0" * 32, "a.b.c.-")
    named = [entry._replace(symbol=SymbolId(f"run{number}", "core.c", number % 2 + 1)) for number in range(10)]
    changed = [entry._replace(checksum="1" * 32), *named]
    found = contested(_file([entry, *named]), _file(changed))
    assert (found.old, found.new) == ([entry], [changed[0]])
    assert found.settled == {("core.c", 1): 5, ("core.c", 2): 5}


def test_what_has_nothing_to_do_with_a_difference_is_not_paired() -> None:
    """Who refers to a name of several is left out unless a line that differs has to do with that name."""
    entry = Entry("function", SymbolId("run"), ".text", 8, "0" * 32, "a.b.c.-")
    counts = [entry._replace(kind="data", symbol=SymbolId(f"count.{number}", "core.c", number)) for number in (1, 2)]
    user = entry._replace(symbol=SymbolId("user", "core.c", 1), uses=(counts[0].symbol,))
    rest = [entry._replace(symbol=SymbolId("rest.isra.0", "rest.c")), *counts, user]
    before, alone, linked = (
        _file([changed, *rest])
        for changed in (entry, entry._replace(checksum="1" * 32), entry._replace(uses=(counts[1].symbol,)))
    )
    found = contested(before, alone)
    assert (len(found.old), len(found.new)) == (1, 1)
    assert found.settled == {("core.c", 1): 2, ("core.c", 2): 1, ("rest.c", 1): 1}
    found = contested(before, linked)
    assert {found.name for found in found.old} == {"run", "count.1", "count.2", "user"}
    assert found.settled == {("rest.c", 1): 1}
