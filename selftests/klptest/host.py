# SPDX-License-Identifier: GPL-2.0-only
"""What the machine has to have: packages, and a Python environment beside pyproject.toml."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from klptest import TroubleError
from klptest.console import Step, run

CHECKOUT = Path(__file__).resolve().parents[2]
VENV = CHECKOUT / ".venv"
_DEBIAN_SOURCES = Path("/usr/src")
_DEFAULT_SOURCE = "linux-source-6.12"
_PT_INTERP = 3  # elf.h


@dataclass(frozen=True)
class Requirement:
    """Something a kernel build needs: Debian's name of the package, and how to see whether it is there."""

    package: str
    is_met: Callable[[], bool]


def _command(name: str) -> Callable[[], bool]:
    # Not everybody has depmod's directory in PATH; kbuild looks there by itself.
    return lambda: shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is not None


def _header(name: str) -> Callable[[], bool]:
    return lambda: _succeeds("gcc", "-E", "-include", name, "-x", "c", os.devnull)


REQUIREMENTS = (
    Requirement("gcc", _command("gcc")),
    Requirement("make", _command("make")),
    Requirement("libc6-dev", _header("stdlib.h")),
    Requirement("git", _command("git")),
    Requirement("flex", _command("flex")),
    Requirement("bison", _command("bison")),
    Requirement("bc", _command("bc")),
    Requirement("cpio", _command("cpio")),
    Requirement("kmod", _command("depmod")),
    Requirement("rsync", _command("rsync")),
    Requirement("xz-utils", _command("xz")),
    Requirement("libelf-dev", _header("gelf.h")),
    Requirement("libssl-dev", _header("openssl/evp.h")),
    Requirement("python3-venv", lambda: _succeeds(sys.executable, "-c", "import ensurepip")),
)

# What LLVM= takes beside these (Documentation/kbuild/llvm.rst); LLVM=1 and LLVM=-19 are Debian's.
_LLVM = (("clang", "clang"), ("lld", "ld.lld"), ("llvm", "llvm-ar"))

# Without these there is no virtual machine, and the tests that want one are skipped.
OPTIONAL = (
    Requirement("qemu-system-x86", _command("qemu-system-x86_64")),
    Requirement("busybox-static", lambda: is_static("busybox")),
)


def kernel_source() -> tuple[Path, str]:
    """Return the tarball or directory that KSRC says, and the Debian package it comes from, if it comes from one.

    KSRC may be a path or the name of a package; without it Debian's linux-source-6.12 is taken.
    """
    name = os.environ.get("KSRC") or _DEFAULT_SOURCE
    if re.fullmatch(r"linux-source-[0-9.]+", name) and not Path(name).exists():
        return _DEBIAN_SOURCES / f"{name}.tar.xz", name
    return Path(name).absolute(), ""


def _llvm() -> tuple[Requirement, ...]:
    llvm = os.environ.get("LLVM", "")
    if not llvm or llvm.endswith("/"):
        return ()
    suffix = llvm if llvm.startswith("-") else ""
    return tuple(Requirement(f"{package}{suffix}", _command(f"{command}{suffix}")) for package, command in _LLVM)


def _succeeds(*command: str) -> bool:
    if shutil.which(command[0]) is None:
        return False
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode == 0


def is_static(program: str) -> bool:
    """Whether a program in PATH runs without a dynamic linker; False if it is not there (Elf64_Phdr, PT_INTERP)."""
    path = shutil.which(program)
    if path is None:
        return False
    head = Path(path).read_bytes()[:4096]
    if head[:5] != b"\x7fELF\x02":
        return False
    (offset,) = struct.unpack_from("<Q", head, 32)
    size, count = struct.unpack_from("<HH", head, 54)
    return all(struct.unpack_from("<I", head, offset + size * row)[0] != _PT_INTERP for row in range(count))


def _missing(requirements: tuple[Requirement, ...]) -> list[str]:
    return [requirement.package for requirement in requirements if not requirement.is_met()]


def install_packages(step: Step, log: Path) -> None:
    """Install what is missing, with apt; raises TroubleError where there is no apt or no way to become root."""
    if platform.machine() != "x86_64":
        raise TroubleError(f"this machine is {platform.machine()}; the demo builds and reads x86_64 kernels")
    source, package = kernel_source()
    requirements = (*REQUIREMENTS, *_llvm(), *([Requirement(package, source.exists)] if package else ()))
    missing = _missing(requirements)
    wanted = _missing(OPTIONAL)
    if not missing and not wanted:
        step.say("nothing is missing")
        return
    if missing:
        step.say(f"missing: {' '.join(missing)}")
        _apt_install(missing, log)
        missing = _missing(requirements)
        if missing:
            raise TroubleError(f"installed, but still not found: {' '.join(missing)} (see {log})")
    if wanted:
        step.say(f"missing, for tests in a virtual machine: {' '.join(wanted)}")
        try:
            _apt_install(wanted, log)
        except TroubleError as error:
            step.say(f"{str(error).splitlines()[0]}; these tests will be skipped")


def _apt_install(packages: list[str], log: Path) -> None:
    """Install packages; raises TroubleError."""
    if shutil.which("apt-get") is None:
        raise TroubleError(f"there is no apt here; please install what Debian calls {' '.join(packages)}")
    root = [] if os.geteuid() == 0 else ["sudo"]
    if root and shutil.which("sudo") is None:
        raise TroubleError(f"not root, and no sudo; please install {' '.join(packages)}")
    apt = [*root, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-o", "Dpkg::Use-Pty=0"]
    install = [*apt, "install", "-y", "--no-install-recommends", *packages]
    # Without package lists, or with outdated ones, the first attempt finds nothing.
    if run(install, log, check=False) != 0:
        run([*apt, "update"], log)
        run(install, log)


def make_venv(step: Step, log: Path, *, extra: str = "") -> None:
    """Create .venv in the checkout, or bring it up to date with pyproject.toml.

    Makefile.klp prefers this one to the system's Python. ``extra`` is an optional group of dependencies.
    """
    stamp = VENV / "klp-stamp"
    wanted = _venv_key(extra)
    if stamp.exists() and wanted in stamp.read_text().splitlines():
        step.say("up to date")
        return
    if not _succeeds(str(VENV / "bin/python"), "-c", "import pip"):
        shutil.rmtree(VENV, ignore_errors=True)
        run([sys.executable, "-m", "venv", VENV], log)
    where = f"{CHECKOUT}[{extra}]" if extra else str(CHECKOUT)
    run([VENV / "bin/python", "-m", "pip", "install", "--disable-pip-version-check", "-e", where], log)
    known = stamp.read_text().splitlines() if stamp.exists() else []
    # The environment with an extra serves those who do not need it, too.
    stamp.write_text("".join(f"{line}\n" for line in {*known, wanted, _venv_key("")}))


def _venv_key(extra: str) -> str:
    text = f"{sys.version} {extra}".encode() + (CHECKOUT / "pyproject.toml").read_bytes()
    return hashlib.sha256(text).hexdigest()
