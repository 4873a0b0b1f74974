# SPDX-License-Identifier: GPL-2.0-only
"""Whether the old kernel can load a finished module: its version, and each symbol that the module refers to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from kbuild_klp.builds.side import Build
from kbuild_klp.elf import constants as elf
from kbuild_klp.elf.reader import ObjectFile
from kbuild_klp.errors import KlpError
from kbuild_klp.extract.laid_out import CALLBACKS, TABLE
from kbuild_klp.kernel.tree import VMLINUX
from kbuild_klp.livepatch.import_crcs import import_crcs
from kbuild_klp.module.livepatch_elf import SHN_LIVEPATCH, LivepatchSymbol, wrong_module
from kbuild_klp.module.running import Running

_INIT = ".init."
_OWN_INIT = frozenset({".init.text", ".init.data", TABLE, CALLBACKS, ".init.rodata"})
_LAYOUT = "module_layout"  # kernel/module/version.c: says what struct module looks like


def check_livepatch_symbols(module: ObjectFile, running: Running) -> int:
    """Find each livepatch symbol in the old kernel again; returns how many there are, raises BadObjectError."""
    marked = np.flatnonzero(module.symbols["shndx"] == SHN_LIVEPATCH).tolist()
    for index in marked:
        text = module.symbol_name(index)
        symbol = LivepatchSymbol.parse(text)
        if symbol is None or not running.has(symbol.object, symbol.name, symbol.position):
            raise wrong_module(module, f"{text} is not a symbol of the old kernel")
    for index in np.flatnonzero(module.shndx == elf.SHN_UNDEF).tolist():
        if LivepatchSymbol.parse(module.symbol_name(index)) is not None:
            raise wrong_module(module, f"{module.symbol_name(index)} is not marked as a livepatch symbol")
    return len(marked)


def check_exports(module: ObjectFile, running: Running) -> int:
    """Check that the old kernel exports what else is undefined, with these CRCs; returns how many, raises KlpError."""
    names = []
    for index in np.flatnonzero(module.shndx == elf.SHN_UNDEF).tolist():
        name = module.symbol_name(index)
        if name and running.export(name) is not None:
            names.append(name)
        elif name and module.symbols["info"][index] >> 4 != elf.STB_WEAK:
            raise wrong_module(module, f"the old kernel does not export {name}")
    _check_crcs(module, running, names)
    return len(names)


def _check_crcs(module: ObjectFile, running: Running, names: Iterable[str]) -> None:
    """Check that the module has the old kernel's CRC of each symbol that it uses, and of what every module has."""
    own = import_crcs(module)
    if own is None:
        raise wrong_module(module, "its CRCs are of a layout that is not known")
    wanted = {name: export.crc for name in (*names, _LAYOUT) if (export := running.export(name)) and export.crc}
    for name in sorted(own.keys() & wanted):
        if own[name] != wanted[name]:
            text = f"CRC of {name} is {own[name]:#010x}, in the old kernel {wanted[name]:#010x}"
            raise KlpError(text, file=module.path, hint="build in the old tree, or leave out what changes its type")
    for name, crc in running.linked_crcs(wanted).items():
        if wanted[name] != crc:
            text = f"CRC of {name} is {wanted[name]:#010x} in the old Module.symvers, in the old vmlinux {crc:#010x}"
            raise KlpError(text, file=module.path, hint="build vmlinux and modules there in one make")
    if missing := wanted.keys() - own:
        raise wrong_module(module, f"it has no CRC of {min(missing)}")


def check_release(module: ObjectFile, old: Build, release: str | None) -> int:
    """Check that the module says it is for the old kernel; raises KlpError."""
    if next(_said(module, "livepatch"), "") != "Y":
        raise wrong_module(module, "it does not say that it is a livepatch")
    own = next(_said(module, "vermagic"), "")
    wanted = next(_old_vermagics(old), None)
    is_right = own == wanted if wanted else own.split(" ")[0] == release if release else True
    if not is_right:
        text = f"it is for {own!r}, the old kernel is {wanted or release!r}"
        raise KlpError(text, file=module.path, hint="build in the old tree, or with its release (KERNELRELEASE)")
    for name in module.section_names:
        if name.startswith(_INIT) and name not in _OWN_INIT:
            raise wrong_module(module, f"it has a section {name}")
    return 1


def _old_vermagics(old: Build) -> Iterator[str]:
    """Yield the version strings of the old build's own modules."""
    for unit in old.units():
        path = old.image(unit.name) if unit.name != VMLINUX else None
        if path is not None:
            try:
                yield from _said(ObjectFile.open(path), "vermagic")
            except KlpError:
                continue


def _said(module: ObjectFile, wanted: str) -> Iterator[str]:
    """Yield the values of a key in .modinfo, strings KEY=VALUE (include/linux/moduleparam.h)."""
    texts = module.named_bytes(".modinfo").decode("utf-8", "replace").split("\0")
    for key, _, value in (text.partition("=") for text in texts):
        if key == wanted:
            yield value
