# SPDX-License-Identifier: GPL-2.0-only
"""What two builds must share for their difference to be that of their sources: configuration, tools, flags.

Two trees that differ in these are compared all the same; the differences are for the first lines of the
report.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from kbuild_klp.kernel.build_identity import COMPILE_H, defined
from kbuild_klp.kernel.cmdfile import SavedCommand
from kbuild_klp.kernel.tree import BuildTree, parse_configuration


class SettingKind(Enum):
    """What a setting is about."""

    ARCHITECTURE = "architecture"
    COMPILER = "compiler"
    ASSEMBLER = "assembler"
    LINKER = "linker"
    TOOL = "tool"
    CONFIGURATION = "configuration"


@dataclass(frozen=True)
class SettingDifference:
    """One setting that two builds do not share; None on the side where it is not set."""

    kind: SettingKind
    name: str
    old: str | None
    new: str | None


# Symbols that Kconfig fills in from the tools (scripts/Kconfig.include, init/Kconfig).
_TOOL_SYMBOLS = {
    symbol: kind
    for kind, symbols in {
        SettingKind.COMPILER: ("CC_VERSION_TEXT", "GCC_VERSION", "CLANG_VERSION", "CC_IS_GCC", "CC_IS_CLANG"),
        SettingKind.ASSEMBLER: ("AS_VERSION", "AS_IS_GNU", "AS_IS_LLVM"),
        SettingKind.LINKER: ("LD_VERSION", "LLD_VERSION", "LD_IS_BFD", "LD_IS_LLD"),
        SettingKind.TOOL: (
            "PAHOLE_VERSION",
            "RUSTC_VERSION",
            "RUSTC_VERSION_TEXT",
            "RUSTC_LLVM_VERSION",
            "BINDGEN_VERSION_TEXT",
        ),
    }.items()
    for symbol in symbols
}
# What a build is called: two of one kernel may differ in that.
_OF_THE_RELEASE = ("LOCALVERSION", "BUILD_SALT")
# Say nothing that the text does not say better.
_IMPLIED_BY_TEXT = ("GCC_VERSION", "CLANG_VERSION", "CC_IS_GCC", "CC_IS_CLANG")


@dataclass(frozen=True)
class Settings:
    """What one tree was built with. ``configuration`` is the text of auto.conf, ``built_by`` compiler and linker."""

    architecture: str
    configuration: str
    built_by: str | None
    release: str | None

    @classmethod
    def of(cls, tree: BuildTree) -> Settings:
        """The settings of ``tree`` as it was built (include/config/auto.conf, include/generated/compile.h)."""
        return cls(tree.architecture, tree.configuration, defined(tree, COMPILE_H).get("LINUX_COMPILER"), tree.release)


def compare_settings(old: Settings, new: Settings) -> list[SettingDifference]:
    """How two trees' builds differ apart from their sources and their names, by kind and name.

    Each object's flags are not among them: see ``changed_flags``.
    """
    differences: list[SettingDifference] = []

    def compare(kind: SettingKind, name: str, before: str | None, after: str | None) -> None:
        if before != after:
            differences.append(SettingDifference(kind, name, before, after))

    compare(SettingKind.ARCHITECTURE, "architecture", old.architecture, new.architecture)
    changed = compare_configurations(old.configuration, new.configuration)
    untold = {*_OF_THE_RELEASE, *(_IMPLIED_BY_TEXT if "CC_VERSION_TEXT" in changed else ())}
    for name in changed.keys() - untold:
        compare(_TOOL_SYMBOLS.get(name, SettingKind.CONFIGURATION), f"CONFIG_{name}", *changed[name])
    if not any(difference.kind is SettingKind.COMPILER for difference in differences):
        # The same version numbers, yet another package of the compiler or the linker.
        compare(SettingKind.COMPILER, "LINUX_COMPILER", old.built_by, new.built_by)
    order = {kind: place for place, kind in enumerate(SettingKind)}
    return sorted(differences, key=lambda difference: (order[difference.kind], difference.name))


def compare_configurations(old: str, new: str) -> dict[str, tuple[str | None, str | None]]:
    """The symbols (without ``CONFIG_``) that two configurations set differently: old and new value by name.

    Takes the text of ``.config`` or ``auto.conf``. ``# CONFIG_X is not set`` is the same as no line at all;
    None stands for both.
    """
    before, after = (parse_configuration(text) if old != new else {} for text in (old, new))
    both = {name: (before.get(name), after.get(name)) for name in before.keys() | after.keys()}
    return {name: (was, is_now) for name, (was, is_now) in both.items() if was != is_now}


def changed_flags(old: SavedCommand, new: SavedCommand) -> set[str]:
    """The names of the compiler's flags for one object that differ, whatever the paths.

    Left out: the compiler itself, include directories, prefix maps, dependency files, input and output
    names; of an option that takes a file, its last component counts. If the flags are the same in another
    order, there is one, ``order``.
    """
    before, after = list(_flags(old.command)), list(_flags(new.command))
    if before == after:
        return set()
    counts, others = Counter(before), Counter(after)
    return {_flag_name(flag) for flag in (*(counts - others), *(others - counts))} or {"order"}


# Options whose argument is the next word: dropped with it, or kept with the last component of it.
_DROPPED_PAIRS = frozenset(("-o", "-I", "-iquote", "-isystem", "-idirafter", "-MF", "-MT", "-MQ", "-L"))
_PATH_PAIRS = frozenset(("-include", "-imacros", "-T", "-x", "-Xclang", "-mllvm", "-z", "-m"))
_DROPPED = re.compile(
    r"-(?:I.|L.|iquote.|isystem.|MD$|MMD$|MP$|c$|S$|o.|MF.|Wp,-MM?D,|"
    r"f(?:macro|file|debug|coverage)-prefix-map=|-sysroot=|B.)|--?resource-dir"
)
_VALUE_PATH = re.compile(
    r"^(-f(?:plugin|plugin-arg-[^=]+|sanitize-ignorelist|profile-use|randomize-layout-seed-file)=).*/"
)


def _flags(command: str) -> Iterator[str]:
    """The flags of the compiler in a saved command that may go on with objtool, in a form without paths."""
    try:
        words = shlex.split(command, posix=True)
    except ValueError:
        words = command.split()  # an open quote: compare what is there
    words_iterator = iter(words)
    for word in words_iterator:
        if word in (";", "&&", "||", "|", "@"):
            return
        ends = word.endswith(";")
        word = word.removesuffix(";")
        if word in _DROPPED_PAIRS:
            next(words_iterator, None)
        elif word in _PATH_PAIRS:
            yield f"{word} {posixpath.basename(next(words_iterator, ''))}"
        elif word.startswith("-") and not _DROPPED.match(word):
            yield _VALUE_PATH.sub(r"\1", word)
        if ends:
            return


def _flag_name(flag: str) -> str:
    """What values of one flag share: ``-O2`` and ``-O3``, ``-mabi=a`` and ``=b``, ``-fpic``, ``-fno-pic``."""
    name = flag.partition("=")[0]
    if re.fullmatch(r"-O\w?|-Ofast", name):
        return "-O"
    if re.match(r"-g(?!no|nu)", name):
        return "-g"
    return re.sub(r"^-([fmW])no-", r"-\1", name)
