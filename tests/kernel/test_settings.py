# SPDX-License-Identifier: GPL-2.0-only
from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from kbuild_klp.kernel.cmdfile import SavedCommand
from kbuild_klp.kernel.settings import (
    SettingDifference,
    SettingKind,
    Settings,
    changed_flags,
    compare_configurations,
    compare_settings,
)

if TYPE_CHECKING:
    from kernel.conftest import FakeTree

BASE = """CONFIG_X86_64=y
CONFIG_SMP=y
CONFIG_CC_VERSION_TEXT="gcc 12"
CONFIG_GCC_VERSION=120200
CONFIG_HZ=250
"""


def saved(command: str) -> SavedCommand:
    return SavedCommand("a.o", command, "a.c", ())


def test_configurations() -> None:
    old = "# Linux 6.12\nCONFIG_A=y\nCONFIG_B=m\n# CONFIG_C is not set\nCONFIG_D=1\n"
    new = "# Linux 6.13\nCONFIG_B=y\n# CONFIG_A is not set\nCONFIG_D=1\nCONFIG_E=y\n"
    assert compare_configurations(old, new) == {"A": ("y", None), "B": ("m", "y"), "E": (None, "y")}
    assert compare_configurations(old, old) == {}


def test_equal_trees(fake_tree: Callable[..., FakeTree]) -> None:
    old, new = fake_tree("old", configuration=BASE), fake_tree("new", configuration=BASE)
    assert compare_settings(Settings.of(old.open()), Settings.of(new.open())) == []


def test_every_kind(fake_tree: Callable[..., FakeTree]) -> None:
    old = fake_tree("old", configuration=BASE + "CONFIG_AS_VERSION=24000\nCONFIG_LD_VERSION=24000\n")
    changed = BASE.replace("X86_64", "ARM64").replace("gcc 12", "gcc 13").replace("120200", "130000")
    changed += "CONFIG_AS_VERSION=24100\nCONFIG_LD_VERSION=24100\nCONFIG_PAHOLE_VERSION=125\n"
    changed += 'CONFIG_LOCALVERSION="-x"\n'
    new = fake_tree("new", configuration=changed.replace("HZ=250", "HZ=1000"))
    old.write("include/config/kernel.release", "6.12.1\n")
    new.write("include/config/kernel.release", "6.12.1-x\n")
    found = compare_settings(Settings.of(old.open()), Settings.of(new.open()))
    assert [(d.kind, d.name) for d in found] == [
        (SettingKind.ARCHITECTURE, "architecture"),
        (SettingKind.COMPILER, "CONFIG_CC_VERSION_TEXT"),
        (SettingKind.ASSEMBLER, "CONFIG_AS_VERSION"),
        (SettingKind.LINKER, "CONFIG_LD_VERSION"),
        (SettingKind.TOOL, "CONFIG_PAHOLE_VERSION"),
        (SettingKind.CONFIGURATION, "CONFIG_ARM64"),
        (SettingKind.CONFIGURATION, "CONFIG_HZ"),
        (SettingKind.CONFIGURATION, "CONFIG_X86_64"),
    ]
    assert found[1] == SettingDifference(SettingKind.COMPILER, "CONFIG_CC_VERSION_TEXT", '"gcc 12"', '"gcc 13"')


def test_compiler_package_that_the_configuration_does_not_show(fake_tree: Callable[..., FakeTree]) -> None:
    old, new = fake_tree("old", configuration=BASE), fake_tree("new", configuration=BASE)
    old.write("include/generated/compile.h", '#define LINUX_COMPILER\t\t"gcc 12-1, GNU ld 2.40"\n')
    new.write("include/generated/compile.h", '#define LINUX_COMPILER\t\t"gcc 12-2, GNU ld 2.40"\n')
    (difference,) = compare_settings(Settings.of(old.open()), Settings.of(new.open()))
    assert (difference.kind, difference.name, difference.new) == (
        SettingKind.COMPILER,
        "LINUX_COMPILER",
        "gcc 12-2, GNU ld 2.40",
    )


def test_configuration_is_what_was_built(fake_tree: Callable[..., FakeTree]) -> None:
    old, new = fake_tree("old", configuration=BASE), fake_tree("new", configuration=BASE)
    new.write(".config", BASE + "CONFIG_EDITED_SINCE=y\n")
    assert compare_settings(Settings.of(old.open()), Settings.of(new.open())) == []


def test_flags_without_paths() -> None:
    old = saved(
        "gcc -Wp,-MMD,fs/.a.o.d -nostdinc -I/one/include -I ./include "
        "-include /one/include/linux/kconfig.h -fmacro-prefix-map=/one/= -O2 "
        "-DKBUILD_MODNAME='\"a\"' -c -o fs/a.o /one/fs/a.c ; "
        "./tools/objtool/objtool --orc fs/a.o"
    )
    new = saved(
        "ccache /usr/bin/gcc -Wp,-MMD,../fs/.a.o.d -nostdinc -I../include "
        "-include ../include/linux/kconfig.h "
        "-ffile-prefix-map=/two/= -O2 -DKBUILD_MODNAME='\"a\"' -c -o fs/a.o ../fs/a.c "
        "&& objtool --other fs/a.o"
    )
    assert changed_flags(old, new) == set()


def test_flags_that_differ() -> None:
    old = saved("gcc -O2 -mcmodel=kernel -fno-pic -Wall -DA=1 -c -o a.o a.c")
    new = saved("gcc -O3 -g -mcmodel=large -fpic -Wall -DA=1 -c -o a.o a.c")
    assert changed_flags(old, new) == {"-O", "-fpic", "-g", "-mcmodel"}


def test_order_of_flags() -> None:
    assert changed_flags(saved("gcc -fa -fno-a"), saved("gcc -fno-a -fa")) == {"order"}


def test_command_with_an_open_quote() -> None:
    assert changed_flags(saved("gcc -DA='x -O2"), saved("gcc -DA='x -O2")) == set()
