# SPDX-License-Identifier: GPL-2.0-only
"""The CRCs with which a linked module wants what it uses: struct modversion_info, include/linux/module.h.

modpost writes them, for each undefined symbol, from what the kernel exports. So another symbol among them says no more
than that the module refers to another symbol, which is compared where it does; another CRC is another type.
"""

from __future__ import annotations

import re

from kbuild_klp.elf.reader import ObjectFile

_PREFIX = "__version"
_PAIRS = "__versions"
# CONFIG_EXTENDED_MODVERSIONS, 6.14 (scripts/mod/modpost.c): for names that do not fit in there.
_CRCS, _NAMES = "__version_ext_crcs", "__version_ext_names"
_CRC, _ENTRY = 8, 64  # an unsigned long, and the name in what is left
_NAME = re.compile(r"[A-Za-z_.$][\w.$]*\Z", re.ASCII)


def import_crcs(module: ObjectFile) -> dict[str, int] | None:
    """Return the CRC of each symbol that a module uses, None where the tables are of a layout that is not known."""
    tables = [name for name in module.section_names if name.startswith(_PREFIX)]
    if not {*tables} <= {_PAIRS, _CRCS, _NAMES} or len({*tables}) < len(tables):
        return None
    pairs, crcs = module.named_bytes(_PAIRS), module.named_bytes(_CRCS)
    names = module.named_bytes(_NAMES).rstrip(b"\0").split(b"\0") if crcs else []
    if len(pairs) % _ENTRY or len(crcs) != 4 * len(names):
        return None
    entries = (pairs[at : at + _ENTRY] for at in range(0, len(pairs), _ENTRY))
    rows = [(entry[_CRC:].rstrip(b"\0"), entry[:_CRC]) for entry in entries]
    rows += ((name, crcs[4 * at : 4 * at + 4]) for at, name in enumerate(names))
    found = {name.decode("latin-1"): int.from_bytes(crc, module.byteorder) for name, crc in rows}
    return found if all(map(_NAME.match, found)) else None


def changed_imports(old: ObjectFile, new: ObjectFile) -> tuple[str, ...] | None:
    """Return the symbols that both versions of a module use with another CRC, in words; None where nobody knows."""
    before, after = import_crcs(old), import_crcs(new)
    if before is None or after is None:
        return None
    return tuple(
        f"{name} {before[name]:#010x} -> {after[name]:#010x}"
        for name in sorted(before.keys() & after.keys())
        if before[name] != after[name]
    )
