# SPDX-License-Identifier: GPL-2.0-only
"""What is told of a livepatch: as text for people, and as data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from kbuild_klp.kernel.tree import VMLINUX
from kbuild_klp.module.livepatch_elf import module_name
from kbuild_klp.module.making import CarriedPiece, Livepatch, RefusedChange

DOCUMENT_VERSION = 1
# What objtool and Clang call the bytes before a function that belong to it.
_PADDING = ("__pfx_", "__cfi_")


def document(made: Livepatch) -> dict[str, Any]:
    """Return all of it as data."""
    return {
        "version": DOCUMENT_VERSION,
        "module": made.module or None,
        "carried": [{"object": it.object, "unit": it.unit, **it.piece._asdict()} for it in made.carried],
        "refused": [{"object": it.object, "unit": it.unit, **it.refusal.as_data()} for it in made.refused],
        "left_out": list(made.left_out),
        "not_needed": list(made.not_needed),
        "checks": [check._asdict() for check in made.checks],
        "warnings": list(made.warnings),
    }


def text(made: Livepatch) -> Iterator[str]:
    """Yield the lines that say what is carried, what is not, and how to load it."""
    for unit, of_unit in groupby(made.carried, key=lambda it: it.unit):
        yield unit if unit == VMLINUX else f"module {unit}"
        for name, of_object in groupby(of_unit, key=lambda it: it.object):
            yield f"  {name}"
            yield from _pieces(list(of_object))
        yield ""
    for label, names in (("left out", made.left_out), ("not needed", made.not_needed)):
        yield from (f"{label}: {name}" for name in names)
    if made.module:
        checks = ", ".join(_counted(check.number, check.what) for check in made.checks)
        name = module_name(Path(made.module).name.removesuffix(".ko"))
        yield f"{made.module}: checked: {checks}"
        yield f"load:   insmod {made.module}"
        yield f"unload: echo 0 > /sys/kernel/livepatch/{name}/enabled; rmmod {name}"
    elif not made.refused:
        yield "nothing differs that a livepatch could carry"


def _pieces(carried: list[CarriedPiece]) -> Iterator[str]:
    """Yield a line for each function and each variable, and one for all that has no name."""
    nameless: Counter[str] = Counter()
    for it in carried:
        kind, name, size, why = it.piece.kind, it.piece.symbol, it.piece.size, it.piece.why
        if name.startswith(_PADDING):
            continue
        if not name:
            nameless[why if kind == "data" else kind] += 1
            continue
        word, _, reason = why.partition(", ")
        label = word if kind == "function" or word in ("new", "changed") else "with it"
        rest = f"{kind}, " * (kind != "function") + f"{size} bytes" + f", {reason}" * bool(reason)
        yield f"    {label:<9} {name}  {rest}"
    if nameless:
        yield f"    with it   {', '.join(_counted(number, what) for what, number in nameless.items())} without a name"


def _counted(number: int, what: str) -> str:
    if what.endswith("s") and number == 1:
        return f"1 {what.removesuffix('s')}"
    return f"{number} {what}" if number == 1 or what.endswith("s") or " " in what else f"{number} {what}s"


def refusal(it: RefusedChange) -> str:
    """Return a refusal in one line."""
    where = it.object if it.unit == VMLINUX else f"{it.object} (module {it.unit})"
    return f"cannot carry {it.refusal.symbol} of {where}: {it.refusal.reason}"
