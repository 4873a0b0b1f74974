# SPDX-License-Identifier: GPL-2.0-only
"""Why one function or variable differs: both versions beside each other, for people.

In: a change and both versions of the object. Out: reasons and listings, as data.

Read in this order: comparison (which instructions differ), tables (special sections), attributes (what the linker
sees), contents (code and data), origins (inlined functions), explainer, listing.
"""
