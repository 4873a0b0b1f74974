# SPDX-License-Identifier: GPL-2.0-only
"""Whether the old kernel can load a finished module: its version, and each symbol that the module refers to."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np

from kbuild_klp.builds.side import Build
from kbuild_klp.elf import constants as elf
from kbuild_klp.elf.reader import ObjectFile
from kbuild_klp.errors import BadObjectError, KlpError
from kbuild_klp.extract.laid_out import CALLBACKS, TABLE
from kbuild_klp.module.post_link import SHN_LIVEPATCH, LivepatchSymbol
from kbuild_klp.module.running import Running

_INIT = ".init."
_OWN_INIT = frozenset({".init.text", ".init.data", TABLE, CALLBACKS, ".init.rodata"})
_VERSION = 64  # struct modversion_info, kernel/module/internal.h


def check_livepatch_symbols(module: ObjectFile, running: Running) -> int:
    """Find each livepatch symbol in the old kernel again; returns how many there are, raises BadObjectError."""
    marked = np.flatnonzero(module.symbols["shndx"] == SHN_LIVEPATCH).tolist()
    for index in marked:
        text = module.symbol_name(index)
        symbol = LivepatchSymbol.parse(text)
        if symbol is None or not running.has(symbol.object, symbol.name, symbol.position):
            raise _wrong(module, f"{text} is not a symbol of the old kernel")
    for index in np.flatnonzero(module.shndx == elf.SHN_UNDEF).tolist():
        if LivepatchSymbol.parse(module.symbol_name(index)) is not None:
            raise _wrong(module, f"{module.symbol_name(index)} is not marked as a livepatch symbol")
    return len(marked)


def check_exports(module: ObjectFile, running: Running) -> int:
    """Check that the old kernel exports what else is undefined, with these CRCs; returns how many, raises KlpError."""
    info = module.symbols["info"]
    versions = dict(_versions(module))
    names = []
    for index in np.flatnonzero(module.shndx == elf.SHN_UNDEF).tolist():
        name = module.symbol_name(index)
        if not name:
            continue
        export = running.export(name)
        if export is None:
            if info[index] >> 4 == elf.STB_WEAK:
                continue
            raise _wrong(module, f"the old kernel does not export {name}")
        if export.crc and name in versions and versions[name] != export.crc:
            text = f"CRC of {name} is {versions[name]:#010x}, in the old kernel {export.crc:#010x}"
            raise KlpError(text, file=module.path, hint="build in the old tree, or leave out what changes its type")
        names.append(name)
    return len(names)


def check_release(module: ObjectFile, old: Build, release: str | None) -> int:
    """Check that the module says it is for the old kernel; raises KlpError."""
    own = _vermagic(module)
    wanted = next(_old_vermagics(old), None)
    is_right = own == wanted if wanted else own.split(" ")[0] == release if release else True
    if not is_right:
        text = f"it is for {own!r}, the old kernel is {wanted or release!r}"
        raise KlpError(text, file=module.path, hint="build in the old tree, or with its release (KERNELRELEASE)")
    for name in module.section_names:
        if name.startswith(_INIT) and name not in _OWN_INIT:
            raise _wrong(module, f"it has a section {name}")
    return 1


def _old_vermagics(old: Build) -> Iterator[str]:
    """Yield the version strings of the old build's own modules."""
    for unit in old.units():
        path = old.image(unit.name) if unit.name != "vmlinux" else None
        if path is not None:
            try:
                yield _vermagic(ObjectFile.open(path))
            except KlpError:
                continue


def _vermagic(module: ObjectFile) -> str:
    """Return the value of vermagic in .modinfo, strings KEY=VALUE (include/linux/moduleparam.h)."""
    if ".modinfo" not in module.section_names:
        return ""
    data = bytes(module.section_bytes(module.section_names.index(".modinfo")))
    texts = (text.decode("utf-8", "replace").partition("=") for text in data.split(b"\0"))
    return next((value for key, _, value in texts if key == "vermagic"), "")


def _versions(module: ObjectFile) -> Iterator[tuple[str, int]]:
    """Yield the CRCs that a module wants (__versions; with CONFIG_EXTENDED_MODVERSIONS the same in two sections)."""
    if "__versions" not in module.section_names:
        return
    data = bytes(module.section_bytes(module.section_names.index("__versions")))
    order = "<" if module.byteorder == "little" else ">"
    for at in range(0, len(data) - _VERSION + 1, _VERSION):
        crc, name = struct.unpack_from(f"{order}Q{_VERSION - 8}s", data, at)
        yield name.partition(b"\0")[0].decode("utf-8", "replace"), crc


def _wrong(module: ObjectFile, what: str) -> BadObjectError:
    return BadObjectError(f"the module is wrong: {what}", file=module.path, hint="report it")
