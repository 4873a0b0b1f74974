# SPDX-License-Identifier: GPL-2.0-only
"""Whatever happens on the way: one line, status 2, no module, and nothing that is left; and the next run works."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kbuild_klp.errors import KlpError
from kbuild_klp.module.work import working_directory

if TYPE_CHECKING:
    from module.conftest import PatchedKernels

UNIT = "kernel/unit.o"
_OLD = 'extern int printk(const char *, ...);\nint says(int x) { return printk("OLD") + x; }\n'


@pytest.fixture
def built(kernels: PatchedKernels) -> PatchedKernels:
    """Two trees whose checksums are there, and no module."""
    kernels.build({UNIT: _OLD}, {UNIT: _OLD.replace("OLD", "NEW")})
    kernels.prepare()
    assert kernels.patch().status == 0
    kernels.module.unlink()
    return kernels


def tools(built: PatchedKernels, without: str = "", **scripts: str) -> str:
    """Return a PATH with what a build needs, without one tool, or with scripts in the place of some."""
    directory = built.root / "tools"
    directory.mkdir(exist_ok=True)
    for name in ("make", "gcc", "as", "ld", "sh", "cat", "sleep", "kill", "rm"):
        found = shutil.which(name)
        if found and name != without and name not in scripts:
            (directory / name).symlink_to(found)
    for name, text in scripts.items():
        (directory / name).write_text(f"#!/bin/sh\n{text}\n")
        (directory / name).chmod(0o755)
    return str(directory)


def everything_but_tools(built: PatchedKernels) -> dict[str, bytes]:
    return {name: data for name, data in built.everything().items() if "/tools/" not in name}


_TROUBLES = [
    ("no make", {"without": "make"}, "make"),
    ("no gcc", {"without": "gcc"}, "the module build failed"),
    ("no ld", {"without": "ld"}, "the module build failed"),
    ("make fails", {"make": "echo 'cannot do that' >&2; exit 2"}, "cannot do that"),
    ("make makes nothing", {"make": "exit 0"}, "made no module"),
    ("make is killed", {"make": "kill -9 $$"}, "the module build failed"),
    (
        "make makes no module",
        {"make": 'for it; do case $it in M=*) echo x >"${it#M=}/livepatch-it.ko";; esac; done'},
        "",
    ),
    ("make makes an empty one", {"make": 'for it; do case $it in M=*) : >"${it#M=}/livepatch-it.ko";; esac; done'}, ""),
]


@pytest.mark.parametrize(("how", "message"), [it[1:] for it in _TROUBLES], ids=[it[0] for it in _TROUBLES])
def test_a_tool_that_is_missing_or_fails(built: PatchedKernels, how: dict[str, str], message: str) -> None:
    before = everything_but_tools(built)
    made = built.patch(PATH=tools(built, **how))
    assert (made.status, made.errors.count("\n")) == (2, 1) and message in made.errors, made.errors
    assert everything_but_tools(built) == before and not list(built.temporary.iterdir())
    assert built.patch().status == 0


# What scripts/mod/modpost.c says with KBUILD_MODPOST_WARN=1: up to 6.12, and in 7.3.
_EXPECTED = [
    'WARNING: modpost: ".klp.sym.vmlinux.it,0" [/tmp/livepatch-it.ko] undefined!',
    "WARNING: modpost: livepatch-it.ko: symbol '.klp.sym.vmlinux.it,0' undefined!",
    "WARNING: modpost: suppressed 3 unresolved symbol warnings because there were too many)",
]


def test_what_a_build_warns_of(built: PatchedKernels) -> None:
    """Symbols of livepatches are found when one is loaded; all others are worth a word."""
    other = "WARNING: modpost: livepatch-it.ko: symbol 'it' undefined!"
    (built.root / "said").write_text("\n".join([*_EXPECTED, other, ""]))
    make = f'cat {built.root}/said >&2; exec {shutil.which("make")} "$@"'
    made = built.patch(PATH=tools(built, make=make))
    assert made.status == 0, made.errors
    assert [line for line in made.answer["warnings"] if "modpost" in line] == [other]


@pytest.mark.parametrize("limit", [512, 2048, 4096])
def test_a_disk_that_is_full(built: PatchedKernels, limit: int) -> None:
    before = everything_but_tools(built)
    made = built.end(built.begin(limit=limit))
    assert (made.status, made.errors.count("\n")) == (2, 1), made.errors
    assert everything_but_tools(built) == before and not list(built.temporary.iterdir())
    assert built.patch().status == 0


def test_a_temporary_directory_that_is_full_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system names no file when a write fails."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with (
        pytest.raises(KlpError, match=rf"^{tmp_path}/kbuild-klp-\w+: No space left on device; name another .*TMPDIR$"),
        working_directory(),
        Path("/dev/full").open("w") as full,
    ):
        full.write("x")
        full.flush()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("output", "message"), [("nowhere/livepatch-it.ko", "No such file"), ("file/livepatch-it.ko", "Not a directory")]
)
def test_an_output_that_cannot_be_written(built: PatchedKernels, output: str, message: str) -> None:
    """It is known before anything is built."""
    (built.root / "file").write_text("")
    before = everything_but_tools(built)
    made = built.patch(output=("-o", output), PATH=tools(built, make="exit 3"))
    assert (made.status, made.errors.count("\n")) == (2, 1) and message in made.errors, made.errors
    assert everything_but_tools(built) == before


def test_what_the_trees_lack_is_said_before_they_are_compared(built: PatchedKernels) -> None:
    for tree, release in ((built.old, "6.12.0-test"), (built.new, "6.12.1")):
        tree.write("include/config/kernel.release", f"{release}\n")
    (built.new.root / UNIT).with_suffix(".c").touch()  # somebody went on writing, and did not run make
    made = built.patch()
    assert made.status == 0, "a point release has the fix"
    told = "new: kernel/unit.c is newer than its object; run make there, for objects are what is compared"
    assert told in made.answer["warnings"]
    made.module.unlink()
    (built.new.root / UNIT).write_bytes(b"no object: whoever reads it says so")
    built.new.write("include/config/kernel.release", "6.13.0\n")
    made = built.patch()
    assert made.errors == (
        "kbuild-klp: new: is Linux 6.13, old Linux 6.12; a livepatch is made of two builds of one source, "
        "without and with the fix\n"
    )
    built.new.write("include/config/kernel.release", "6.12.107\n")
    (built.old.root / "Module.symvers").unlink()
    made = built.patch()
    assert made.errors.endswith("/old: has no Module.symvers; run `make vmlinux modules` there\n")
    assert (made.status, made.errors.count("\n"), made.module.exists()) == (2, 1, False)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_run_that_is_ended(built: PatchedKernels, number: signal.Signals) -> None:
    before = everything_but_tools(built)
    mark = built.root / "tools" / "mark"
    path = tools(
        built, make=f"echo $$ >{mark}.new; mv {mark}.new {mark} 2>/dev/null; exec sleep 300", mv='exec /bin/mv "$@"'
    )
    running = built.begin(variables={"PATH": path})
    builder = _read(mark)
    running.send_signal(number)
    made = built.end(running)
    assert (made.status, made.errors.count("\n")) == (130 if number == signal.SIGINT else 2, 1), made.errors
    assert everything_but_tools(built) == before and not list(built.temporary.iterdir())
    assert not Path(f"/proc/{builder}/cmdline").exists()
    assert built.patch().status == 0


def test_a_run_that_is_killed(built: PatchedKernels) -> None:
    """Who is killed cannot clean up: the next one does, as soon as nobody can be about to begin in that directory."""
    before = everything_but_tools(built)
    mark = built.root / "tools" / "mark"
    path = tools(
        built, make=f"echo $$ >{mark}.new; mv {mark}.new {mark} 2>/dev/null; exec sleep 300", mv='exec /bin/mv "$@"'
    )
    running = built.begin(variables={"PATH": path})
    builder = _read(mark)
    running.kill()
    running.communicate()
    os.kill(builder, signal.SIGKILL)
    found = everything_but_tools(built)
    assert {name: data for name, data in found.items() if not name.startswith(str(built.temporary))} == before
    [left] = built.temporary.iterdir()
    os.utime(left, (1, 1))
    assert built.patch().status == 0
    assert not list(built.temporary.iterdir())


def test_two_runs_at_once_do_not_meet(built: PatchedKernels) -> None:
    runs = [built.begin(), built.begin()]
    made = [built.end(run) for run in runs]
    assert [it.status for it in made] == [0, 0]
    assert made[0].relocations and not list(built.temporary.iterdir())
    names = {path.name for path in built.root.iterdir()}
    assert names == {"old", "new", "tmp", built.module.name}


# -- signatures -------------------------------------------------------------------------------------------------------

_SIGN = f"""#!{sys.executable}
import sys
assert sys.argv[1:4] == ["sha256", "certs/signing_key.pem", "certs/signing_key.x509"], sys.argv
with open(sys.argv[4], "rb") as unsigned, open(sys.argv[5], "wb") as signed:
    signed.write(unsigned.read() + b"~Module signature appended~\\n")
"""


def prepare_to_sign(built: PatchedKernels, program: str = _SIGN) -> None:
    text = (
        'CONFIG_X86_64=y\nCONFIG_MODULES=y\nCONFIG_LIVEPATCH=y\nCONFIG_MODULE_SIG=y\nCONFIG_MODULE_SIG_HASH="sha256"\n'
    )
    for tree in (built.old, built.new):
        tree.write("include/config/auto.conf", text + 'CONFIG_MODULE_SIG_KEY="certs/signing_key.pem"\n')
    for name in ("certs/signing_key.pem", "certs/signing_key.x509"):
        built.old.write(name, "")
    built.old.write("scripts/sign-file", program).chmod(0o755)
    built.patch()
    built.module.unlink()


def test_a_module_is_signed_behind_everything_else(built: PatchedKernels) -> None:
    prepare_to_sign(built)
    before = everything_but_tools(built)
    assert built.patch().status == 0
    plain = built.module.read_bytes()
    assert built.patch("--sign").status == 0
    assert built.module.read_bytes() == plain + b"~Module signature appended~\n"
    built.module.unlink()
    assert everything_but_tools(built) == before


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("", "has no scripts/sign-file"),
        ("#!/bin/sh\necho 'no such key' >&2; exit 1\n", "no such key"),
        ('#!/bin/sh\ncp "$4" "$5"\n', "did not sign"),
        ("#!/bin/sh\nexit 0\n", "did not sign"),
    ],
)
def test_what_cannot_sign(built: PatchedKernels, program: str, message: str) -> None:
    prepare_to_sign(built, program or _SIGN)
    if not program:
        (built.old.root / "scripts/sign-file").unlink()
    made = built.patch("--sign")
    assert (made.status, made.errors.count("\n")) == (2, 1) and message in made.errors, made.errors
    assert not made.module.exists() and not list(built.temporary.iterdir())


def test_a_tree_that_signs_nothing(built: PatchedKernels) -> None:
    made = built.patch("--sign", PATH=tools(built, make="exit 3"))
    assert made.status == 2 and "CONFIG_MODULE_SIG" in made.errors


def _read(mark: Path) -> int:
    for _ in range(600):
        if mark.exists():
            return int(mark.read_text())
        time.sleep(0.1)
    raise AssertionError("the build did not begin")
