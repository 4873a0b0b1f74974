# SPDX-License-Identifier: GPL-2.0-only
"""Which changes are of line numbers only, or no changes at all: proved from the sources, or inferred from the objects.

In: changes, and both versions of the object. Out: the same changes, some of them settled.

Read in this order: settle (asks all others), numbers (what differs, if nothing but numbers does), encoding and padding
(instructions that are the same but for their lengths), identity and directories (what builds say of themselves), proof
and linked_proofs (from the sources), renamed (lines in names), records with line_fields and roles (fields that are
lines by definition), infer with witnesses, calls, formats and order (from the objects), ubsan, rust_panics,
kasan_globals and gcov_writeout (what compilers add).
"""
