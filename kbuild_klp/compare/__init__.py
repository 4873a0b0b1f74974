# SPDX-License-Identifier: GPL-2.0-only
"""The whole of a comparison.

In: two sides. Out: a report.

Read passes first: it is the way in the order in which it happens. Its stages: differing (from checksums alone),
second_look (at the objects that differ), selection (which changes the user wants to hear of). answer is for who asks
about a symbol.
"""
