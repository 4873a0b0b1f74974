# SPDX-License-Identifier: GPL-2.0-only
"""Where in .debug_info certain entries (DIEs) are, without reading the others (DWARF 5, sections 2.3 and 7.5).

Nine of ten entries of an object are types and variables. pyelftools makes a Python object of each that it passes; this
only steps over them, so that an object file of the kernel takes a few milliseconds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, Literal, NamedTuple

Unit = Any
"""A compilation unit (or a unit of types) of pyelftools."""

_SIZES = {
    **dict.fromkeys(("flag_present", "implicit_const"), 0),
    **dict.fromkeys(("data1", "ref1", "flag", "strx1", "addrx1"), 1),
    **dict.fromkeys(("data2", "ref2", "strx2", "addrx2"), 2),
    **dict.fromkeys(("strx3", "addrx3"), 3),
    **dict.fromkeys(("data4", "ref4", "strp", "line_strp", "strp_sup", "ref_sup4", "strx4", "addrx4", "sec_offset"), 4),
    **dict.fromkeys(("addr", "data8", "ref8", "ref_sig8", "ref_sup8"), 8),
    "ref_addr": 4,
    "data16": 16,
}
_ULEB = frozenset({"udata", "sdata", "ref_udata", "strx", "addrx", "loclistx", "rnglistx"})
_BLOCKS = {"block1": 1, "block2": 2, "block4": 4}
_HAS_CODE = frozenset({"DW_AT_low_pc", "DW_AT_ranges"})


class UnknownFormError(Exception):
    """A form of an attribute whose length is not known here."""


class _Abbreviation(NamedTuple):
    """How entries of one kind are laid out.

    ``size`` is that of the attributes in bytes, -1 when it varies; ``sibling`` the place of the reference to the next
    entry of the same level, -1 when there is none at a fixed place.
    """

    tag: str
    has_code: bool
    has_children: bool
    size: int
    sibling: int
    forms: tuple[str, ...]


class DieScan:
    """Steps over the entries of one compilation unit (32-bit DWARF with addresses of 8 bytes)."""

    def __init__(self, unit: Unit, info: bytes | memoryview) -> None:
        if unit.structs.dwarf_format != 32 or unit.structs.address_size != 8 or unit.header.version < 3:
            raise UnknownFormError
        self._unit = unit
        self._info = info
        self._end = unit.cu_offset + unit.size
        self._byteorder: Literal["little", "big"] = "little" if unit.structs.little_endian else "big"
        self._known: dict[int, _Abbreviation] = {}

    def with_code(self, at: int, tag: str, inside: Collection[str]) -> Iterator[tuple[int, int]]:
        """Yield place and depth (from 0) of the entries of a ``tag`` that have code, from offset ``at`` on.

        Searched are the children of one entry, the first of which is at ``at``, and the children of those whose tag is
        one of ``inside``. Raises UnknownFormError.
        """
        info = self._info
        open_levels = [True]  # whether what is found there counts
        while at < self._end:
            start = at
            code, at = self._uleb(at)
            if not code:
                open_levels.pop()
                if not open_levels:
                    return
                continue
            kind = self._known.get(code) or self._abbreviation(code)
            if open_levels[-1] and kind.has_code and kind.tag == tag:
                yield start, len(open_levels) - 1
            body = at
            at = body + kind.size if kind.size >= 0 else self._skip(body, kind.forms)
            if not kind.has_children:
                continue
            wanted = open_levels[-1] and kind.tag in inside
            if not wanted and kind.sibling >= 0:
                place = body + kind.sibling
                at = self._unit.cu_offset + int.from_bytes(info[place : place + 4], self._byteorder)
                if at <= place:
                    raise UnknownFormError  # it would never end
            else:
                open_levels.append(wanted)

    def _abbreviation(self, code: int) -> _Abbreviation:
        row = self._unit.get_abbrev_table().get_abbrev(code)
        specs = [(str(name), str(form).removeprefix("DW_FORM_")) for name, form in row.iter_attr_specs()]
        size, sibling = 0, -1
        for name, form in specs:
            if name == "DW_AT_sibling" and form == "ref4" and size >= 0:
                sibling = size
            width = _SIZES.get(form, -1)
            size = size + width if size >= 0 and width >= 0 else -1
        names = {name for name, _ in specs}
        found = _Abbreviation(
            str(row["tag"]),
            bool(names & _HAS_CODE),
            row.has_children(),
            size,
            sibling,
            tuple(form for _, form in specs),
        )
        self._known[code] = found
        return found

    def _skip(self, at: int, forms: tuple[str, ...]) -> int:
        """Return where attributes of the given forms end."""
        for form in forms:
            if form in _SIZES:
                at += _SIZES[form]
            elif form in _ULEB:
                _, at = self._uleb(at)
            elif form in ("exprloc", "block"):
                length, at = self._uleb(at)
                at += length
            elif form == "string":
                while self._info[at]:
                    at += 1
                at += 1
            elif form in _BLOCKS:
                width = _BLOCKS[form]
                at += width + int.from_bytes(self._info[at : at + width], self._byteorder)
            else:
                raise UnknownFormError(form)
        return at

    def _uleb(self, at: int) -> tuple[int, int]:
        """Read an unsigned number of variable length; returns it and where it ends."""
        value = shift = 0
        while True:
            byte = self._info[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, at
            shift += 7
