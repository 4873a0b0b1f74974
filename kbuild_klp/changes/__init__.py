# SPDX-License-Identifier: GPL-2.0-only
"""What differs between two objects, told from checksums alone.

In: the entries of both. Out: changes, with reasons as far as checksums know them.

Read in this order: contested (which entries are to be paired at all), pairing (which is which), wording and verdict
(the vocabulary, as data and for people), labels (names that several have), classification.
"""
