# SPDX-License-Identifier: GPL-2.0-only
"""One object, taken apart.

In: an ELF file. Out: parts, references with their meanings, and the view that people's questions are asked of.

Read in this order: image (one line of addresses), chunks (what symbols cover), references (what refers where), parts
(every byte in exactly one), targets (what each reference means); canonical has them in one; families (which parts
belong together, which symbols look alike), owned (entries of special sections), meanings (references as rows of
digests), reach (what is reached through data without a name), view. symbol_id says which symbol is meant.
"""
