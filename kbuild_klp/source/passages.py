# SPDX-License-Identifier: GPL-2.0-only
"""C text as the compiler sees it: without comments, white space and the places of things.

The question is never what a text means, only whether two versions of it can mean different things. Two texts with the
same tokens in the same order differ only in the lines that things are on, so their objects can differ only in what
comes from ``__LINE__`` (and in spaces inside what a macro turns into a string).

Where tokens do differ, a file is cut into its pieces at file level (functions, declarations, directives), to see which
of them changed. Braces say where to cut, and the kernel's style where ``#if`` unbalances them: a ``}`` in the first
column ends a piece.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

QUOTED = r"""L?"(?:[^"\\\n]|\\[\s\S])*"|'(?:[^'\\\n]|\\[\s\S])*'"""
COMMENT = r"/\*[^*]*\*+(?:[^/*][^*]*\*+)*/|//(?:[^\\\n]|\\[\s\S])*"
_COMMENT_OR_QUOTED = re.compile(f"({COMMENT})|{QUOTED}")
_TOKEN = re.compile(rf"{QUOTED}|[A-Za-z_]\w*|\.?\d(?:[eEpP][+-]|[\w.])*|\S")
_WORD = re.compile(r"[A-Za-z_]\w*")
_INTEGER = re.compile(r"(?<![\w.])(?:0[xX]([0-9a-fA-F]{1,16})|(\d{1,20}))[uUlL]*(?![\w.])")

# What matters for cutting a file; white space and everything else in between is skipped.
_SCAN = re.compile(
    rf"(?P<directive>^[ \t]*#(?:[^\\\n]|\\[\s\S])*)|(?P<quoted>{QUOTED})|(?P<resync>^\}})|(?P<mark>[{{}}();=])"
    r"|(?P<word>[A-Za-z_]\w*)",
    re.M,
)
_DEFINE = re.compile(r"[ \t]*#[ \t]*define[ \t]+([A-Za-z_]\w*)")
# Words that may stand before a parenthesis at file level and name nothing.
_NO_NAME = frozenset(("__attribute__", "__attribute", "__aligned", "__section", "__printf", "asm", "__asm__"))


@dataclass(frozen=True)
class Passage:
    """One piece of a file at file level, from line ``first`` to line ``last`` (from 1).

    ``names`` are what it can declare: for a function (or a macro invocation such as SYSCALL_DEFINE) the words before a
    parenthesis at file level, for other declarations all words at file level, for a ``#define`` the macro's name.
    ``arguments`` are the words in a function's parentheses, ``words`` all words, ``text`` the tokens separated by
    blanks.
    """

    first: int
    last: int
    names: frozenset[str]
    arguments: frozenset[str]
    words: frozenset[str]
    text: str
    is_function: bool
    is_directive: bool


def integers(texts: Iterable[str]) -> frozenset[int]:
    """Return the values of the integer constants that are written in some pieces' texts."""
    found: set[int] = set()
    for text in texts:
        found.update(map(_value, _INTEGER.finditer(text)))
    return frozenset(found)


def _value(match: re.Match[str]) -> int:
    if match[1]:
        return int(match[1], 16)
    return int(match[2], 8) if match[2][0] == "0" and not set(match[2]) & set("89") else int(match[2])


def tokens(text: str) -> list[str]:
    """Return the tokens of a file. The ends of directives are tokens too, for there lines do matter."""
    if "\\\n" in text:
        text = text.replace("\\\n", "")
    text = _COMMENT_OR_QUOTED.sub(lambda match: " " if match[1] else match[0], text)
    result: list[str] = []
    for line in text.split("\n"):
        found = _TOKEN.findall(line)
        if found and found[0] == "#":
            result += ["\n", *found, "\n"]
        else:
            result += found
    return result


def without_comments(text: str) -> str:
    """Return ``text`` with comments blanked out, its line ends and its quoted text kept."""
    return _COMMENT_OR_QUOTED.sub(lambda match: ("\n" * match[1].count("\n") or " ") if match[1] else match[0], text)


def is_only_comment(text: str) -> bool:
    """Return True when whole comments and white space are all that ``text`` is."""
    return not without_comments(text).strip()


class _Cutter:
    """Cuts one file."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._depth = 0  # of braces and parentheses
        self._start = 0
        self._names: set[str] = set()
        self._arguments: set[str] = set()
        self._called: set[str] = set()
        self._word = ""
        self._in_body = False
        self._is_function = False  # a parenthesis closed at file level, and no = stood there
        self._is_initialiser = False
        self._line = 1
        self._counted = 0

    def passages(self) -> Iterator[Passage]:
        """Yield the pieces in order."""
        for match in _SCAN.finditer(self._text):
            kind = match.lastgroup
            if kind == "word":
                self._take_word(match[0])
            elif kind == "directive":
                # In the middle of a piece it belongs to that.
                if not self._depth and not self._pending(match.start()):
                    yield from self._end(match.start())
                    yield self._directive(match)
            elif kind != "quoted" and self._mark(match[0], kind == "resync"):
                yield from self._end(match.end())
        yield from self._end(len(self._text))

    def _pending(self, end: int) -> bool:
        return bool(self._text[self._start : end].strip())

    def _take_word(self, word: str) -> None:
        self._word = word
        if not self._depth:
            self._names.add(word)
        elif self._called and not self._in_body:
            self._arguments.add(word)

    def _mark(self, mark: str, resync: bool) -> bool:
        """Take one mark; returns True when it ends a piece."""
        if mark == "(":
            if not self._depth and self._word not in _NO_NAME:
                self._called.add(self._word)
            self._depth += 1
        elif mark == "{":
            self._depth += 1
            self._in_body = True
        elif mark == "=":
            self._is_initialiser |= not self._depth
        elif mark == ";":
            return not self._depth
        else:
            self._depth = 0 if resync else max(0, self._depth - 1)
            if not self._depth and mark == ")":
                self._is_function = not self._is_initialiser
            return not self._depth and mark == "}" and self._is_function
        return False

    def _directive(self, match: re.Match[str]) -> Passage:
        name = _DEFINE.match(match[0])
        passage = self._chunk(match.start(), match.end(), frozenset([name[1]] if name else ()), False, True)
        self._start = match.end()
        return passage

    def _end(self, end: int) -> Iterator[Passage]:
        if self._pending(end):
            body = self._text[self._start : end].rstrip()
            is_function = self._is_function and body.endswith("}")
            start = self._start + len(body) - len(body.lstrip())
            yield self._chunk(start, self._start + len(body), frozenset(self._names), is_function, False)
        self._start = end
        self._names, self._arguments, self._called = set(), set(), set()
        self._word = ""
        self._depth = 0
        self._in_body = self._is_function = self._is_initialiser = False

    def _chunk(self, start: int, end: int, names: frozenset[str], is_function: bool, is_directive: bool) -> Passage:
        text = self._text[start:end]
        self._line += self._text.count("\n", self._counted, start)
        self._counted = start
        return Passage(
            self._line,
            self._line + text.count("\n"),
            frozenset(self._called) if is_function else names,
            frozenset(self._arguments) if is_function else frozenset(),
            frozenset(_WORD.findall(text)),
            " ".join(_TOKEN.findall(text.replace("\\\n", " "))),
            is_function,
            is_directive,
        )


def passages(text: str) -> list[Passage]:
    """Cut a file into its pieces at file level, in order."""
    return list(_Cutter(without_comments(text)).passages())


@dataclass(frozen=True)
class TextChange:
    """What differs in tokens between two versions of a file.

    ``removed`` and ``added`` are the pieces that only one version has. ``reordered``: the directives that both have
    are in another order.
    """

    removed: tuple[Passage, ...]
    added: tuple[Passage, ...]
    reordered: bool


def text_change(old: list[Passage], new: list[Passage]) -> TextChange:
    """Compare the pieces of two versions of a file. Moving a function past another one changes neither."""
    before, after = Counter(passage.text for passage in old), Counter(passage.text for passage in new)
    removed = _surplus(old, before - after)
    added = _surplus(new, after - before)
    first, second = (
        [passage.text for passage in side if passage.is_directive and passage not in gone]
        for side, gone in ((old, removed), (new, added))
    )
    return TextChange(removed, added, first != second)


def _surplus(side: list[Passage], surplus: Counter[str]) -> tuple[Passage, ...]:
    result = []
    for passage in side:
        if surplus[passage.text] > 0:
            surplus[passage.text] -= 1
            result.append(passage)
    return tuple(result)
