# SPDX-License-Identifier: GPL-2.0-only
"""Compile one object of a built kernel again, from another version of its source, without writing into the tree.

The command that kbuild saved beside the object is run again in the tree, with the source in another place. Three
options make that place invisible: ``-iquote`` finds the headers beside the original, ``-fmacro-prefix-map`` takes the
place out of ``__FILE__``, and all -D options stand in the saved command. objtool runs where kbuild ran it.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from posixpath import normpath

SECTIONS = ("-ffunction-sections", "-fdata-sections")
_SAVED = re.compile(r"^(?:saved)?cmd_\S+ := (.*)$")


class CompileError(Exception):
    """The compiler or objtool refused; the message is theirs."""


class Replay:
    """The saved command of one object. ``name`` is the object's path in the tree, as ``fs/proc/cmdline.o``."""

    def __init__(self, tree: Path, name: str) -> None:
        self.tree = tree
        self.name = name
        place = tree / name
        line = (place.parent / f".{place.name}.cmd").read_text().splitlines()[0]
        match = _SAVED.match(line)
        assert match, f"{name}: no saved command"
        command = match[1].replace("$(pound)", "#").replace("$$", "$")
        compiler, *rest = (shlex.split(part) for part in command.split(" ; "))
        assert all(part[0].endswith("objtool") and normpath(part[-1]) == name for part in rest), f"{name}: {command}"
        self.source = compiler[-1]
        at = compiler.index("-o")
        # KVM's own part is named by a way through arch/x86/kvm.
        assert normpath(compiler[at + 1]) == name and self.source.endswith((".c", ".S")), f"{name}: {command}"
        self._compiler = [word for word in compiler[:at] if not word.startswith("-Wp,-MMD")]
        self._objtool = [part[:-1] for part in rest]

    @cached_property
    def text(self) -> str:
        """The source as it is in the tree."""
        return self.read(self.source)

    def read(self, file: str) -> str:
        """Return a file of the tree."""
        return (self.tree / file).read_text("utf-8", "surrogateescape")

    def compile(self, directory: Path, changed: Mapping[str, str], *flags: str) -> Path:
        """Compile with other versions of some files, the source or headers; returns the object below ``directory``.

        ``changed`` has texts by path in the tree. A header is found if it lies beside the source or in an include
        directory of the kernel. Raises CompileError.
        """
        files = directory / "src"
        shutil.rmtree(files, ignore_errors=True)  # no header of the time before
        for file, text in {self.source: self.text, **changed}.items():
            place = files / file
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text, "utf-8", "surrogateescape")
        target = directory / self.name
        target.parent.mkdir(parents=True, exist_ok=True)
        compiler, *options = self._compiler
        first = [f"-I{files}/arch/x86/include", f"-I{files}/include", f"-fmacro-prefix-map={files}/="]
        last = ["-iquote", str(Path(self.source).parent), "-w", *flags]
        self._run([compiler, *first, *options, *last, "-o", str(target), str(files / self.source)])
        for command in self._objtool:
            self._run([*command, str(target)])
        return target

    def _run(self, command: list[str]) -> None:
        done = subprocess.run(command, cwd=self.tree, capture_output=True, text=True, errors="replace", check=False)
        if done.returncode:
            raise CompileError(f"{self.name}: {done.stderr.strip()}")
