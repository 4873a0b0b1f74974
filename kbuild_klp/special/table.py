# SPDX-License-Identifier: GPL-2.0-only
"""The table of special sections (special.toml): which rows there are, and which one fits a section at hand."""

from __future__ import annotations

import enum
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kbuild_klp.errors import KlpError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


SOURCE_NAME = re.compile(r"[^\s%]+\.(?:c|h|S|cc|rs|inc)")
"""What the name of a source file looks like."""


class SectionClass(enum.Enum):
    """What becomes of the content of a special section."""

    OWNED = "owned"
    RECORDS = "records"
    DERIVED = "derived"


@dataclass(frozen=True)
class LineField:
    """A bit field of an entry that holds a source line number: byte ``offset``, lowest ``bits`` bits."""

    offset: int
    bits: int


@dataclass(frozen=True)
class ContentField:
    """A reference (byte offset ``reference``) to bytes whose length is in byte ``length`` of the entry."""

    reference: int
    length: int


class Places(NamedTuple):
    """Where relocations stand in some sections, a row each, in any order.

    ``section`` is an index into these, ``offset`` the place in it in bytes; ``is_named`` says that
    it is to a symbol, and not to a place in a section, ``is_code`` that it goes to machine code.
    """

    section: NDArray[Any]
    offset: NDArray[Any]
    is_named: NDArray[np.bool_]
    is_code: NDArray[np.bool_]


@dataclass(frozen=True)
class SpecialSection:
    """One row of the table; see the comment at the top of special.toml for the meaning of each field."""

    name: str
    section_class: SectionClass
    architectures: tuple[str, ...]
    sizes: tuple[int, ...]
    references: frozenset[int]
    owner: int
    lines: tuple[LineField, ...]
    content: ContentField | None
    reason: str
    names: Mapping[int, str]
    named: frozenset[int] = frozenset()
    data: frozenset[int] = frozenset()
    source: int | None = None
    from_entry: frozenset[int] = frozenset()
    tail: int = 0
    ordered: bool = False
    stripped: bool = False
    pointed_lines: tuple[LineField, ...] = ()

    def entry_sizes(self, sizes: NDArray[np.int64], places: Places) -> NDArray[np.int64]:
        """Return the bytes of an entry in each of some sections of ``sizes`` bytes, 0 where this row does not fit.

        Their relocations stand at ``places``.
        """
        result = np.zeros(len(sizes), np.int64)
        for entry in self.sizes:
            if result.all():
                break
            rest = sizes % entry
            fits = (result == 0) & ((rest == 0) | (rest >= (self.tail or entry)))
            if self.references:
                field, count = places.offset.astype(np.int64) % entry, -(-sizes // entry)
                is_strange = np.ones(entry, bool)
                is_strange[[at for at in self.references if at < entry]] = False
                is_strange = is_strange[field]
                if self.named:
                    is_strange |= np.isin(field, list(self.named)) & ~places.is_named
                if self.data:
                    is_strange |= np.isin(field, list(self.data)) & places.is_code
                fits &= np.bincount(places.section[is_strange], minlength=len(sizes)) == 0
                for needed in {self.owner, *self.named}:
                    fits &= np.bincount(places.section[field == needed], minlength=len(sizes)) == count
            result[fits] = entry
        return result


UNKNOWN_LAYOUT = SpecialSection(
    "", SectionClass.OWNED, (), (), frozenset(), 0, (), None, "", MappingProxyType({}), ordered=True
)
"""The row of tables that none is about."""


def _line_fields(row: Mapping[str, Any], key: str) -> tuple[LineField, ...]:
    return tuple(LineField(line["offset"], line["bits"]) for line in row.get(key, ()))


def _parse_row(row: Mapping[str, Any], file: Path) -> SpecialSection:
    try:
        content = row.get("content")
        return SpecialSection(
            name=row["name"],
            section_class=SectionClass(row["class"]),
            architectures=tuple(row.get("architectures", ())),
            sizes=tuple(row.get("sizes", ())),
            references=frozenset(row.get("references", ())),
            owner=row.get("owner", 0),
            lines=_line_fields(row, "lines"),
            pointed_lines=_line_fields(row, "pointed_lines"),
            content=ContentField(content["reference"], content["length"]) if content else None,
            reason=row.get("reason", ""),
            names={int(offset): name for offset, name in dict(row.get("names", {})).items()},
            named=frozenset(row.get("named", ())),
            data=frozenset(row.get("data", ())),
            source=row.get("source"),
            from_entry=frozenset(row.get("from_entry", ())),
            tail=row.get("tail", 0),
            ordered=row.get("ordered", False),
            stripped=row.get("stripped", False),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise KlpError(
            f"bad row {row.get('name', '?')!r}: {error!r}", file=file, hint="see the top of the file"
        ) from None


_LETTERS = 3  # with which a name begins: `.text.NAME` and `.data.NAME` are soon told from those of rows
_WILDCARD = re.compile(r"\*|\?|\[.*?\]")


class SpecialTable:
    """The rows that apply to one architecture, by section name."""

    def __init__(self, rows: list[SpecialSection], version: int) -> None:
        self.version = version
        self._stripped = [row for row in rows if row.stripped]
        self._rows = rows = [row for row in rows if not row.stripped]
        self._by_name: dict[str, tuple[SpecialSection, ...]] = {}
        # What a name is, or begins or ends with, for which there may be a row.
        self._names = {row.name for row in rows}
        ends = [_WILDCARD.split(row.name) for row in rows]
        self._heads = tuple({first for first, *rest in ends if rest and first})
        self._tails = tuple({own[-1] for own in ends if not own[0]})
        self._letters = {head[:_LETTERS] for head in (*self._names, *self._heads)}

    def rows(self, section_name: str) -> tuple[SpecialSection, ...]:
        """Return the rows for a section name, in the order in which they are to be tried."""
        found = self._by_name.get(section_name)
        if found is None:
            found = tuple(row for row in self._rows if fnmatchcase(section_name, row.name))
            self._by_name[section_name] = found
        return found

    def stripped_rows(self, section_name: str) -> tuple[SpecialSection, ...]:
        """Return the rows for a section whose entries lack their names, in the order in which they are to be tried."""
        return tuple(row for row in self._stripped if fnmatchcase(section_name, row.name))

    def listed(self, section_names: Iterable[str]) -> Iterator[int]:
        """Yield the positions of those names for which there is a row: few, and there may be one for each function."""
        for at, name in enumerate(section_names):
            may_be = name[:_LETTERS] in self._letters and (name in self._names or name.startswith(self._heads))
            if (may_be or name.endswith(self._tails)) and self.rows(name):
                yield at


@cache
def special_table(architecture: str) -> SpecialTable:
    """Read the table for ``architecture`` (a name of kbuild_klp.arch)."""
    file = Path(__file__).with_name("special.toml")
    try:
        document = tomllib.loads(file.read_text("utf-8"))
        version, sections = int(document["version"]), list(document["section"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise KlpError(f"cannot be used: {error}", file=file, hint="install kbuild-klp again") from None
    rows = [_parse_row(row, file) for row in sections]
    applicable = [row for row in rows if not row.architectures or architecture in row.architectures]
    return SpecialTable(applicable, version)
