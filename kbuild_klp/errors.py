# SPDX-License-Identifier: GPL-2.0-only
"""The one family of exceptions; each becomes one line that names the file, the place and what to do."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


class KlpError(Exception):
    """Something the user gave cannot be used.

    ``message`` says what is wrong, ``file`` names the file or directory, ``place`` where in it (a section, a
    line, an offset), ``hint`` what to do about it.
    """

    def __init__(
        self,
        message: str,
        *,
        file: str | os.PathLike[str] | None = None,
        place: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.file = None if file is None else os.fspath(file)
        self.place = place
        self.hint = hint

    def __str__(self) -> str:
        where = ": ".join(part for part in (self.file, self.place) if part)
        text = f"{where}: {self.message}" if where else self.message
        return f"{text}; {self.hint}" if self.hint else text


class BadObjectError(KlpError):
    """An object file that is truncated, foreign or broken."""


class BadSumFileError(KlpError):
    """A checksum file or archive that is damaged or of another format version."""


class BadTreeError(KlpError):
    """A directory that is not a built kernel tree."""


class ProgramError(KlpError):
    """A program that was to do something for us is missing, or failed; ``output`` is what it had printed by then."""

    output: str = ""


@contextmanager
def system_errors(file: str | os.PathLike[str] | None = None, hint: str | None = None) -> Iterator[None]:
    """Raise KlpError for what the system refuses: of ``file``, or of the one that it names."""
    try:
        yield
    except OSError as error:
        where = error.filename if file is None else file
        raise KlpError(error.strerror or str(error), file=where, hint=hint) from None
