# SPDX-License-Identifier: GPL-2.0-only
"""Which macros can expand to ``__LINE__``, and so which source lines can put a line number into the code.

The problem: a function differs in an immediate, and the difference equals that of two line numbers. It can be a line
number only if the source line can produce one. Only ``__LINE__`` itself can, and the macros whose body names it or
another such macro: WARN_ON, might_sleep, pr_debug and some hundreds more.

The choice: no preprocessor, but the closure over every ``#define`` in an object's files. Two things would make that
useless. ``#define if(...)`` under CONFIG_PROFILE_ALL_BRANCHES makes every line suspect, so conditions on CONFIG_
symbols are evaluated, to yes, no or unknown, and what is certainly not compiled is left out. And ``__UNIQUE_ID`` is no
line: it counts with ``__COUNTER__``.

The cost: the closure may contain macros that the compiler never sees with that definition. What it misses (a macro
passed by name, or pasted together from parameters alone) only makes a proof fail, so that a change is reported that is
none.

Which line of an invocation is taken, was measured with nested invocations over several lines. Of a macro whose body
names ``__LINE__`` GCC 12 takes the line of the name, Clang 19 that of the closing parenthesis. In the arguments of
another macro, both may take the line of that other macro, also for a ``__LINE__`` that is written there
(``ext4_msg(sb, "%s:%d", __func__, __LINE__)`` over three lines has one number, that of the name or of the last
parenthesis); or its own line, if the parameter is not expanded because of ``##``. So each of these lines counts.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

from kbuild_klp.source.file_pair import read
from kbuild_klp.source.passages import COMMENT, QUOTED

LINE = "__LINE__"


class _Define(NamedTuple):
    """A macro's name, the words of its body, and patterns of the words that it makes with ``##``."""

    name: str
    words: frozenset[str]
    pasted: tuple[str, ...]


_NOISE = re.compile(f"{COMMENT}|{QUOTED}")
_DIRECTIVE = re.compile(r"^[ \t]*#[ \t]*(define|if|ifdef|ifndef|elif|else|endif)\b((?:[^\\\n]+|\\[\s\S])*)", re.M)
_DEFINITION = re.compile(r"\s*([A-Za-z_]\w*)(\([^)]*\))?")
_WORD = re.compile(r"[A-Za-z_]\w*")
_PASTE = re.compile(r"\w+(?:\s*##\s*\w+)+")


class MacroIndex:
    """What files define. Each is read once, for objects of one build share nearly all of theirs.

    ``configuration`` maps the symbols that are set (without ``CONFIG_``) to their values; without it every branch of
    every ``#if`` counts.
    """

    def __init__(self, configuration: Mapping[str, str] | None = None) -> None:
        self._condition = _Condition(configuration) if configuration is not None else None
        # The closure over all files read so far, and for each file the few uses that lead to it: so the closure of one
        # object costs no more than looking up its files.
        self._closure = {LINE}
        self._uses: dict[str, list[tuple[str, str]]] = {}
        self._relevant: dict[str, set[tuple[str, str]]] = {}
        self._pasted: list[tuple[re.Pattern[str], str, str]] = []

    def line_macros(self, paths: Iterable[str | os.PathLike[str]]) -> frozenset[str]:
        """Return ``__LINE__`` and the macros that can expand to it, by the ``#define``s in all of ``paths``.

        A file that cannot be read counts as empty.
        """
        names = [os.fspath(path) for path in paths]
        for name in names:
            if name not in self._relevant:
                self._add(name)
        # Only now: a file may make relevant what an earlier one defines.
        users: dict[str, list[str]] = {}
        for name in names:
            for word, user in self._relevant[name]:
                users.setdefault(word, []).append(user)
        closure = {LINE}
        pending = [LINE]
        while pending:
            for user in users.get(pending.pop(), ()):
                if user not in closure:
                    closure.add(user)
                    pending.append(user)
        return frozenset(closure)

    def users(self, word: str) -> set[str]:
        """Return the macros with ``word`` in their body, of all files read so far."""
        return {user for _, user in self._uses.get(word, ())}

    def _add(self, path: str) -> None:
        relevant = self._relevant[path] = set()
        for definition in _defines(path, self._condition):
            for word in definition.words:
                self._uses.setdefault(word, []).append((path, definition.name))
                if word in self._closure:
                    relevant.add((word, definition.name))
                    self._grow(definition.name)
            for pattern in definition.pasted:
                made = re.compile(pattern)
                self._pasted.append((made, path, definition.name))
                for word in [word for word in self._closure if made.fullmatch(word)]:
                    relevant.add((word, definition.name))
                    self._grow(definition.name)

    def _grow(self, name: str) -> None:
        pending = [name] if name not in self._closure else []
        self._closure.add(name)
        while pending:
            word = pending.pop()
            users = self._uses.get(word, [])
            made = [(path, user) for pattern, path, user in self._pasted if pattern.fullmatch(word)]
            for path, user in users + made:
                self._relevant[path].add((word, user))
                if user not in self._closure:
                    self._closure.add(user)
                    pending.append(user)


@lru_cache(maxsize=64)
def line_sites(text: str, macros: frozenset[str]) -> Mapping[int, int]:
    """Return how many words of ``text`` can expand to each line number, leaving out numbers without any.

    A word of ``macros`` can expand to its own line, to that of the parenthesis that closes its arguments, and to those
    on which an invocation begins or ends that has the word in its arguments. Words in comments, strings and
    preprocessor directives do not count.
    """
    bare = _ANY_DIRECTIVE.sub(_blank, _without_noise(text))
    # For each word the lines that it may expand to; for each open parenthesis the words in it.
    words: list[set[int]] = []
    stack: list[tuple[int, list[set[int]]]] = []
    line, counted = 1, 0
    name: tuple[str, int] | None = None
    for match in _WORD_OR_PARENTHESIS.finditer(bare):
        line += bare.count("\n", counted, match.start())
        counted = match.start()
        token = match.group()
        if token == "(":
            before = name[1] if name else 0
            stack.append((before, [words[-1]] if name and name[0] in macros else []))
            name = None
        elif token == ")":
            _close(stack, line)
            name = None
        elif token == "}":
            stack.clear()  # the end of a function, whatever #if made of its parentheses
        elif token in macros:
            words.append({line})
            for _, inside in stack:
                inside.append(words[-1])
            name = token, line
        else:
            name = token, line
    counts: dict[int, int] = {}
    for lines in words:
        for at in lines:
            counts[at] = counts.get(at, 0) + 1
    return counts


def _close(stack: list[tuple[int, list[set[int]]]], line: int) -> None:
    """Give the words in a pair of parentheses the lines at which their invocation begins and ends."""
    if stack:
        begin, inside = stack.pop()
        if begin:
            for lines in inside:
                lines.update((begin, line))


_ANY_DIRECTIVE = re.compile(r"^[ \t]*#(?:[^\\\n]+|\\[\s\S])*", re.M)
_WORD_OR_PARENTHESIS = re.compile(r"[A-Za-z_]\w*|[()]|^\}", re.M)


def _blank(match: re.Match[str]) -> str:
    return "\n" * match.group().count("\n") or " "


def _without_noise(text: str) -> str:
    """Return ``text`` without comments, strings and character constants, but with all its line ends."""
    return _NOISE.sub(_blank, text)


def _defines(path: str, condition: _Condition | None) -> list[_Define]:
    """Return what a file defines, except under an ``#if`` that certainly does not hold."""
    text = read(path)
    if "define" not in text:
        return []
    result: list[_Define] = []
    # One level of #if: whether this branch can be compiled, and whether an earlier one certainly is.
    stack: list[tuple[bool, bool]] = []
    for match in _DIRECTIVE.finditer(_without_noise(text)):
        word, rest = match.group(1), match.group(2)
        if word == "define":
            definition = _DEFINITION.match(rest)
            if definition and all(possible for possible, _ in stack):
                body = rest[definition.end() :]
                pasted = tuple(_pasted(body, definition.group(2))) if "##" in body else ()
                result.append(_Define(definition.group(1), frozenset(_WORD.findall(body)), pasted))
        elif condition is not None:
            _branch(word, rest, stack, condition)
    return result


def _pasted(body: str, parameters: str | None) -> Iterator[str]:
    """Yield a pattern for each word that the body makes with ``##``.

    A pattern with fewer than four letters of its own would match nearly any word, and is left out.
    """
    names = set(_WORD.findall(parameters or ""))
    for chain in _PASTE.findall(body):
        pieces = [piece.strip() for piece in chain.split("##")]
        own = "".join(piece for piece in pieces if piece not in names)
        if len(own.replace("_", "")) >= 4:
            yield "".join(r"\w*" if piece in names else piece for piece in pieces)


def _branch(word: str, rest: str, stack: list[tuple[bool, bool]], condition: _Condition) -> None:
    if word in ("if", "ifdef", "ifndef"):
        truth = condition.truth(f"defined({rest.strip()})" if word != "if" else rest)
        if word == "ifndef" and truth is not None:
            truth = not truth
        stack.append((truth is not False, truth is True))
    elif word == "endif":
        if stack:
            stack.pop()
    elif stack:
        _, done = stack[-1]
        truth = condition.truth(rest) if word == "elif" else True
        stack[-1] = (not done and truth is not False, done or truth is True)


class _Condition:
    """Tells whether an ``#if`` on CONFIG_ symbols holds."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._set = values

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
