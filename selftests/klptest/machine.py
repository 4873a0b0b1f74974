# SPDX-License-Identifier: GPL-2.0-only
"""A virtual machine that boots a kernel, runs commands in it, and tells what they printed.

QEMU emulates the processor, so that it works without root and inside other machines; busybox is all of user space. The
kernel's messages stay off the console until it panics: what arrives there is what the commands print.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from klptest import TroubleError
from klptest.host import OPTIONAL

QEMU = "qemu-system-x86_64"
BUSYBOX = "busybox"

_MARK = "@@klptest"

# Modules and scripts of tests are in /t, each command as /t/N in a shell of its own. A command that was killed or that
# never ends says so by what is missing. A kernel without ACPI cannot power off; with -no-reboot this ends QEMU, too.
_INIT = f"""#!/bin/sh
/bin/busybox mkdir -p /sbin /usr/bin /usr/sbin /proc /sys /dev /tmp
/bin/busybox --install -s
export PATH=/bin:/sbin:/usr/bin:/usr/sbin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mount -t debugfs debug /sys/kernel/debug 2>/dev/null
mount -t tracefs trace /sys/kernel/tracing 2>/dev/null
cd /t
number=0
while [ -e "steps/$number" ]; do
	echo "{_MARK} begin $number"
	sh -c '. ./functions; . "$1"' sh "./steps/$number" 2>&1 </dev/null
	status=$?
	echo
	echo "{_MARK} end $number $status"
	number=$((number + 1))
done
echo "{_MARK} off"
reboot -f
"""

# What commands may use besides busybox. The times are generous: the emulated processor is slow, and may be shared.
_FUNCTIONS = """
wait_transition() {
	for _ in $(seq 600); do
		[ -e "/sys/kernel/livepatch/$1" ] || return 0
		[ "$(cat "/sys/kernel/livepatch/$1/transition")" = 0 ] && return 0
		sleep 0.1
	done
	echo "the transition of $1 does not end"
	return 1
}
load() {
	insmod "$1.ko" || return 1
	name=$(echo "$1" | tr - _)
	wait_transition "$name" || return 1
	[ "$(cat "/sys/kernel/livepatch/$name/enabled")" = 1 ]
}
module() {
	for file in $(sed -n "s/^$1: //p" depends); do
		[ -e "/sys/module/$(basename "$file" .ko | tr - _)" ] || insmod "$file" || return 1
	done
}
gone() {
	for _ in $(seq 600); do
		[ -e "/sys/kernel/livepatch/$1" ] || return 0
		sleep 0.1
	done
	echo "$1 does not go"
	return 1
}
unload() {
	name=$(echo "$1" | tr - _)
	echo 0 >"/sys/kernel/livepatch/$name/enabled" || return 1
	gone "$name" && rmmod "$name"
}
"""


@dataclass(frozen=True)
class Output:
    """What one command printed, and its exit status: None if it did not end."""

    text: str
    status: int | None


def why_not() -> str:
    """Return why there can be no virtual machine here; empty if there can."""
    missing = [requirement.package for requirement in OPTIONAL if not requirement.is_met()]
    return f"not installed: {' '.join(missing)}" if missing else ""


def run_in_machine(
    image: Path, commands: Sequence[str], files: Mapping[str, Path], *, timeout: float, log: Path
) -> list[Output]:
    """Boot a bzImage, run shell commands one after the other, power off, and return what each of them printed.

    ``files`` are put where the commands start, under the names given. Whatever came over the serial line is added to
    the log. After ``timeout`` seconds, or an interrupt, the machine is killed: then the commands from the one that
    hung on have no status. Raises TroubleError if not even the first command began.
    """
    entries: dict[str, bytes] = {name: path.read_bytes() for name, path in files.items()}
    entries["functions"] = _FUNCTIONS.encode()
    entries["depends"] = _dependencies(entries).encode()
    entries.update({f"steps/{number}": f"{command}\n".encode() for number, command in enumerate(commands)})
    with tempfile.TemporaryDirectory(prefix="klptest-") as directory:
        initramfs = Path(directory, "initramfs.cpio")
        initramfs.write_bytes(_initramfs(entries))
        console = Path(directory, "console")
        _boot(image, initramfs, console, timeout)
        text = console.read_bytes().decode(errors="replace").replace("\r", "")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        file.write(text)
    outputs = [_output_of(text, number) for number in range(len(commands))]
    if f"{_MARK} begin 0" not in text:
        last = "\n".join(text.splitlines()[-20:])
        raise TroubleError(f"{image}: did not come up within {timeout:.0f} s\n{last}")
    return outputs


def _dependencies(files: Mapping[str, bytes]) -> str:
    """Return a line for each module: its name, and the files to load for it, in order (``depends`` in .modinfo)."""
    names = {name.removesuffix(".ko").replace("-", "_"): name for name in files if name.endswith(".ko")}
    needs: dict[str, list[str]] = {}
    for name, file in names.items():
        found = re.search(rb"\0depends=([^\0]*)\0", files[file])
        needs[name] = [need.replace("-", "_") for need in found[1].decode().split(",") if need] if found else []

    def in_order(name: str) -> Iterator[str]:
        for need in needs.get(name, ()):
            yield from in_order(need)
        yield name

    return "".join(f"{name}: {' '.join(names[it] for it in in_order(name) if it in names)}\n" for name in names)


def _boot(image: Path, initramfs: Path, console: Path, timeout: float) -> None:
    """Run QEMU until the machine is off, or the time is over."""
    command = [
        # One thread for both processors: with two, one may still run an int3 that the other has replaced long since
        # (arch/x86/kernel/alternative.c, text_poke_bp_batch), which QEMU keeps translated.
        *(QEMU, "-accel", "tcg,thread=single", "-cpu", "max", "-m", "512"),
        # Without ACPI a kernel looks in the BIOS's MP table, which has one processor of each socket.
        *("-smp", "2,sockets=2"),
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-serial", f"file:{console}"),
        *("-kernel", str(image), "-initrd", str(initramfs)),
        # What looks whether the timer ticks gives up on a machine that is too busy to emulate it in time.
        *("-append", "console=ttyS0 loglevel=1 panic=-1 oops=panic random.trust_cpu=on no_timer_check"),
    ]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        said, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        return
    finally:
        process.kill()
        process.wait()
    if process.returncode:
        raise TroubleError(f"{QEMU}: exit status {process.returncode}\n{said.decode(errors='replace').rstrip()}")


def _output_of(console: str, number: int) -> Output:
    """Cut one command's output out of what the console said."""
    _, begun, rest = console.partition(f"{_MARK} begin {number}\n")
    if not begun:
        return Output("", None)
    text, ended, rest = rest.partition(f"\n{_MARK} end {number} ")
    return Output(text.strip("\n"), int(rest.split("\n", 1)[0]) if ended else None)


def _initramfs(entries: Mapping[str, bytes]) -> bytes:
    """Return an archive of busybox, /init, and the given files in /t (cpio "newc", buffer-format.rst)."""
    busybox = shutil.which(BUSYBOX)
    assert busybox is not None
    archive = _Archive()
    for directory in ("bin", "dev", "t", "t/steps"):
        archive.add(directory, 0o040755)
    # The first program has no standard files without it.
    archive.add("dev/console", 0o020600, device=(5, 1))
    archive.add("bin/busybox", 0o100755, Path(busybox).read_bytes())
    archive.add("bin/sh", 0o120777, b"busybox")
    archive.add("init", 0o100755, _INIT.encode())
    for name, content in entries.items():
        archive.add(f"t/{name}", 0o100755, content)
    return archive.finish()


class _Archive:
    """Writes what Documentation/driver-api/early-userspace/buffer-format.rst describes."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._number = 0

    def add(self, name: str, mode: int, content: bytes = b"", *, device: tuple[int, int] = (0, 0)) -> None:
        """Append a file, directory, symbolic link or device."""
        self._number += 1
        encoded = name.encode() + b"\0"
        fields = (self._number, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(encoded), 0)
        head = b"070701" + b"".join(b"%08X" % field for field in fields)
        for part in (head + encoded, content):
            self._parts.append(part + bytes(-len(part) % 4))

    def finish(self) -> bytes:
        """Return the archive."""
        self.add("TRAILER!!!", 0)
        return b"".join(self._parts)
