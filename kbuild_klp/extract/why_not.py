# SPDX-License-Identifier: GPL-2.0-only
"""What stands in the way of an extraction: codes for scripts, and the same in words."""

from __future__ import annotations

import enum
from typing import NamedTuple


class Bar(enum.Enum):
    """Why something cannot be carried: the values of `code` in the JSON document, never renamed; and its sentence."""

    VERDICT = "verdict", "{text}"
    SHORT_BRANCH = "short-branch", "the branch at {place} to {name} is too short to reach another section"
    UNKNOWN_RELOCATION = "unknown-relocation", "the relocation at {place} is of type {number}, which is not known"
    PART_OF_ANOTHER = "part-of-another", "it refers to {name}, a part of a function that is not carried"
    INSIDE_ANOTHER = "inside-another", "it refers to {name}, inside a function that differs and is not carried"
    INIT = "init", "it refers to {name} in {section}, which is gone after boot"
    COMMON = "common", "it refers to {name}, which is a common symbol"
    NO_PLACE = "no-place", "it refers to {name}, which is neither a symbol nor content"
    NAMELESS_STATE = "nameless-state", "it refers to writable data without a name, {name}"
    PER_CPU = "per-cpu", "it needs a new per-CPU variable, {name}"
    ATTRIBUTES = "section-of-meaning", "it needs {name}, new in {section}, which the linker or the loader acts on"
    CANDIDATES = "candidates", "static variable {name} may be {old} of the old object"
    READINGS = "readings", "its reference to {name} may mean {other} as well, and these lie otherwise in the old object"
    ONE_NAME = "one-name", "two symbols that it refers to are called {name}: {first} and {second}"
    UNKNOWN_TABLE = "unknown-table", "{name} refers to {place} of it, and no row of special.toml says how"
    UNEVEN_TABLE = "uneven-table", "{name} refers to it, and its entries are not of one size"
    NO_IMAGE = "no-image", "{name}: what {unit} was linked to is not at hand"
    NOT_RUNNING = "not-in-kernel", "the old kernel has no {name} in {unit}"
    NO_DEPENDENCY = "no-dependency", "it needs {name} of {unit}, without which the old {home} can be loaded"
    NO_POSITION = "no-position", "{name} cannot be told from others of its name in {unit}"
    NAME = "name", "the loader of livepatches cannot take {name} of {unit}: a name is too long, or has a dot or comma"
    RUNTIME_CONSTANT = "runtime-constant", "the kernel writes {name} into its code while it boots, and {why}"
    SEALED = "sealed", "it takes the address of {name}; nobody did before, and under IBT no pointer to it can be called"
    TOO_EARLY = "too-early", "an entry in {section} needs {name} of {unit}, which may be loaded after the livepatch"

    def __init__(self, word: str, sentence: str) -> None:
        self.word = word
        self.sentence = sentence


class Refusal(NamedTuple):
    """One thing that cannot be carried: of which function or variable, and why."""

    symbol: str
    bar: Bar
    reason: str

    @classmethod
    def of(cls, symbol: str, bar: Bar, **values: str) -> Refusal:
        """Return a refusal with everything in words."""
        return cls(symbol, bar, bar.sentence.format(**values))

    def as_data(self) -> dict[str, str]:
        """Return it as the JSON documents have it."""
        return {"symbol": self.symbol, "code": self.bar.word, "reason": self.reason}


class CannotCarryError(Exception):
    """Raised on the way, and caught where it is known for whom: a bar and its values."""

    def __init__(self, bar: Bar, **values: str) -> None:
        super().__init__(bar.word)
        self.bar = bar
        self.values = values
