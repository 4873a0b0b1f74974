# SPDX-License-Identifier: GPL-2.0-only
"""Options of several commands, each declared once, so that a name has one meaning and one help text."""

from __future__ import annotations

import argparse


def add_json(parser: argparse.ArgumentParser) -> None:
    """Declare --json."""
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def add_jobs(parser: argparse.ArgumentParser) -> None:
    """Declare -j."""
    text = "processes to read objects with (default: make's job slots, or all processors)"
    parser.add_argument("-j", "--jobs", type=_number_of_processes, metavar="N", help=text)


def _number_of_processes(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of processes")
    return int(text)


def add_quiet(parser: argparse.ArgumentParser) -> None:
    """Declare -q."""
    parser.add_argument("-q", "--quiet", action="store_true", help="say nothing unless something is wrong")


def add_kept(parser: argparse.ArgumentParser, arguments: str = "TREE") -> None:
    """Declare --kept, with which ``arguments`` are given."""
    text = f"give {arguments}: OLD is what `make klp-base` kept of that tree"
    parser.add_argument("--kept", action="store_true", help=text)


def add_patterns(parser: argparse.ArgumentParser, option: str, text: str) -> None:
    """Declare an option that takes a pattern and may be repeated."""
    text = f"{text}; as the shell matches, may be repeated"
    parser.add_argument(option, metavar="PATTERN", action="append", default=[], help=text)


def add_without(parser: argparse.ArgumentParser) -> None:
    """Declare --without."""
    add_patterns(parser, "--without", "leave out changes of symbols that match, or OBJECT:SYMBOL")


def add_built_tree(parser: argparse.ArgumentParser) -> None:
    """Declare the tree that a command is about."""
    parser.add_argument("tree", metavar="TREE", help="a build tree, or the directory of an external module")


def add_source_tree(parser: argparse.ArgumentParser, what: str = "kernel source tree") -> None:
    """Declare the source tree that a command is about, the current directory if none is given."""
    parser.add_argument("tree", metavar="TREE", nargs="?", default=".", help=f"{what} (default: .)")
