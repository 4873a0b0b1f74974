# SPDX-License-Identifier: GPL-2.0-only
"""What a verdict costs does not grow with the object: else two releases of one large object take minutes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from snippets import Compiler

from kbuild_klp.builds.single_object import ObjectBuild
from kbuild_klp.compare import second_look
from kbuild_klp.compare.passes import compare
from kbuild_klp.lines import renamed


def _source(count: int, value: int) -> str:
    functions = (f"int f{at}(int x) {{ return outer(x) + {value + at}; }}" for at in range(count))
    constants = (f"const int c{at}[] = {{ {value}, {at} }};" for at in range(count))
    return "int outer(int);" + "".join((*functions, *constants))


def _searches(gcc: Compiler, monkeypatch: pytest.MonkeyPatch, count: int) -> int:
    """Return how often something is searched for in a whole table when ``count`` functions differ."""
    old, new = (ObjectBuild(str(gcc.object(_source(count, value)))) for value in (1000, 2000))
    searches, isin = 0, np.isin

    def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal searches
        searches += 1
        return isin(*arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(np, "isin", counted)
        patched.setattr(second_look, "_PIECE", 1000)  # each piece of what is explained may search once
        report = compare(old, new, jobs=1)
    assert report.summary.changed == 2 * count
    return searches


def test_tables_are_searched_as_often_for_many_functions_as_for_few(
    gcc: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _searches(gcc, monkeypatch, 40) == _searches(gcc, monkeypatch, 10)


def test_numbers_in_names_are_no_lines_where_there_are_no_sources(
    gcc: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NVIDIA's objects have 50,000 functions that are called _nv and a number, of which many came or went."""
    old, new = (
        gcc.object("".join(f"int nv{at}(void) {{ return 1; }}" for at in range(first, first + 30)), "-fno-ipa-icf")
        for first in (0, 30)
    )

    def asked(*_: object) -> bool:
        raise AssertionError("asked of two symbols whether the number in their names is a line")

    search: Callable[..., bool] = asked
    monkeypatch.setattr(renamed, "_differ_in_lines", search)
    report = compare(ObjectBuild(str(old)), ObjectBuild(str(new)))
    assert (report.summary.added, report.summary.removed, report.warnings) == (30, 30, [])
