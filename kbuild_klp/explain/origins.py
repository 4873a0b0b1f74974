# SPDX-License-Identifier: GPL-2.0-only
"""Which inlined functions a change comes from.

Where the sources are at hand, they are those whose text differs, and none if only the text of the function itself
does. Otherwise they are those in which instructions differ, which may be more: a value in another register changes
instructions throughout the function.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache, cached_property
from typing import NamedTuple

from kbuild_klp.changes.wording import Code, Reason
from kbuild_klp.dwarf.debug_info import DebugInfo
from kbuild_klp.dwarf.inlined import InlinedCode, InlinedFunction
from kbuild_klp.dwarf.source_lines import SourceLine, SourceLines
from kbuild_klp.elf.reader import ObjectFile
from kbuild_klp.explain.comparison import Comparison
from kbuild_klp.kernel.sources import SourceFiles
from kbuild_klp.lines.versions import Version
from kbuild_klp.object.function import Line
from kbuild_klp.source.file_pair import read

_MOST_LOOKED_UP = 200  # instructions of a function
_MOST_NAMED = 3
_MOST_LEVELS = 3

Sources = Callable[[], "tuple[SourceFiles | None, SourceFiles | None]"]


class DebugSide:
    """The debug information of one object, and what is asked of it."""

    def __init__(self, obj: ObjectFile) -> None:
        self.info = DebugInfo(obj)
        self.lines = SourceLines(self.info)
        self.inlined = InlinedCode(self.info, self.lines)

    def source(self, line: Line) -> SourceLine | None:
        """Return the source line of an instruction."""
        section, start = line.view.place(line.part)
        return self.lines.at(section, start + line.offset)

    def chain(self, line: Line) -> tuple[InlinedFunction, ...]:
        """Return the inlined functions that an instruction is of, the innermost first."""
        section, start = line.view.place(line.part)
        return self.inlined.at(section, start + line.offset)

    def functions(self, function: Version) -> dict[str, InlinedFunction]:
        """Return everything that was inlined into a function, by name."""
        places = map(function.view.place, function.parts)
        return {function.name: function for place in places for function in self.inlined.functions(*place)}


class Origins:
    """Tells for two versions of one object which inlined functions changes come from."""

    def __init__(self, old: DebugSide, new: DebugSide, sources: Sources | None) -> None:
        self.old = old
        self.new = new
        self._find_sources = sources
        lines = cache(lambda path: read(path).split("\n"))
        self._text = cache(lambda path, function: function_text(lines(path), function.name, function.line))

    def of(self, comparison: Comparison, old: Version, new: Version) -> list[tuple[InlinedFunction, Reason]]:
        """Return the inlined functions that a change comes from, each with the reason that names it; three at most."""
        if not (self.old.info.size or self.new.info.size) or not comparison.differs:
            return []
        found = []
        before, after = self.old.functions(old), self.new.functions(new)
        for name in sorted(before.keys() & after.keys()):
            if self._text_differs(before[name], after[name]):
                reason = Reason.of(Code.INLINED_SOURCE, before[name], after[name])
                found.append((after[name], reason))
        was = self.old.inlined.around(*old.view.place(old.parts[0]))
        is_ = self.new.inlined.around(*new.view.place(new.parts[0]))
        if not found and was and is_ and self._text_differs(was, is_):
            return []
        return found[:_MOST_NAMED] or self._by_instruction(comparison)

    def _by_instruction(self, comparison: Comparison) -> list[tuple[InlinedFunction, Reason]]:
        """Name the inlined functions in which instructions differ, those with the most of them first."""
        old, new = _tally(self._chains(comparison, 0)), _tally(self._chains(comparison, 1))
        counts = {name: sum(side[name].weight for side in (old, new) if name in side) for name in (*old, *new)}
        found = []
        for name in sorted(counts, key=lambda name: (-counts[name], name))[:_MOST_NAMED]:
            was, is_ = (side[name].words if name in side else "" for side in (old, new))
            found.append(((new.get(name) or old[name]).function, Reason.of(Code.INLINED, was, is_)))
        return found

    def _chains(self, comparison: Comparison, side: int) -> list[tuple[InlinedFunction, ...]]:
        """Return the inlined functions of each instruction that differs."""
        debug, lines = ((self.old, comparison.old), (self.new, comparison.new))[side]
        ends = [(hunk.b0, hunk.b1) if side else (hunk.a0, hunk.a1) for hunk in comparison.stretches]
        chosen = [line for start, end in ends for line in lines[start:end]][:_MOST_LOOKED_UP]
        return [chain for line in chosen if (chain := debug.chain(line))]

    # -- one function ---------------------------------------------------------------------------------------------

    def find(self, name: str, old: Version, new: Version) -> InlinedFunction | None:
        """Return the function ``name`` if it was inlined into a function on either side."""
        return self.new.functions(new).get(name) or self.old.functions(old).get(name)

    def differs(self, name: str, comparison: Comparison, old: Version, new: Version) -> bool:
        """Say whether a change comes from the inlined function ``name``, or instructions of it differ."""
        chains = [*self._chains(comparison, 0), *self._chains(comparison, 1)]
        if any(function.name == name for chain in chains for function in chain):
            return True
        return any(function.name == name for function, _ in self.of(comparison, old, new))

    # -- sources --------------------------------------------------------------------------------------------------

    @cached_property
    def _sources(self) -> tuple[SourceFiles | None, SourceFiles | None]:
        return self._find_sources() if self._find_sources else (None, None)

    def _text_differs(self, old: InlinedFunction, new: InlinedFunction) -> bool:
        """Say whether the source of a function is known on both sides and differs."""
        if not (old.file and new.file):
            return False
        before, after = self._sources
        paths = before.find(old.file) if before else None, after.find(new.file) if after else None
        if paths[0] is None or paths[1] is None or paths[0] == paths[1]:
            return False
        texts = self._text(paths[0], old), self._text(paths[1], new)
        return None not in texts and texts[0] != texts[1]


def function_text(lines: Sequence[str], name: str, line: int) -> str | None:
    """Return the text of the function ``name`` that is declared in a line (from 1), None if it is not there.

    It ends with the first line that begins with a closing brace, as in the kernel's coding style, or with the line of
    the declaration if that ends with one. A function that a macro makes is not found.
    """
    if not 0 < line <= len(lines) or not re.search(rf"\b{re.escape(name)}\s*\(", lines[line - 1]):
        return None
    if lines[line - 1].rstrip().endswith("}"):
        return lines[line - 1]
    end = next((at for at in range(line, len(lines)) if lines[at].startswith("}")), None)
    return None if end is None else "\n".join(lines[line - 1 : end + 1])


class _Tally(NamedTuple):
    """How many instructions are of an inlined function, and in words where it was inlined most often."""

    function: InlinedFunction
    weight: int
    words: str


def _tally(chains: list[tuple[InlinedFunction, ...]]) -> dict[str, _Tally]:
    """Count instructions by the name of the innermost inlined function that they are of."""
    found: dict[str, Counter[tuple[InlinedFunction, ...]]] = {}
    for chain in chains:
        found.setdefault(chain[0].name, Counter())[chain] += 1
    result = {}
    for name, counter in found.items():
        ((chain, _),) = counter.most_common(1)
        result[name] = _Tally(chain[0], counter.total(), _in_words(chain))
    return result


def _in_words(chain: tuple[InlinedFunction, ...]) -> str:
    """Return a chain of inlined functions, the innermost first."""
    if len(chain) > _MOST_LEVELS:
        chain = (*chain[: _MOST_LEVELS - 1], chain[-1])
    return ", in ".join(map(str, chain))
