# SPDX-License-Identifier: GPL-2.0-only
"""Which macros can expand to ``__LINE__``, and so on which source lines a line number can come into the code.

The problem: a function differs in an immediate, and the difference equals that of two line numbers. It is a
line number only if the source line can produce one. All that can are ``__LINE__`` itself and the macros
whose body names it, or names another such macro: WARN_ON, might_sleep, pr_debug and some hundreds more.

The choice: no preprocessor, but the closure over every ``#define`` of an object's files. Two things would
make it useless. ``#define if(...)`` under CONFIG_PROFILE_ALL_BRANCHES makes every line suspect, so
conditions on CONFIG_ symbols are evaluated, to yes, no or unknown; only what is surely not compiled is left
out. And ``__UNIQUE_ID`` is no line: it counts with ``__COUNTER__``.

The cost: a macro may be in the closure that the compiler never sees so defined. What is missed (a macro
pasted together with ``##``, or passed by name) only makes a proof fail, which reports a change that is none.

Where in an invocation the number is taken, measured: GCC 12 takes the line of the macro's name, Clang 19
that of the parenthesis that closes its arguments. For a macro among another macro's arguments it is the
inner one's in both, and ``__LINE__`` written in the source has its own line.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

LINE = "__LINE__"


class _Define(NamedTuple):
    name: str
    words: frozenset[str]


_NOISE = re.compile(
    r"""/\*[^*]*\*+(?:[^/*][^*]*\*+)*/|//[^\n]*|"(?:[^"\\\n]|\\[\s\S])*"|'(?:[^'\\\n]|\\[\s\S])*'"""
)
_DIRECTIVE = re.compile(
    r"^[ \t]*#[ \t]*(define|if|ifdef|ifndef|elif|else|endif)\b((?:[^\\\n]+|\\[\s\S])*)", re.M
)
_DEFINITION = re.compile(r"\s*([A-Za-z_]\w*)(\([^)]*\))?")
_WORD = re.compile(r"[A-Za-z_]\w*")


def line_macros(
    paths: Iterable[str | os.PathLike[str]], configuration: Mapping[str, str] | None = None
) -> frozenset[str]:
    """The macros that can expand to ``__LINE__``, by the ``#define``s in all of ``paths``; ``__LINE__`` is
    one.

    ``configuration`` maps the symbols that are set (without ``CONFIG_``) to their values; without it every
    branch of every ``#if`` counts. A file that cannot be read counts as empty. What a file defines is
    remembered for the process, as long as the file stays as it is.
    """
    known = _Configuration(configuration) if configuration is not None else None
    users: dict[str, set[str]] = {}
    for path in paths:
        name = os.fspath(path)
        try:
            status = os.stat(name)  # noqa: PTH116
        except OSError:
            continue
        for definition in _defines(name, status.st_mtime_ns, status.st_size, known):
            for word in definition.words:
                users.setdefault(word, set()).add(definition.name)
    closure = {LINE}
    pending = [LINE]
    while pending:
        for user in users.get(pending.pop(), ()):
            if user not in closure:
                closure.add(user)
                pending.append(user)
    return frozenset(closure)


def line_can_expand(text_lines: Sequence[str], line_number: int, macros: frozenset[str]) -> bool:
    """Whether the compiler can take ``line_number`` (from 1) for a ``__LINE__`` in this text.

    It can where a word of ``macros`` stands (GCC), and where the parenthesis closes that opened behind such
    a word (Clang). Words in comments, strings and preprocessor directives do not count.
    """
    return line_number in expanding_lines("\n".join(text_lines), macros)


@lru_cache(maxsize=64)
def expanding_lines(text: str, macros: frozenset[str]) -> frozenset[int]:
    """All line numbers of ``text`` for which ``line_can_expand`` holds."""
    bare = _without_noise(text)
    bare = _ANY_DIRECTIVE.sub(_blank, bare)
    found: set[int] = set()
    starts = [0]
    starts.extend(match.end() for match in re.finditer("\n", bare))
    line = 0
    for match in _WORD.finditer(bare):
        while line + 1 < len(starts) and starts[line + 1] <= match.start():
            line += 1
        if match.group() in macros:
            found.add(line + 1)
            closing = _closing(bare, match.end())
            if closing is not None:
                found.add(line + 1 + bare.count("\n", match.end(), closing))
    return frozenset(found)


_ANY_DIRECTIVE = re.compile(r"^[ \t]*#(?:[^\\\n]+|\\[\s\S])*", re.M)
_OPENING = re.compile(r"(?:\s|\\\n)*\(")
_PARENTHESIS = re.compile(r"[()]")


def _closing(text: str, place: int) -> int | None:
    """Where the parenthesis closes that opens at ``place``, None if none opens there."""
    opening = _OPENING.match(text, place)
    if opening is None:
        return None
    depth = 1
    for match in _PARENTHESIS.finditer(text, opening.end()):
        depth += 1 if match.group() == "(" else -1
        if not depth:
            return match.start()
    return None


def _blank(match: re.Match[str]) -> str:
    return "\n" * match.group().count("\n") or " "


def _without_noise(text: str) -> str:
    """``text`` with comments, strings and character constants taken out, its line ends kept."""
    return _NOISE.sub(_blank, text)


@lru_cache(maxsize=8192)
def _defines(
    path: str, mtime_ns: int, size: int, configuration: _Configuration | None
) -> tuple[_Define, ...]:
    """What a file defines. The times are in the arguments so that a changed file is read again."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            text = file.read()
    except (OSError, ValueError):
        return ()
    if "define" not in text:
        return ()
    result: list[_Define] = []
    # One level of #if: whether this branch can be compiled, and whether an earlier one surely is.
    stack: list[tuple[bool, bool]] = []
    for match in _DIRECTIVE.finditer(_without_noise(text)):
        word, rest = match.group(1), match.group(2)
        if word == "define":
            definition = _DEFINITION.match(rest)
            if definition and all(possible for possible, _ in stack):
                words = frozenset(_WORD.findall(rest, definition.end()))
                result.append(_Define(definition.group(1), words))
        elif configuration is not None:
            _branch(word, rest, stack, configuration)
    return tuple(result)


def _branch(word: str, rest: str, stack: list[tuple[bool, bool]], configuration: _Configuration) -> None:
    if word in ("if", "ifdef", "ifndef"):
        truth = configuration.truth(f"defined({rest.strip()})" if word != "if" else rest)
        if word == "ifndef" and truth is not None:
            truth = not truth
        stack.append((truth is not False, truth is True))
    elif word == "endif":
        if stack:
            stack.pop()
    elif stack:
        _, done = stack[-1]
        truth = configuration.truth(rest) if word == "elif" else True
        stack[-1] = (not done and truth is not False, done or truth is True)


class _Configuration:
    """Tells whether an ``#if`` on CONFIG_ symbols holds. Two with the same content are equal."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = frozenset(values.items())
        self._set = dict(values)
        self._hash = hash(self._values)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Configuration) and self._values == other._values

    def truth(self, condition: str) -> bool | None:
        """Whether ``condition`` holds, None if that is not known."""
        if "CONFIG_" not in condition:
            return None
        tokens = _CONDITION_TOKEN.findall(condition.replace("\\\n", " "))
        value, rest = self._any(tokens, 0)
        return value if rest == len(tokens) else None

    def _any(self, tokens: list[str], at: int) -> tuple[bool | None, int]:
        value, at = self._all(tokens, at)
        while at < len(tokens) and tokens[at] == "||":
            other, at = self._all(tokens, at + 1)
            value = True if True in (value, other) else None if None in (value, other) else False
        return value, at

    def _all(self, tokens: list[str], at: int) -> tuple[bool | None, int]:
        value, at = self._one(tokens, at)
        while at < len(tokens) and tokens[at] == "&&":
            other, at = self._one(tokens, at + 1)
            value = False if False in (value, other) else None if None in (value, other) else True
        return value, at

    def _one(self, tokens: list[str], at: int) -> tuple[bool | None, int]:
        if at >= len(tokens):
            return None, at
        token = tokens[at]
        if token == "!":
            value, at = self._one(tokens, at + 1)
            return (None if value is None else not value), at
        if token == "(":
            value, at = self._any(tokens, at + 1)
            closed = at < len(tokens) and tokens[at] == ")"
            value, at = (value, at + 1) if closed else (None, at)
        else:
            value, at = (self._symbol(token) if "CONFIG_" in token else None), at + 1
        # A comparison, or a call of some other macro: skip what belongs to it.
        while at < len(tokens) and tokens[at] not in ("&&", "||", ")"):
            value = None
            if tokens[at] == "(":
                _, at = self._any(tokens, at + 1)
            at += 1
        return value, at

    def _symbol(self, token: str) -> bool | None:
        match = _CONFIG_TEST.fullmatch(token)
        if match is None:
            return None
        test, symbol = match.groups()
        value = self._set.get(symbol)
        if test == "IS_ENABLED":
            return value in ("y", "m")
        # A tristate that is m defines CONFIG_X_MODULE in its stead.
        builtin = value is not None and value not in ("m", "n")
        module = symbol.endswith("_MODULE") and self._set.get(symbol[:-7]) == "m"
        if test in ("IS_BUILTIN", "IS_MODULE"):
            return value == ("y" if test == "IS_BUILTIN" else "m")
        return builtin or module if test == "defined" else None


_CONDITION_TOKEN = re.compile(
    r"(?:defined|IS_ENABLED|IS_BUILTIN|IS_MODULE)\s*\(\s*CONFIG_\w+\s*\)|defined\s+CONFIG_\w+|&&|\|\||!(?!=)|[()]|[^\s()&|!]+|\S"
)
_CONFIG_TEST = re.compile(r"(defined|IS_ENABLED|IS_BUILTIN|IS_MODULE)\s*\(?\s*CONFIG_(\w+)\s*\)?")
