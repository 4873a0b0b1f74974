# SPDX-License-Identifier: GPL-2.0-only
"""What the demo and the selftests share; the standard library only, for it runs before anything is installed."""

from __future__ import annotations


class TroubleError(Exception):
    """Something that the user has to see to; the message says what."""
