# SPDX-License-Identifier: GPL-2.0-only
"""Functions of the running kernel to which no pointer can be called, because its compiler and objtool saw none.

Under IBT the kernel takes ENDBR away from them while it boots, and from those of a module when it loads that
(apply_seal_endbr() in arch/x86/kernel/alternative.c, apply_ibt_endbr() in 6.1; module_finalize() in module.c).
"""

from __future__ import annotations

from kbuild_klp.extract.why_not import Bar, CannotCarryError
from kbuild_klp.module.running import CarriedObject, Running


def refuse_pointers_to_sealed(part: CarriedObject, spelled: dict[str, str], running: Running) -> None:
    """Refuse functions that are the first to take the address of one; to call it is right."""
    needed, table = part.needed, part.needed.view.architecture.seal_table
    sealed = {name for name, text in spelled.items() if table and running.is_in_table(text, table)}
    for piece in needed.pieces.values() if sealed else ():
        for reference in needed.references_of(piece):
            goal = needed.goals.get(reference.row)
            if goal is not None and goal.name in sealed and not reference.is_branch:
                needed.refuse(piece.need, CannotCarryError(Bar.SEALED, name=goal.name))
