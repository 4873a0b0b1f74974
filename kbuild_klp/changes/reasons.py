# SPDX-License-Identifier: GPL-2.0-only
"""Why something differs, as data: what is said of it (in words: wording.py), of what kind that is, and its values."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import NamedTuple

from kbuild_klp.object.place import Place


class ReasonKind(enum.Enum):
    """The vocabulary: the values of `kind` in the JSON document. Contents may be added, never renamed."""

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
    """The order of the symbols in a section that the linker makes an array of."""
    # The end of a long list
    MORE = "more"
    """Differences beyond those that are listed."""


class Code(enum.Enum):
    """What can be said of a difference: the values of `code` in the JSON document, never renamed.

    Each belongs to a word of the vocabulary; its sentence is in wording.py.
    """

    # From checksums alone: old and new are hashes
    ATTRIBUTES = "attributes", ReasonKind.ATTRIBUTE
    INSTRUCTIONS = "instructions", ReasonKind.INSTRUCTION
    CONTENT = "content", ReasonKind.CONTENT
    REFERENCES = "references", ReasonKind.REFERENCE
    SPECIAL_SECTIONS = "special-sections", ReasonKind.SPECIAL_SECTION
    RECORD_LINES = "record-lines", ReasonKind.LINE
    UNCOVERED_CONTENT = "uncovered-content", ReasonKind.CONTENT
    UNOWNED_ENTRIES = "unowned-entries", ReasonKind.SPECIAL_SECTION
    # Where something lies
    SIZE = "size", ReasonKind.SIZE
    SECTION = "section", ReasonKind.SECTION
    MOVED = "moved", ReasonKind.SECTION
    UNCOVERED_BYTES = "uncovered-bytes", ReasonKind.CONTENT
    SECTION_FLAGS = "section-flags", ReasonKind.FLAGS
    ORDER = "order", ReasonKind.ORDER
    ALIGNMENT = "alignment", ReasonKind.ALIGNMENT
    VARIABLE_ALIGNMENT = "variable-alignment", ReasonKind.ALIGNMENT
    SHARING = "sharing", ReasonKind.SHARING
    # Line numbers
    LINE = "line", ReasonKind.LINE
    LINE_INFERRED = "line-inferred", ReasonKind.LINE
    LINE_IN_RECORD = "line-in-record", ReasonKind.LINE
    LINE_IN_NAME = "line-in-name", ReasonKind.LINE
    # Instructions
    INSTRUCTION_COUNT = "instruction-count", ReasonKind.INSTRUCTION
    INSTRUCTION = "instruction", ReasonKind.INSTRUCTION
    IMMEDIATE = "immediate", ReasonKind.CONSTANT
    BRANCH = "branch", ReasonKind.BRANCH
    BRANCH_TARGET = "branch-target", ReasonKind.BRANCH
    JUMP_TABLE_LENGTH = "jump-table-length", ReasonKind.JUMP_TABLE
    JUMP_TABLE_ENTRY = "jump-table-entry", ReasonKind.JUMP_TABLE
    INLINED = "inlined", ReasonKind.INLINED
    INLINED_SOURCE = "inlined-source", ReasonKind.INLINED
    # References
    CALLS = "calls", ReasonKind.CALL_TARGET
    REFERS = "refers", ReasonKind.DATA_REFERENCE
    REFERS_TO_STRING = "refers-to-string", ReasonKind.STRING
    REFERENCE = "reference", ReasonKind.DATA_REFERENCE
    REFERENCE_TO_STRING = "reference-to-string", ReasonKind.STRING
    CALL_TARGET = "call-target", ReasonKind.CALL_TARGET
    DATA_REFERENCE = "data-reference", ReasonKind.DATA_REFERENCE
    OTHER_SYMBOL = "other-symbol", ReasonKind.DATA_REFERENCE
    CALLS_OTHER_SYMBOL = "calls-other-symbol", ReasonKind.CALL_TARGET
    RELOCATION = "relocation", ReasonKind.RELOCATION
    TARGET_SECTION = "target-section", ReasonKind.SECTION
    STRING = "string", ReasonKind.STRING
    OTHER_STRING = "other-string", ReasonKind.STRING
    # Data
    CONSTANT = "constant", ReasonKind.CONSTANT
    NAMELESS = "nameless", ReasonKind.CONSTANT
    BYTES = "bytes", ReasonKind.CONTENT
    BYTES_AT_END = "bytes-at-end", ReasonKind.CONTENT
    UNCOVERED_PIECE = "uncovered-piece", ReasonKind.CONTENT
    # Entries of special sections
    ENTRY = "entry", ReasonKind.SPECIAL_SECTION
    ENTRY_COUNT = "entry-count", ReasonKind.SPECIAL_SECTION
    # Symbols
    BINDING = "binding", ReasonKind.BINDING
    TYPE = "type", ReasonKind.TYPE
    VISIBILITY = "visibility", ReasonKind.VISIBILITY
    VALUE = "value", ReasonKind.VALUE
    STATED_SIZE = "stated-size", ReasonKind.SIZE
    ALIAS = "alias", ReasonKind.ALIAS
    ALIAS_DIFFERS = "alias-differs", ReasonKind.ALIAS
    PART = "part", ReasonKind.PART
    PART_SIZE = "part-size", ReasonKind.PART
    # The end of a long list
    MORE = "more", ReasonKind.MORE

    def __init__(self, word: str, kind: ReasonKind) -> None:
        self.word = word
        self.kind = kind


class Reason(NamedTuple):
    """One reason: ``old`` and ``new`` in words (empty: there was or is nothing).

    ``values`` are what else its sentence says, for scripts: numbers and names. Of these, ``at`` is a place in bytes,
    counted in ``part`` if that is there. ``within`` leads to what differs: places and nameless data, outermost first;
    then places count from the last one. ``kind`` is that of the code, but for what has none of its own.
    """

    code: Code
    old: str
    new: str
    kind: ReasonKind
    values: Mapping[str, int | str]
    within: tuple[str, ...] = ()

    @classmethod
    def of(cls, code: Code, old: object, new: object, place: Place | None = None, **values: int | str) -> Reason:
        """Return a reason, with everything in words; ``place`` is that of what differs."""
        return cls(code, str(old), str(new), code.kind, values | (place.values if place else {}))

    @property
    def is_hash(self) -> bool:
        """Whether only the short hashes of both sides are known: the objects may tell more."""
        return (self.old or self.new).startswith(_HASH)


_HASH = "hash "


def unexplained(code: Code, old: str, new: str) -> Reason:
    """Return the reason for which only the short hashes ``old`` and ``new`` are known."""
    was, is_ = ("" if short in ("", "-") else f"{_HASH}{short}" for short in (old, new))
    return Reason.of(code, was, is_)
