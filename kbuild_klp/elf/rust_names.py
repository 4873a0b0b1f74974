# SPDX-License-Identifier: GPL-2.0-only
"""Rust's names of symbols (v0, RFC 2603) without the numbers that its compiler gives to what has no name.

A crate has a hash. The blocks `impl` of a module are counted, and so are the closures of a function and what macros
make: one that is put before the others renumbers them. Where a part of a name is repeated, a number says how far into
the name it stood first: that place is counted again, for what is left is a name of the same form.
"""

from __future__ import annotations

import re
from collections.abc import Callable

PREFIX = "_R"

_NUMBER = re.compile(r"s[0-9A-Za-z]*_")  # disambiguator
_LIFETIME = re.compile(r"L[0-9A-Za-z]*_")
# A name may be anything: numbers have as many digits as names can need.
_IDENTIFIER = re.compile(r"u?(0|[1-9][0-9]{0,8})_?")
_BACK = re.compile(r"B([0-9A-Za-z]{0,5})_")
_PATHS = frozenset("CMXYNI")
_BASIC = frozenset("abcdefhijlmnopstuvxyz")
_CONSTANT = re.compile(r"p|[a-z]n?[0-9a-f]*_")
_BINDER = re.compile(r"G[0-9A-Za-z]*_")
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_DEEPEST = 100  # of parts in parts: Python's stack is not endless


class _NoNameError(Exception):
    """What begins like such a name is none."""


def without_numbers(name: str) -> tuple[str, bool] | None:
    """Return a name without numbers, and whether it has parts that are counted; None for what is no such name."""
    parser = _Parser(name)
    try:
        parser.path()
        if parser.next in (*_PATHS, "B"):
            parser.path()  # the crate for which it was instantiated
    except _NoNameError:
        return None
    rest = name[parser.at :]
    if rest and rest[0] not in ".$":
        return None
    return parser.written + rest, parser.is_counted


class _Parser:
    """Reads a name from its beginning, a rule of the grammar a method, and writes it without numbers."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.at = len(PREFIX)
        self._pieces = [PREFIX]
        self._length = len(PREFIX)
        self.is_counted = False
        self._places: dict[int, int] = {}
        """Where what may be repeated stands, and where it was written."""
        self._depth = 0

    @property
    def next(self) -> str:
        """The next letter, empty at the end."""
        return self._name[self.at : self.at + 1]

    @property
    def written(self) -> str:
        """What was read so far, without numbers."""
        return "".join(self._pieces)

    def path(self) -> None:
        """Read what names a crate, a module, a function and so on."""
        self._enter()
        tag = self._take()
        if tag == "C":
            self._skip_number()
            self._identifier()
        elif tag in ("M", "X"):
            self.is_counted = True
            self._skip_number()
            self.path()
            self._type()
            if tag == "X":
                self.path()
        elif tag == "Y":
            self._type()
            self.path()
        elif tag == "N":
            space = self._take()
            self.path()
            # Those in capitals have no names of their own: closures, shims.
            self.is_counted |= self._skip_number() or space.isupper()
            self._identifier()
        elif tag == "I":
            self.path()
            self._until_end(self._argument)
        else:
            self._go_back(tag)
        self._depth -= 1

    def _type(self) -> None:
        if self.next in _PATHS:
            self.path()
            return
        self._enter()
        tag = self._take()
        if tag in _BASIC:
            pass
        elif tag == "A":
            self._type()
            self._constant()
        elif tag in "SPO":
            self._type()
        elif tag in "RQ":
            self._keep(_LIFETIME)
            self._type()
        elif tag == "T":
            self._until_end(self._type)
        elif tag == "F":
            self._signature()
        elif tag == "D":
            self._keep(_BINDER)
            self._until_end(self._bound)
            if not self._keep(_LIFETIME):
                raise _NoNameError
        else:
            self._go_back(tag)
        self._depth -= 1

    def _signature(self) -> None:
        self._keep(_BINDER)
        if self.next == "U":
            self._take()
        if self.next == "K":
            self._take()
            if self.next == "C":
                self._take()
            else:
                self._identifier()
        self._until_end(self._type)
        self._type()

    def _bound(self) -> None:
        self.path()
        while self.next == "p":
            self._take()
            self._identifier()
            self._type()

    def _argument(self) -> None:
        if self.next == "K":
            self._take()
            self._constant()
        elif not self._keep(_LIFETIME):
            self._type()

    def _constant(self) -> None:
        self._enter()
        if self.next == "B":
            self._go_back(self._take())
        elif not self._keep(_CONSTANT):
            raise _NoNameError
        self._depth -= 1

    def _identifier(self) -> None:
        match = _IDENTIFIER.match(self._name, self.at)
        end = match.end() + int(match[1]) if match else 0
        if not match or end > len(self._name):
            raise _NoNameError
        self._write_until(end)

    def _go_back(self, tag: str) -> None:
        """Read the rest of what says that something is repeated."""
        match = _BACK.match(self._name, self.at - 1)
        if tag != "B" or match is None:
            raise _NoNameError
        place = self._places.get(len(PREFIX) + _from_digits(match[1]))
        if place is None:
            raise _NoNameError
        self.at = match.end()
        self._write(f"{_to_digits(place - len(PREFIX))}_")

    # -- letters --------------------------------------------------------------------------------------------------

    def _enter(self) -> None:
        self._places.setdefault(self.at, self._length)
        self._depth += 1
        if self._depth > _DEEPEST:
            raise _NoNameError

    def _write(self, text: str) -> None:
        self._pieces.append(text)
        self._length += len(text)

    def _write_until(self, end: int) -> None:
        self._write(self._name[self.at : end])
        self.at = end

    def _take(self) -> str:
        letter = self.next
        if not letter:
            raise _NoNameError
        self._write_until(self.at + 1)
        return letter

    def _keep(self, pattern: re.Pattern[str]) -> bool:
        match = pattern.match(self._name, self.at)
        if match is not None:
            self._write_until(match.end())
        return match is not None

    def _skip_number(self) -> bool:
        match = _NUMBER.match(self._name, self.at)
        if match is not None:
            self.at = match.end()
        return match is not None

    def _until_end(self, read: Callable[[], None]) -> None:
        while self.next != "E":
            read()
        self._take()


def _from_digits(digits: str) -> int:
    """Return a number in the base of 62 in which no digit is zero, and the digit 0 is one."""
    number = 0
    for digit in digits:
        number = 62 * number + _DIGITS.index(digit)
    return number + 1 if digits else 0


def _to_digits(number: int) -> str:
    digits = ""
    rest = number - 1
    while rest > 0 or (rest == 0 and not digits):
        rest, digit = divmod(rest, 62)
        digits = _DIGITS[digit] + digits
    return digits
