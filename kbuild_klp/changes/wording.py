# SPDX-License-Identifier: GPL-2.0-only
"""All that is said of a difference, in one place: a sentence for each code.

In braces: ``old`` and ``new``; the reason's values; ``where`` is its place; ``name`` is the side that there is;
``now`` says which that is; ``counts`` are instructions that came and went.
"""

from __future__ import annotations

from kbuild_klp.changes.reasons import Code, Reason
from kbuild_klp.object.place import Place

SENTENCES = {
    Code.ATTRIBUTES: "symbol attributes",
    Code.INSTRUCTIONS: "instructions",
    Code.CONTENT: "content",
    Code.REFERENCES: "references",
    Code.SPECIAL_SECTIONS: "special sections (alternatives, exceptions, jump labels, bugs)",
    Code.RECORD_LINES: "line numbers in special sections only",
    Code.UNCOVERED_CONTENT: "content that no symbol covers",
    Code.UNOWNED_ENTRIES: "entries that belong to no symbol",
    Code.SIZE: "size {old_size} -> {new_size}",
    Code.SECTION: "moved from {old} to {new}",
    Code.MOVED: "from {old} to {new}",
    Code.UNCOVERED_BYTES: "{size} bytes without a symbol",
    Code.SECTION_FLAGS: "type or flags of the section: {old} -> {new}",
    Code.ORDER: "order of the symbols: {old} -> {new}",
    Code.ALIGNMENT: "alignment {old} -> {new}",
    Code.VARIABLE_ALIGNMENT: "a variable in it is aligned otherwise: {symbol} at {old} -> {new}",
    Code.SHARING: "no longer shares {shared} with the same functions",
    Code.LINE: "line number {words}: {old} -> {new}",
    Code.LINE_INFERRED: "line number {words}: {old} -> {new} (inferred)",
    Code.LINE_IN_RECORD: "line number in {section} for {where}: {source}{old} -> {new}",
    Code.LINE_IN_NAME: "line number in its name: was {old}",
    Code.INSTRUCTION_COUNT: "{counts} at {where}",
    Code.INSTRUCTION: "{where}: {old} -> {new}",
    Code.IMMEDIATE: "{where}: {old} -> {new}",
    Code.BRANCH: "{where}: {old} -> {new}",
    Code.BRANCH_TARGET: "{where}: goes to {new} instead of {old}",
    Code.JUMP_TABLE_LENGTH: "{where}: jump table of {old_count} -> {new_count} entries",
    Code.JUMP_TABLE_ENTRY: "{where}: entry {entry} of the jump table goes to {new} instead of {old}",
    Code.INLINED: "in inlined {name}",
    Code.INLINED_SOURCE: "inlined {new} differs in the source",
    Code.CALLS: "{now} calls {name}",
    Code.REFERS: "{now} refers to {name}",
    Code.REFERS_TO_STRING: "{now} refers to {name}",
    Code.REFERENCE: "{where}: {now} refers to {name}",
    Code.REFERENCE_TO_STRING: "{where}: {now} refers to {name}",
    Code.CALL_TARGET: "{where}: calls {new} instead of {old}",
    Code.DATA_REFERENCE: "{where}: refers to {new} instead of {old}",
    Code.OTHER_SYMBOL: "{where}: {old} means something else (another symbol of that name)",
    Code.CALLS_OTHER_SYMBOL: "{where}: {old} means something else (another symbol of that name)",
    Code.RELOCATION: "{where}: {old} -> {new}",
    Code.TARGET_SECTION: "{where}: refers to {new} instead of {old}",
    Code.STRING: "{where}: string {excerpt}",
    Code.OTHER_STRING: "{where}: {new}",
    Code.CONSTANT: "{where}: {old} -> {new}",
    Code.NAMELESS: "{where}: content of {old}",
    Code.BYTES: "content at {where}: {old} -> {new}",
    Code.BYTES_AT_END: "{now} has content at {where}: {name}",
    Code.UNCOVERED_PIECE: "{now} {name}",
    Code.ENTRY: "{noun} at {where}: {old} -> {new}",
    Code.ENTRY_COUNT: "{table}: {old_count} -> {new}",
    Code.BINDING: "binding {old} -> {new}",
    Code.TYPE: "type {old} -> {new}",
    Code.VISIBILITY: "visibility {old} -> {new}",
    Code.VALUE: "value {old} -> {new}",
    Code.STATED_SIZE: "stated size {old} -> {new}",
    Code.ALIAS: "{now} also named {symbol}",
    Code.ALIAS_DIFFERS: "other name or label: {old} -> {new}",
    Code.PART: "part {name}, {split}",
    Code.PART_SIZE: "part {symbol}: {old_size} -> {new_size} bytes",
    Code.MORE: "and {count} more differences",
}


def sentence(reason: Reason) -> str:
    """Return a reason in words."""
    words = SENTENCES[reason.code]
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
