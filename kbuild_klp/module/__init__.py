# SPDX-License-Identifier: GPL-2.0-only
"""From the changes between two trees to a livepatch module.

In: two builds. Out: livepatch-NAME.ko for the kernel of the old one, what it carries, and what it cannot and why.

Read in this order: live_code (constants in the code of the kernel that runs), livepatch_elf (what the file of a
livepatch has and others have not), running (what a symbol is called there), loading (what the loader does too early),
late_objtool (what objtool has yet to do), sealed (what no pointer can be called to), runtime_constants (what nobody but
the kernel itself writes into code), glue (the C file that registers the patch), tools (the compiler), build (the
kernel's own module build), post_link (relocations for the livepatch loader), loader_tables (these, read back), finished
(the module, held beside what it was made of), glued (what it registers), loadable (whether the old kernel takes it),
work (a directory to work in), sign (a signature, if one is wanted), making (all of it in order), told (what is said of
it).
"""
