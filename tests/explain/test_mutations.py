# SPDX-License-Identifier: GPL-2.0-only
"""Whatever is changed in an object, there is a reason for it, with an old and a new value that differ."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from kernel_like import source
from mutate import Mutator, changes, entries
from snippets import Compiler
from test_invariants import C_SOURCE, MUTATIONS

from kbuild_klp.changes.classification import ChangeType
from kbuild_klp.changes.wording import Reason, sentence
from kbuild_klp.checksum.entry import KIND_SECTION
from kbuild_klp.explain.explainer import Explainer
from kbuild_klp.object.view import ObjectView

_TRIED = 150


def _reasons(data: bytes, kind: str, place: Path) -> list[tuple[str, str, Reason | None]]:
    """Mutate an object; returns mutation, kind of what changed, and each reason (None: there is none)."""
    path, mutated = place / "old.o", place / "new.o"
    path.write_bytes(data)
    old, view = entries(data), ObjectView(str(path))
    mutations = list(MUTATIONS[kind](Mutator(data)))
    random.Random(kind).shuffle(mutations)
    found: list[tuple[str, str, Reason | None]] = []
    for mutation in mutations[:_TRIED]:
        differing = changes(old, mutation.data)
        if isinstance(differing, str):  # refused
            continue
        mutated.write_bytes(mutation.data)
        explainer = Explainer(view, ObjectView(str(mutated)))
        for change in map(explainer.explain, differing):
            if change.change is not ChangeType.CHANGED:
                continue
            found += [(mutation.what, change.kind, reason) for reason in change.why or (None,)]
    return found


@pytest.mark.parametrize("kind", MUTATIONS)
def test_every_mutation_of_compiled_code_has_its_reasons(cc: Compiler, tmp_path: Path, kind: str) -> None:
    _check_reasons(_reasons(cc.object(C_SOURCE).read_bytes(), kind, tmp_path))


@pytest.mark.parametrize("kind", MUTATIONS)
def test_every_mutation_of_special_sections_has_its_reasons(gcc: Compiler, tmp_path: Path, kind: str) -> None:
    _check_reasons(_reasons(gcc.assembly(source()).read_bytes(), kind, tmp_path))


def _check_reasons(found: list[tuple[str, str, Reason | None]]) -> None:
    assert len(found) > 80
    assert [what for what, _, reason in found if reason is None] == []
    assert [(what, reason) for what, _, reason in found if reason and reason.old == reason.new] == []
    # What only the hashes of the checksum file tell is an exception, but for what is a section's own.
    hashes = [
        (what, sentence(reason)) for what, of, reason in found if reason and of != KIND_SECTION and reason.is_hash
    ]
    assert len(hashes) <= len(found) // 20, hashes
