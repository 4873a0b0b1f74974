# SPDX-License-Identifier: GPL-2.0-only
"""The whole of a comparison.

In: two sides. Out: a report.

Read passes first: it is the way in the order in which it happens. second_look reads the objects that differ, selection
says which changes the user wants to hear of.
"""
