# SPDX-License-Identifier: GPL-2.0-only
"""Canonical names: what is left of a symbol's name when the numbers of the compiler are taken out.

Compilers and kernel macros number things in the order in which they meet them, so one new line renumbers all that
follow. Dropping the number makes names comparable across builds; it can also make two different symbols of one
object look alike. Names that carried such a number are therefore marked ``numbered``, and who compares them must
tell equals apart by other means (object/families.py: by the order in which their user refers to them).
"""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

from kbuild_klp.elf import rust_names


class CanonicalName(NamedTuple):
    """A name without numbers, and whether a number was dropped that kept it apart from others."""

    text: str
    numbered: bool


# GCC: static locals `count.5`, clones `foo.isra.0`, `foo.constprop.3`, `foo.part.0`, `foo.cold`, `foo.lto_priv.7`.
_GCC_NUMBER = re.compile(r"(?:\.\d+)+(?=\.|$)")
# Clang: `foo.llvm.1234567890` (ThinLTO; hexadecimal before Clang 12), `foo.__uniq.1234567890` (hash of the file's path,
# -funique-internal-linkage-names), `foo.content.1234567890`. It says where a symbol is from, not what it is.
_CLANG_HASH = re.compile(r"\.(?:llvm|__uniq|content)\.[0-9A-Fa-f]+(?=\.|$)")
_HAS_HASH = re.compile(r"\.(?:llvm|__uniq|content)\.").search
# include/linux/compiler.h: __UNIQUE_ID(prefix) is __UNIQUE_ID_ prefix __COUNTER__ (with another _ from 6.19 on); for
# a static local Clang puts the function before it, GCC a number behind. __ADDRESSABLE of 5.x has a line there.
_UNIQUE_ID = re.compile(r"((?:^|\.)(?:__UNIQUE_ID_|__addressable_)[^.]*?)_?\d+(?=\.|$)")
# include/linux/btf_ids.h: __ID() is __BTF_ID__ kind __ name __ __COUNTER__ (and __LINE__ behind it from 6.2 on).
_BTF_ID = re.compile(r"(__BTF_ID__(?!set8?__).+__)\d+$")
# GCC, cgraph_build_static_cdtor_1(): kind, priority and a counter, and behind them up to GCC 8 the first symbol of the
# file that others see, or the name of the file (get_file_function_name()).
_CONSTRUCTOR = re.compile(r"((?:_GLOBAL_)?_(?:sub_)?[ID]_\d{5})_\d+(?:_.*)?$")
# LLVM, Mangler::getNameWithPrefix(): what has no name at all, such as ASAN's table of descriptors.
_UNNAMED = re.compile(r"(__unnamed)_\d+(?=\.|$)")
# What Clang numbers from the second on: strings (GenerateStringLiteral()) and what large structures are filled from
# (EmitArrayInit(), CGExprAgg.cpp), both local symbols with KASAN, which puts redzones behind; compound literals of
# files (GetAddrOfConstantCompoundLiteral()), and the counters of a function (GCOVProfiler).
_FIRST = {".str", ".compoundliteral", "constinit", "__llvm_gcov_ctr"}
# Two clones of a clone are named in the order of the passes that made them, which is not the same in all of GCC.
_CLONES = re.compile(r"(?:\.(?:isra|constprop|part)(?=\.|$)){2,}")
# include/linux/init.h: ___initcall_id() is __initcall__kmod_ MODULE __ COUNTER _ LINE _ FUNCTION, then the level.
_INITCALL = re.compile(r"(__initcall__kmod_.+?__|__initstub__kmod_.+?__)\d+_\d+_(.+)$")
# Rust: legacy mangling ends in 17h<16 hex digits>E.
_RUST_LEGACY = re.compile(r"17h[0-9a-f]{16}E")

# A function of a stripped object, called after its place (object/stripped.py).
_PLACE = re.compile(r"(\.[^+]*\+)0x[0-9a-f]+")

BTF_ID = "__BTF_ID__"
"""What the names of BTF ids begin with. They are known by it: the ids are filled in later."""

NUMBERED_PREFIXES = (
    *("__UNIQUE_ID_", "__init", "_R", "_ZN", "__addressable_", "__unnamed_", BTF_ID, "_sub_", "_GLOBAL_"),
    *("__llvm_gcov_ctr", "constinit"),
)
"""What else may be numbered than a name with a dot in it begins with one of these."""
_NUMBERED = ((BTF_ID, _BTF_ID), (("_sub_", "_GLOBAL_"), _CONSTRUCTOR), ("__unnamed_", _UNNAMED))

_cache: dict[str, CanonicalName] = {}
_CACHE_LIMIT = 1 << 20


def _canonicalize(name: str) -> CanonicalName:
    if (place := _PLACE.fullmatch(name)) is not None:
        return CanonicalName(place[1], True)
    text = _CLANG_HASH.sub("", name) if "." in name else name
    if not text.startswith("_"):  # as most
        return _without_numbers(text)
    if text.startswith("__init"):
        match = _INITCALL.match(text)
        if match:
            return CanonicalName(match[1] + match[2], False)
    for prefix, pattern in _NUMBERED:
        if text.startswith(prefix) and (match := pattern.match(text)):
            return CanonicalName(match[1] + text[match.end() :], True)
    if text.startswith(rust_names.PREFIX) and (found := rust_names.without_numbers(text)) is not None:
        text, is_counted = found
        without = _without_numbers(text)
        return CanonicalName(without.text, without.numbered or is_counted)
    if text.startswith("_ZN"):
        text = _RUST_LEGACY.sub("", text)
    return _without_numbers(text)


def _without_numbers(text: str) -> CanonicalName:
    """Return a name without what was numbered in it."""
    without = _GCC_NUMBER.sub("", text) if "." in text else text
    if without.count(".") > 1:
        without = _CLONES.sub(lambda match: "." + ".".join(sorted(match[0][1:].split("."))), without)
    if "__UNIQUE_ID_" in without or "__addressable_" in without:
        without = _UNIQUE_ID.sub(r"\1", without)
    return CanonicalName(without, without != text or text in _FIRST)


def maybe_numbered(names: list[str]) -> list[int]:
    """Return the positions of the few names whose canonical form may be another one: quick."""
    return [
        at for at, name in enumerate(names) if "." in name or (name[:1] in "_c" and name.startswith(NUMBERED_PREFIXES))
    ]


def canonical_name(name: str) -> CanonicalName:
    """Return the canonical form of a symbol's name."""
    found = _cache.get(name)
    if found is None:
        if len(_cache) >= _CACHE_LIMIT:
            _cache.clear()
        found = _cache[name] = _canonicalize(name)
    return found


def canonical_section(name: str) -> str:
    """Return a section's name without what only names the build (-ffunction-sections and ThinLTO: .text.foo.llvm.HASH).

    Other numbers in section names mean something (.rodata.str1.8).
    """
    return _CLANG_HASH.sub("", name) if _HAS_HASH(name) else name


# GCC's gcov: `__gcov0.f`, `__gcov_.f`. What they are of stands behind.
_OF_GCOV = "__gcov"


def is_made_up(name: CanonicalName) -> bool:
    """Say whether a local symbol got its name from the compiler, by a number or as Clang's static `FUNCTION.NAME`.

    No identifier of C has a dot in it; what begins with one is a label.
    """
    return name.numbered or ("." in name.text[1:] and not name.text.startswith((".", _OF_GCOV)))


# Behind two dots stands what has no name in C: Clang's labels and compound literals, with -fdata-sections. The linker
# puts .data..L* and .data..compoundliteral* into .data, and so on (DATA_MAIN, BSS_MAIN; scripts/module.lds.S).
_ORDINARY = re.compile(r"\.(rodata|data|bss|text)(?:\.(?:[^.]|\.L|\.compoundliteral).*)?")


@cache
def memory_of(section: str) -> str:
    """Return into which memory a section's content goes: empty for .rodata, .data for .data.foo, else its name.

    The linker puts the content of .init.rodata, .data..ro_after_init or .data..percpu elsewhere than that of .rodata
    (include/asm-generic/vmlinux.lds.h), and what is there is not the same later.
    """
    ordinary = _ORDINARY.fullmatch(section)
    if ordinary is None:
        return section
    return "" if ordinary[1] == "rodata" else f".{ordinary[1]}"


# Suffixes of functions that a compiler derived from another one of the same source.
# GCC, then Clang: function specialization, and arguments and results that went.
_CLONE = re.compile(
    r"\.(?:isra|constprop|part|lto_priv|localalias|simdclone|specialized|argprom|argelim|retelim|memprof)(?=\.|$)"
)


def source_name(text: str) -> str:
    """Return the name that a function has in the source: `foo.constprop.isra` is `foo`."""
    return _CLONE.sub("", text)
