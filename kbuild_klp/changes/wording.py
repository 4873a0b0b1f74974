# SPDX-License-Identifier: GPL-2.0-only
"""All that is said of a difference, in one place: why something differs, as data and in words."""

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
    """What can be said of a difference: the values of `code` in the JSON document (never renamed).

    Each belongs to a word of the vocabulary, and has a sentence. In braces: ``old`` and ``new``; the reason's values;
    ``where`` is its place; ``name`` is the side that there is; ``now`` says which that is; ``counts`` are instructions
    that came and went.
    """

    # From checksums alone: old and new are hashes
    ATTRIBUTES = "attributes", ReasonKind.ATTRIBUTE, "symbol attributes"
    INSTRUCTIONS = "instructions", ReasonKind.INSTRUCTION, "instructions"
    CONTENT = "content", ReasonKind.CONTENT, "content"
    REFERENCES = "references", ReasonKind.REFERENCE, "references"
    SPECIAL_SECTIONS = (
        "special-sections",
        ReasonKind.SPECIAL_SECTION,
        "special sections (alternatives, exceptions, jump labels, bugs)",
    )
    RECORD_LINES = "record-lines", ReasonKind.LINE, "line numbers in special sections only"
    UNCOVERED_CONTENT = "uncovered-content", ReasonKind.CONTENT, "content that no symbol covers"
    UNOWNED_ENTRIES = "unowned-entries", ReasonKind.SPECIAL_SECTION, "entries that belong to no symbol"
    # Where something lies
    SIZE = "size", ReasonKind.SIZE, "size {old_size} -> {new_size}"
    SECTION = "section", ReasonKind.SECTION, "moved from {old} to {new}"
    MOVED = "moved", ReasonKind.SECTION, "from {old} to {new}"
    UNCOVERED_BYTES = "uncovered-bytes", ReasonKind.CONTENT, "{size} bytes without a symbol"
    SECTION_FLAGS = "section-flags", ReasonKind.FLAGS, "type or flags of the section: {old} -> {new}"
    ORDER = "order", ReasonKind.ORDER, "order of the symbols: {old} -> {new}"
    ALIGNMENT = "alignment", ReasonKind.ALIGNMENT, "alignment {old} -> {new}"
    VARIABLE_ALIGNMENT = (
        "variable-alignment",
        ReasonKind.ALIGNMENT,
        "a variable in it is aligned otherwise: {symbol} at {old} -> {new}",
    )
    SHARING = "sharing", ReasonKind.SHARING, "no longer shares {shared} with the same functions"
    # Line numbers
    LINE = "line", ReasonKind.LINE, "line number {words}: {old} -> {new}"
    LINE_INFERRED = "line-inferred", ReasonKind.LINE, "line number {words}: {old} -> {new} (inferred)"
    LINE_IN_RECORD = "line-in-record", ReasonKind.LINE, "line number in {section} for {where}: {source}{old} -> {new}"
    LINE_IN_NAME = "line-in-name", ReasonKind.LINE, "line number in its name: was {old}"
    # Instructions
    INSTRUCTION_COUNT = "instruction-count", ReasonKind.INSTRUCTION, "{counts} at {where}"
    INSTRUCTION = "instruction", ReasonKind.INSTRUCTION, "{where}: {old} -> {new}"
    IMMEDIATE = "immediate", ReasonKind.CONSTANT, "{where}: {old} -> {new}"
    BRANCH = "branch", ReasonKind.BRANCH, "{where}: {old} -> {new}"
    BRANCH_TARGET = "branch-target", ReasonKind.BRANCH, "{where}: goes to {new} instead of {old}"
    JUMP_TABLE_LENGTH = (
        "jump-table-length",
        ReasonKind.JUMP_TABLE,
        "{where}: jump table of {old_count} -> {new_count} entries",
    )
    JUMP_TABLE_ENTRY = (
        "jump-table-entry",
        ReasonKind.JUMP_TABLE,
        "{where}: entry {entry} of the jump table goes to {new} instead of {old}",
    )
    INLINED = "inlined", ReasonKind.INLINED, "in inlined {name}"
    INLINED_SOURCE = "inlined-source", ReasonKind.INLINED, "inlined {new} differs in the source"
    # References
    CALLS = "calls", ReasonKind.CALL_TARGET, "{now} calls {name}"
    REFERS = "refers", ReasonKind.DATA_REFERENCE, "{now} refers to {name}"
    REFERS_TO_STRING = "refers-to-string", ReasonKind.STRING, "{now} refers to {name}"
    REFERENCE = "reference", ReasonKind.DATA_REFERENCE, "{where}: {now} refers to {name}"
    REFERENCE_TO_STRING = "reference-to-string", ReasonKind.STRING, "{where}: {now} refers to {name}"
    CALL_TARGET = "call-target", ReasonKind.CALL_TARGET, "{where}: calls {new} instead of {old}"
    DATA_REFERENCE = "data-reference", ReasonKind.DATA_REFERENCE, "{where}: refers to {new} instead of {old}"
    OTHER_SYMBOL = (
        "other-symbol",
        ReasonKind.DATA_REFERENCE,
        "{where}: {old} means something else (another symbol of that name)",
    )
    CALLS_OTHER_SYMBOL = (
        "calls-other-symbol",
        ReasonKind.CALL_TARGET,
        "{where}: {old} means something else (another symbol of that name)",
    )
    RELOCATION = "relocation", ReasonKind.RELOCATION, "{where}: {old} -> {new}"
    TARGET_SECTION = "target-section", ReasonKind.SECTION, "{where}: refers to {new} instead of {old}"
    STRING = "string", ReasonKind.STRING, "{where}: string {excerpt}"
    OTHER_STRING = "other-string", ReasonKind.STRING, "{where}: {new}"
    # Data
    CONSTANT = "constant", ReasonKind.CONSTANT, "{where}: {old} -> {new}"
    NAMELESS = "nameless", ReasonKind.CONSTANT, "{where}: content of {old}"
    BYTES = "bytes", ReasonKind.CONTENT, "content at {where}: {old} -> {new}"
    BYTES_AT_END = "bytes-at-end", ReasonKind.CONTENT, "{now} has content at {where}: {name}"
    UNCOVERED_PIECE = "uncovered-piece", ReasonKind.CONTENT, "{now} {name}"
    # Entries of special sections
    ENTRY = "entry", ReasonKind.SPECIAL_SECTION, "{noun} at {where}: {old} -> {new}"
    ENTRY_COUNT = "entry-count", ReasonKind.SPECIAL_SECTION, "{table}: {old_count} -> {new}"
    # Symbols
    BINDING = "binding", ReasonKind.BINDING, "binding {old} -> {new}"
    TYPE = "type", ReasonKind.TYPE, "type {old} -> {new}"
    VISIBILITY = "visibility", ReasonKind.VISIBILITY, "visibility {old} -> {new}"
    VALUE = "value", ReasonKind.VALUE, "value {old} -> {new}"
    STATED_SIZE = "stated-size", ReasonKind.SIZE, "stated size {old} -> {new}"
    ALIAS = "alias", ReasonKind.ALIAS, "{now} also named {symbol}"
    ALIAS_DIFFERS = "alias-differs", ReasonKind.ALIAS, "other name or label: {old} -> {new}"
    PART = "part", ReasonKind.PART, "part {name}, {split}"
    PART_SIZE = "part-size", ReasonKind.PART, "part {symbol}: {old_size} -> {new_size} bytes"
    # The end of a long list
    MORE = "more", ReasonKind.MORE, "and {count} more differences"

    def __init__(self, word: str, kind: ReasonKind, sentence: str) -> None:
        self.word = word
        self.kind = kind
        self.sentence = sentence


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


def sentence(reason: Reason) -> str:
    """Return a reason in words."""
    words = reason.code.sentence
    if reason.is_hash:
        words = words.partition(":")[0]  # both sides are hashes
    values = reason.values
    what = words.format(
        old=reason.old,
        new=reason.new,
        name=reason.new or reason.old,
        now="now" if reason.new else "no longer",
        split="split off" if reason.new else "no longer split off",
        where=Place(str(values.get("part", "")), int(values.get("at", 0))),
        counts=_counts(int(values.get("removed", 0)), int(values.get("added", 0))),
        source=f"{values['file']}:" if "file" in values else "",
        **values,
    )
    return ": ".join((*reason.within, what))


def _counts(removed: int, added: int) -> str:
    counted = ((removed, "removed"), (added, "added"))
    return ", ".join(f"{count} instruction{'s' * (count > 1)} {verb}" for count, verb in counted if count)
