# SPDX-License-Identifier: GPL-2.0-only
"""What kernels of one source differ in: configuration fragments (KLP_CONFIGS=) and the compiler (LLVM=)."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from klptest import TroubleError
from klptest.host import CHECKOUT

CONFIG = CHECKOUT / "selftests/config"
_FRAGMENTS = CHECKOUT / "selftests/configs"
_OPTION = re.compile(r"(?:# )?(CONFIG_\w+)[= ].*")


def fragments() -> list[Path]:
    """Return the files that KLP_CONFIGS names, by their path or as NAME.config in selftests/configs."""
    found = []
    for name in os.environ.get("KLP_CONFIGS", "").split():
        path = Path(name).absolute() if "/" in name else _FRAGMENTS / f"{name}.config"
        if not path.is_file():
            known = " ".join(sorted(path.stem for path in _FRAGMENTS.glob("*.config")))
            raise TroubleError(f"KLP_CONFIGS={name}: no {path}; known are {known}, or a path")
        found.append(path)
    return found


def compiler() -> str:
    """Return the version line of the compiler that the kernel's Makefile takes: gcc, or what LLVM says of clang.

    LLVM is 1, a version's suffix (-19) or a directory with a / at its end (Documentation/kbuild/llvm.rst).
    """
    llvm = os.environ.get("LLVM", "")
    program = "gcc"
    if llvm:
        program = f"{llvm}clang" if llvm.endswith("/") else f"clang{llvm if llvm.startswith('-') else ''}"
    if shutil.which(program) is None:
        raise TroubleError(f"LLVM={llvm}: there is no {program}" if llvm else "there is no gcc")
    found = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    return found.splitlines()[0]


def _options(config: Path) -> Mapping[str, str]:
    matches = map(_OPTION.fullmatch, config.read_text().splitlines())
    return {match[1]: match[0] for match in matches if match}


def missing_options(config: Path) -> list[str]:
    """Return the lines of selftests/config that a configuration does not have; raises TroubleError for a fragment's.

    Some of them have another name in another kernel: CONFIG_MITIGATION_RETPOLINE was CONFIG_RETPOLINE before 6.9.
    """
    found = _options(config)

    def lost(wanted: Mapping[str, str]) -> list[str]:
        # An option that does not exist in this kernel is not set in it, either.
        return [line for name, line in wanted.items() if found.get(name, f"# {name} is not set") != line]

    added: dict[str, str] = {}
    for fragment in fragments():
        added |= _options(fragment)
    if missing := lost(added):
        raise TroubleError(f"KLP_CONFIGS={os.environ['KLP_CONFIGS']}: this kernel does not take {' '.join(missing)}")
    return lost({name: line for name, line in _options(CONFIG).items() if name not in added})
