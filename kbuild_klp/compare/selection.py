# SPDX-License-Identifier: GPL-2.0-only
"""Which changes the user wants to hear of: filters of the command line, and of klp.toml in a tree.

What is filtered out is not lost: it is marked with the rule that did it, counted, and in the JSON document.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from kbuild_klp.changes.classification import Change
from kbuild_klp.checksum.entry import KIND_FUNCTION
from kbuild_klp.elf.symbol_names import canonical_name
from kbuild_klp.errors import KlpError

FILE_NAME = "klp.toml"
_KEYS = ("function", "object", "unit", "ignore")


@dataclass(frozen=True)
class Selection:
    """Shell patterns; of ``functions``, ``objects`` and ``units`` a change has to match one each, where there are any.

    ``ignores`` are patterns of symbols, or OBJECT:SYMBOL. ``origin`` says where they stand.
    """

    functions: tuple[str, ...] = ()
    objects: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    ignores: tuple[str, ...] = ()
    origin: str = "--"

    @classmethod
    def read(cls, directories: Iterable[Path]) -> Selection:
        """Read the first klp.toml in ``directories``, an empty selection where there is none; raises KlpError."""
        for directory in directories:
            file = directory / FILE_NAME
            try:
                document = _parse(file.read_text("utf-8"))
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                raise KlpError(error.strerror or str(error), file=file) from None
            except ValueError as error:  # UnicodeDecodeError and TOMLDecodeError are
                raise KlpError(f"is no TOML: {error}", file=file) from None
            _refuse_unknown(document, file)
            functions, objects, units, ignores = (_patterns(document, key, file) for key in _KEYS)
            return cls(functions, objects, units, ignores, f"{FILE_NAME}: ")
        return cls()

    def rule_against(self, name: str, units: Sequence[str], change: Change) -> str | None:
        """Return the rule by which a change of object ``name``, linked into ``units``, is left out; None: it is not."""
        symbols = names_of(change)
        for what, patterns, values in (
            ("unit", self.units, units),
            ("object", self.objects, (name,)),
        ):
            if patterns and not matches(patterns, values):
                return f"{self.origin}{what} {' '.join(patterns)}"
        if self.functions and not (change.kind == KIND_FUNCTION and matches(self.functions, symbols)):
            return f"{self.origin}function {' '.join(self.functions)}"
        for pattern in self.ignores:
            if matches(symbol_patterns((pattern,), name), symbols):
                return f"{self.origin}ignore {pattern}"
        return None

    def check(self, names: Iterable[str], units: Iterable[str]) -> None:
        """Refuse patterns of objects and units that are misspelt: nothing would be all they find."""
        for what, patterns, values in (("object", self.objects, list(names)), ("link unit", self.units, list(units))):
            for pattern in patterns:
                if not matches((pattern,), values):
                    raise KlpError(f"no {what} matches {pattern}", hint="patterns are those of the shell, as in 'fs/*'")


def _parse(text: str) -> dict[str, object]:
    # Not at the top: few trees have the file.
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    return tomllib.loads(text)


def matches(patterns: Iterable[str], values: Iterable[str]) -> bool:
    """Say whether any pattern is of any value."""
    return any(fnmatchcase(value, pattern) for pattern in patterns for value in values)


def names_of(change: Change) -> set[str]:
    """Return all names by which a pattern may mean what changed."""
    return {change.symbol, change.label, canonical_name(change.symbol).text, *change.aliases}


def symbol_patterns(patterns: Iterable[str], name: str) -> list[str]:
    """Return what patterns of symbols, or of OBJECT:SYMBOL, say of the symbols of object ``name``."""
    split = (pattern.rpartition(":") for pattern in patterns)
    return [symbol for place, colon, symbol in split if not colon or fnmatchcase(name, place)]


def _refuse_unknown(document: dict[str, object], file: Path) -> None:
    for key in document:
        if key not in _KEYS:
            raise KlpError(f"unknown key {key}", file=file, hint=f"there are {', '.join(_KEYS)}")


def _patterns(document: dict[str, object], key: str, file: Path) -> tuple[str, ...]:
    value = document.get(key, [])
    if not isinstance(value, list) or not all(isinstance(pattern, str) for pattern in value):
        raise KlpError(f"{key} is no list of strings", file=file, hint=f'for instance: {key} = ["ext4_*"]')
    return tuple(value)


def first_rule(selections: Sequence[Selection], name: str, units: Sequence[str], change: Change) -> str | None:
    """Return the first rule of any selection by which a change is left out."""
    rules = (selection.rule_against(name, units, change) for selection in selections)
    return next((rule for rule in rules if rule is not None), None)
