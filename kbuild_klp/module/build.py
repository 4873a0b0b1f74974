# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's own module build, in a directory of its own; the tree is only read."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from kbuild_klp.errors import BadTreeError, KlpError, ProgramError
from kbuild_klp.kernel.cmdfile import cmd_path
from kbuild_klp.kernel.tree import BuildTree
from kbuild_klp.module.tools import tool_variables
from kbuild_klp.processes import processors, run

_GLUE = "glue.c"
# scripts/Makefile.lib: what decides whether an object is instrumented.
_INSTRUMENTED = (
    *("GCOV_PROFILE", "KCOV_INSTRUMENT"),
    *(f"{name}_SANITIZE" for name in ("KASAN", "KCSAN", "KMSAN", "UBSAN")),
)
_LAST_LINES = 3  # of a build that failed, in the error
_OF_MAKE = re.compile(r"make(\[\d+\])?: |  [A-Z]+ ")
# What make or kbuild hand down to makes below them, and what would redirect a build of its own.
_NOT_OURS = re.compile(r"MAKE|MFLAGS$|KBUILD|KLP_|sub_make_done$|(?:M|O|W|C|V|ARCH|SRCARCH|srctree|objtree)$")
# A module's BTF counts on from that of the vmlinux beside it, and the kernel takes no other (btf_parse_module in
# kernel/bpf/btf.c). Where only the old objects were kept, that is the new vmlinux. Nobody needs the types of the glue.
_NO_BTF = "CONFIG_DEBUG_INFO_BTF_MODULES="
# Symbols that are resolved when the livepatch is loaded; objtool's opinion of what ftrace never calls.
_EXPECTED = re.compile(
    r"""modpost: (suppressed|(\S+: symbol )?["']\.klp\.sym\.|.*missing MODULE_DESCRIPTION)|data relocation to !ENDBR"""
)


def exports_of(tree: BuildTree) -> Path:
    """Return the file with what a tree's kernel exports, without which it can build no module; raises BadTreeError."""
    path = (tree.kernel or tree.root) / "Module.symvers"
    if not path.is_file():
        raise BadTreeError("has no Module.symvers", file=path.parent, hint="run `make vmlinux modules` there")
    return path


def build_module(
    tree: BuildTree, directory: Path, name: str, glue: str, objects: Mapping[str, bytes]
) -> tuple[Path, list[str]]:
    """Build a module of glue code and finished objects; returns its path and the warnings; raises KlpError.

    ``objects`` are named without suffix.
    """
    (directory / _GLUE).write_text(glue, "utf-8", "surrogateescape")
    parts = ["glue.o"]
    for stem, data in objects.items():
        path = directory / f"{stem}.o"
        path.write_bytes(data)
        # kbuild leaves alone what has no source; modpost wants to read how it was made.
        (directory / cmd_path(path.name)).write_text(
            "".join(f"{word}_{path} := true\n" for word in ("savedcmd", "cmd"))
        )
        parts.append(path.name)
    # Nothing may be added to the code that was carried, nor to the glue that no one looks at.
    switches = "".join(f"{what} := n\n" for what in _INSTRUMENTED)
    (directory / "Kbuild").write_text(f"obj-m := {name}.o\n{name}-y := {' '.join(parts)}\n{switches}")
    kernel = exports_of(tree).parent
    command = ["make", "-C", str(kernel), f"M={directory}", "KBUILD_MODPOST_WARN=1", _NO_BTF, f"-j{processors()}"]
    command += [*tool_variables(tree, kernel), "modules"]
    environment = {key: value for key, value in os.environ.items() if not _NOT_OURS.match(key)}
    try:
        said = run(command, environment=environment, merged=True).split("\n")
    except ProgramError as error:
        if error.file:
            raise  # there is no make
        # The last lines only say what make, and each make above it, did not make.
        said = [line for line in error.output.split("\n") if line.strip()]
        is_reason = (line for line in said if not _OF_MAKE.match(line) and not _EXPECTED.search(line))
        reasons = [" ".join(line.split()) for line in is_reason]
        reason = " | ".join(reasons[-_LAST_LINES:]) or error.message
        raise KlpError(f"the module build failed: {reason}", file=kernel) from None
    made = directory / f"{name}.ko"
    if not made.is_file():
        raise KlpError("the module build made no module", file=kernel, hint="try `make M=` with a module of your own")
    return made, list(_warnings(said))


def _warnings(said: Iterable[str]) -> list[str]:
    lines = [line.strip() for line in said]
    return [line for line in lines if re.search(r"\bwarning\b", line, re.IGNORECASE) and not _EXPECTED.search(line)]
