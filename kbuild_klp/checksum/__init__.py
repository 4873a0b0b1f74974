# SPDX-License-Identifier: GPL-2.0-only
"""From an object to its checksum file.

In: objects. Out: one line for each function, variable and section.

Read in this order: entry (what a checksum is of), entries (how it is made), layout (what the order of symbols says),
sum_file (the text), path (where it lies), stale (which are to be made), batch (many objects).
"""
