# SPDX-License-Identifier: GPL-2.0-only
"""A function as a list of instructions that can be compared: without places, with meanings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher

import numpy as np

from kbuild_klp.explain.view import ObjectView, Reference

# Beyond this many instructions on a side that are neither a common start nor a common end, no best match is looked
# for (the time grows with the square).
_MOST_MATCHED = 6000


@dataclass(frozen=True)
class Line:
    """One instruction of a function.

    ``token`` is equal for instructions that do the same: bytes with references and branches inside the function
    cleared, and what the references mean. ``data`` are its bytes with only references cleared. ``target`` is the
    index of the instruction to which a branch inside the function goes, -1 for others.
    """

    part: int
    offset: int
    text: str
    token: tuple[object, ...]
    data: bytes
    references: tuple[Reference, ...]
    is_branch: bool
    target: int


def function_lines(view: ObjectView, parts: list[int]) -> list[Line]:
    """Return the instructions of a function and its split-off parts."""
    lines: list[Line] = []
    for part in parts:
        lines += _part_lines(view, part)
    return lines


def _part_lines(view: ObjectView, part: int) -> Iterator[Line]:
    data = view.digests.part_data(part)
    arch = view.architecture
    references = view.references(part)
    code = np.frombuffer(data + bytes(16), np.uint8)
    fields = arch.pc_relative_fields(code, np.array([0]), np.array([len(data)]))
    inside = {}
    places = {reference.place for reference in references}
    for offset, width, end in zip(fields.offset.tolist(), fields.width.tolist(), fields.end.tolist(), strict=True):
        if offset not in places:
            target = end + int.from_bytes(data[offset : offset + width], "little", signed=True)
            if 0 <= target < len(data):
                inside[offset] = (width, target)
    decoded = arch.disassemble(data)
    number = {instruction.offset: i for i, instruction in enumerate(decoded)}
    at = 0
    for instruction in decoded:
        start, end = instruction.offset, instruction.offset + instruction.size
        own = []
        while at < len(references) and references[at].place < end:
            own.append(references[at])
            at += 1
        raw = bytearray(data[start:end])
        target = -1
        for offset in range(start, end):
            if offset in inside:
                width, address = inside[offset]
                raw[offset - start : offset - start + width] = bytes(width)
                target = number.get(address, -1)
        text = instruction.text
        if own:
            text += " <" + ", ".join(view.describe(reference.row) for reference in own) + ">"
        token = (
            bytes(raw),
            tuple((reference.place - start, *reference.key) for reference in own),
            target >= 0,
        )
        yield Line(
            part,
            start,
            text,
            token,
            data[start:end],
            tuple(own),
            instruction.is_branch,
            target,
        )


@dataclass(frozen=True)
class Hunk:
    """A stretch in which two functions differ: lines [a0, a1) of the old one against [b0, b1) of the new one."""

    a0: int
    a1: int
    b0: int
    b1: int


def differing_hunks(old: list[Line], new: list[Line]) -> list[Hunk]:
    """Return where two lists of instructions differ, in order."""
    a, b = [line.token for line in old], [line.token for line in new]
    head = 0
    most = min(len(a), len(b))
    while head < most and a[head] == b[head]:
        head += 1
    tail = 0
    while tail < most - head and a[-1 - tail] == b[-1 - tail]:
        tail += 1
    a_mid, b_mid = a[head : len(a) - tail], b[head : len(b) - tail]
    if not a_mid and not b_mid:
        return []
    if len(a_mid) > _MOST_MATCHED or len(b_mid) > _MOST_MATCHED:
        return [Hunk(head, head + len(a_mid), head, head + len(b_mid))]
    matcher = SequenceMatcher(None, a_mid, b_mid, autojunk=False)
    return [
        Hunk(head + a0, head + a1, head + b0, head + b1)
        for tag, a0, a1, b0, b1 in matcher.get_opcodes()
        if tag != "equal"
    ]
