# SPDX-License-Identifier: GPL-2.0-only
"""A kernel build tree, or the directory of an external module: where it is, what it is, which objects are
linked.

Linked means in vmlinux or in a module. Host tools, boot code, the vdso, kallsyms and what modpost adds to a
module are not: no list of kbuild's names them. Nothing here looks into an object, except at its first four
bytes, to see whether it is LLVM bitcode.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from kbuild_klp.errors import BadTreeError
from kbuild_klp.kernel.cmdfile import cmd_path, read_saved_command
from kbuild_klp.kernel.files import Locator, read_text
from kbuild_klp.kernel.modules import module_names, module_objects, ordered_modules
from kbuild_klp.kernel.vmlinux import archive_objects, is_own_program, linked_objects, visit

# Symbol that only this architecture's .config sets, our name for it, its directory in arch/. 64 bit before
# 32.
_ARCHITECTURES = (
    ("X86_64", "x86_64", "x86"),
    ("X86_32", "i386", "x86"),
    ("ARM64", "arm64", "arm64"),
    ("PPC64", "powerpc64", "powerpc"),
    ("S390", "s390", "s390"),
    ("RISCV", "riscv", "riscv"),
    ("LOONGARCH", "loongarch", "loongarch"),
    ("ARM", "arm", "arm"),
    ("PPC", "powerpc", "powerpc"),
    ("MIPS", "mips", "mips"),
    ("PARISC", "parisc", "parisc"),
    ("SPARC", "sparc", "sparc"),
    ("UML", "um", "um"),
)

VMLINUX = "vmlinux"
"""The name of the unit that is the kernel itself."""

_BITCODE = (b"BC\xc0\xde", b"\xde\xc0\x17\x0b")
# Assembly objects stay ELF under LTO, and head objects come first: look at this many, spread over the list.
_PROBES = 24
# Clang and GCC get it alike: -DKBUILD_MODNAME='"ext4"', with dashes as underscores. From 6.14 unquoted.
_MODULE_NAME = re.compile(r"""-DKBUILD_MODNAME=['"]*([^'"\s]+)""")
_SINGLE_SUFFIXES = (".o", ".ko", ".a", ".mod", ".i", ".s", ".ll", ".lst", ".lds", ".rsi", ".symtypes", "/")


@dataclass(frozen=True)
class LinkUnit:
    """What is linked together: ``vmlinux``, or a module by its file's name without ``.ko``.

    ``objects`` are in link order, relative to the tree's root, or absolute if they lie outside. An object
    may be in several units.
    """

    name: str
    objects: tuple[str, ...]


def objects_of(units: Iterable[LinkUnit]) -> list[str]:
    """All objects of some units, each once."""
    return list(dict.fromkeys(name for unit in units for name in unit.objects))


@dataclass(frozen=True)
class BuildTree:
    """A directory in which kbuild made objects. Use ``open`` or ``open_external``.

    ``root`` is the object tree (for an external module its directory), without symbolic links; ``source``
    where the sources are; ``kernel`` the kernel's object tree, which is ``root`` itself or, for an external
    module, the one it was built against, None if that is not known. ``configuration`` is the text of auto.conf.
    """

    root: Path
    source: Path
    kernel: Path | None
    configuration: str = field(default="", repr=False, compare=False)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> BuildTree:
        """Open the build tree or external module directory at ``path``; raises BadTreeError with a hint."""
        root = os.path.realpath(path)
        if not os.path.isdir(root):
            what = "is not a directory" if os.path.exists(root) else "does not exist"
            raise BadTreeError(what, file=path, hint="give the directory in which the kernel was built")
        configuration = configuration_text(root)
        if configuration is None:
            if _is_external(root):
                _refuse_part_of_vmlinux(root, os.fspath(path))
                return cls.open_external(root)
            raise _no_tree(root, os.fspath(path))
        if not os.path.exists(f"{root}/include/generated/autoconf.h"):
            raise BadTreeError(
                "was configured but never built",
                file=path,
                hint="run make there first, or give the O= directory",
            )
        return cls(Path(root), _source_of(root), Path(root), configuration)

    @classmethod
    def open_external(
        cls, directory: str | os.PathLike[str], kernel_root: str | os.PathLike[str] | None = None
    ) -> BuildTree:
        """Open the directory of an external module (``M=``), built against the kernel in ``kernel_root``.

        Without ``kernel_root`` a directory above is taken if it is a kernel's object tree. Raises
        BadTreeError.
        """
        root = os.path.realpath(directory)
        if not _is_external(root):
            raise BadTreeError("holds no built module", file=directory, hint="run make M=... there first")
        kernel = _kernel_above(root) if kernel_root is None else Path(os.path.realpath(kernel_root))
        configuration = configuration_text(str(kernel)) if kernel else None
        if kernel_root is not None and configuration is None:
            raise BadTreeError("is not a kernel build tree", file=kernel_root)
        return cls(Path(root), Path(root), kernel, configuration or "")

    @property
    def is_external(self) -> bool:
        """Whether this is the directory of an external module."""
        return self.kernel != self.root

    def setting(self, symbol: str) -> str | None:
        """The value of a configuration symbol (without ``CONFIG_``) as written; None if it is not set."""
        return self.settings.get(symbol)

    @cached_property
    def settings(self) -> Mapping[str, str]:
        """The values of all configuration symbols that are set, by their names without ``CONFIG_``."""
        return parse_configuration(self.configuration)

    @cached_property
    def architecture(self) -> str:
        """The machine that the kernel is for: ``x86_64``, ``arm64``, ..., or ``unknown``.

        From the one configuration symbol that names it (CONFIG_X86_64=y); 64-bit POWER is ``ppc64le`` or
        ``ppc64`` by CONFIG_CPU_LITTLE_ENDIAN.
        """
        name = next((name for symbol, name, _ in _ARCHITECTURES if self.setting(symbol) == "y"), "unknown")
        if name == "powerpc64":
            return "ppc64le" if self.setting("CPU_LITTLE_ENDIAN") == "y" else "ppc64"
        return name

    @cached_property
    def source_architecture(self) -> str:
        """The architecture's directory in ``arch/`` (kbuild's SRCARCH), or ``unknown``."""
        return next((directory for symbol, _, directory in _ARCHITECTURES if self.setting(symbol) == "y"), "unknown")

    @property
    def release(self) -> str | None:
        """The kernel release (``uname -r``) that was built, None if not recorded."""
        text = read_text(f"{self.kernel}/include/config/kernel.release") if self.kernel else None
        return text.strip() if text else None

    def units(self) -> list[LinkUnit]:
        """Every link unit that was built, vmlinux first; none for a tree in which nothing was.

        After a partial or interrupted build, what the directories' own lists name (see kernel/vmlinux.py).
        The objects need not exist any more. Under LTO, where they are bitcode, a unit is its one linked
        object. Raises BadTreeError for a damaged archive.
        """
        root = str(self.root)
        objects = [] if self.is_external else linked_objects(root, self.source_architecture)
        modules = self._modules(self._module_paths())
        is_bitcode = self._is_bitcode(objects or objects_of(modules.values()))
        return self._linked_units(objects, modules, ["vmlinux.o"] if is_bitcode else None)

    def built_units(self, goals: Sequence[str] = ()) -> list[LinkUnit]:
        """What ``make GOALS`` may have made: whole units, or for goals such as ``fs/ext4/`` their part.

        Each goal that is a directory gives what its ``built-in.a``, ``lib.a`` and ``modules.order`` name;
        ``x.o`` gives itself (its parts, if it is a module of several objects), ``x.ko`` its objects. Any
        other goal, or none, gives ``units()``. What make was asked for and did not get made may be among
        them.
        """
        if not goals or not all(goal.endswith(_SINGLE_SUFFIXES) for goal in goals):
            return self.units()
        singles = [posixpath.normpath(goal) + "/" * goal.endswith("/") for goal in goals]
        found: dict[str, dict[str, None]] = {}
        whole = self.units() if any(goal.endswith(".o") for goal in singles) else []
        for goal in singles:
            for unit in self._single(goal, whole):
                found.setdefault(unit.name, {}).update(dict.fromkeys(unit.objects))
        return [LinkUnit(name, tuple(objects)) for name, objects in found.items()]

    def image(self, unit: str) -> Path | None:
        """The file that a unit was linked to: ``vmlinux``, or the module's ``.ko``; None if it is not there."""
        name = self._image_names.get(unit)
        return self.root / name if name and (self.root / name).is_file() else None

    @cached_property
    def _image_names(self) -> dict[str, str]:
        """What each unit is linked to; of modules of one name, none."""
        names = {VMLINUX: VMLINUX}
        for path in self._module_paths():
            unit = posixpath.basename(path)
            names[unit] = "" if unit in names else f"{path}.ko"
        return names

    # Modules

    def locate(self, path: str) -> str:
        """A path that kbuild wrote, relative to the root, or absolute if it lies outside."""
        return self._locator.locate(path)

    @cached_property
    def _locator(self) -> Locator:
        if not self.is_external:
            return Locator(str(self.root))
        return Locator(str(self.root), [str(self.kernel)] if self.kernel else (), search_above=True)

    def _module_paths(self) -> list[str]:
        root = str(self.root)
        names = None if self.is_external else ordered_modules(root)
        if names is None:
            names = module_names(read_text(f"{root}/modules.order") or "")
            if self.is_external:
                names = [self.locate(f"{name}.mod")[:-4] for name in names]
            else:
                for directory, files in visit(root, self.source_architecture):
                    if directory and "modules.order" in files:
                        names += module_names(read_text(f"{root}/{directory}modules.order") or "")
        return names or (self._stray_modules() if self.is_external else [])

    def _stray_modules(self) -> list[str]:
        """The modules of a directory whose list of them is gone (``make M=... x.ko`` removes it)."""
        names = os.listdir(self.root)
        return [name[:-4] for name in sorted(names) if name.endswith(".mod") and not name.startswith(".")]

    def _modules(self, paths: Iterable[str]) -> dict[str, LinkUnit]:
        """The units of modules given by path without suffix. A module with no ``.mod`` was not built."""
        root = str(self.root)
        units: dict[str, LinkUnit] = {}
        for path in paths:
            text = read_text(posixpath.join(root, f"{path}.mod"))
            if text is not None:
                objects = tuple(map(self.locate, module_objects(text)))
                units[path] = LinkUnit(posixpath.basename(path), objects)
        return units

    # LTO

    def _is_bitcode(self, objects: Sequence[str]) -> bool:
        step = max(1, len(objects) // _PROBES)
        return any(_magic(posixpath.join(self.root, name)) in _BITCODE for name in objects[::step])

    def _linked_units(
        self, objects: list[str], modules: dict[str, LinkUnit], linked: list[str] | None
    ) -> list[LinkUnit]:
        """The units of objects of vmlinux and of modules (by path).

        ``linked`` stands for the objects under LTO, where those of modules are linked, too; None without it.
        """
        if linked is not None:
            modules = {path: LinkUnit(unit.name, (self._linked(path),)) for path, unit in modules.items()}
            objects = linked if objects else []
        vmlinux = [LinkUnit(VMLINUX, tuple(objects))] if objects else []
        return [*vmlinux, *modules.values()]

    def _linked(self, module: str) -> str:
        """The linked object of a module: ``x.o``; 5.12 to 5.18 ``x.lto.o``, ``x.prelink.o``."""
        for suffix in (".prelink.o", ".lto.o"):
            if os.path.exists(posixpath.join(self.root, module + suffix)):
                return module + suffix
        return f"{module}.o"

    # Goals

    def _single(self, goal: str, whole: list[LinkUnit]) -> list[LinkUnit]:
        root = str(self.root)
        stem, suffix = posixpath.splitext(goal)
        objects: list[str] = []
        modules: dict[str, LinkUnit] = {}
        if goal.endswith("/"):
            objects = [name for part in ("built-in.a", "lib.a") for name in archive_objects(root, goal + part)]
            modules = self._modules(module_names(read_text(f"{root}/{goal}modules.order") or ""))
        elif suffix == ".a":
            objects = archive_objects(root, goal)
        elif suffix in (".o", ".ko", ".mod"):
            modules = self._modules([stem])
            if not modules and suffix == ".o":
                return self._single_object(goal, whole)
        # Modules are linked by now; vmlinux is not until it is asked for.
        is_bitcode = self._is_bitcode([*objects, *objects_of(modules.values())])
        return self._linked_units(objects, modules, [] if is_bitcode else None)

    def _single_object(self, goal: str, whole: list[LinkUnit]) -> list[LinkUnit]:
        """One object, in the units that list it; if none does yet, in the one that its own command tells."""
        if _magic(f"{self.root}/{goal}") in (b"", *_BITCODE):
            return []
        known = [LinkUnit(unit.name, (goal,)) for unit in whole if goal in unit.objects]
        if known or is_own_program(goal):
            return known
        saved = read_saved_command(f"{self.root}/{cmd_path(goal)}")
        module = _MODULE_NAME.search(saved.command) if saved and " -DMODULE " in saved.command else None
        return [LinkUnit(module.group(1) if module else VMLINUX, (goal,))]


def parse_configuration(text: str) -> dict[str, str]:
    """The symbols (without ``CONFIG_``) that ``.config`` or ``auto.conf`` sets, and their values as written.

    ``# CONFIG_X is not set`` is the same as no line at all.
    """
    pairs = (line.removeprefix("CONFIG_").partition("=") for line in text.split("\n") if line.startswith("CONFIG_"))
    return {name: value for name, equals, value in pairs if equals}


def configuration_text(root: str) -> str | None:
    """What a tree was built with: include/config/auto.conf; .config may have been edited since."""
    for name in ("include/config/auto.conf", ".config"):
        text = read_text(f"{root}/{name}")
        if text is not None:
            return "\n" + text  # as in the archives that others have
    return None


def _magic(path: str) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read(4)
    except OSError:
        return b""


def _source_of(root: str) -> Path:
    """The source tree: where ``source`` points, or the Makefile that O= leaves behind, or the tree itself."""
    link = f"{root}/source"
    if os.path.islink(link) and os.path.isdir(link):
        return Path(os.path.realpath(link))
    makefile = read_text(f"{root}/Makefile") or ""
    if len(makefile) < 1000:
        for line in makefile.splitlines():
            if line.startswith("include ") and line.endswith("/Makefile"):
                return Path(os.path.realpath(posixpath.join(root, posixpath.dirname(line[8:].strip()))))
    return Path(root)


def _is_external(root: str) -> bool:
    """Whether modules were built in ``root`` or, outside of any kernel tree, below it."""
    try:
        names = os.listdir(root)
    except OSError:
        return False
    if any(name.endswith(".mod") for name in names):
        return True
    return bool((read_text(f"{root}/modules.order") or "").strip()) and _kernel_above(root) is None


def _kernel_above(root: str) -> Path | None:
    return next((path for path in Path(root).parents if configuration_text(str(path)) is not None), None)


def _refuse_part_of_vmlinux(root: str, path: str) -> None:
    """Refuse a directory of a kernel tree that has more than modules: of the rest nothing would be heard."""
    above = _kernel_above(root)
    if above is not None and archive_objects(root, "built-in.a"):
        hint = f"give {above}, and `diff --object '{posixpath.relpath(root, above)}/*'` to hear of this part only"
        raise BadTreeError("has objects of vmlinux beside modules", file=path, hint=hint)


def _no_tree(root: str, path: str) -> BadTreeError:
    if os.path.isdir(f"{root}/scripts") and os.path.exists(f"{root}/Kbuild"):
        hint = "give the O= directory if it was built elsewhere, else configure and build it"
        return BadTreeError("is a kernel source tree in which nothing was built", file=path, hint=hint)
    above = _kernel_above(root)
    if above is not None:
        return BadTreeError("is only a part of a kernel build tree", file=path, hint=f"give {above}")
    hint = "give the directory in which make ran (the one with .config), or that of a built module"
    return BadTreeError("is not a kernel build tree", file=path, hint=hint)
