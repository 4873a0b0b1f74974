# SPDX-License-Identifier: GPL-2.0-only
"""A place in a function, as people are told of it."""

from __future__ import annotations

from typing import NamedTuple


class Place(NamedTuple):
    """A place in a function: ``part`` is the part that was split off, empty for the function itself."""

    part: str
    at: int

    def __str__(self) -> str:
        return f"{self.part}+{self.at:#x}"

    @property
    def values(self) -> dict[str, int | str]:
        """The place by name, for scripts."""
        return {"at": self.at, "part": self.part} if self.part else {"at": self.at}
