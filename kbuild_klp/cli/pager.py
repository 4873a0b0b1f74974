# SPDX-License-Identifier: GPL-2.0-only
"""The pager, as in git: for answers that are longer than the screen."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain

from kbuild_klp.errors import ProgramError
from kbuild_klp.processes import FedProgram

NO_PAGER_HELP = "print a long answer as it is, not through KLP_PAGER, PAGER or less"

_COLOUR = re.compile(r"\x1b\[[\d;]*m")
# If all of it fits, leave; show colours; leave the text on the screen. git's default.
_LESS = "FRX"
_NOT_RUN = (126, 127)  # what sh says of a command that it cannot run


def add_pager_option(parser: argparse.ArgumentParser) -> None:
    """Declare --no-pager for a command; it may also stand before the command."""
    parser.add_argument("--no-pager", dest="pager", action="store_false", default=argparse.SUPPRESS, help=NO_PAGER_HELP)


def show(lines: Iterable[str], paged: bool, when_paged: Callable[[], None] = lambda: None) -> None:
    """Print the lines of an answer, through the pager if they are more than the terminal has.

    ``when_paged`` is called before the pager takes the terminal. When the user leaves the pager, no more lines are
    computed.
    """
    rest = iter(lines)
    taken: list[str] = []
    command = _command() if paged and sys.stdout.isatty() else ""
    if command:
        try:
            is_long = _fills_the_screen(rest, taken)
        except BaseException:  # what comes before an error is printed, too
            _print(taken)
            raise
        if is_long:
            when_paged()
            if _page(command, taken, rest):
                return
    _print(chain(taken, rest))


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        print(line)


def _command() -> str:
    """Return the user's pager as a shell command, as POSIX says of PAGER; empty if none is wanted."""
    if os.environ.get("TERM", "dumb") == "dumb":
        return ""
    for name in ("KLP_PAGER", "PAGER"):
        if (wanted := os.environ.get(name)) is not None:
            return "" if wanted.strip() in ("", "cat") else wanted
    return "less" if shutil.which("less") else ""


def _fills_the_screen(lines: Iterator[str], taken: list[str]) -> bool:
    """Move lines to ``taken`` until there are more than fit above the next prompt; returns whether there are."""
    screen = shutil.get_terminal_size()
    room = screen.lines - 1
    for line in lines:
        taken.append(line)
        room -= max(1, -(-len(_COLOUR.sub("", line)) // screen.columns))
        if room < 0:
            return True
    return False


def _page(command: str, taken: list[str], rest: Iterator[str]) -> bool:
    """Show lines in the pager until there are no more, or the user leaves. Lines of ``rest`` are moved to ``taken``.

    Returns whether the pager could be run; if not, nothing was shown.
    """
    sys.stdout.flush()
    with _interrupts_ignored():
        try:
            pager = FedProgram(["sh", "-c", command], {"LESS": _LESS, **os.environ})
        except (ProgramError, ModuleNotFoundError):
            return False
        try:
            with suppress(BrokenPipeError):
                for line in taken:
                    pager.write(f"{line}\n")
                for line in rest:
                    taken.append(line)
                    pager.write(f"{line}\n")
        finally:
            status = pager.finish()
        return status not in _NOT_RUN


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Leave Ctrl-C to the pager, where it stops a search.

    With a handler that does nothing: programs that are started would inherit SIG_IGN.
    """
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
