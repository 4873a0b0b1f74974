# SPDX-License-Identifier: GPL-2.0-only
"""Makefile.klp in the top Makefile of a real kernel (KSRC=), as far as no object need be compiled."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from fake_kernel import MAKEFILE_KLP


class RealTree:
    """A real source tree, an object tree, and a kbuild-klp that writes down its calls."""

    def __init__(self, source: Path, directory: Path) -> None:
        self.source = source
        self.objtree = directory / "objtree"
        self.objtree.mkdir()
        self.log = directory / "log"
        self.command = directory / "klp"
        self.command.write_text(f'#!/bin/sh\necho "$*" >>{self.log}\n')
        self.command.chmod(0o755)

    def make(self, *arguments: str) -> tuple[str, list[str]]:
        """Output and calls of a make that succeeds."""
        self.log.unlink(missing_ok=True)
        keep = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
        done = subprocess.run(
            [
                "make",
                f"MAKEFILES={MAKEFILE_KLP}",
                f"KBUILD_KLP={self.command}",
                f"O={self.objtree}",
                *arguments,
            ],
            cwd=self.source,
            env={**keep, "LC_ALL": "C"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout, self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> RealTree:
    source = os.environ.get("KSRC")
    if not source:
        pytest.skip("KSRC names no kernel source tree")
    if (Path(source) / ".config").exists():
        pytest.skip("KSRC was built in, so O= cannot be used")
    return RealTree(Path(source).resolve(), tmp_path_factory.mktemp("real"))


def test_klp_goal_needs_no_configuration_and_descends_nowhere(real: RealTree) -> None:
    output, calls = real.make("-s", "klp-diff", "BASE=../orig")
    assert (output, calls) == ("", [f"diff ../orig {real.objtree}"])


def test_goals_that_build_nothing(real: RealTree) -> None:
    assert real.make("-s", "KLP_CHECKSUMS=strict", "tinyconfig")[1] == []
    assert (real.objtree / ".config").exists()
    output, calls = real.make("-s", "KLP_CHECKSUMS=1", "kernelversion")
    assert (len(output.split()), calls) == (1, [])


def test_a_build_of_nothing_but_a_generated_header(real: RealTree) -> None:
    """An unknown goal counts as one that builds; klp goals come after it."""
    goal = "include/generated/utsrelease.h"
    output, calls = real.make("-j2", "KLP_CHECKSUMS=1", goal, "klp-base")
    assert calls == [f"checksum --built {real.objtree} --goals {goal}", f"base {real.objtree}"]
    assert "  UPD     include/generated/utsrelease.h\n" in output
    assert "  KLP     checksums\n" in output
    # Switched off and on again, nothing is made again.
    for value in ("0", "1"):
        assert "UPD" not in real.make("-j2", f"KLP_CHECKSUMS={value}", goal)[0]


def test_clean_leaves_nothing(real: RealTree) -> None:
    names = (".fork.o.klp.cmd", ".klp-queue.tmp", ".klp-lock.tmp", "klp-checksums.klp")
    (real.objtree / "kernel").mkdir(exist_ok=True)
    for name in names:
        (real.objtree / name).touch()
        (real.objtree / "kernel" / name).touch()
    (real.objtree / "kernel" / "klp-checksums.klp").unlink()
    real.make("-s", "clean")
    assert list(real.objtree.rglob("*klp*")) == []
