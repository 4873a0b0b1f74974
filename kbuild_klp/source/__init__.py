# SPDX-License-Identifier: GPL-2.0-only
"""C text: what the sources say about two objects, without compiling anything.

In: the text of two versions of a file. Out: which line became which, and which passages (functions, declarations,
directives) differ.

Read in this order: matching (what two sequences have in common), line_map, passages, file_pair (both versions of one
file), macros (which lines can expand to ``__LINE__``).
"""
