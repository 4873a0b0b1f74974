# SPDX-License-Identifier: GPL-2.0-only
"""``kbuild-klp extract``: write the changed functions of an object to a new one."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from kbuild_klp.cli.exit_status import ExitStatus
from kbuild_klp.cli.messages import complain
from kbuild_klp.cli.options import add_json, add_without

if TYPE_CHECKING:
    from kbuild_klp.extract.extraction import Extraction

DOCUMENT_VERSION = 1

_ABOUT = """
OUT.o holds the functions that differ, each in a section of its own, byte for byte as in NEW.o, with the new functions
and data that they need, strings and other data without a name, and their entries in special sections. What OLD.o has
is the running kernel's: an undefined symbol under its name in OLD.o, for klp-convert or a linker script of your own;
--json says which of these are local in OLD.o. What differs and cannot be carried is named with the reason, and then no
file is written. Exit status: 0 written, 1 nothing differs that could be carried, 2 trouble, or something cannot be
carried.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.epilog = _ABOUT
    parser.add_argument("old", metavar="OLD.o", help="the object of the running kernel, or its module")
    parser.add_argument("new", metavar="NEW.o", help="the same with the fix, built with the same settings")
    parser.add_argument("-o", "--output", metavar="OUT.o", required=True, help="the object to write")
    add_without(parser)
    add_json(parser)


def document(found: Extraction, output: str) -> dict[str, Any]:
    """Return what came of it as data."""
    return {
        "version": DOCUMENT_VERSION,
        "output": output if found.is_written else None,
        "carried": [item._asdict() for item in found.carried],
        "refused": [refusal.as_data() for refusal in found.refused],
        "left_out": list(found.left_out),
        "not_needed": list(found.not_needed),
        "undefined": [item._asdict() for item in found.outside],
        "relocations": found.relocations,
        "warnings": list(found.warnings),
    }


def _print(found: Extraction, output: str) -> None:
    for carried in found.carried:
        name = carried.symbol or "without a name"
        print(f"carried   {carried.kind:<9} {name}  {carried.size} bytes in {carried.section}: {carried.why}")
    for label, names in (("left out", found.left_out), ("not needed", found.not_needed)):
        for name in names:
            print(f"{label:<9} {name}")
    for symbol in (it for it in found.outside if it.is_local):
        print(f"local     {symbol.symbol}  of the old object{f' ({symbol.file})' if symbol.file else ''}")
    if found.is_written:
        functions = f"{found.functions} function{'s' * (found.functions != 1)}"
        print(f"{output}: {functions}, {found.relocations} relocations, checked")
    elif not found.refused:
        print("nothing differs that could be carried")


def main(arguments: argparse.Namespace) -> int:
    """Run the command; raises KlpError."""
    from kbuild_klp.extract.extraction import extract

    found = extract(arguments.old, arguments.new, arguments.output, arguments.without)
    if arguments.json:
        print(json.dumps(document(found, arguments.output), indent=1))
    else:
        complain(found.warnings)
        _print(found, arguments.output)
    complain(f"cannot carry {refusal.symbol}: {refusal.reason}" for refusal in found.refused)
    if found.refused:
        return ExitStatus.FAILED
    return ExitStatus.SAME if found.is_written else ExitStatus.DIFFERS
