# SPDX-License-Identifier: GPL-2.0-only
"""Proof, from the sources, that numbers in an object are source lines that moved.

Both versions of all sources of the object have to be those that were compiled. What is to be proved is always a
pair of numbers, a before and b now, at a place where nothing else differs. There are two proofs.

*Nothing but lines differs.* All files of the object have the same tokens in the same order, and were compiled by the
same command. Then nothing but line numbers can differ, and it is enough that line a of one of the files is its line b
now; or that a and b differ by a power of two times as much as a line of the function that can put its number into the
code (``__LINE__ << 16 | 3``).

*Something else differs, too.* The object's sources have a change somewhere, which may move a constant by as much as
lines move. Then, for each pair:

- line a of a file is its line b now, and has a macro on it that expands to ``__LINE__`` (source/macros.py);
- the line is in the function itself, or in one that may be inlined there because the function mentions it, directly or
  in several steps; and the text of both functions is the same as before, apart from lines. So a function that was
  edited is never excused;
- no more numbers go from a to b than there are such macros on the line. A constant that goes the same way is one too
  many. Where the compiler copied code, the copies count as one: they load the number in the same way and call the same
  function next;
- nowhere in the sources did a constant a go and a constant b come.

What this can miss: a line number that the compiler dropped from both versions, while a constant that comes from a
changed part of the sources (the size of a structure, an enumerator without a value) goes from the old number of that
line to the new one. What it reports needlessly: a function that was edited without effect; a line number in a function
that is not in the source under its name, or that comes from a function inlined by way of an unchanged header; and
one that became longer, because line 128 needs more bytes than line 127 (that is recognised only where nothing but
lines differs).

Numbers in variables are treated alike if the variable is declared in the source under its name. A variable that a
macro makes (``_entry`` of printk) has the lines of that macro's invocations.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain

from kbuild_klp.builds.object_pair import ObjectPair
from kbuild_klp.builds.side import SINGLE_OBJECT, Build
from kbuild_klp.elf.symbol_names import canonical_name, source_name
from kbuild_klp.kernel.build_identity import identity
from kbuild_klp.kernel.settings import Settings, changed_flags
from kbuild_klp.kernel.sources import FileComparison, SourceFiles
from kbuild_klp.source.file_pair import FilePair, read
from kbuild_klp.source.macros import MacroIndex, line_sites
from kbuild_klp.source.passages import Passage

MOST_LINES = 1 << 20
"""Lines of a file. The longest generated header of Linux has some 250,000."""
_MOST_HEADERS = 64  # searched for a function that is not in the compiled file
_RENAMES = frozenset(("asm", "__asm", "__asm__", "alias", "__alias", "__alias__", "weakref", "__weakref__"))
_PLACING_FLAGS = frozenset(("-ffunction-sections", "-fdata-sections"))  # they decide where things are, not what
_MOST_SHIFT = 16  # bits by which a line number may have been shifted


Readings = tuple[tuple[int, int], ...]
"""A number that changed: what it may have been and be now, where the width of its field or its sign is not known."""

DistinctUses = Callable[[Sequence[int]], int]
"""Counts the uses of some numbers, given by index: copies that the compiler made are one use."""


class LineProver:
    """Proofs for the objects of two builds. Files are read once, whatever happens to them meanwhile."""

    def __init__(self, old: Build, new: Build) -> None:
        self.old = old
        self.new = new
        self.comparison = FileComparison()
        self._pairs: dict[tuple[str, str], FilePair] = {}
        self._macros: dict[str, MacroIndex] = {}

    @cached_property
    def identities(self) -> dict[str, str]:
        """What the old build says of itself, with what the new one says instead, as far as both are known."""
        texts = []
        for side in (self.old, self.new):
            tree, settings = side.tree(SINGLE_OBJECT), side.settings()
            known = {"release": settings.release} if settings and settings.release else {}
            texts.append({**known, **(identity(tree) if tree else {})})
        old, new = texts
        return {text: new[name] for name, text in old.items() if new.get(name, text) != text}

    @cached_property
    def has_same_configuration(self) -> bool:
        """Whether both builds are known to have the same configuration."""
        texts = []
        for side in (self.old, self.new):
            tree = side.tree(SINGLE_OBJECT)
            settings = side.settings() or (Settings.of(tree) if tree else None)
            texts.append(settings.configuration if settings else "")
        return bool(texts[0]) and texts[0] == texts[1]

    def pair(self, old: str, new: str) -> FilePair:
        """Return two versions of a file."""
        if (old, new) not in self._pairs:
            self._pairs[old, new] = FilePair(old, new)
        return self._pairs[old, new]

    def macros(self, name: str) -> MacroIndex:
        """Return the index of macros for the tree that an object is in."""
        tree = self.old.tree(name) or self.new.tree(name)
        root = str(tree.root) if tree else ""
        if root not in self._macros:
            self._macros[root] = MacroIndex(tree.settings if tree else None)
        return self._macros[root]

    def of(self, pair: ObjectPair) -> ObjectProof | None:
        """Return the proof for one object, None when its sources are not at hand."""
        old, new = pair.sources()
        return ObjectProof(self, pair.name, old, new) if old is not None and new is not None else None


class ObjectProof:
    """Proofs for one object, whose sources are ``old`` and ``new``."""

    def __init__(self, prover: LineProver, name: str, old: SourceFiles, new: SourceFiles) -> None:
        self._prover = prover
        self._name = name
        self._old = old
        self._new = new

    # -- what differs ---------------------------------------------------------------------------------------------

    @cached_property
    def _changed(self) -> dict[str, FilePair]:
        """The files that differ and that both objects depend on, by name; the compiled one comes first."""
        changes = self._prover.comparison.changed_files(self._old, self._new)
        found = {name: self._prover.pair(*paths) for name, paths in changes.items()}
        main = self._old.main
        return {main: found.pop(main), **found} if main in found else found

    @cached_property
    def only_lines_differ(self) -> bool:
        """Whether line numbers are the only thing that can differ between the two objects."""
        old, new = self._old, self._new
        if old.saved is None or new.saved is None or old.main != new.main or old.files.keys() != new.files.keys():
            return False
        if old.saved.command != new.saved.command and changed_flags(old.saved, new.saved):
            return False
        return all(pair.only_lines_differ for pair in self._changed.values())

    @cached_property
    def _main(self) -> FilePair | None:
        """The file that was compiled."""
        old, new = self._old.files[self._old.main], self._new.files.get(self._old.main)
        if new is None:
            return None
        return self._prover.pair(old, old if self._prover.comparison.same(old, new) else new)

    def _was_replaced(self, old: int, new: int) -> bool:
        """Say whether a constant ``old`` went and a constant ``new`` came anywhere in the sources."""
        edited = [pair for pair in self._changed.values() if not pair.only_lines_differ]
        return any(old in pair.replaced[0] for pair in edited) and any(new in pair.replaced[1] for pair in edited)

    # -- proofs ---------------------------------------------------------------------------------------------------

    def proves_record(self, file: str | None, old: int, new: int) -> bool:
        """Return True when line ``old`` of ``file`` is line ``new`` now; both are known to be lines of that file.

        ``file`` is what ``__FILE__`` says; None for any file of the object.
        """
        if old == new:
            return True
        pairs: Iterable[FilePair] = self._changed.values()
        if file is not None:
            path = self._old.find(file)
            pairs = [pair for pair in pairs if pair.old == path]
        return any(pair.lines.map(old) == new for pair in pairs)

    def proves(
        self, symbol: str, is_function: bool, numbers: Sequence[Readings], distinct_uses: DistinctUses = len
    ) -> bool:
        """Return True when all ``numbers`` of one function or variable are lines that moved."""
        possible = [tuple(filter(_can_be_lines, readings)) for readings in numbers]
        if self.only_lines_differ:
            return all(
                any(self._is_line(*values) for values in lines)
                or any(self._follows_from_line(symbol, is_function, *values) for values in readings)
                for readings, lines in zip(numbers, possible, strict=True)
            )
        return self._proves_each(symbol, is_function, possible, distinct_uses)

    def _is_line(self, old: int, new: int) -> bool:
        return any(pair.lines.map(old) == new for pair in self._changed.values())

    def _follows_from_line(self, symbol: str, is_function: bool, old: int, new: int) -> bool:
        """Say whether two numbers can have been computed from the old and new number of a line in the function."""
        main = self._main
        if main is None or old == new:
            return False
        passages = _own(main.old_passages, symbol, is_function)
        for line in self._sites(main):
            moved = main.lines.map(line)
            if moved not in (None, line) and any(passage.first <= line <= passage.last for passage in passages):
                factor, rest = divmod(abs(new - old), abs(moved - line))
                if not rest and factor & (factor - 1) == 0 and factor <= 1 << _MOST_SHIFT:
                    return True
        return False

    def _proves_each(
        self, symbol: str, is_function: bool, numbers: Sequence[Readings], distinct_uses: DistinctUses
    ) -> bool:
        # The cheapest questions first: of thousands of functions that differ, hardly any gets past the second.
        chosen: dict[tuple[int, int], list[int]] = {}
        for index, readings in enumerate(numbers):
            pair = next((values for values in readings if self._is_line(*values)), None)
            if pair is None:
                return False
            chosen.setdefault(pair, []).append(index)
        moved = [pair for pair in self._changed.values() if any(pair.lines.map(a) == b for a, b in chosen)]
        places = list(self._places(symbol, is_function, moved))
        if not places:
            return False
        for (old, new), uses in chosen.items():
            known = sum(
                self._sites(file).get(old, 0)
                for file, passages in places
                if file.lines.map(old) == new and any(passage.first <= old <= passage.last for passage in passages)
            )
            if not known or self._was_replaced(old, new) or (len(uses) > known and distinct_uses(uses) > known):
                return False
        return True

    def _sites(self, pair: FilePair) -> Mapping[int, int]:
        return line_sites(read(pair.old), self._line_macros)

    @cached_property
    def _line_macros(self) -> frozenset[str]:
        return self._prover.macros(self._name).line_macros(self._old.files.values())

    # -- where the line numbers in a function can come from -------------------------------------------------------

    def _places(
        self, symbol: str, is_function: bool, wanted: Sequence[FilePair]
    ) -> Iterator[tuple[FilePair, list[Passage]]]:
        """Yield those of the files ``wanted`` with pieces that may be in the code of a function (data of a variable).

        Only pieces that did not change; nothing if the function itself did, or is not found.
        """
        main = self._main
        if main is None:
            return
        home, own = self._home(symbol, is_function) or (main, [])
        if not own:
            if not is_function and self._is_made_by_macro(symbol):
                yield main, _unchanged(main, main.old_passages)
            return
        if not _has_same_text(home, own, symbol, is_function):
            return
        if not is_function:
            yield home, own
            return
        near, reached = self._reached(home, main, own)
        for pair in wanted:
            inside = _closure(reached, pair.old_passages) if pair not in near else reached
            members = {id(passage) for passage in inside}
            passages = [passage for passage in pair.old_passages if passage.is_function and id(passage) in members]
            unchanged = _unchanged(pair, passages)
            if unchanged:
                yield pair, unchanged

    def _home(self, symbol: str, is_function: bool) -> tuple[FilePair, list[Passage]] | None:
        """Return the file that defines a function or variable, and the pieces that do it; None if it is not found."""
        main = self._main
        files = [*([main] if main else ()), *(pair for pair in self._changed.values() if pair is not main)]
        for home in files:
            # It may be in a header or an included C file. If all headers changed, looking at them takes too long.
            if home is not main and not home.old.endswith(".c") and len(files) > _MOST_HEADERS:
                continue
            if home is not main and symbol_word(symbol) not in read(home.old):
                continue
            own = _own(home.old_passages, symbol, is_function)
            if own:
                return home, own
        return None

    @staticmethod
    def _reached(home: FilePair, main: FilePair, own: list[Passage]) -> tuple[list[FilePair], list[Passage]]:
        """Return its file and the compiled one, and what a function mentions there, directly or in several steps."""
        near = [home, main] if home is not main else [main]
        return near, _closure(own, [passage for pair in near for passage in pair.old_passages])

    def says_the_same(self, symbol: str) -> bool:
        """Return True when a function means the same in both sources.

        Its text is the same, none of the functions and macros that it mentions, directly or in several steps, changed,
        came or went, and neither did the configuration, the flags or the order of directives. Variables may come and
        go: those that it mentions are known by name.
        """
        old, new, main = self._old, self._new, self._main
        if main is None or old.saved is None or new.saved is None or not self._prover.has_same_configuration:
            return False
        if old.files.keys() != new.files.keys() or changed_flags(old.saved, new.saved) - _PLACING_FLAGS:
            return False
        home, own = self._home(symbol, True) or (main, [])
        if not own or not _has_same_text(home, own, symbol, True):
            return False
        near, reached = self._reached(home, main, own)
        for pair in {id(pair): pair for pair in (*near, *self._changed.values())}.values():
            if pair.only_lines_differ:
                continue
            change = pair.change
            inside = reached if pair in near else _closure(reached, pair.old_passages)
            words = frozenset[str]().union(*(passage.words for passage in inside))
            if change.reordered or any(passage in change.removed for passage in inside):
                return False
            if any(_may_give_another_meaning(passage, words) for passage in (*change.removed, *change.added)):
                return False
        return True

    def _is_made_by_macro(self, symbol: str) -> bool:
        """Say whether a variable of that name is in the body of a macro that can expand to a line number."""
        return bool(self._prover.macros(self._name).users(symbol_word(symbol)) & self._line_macros)


def _has_same_text(home: FilePair, own: list[Passage], symbol: str, is_function: bool) -> bool:
    """Say whether the pieces that define something have the same text in both versions of a file."""
    after = Counter(passage.text for passage in _own(home.new_passages, symbol, is_function))
    return Counter(passage.text for passage in own) == after


def _may_give_another_meaning(passage: Passage, words: frozenset[str]) -> bool:
    """Say whether a piece that came or went can change what ``words`` elsewhere mean."""
    if passage.is_directive and not passage.names:
        return True  # #if, #undef
    if passage.is_directive or passage.is_function:
        return not words.isdisjoint(passage.names)
    return not _RENAMES.isdisjoint(passage.words)


def _can_be_lines(values: tuple[int, int]) -> bool:
    return all(0 < value <= MOST_LINES for value in values)


def symbol_word(symbol: str) -> str:
    """Return the word in the source that names a symbol: without its file, suffixes and numbers."""
    return source_name(canonical_name(symbol).text).partition(".")[0]


def _own(passages: list[Passage], symbol: str, is_function: bool) -> list[Passage]:
    """Return the pieces of a file that define a function or variable; several where #if chooses one."""
    word = symbol_word(symbol)
    if not is_function:
        named = [passage for passage in passages if not passage.is_directive and word in passage.names]
        # Otherwise it is a static one in a function.
        return named or [passage for passage in passages if passage.is_function and word in passage.words]
    own = [passage for passage in passages if passage.is_function and word in passage.names]
    if not own:
        # SYSCALL_DEFINE3(read, ...) makes __do_sys_read, DEFINE_IDTENTRY(exc_overflow) exc_overflow.
        own = [
            passage
            for passage in passages
            if passage.is_function
            and any(name.isupper() for name in passage.names)
            and any(f"_{word}".endswith(f"_{argument}") for argument in passage.arguments)
        ]
    return own


def _closure(own: list[Passage], passages: list[Passage]) -> list[Passage]:
    """Return pieces and all functions and macros among ``passages`` that they mention, directly or in several steps."""
    by_name: dict[str, list[Passage]] = {}
    for passage in passages:
        if passage.is_function or passage.is_directive:
            for name in passage.names:
                by_name.setdefault(name, []).append(passage)
    found = {id(passage): passage for passage in own}
    waiting = list(own)
    while waiting:
        mentioned = (by_name[name] for name in waiting.pop().words & by_name.keys())
        fresh = [passage for passage in chain.from_iterable(mentioned) if id(passage) not in found]
        found.update((id(passage), passage) for passage in fresh)
        waiting += fresh
    return [*found.values()]


def _unchanged(pair: FilePair, passages: list[Passage]) -> list[Passage]:
    removed = pair.change.removed if not pair.only_lines_differ else ()
    return [passage for passage in passages if passage not in removed]
