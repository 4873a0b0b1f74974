# SPDX-License-Identifier: GPL-2.0-only
"""The changed functions of an object, in a new relocatable object of their own.

In: two versions of an object. Out: the bytes of a third, what it carries, and what could not be carried and why.

Read in this order: why_not (what can stand in the way), same_object (whether both are of one), relocated (an object's
relocations, those that the assembler resolved by itself included), landings (for those that are too short to leave a
section), correlated (which old symbol a new one is), readings (what else a place in a section may mean), pieces and
needed (what comes along), side_tables (the entries that belong to carried code), runtime_tables (places that the kernel
fills in while it boots), laid_out (where everything goes), beside (what was made, walked beside what it was made of),
same_meaning (and the canonical form of both), begun_anew (whose value may be lost), extraction (all of it in order).
"""
