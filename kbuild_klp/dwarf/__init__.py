# SPDX-License-Identifier: GPL-2.0-only
"""What debug information says: source lines, and inlined functions.

In: an ELF file. Out: for a place in its code, the line and the functions that it was inlined from.

Read in this order: relocated_stream (sections as they are after relocation), die_scan (entries of .debug_info without
reading all of them), debug_info, source_lines, inlined.
"""
