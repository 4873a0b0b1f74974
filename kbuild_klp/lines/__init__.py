# SPDX-License-Identifier: GPL-2.0-only
"""Which changes are of line numbers only, or no changes at all: proved from the sources, or inferred from the objects.

In: changes, and both versions of the object. Out: the same changes, some of them settled.

Read settle first: it asks all others.
"""
