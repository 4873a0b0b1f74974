# SPDX-License-Identifier: GPL-2.0-only
"""Which Python make runs: one that has what we need, wherever kbuild-klp was installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fake_kernel import MAKEFILE_KLP, REPOSITORY, FakeKernel, make_fake_kernel
from samples import compile_object

from kbuild_klp import processes

PYTHON = REPOSITORY / "kbuild_klp" / "kbuild" / "python"


class Place:
    """A package without a line of Python in ``root``, and interpreters that say who they are."""

    def __init__(self, directory: Path, root: str = "checkout") -> None:
        self.directory = directory
        self.root = directory / root
        self.path = directory / "path"
        self.path.mkdir(exist_ok=True)
        target = self.root / "kbuild_klp" / "kbuild" / "python"
        target.parent.mkdir(parents=True)
        shutil.copy2(PYTHON, target)
        shutil.copy2(MAKEFILE_KLP, self.root)
        self.script = target
        self.interpreter("path/python3", "system")

    def interpreter(self, name: str, says: str) -> Path:
        return self.file(name, f'#!/bin/sh\necho "{says} $PYTHONPATH $KLP_PYTHON $*"\n')

    def file(self, name: str, text: str) -> Path:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
        return path

    def run(self, shell: str = "sh", **environment: str) -> str:
        """Run the stand-in; returns which interpreter it took."""
        done = subprocess.run(
            [shell, self.script, "-m", "x", "a b"], capture_output=True, text=True, check=True,
            env={"PATH": f"{self.path}:/usr/bin:/bin", **environment},
        )  # fmt: skip
        assert done.stderr == ""
        says, path, exported, arguments = done.stdout.rstrip().split(" ", 3)
        assert (path, arguments) == (str(self.root), "-m x a b")
        assert Path(shutil.which(exported, path=str(self.path)) or exported).read_text().split()[2].strip('"') == says
        return says


def installed_command(place: Place, first_lines: str) -> None:
    """Put a command kbuild-klp into PATH, as an installer does: a symbolic link to it."""
    place.file("tools/kbuild-klp", f"{first_lines}\nimport sys\n")
    (place.path / "kbuild-klp").unlink(missing_ok=True)
    (place.path / "kbuild-klp").symlink_to(place.directory / "tools/kbuild-klp")


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_the_first_that_is_there(tmp_path: Path, shell: str) -> None:
    """Each of these is where somebody has numpy and xxhash, and the next one has not."""
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell}")
    place = Place(tmp_path)
    assert place.run(shell) == "system"
    installed_command(place, f"#!{place.interpreter('tools/python3.13', 'pipx')}")
    assert place.run(shell) == "pipx"
    place.interpreter("checkout/.venv/bin/python", "venv")
    assert place.run(shell) == "venv"
    mine = place.interpreter("mine", "named")
    assert place.run(shell, KLP_PYTHON=str(mine)) == "named"
    assert place.run(shell, KLP_PYTHON="") == "venv"


@pytest.mark.parametrize("packages", ["lib/python3.11/site-packages", "lib/python3/dist-packages"])
def test_a_package_in_an_environment_is_run_by_that(tmp_path: Path, packages: str) -> None:
    """`kbuild-klp status --makefile` names the Makefile.klp in there."""
    place = Place(tmp_path, f"environment/{packages}")
    installed_command(place, f"#!{place.interpreter('tools/python3', 'pipx')}")
    assert place.run() == "pipx"
    place.interpreter("environment/bin/python3", "environment")
    assert place.run() == "environment"


def test_an_environment_that_has_gone(tmp_path: Path) -> None:
    """After an upgrade of the system's Python, .venv/bin/python is a link to nothing, and so may be a command's."""
    place = Place(tmp_path)
    (place.root / ".venv/bin").mkdir(parents=True)
    (place.root / ".venv/bin/python").symlink_to("/no/such/python3.9")
    installed_command(place, "#!/no/such/python3.9")
    assert place.run() == "system"


@pytest.mark.parametrize(
    "lines",
    [
        "#!{python}",
        "#! {python}",
        "#!{python} -sP",
        "#!/bin/sh\n'''exec' {python} \"$0\" \"$@\"\n' '''",
        "#!/bin/sh\n'''exec' \"{python}\" \"$0\" \"$@\"\n' '''",
        "#!/bin/sh\n'''exec' '{python}' \"$0\" \"$@\"\n' '''",
        "#!/bin/sh\n'''exec' \"{spaces}\" \"$0\" \"$@\"\n' '''",
    ],
)
@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_commands_as_installers_write_them(tmp_path: Path, lines: str, shell: str) -> None:
    """pip and distributions name the interpreter in the first line, with options; where that is no line, as here."""
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell}")
    place = Place(tmp_path)
    python = place.interpreter("tools/python3", "pipx")
    spaces = place.directory / "a b" / "python3"
    spaces.parent.mkdir()
    spaces.symlink_to(python)
    installed_command(place, lines.format(python=python, spaces=spaces))
    done = subprocess.run(
        [shell, place.script], capture_output=True, text=True, env={"PATH": f"{place.path}:/usr/bin:/bin"}
    )
    assert done.stdout.startswith("pipx ") and done.stderr == ""


@pytest.mark.parametrize(
    "lines",
    ["#!/usr/bin/env python3", "#!/usr/bin/env bash", "#!/bin/bash", "#!/bin/sh\nexec x", "#!/bin/sh", "", "\x7fELF\0"],
)
def test_commands_that_name_no_interpreter(tmp_path: Path, lines: str) -> None:
    """A shim of pyenv, say: run as a Python, it would be a shell that is given Python's options."""
    place = Place(tmp_path)
    installed_command(place, lines)
    assert place.run() == "system"


# -- through make -----------------------------------------------------------------------------------------------------

_LOGS = '#!/bin/sh\necho "klp: ${0##*/} $*" >>"$LOG"\n'


@pytest.fixture
def kernel(tmp_path: Path) -> FakeKernel:
    return make_fake_kernel(tmp_path, "new")


def test_make_passes_the_name_on(kernel: FakeKernel, tmp_path: Path) -> None:
    place = Place(tmp_path)
    name = f"KLP_PYTHON={place.file('mine', _LOGS)}"
    makefile = f"MAKEFILES={place.root}/Makefile.klp"
    result = kernel.make(makefile, "klp-checksums", name, KBUILD_KLP="")
    assert result.calls == [f"mine -m kbuild_klp checksum {kernel.source}"]
    result = kernel.make(makefile, "KLP_CHECKSUMS=1", name, KBUILD_KLP="")
    assert result.calls == [f"mine -m kbuild_klp checksum --built {kernel.source}"]


def test_make_leaves_the_choice_to_the_stand_in(kernel: FakeKernel, tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.file("checkout/.venv/bin/python", _LOGS)
    result = kernel.make(f"MAKEFILES={place.root}/Makefile.klp", "klp-checksums", KBUILD_KLP="")
    assert result.calls == [f"python -m kbuild_klp checksum {kernel.source}"]


def test_a_python_that_is_not_there_does_not_break_a_build(kernel: FakeKernel) -> None:
    arguments = ("KLP_PYTHON=/no/such/python", "KLP_CHECKSUMS=1")
    result = kernel.plug_in(*arguments, KBUILD_KLP="")
    assert (result.status, result.built) == (0, ["vmlinux"])
    reason = "no checksums were written: there is no Python /no/such/python; KLP_PYTHON= names another\n"
    assert f"kbuild-klp: warning: {reason}" in result.output
    assert kernel.plug_in(*arguments, "KLP_CHECKSUMS=strict", KBUILD_KLP="").status == 2
    assert kernel.plug_in(*arguments, "klp-diff", KBUILD_KLP="").status == 2


def test_nobody_is_looked_for_until_there_is_something_to_do(kernel: FakeKernel, tmp_path: Path) -> None:
    """Every make of a build reads Makefile.klp. It would start a shell in each of them."""
    place = Place(tmp_path)
    shell = place.file("shell", '#!/bin/sh\ncase "$2" in *kbuild_klp*) echo "klp: $2" >>"$LOG" ;; esac\nexec sh "$@"\n')
    arguments = (f"MAKEFILES={place.root}/Makefile.klp", f"SHELL={shell}", "KLP_CHECKSUMS=1")
    assert kernel.make(*arguments, "kernelversion", KBUILD_KLP="").calls == []
    assert len(kernel.make(*arguments, "vmlinux", KBUILD_KLP="").calls) == 1


# -- what a failure says ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("known", [True, False])
def test_a_missing_package_names_the_python_that_lacks_it(tmp_path: Path, known: bool) -> None:
    """ "xxhash is missing; install kbuild-klp again" was said to people who had just installed it, elsewhere."""
    compile_object("int f(void) { return 1; }", tmp_path / "a.o")
    bare = tmp_path / "bare"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')
    bare.chmod(0o755)
    command = [PYTHON] if known else [bare]
    environment = {**os.environ, "KLP_PYTHON": str(bare), "PYTHONPATH": ""}
    if not known:
        del environment["KLP_PYTHON"]
        environment["PYTHONPATH"] = str(REPOSITORY)
    done = subprocess.run(
        [*command, "-m", "kbuild_klp", "checksum", "a.o"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    other = ", or name another Python with KLP_PYTHON=" if known else ""
    (line,) = done.stderr.splitlines()
    package = line.split()[3]
    assert package in ("numpy", "xxhash")
    expected = f"kbuild-klp: Python package {package} is missing in {sys.executable}; install kbuild-klp there{other}"
    assert (done.returncode, line) == (2, expected)


_OLD = """
import runpy, sys
sys.version_info, sys.version = (3, 9, 2), "3.9.2 (default)"
runpy.run_module("kbuild_klp", run_name="__main__")
"""


def test_a_python_that_is_too_old_says_so() -> None:
    """Debian 11's python3. Without this its answer is a syntax that it does not know."""
    done = subprocess.run(
        [sys.executable, "-c", _OLD, "--version"], capture_output=True, text=True,
        env={**os.environ, "KLP_PYTHON": "python3", "PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    says = f"kbuild-klp: {sys.executable} is Python 3.9.2, and 3.10 is needed; name another with KLP_PYTHON=\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", says)


def test_the_stand_in_really_runs_the_package() -> None:
    """Of this checkout, with all that it needs, from anywhere and whatever the environment."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    found = processes.run(
        [PYTHON, "-c", "import kbuild_klp as k; print(*k.__path__)"], cwd="/", environment=environment
    )
    assert found == f"{REPOSITORY / 'kbuild_klp'}\n"
