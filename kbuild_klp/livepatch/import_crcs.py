# SPDX-License-Identifier: GPL-2.0-only
"""The CRCs with which a linked module wants what it uses: struct modversion_info, include/linux/module.h.

modpost writes them, for each undefined symbol, from what the kernel exports. So another symbol among them says no more
than that the module refers to another symbol, which is compared where it does; another CRC is another type.
"""

from __future__ import annotations

import re

from kbuild_klp.object.view import ObjectView

_PREFIX = "__version"
_PAIRS = "__versions"
# CONFIG_EXTENDED_MODVERSIONS, 6.14 (scripts/mod/modpost.c): for names that do not fit in there.
_CRCS, _NAMES = "__version_ext_crcs", "__version_ext_names"
_CRC, _ENTRY = 8, 64  # an unsigned long, and the name in what is left
_NAME = re.compile(rb"[A-Za-z_.$][\w.$]*\Z")


def import_crcs(view: ObjectView) -> dict[bytes, int] | None:
    """Return the CRC of each symbol that a module uses, None where the tables are of a layout that is not known."""
    sections = view.object.section_names
    names = [name for name in sections if name.startswith(_PREFIX)]
    if not {*names} <= {_PAIRS, _CRCS, _NAMES} or len({*names}) < len(names):
        return None
    content = {name: bytes(view.object.content(sections.index(name))) for name in names}
    byteorder = view.architecture.byteorder
    rows: list[tuple[bytes, bytes]] = []
    pairs = content.get(_PAIRS, b"")
    for start in range(0, len(pairs), _ENTRY):
        entry = pairs[start : start + _ENTRY]
        name = entry[_CRC:].rstrip(b"\0")
        rows.append((name, entry[:_CRC]))
    crcs = content.get(_CRCS, b"")
    more = content.get(_NAMES, b"").rstrip(b"\0").split(b"\0") if crcs else []
    if len(pairs) % _ENTRY or len(crcs) != 4 * len(more):
        return None
    rows += ((name, crcs[4 * at : 4 * at + 4]) for at, name in enumerate(more))
    if not all(_NAME.match(name) for name, _ in rows):
        return None
    return {name: int.from_bytes(crc, byteorder) for name, crc in rows}


def changed_imports(old: ObjectView, new: ObjectView) -> tuple[str, ...] | None:
    """Return the symbols that both versions of a module use with another CRC, in words; None where nobody knows."""
    before, after = import_crcs(old), import_crcs(new)
    if before is None or after is None:
        return None
    return tuple(
        f"{name.decode()} {before[name]:#010x} -> {after[name]:#010x}"
        for name in sorted(before.keys() & after.keys())
        if before[name] != after[name]
    )
