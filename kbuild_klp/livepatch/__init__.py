# SPDX-License-Identifier: GPL-2.0-only
"""Whether a livepatch can carry a change.

In: all changes of two builds, and their objects. Out: a verdict for each.

Read in this order: rules (over facts that others gather), sides (what one object says), threads (where tasks are for
long), linked_threads (the same for a linked unit), linked_symbols (vmlinux or a module as the kernel searches it),
linked_images (all of them), removed (who still uses what was removed), readers (who has to come along with what cannot
be replaced by itself), retyped (who calls by pointers what has another type), import_crcs (what a linked module says of
others), seen, survey.
"""
