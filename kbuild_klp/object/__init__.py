# SPDX-License-Identifier: GPL-2.0-only
"""One object, taken apart.

In: ELF files, a batch of them or one. Out: parts, references with their meanings, and the view of one object of which
people's questions are asked.

Read in this order: special_groups and cuts (which sections are special tables, and their entries), image (one line of
addresses), chunks (what symbols cover), stripped (names for what has lost them), references (what refers where), parts
(every byte in exactly one), targets (what each reference means); canonical has them in one; families (which parts
belong together, which symbols look alike), owned (entries of special sections), pointed_lines and btf_ids (what else is
taken out of records); apart (a batch cut into its objects again), target_digests and meanings (references as rows of
digests), reach (what is reached through data without a name).
symbol_id says which symbol is meant, symbol_sources of which source it is, kinds by what sort of relocation. Then view,
and what is asked of it: function (its instructions), special_entries, reference_text. code decodes, runs and place are
what the others are written with.
"""
