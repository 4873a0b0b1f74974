# SPDX-License-Identifier: GPL-2.0-only
"""Directories with one test each: a patch, why, and what has to come of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class CaseDirectory:
    """One such directory, for one kernel.

    ``kinds`` are words for the kernel, the most particular first: a file NAME-KIND.EXT stands for NAME.EXT.
    """

    directory: Path
    kinds: tuple[str, ...]

    def file(self, name: str) -> Path:
        """Return the path of a file for this kernel."""
        path = Path(name)
        special = (self.directory / f"{path.stem}-{kind}{path.suffix}" for kind in self.kinds)
        return next((it for it in special if it.exists()), self.directory / name)

    def text(self, name: str) -> str:
        """Return what is in a file, nothing if there is none."""
        path = self.file(name)
        return path.read_text() if path.exists() else ""

    @property
    def name(self) -> str:
        """The directory's name."""
        return self.directory.name

    @property
    def title(self) -> str:
        """The first line of ``why``."""
        return (self.directory / "why").read_text().splitlines()[0]

    @property
    def patch(self) -> Path:
        """The patch for this kernel."""
        return self.file("patch")

    def sources(self) -> list[str]:
        """Return the files that the patch changes."""
        lines = self.patch.read_text().splitlines()
        return [line.removeprefix("+++ b/") for line in lines if line.startswith("+++ b/")]

    def goals(self) -> list[str]:
        """Return what make is to build."""
        path = self.file("goals")
        if path.exists():
            return path.read_text().split()
        return [str(Path(source).with_suffix(".o")) for source in self.sources()]
