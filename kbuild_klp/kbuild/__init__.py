# SPDX-License-Identifier: GPL-2.0-only
"""What stands in a kernel tree: include points, Makefile.klp, the stand-in for objtool."""
