# SPDX-License-Identifier: GPL-2.0-only
"""Checksums of every function of a kernel build, and what changed between two builds."""

__version__ = "0.1.0"
