# SPDX-License-Identifier: GPL-2.0-only
"""Why something differs: a word of a fixed vocabulary, and what it was and is, for scripts and for people."""

from __future__ import annotations

import enum
from typing import NamedTuple


class ReasonKind(enum.Enum):
    """The vocabulary: the values of `kind` in the JSON document. Words may be added, never renamed."""

    # Code
    INSTRUCTION = "instruction"
    """Instructions came, went or became others; from checksums alone: any byte of the code."""
    BRANCH = "branch"
    """A branch inside the function goes elsewhere, or is encoded in another length."""
    CALL_TARGET = "call target"
    """What is called or jumped to outside of the function."""
    PART = "part"
    """A part that the compiler split off (foo.cold), or what stands before the entry (__pfx_foo, __cfi_foo)."""
    INLINED = "inlined"
    """Where the instructions that differ were inlined from, as the debug information has it."""
    # Code and data
    CONSTANT = "constant"
    """An immediate operand, a constant of the compiler's pool, or other data without a name."""
    CONTENT = "content"
    """The bytes of a variable, or of what no symbol covers."""
    STRING = "string"
    JUMP_TABLE = "jump table"
    DATA_REFERENCE = "data reference"
    """What an instruction or a variable refers to, other than by calling it."""
    RELOCATION = "relocation"
    """How something is referred to: the type of the relocation, or the attributes of an undefined symbol."""
    REFERENCE = "reference"
    """From checksums alone: anything that is called or referred to."""
    LINE = "line"
    """The number of a source line."""
    # Entries of special sections
    ALTERNATIVE = "alternative"
    EXCEPTION_TABLE = "exception table"
    JUMP_LABEL = "jump label"
    STATIC_CALL = "static call"
    BUG = "bug"
    RUNTIME_CONSTANT = "runtime constant"
    SPECIAL_SECTION = "special section"
    """Any other section of special.toml; from checksums alone: any at all."""
    # Symbols
    SIZE = "size"
    SECTION = "section"
    """In which section it lies."""
    BINDING = "binding"
    TYPE = "type"
    VISIBILITY = "visibility"
    ALIAS = "alias"
    """Another name of it, or a label in it."""
    VALUE = "value"
    """The value of a symbol that stands for a number."""
    ATTRIBUTE = "attribute"
    """From checksums alone: anything that the linker sees of its symbols."""
    SHARING = "sharing"
    """Which functions use the same variable or clone."""
    # Sections
    ALIGNMENT = "alignment"
    FLAGS = "flags"
    """Type, flags or entry size of a section."""
    ORDER = "order"
    """The order of the symbols in a section of which the linker makes an array."""
    # The end of a long list
    MORE = "more"
    """Differences beyond those that are listed."""


class Reason(NamedTuple):
    """One reason: ``old`` and ``new`` in words (empty: there was or is nothing), ``text`` the sentence for people."""

    kind: ReasonKind
    old: str
    new: str
    text: str


def changed(kind: ReasonKind, old: object, new: object, what: str = "") -> Reason:
    """Return the reason `WHAT OLD -> NEW` (``what``: the word of the vocabulary)."""
    return Reason(kind, str(old), str(new), f"{what or kind.value} {old} -> {new}")


def unexplained(kind: ReasonKind, old: str, new: str, text: str) -> Reason:
    """Return the reason for which only the short hashes ``old`` and ``new`` are known."""
    was, is_ = ("" if short in ("", "-") else f"hash {short}" for short in (old, new))
    return Reason(kind, was, is_, text)
