# SPDX-License-Identifier: GPL-2.0-only
"""Tables that objtool is yet to make, of the livepatch as a whole.

Under IBT and LTO, and for klp-build, it runs over the linked module (delay-objtool in scripts/Makefile.lib), glue and
all, and makes none of which there is one already. So what it made of one object before, as of the only one of a module,
is left to it again: with that alone, nothing else of the livepatch could be unwound, and the mitigations would not find
its returns.
"""

from __future__ import annotations

import re

from kbuild_klp.kernel.tree import BuildTree
from kbuild_klp.module.running import CarriedObject

_DELAYED = re.compile(r"^delay-objtool[ \t]*:?=(.*)$", re.MULTILINE)
_SETTING = re.compile(r"\$\(CONFIG_(\w+)\)")
# What create_*_sections() in tools/objtool/check.c and orc_create() in orc_gen.c make.
_MADE = frozenset(
    {
        *(".orc_unwind", ".orc_unwind_ip", ".static_call_sites", ".ibt_endbr_seal"),
        *(".retpoline_sites", ".return_sites", ".call_sites", ".cfi_sites"),
    }
)


def runs_late(tree: BuildTree) -> bool:
    """Say whether objtool runs over modules of several objects, and not over these."""
    rules = (tree.kernel or tree.root) / "scripts/Makefile.lib"
    found = _DELAYED.search(rules.read_text(errors="replace")) if rules.is_file() else None
    return found is not None and any(tree.setting(name) == "y" for name in _SETTING.findall(found[1]))


def leave_to_objtool(part: CarriedObject) -> None:
    """Take the entries of these tables out of what is carried."""
    needed, side = part.needed, part.taken.side
    needed.dropped |= {entry.low for entry in needed.entries if entry.table in _MADE}
    needed.entries[:] = [entry for entry in needed.entries if entry.low not in needed.dropped]
    names = needed.view.object.section_names
    side[:] = [entry for entry in side if names[entry.section] not in _MADE]
