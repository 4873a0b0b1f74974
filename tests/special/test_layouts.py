# SPDX-License-Identifier: GPL-2.0-only
"""Every layout of special sections: whatever changes in an entry is a change of its function, and of nobody else."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
from snippets import Changes, diff_objects
from special_layouts import LAYOUTS, SITE, Entry, Layout, Number, Program, Ref


class Case(NamedTuple):
    """A program made of that of its layout, and what has to be said of it."""

    name: str
    program: Program
    answer: Changes


def _entry(layout: Layout, function: str) -> Entry:
    return Entry(tuple((one.old or SITE) if isinstance(one, Ref) else one.value for one in layout.fields_of(function)))


def _base(layout: Layout) -> Program:
    f, g = (_entry(layout, function) for function in "fg")
    return Program(layout, {"f": (f,), "g": (g, replace(g, companion=15))})


def _says(symbol: str, change: str = "changed") -> Changes:
    return {(symbol, "function", change)}


def _quiet(base: Program) -> Iterator[Case]:
    """Yield what changes nothing but itself."""
    layout = base.layout
    order = f'.section {layout.section}, "{layout.flags}"\n' + ('.section .fixup, "ax"\n' * bool(layout.companion))
    yield Case("same", replace(base, head=order), set())
    yield Case("grown", replace(base, grown="f"), _says("f"))
    yield Case("other-function", replace(base, constant=6), _says("g"))
    for name in ("above", "zzz"):
        more = {name: (_entry(layout, name),)}
        entries = more | base.entries if name == "above" else base.entries | more
        yield Case(f"new-function-{name}", replace(base, entries=entries), _says(name, "added"))


def _found(base: Program) -> Iterator[Case]:
    """Yield a change of each thing in each entry."""
    layout = base.layout
    for function, entries in base.entries.items():
        for number, entry in [*enumerate(entries)][-1:]:

            def with_entry(*now: Entry, function: str = function, number: int = number) -> Program:
                own = base.entries[function]
                return replace(base, entries=base.entries | {function: (*own[:number], *now, *own[number + 1 :])})

            where = f"{function}{number}"
            for name, now, change in _changes(layout, function, entry):
                yield Case(f"{where}-{name}", with_entry(now), _says(function, change))
    if not layout.records:
        yield from _places(base)


def _changes(layout: Layout, function: str, entry: Entry) -> Iterator[tuple[str, Entry, str]]:
    """Yield what may change in an entry: its name, the entry, and what is to be said."""
    for at, one in enumerate(layout.fields_of(function)):
        if isinstance(one, Number):
            for name, value, is_line in one.changes():
                yield name, entry.changed(at, value), "line-only" if is_line else "changed"
        else:
            for target in one.new:
                yield f"{one.name}-{target}", entry.changed(at, target), "changed"
    if layout.companion:
        yield "companion", replace(entry, companion=5), "changed"


def _places(base: Program) -> Iterator[Case]:
    """Yield other places in the function, or none."""
    [f] = base.entries["f"]
    at = f.values.index(SITE)
    yield Case("f0-site", replace(base, entries=base.entries | {"f": (f.changed(at, ".Lother_{at}"),)}), _says("f"))
    without = replace(base, entries=base.entries | {"f": (replace(f, values=()),)})
    yield Case("f0-without", without, _says("f"))
    one, two = base.entries["g"]
    yield Case("g-several", replace(base, entries=base.entries | {"g": (one, two, two)}), _says("g"))
    if base.layout.companion:
        codes = [
            replace(
                own,
                values=tuple(
                    str(value).replace("{at}", f"g{number}") if "code" in str(value) else value for value in own.values
                ),
            )
            for own, number in ((one, 1), (two, 0))
        ]
        yield Case("g-each-other's-code", replace(base, entries=base.entries | {"g": (*codes,)}), _says("g"))


def _cases(layout: Layout) -> list[Case]:
    base = _base(layout)
    return [*_quiet(base), *_found(base)]


CASES = [(layout, case.name) for layout in LAYOUTS for case in _cases(layout)]


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    """All objects, by layout and case; each call of the compiler makes those of one layout."""
    found = {}
    for layout in LAYOUTS:
        directory = tmp_path_factory.mktemp(layout.id)
        texts = {"base": _base(layout).text()} | {case.name: case.program.text() for case in _cases(layout)}
        for number, (name, text) in enumerate(texts.items()):
            (directory / f"{number}.s").write_text(text)
            found[layout.id, name] = directory / f"{number}.o"
        command = ["gcc", "-c", *(f"{number}.s" for number in range(len(texts)))]
        done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    return found


@pytest.mark.parametrize(("layout", "name"), CASES, ids=[f"{layout.id}-{name}" for layout, name in CASES])
def test_layout(objects: dict[tuple[str, str], Path], layout: Layout, name: str) -> None:
    answer = next(case.answer for case in _cases(layout) if case.name == name)
    old, new = objects[layout.id, "base"], objects[layout.id, name]
    unknown = layout.section if layout.unknown else ""
    assert diff_objects(old, new, unknown=unknown) == answer
