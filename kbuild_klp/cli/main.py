# SPDX-License-Identifier: GPL-2.0-only
"""The command line: runs the command, and is the only place that prints an error and exits."""

from __future__ import annotations

import argparse
import errno
import gc
import io
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from typing import NoReturn

from kbuild_klp import __version__
from kbuild_klp.cli.exit_status import ExitStatus
from kbuild_klp.cli.pager import NO_PAGER_HELP
from kbuild_klp.errors import KlpError

# Errors of writing. Without a file name they are about standard output: errors of files are raised with their names.
_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)

_COMMANDS = {
    "checksum": "write the checksum files of objects that have none or an old one",
    "diff": "say which functions and data differ between two builds",
    "explain": "show where one function differs, instruction by instruction",
    "extract": "write the changed functions of an object to a new one",
    "patch": "make a livepatch module of what differs between two builds",
    "export": "join the checksums of a tree into one archive",
    "base": "keep the present state of a tree to compare with later",
    "install": "add the include points to a kernel tree",
    "uninstall": "take the include points out again",
    "status": "say what is installed in a tree and which checksums are there",
}


def _parser(command: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kbuild-klp",
        description="Checksums of every function of a kernel build, and what changed between two builds.",
        epilog="Exit status: 0 no change, 1 changes, 2 trouble.",
    )
    parser.add_argument("--version", action="version", version=f"kbuild-klp {__version__}")
    parser.add_argument("--no-pager", dest="pager", action="store_false", help=NO_PAGER_HELP)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, text in _COMMANDS.items():
        subparser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        # One command's modules are imported, not those of all: make starts this program after every build.
        if name == command:
            module = import_module(f"kbuild_klp.cli.{name}")
            module.add_arguments(subparser)
            subparser.set_defaults(main=module.main)
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run one command; returns the exit status."""
    command = next((argument for argument in arguments if argument in _COMMANDS), None)
    try:
        try:
            parsed = _parser(command).parse_args(arguments)
            status: int = parsed.main(parsed)
        finally:
            sys.stdout.flush()  # also after --help: at the interpreter's exit errors cannot be handled any more
        return status
    except KlpError as error:
        print(f"kbuild-klp: {error}", file=sys.stderr)
    except BrokenPipeError:
        _drop_output()  # the reader of our output is gone (| head)
    except KeyboardInterrupt:
        print("kbuild-klp: interrupted", file=sys.stderr)
        return ExitStatus.INTERRUPTED
    except OSError as error:
        place = "standard output: " if error.errno in _WRITING else ""
        place = f"{error.filename}: " if error.filename else place
        print(f"kbuild-klp: {place}{error.strerror or error}", file=sys.stderr)
        _drop_output()
    except ModuleNotFoundError as error:
        # kbuild/python, which chose the interpreter, leaves this behind.
        other = ", or name another Python with KLP_PYTHON=" if os.environ.get("KLP_PYTHON") else ""
        missing = f"Python package {error.name} is missing in {sys.executable}"
        print(f"kbuild-klp: {missing}; install kbuild-klp there{other}", file=sys.stderr)
    except MemoryError:
        print("kbuild-klp: out of memory", file=sys.stderr)
    except Exception as error:
        if os.environ.get("KLP_DEBUG"):
            raise
        print(
            f"kbuild-klp: internal error: {type(error).__name__}: {error}; please report it, with KLP_DEBUG=1 set",
            file=sys.stderr,
        )
    return ExitStatus.FAILED


def _drop_output() -> None:
    """Drop output that cannot be written (a closed pipe, a full disk), or the interpreter's exit fails, too."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _open_what_is_closed() -> None:
    """Open the standard streams that somebody closed (>&-), or the next opened file would take their place."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))


def run() -> NoReturn:
    """Entry point of the command."""
    _open_what_is_closed()
    # numpy's OpenBLAS starts a thread for each processor when it is imported. We multiply no matrices.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # File and symbol names are bytes; the terminal's encoding may have no characters for them.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    gc.disable()  # one command and the end: cyclic garbage is not worth a walk over all objects
    status = main(sys.argv[1:])
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    # What the interpreter would tidy up object by object, the system has back at once.
    os._exit(status)
