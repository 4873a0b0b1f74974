# SPDX-License-Identifier: GPL-2.0-only
"""What ELF says, and nothing about the kernel."""
