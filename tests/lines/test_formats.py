# SPDX-License-Identifier: GPL-2.0-only
"""What a format shows as the number of a line."""

from __future__ import annotations

import pytest

from kbuild_klp.lines.formats import Shown, shown


@pytest.mark.parametrize(
    ("text", "index", "of_file", "of_function"),
    [
        ("%s:%d", 1, Shown.LINE, Shown.MAYBE),
        ("%s:%u: bad", 1, Shown.LINE, Shown.MAYBE),
        ("100%% of %s:%d", 1, Shown.LINE, Shown.MAYBE),
        ("%s():%d", 1, Shown.MAYBE, Shown.MAYBE),
        ("%s(%d)", 1, Shown.LINE, Shown.OTHER),
        ("RTNL: assertion failed at %s (%d)\n", 1, Shown.LINE, Shown.OTHER),
        ("%s line %d", 1, Shown.LINE, Shown.LINE),
        ("%s() at line %d", 1, Shown.LINE, Shown.LINE),
        ("%s, Line: %d", 1, Shown.LINE, Shown.LINE),
        ("%p %s:%d", 2, Shown.LINE, Shown.MAYBE),
        ("%-20s:%4lu", 1, Shown.LINE, Shown.MAYBE),
        ("%s %d", 1, Shown.OTHER, Shown.OTHER),
        ("%s: %d", 1, Shown.OTHER, Shown.OTHER),
        ("%s needs %d bytes", 1, Shown.OTHER, Shown.OTHER),
        ("%s newline %d", 1, Shown.OTHER, Shown.OTHER),
        ("%s:%x", 1, Shown.OTHER, Shown.OTHER),
        ("%p:%d", 1, Shown.OTHER, Shown.OTHER),
        ("%s:%*d", 1, Shown.OTHER, Shown.OTHER),
        ("%.*s:%d", 2, Shown.OTHER, Shown.OTHER),
        ("%d:%s", 0, Shown.OTHER, Shown.OTHER),
        ("%s:%d", 2, Shown.OTHER, Shown.OTHER),
        ("no conversion", 1, Shown.OTHER, Shown.OTHER),
    ],
)
def test_shown(text: str, index: int, of_file: Shown, of_function: Shown) -> None:
    assert (shown(text, index, True), shown(text, index, False)) == (of_file, of_function)
