# SPDX-License-Identifier: GPL-2.0-only
"""A reference to an undefined symbol says how the linker may bind it."""

from __future__ import annotations

import subprocess
from pathlib import Path

from kbuild_klp.builds.single_object import ObjectBuild
from kbuild_klp.compare.passes import compare

SOURCE = """
\t.text
\t.globl f
\t.type f, @function
f:\tcall other
\tret
\t.size f, .-f
"""


def test_undefined_symbol_that_becomes_hidden_changes_who_refers_to_it(tmp_path: Path) -> None:
    for name, text in (("old", SOURCE), ("new", SOURCE + "\t.hidden other\n")):
        (tmp_path / f"{name}.s").write_text(text)
        subprocess.run(["as", "--64", "-o", tmp_path / f"{name}.o", tmp_path / f"{name}.s"], check=True)
    report = compare(ObjectBuild(str(tmp_path / "old.o")), ObjectBuild(str(tmp_path / "new.o")))
    found = [(change.symbol, change.change.value) for part in report.objects for change in part.changes]
    assert found == [("f", "changed")]
