# SPDX-License-Identifier: GPL-2.0-only
"""A kernel build tree: what was built, from what, how, and which checksum files it has. Nothing about ELF."""
